"""A file as bytes at places, and nothing more: what a damaged log is read through.

No map and no LMDB: a file that is cut while it is read, or a disk that cannot read a
sector, is not the end of the process. What cannot be read counts as zeros, and is
remembered. The edge: one file, opened for reading.
"""

import contextlib
import errno
import os
from pathlib import Path
from typing import Self

import attrs

READ_BYTES = 4096
"""What is lost with a byte that the disk cannot read."""


@attrs.define
class RawFile:
    """A file opened for reading at any place.

    `size` is its length in bytes when it was opened. `unreadable_bytes` counts what
    the disk would not give, the same place as often as it was asked for.
    """

    size: int
    _descriptor: int
    unreadable_bytes: int = 0

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open a file; raises OSError."""
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        return cls(os.fstat(descriptor).st_size, descriptor)

    def read(self, start: int, length: int) -> bytes:
        """Give the bytes from `start` on: `length` of them, or up to the file's end.

        Raises OSError for what is no fault of the disk's sectors.
        """
        length = min(length, self.size - start)
        if length <= 0:
            return b""
        # What fails, and why, is told by its parts.
        with contextlib.suppress(OSError):
            data = os.pread(self._descriptor, length, start)
            if len(data) == length:
                return data
        return self._read_by_parts(start, length)

    def _read_by_parts(self, start: int, length: int) -> bytes:
        """Read piece by piece, with zeros where nothing comes."""
        parts = []
        end = start + length
        while start < end:
            wanted = min(READ_BYTES - start % READ_BYTES, end - start)
            try:
                part = os.pread(self._descriptor, wanted, start)
            except OSError as error:
                if error.errno != errno.EIO:
                    raise
                part = b""
            if not part:
                self.unreadable_bytes += wanted
                part = bytes(wanted)
            parts.append(part)
            start += len(part)
        return b"".join(parts)

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)
