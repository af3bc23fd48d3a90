"""A damaged file's tables as a store that is only read, and never through LMDB.

LMDB may end the process where its tree is damaged. So `inspect_file` walks the tree
first, and where that finds a flaw a `TreeStore` gives what is left. The edge: files,
a clock, and a server that may go on beside us.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, Self, TypeVar

import attrs

from log.lmdb_check import Structure, check_structure
from log.lmdb_store import KEY_BYTES, hold_pages, open_data, read_meta, reading
from log.lmdb_tree import TreeFile
from log.store import Change

HOLD_SECONDS_MAX = 1.0
"""How long a server is kept from using pages anew: its file grows meanwhile."""

_LOOKS_MAX = 10
T = TypeVar("T")


def inspect_file(
    path: Path,
    *,
    is_alone: bool = False,
    progress: Callable[[int], None] = lambda _pages: None,
) -> Structure:
    """Walk every tree of the store in a directory, without LMDB's reading any.

    The pages are held while they are looked at, for a while, but where we are alone.
    Raises DirectoryError, ForeignError, or DamagedError for the meta pages.
    """
    with ExitStack() as stack:
        let_go = None if is_alone else stack.enter_context(hold_pages(path))
        deadline = time.monotonic() + HOLD_SECONDS_MAX

        def go_on(pages: int) -> None:
            nonlocal let_go
            if let_go is not None and time.monotonic() > deadline:
                let_go()
                let_go = None
            progress(pages)

        meta = read_meta(path)
        stream = stack.enter_context(open_data(path))
        found = check_structure(meta, reading(stream.fileno()), KEY_BYTES, go_on)
        is_certain = let_go is not None or _is_kept(path, meta.transaction_id)
    return attrs.evolve(found, is_certain=is_certain)


@attrs.define
class TreeStore:
    """A `Store` of what can be reached in a damaged file; a commit is an error."""

    path: Path
    _stream: BinaryIO

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open the store in a directory; raises DirectoryError."""
        return cls(path, open_data(path))

    def commit(self, changes: Sequence[Change], sequence: int) -> None:
        """Raise ValueError: what is damaged is only read."""
        reason = f"{len(changes)} changes after {sequence} to a store that is damaged"
        raise ValueError(reason)

    def get(self, table: str, key: bytes) -> bytes | None:
        """Give the value stored under a key, if it can be reached."""
        for found, value in self.scan(table, key, 1):
            if found == key:
                return value
        return None

    def floor(self, table: str, key: bytes) -> tuple[bytes, bytes] | None:
        """Give the row with the greatest key at or below `key` that can be reached."""

        def find(file: TreeFile) -> tuple[bytes, bytes] | None:
            record = file.tables().get(table.encode())
            return None if record is None else file.floor(record, key)

        return self._look(find)

    def scan(
        self, table: str, start: bytes, bytes_max: int
    ) -> list[tuple[bytes, bytes]]:
        """Give rows from key `start` (inclusive) upward; see `Store.scan`."""

        def collect(file: TreeFile) -> list[tuple[bytes, bytes]]:
            record = file.tables().get(table.encode())
            return [] if record is None else file.rows_of(record, start, bytes_max)

        return self._look(collect)

    def drop_dead_readers(self) -> int:
        """Free what readers held; see `Store.drop_dead_readers`."""
        return 0

    def close(self) -> None:
        """Close the file."""
        self._stream.close()

    def _look(self, look: Callable[[TreeFile], T]) -> T:
        """Look at one transaction's trees; again, where a server changed them."""
        read = reading(self._stream.fileno())
        looks = 0
        while True:
            meta = read_meta(self.path)
            found = look(TreeFile(meta, read))
            looks += 1
            if looks == _LOOKS_MAX or _is_kept(self.path, meta.transaction_id):
                return found


def _is_kept(path: Path, transaction_id: int) -> bool:
    """Say whether no page of a transaction can have been used anew yet.

    LMDB uses a page anew in the third transaction after the last that reached it, and
    may write it before it commits.
    """
    return read_meta(path).transaction_id <= transaction_id + 1
