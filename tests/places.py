"""The two stores as one fixture's parameter: where a store is, opened again and again.

A place outlives the stores that are opened on it, as a disk outlives a process.
"""

from pathlib import Path
from typing import Protocol

import attrs
import pytest

from log.lmdb_store import DATA_FILE, LmdbStore
from log.memory_store import MemoryDisk, MemoryStore
from log.store import Store


class Place(Protocol):
    """Where one store is."""

    def open(self) -> Store:
        """Open the store, as a process does that starts; the first call makes it."""


@attrs.define
class MemoryPlace:
    """A disk in memory."""

    disk: MemoryDisk = attrs.Factory(MemoryDisk)

    def open(self) -> Store:
        """Open the store on the disk."""
        return MemoryStore(self.disk)


@attrs.define
class LmdbPlace:
    """A directory. A store on it is closed before the next is opened."""

    path: Path
    map_bytes: int = 1 << 26
    _opened: LmdbStore | None = None

    def open(self) -> Store:
        """Open the store in the directory."""
        if self._opened is not None:
            self._opened.close()
        is_new = not (self.path / DATA_FILE).exists()
        self._opened = LmdbStore.open(
            self.path, is_new=is_new, map_bytes=self.map_bytes
        )
        return self._opened


@pytest.fixture(params=["memory", "lmdb"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Return a place with nothing in it yet, one for each kind of store."""
    return MemoryPlace() if request.param == "memory" else LmdbPlace(tmp_path)
