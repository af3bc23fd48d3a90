"""A machine's states as text, and how it came to them.

The totals of letters, or what another application has.
"""

import csv
import io
import json
from collections.abc import Mapping

import click

from alphabet.application import AllVotes
from alphabet.pipeline.machine import Machine
from alphabet.pipeline.state_text import state_rows
from alphabet.printing import format_letter
from recovery.moment import format_instant
from recovery.replay import Recovered


def format_totals(machine: Machine, format_: str, facts: Mapping[str, object]) -> str:
    """Write the states as whole lines of `table`, `json` or `csv`.

    JSON is one line, with `facts` before the totals.
    """
    if format_ == "json":
        return json.dumps({**facts, **_for_programs(machine)}) + "\n"
    if format_ == "csv":
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        is_other = _totals(machine) is None
        columns = ("state", "value") if is_other else ("letter", "votes")
        writer.writerows([columns, *_pairs(machine)])
        return text.getvalue()
    return "".join(f"{line}\n" for line in total_lines(machine))


def total_lines(machine: Machine) -> list[str]:
    """Write each total as `LETTER => TOTAL`, in the order of letters."""
    return [f"{name} => {value}" for name, value in _pairs(machine)]


def tell_notices(recovered: Recovered) -> None:
    """Say on standard error which snapshots were not used, and why."""
    for notice in recovered.notices:
        click.echo(f"snapshot {notice.sequence} not used: {notice.reason}", err=True)
    for sequence in recovered.ahead:
        click.echo(f"snapshot {sequence} not used: the log went on otherwise", err=True)


def tell_replay(recovered: Recovered, time_ns: int | None, seconds: float) -> None:
    """Say on standard error what moment it is, where it began and how fast it went.

    `time_ns` is the moment's, None before the first event; `seconds` is what it took.
    """
    moment = "" if time_ns is None else f" ({format_instant(time_ns)})"
    began = "snapshot" if recovered.is_snapshot else "log's base"
    rate = recovered.replayed / seconds if seconds else 0.0
    click.echo(
        f"after sequence {recovered.sequence}{moment}: began at the {began} "
        f"{recovered.start}, replayed {recovered.replayed} events in {seconds:.3f} s "
        f"({rate:,.0f}/s)",
        err=True,
    )


def _totals(machine: Machine) -> list[tuple[bytes, int]] | None:
    """Give the totals by letter, or None for another application."""
    states = [machine.state(name) for name in machine.state_names]
    if len(states) != 1 or not isinstance(states[0], AllVotes):
        return None
    votes = states[0].votes_by_letter.values()
    return sorted((vote.letter, vote.votes) for vote in votes)


def _state_rows(machine: Machine) -> list[tuple[str, str]]:
    """Tell another application's states, and those of a partition by their keys."""
    names = machine.state_names
    return [row for name in names for row in state_rows(name, machine.state(name))]


def _for_programs(machine: Machine) -> dict[str, object]:
    totals = _totals(machine)
    if totals is None:
        return {"states": dict(_state_rows(machine))}
    return {"totals": {letter.decode("latin-1"): total for letter, total in totals}}


def _pairs(machine: Machine) -> list[tuple[str, str]]:
    """Give what is printed of each letter, or state."""
    totals = _totals(machine)
    if totals is None:
        return _state_rows(machine)
    return [(format_letter(letter), str(total)) for letter, total in totals]
