"""The `alphabet-replay` command: look at a log, rebuild its state, prove it.

The one module of `recovery` that looks up at `alphabet`, to know its application.
Every command runs in a child process: a file so damaged that looking at it kills the
process is a finding, not a crash.
"""

import contextlib
import csv
import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs
import click

from alphabet.application import AllVotes
from alphabet.command_line import CannotServeError, DamageError, option, run_command
from alphabet.loading import ApplicationError, load_machine
from alphabet.machine import Machine
from alphabet.printing import format_letter
from alphabet.version import describe_version
from log.directory import LOG, DataDirectory
from log.errors import DamagedError, DirectoryError, ForeignError, LockedError
from log.lmdb_store import DATA_FILE
from log.log import Log
from recovery.child import DAMAGE_SIGNALS, run_in_child
from recovery.compact import CompactError, choose_base, read_snapshot
from recovery.compact import compact as write_compacted
from recovery.description import describe_log, field_lines, finding_line
from recovery.errors import RecoveryError
from recovery.replay import Recovered, Replayer
from recovery.snapshot_directory import SnapshotDirectory
from recovery.verify import DAMAGE, Finding, Verification, Verifier

PROGRAM = "alphabet-replay"


@attrs.frozen
class Place:
    """A data directory opened for looking at it."""

    log: Log
    snapshots: SnapshotDirectory
    replayer: Replayer
    machine: Machine | None

    def require_machine(self) -> Machine:
        """Give the application's machine, which this command needs."""
        assert self.machine is not None  # noqa: S101 - the commands' own affair
        return self.machine


@contextlib.contextmanager
def opened(
    data_dir: Path,
    application_module: str | None = None,
    *,
    needs_machine: bool = True,
    are_gaps_accepted: bool = False,
    is_damage_accepted: bool = False,
) -> Iterator[Place]:
    """Open a data directory read-only; failures become the command's one line."""
    try:
        directory = DataDirectory(data_dir)
        log = directory.open_log(
            is_read_only=True, is_damage_accepted=is_damage_accepted
        )
        with contextlib.closing(log):
            machine = None
            if needs_machine:
                machine = load_machine(application_module, [])
                log.require(
                    machine.application, machine.record_schema, machine.pipeline_names
                )
            snapshots = SnapshotDirectory(directory.snapshots_path)
            replayer = Replayer(
                log,
                snapshots,
                is_lost_tail_accepted=True,
                are_gaps_accepted=are_gaps_accepted,
            )
            yield Place(log, snapshots, replayer, machine)
    except (DamagedError, RecoveryError) as error:
        raise DamageError(str(error)) from error
    except (DirectoryError, ForeignError, LockedError, ApplicationError) as error:
        raise CannotServeError(str(error)) from error


def format_options(
    *formats: str,
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add `--format` with the formats given, and `--json` for short."""

    def add(function: Callable[..., None]) -> Callable[..., None]:
        choice = click.Choice(list(formats))
        settings = {"type": choice, "default": formats[0], "show_default": True}
        function = option("--format", "format_", help="How to print.", **settings)(
            function
        )
        short = option(
            "--json", "format_", flag_value="json", help="Short for --format json."
        )
        return short(function)

    return add


def machine_option(function: Callable[..., None]) -> Callable[..., None]:
    """Add `--application-module`."""
    return option(
        "--application-module",
        metavar="NAME",
        help="The application that wrote the log.  [default: Alphabet's own]",
    )(function)


data_dir_argument = click.argument("data_dir", type=click.Path(path_type=Path))


@click.group()
@click.version_option("", message=describe_version(PROGRAM), help="Print what this is.")
def replay() -> None:
    """Look at a log, rebuild its state at any event, and prove that both are sound.

    Works beside a live server, on a stopped one's data directory and on a read-only
    copy; changes nothing in it.
    """


@replay.command()
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
        with _progress(until) as progress:
            recovered = place.replayer.recover(machine, until, progress)
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


@replay.command()
@data_dir_argument
@format_options("table", "json")
def info(*, data_dir: Path, format_: str) -> None:
    """Print what a log is, how far it goes, and who has read how much of it."""
    with opened(data_dir, needs_machine=False) as place:
        data_bytes = (data_dir / LOG / DATA_FILE).stat().st_size
        found = describe_log(place.log, place.snapshots, data_bytes)
    if format_ == "json":
        click.echo(json.dumps(found))
        return
    for name, value in found.items():
        for line in field_lines(name, value):
            click.echo(line)


@replay.command()
@data_dir_argument
@option("--bytes-only", is_flag=True, help="Replay nothing: needs no application.")
@machine_option
@format_options("table", "json")
def verify(
    *,
    data_dir: Path,
    bytes_only: bool,
    application_module: str | None,
    format_: str,
) -> None:
    """Check every checksum, link and sequence, and each snapshot against a replay.

    Exit code 1 and the first damaged place if the log is not sound.
    """
    try:
        with (
            opened(
                data_dir,
                application_module,
                needs_machine=not bytes_only,
                is_damage_accepted=True,
            ) as place,
            _progress(place.log.tail.sequence) as progress,
        ):
            result = Verifier(place.log, place.snapshots, place.machine, progress).run()
    except DamageError as error:
        result = Verification(findings=[_finding(error)])
    if format_ == "json":
        click.echo(_verification_json(result))
    else:
        for finding in result.findings:
            click.echo(finding_line(finding))
        if not result.damage:
            click.echo(
                f"sound: {result.events} events in {result.blocks} blocks, "
                f"{result.snapshots} snapshots"
            )
    if result.damage:
        count = len(result.damage)
        first = finding_line(result.damage[0])
        more = f" ({count - 1} more)" if count > 1 else ""
        raise DamageError(f"{data_dir}: {first}{more}")


@replay.command()
@data_dir_argument
@click.argument("to", type=click.Path(path_type=Path))
@option(
    "--from-snapshot",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="FILE",
    help="Begin at this snapshot, even if the log ends before it.",
)
@machine_option
def compact(
    *,
    data_dir: Path,
    to: Path,
    from_snapshot: Path | None,
    application_module: str | None,
) -> None:
    """Write a new log to TO that begins at a snapshot; the old one is only read."""
    with opened(data_dir, application_module) as place:
        machine = place.require_machine()
        try:
            if from_snapshot is None:
                snapshot = choose_base(place.replayer, machine)
            else:
                snapshot = read_snapshot(from_snapshot, place.replayer, machine)
        except CompactError as error:
            raise DamageError(str(error)) from error
        target = DataDirectory.claim(to)
        try:
            with _progress(place.log.tail.sequence) as progress:
                result = write_compacted(place.log, snapshot, target, progress)
        finally:
            target.release()
    if result.is_fork:
        click.echo(
            f"the log went on otherwise than the snapshot at {result.base_sequence}: "
            "its events stay behind",
            err=True,
        )
    for name in result.moved_sinks:
        click.echo(
            f"sink {name} was behind sequence {result.base_sequence} and goes on there",
            err=True,
        )
    click.echo(
        f"log {result.log_id} in {to}: begins after {result.base_sequence}, ends at "
        f"{result.last_sequence}"
    )


def _finding(error: DamageError) -> Finding:
    """Make a finding of what kept a log from being looked at."""
    cause = error.__cause__
    if isinstance(cause, DamagedError):
        return Finding(DAMAGE, "log", cause.reason, cause.sequence)
    return Finding(DAMAGE, "log", error.format_message())


def _verification_json(result: Verification) -> str:
    return json.dumps({"ok": not result.damage, **attrs.asdict(result)})


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


@contextlib.contextmanager
def _progress(total: int) -> Iterator[Callable[[int], None]]:
    """Show on a terminal how far a replay has come."""
    if not sys.stderr.isatty():
        yield lambda _sequence: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("replay", total=total)
        yield lambda sequence: bar.update(task, completed=sequence)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the `alphabet-replay` command in this process; gives its exit code."""
    return run_command(replay, PROGRAM, argv)


def run_program() -> None:
    """Run the command as a program, in a child that damage may kill."""
    code = run_in_child(main)
    if -code in DAMAGE_SIGNALS:
        name = signal.Signals(-code).name
        reason = f"reading the log ended the process with {name}: its file is damaged"
        if "verify" in sys.argv and _is_json_asked():
            finding = Finding(DAMAGE, "log", reason)
            click.echo(_verification_json(Verification(findings=[finding])))
        click.echo(f"{PROGRAM}: {reason}", err=True)
        code = DamageError.exit_code
    # A child that was told to end, ends us as shells have it.
    sys.exit(code if code >= 0 else 128 - code)


def _is_json_asked() -> bool:
    """Say whether the command line, which the child has read, asks for JSON."""
    words = " ".join(sys.argv[1:])
    asked = re.search(r"(?:^| )--(?:json|format[ =]json)(?: |$)", words)
    return bool(asked) or os.environ.get("ALPHABET_FORMAT") == "json"


if __name__ == "__main__":
    run_program()
