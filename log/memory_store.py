"""The store in memory: the verified fake that tests and simulations use.

It passes the contract tests that `LmdbStore` passes. A `MemoryDisk` outlives the
store on it, as a disk outlives a process. Nothing here is durable, or fast.
"""

from collections.abc import Sequence
from pathlib import Path

import attrs

from log.store import TABLES, Change


@attrs.define
class MemoryDisk:
    """The tables of a store, kept across its closing."""

    tables: dict[str, dict[bytes, bytes]] = attrs.Factory(
        lambda: {table: {} for table in TABLES}
    )


@attrs.define
class MemoryStore:
    """A `Store` whose transactions are whole because they are applied to a copy."""

    disk: MemoryDisk = attrs.Factory(MemoryDisk)
    path: Path = Path("memory")
    _is_closed: bool = False

    def commit(self, changes: Sequence[Change], sequence: int) -> None:
        """Apply all changes at once; see `Store.commit`."""
        del sequence
        tables = {table: dict(rows) for table, rows in self._tables.items()}
        for change in changes:
            rows = tables[change.table]
            if change.value is None:
                rows.pop(change.key, None)
            elif change.is_append and rows and change.key <= max(rows):
                raise ValueError(f"{change.key.hex()} is not above the last key")
            else:
                rows[change.key] = change.value
        self.disk.tables = tables

    def get(self, table: str, key: bytes) -> bytes | None:
        """Give the value stored under a key."""
        return self._tables[table].get(key)

    def floor(self, table: str, key: bytes) -> tuple[bytes, bytes] | None:
        """Give the row with the greatest key at or below `key` (inclusive)."""
        rows = self._tables[table]
        found = max((row for row in rows if row <= key), default=None)
        return None if found is None else (found, rows[found])

    def scan(
        self, table: str, start: bytes, bytes_max: int
    ) -> list[tuple[bytes, bytes]]:
        """Give rows from key `start` (inclusive) upward; see `Store.scan`."""
        rows = self._tables[table]
        found: list[tuple[bytes, bytes]] = []
        size = 0
        for key in sorted(row for row in rows if row >= start):
            found.append((key, rows[key]))
            size += len(rows[key])
            if size >= bytes_max:
                break
        return found

    def drop_dead_readers(self) -> int:
        """Free what readers held; see `Store.drop_dead_readers`."""
        return 0

    def close(self) -> None:
        """Refuse every later use."""
        self._is_closed = True

    @property
    def _tables(self) -> dict[str, dict[bytes, bytes]]:
        if self._is_closed:
            raise ValueError("the store is closed")
        return self.disk.tables
