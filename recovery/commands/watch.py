"""The totals as they change: redrawn on a terminal, one table after another in a pipe.

Between two looks nothing is open, so a server may end, be away and start again.
"""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import click

from alphabet.pipeline.machine import Machine
from recovery.commands.endless import ended_by_signal, is_read_for
from recovery.commands.place import opened
from recovery.commands.progress import progress
from recovery.commands.totals import (
    format_totals,
    tell_notices,
    tell_replay,
    total_lines,
)
from recovery.follower import Follower
from recovery.moment import format_instant

Show = Callable[[Machine, int, int | None], None]
"""Shows a machine's totals after a sequence, at a time in ns (None: no event yet)."""


def watch_totals(
    data_dir: Path,
    application_module: str | None,
    *,
    are_gaps_accepted: bool,
    interval_seconds: float,
    format_: str,
) -> None:
    """Print the totals, and again after each change, until a signal ends it."""
    is_screen = format_ == "table" and sys.stdout.isatty()
    with (
        opened(
            data_dir, application_module, are_gaps_accepted=are_gaps_accepted
        ) as place,
        progress(place.log.tail.sequence) as bar,
    ):
        machine = place.require_machine()
        follower = Follower(machine)
        started = time.perf_counter()
        recovered = follower.begin(place.replayer, bar)
        seconds = time.perf_counter() - started
    tell_notices(recovered)
    if format_ == "table":
        tell_replay(recovered, follower.time_ns, seconds)
    with ended_by_signal(), _screen() if is_screen else _paper(format_) as show:
        show(machine, follower.sequence, follower.time_ns)
        while is_read_for(interval_seconds):
            with opened(
                data_dir, needs_machine=False, are_gaps_accepted=are_gaps_accepted
            ) as place:
                has_changed = follower.catch_up(place.replayer)
            if has_changed:
                show(machine, follower.sequence, follower.time_ns)


@contextlib.contextmanager
def _screen() -> Iterator[Show]:
    """Redraw the totals in place, in as many columns as fit."""
    from rich.columns import Columns
    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    with Live(auto_refresh=False) as live:

        def show(machine: Machine, sequence: int, time_ns: int | None) -> None:
            moment = "" if time_ns is None else f" ({format_instant(time_ns)})"
            totals = [Text(line) for line in total_lines(machine)]
            line = Text(f"after sequence {sequence}{moment}; Ctrl-C ends", "dim")
            columns = Columns(totals, padding=(0, 4), equal=True, column_first=True)
            live.update(Group(columns, line), refresh=True)

        yield show


@contextlib.contextmanager
def _paper(format_: str) -> Iterator[Show]:
    """Print whole tables with a blank line between two; JSON has an object a line."""
    separator = ""

    def show(machine: Machine, sequence: int, time_ns: int | None) -> None:
        nonlocal separator
        moment = None if time_ns is None else format_instant(time_ns)
        facts = {"sequence": sequence, "time": moment}
        text = format_totals(machine, format_, facts)
        click.echo(separator + text if text else "", nl=False)
        if text and format_ != "json":
            separator = "\n"

    yield show
