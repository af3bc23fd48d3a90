"""The store on LMDB: the only module that knows it.

What is relied on, and measured in docs/FORMAT.md: with default flags a commit
writes its pages, flushes them, and only then writes and flushes the meta page, so
a transaction is durable when `commit` returns and a failed one may be repeated.
One thread commits. Reads are short transactions, so that no reader holds pages back,
and go past LMDB: it keeps the pages for us, and `TreeFile` reads them. For LMDB trusts
every page, and a damaged one would cost the process its life. What LMDB itself walks
when it opens, and when it appends, is looked at before it is opened for writing.
"""

import contextlib
import errno
import math
import os
import resource
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Self, TypeVar

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
from log.lmdb_check import check_structure
from log.lmdb_file import (
    META_PAGES,
    PAGE_BYTES_MAX,
    LmdbFileError,
    MetaPage,
    NewerEngineError,
    check_head,
)
from log.lmdb_page import PageError, TreeRecord
from log.lmdb_tree import Read, TreeError, TreeFile
from log.place import Place
from log.store import BLOCKS, CURSORS, META, REJECTS, STREAMS, TABLES, Change

MAP_BYTES = 1 << 40
"""Address space reserved for the map: sparse, so it costs nothing on disk."""
MAP_BYTES_MIN = 1 << 20
DATA_FILE = "data.mdb"
LOCK_FILE = "lock.mdb"
FILE_MODE = 0o600
KEY_BYTES = {BLOCKS: 8, STREAMS: 8, CURSORS: None, REJECTS: 8, META: None}
"""How long each table's keys are; None where they differ."""
BLOCKS_WALKED_MAX = 4096
"""Of a log of more blocks only the last one's place is looked at before LMDB opens."""
READER_CHECK_SECONDS = 10.0
"""How often a writer looks for readers that were killed, at most: with a commit."""

_FULL_CODES = {errno.ENOSPC, errno.EDQUOT}
_UNCLEAR_CODES = {errno.EIO, -30772}
"""Codes that a full disk gives too, after a short write."""
_NEARLY_FULL_BYTES = 1 << 20
_HEAD_TRIES = 3
_LOOKS_MAX = 1000
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
    _descriptor: int
    _place: Place
    clock: Callable[[], float] = time.monotonic
    _readers_checked_at: float = attrs.field(default=-math.inf, init=False)
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

        The file is checked before LMDB maps it; for a writer, all that LMDB will walk
        on its own. A reader that is alone, with no writer beside it, does without the
        lock file. Raises DamagedError, ForeignError or DirectoryError.
        """
        if is_read_only:
            check_file(path)
        elif not is_new:
            _check_reach(path)
        try:
            environment = _open_environment(
                path, map_bytes, is_read_only=is_read_only, has_lock=not is_alone
            )
            tables = {
                table: environment.open_db(table.encode(), create=is_new)
                for table in (() if is_read_only else TABLES)
            }
        except lmdb.NotFoundError as error:
            raise DamagedError(path, None, f"a table is missing: {error}") from error
        except lmdb.Error as error:
            raise _read_failure(path, error) from error
        try:
            # Kept: to read must need no file that is not open yet.
            data_file = path / DATA_FILE
            descriptor = os.open(data_file, os.O_RDONLY | os.O_CLOEXEC)
            place = Place(data_file)
        except OSError as error:
            environment.close()
            raise DirectoryError(path, error.strerror or str(error)) from error
        return cls(path, environment, tables, descriptor, place)

    def commit(self, changes: Sequence[Change], sequence: int) -> None:
        """Apply all changes, durable on return; see `Store.commit`."""
        while True:
            try:
                if self.clock() >= self._readers_checked_at + READER_CHECK_SECONDS:
                    self.drop_dead_readers()
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
        found = self.floor(table, key)
        return found[1] if found is not None and found[0] == key else None

    def floor(self, table: str, key: bytes) -> tuple[bytes, bytes] | None:
        """Give the row with the greatest key at or below `key` (inclusive)."""
        return self._read(table, lambda file, record: file.floor(record, key))

    def scan(
        self, table: str, start: bytes, bytes_max: int
    ) -> list[tuple[bytes, bytes]]:
        """Give rows from key `start` (inclusive) upward; see `Store.scan`."""
        return self._read(
            table, lambda file, record: file.rows_of(record, start, bytes_max)
        )

    def drop_dead_readers(self) -> int:
        """Free the slots of readers that were killed; they hold pages back."""
        self._readers_checked_at = self.clock()
        return self._live.reader_check()

    def close(self) -> None:
        """Close the environment."""
        with self._reading:
            self._environment.close()
            if not self._is_closed:
                os.close(self._descriptor)
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
        if not self._place.is_kept():
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

    def _read(self, table: str, look: Callable[[TreeFile, TreeRecord], T]) -> T:
        """Look at a table of the newest transaction, while LMDB keeps its pages."""
        read = reading(self._descriptor)
        with self._reading:
            for _ in range(_LOOKS_MAX):
                try:
                    with _begin_reading(self._live) as reader:
                        # While a commit flushes, the file may be ahead of the reader.
                        for meta in _metas(self.path, self._descriptor):
                            if reader.id() == meta.transaction_id:
                                file = TreeFile(meta, read, is_strict=True)
                                return self._look(file, table, look)
                except lmdb.Error as error:
                    raise _read_failure(self.path, error) from error
        raise DirectoryError(self.path, "it changes faster than it can be read")

    def _look(
        self, file: TreeFile, table: str, look: Callable[[TreeFile, TreeRecord], T]
    ) -> T:
        name = "names"
        try:
            record = file.tables().get(table.encode())
            if record is None:
                raise DamagedError(self.path, None, f"a table is missing: {table}")
            name = table
            return look(file, record)
        except TreeError as error:
            low = error.bounds.low
            sequence = int.from_bytes(low) if name == BLOCKS and low else None
            raise DamagedError(self.path, sequence, f"{name}, {error}") from error

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


def open_data(path: Path) -> BinaryIO:
    """Open the data file in `path` to be read; raises DirectoryError."""
    file = path / DATA_FILE
    try:
        return file.open("rb", buffering=0)
    except OSError as error:
        raise DirectoryError(file, error.strerror or str(error)) from error


def reading(descriptor: int) -> Read:
    """Give what reads a file's bytes; it raises PageError for those it cannot read."""

    def read(offset: int, size: int) -> bytes:
        try:
            return os.pread(descriptor, size, offset)
        except OSError as error:
            raise PageError(f"it cannot be read: {error.strerror}") from error

    return read


def _check_reach(path: Path) -> None:
    """Raise DamagedError where LMDB would meet a page that is not sound."""
    meta = read_meta(path)
    with open_data(path) as stream:
        limits = {BLOCKS: BLOCKS_WALKED_MAX}
        tables = dict.fromkeys(TABLES)  # Keys of any length: the log knows its own.
        found = check_structure(meta, reading(stream.fileno()), tables, rows_max=limits)
    for flaw in found.flaws:
        place = "" if flaw.page is None else f", page {flaw.page}"
        raise DamagedError(path, None, f"{flaw.table}{place}: {flaw.reason}")


def check_file(path: Path) -> None:
    """Raise unless `path` holds a data file that LMDB may map; see `read_meta`."""
    read_meta(path)


def read_meta(path: Path) -> MetaPage:
    """Check the data file in `path`, without LMDB; give its newest meta page.

    Raises DirectoryError when it cannot be read, ForeignError for the other
    engine's, DamagedError for anything else. A writer beside us may be changing
    the meta pages, so a bad look is repeated.
    """
    with open_data(path) as stream:
        return _metas(path, stream.fileno())[1]


def _metas(path: Path, descriptor: int) -> tuple[MetaPage, MetaPage]:
    """Check both meta pages; give the older one first."""
    failure: LmdbFileError | None = None
    for _ in range(_HEAD_TRIES):
        try:
            head = os.pread(descriptor, META_PAGES * PAGE_BYTES_MAX, 0)
            file_bytes = os.fstat(descriptor).st_size
        except OSError as error:
            file = path / DATA_FILE
            raise DirectoryError(file, error.strerror or str(error)) from error
        try:
            return check_head(head, file_bytes)
        except NewerEngineError as error:
            remedy = "use the Alphabet that wrote it"
            raise ForeignError(path, str(error), remedy) from error
        except LmdbFileError as error:
            failure = error
    raise DamagedError(path, None, str(failure)) from failure


def _begin_reading(environment: lmdb.Environment) -> lmdb.Transaction:
    try:
        return environment.begin(buffers=True)
    except lmdb.MapResizedError:
        environment.set_mapsize(0)
    except lmdb.ReadersFullError:
        environment.reader_check()
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
                os.fsencode(path),
                map_size=map_bytes,
                max_dbs=len(TABLES),
                mode=FILE_MODE,
                readonly=is_read_only,
                lock=has_lock,
                lib_version=0,
            )
        except lmdb.MemoryError:
            map_bytes //= 2
            if map_bytes < MAP_BYTES_MIN:
                raise
