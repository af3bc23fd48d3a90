"""A file of frames: events as they came over the wire, for a sender to send again.

It appears under its name whole and flushed, or not at all, and never in the place of
another file. What a frame looks like is the application's affair.
"""

import contextlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path

import attrs

from log import failpoint
from log.block import Block
from log.directory import flush_directory
from log.errors import DirectoryError

_FILE_MODE = 0o600


@attrs.frozen
class Archive:
    """A file to be written; `frames` gives the frames of a block's events."""

    file: Path
    frames: Callable[[Block], bytes]

    def check(self) -> None:
        """Raise DirectoryError for a name that is taken, or has no directory."""
        try:
            is_taken = self.file.exists() or self.file.is_symlink()
            has_place = self.file.parent.is_dir()
        except OSError as error:
            raise self._refusal(f"it cannot be written: {error.strerror}") from error
        if is_taken:
            raise self._refusal("it is there already; remove it, or choose another")
        if not has_place:
            place = self.file.parent
            raise self._refusal(f"its directory {place} does not exist; make it first")

    def write(self, blocks: Iterable[Block]) -> int:
        """Write the blocks' events, durable on return; gives how many there were.

        Raises DirectoryError where there is no room, or the name is taken.
        """
        temporary = self.file.with_name(f".{self.file.name}.tmp")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        count = 0
        try:
            with os.fdopen(os.open(temporary, flags, _FILE_MODE), "wb") as stream:
                for block in blocks:
                    if not block.records.is_gap:
                        stream.write(self.frames(block))
                        count += block.records.count
                stream.flush()
                os.fsync(stream.fileno())
            failpoint.reach("archive.before_rename")
            self.check()
            temporary.rename(self.file)
            failpoint.reach("archive.after_rename")
            flush_directory(self.file.parent)
        except OSError as error:
            raise self._refusal(f"it cannot be written: {error.strerror}") from error
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink()
        return count

    def _refusal(self, reason: str) -> DirectoryError:
        return DirectoryError(self.file, reason)
