"""What can go wrong under a log, made to go wrong on purpose.

To survive, with nothing lost that was acknowledged:

- the process is killed at any instant, in creation too;
- a commit fails and is not stored (`Fault.LOST`);
- a commit fails and is stored all the same (`Fault.KEPT`);
- a commit fails, and from then on nothing can be begun (`Fault.REFUSED`);
- the disk is full for a while (`Fault.FULL`), or the map is;
- the power fails: see `tests/power_loss.py`.

To detect, and to name the place of:

- a byte of a block or a row that is in use changed (`flip_bit`, `Store.commit` on
  a table directly), a page gone (`zero_page`), the file cut (`cut`);
- a block or a row missing, doubled, in another's place, or of another log;
- the newest transaction withdrawn by a damaged meta page;
- a log of another application, schema, newer format, or of the other engine.

To detect no further than the newest snapshot reaches: a whole file that went back
to an earlier state. Not detected, and harmless: damage where nothing is in use.
"""

import enum
import mmap
from collections.abc import Sequence
from pathlib import Path

import attrs

from log.errors import CommitError, DirectoryError, DiskFullError
from log.store import Change, Store

ENOSPC = 28


class Fault(enum.Enum):
    """How one commit fails."""

    LOST = "it fails, and nothing is stored"
    KEPT = "it fails, and everything is stored"
    FULL = "no room: nothing is stored, and it may be tried again"
    REFUSED = "it fails, and nothing can be read or begun any more"


@attrs.define
class FaultyStore:
    """A `Store` whose next commits fail as `faults` says, first come first served."""

    inner: Store
    faults: list[Fault] = attrs.Factory(list)
    _is_refusing: bool = False

    @property
    def path(self) -> Path:
        """Where the store below is."""
        return self.inner.path

    def commit(self, changes: Sequence[Change], sequence: int) -> None:
        """Commit, or fail as the next fault says."""
        self._check()
        fault = self.faults.pop(0) if self.faults else None
        if fault in {None, Fault.KEPT}:
            self.inner.commit(changes, sequence)
        self._is_refusing = fault is Fault.REFUSED
        if fault is Fault.FULL:
            raise DiskFullError(self.path, sequence, ENOSPC)
        if fault is not None:
            raise CommitError(self.path, sequence, fault.value)

    def get(self, table: str, key: bytes) -> bytes | None:
        """Give the value stored under a key."""
        self._check()
        return self.inner.get(table, key)

    def floor(self, table: str, key: bytes) -> tuple[bytes, bytes] | None:
        """Give the row with the greatest key at or below `key` (inclusive)."""
        self._check()
        return self.inner.floor(table, key)

    def scan(
        self, table: str, start: bytes, bytes_max: int
    ) -> list[tuple[bytes, bytes]]:
        """Give rows from key `start` (inclusive) upward."""
        self._check()
        return self.inner.scan(table, start, bytes_max)

    def drop_dead_readers(self) -> int:
        """Free what readers held; see `Store.drop_dead_readers`."""
        return self.inner.drop_dead_readers()

    def close(self) -> None:
        """Close the store below."""
        self.inner.close()

    def _check(self) -> None:
        if self._is_refusing:
            raise DirectoryError(self.path, Fault.REFUSED.value)


def flip_bit(file: Path, offset: int, bit: int = 0) -> None:
    """Change one bit of a file."""
    data = bytearray(file.read_bytes())
    data[offset] ^= 1 << bit
    file.write_bytes(data)


def zero_page(file: Path, number: int, page_bytes: int = mmap.PAGESIZE) -> None:
    """Make a page of a file zeros."""
    data = bytearray(file.read_bytes())
    data[number * page_bytes : (number + 1) * page_bytes] = bytes(page_bytes)
    file.write_bytes(data)


def cut(file: Path, file_bytes: int) -> None:
    """Cut a file to a size."""
    with file.open("r+b") as stream:
        stream.truncate(file_bytes)
