"""`alphabet-replay state`: the totals, now or at any moment of the past."""

import csv
import json
import sys
import time
from pathlib import Path
from typing import Any

import click

from alphabet.application import AllVotes
from alphabet.command_line import option
from alphabet.machine import Machine
from alphabet.printing import format_letter
from log.log import Log
from recovery.commands.place import (
    data_dir_argument,
    format_options,
    machine_option,
    opened,
)
from recovery.commands.progress import progress
from recovery.replay import Recovered


@click.command()
@data_dir_argument
@option(
    "--at",
    type=click.IntRange(min=0),
    metavar="SEQ",
    help="The state after this event, inclusive; 0 is before the first.",
)
@option("--accept-gaps", is_flag=True, help="Pass over events that are lost.")
@machine_option
@format_options("table", "json", "csv")
def state(
    *,
    data_dir: Path,
    at: int | None,
    accept_gaps: bool,
    application_module: str | None,
    format_: str,
) -> None:
    """Print the totals, now or after any event of the past."""
    with opened(data_dir, application_module, are_gaps_accepted=accept_gaps) as place:
        _check_range(place.log, at)
        machine = place.require_machine()
        started = time.perf_counter()
        until = place.log.tail.sequence if at is None else at
        with progress(until) as show:
            recovered = place.replayer.recover(machine, until, show)
        seconds = time.perf_counter() - started
        for notice in recovered.notices:
            click.echo(
                f"snapshot {notice.sequence} not used: {notice.reason}", err=True
            )
        for sequence in recovered.ahead:
            click.echo(
                f"snapshot {sequence} not used: the log went on otherwise", err=True
            )
        _print_state(machine, recovered, seconds, format_)


def _check_range(log: Log, at: int | None) -> None:
    if at is not None and not log.base.sequence <= at <= log.tail.sequence:
        raise click.UsageError(
            f"--at {at} is not in the log, which goes from {log.base.sequence} to "
            f"{log.tail.sequence}"
        )


def _totals(machine: Machine) -> dict[str, int] | None:
    """Give the totals by letter (Latin-1), or None for another application."""
    states = [machine.state(name) for name in machine.state_names]
    if len(states) != 1 or not isinstance(states[0], AllVotes):
        return None
    votes = sorted(states[0].votes_by_letter.values(), key=lambda vote: vote.letter)
    return {vote.letter.decode("latin-1"): vote.votes for vote in votes}


def _print_state(
    machine: Machine, recovered: Recovered, seconds: float, format_: str
) -> None:
    totals = _totals(machine)
    if format_ == "json":
        found: dict[str, Any] = {"sequence": recovered.sequence}
        if totals is None:
            found["states"] = {n: repr(machine.state(n)) for n in machine.state_names}
        else:
            found["totals"] = totals
        click.echo(json.dumps(found))
        return
    rows = (
        [(name, repr(machine.state(name))) for name in machine.state_names]
        if totals is None
        else [
            (format_letter(letter.encode("latin-1")), str(total))
            for letter, total in totals.items()
        ]
    )
    if format_ == "csv":
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerows([("letter", "votes"), *rows])
        return
    for name, value in rows:
        click.echo(f"{name} => {value}")
    began = "snapshot" if recovered.is_snapshot else "log's base"
    rate = recovered.replayed / seconds if seconds else 0.0
    click.echo(
        f"after sequence {recovered.sequence}: began at the {began} {recovered.start}, "
        f"replayed {recovered.replayed} events in {seconds:.3f} s ({rate:,.0f}/s)",
        err=True,
    )
