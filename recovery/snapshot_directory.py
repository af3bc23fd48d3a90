"""The snapshots of one data directory, as files.

A snapshot appears under its name whole and flushed, or not at all: temporary
file, fsync, rename, fsync of the directory. Names sort by sequence. One that
cannot be used is renamed, never deleted. The edge: files and nothing else.
"""

import contextlib
import functools
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import attrs

from log import failpoint
from log.directory import flush_directory
from log.errors import DirectoryError
from recovery.errors import SnapshotError
from recovery.snapshot import HEAD_BYTES, Snapshot, announced_bytes, has_checksum

SUFFIX = ".snapshot"
BROKEN = ".broken"
AHEAD = ".ahead"
KEPT_MAX = 3

_TEMPORARY = ".tmp"
_PIECE_BYTES = 1 << 20
_DIRECTORY_MODE = 0o700
_FILE_MODE = 0o600


def read_snapshot(file: Path) -> Snapshot:
    """Read a snapshot's file; raises SnapshotError for anything else.

    Nobody is waited for, as at a pipe, and no more is read than the file says that
    it has, nor held at once before that has its checksum: a wrong one may be of any
    length, and what it says may be wrong.
    """
    try:
        with open(file, "rb", opener=_open_at_once) as stream:
            found = os.fstat(stream.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise SnapshotError("it cannot be read: it is no regular file")
            data = stream.read(min(HEAD_BYTES, found.st_size))
            told_bytes = announced_bytes(data)
            if told_bytes > len(data):
                data = _read_large(stream, told_bytes, found.st_size)
    except OSError as error:
        raise SnapshotError(f"it cannot be read: {error.strerror}") from error
    return Snapshot.decode(data)


def _read_large(stream: BinaryIO, told_bytes: int, file_bytes: int) -> bytes:
    if told_bytes != file_bytes:
        raise SnapshotError(f"it is to have {told_bytes} bytes, and has {file_bytes}")
    stream.seek(0)
    if not has_checksum(iter(functools.partial(stream.read, _PIECE_BYTES), b"")):
        raise SnapshotError("its checksum does not match")
    stream.seek(0)
    return stream.read(told_bytes)


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


@attrs.define
class SnapshotDirectory:
    """Snapshots by sequence; missing until the first one is written."""

    path: Path

    def sequences(self) -> list[int]:
        """Give the sequences of all snapshots in use, newest first.

        Raises DirectoryError for a directory that may not be read.
        """
        files = [file for file in self._files() if file.suffix == SUFFIX]
        found = ((int(file.stem), file) for file in files if file.stem.isdecimal())
        # Whatever has a name of another form is not ours.
        ours = (sequence for sequence, file in found if file == self.file(sequence))
        return sorted(ours, reverse=True)

    def _files(self) -> list[Path]:
        try:
            return list(self.path.iterdir())
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            # To take it for empty would be to say that there are no snapshots.
            reason = f"it cannot be read: {error.strerror}"
            raise DirectoryError(self.path, reason) from error

    def file(self, sequence: int) -> Path:
        """Give the name of the snapshot at a sequence."""
        return self.path / f"{sequence:020}{SUFFIX}"

    def read(self, sequence: int) -> Snapshot:
        """Read a snapshot; raises SnapshotError for a damaged or unreadable one."""
        snapshot = read_snapshot(self.file(sequence))
        if snapshot.sequence != sequence:
            raise SnapshotError(f"it is the snapshot at {snapshot.sequence}")
        return snapshot

    def newest(self, at_most: int) -> Iterator[tuple[int, Snapshot | SnapshotError]]:
        """Give snapshots at or below a sequence (inclusive), newest first.

        One that cannot be read comes as the error that says why. One that was
        removed meanwhile, by the server that it belongs to, is left out.
        """
        for sequence in self.sequences():
            if sequence <= at_most:
                try:
                    yield sequence, self.read(sequence)
                except SnapshotError as error:
                    if self.file(sequence).exists():
                        yield sequence, error

    def write(self, snapshot: Snapshot) -> Path:
        """Write a snapshot, durable on return; raises OSError."""
        with contextlib.suppress(FileExistsError):
            self.path.mkdir(_DIRECTORY_MODE)
            flush_directory(self.path.parent)
        file = self.file(snapshot.sequence)
        temporary = file.with_suffix(_TEMPORARY)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        try:
            with os.fdopen(os.open(temporary, flags, _FILE_MODE), "wb") as stream:
                stream.write(snapshot.encode())
                stream.flush()
                os.fsync(stream.fileno())
            failpoint.reach("snapshot.before_rename")
            temporary.rename(file)
        except OSError:
            # Half a snapshot would keep the room that a full disk wants.
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        failpoint.reach("snapshot.after_rename")
        flush_directory(self.path)
        return file

    def set_aside(self, sequence: int, suffix: str) -> Path:
        """Rename a snapshot that is not to be used; gives its new name.

        One that was set aside before it, at the same sequence, keeps its own.
        """
        file = self.file(sequence)
        aside = first = file.with_name(file.name + suffix)
        number = 1
        while aside.exists():
            number += 1
            aside = first.with_name(f"{first.name}.{number}")
        file.rename(aside)
        flush_directory(self.path)
        return aside

    def prune(self, needed: int | None) -> None:
        """Remove what nobody needs any more, and what a crash left unfinished.

        Kept are the newest three, and the newest at or below `needed`: the lowest
        sequence that a sink may have to begin from.
        """
        sequences = self.sequences()
        kept = set(sequences[:KEPT_MAX])
        if needed is not None:
            kept.update([s for s in sequences if s <= needed][:1])
        for sequence in set(sequences) - kept:
            self.file(sequence).unlink(missing_ok=True)
        for left_over in self.path.glob(f"*{_TEMPORARY}"):
            left_over.unlink(missing_ok=True)
