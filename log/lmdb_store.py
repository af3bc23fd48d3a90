"""The store on LMDB: the only module that knows it.

What is relied on, and measured in docs/FORMAT.md: with default flags a commit
writes its pages, flushes them, and only then writes and flushes the meta page, so
a transaction is durable when `commit` returns and a failed one may be repeated.
One thread commits. Reads copy what they bring, in short transactions, so that no
reader holds pages back and the map may grow between them.
"""

import contextlib
import errno
import os
import resource
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Self, TypeVar

import attrs
import lmdb

from log import failpoint
from log.errors import (
    CommitError,
    DamagedError,
    DirectoryError,
    DiskFullError,
    ForeignError,
    LogError,
)
from log.lmdb_file import (
    META_PAGES,
    PAGE_BYTES_MAX,
    LmdbFileError,
    MetaPage,
    NewerEngineError,
    check_head,
)
from log.resident import give_back
from log.store import TABLES, Change

MAP_BYTES = 1 << 40
"""Address space reserved for the map: sparse, so it costs nothing on disk."""
MAP_BYTES_MIN = 1 << 20
DATA_FILE = "data.mdb"
LOCK_FILE = "lock.mdb"
FILE_MODE = 0o600

_FULL_CODES = {errno.ENOSPC, errno.EDQUOT}
_UNCLEAR_CODES = {errno.EIO, -30772}
"""Codes that a full disk gives too, after a short write."""
_NEARLY_FULL_BYTES = 1 << 20
_HEAD_TRIES = 3
_DAMAGE = (
    lmdb.CorruptedError,
    lmdb.InvalidError,
    lmdb.PageNotFoundError,
    lmdb.VersionMismatchError,
)

T = TypeVar("T")


@attrs.define
class LmdbStore:
    """A `Store` in a directory of LMDB's own files."""

    path: Path
    _environment: lmdb.Environment
    _tables: dict[str, lmdb._Database]
    _file_id: tuple[int, int]
    _reading: threading.Lock = attrs.Factory(threading.Lock)
    _is_closed: bool = False

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        is_new: bool = False,
        is_read_only: bool = False,
        is_alone: bool = False,
        map_bytes: int = MAP_BYTES,
    ) -> Self:
        """Open the store in a directory, or make it there.

        The file is checked before LMDB maps it. A reader that is alone, with no
        writer beside it, does without the lock file. Raises DamagedError, ForeignError
        or DirectoryError.
        """
        if not is_new:
            check_file(path)
        try:
            environment = _open_environment(
                path, map_bytes, is_read_only=is_read_only, has_lock=not is_alone
            )
            tables = {
                table: environment.open_db(table.encode(), create=is_new)
                for table in TABLES
            }
            file_id = _file_id(path)
        except lmdb.NotFoundError as error:
            raise DamagedError(path, None, f"a table is missing: {error}") from error
        except lmdb.Error as error:
            raise _read_failure(path, error) from error
        except OSError as error:
            raise DirectoryError(path, error.strerror or str(error)) from error
        return cls(path, environment, tables, file_id)

    def commit(self, changes: Sequence[Change], sequence: int) -> None:
        """Apply all changes, durable on return; see `Store.commit`."""
        while True:
            try:
                self._apply(changes)
            except lmdb.MapFullError as error:
                self._grow(sequence, error)
            except lmdb.Error as error:
                raise self._commit_failure(sequence, error) from error
            else:
                self._check_place(sequence)
                return

    def get(self, table: str, key: bytes) -> bytes | None:
        """Give the value stored under a key."""
        found = self._read(lambda reader: reader.get(key, db=self._tables[table]))
        return None if found is None else bytes(found)

    def floor(self, table: str, key: bytes) -> tuple[bytes, bytes] | None:
        """Give the row with the greatest key at or below `key` (inclusive)."""

        def find(reader: lmdb.Transaction) -> tuple[bytes, bytes] | None:
            with reader.cursor(self._tables[table]) as cursor:
                if cursor.set_range(key):
                    is_found = cursor.key() == key or cursor.prev()
                else:
                    is_found = cursor.last()
                return (
                    (bytes(cursor.key()), bytes(cursor.value())) if is_found else None
                )

        return self._read(find)

    def scan(
        self, table: str, start: bytes, bytes_max: int
    ) -> list[tuple[bytes, bytes]]:
        """Give rows from key `start` (inclusive) upward; see `Store.scan`."""

        def collect(reader: lmdb.Transaction) -> list[tuple[bytes, bytes]]:
            rows: list[tuple[bytes, bytes]] = []
            views: list[memoryview] = []
            size = 0
            with reader.cursor(self._tables[table]) as cursor:
                if not (cursor.set_range(start) if start else cursor.first()):
                    return rows
                for key, value in cursor:
                    rows.append((bytes(key), bytes(value)))
                    views.append(memoryview(value))
                    size += len(value)
                    if size >= bytes_max:
                        # It is a long read: what it has passed is not wanted again.
                        give_back(views)
                        break
            return rows

        return self._read(collect)

    def drop_dead_readers(self) -> int:
        """Free the slots of readers that were killed; they hold pages back."""
        return self._live.reader_check()

    def close(self) -> None:
        """Close the environment."""
        with self._reading:
            self._environment.close()
            self._is_closed = True

    @property
    def _live(self) -> lmdb.Environment:
        if self._is_closed:
            raise ValueError("the store is closed")
        return self._environment

    def _apply(self, changes: Sequence[Change]) -> None:
        with self._live.begin(write=True) as transaction:
            for change in changes:
                table = self._tables[change.table]
                if change.value is None:
                    transaction.delete(change.key, db=table)
                # An append out of order is told by False alone, never raised.
                elif not transaction.put(
                    change.key, change.value, db=table, append=change.is_append
                ):
                    raise ValueError(f"{change.key.hex()} is not above the last key")
            failpoint.reach("commit.before_flush")
        failpoint.reach("commit.after_flush")

    def _check_place(self, sequence: int) -> None:
        """Raise CommitError unless the next start will find what we write."""
        try:
            is_there = _file_id(self.path) == self._file_id
        except OSError:
            is_there = False
        if not is_there:
            reason = f"{DATA_FILE} was removed, replaced or moved away while in use"
            raise CommitError(self.path, sequence, reason)

    def _grow(self, sequence: int, cause: lmdb.Error) -> None:
        # A view or transaction that outlives the old map kills the process.
        with self._reading:
            map_bytes = self._live.info()["map_size"] * 2
            try:
                self._live.set_mapsize(map_bytes)
            except lmdb.Error as error:
                reason = f"the map cannot grow to {map_bytes} bytes: {error}"
                raise CommitError(self.path, sequence, reason) from cause

    def _read(self, look: Callable[[lmdb.Transaction], T]) -> T:
        with self._reading:
            try:
                with _begin_reading(self._live) as reader:
                    return look(reader)
            except lmdb.Error as error:
                raise _read_failure(self.path, error) from error

    def _commit_failure(self, sequence: int, error: lmdb.Error) -> LogError:
        code = error.code
        is_full = code in _FULL_CODES
        if code in _UNCLEAR_CODES:
            # A directory that is gone is not a full one.
            with contextlib.suppress(OSError):
                disk = os.statvfs(self.path)
                is_full = disk.f_bavail * disk.f_frsize < _NEARLY_FULL_BYTES
        if is_full:
            return DiskFullError(self.path, sequence, code)
        return CommitError(self.path, sequence, f"LMDB says: {error}")


@contextlib.contextmanager
def hold_pages(path: Path) -> Iterator[Callable[[], None]]:
    """Keep a writer from using pages anew that transactions from now on can reach.

    Gives what lets them go before the end. The tables are not looked at. Raises
    what `read_meta` does.
    """
    read_meta(path)
    try:
        environment = _open_environment(
            path, MAP_BYTES, is_read_only=True, has_lock=True
        )
    except lmdb.Error as error:
        raise _read_failure(path, error) from error
    with environment:
        try:
            reader = _begin_reading(environment)
        except lmdb.Error as error:
            raise _read_failure(path, error) from error
        yield reader.abort


def check_file(path: Path) -> None:
    """Raise unless `path` holds a data file that LMDB may map; see `read_meta`."""
    read_meta(path)


def read_meta(path: Path) -> MetaPage:
    """Check the data file in `path`, without LMDB; give its newest meta page.

    Raises DirectoryError when it cannot be read, ForeignError for the other
    engine's, DamagedError for anything else. A writer beside us may be changing
    the meta pages, so a bad look is repeated.
    """
    file = path / DATA_FILE
    failure: LmdbFileError | None = None
    for _ in range(_HEAD_TRIES):
        try:
            with file.open("rb") as stream:
                head = stream.read(META_PAGES * PAGE_BYTES_MAX)
                file_bytes = os.fstat(stream.fileno()).st_size
        except OSError as error:
            raise DirectoryError(file, error.strerror or str(error)) from error
        try:
            return check_head(head, file_bytes)
        except NewerEngineError as error:
            remedy = "use the Alphabet that wrote it"
            raise ForeignError(path, str(error), remedy) from error
        except LmdbFileError as error:
            failure = error
    raise DamagedError(path, None, str(failure)) from failure


def _file_id(path: Path) -> tuple[int, int]:
    """Tell which file is at the data file's place, whatever its name was before."""
    found = (path / DATA_FILE).stat()
    return found.st_dev, found.st_ino


def _begin_reading(environment: lmdb.Environment) -> lmdb.Transaction:
    try:
        return environment.begin(buffers=True)
    except lmdb.MapResizedError:
        environment.set_mapsize(0)
        return environment.begin(buffers=True)


def _read_failure(path: Path, error: lmdb.Error) -> LogError:
    """Tell damage from what keeps a sound file from being read, as a full table."""
    if isinstance(error, _DAMAGE):
        return DamagedError(path, None, f"LMDB says: {error}")
    return DirectoryError(path, f"LMDB cannot read it: {error}")


def _open_environment(
    path: Path, map_bytes: int, *, is_read_only: bool, has_lock: bool
) -> lmdb.Environment:
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY:
        map_bytes = min(map_bytes, max(limit // 4, MAP_BYTES_MIN))
    while True:
        try:
            return lmdb.open(
                str(path),
                map_size=map_bytes,
                max_dbs=len(TABLES),
                mode=FILE_MODE,
                readonly=is_read_only,
                create=not is_read_only,
                lock=has_lock,
                lib_version=0,
            )
        except lmdb.MemoryError:
            map_bytes //= 2
            if map_bytes < MAP_BYTES_MIN:
                raise
