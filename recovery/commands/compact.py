"""`alphabet-replay compact`: a new log that begins at a snapshot."""

from pathlib import Path

import click

from alphabet.command_line import (
    CannotServeError,
    DamageError,
    option,
    sigterm_as_sigint,
)
from alphabet.framing import encode_frame
from alphabet.pipeline.machine import Machine
from alphabet.records.record_frames import FrameFormError, check_headers, frame_records
from log.block import Block
from log.errors import CommitError, DiskFullError
from recovery.archive import Archive
from recovery.commands.place import (
    Place,
    data_dir_argument,
    machine_option,
    opened,
    to_argument,
)
from recovery.commands.progress import progress
from recovery.compact import (
    Compacted,
    CompactError,
    NoBaseError,
    choose_base,
    lost_until,
    read_snapshot,
)
from recovery.compact import compact as write_compacted
from recovery.new_place import check_apart, new_place
from recovery.room import SPARE_BYTES, check_room, estimate_bytes
from recovery.snapshot import Snapshot


@click.command()
@data_dir_argument
@to_argument
@option(
    "--from-snapshot",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Begin at this snapshot, even if the log ends before it; a name alone is "
    "one of DATA_DIR's.",
)
@option(
    "--archive",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write the events that are left out to FILE, for `alphabet send`.",
)
@option("--accept-gaps", is_flag=True, help="Begin behind events that are lost.")
@machine_option
def compact(
    *,
    data_dir: Path,
    to: Path,
    from_snapshot: Path | None,
    archive: Path | None,
    accept_gaps: bool,
    application_module: str | None,
) -> None:
    """Write a new log to TO that begins at a snapshot; the old one is only read.

    The snapshot is the newest that every sink is past, held against a replay.
    """
    with (
        opened(data_dir, application_module, are_gaps_accepted=accept_gaps) as place,
        sigterm_as_sigint(),
    ):
        # What cannot be is said before the long work.
        check_apart(to, data_dir)
        events = None if archive is None else _archive(archive, data_dir, to, place)
        snapshot = _find_snapshot(place, from_snapshot and _named(place, from_snapshot))
        _check_room(place, snapshot, to, events)
        result = _write(place, snapshot, data_dir, to, events)
    _tell(result, to, archive)


def _named(place: Place, file: Path) -> Path:
    """Give the snapshot file that is meant, as `snapshots` names them; or complain."""
    found = next(
        (each for each in (file, place.snapshots.path / file) if each.is_file()), None
    )
    if found is None:
        raise click.BadParameter(f"file {str(file)!r} does not exist")
    return found


def _find_snapshot(place: Place, file: Path | None) -> Snapshot:
    """Give the snapshot to begin at, and say what cannot be known of it."""
    machine = place.require_machine()
    log = place.log
    try:
        with progress(log.tail.sequence, "check", start=log.base.sequence) as show:
            if file is None:
                snapshot = choose_base(place.replayer, machine, show)
            else:
                snapshot = read_snapshot(file, place.replayer, machine, show)
    except NoBaseError as error:
        raise CannotServeError(str(error)) from error
    except CompactError as error:
        raise DamageError(str(error)) from error
    for first, last in lost_until(log, snapshot.sequence):
        click.echo(
            f"events {first} to {last} are lost: snapshot {snapshot.sequence} cannot "
            "be held against a replay, and is taken as it is",
            err=True,
        )
    return snapshot


def _write(
    place: Place, snapshot: Snapshot, data_dir: Path, to: Path, archive: Archive | None
) -> Compacted:
    log = place.log
    start = min(snapshot.sequence, log.tail.sequence)
    try:
        with (
            new_place(to, data_dir) as target,
            progress(log.tail.sequence, "write", start=start) as show,
        ):
            return write_compacted(log, snapshot, target, show, archive)
    except DiskFullError as error:
        reason = "its disk is full; make room, or choose another disk"
        raise CannotServeError(f"{to}: {reason}; nothing was left there") from error
    except CommitError as error:
        raise CannotServeError(f"{error.reason}; nothing was left in {to}") from error


def _archive(file: Path, data_dir: Path, to: Path, place: Place) -> Archive:
    """Give the archive to be written; raises DirectoryError where it cannot be."""
    check_apart(file, data_dir)
    check_apart(file, to)
    if file.resolve() == to.resolve():
        raise click.UsageError("TO and --archive name one place")
    names = place.log.meta.pipelines
    if len(names) > 1:
        raise click.UsageError(
            f"--archive holds one pipeline's events, and the log has {len(names)} "
            f"({', '.join(names)}); write them with 'alphabet-replay events'"
        )
    machine = place.require_machine()
    archive = Archive(file, lambda block: _frames(machine, block))
    archive.check()
    return archive


def _frames(machine: Machine, block: Block) -> bytes:
    """Give a block's events as frames that the application reads."""
    decoder = machine.definition.pipelines[block.pipeline].source.decoder
    header_bytes = decoder.header_length()
    try:
        check_headers(block.records, header_bytes, decoder.payload_length)
        return frame_records(block.records, header_bytes)
    except (FrameFormError, OverflowError) as error:
        raise CannotServeError(
            f"event {block.first_sequence} and those after it cannot be archived as "
            f"frames of this application: {error}"
        ) from error


def _check_room(
    place: Place, snapshot: Snapshot, to: Path, archive: Archive | None
) -> None:
    """Raise DirectoryError where a disk has too little room for what is written."""
    log = place.log
    end = log.tail.sequence
    needed = {
        to: estimate_bytes(log, snapshot.sequence, end)
        + len(snapshot.encode())
        + SPARE_BYTES
    }
    if archive is not None:
        needed[archive.file] = estimate_bytes(
            log,
            log.base.sequence,
            min(snapshot.sequence, end),
            lambda block: (
                len(block.records.body) + block.records.count * len(encode_frame(b""))
            ),
        )
    check_room(needed)


def _tell(result: Compacted, to: Path, archive: Path | None) -> None:
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
    if archive is not None:
        click.echo(f"{result.archived} events in {archive}")
    click.echo(
        f"log {result.log_id} in {to}: begins after {result.base_sequence}, ends at "
        f"{result.last_sequence}"
    )
