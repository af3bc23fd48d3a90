"""`alphabet-replay state`: the totals at any moment of the past, or from now on."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import click

from alphabet.command_line import DamageError, option
from log.errors import DamagedError
from recovery.commands.endless import interval_option
from recovery.commands.moment_type import MomentType
from recovery.commands.place import (
    Place,
    data_dir_argument,
    format_options,
    machine_option,
    opened,
)
from recovery.commands.progress import progress
from recovery.commands.totals import format_totals, tell_notices, tell_replay
from recovery.commands.watch import watch_totals
from recovery.errors import SnapshotError
from recovery.moment import (
    Instant,
    Moment,
    MomentError,
    find_end_damage,
    find_sequence,
    find_time,
    format_instant,
)


@click.command()
@data_dir_argument
@option(
    "--at",
    type=MomentType(),
    metavar="SEQ|TIME",
    help="The state after this event, inclusive (0 is before the first), or at this "
    "time: ISO 8601, UTC unless it says otherwise.",
)
@option("--watch", is_flag=True, help="Go on, and print the totals as they change.")
@interval_option("--watch")
@option("--accept-gaps", is_flag=True, help="Pass over events that are lost.")
@machine_option
@format_options("table", "json", "csv")
def state(
    *,
    data_dir: Path,
    at: Moment | None,
    watch: bool,
    interval_seconds: float,
    accept_gaps: bool,
    application_module: str | None,
    format_: str,
) -> None:
    """Print the totals, now or at any moment of the past.

    A log that is damaged has the totals of every moment before that. With --watch they
    are printed anew after each change, also while the server is away, until Ctrl-C.
    """
    if watch and at is not None:
        raise click.UsageError("--watch follows the log's end: it takes no --at")
    with _ways_past_damage(data_dir):
        if watch:
            watch_totals(
                data_dir,
                application_module,
                are_gaps_accepted=accept_gaps,
                interval_seconds=interval_seconds,
                format_=format_,
            )
            return
        with opened(
            data_dir,
            application_module,
            are_gaps_accepted=accept_gaps,
            is_damage_accepted=True,
        ) as place:
            _print_state(place, at, format_)


@contextlib.contextmanager
def _ways_past_damage(data_dir: Path) -> Iterator[None]:
    """Let the line that tells of a damaged place name the ways past it."""
    try:
        yield
    except DamageError as error:
        cause = error.__cause__
        if not isinstance(cause, DamagedError) or cause.sequence is None:
            raise
        raise DamageError(
            f"{cause.path} is damaged at sequence {cause.sequence}: {cause.reason}; "
            f"--at {cause.sequence - 1} gives the totals before it, 'alphabet-replay "
            f"salvage {data_dir} TO' saves what is intact"
        ) from cause


def _print_state(place: Place, at: Moment | None, format_: str) -> None:
    log = place.log
    damage = find_end_damage(log)
    if damage is not None and at is None:
        raise damage
    try:
        until = log.tail.sequence if at is None else find_sequence(log, at)
    except MomentError as error:
        raise click.UsageError(f"--at {error}") from error
    if isinstance(at, Instant) and log.base.sequence == until > 0:
        raise click.UsageError(
            f"--at {format_instant(at.time_ns)} is before the first event of this log, "
            f"which begins after sequence {until}: --at {until} gives the totals that "
            "it begins with"
        )
    if damage is not None:
        click.echo(
            f"{damage.path} is damaged at sequence {damage.sequence}: {damage.reason}; "
            "this is a moment before it",
            err=True,
        )
    machine = place.require_machine()
    started = time.perf_counter()
    with progress(until) as show:
        recovered = place.replayer.recover(machine, until, show)
    seconds = time.perf_counter() - started
    time_ns = find_time(log, until)
    tell_notices(recovered)
    facts = {
        "sequence": until,
        "time": None if time_ns is None else format_instant(time_ns),
        "snapshot": recovered.start if recovered.is_snapshot else None,
        "replayed": recovered.replayed,
        "seconds": round(seconds, 6),
    }
    click.echo(format_totals(machine, format_, facts), nl=False)
    if format_ == "table":
        tell_replay(recovered, time_ns, seconds)
    if at is None:
        _check_tail(place)


def _check_tail(place: Place) -> None:
    """Raise DamageError if a snapshot tells that the log's last events were lost."""
    sequences = place.snapshots.sequences()
    # A server may have gone on, and taken the newest since.
    place.log.refresh()
    last = place.log.tail.sequence
    for sequence in [each for each in sequences if each > last]:
        try:
            found = place.snapshots.read(sequence)
        except SnapshotError:
            continue
        if found.log_id == place.log.meta.log_id:
            raise DamageError(
                f"{place.log.store.path} ends at sequence {last}, and there is a "
                f"snapshot at {sequence}: what came between is lost, and these totals "
                "lack it; 'alphabet-replay snapshots' names the file, 'alphabet-replay "
                "compact' takes it with --from-snapshot"
            )
