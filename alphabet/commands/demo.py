"""`alphabet demo`: the main job with a crash in its middle, for people to watch."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import click

from alphabet.command_line import (
    CannotServeError,
    DamageError,
    option,
    sigterm_as_sigint,
)
from alphabet.printing import format_letter
from alphabet.sending.vote_input import VoteInputError
from alphabet.trial.children import ChildError, Children
from alphabet.trial.demo import Demonstration, Display, Plan
from alphabet.trial.vote_sum import VoteSum, sum_votes, write_votes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rich.console import Console, RenderableType
    from rich.live import Live
    from rich.progress import Progress

SENDING_SECONDS = 4.0
"""How long the votes take at the default pace: time enough to see something."""
LETTERS_SHOWN_MAX = 28
COLUMNS = 4


@click.command()
@click.argument(
    "file", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
@option(
    "--votes",
    metavar="N",
    type=click.IntRange(min=1),
    default=300_000,
    show_default=True,
    help="How many random votes to count if there is no FILE.",
)
@option(
    "--seed",
    type=int,
    default=0,
    show_default=True,
    help="Which random votes: a seed always makes the same ones.",
)
@option(
    "--rate",
    metavar="VOTES_PER_SECOND",
    type=click.FloatRange(min=0, min_open=True),
    help="The sender's pace.  [default: all votes in 4 seconds]",
)
@option(
    "--data-dir",
    type=click.Path(path_type=Path),
    help="Keep the log here, for a look at it; must be new or empty."
    "  [default: a temporary directory]",
)
def demo(
    *,
    file: Path | None,
    votes: int,
    seed: int,
    rate: float | None,
    data_dir: Path | None,
) -> None:
    """Count votes through a crash and show that none was lost.

    Starts a server, a sender of FILE (frames; random votes without one) and a
    receiver, kills the server in mid-stream, starts it again, and compares the totals
    with the file's own sum. Exit code 0 says that all are equal, 1 that they are not.
    """
    _check_empty(data_dir)
    with (
        sigterm_as_sigint(),
        tempfile.TemporaryDirectory(prefix="alphabet-demo-") as name,
    ):
        directory = Path(name)
        if file is None:
            file = directory / "votes"
            write_votes(file, votes, seed)
        expected = _sum(file)
        faults = _demonstrate(
            Plan(
                file=file,
                expected=expected,
                data_dir=data_dir or directory / "data",
                directory=directory,
                rate=rate or expected.votes / SENDING_SECONDS,
            )
        )
    for fault in faults:
        click.echo(f"DIFFERENT: {fault}")
    if faults:
        raise DamageError("the totals are not the file's")
    click.echo(
        f"EQUAL: the log's totals and the receiver's are the file's own sum, for each "
        f"of {len(expected.totals)} letters"
    )
    if data_dir is not None:
        click.echo(f"the log stays: alphabet-replay info {data_dir}")


def _check_empty(data_dir: Path | None) -> None:
    """Refuse a directory that holds something: votes of another day would count."""
    if data_dir is None or not data_dir.exists():
        return
    if not data_dir.is_dir() or any(data_dir.iterdir()):
        raise CannotServeError(
            f"{data_dir} is not empty; the demo needs a new or empty directory"
        )


def _sum(file: Path) -> VoteSum:
    try:
        expected = sum_votes(file)
    except VoteInputError as error:
        raise DamageError(f"{file}: {error}") from error
    if not expected.votes:
        raise DamageError(f"{file}: there are no votes in it")
    return expected


def _demonstrate(plan: Plan) -> list[str]:
    """Run it before whoever watches; give what is not as it should be."""
    total = sum(plan.expected.totals.values())
    with (
        _display(plan.expected) as display,
        Children(plan.directory) as children,
    ):
        display.say(f"{plan.expected.votes} votes in the file, worth {total}")
        try:
            return Demonstration(plan, children, display).run()
        except ChildError as error:
            raise CannotServeError(f"the demo could not go on: {error}") from error


@contextlib.contextmanager
def _display(expected: VoteSum) -> Iterator[Display]:
    """Show a live table and a bar on a terminal, and plain lines in a pipe."""
    from rich.console import Console

    console = Console(highlight=False, markup=False, soft_wrap=True)
    if not console.is_terminal:
        yield _Lines(console)
        return
    from rich import progress
    from rich.live import Live

    bar = progress.Progress(
        progress.TextColumn("counted"),
        progress.BarColumn(bar_width=60),
        progress.TaskProgressColumn(),
        progress.TimeElapsedColumn(),
    )
    bar.add_task("counted", total=sum(expected.totals.values()))
    with Live(console=console) as live:
        screen = _Screen(console, expected.totals, live, bar)
        screen.update({})
        yield screen


@attrs.frozen
class _Lines:
    """What happened, a line each."""

    console: Console

    def say(self, line: str) -> None:
        self.console.print(line)

    def update(self, totals: Mapping[str, int]) -> None:
        """Say nothing: a pipe is for the events."""


@attrs.frozen
class _Screen:
    """What happened, above a table of the totals and a bar."""

    console: Console
    expected: Mapping[str, int]
    live: Live
    bar: Progress

    def say(self, line: str) -> None:
        self.console.print(line)

    def update(self, totals: Mapping[str, int]) -> None:
        from rich.console import Group

        for task in self.bar.task_ids:
            self.bar.update(task, completed=sum(totals.values()))
        table = _table(self.expected, totals)
        self.live.update(Group(table, self.bar), refresh=True)


def _table(expected: Mapping[str, int], totals: Mapping[str, int]) -> RenderableType:
    """Lay out each letter's total so far, green once it is the file's."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title="totals received", show_header=False)
    letters = sorted(expected)[:LETTERS_SHOWN_MAX]
    rows = -(-len(letters) // COLUMNS)
    for row in range(rows):
        cells: list[Text] = []
        for letter in letters[row::rows]:
            is_whole = totals.get(letter) == expected[letter]
            style = "bold green" if is_whole else ""
            name = format_letter(letter.encode("latin-1"))
            cells += [Text(name), Text(f"{totals.get(letter, 0):>13,}", style)]
        table.add_row(*cells)
    return table
