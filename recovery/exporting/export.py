"""A log as Parquet files in a directory, that a later run goes on with.

```
TO/
  00000000000000000001-00000000000000000010-LOG_ID.parquet    by size, or
  day=2026-11-26/00000000000000000001-…-LOG_ID.parquet        by day
```

Invariants: a segment has its name whole and flushed, or not at all, and is never
changed then; each event is in one segment; a segment of another log, or of a log that
went on otherwise, is never added to. One process writes at a time. The edge: files.
"""

import contextlib
import fcntl
import itertools
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Self

import attrs

from log import failpoint
from log.block import Block
from log.directory import flush_directory
from log.errors import DamagedError, DirectoryError
from log.log import Log
from recovery.exporting.event_columns import ColumnError, Form
from recovery.exporting.parquet_file import (
    ForeignFileError,
    ParquetFileError,
    read_label,
    write_segment,
)
from recovery.exporting.segment import Label, Plan, Segment

_TEMPORARY = ".tmp"
_DAY = re.compile(r"day=\d{4}-\d\d-\d\d")
_STRANGERS = "what another export wrote, or choose another directory"
_HIDDEN = (".", "_")
"""How names begin that readers of Parquet pass over, and so do we."""


BRING_BACK = (
    "bring back the file as it was, or go on in another directory, with --after the "
    "last event that its readers have"
)
"""What to do where a file is missed that may not be written anew under any name."""


class ExportError(ValueError):
    """An export that cannot be, or cannot go on; says why and what can."""


@attrs.frozen
class Written:
    """A segment that has its name, what it says of itself, and its size."""

    segment: Segment
    label: Label
    file_bytes: int

    @property
    def events(self) -> int:
        """How many rows it has: lost events have none."""
        label = self.label
        lost = sum(count for _, count in label.gaps)
        return label.last_sequence - label.first_sequence + 1 - lost


@attrs.define
class ExportDirectory:
    """The directory that an export is in, held by this process alone."""

    path: Path
    oldest: Segment | None = None
    newest: Segment | None = None

    @classmethod
    @contextlib.contextmanager
    def claim(cls, path: Path) -> Iterator[Self]:
        """Take a directory for a while, making it where it is missing.

        Its parent is never made; nothing in it is changed. Raises DirectoryError for
        what is no directory, holds anything but an export, or is in use, ExportError
        for an export that is not whole.
        """
        with failures_of(path):
            lock = _take(path)
        try:
            with failures_of(path):
                segments = _ordered(path, _find_segments(path))
            yield cls(path, *segments[:1], *segments[-1:])
        finally:
            os.close(lock)

    @property
    def last_sequence(self) -> int | None:
        """The last event that is exported, or None where there is none."""
        return None if self.newest is None else self.newest.last_sequence

    @property
    def is_by_day(self) -> bool | None:
        """Say whether it is partitioned by day; None where nothing is there yet."""
        return None if self.newest is None else self.newest.day is not None

    def check(self, log: Log, form: Form, *, is_removable: bool = True) -> Label | None:
        """Give the newest segment's label; None where nothing is there yet.

        `is_removable` says whether the newest segment would be written anew if it were
        away. Raises ExportError unless a log, in this form, is the one that goes on
        here.
        """
        newest = self.newest
        if newest is None:
            return None
        file = self.path / newest.file
        check_log(self.path, newest, log)
        if not file.exists():
            raise ExportError(
                f"{file} is gone: bring it back, or start again to write it anew"
            )
        try:
            label = read_label(file, form)
        except ForeignFileError as error:
            raise ExportError(f"{file}: {error}; choose another directory") from error
        except ParquetFileError as error:
            way = "remove it, and its events are exported again"
            raise ExportError(
                f"{file}: {error}; {way if is_removable else BRING_BACK}"
            ) from error
        named = (newest.log_id, newest.first_sequence, newest.last_sequence)
        told = (label.log_id, label.first_sequence, label.last_sequence)
        if named != told:
            raise ExportError(
                f"{file} was renamed: it holds events {told[1]} to {told[2]}; call it "
                f"{Path(label.segment.file).name} again"
            )
        check_witness(log, file, label)
        return label

    def prepare(self) -> list[str]:
        """Make durable what an earlier run may have left; give the names removed.

        A start that was killed leaves names that were never flushed, or a temporary.
        """
        directories = {self.path}
        if self.newest is not None:
            directories.add((self.path / self.newest.file).parent)
        with failures_of(self.path):
            for directory in directories:
                flush_directory(directory)
            # A parent that we may not read was not the one we made it in.
            with contextlib.suppress(PermissionError):
                flush_directory(self.path.parent)
            left_over = [name for name in _files(self.path) if _is_temporary(name)]
            for name in left_over:
                (self.path / name).unlink()
        return left_over

    def write(self, segment: Segment, fill: Callable[[BinaryIO], Label]) -> Written:
        """Let a segment's file be filled, then give it its name, durable on return."""
        file = self.path / segment.file
        temporary = _temporary_of(file)
        if file.parent != self.path:
            with contextlib.suppress(FileExistsError):
                file.parent.mkdir()
            flush_directory(self.path)
        try:
            with temporary.open("wb") as stream:
                failpoint.reach("export.after_create")
                label = fill(stream)
                stream.flush()
                os.fsync(stream.fileno())
                file_bytes = stream.tell()
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        failpoint.reach("export.before_rename")
        temporary.rename(file)
        failpoint.reach("export.after_rename")
        flush_directory(file.parent)
        failpoint.reach("export.after_flush")
        self.oldest, self.newest = self.oldest or segment, segment
        return Written(segment, label, file_bytes)


@attrs.frozen
class Exporter:
    """Writes what a directory lacks of a log; `progress` is told how far it came."""

    log: Log
    directory: ExportDirectory
    plan: Plan
    progress: Callable[[int], None] = lambda _sequence: None

    def export(self, after: int, until: int) -> Iterator[Written]:
        """Write the events after `after` (exclusive) up to `until` (inclusive).

        Gives each segment once it is durable. Raises DamagedError at the first event
        that is damaged, once those before it are written, ExportError for one that no
        column can hold, DirectoryError for a directory that cannot be written.
        """
        damage: DamagedError | None = None
        with failures_of(self.directory.path):
            while after < until:
                try:
                    segment = self.plan.next_segment(after, until)
                    written = self.directory.write(segment, self._filling(segment))
                except DamagedError as error:
                    # What is intact before it still makes a segment.
                    if not after + 1 < (error.sequence or 0) <= until:
                        raise
                    damage, until = error, (error.sequence or 0) - 1
                    continue
                yield written
                after = segment.last_sequence
        if damage is not None:
            raise damage

    def _filling(self, segment: Segment) -> Callable[[BinaryIO], Label]:
        log = self.log

        def fill(stream: BinaryIO) -> Label:
            blocks = ((block, ()) for block in log.read(segment.first_sequence - 1))
            return write_segment(stream, segment, Form(log.meta), blocks, self.progress)

        return fill


def block_holding(log: Log, sequence: int) -> Block:
    """Give the block that holds an event; raises DamagedError where it is missing."""
    block = log.block_at(sequence)
    if block is None or block.last_sequence < sequence:
        missing = log.base.sequence if block is None else block.last_sequence
        raise DamagedError(log.store.path, missing + 1, "its block is missing")
    return block


@contextlib.contextmanager
def failures_of(path: Path) -> Iterator[None]:
    """Tell what the system refuses as a DirectoryError, events as an ExportError."""
    try:
        yield
    except BlockingIOError as error:
        raise DirectoryError(path, "another export is writing to it") from error
    except FileNotFoundError as error:
        reason = f"its parent {path.parent} does not exist; make it first"
        raise DirectoryError(path, reason) from error
    except NotADirectoryError as error:
        place = "it" if path.exists() else f"its parent {path.parent}"
        raise DirectoryError(path, f"{place} is not a directory") from error
    except OSError as error:
        reason = f"it cannot be written: {error.strerror or error}"
        raise DirectoryError(path, reason) from error
    except ColumnError as error:
        raise ExportError(str(error)) from error


def _take(path: Path) -> int:
    """Make a directory where it is missing, and lock it; closing unlocks it."""
    with contextlib.suppress(FileExistsError):
        path.mkdir()
    lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        os.close(lock)
        raise
    return lock


def _files(path: Path) -> list[str]:
    """Give what is in a directory and its days' directories, as paths below it."""
    found: list[str] = []
    for entry in sorted(path.iterdir()):
        is_day = _DAY.fullmatch(entry.name) and entry.is_dir()
        inside = sorted(entry.iterdir()) if is_day else [entry]
        found += [str(file.relative_to(path)) for file in inside]
    return found


def _temporary_of(file: Path) -> Path:
    """Give the name that a file has while it is written; readers pass it over."""
    return file.with_name(f".{file.name}{_TEMPORARY}")


def _is_temporary(name: str) -> bool:
    file = Path(name)
    whole = file.with_name(file.name.removeprefix(".").removesuffix(_TEMPORARY))
    is_segment = Segment.parse(str(whole)) is not None
    return is_segment and file == _temporary_of(whole)


def _find_segments(path: Path) -> Iterator[Segment]:
    """Give the segments of a directory; raises DirectoryError for anything else."""
    for name in _files(path):
        if Path(name).name.startswith(_HIDDEN):
            continue
        segment = Segment.parse(name)
        if segment is None:
            reason = f"it holds {name!r}; choose an empty or new directory"
            raise DirectoryError(path, reason)
        yield segment


def _ordered(path: Path, segments: Iterator[Segment]) -> tuple[Segment, ...]:
    """Give segments in order; raises ExportError unless they are one export."""
    found = sorted(segments, key=lambda segment: segment.first_sequence)
    way = "bring the file back, or move away all before it that readers are done with"
    for before, after in itertools.pairwise(found):
        check_follows(path, before, after, way)
    return tuple(found)


def check_log(path: Path, newest: Segment, log: Log) -> None:
    """Raise ExportError unless an export, whose newest segment is this, is of a log."""
    if newest.log_id == log.meta.log_id:
        return
    last = newest.last_sequence
    is_child = log.meta.parent_id == newest.log_id
    is_there = is_child and log.base.sequence <= last <= log.tail.sequence
    way = f", with --after {last}: it was made from that one" if is_there else ""
    raise ExportError(
        f"{path} holds the export of log {newest.log_id}, and this is "
        f"{log.meta.log_id}; choose another directory{way}"
    )


def check_follows(path: Path, before: Segment, after: Segment, way: str) -> None:
    """Raise ExportError unless a segment goes on where another ends.

    `way` says what can be done where there is a hole between them.
    """
    if before.log_id != after.log_id:
        raise ExportError(
            f"{path} holds exports of logs {before.log_id} and {after.log_id}; choose "
            "another directory"
        )
    if (before.day is None) != (after.day is None):
        raise ExportError(
            f"{path} holds segments by day and by size; move away {_STRANGERS}"
        )
    expected = before.last_sequence + 1
    if after.first_sequence > expected:
        raise ExportError(
            f"{path} lacks events {expected} to {after.first_sequence - 1}: {way}"
        )
    if after.first_sequence < expected:
        raise ExportError(
            f"{path} has events {after.first_sequence} to {before.last_sequence} "
            f"twice, in {before.file} and {after.file}; move away {_STRANGERS}"
        )


def check_witness(log: Log, file: Path, label: Label) -> None:
    """Raise ExportError unless a log still has the block that a segment ends in."""
    end = label.block_last_sequence
    if end > log.tail.sequence:
        raise ExportError(
            f"{file} was exported from a log that reached {end}, and this one ends at "
            f"{log.tail.sequence}: its tail was lost; choose another directory"
        )
    found = log.tail_at(end)
    if (found.sequence, found.checksum) != (end, label.block_checksum):
        raise ExportError(
            f"{file} was exported from a log that went on otherwise: the block that "
            f"ends at {end} is another; choose another directory"
        )
