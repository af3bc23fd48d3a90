"""`alphabet bench`: what this machine's Alphabet can do, in two minutes."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import click

from alphabet.command_line import (
    CannotServeError,
    DamageError,
    option,
    sigterm_as_sigint,
)
from alphabet.trial.children import ChildError
from alphabet.trial.figure import Figure, format_number
from alphabet.trial.flood import FloodError
from alphabet.trial.output_check import WrongOutputError
from alphabet.trial.self_bench import Plan, SelfBench


@click.command()
@option(
    "--votes",
    metavar="N",
    type=click.IntRange(min=1),
    default=20_000_000,
    show_default=True,
    help="How many votes a flood has, and the log that servers are restarted on.",
)
@option(
    "--round-trips",
    metavar="N",
    type=click.IntRange(min=1),
    default=5000,
    show_default=True,
    help="How many lone votes are sent.",
)
@option(
    "--runs",
    metavar="N",
    type=click.IntRange(min=1),
    default=5,
    show_default=True,
    help="How often each is measured.",
)
@option(
    "--format",
    "format_",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="How to print.",
)
@option("--json", "format_", flag_value="json", help="Short for --format json.")
def bench(*, votes: int, round_trips: int, runs: int, format_: str) -> None:
    """Measure this server on this machine.

    Votes per second end to end, a lone vote's round trip, bytes on disk, restarts
    after SIGKILL: medians, and how far the runs lie apart. Everything is written to
    TMPDIR, whose disk is the one measured, and removed. Exit code 1 says that the
    server has sent or kept something wrong.
    """
    with (
        sigterm_as_sigint(),
        tempfile.TemporaryDirectory(prefix="alphabet-bench-") as name,
    ):
        plan = Plan(votes, round_trips, runs)
        measurement = SelfBench(
            plan, Path(name), lambda line: click.echo(line, err=True)
        )
        try:
            figures = measurement.run()
        except WrongOutputError as error:
            raise DamageError(str(error)) from error
        except (ChildError, FloodError) as error:
            raise CannotServeError(f"cannot measure: {error}") from error
    if format_ == "json":
        click.echo(json.dumps([_as_record(figure) for figure in figures]))
        return
    width = max(len(figure.name) for figure in figures)
    click.echo(f"{'':{width}}  {'median':>12} {'lowest':>12} {'highest':>12}")
    for figure in figures:
        numbers = (figure.median, figure.lowest, figure.highest)
        cells = " ".join(f"{format_number(number):>12}" for number in numbers)
        click.echo(f"{figure.name:{width}}  {cells} {figure.unit}")


def _as_record(figure: Figure) -> dict[str, object]:
    """Give a figure as JSON has it."""
    return {
        "name": figure.name,
        "unit": figure.unit,
        "median": figure.median,
        "values": list(figure.values),
    }
