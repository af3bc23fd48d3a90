"""`alphabet-replay import`: a new log from files of frames."""

import contextlib
import os
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import click

from alphabet.command_line import (
    CannotServeError,
    DamageError,
    option,
    sigterm_as_sigint,
)
from alphabet.loading import ApplicationError, load_machine, offline_arguments
from alphabet.pipeline.machine import Machine
from alphabet.records.wire_import import BLOCK_BYTES, BadFrameError, WireImport
from log.directory import LOG, DataDirectory
from log.errors import CommitError, DiskFullError, LogError
from log.lmdb_store import DATA_FILE
from log.row import Meta
from recovery.commands.place import to_argument
from recovery.commands.progress import progress
from recovery.errors import StateError
from recovery.new_place import new_place
from recovery.replay import take_snapshot
from recovery.snapshot_directory import SnapshotDirectory

STANDARD = "-"
FRAME_BYTES_MAX = 1 << 29
"""The highest --max-frame-bytes: a block must have room for it."""


@click.command("import")
@to_argument
@click.argument(
    "files",
    metavar="FILE...",
    nargs=-1,
    required=True,
    type=click.Path(exists=True, dir_okay=False, readable=True, allow_dash=True),
)
@option("--skip-bad", is_flag=True, help="Count bad frames and leave them out.")
@option(
    "--max-frame-bytes",
    type=click.IntRange(min=0, max=FRAME_BYTES_MAX),
    metavar="BYTES",
    default=1 << 20,
    show_default=True,
    help="The longest payload taken; a longer one is bad, and its file's end.",
)
@option(
    "--pipeline",
    metavar="NAME",
    help="The pipeline that the frames are for.  [default: the first]",
)
@option(
    "--application-module",
    metavar="NAME",
    help="The application that the log is for.  [default: Alphabet's own]",
)
def import_(
    *,
    to: Path,
    files: Sequence[str],
    skip_bad: bool,
    max_frame_bytes: int,
    pipeline: str | None,
    application_module: str | None,
) -> None:
    """Write a new log to TO from files of frames, one after the other.

    FILE holds what `alphabet send` reads and `alphabet-replay events --format wire`
    writes; - is standard input. The log is the one that a server would have written.
    A bad frame is named by file and byte, and then no log is made.
    """
    if files.count(STANDARD) > 1:
        raise click.UsageError("standard input can be read only once")
    try:
        machine = load_machine(application_module, offline_arguments())
        machine.dump()  # A state that cannot be stored is told before the work.
        number = _pipeline_number(machine, pipeline)
        with sigterm_as_sigint(), new_place(to, _enclosing(to)) as directory:
            with directory.new_log(_new_meta(machine)) as log:
                work = WireImport(
                    log, machine, number, max_frame_bytes, skip_bad, time.time_ns
                )
                _take(work, files)
                work.finish()
            _write_last_snapshot(directory, machine)
    except BadFrameError as error:
        reason = "no log was made; mend it, or leave bad frames out with --skip-bad"
        raise DamageError(f"{error}: {reason}") from error
    except (CommitError, DiskFullError) as error:
        full = "no space left on its disk"
        reason = error.reason if isinstance(error, CommitError) else full
        raise CannotServeError(f"{to}: {reason}; no log was made") from error
    except (ApplicationError, LogError, StateError) as error:
        raise CannotServeError(str(error)) from error
    _report(work)
    click.echo(f"log {log.meta.log_id} in {to}: {log.tail.sequence} events")


def _pipeline_number(machine: Machine, name: str | None) -> int:
    names = machine.pipeline_names
    if name is None:
        return 0
    if name not in names:
        known = ", ".join(names)
        raise click.UsageError(f"there is no pipeline {name!r} (known: {known})")
    return names.index(name)


def _enclosing(to: Path) -> Path:
    """Give the data directory that a place is in by mistake, else the place itself."""
    for around in to.resolve().parents[:2]:
        if os.path.exists(around / LOG / DATA_FILE):  # noqa: PTH110 - False, whatever fails
            return around
    return to


def _new_meta(machine: Machine) -> Meta:
    return Meta(
        log_id=uuid.uuid4().hex,
        application=machine.application,
        pipelines=machine.pipeline_names,
        record_schema=machine.record_schema,
        created_ns=time.time_ns(),
    )


def _take(work: WireImport, files: Sequence[str]) -> None:
    """Take the files, in order; say of each that ends early where and why."""
    total = sum(Path(file).stat().st_size for file in files if file != STANDARD)
    passed = 0
    with progress(total, "import", unit="bytes") as show:

        def note(count: int) -> None:
            nonlocal passed
            passed += count
            show(passed)

        for file in files:
            name = "standard input" if file == STANDARD else file
            fault = work.take(name, _pieces(file, name, note))
            if fault is not None:
                place = f"{name}: byte {fault.position}: {fault.cause}"
                click.echo(f"{place}; the rest of it is left out", err=True)


def _pieces(file: str, name: str, note: Callable[[int], None]) -> Iterator[bytes]:
    """Read a file in pieces of one size, but for the last."""
    position = 0
    try:
        with _opened(file) as stream:
            while piece := stream.read(BLOCK_BYTES):
                yield piece
                position += len(piece)
                note(len(piece))
    except OSError as error:
        raise CannotServeError(
            f"{name}: byte {position}: {error.strerror}; no log was made"
        ) from error


def _opened(file: str) -> BinaryIO:
    if file == STANDARD:
        return open(sys.stdin.fileno(), "rb", closefd=False)
    return Path(file).open("rb")


def _write_last_snapshot(directory: DataDirectory, machine: Machine) -> None:
    """Keep the state of the last event, if it was marked, as a server's stop does."""
    if not machine.is_marked:
        return
    with contextlib.closing(directory.open_log(is_read_only=True)) as log:
        sequence = log.tail.sequence
        try:
            snapshot = take_snapshot(log, machine, sequence, machine.dump())
            SnapshotDirectory(directory.snapshots_path).write(snapshot)
        except (OSError, StateError) as error:
            click.echo(
                f"no snapshot at sequence {sequence}: {error}; a start replays all",
                err=True,
            )


def _report(work: WireImport) -> None:
    """Say what did not count, on standard error."""
    if work.first_skipped is not None:
        first = work.first_skipped
        click.echo(f"bad frames left out: {work.skipped}; the first: {first}", err=True)
    if work.failed:
        click.echo(
            f"failed events: {work.failed}; 'alphabet-replay rejects' tells why",
            err=True,
        )
