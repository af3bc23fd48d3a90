"""A progress bar with rate and time left on a terminal; silence in a pipe."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

NARROW = 60
"""A terminal with fewer columns is not told the unit of the rate."""

_SHOW_SECONDS = 0.05
"""The least time between two looks of the bar: work must not wait for it."""
_SIZES = ((1e9, " G"), (1e6, " M"), (1e3, " k"))
_MINUTE = 60
_TEN, _HUNDRED = 9.995, 99.95


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
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %  {task.fields[pace]}"),
    )
    console = Console(stderr=True)
    per = "/s" if console.width < NARROW else f" {unit}/s"
    shown = float("-inf")
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(doing, total=total - start, pace="")

        def show(reached: int) -> None:
            nonlocal shown
            now = time.monotonic()
            if now - shown < _SHOW_SECONDS:
                return
            shown = now
            bar.update(task, completed=reached - start)
            speed, left = bar.tasks[0].speed, bar.tasks[0].time_remaining
            pace = "" if speed is None else short(speed) + per
            if left is not None:
                pace += f"  {clock(left)} left"
            bar.update(task, pace=pace)

        yield show


def short(number: float) -> str:
    """Write a rate with three digits: `83.2 M`, `950`, `1.20 k`."""
    size, letter = next(
        (each for each in _SIZES if number >= each[0] * 0.9995), (1.0, "")
    )
    scaled = number / size
    digits = 0 if scaled >= _HUNDRED or not letter else 1 if scaled >= _TEN else 2
    return f"{scaled:.{digits}f}{letter}"


def clock(seconds: float) -> str:
    """Write a time to wait: `9 s`, `1:05`, `2:03:04`."""
    minutes, rest = divmod(round(seconds), _MINUTE)
    hours, minutes = divmod(minutes, _MINUTE)
    if hours:
        return f"{hours}:{minutes:02}:{rest:02}"
    return f"{minutes}:{rest:02}" if minutes else f"{rest} s"
