"""A progress bar with rate and time left on a terminal; silence in a pipe."""

import contextlib
import sys
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def progress(
    total: int, doing: str = "replay", *, start: int = 0, unit: str = "events"
) -> Iterator[Callable[[int], None]]:
    """Show on a terminal how far long work has come, from `start` to `total`.

    Gives what is to be called with the place reached, now and then: from `start`,
    in `unit`. `doing` is the one word that stands before the bar.
    """
    if not sys.stderr.isatty():
        yield lambda _reached: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %  {task.fields[rate]}"),
        TimeRemainingColumn(compact=True),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(doing, total=total - start, rate="")

        def show(reached: int) -> None:
            speed = bar.tasks[0].speed
            rate = "" if speed is None else f"{speed:,.0f} {unit}/s"
            bar.update(task, completed=reached - start, rate=rate)

        yield show
