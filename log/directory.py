"""The data directory: what it may hold, who holds it, how a log comes into it.

```
DATA_DIR/
  log/          LMDB's own files
  log.new/      a log in the making: nothing in it was ever acknowledged
  snapshots/    the snapshots' files
  server.lock   held (flock) by the one server, its pid inside
```

A log appears under its name whole and flushed, or not at all. Nothing else is
ever put here. This module is the edge: it makes, locks, renames and flushes.
"""

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import attrs

from log import failpoint
from log.errors import DirectoryError, LockedError
from log.lmdb_store import DATA_FILE, LOCK_FILE, MAP_BYTES, LmdbStore
from log.log import Log
from log.row import Meta

LOG = "log"
LOG_NEW = "log.new"
SNAPSHOTS = "snapshots"
LOCK = "server.lock"
CONTENTS = frozenset({LOG, LOG_NEW, SNAPSHOTS, LOCK})

_DIRECTORY_MODE = 0o700
_FILE_MODE = 0o600


def flush_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _flush_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@attrs.define
class DataDirectory:
    """A place that holds a log, seen by a tool; `claim` takes it for a server."""

    path: Path
    _lock: int | None = None

    @classmethod
    def claim(cls, path: Path) -> Self:
        """Take a directory for this process alone, making it where it is missing.

        Its parent is never made. Raises DirectoryError for a file, a directory
        that holds anything else or may not be written, LockedError where a server
        is running.
        """
        try:
            with contextlib.suppress(FileExistsError):
                path.mkdir(_DIRECTORY_MODE)
            strangers = sorted({entry.name for entry in path.iterdir()} - CONTENTS)
            if strangers:
                reason = f"it holds {strangers[0]!r}; choose an empty or new directory"
                raise DirectoryError(path, reason)
            # A start that was killed may have left names that were never flushed.
            flush_directory(path)
            # A parent that we may not read was not the one we made it in.
            with contextlib.suppress(PermissionError):
                flush_directory(path.parent)
            lock = _take_lock(path)
        except NotADirectoryError as error:
            place = "it" if path.exists() else f"its parent {path.parent}"
            reason = f"{place} is not a directory"
            raise DirectoryError(path, reason) from error
        except FileNotFoundError as error:
            reason = f"its parent {path.parent} does not exist; make it first"
            raise DirectoryError(path, reason) from error
        except OSError as error:
            reason = f"it cannot be used: {error.strerror}"
            raise DirectoryError(path, reason) from error
        return cls(path, lock)

    @property
    def log_path(self) -> Path:
        """Where the log is."""
        return self.path / LOG

    @property
    def snapshots_path(self) -> Path:
        """Where the snapshots are."""
        return self.path / SNAPSHOTS

    def has_log(self) -> bool:
        """Say whether a log is there."""
        return self.log_path.is_dir()

    def open_log(
        self,
        *,
        is_read_only: bool = False,
        is_damage_accepted: bool = False,
        map_bytes: int = MAP_BYTES,
    ) -> Log:
        """Open the log that is there; see `LmdbStore.open` and `Log.open`.

        Reading alone does without LMDB's lock file where it may not be written,
        unless a server is running.
        """
        if not self.has_log():
            has_place = self.path.is_dir()
            reason = "there is no log in it" if has_place else "no such directory"
            raise DirectoryError(self.path, reason)
        is_alone = is_read_only and not self._may_register()
        if is_alone and _is_locked(self.path / LOCK):
            reason = f"a server is running: reading needs leave to write {LOCK_FILE}"
            raise DirectoryError(self.log_path, reason)
        store = LmdbStore.open(
            self.log_path,
            is_read_only=is_read_only,
            is_alone=is_alone,
            map_bytes=map_bytes,
        )
        try:
            if not is_read_only:
                store.drop_dead_readers()
            return Log.open(store, is_damage_accepted=is_damage_accepted)
        except BaseException:
            store.close()
            raise

    @contextlib.contextmanager
    def new_log(self, meta: Meta, base_state: bytes | None = None) -> Iterator[Log]:
        """Build a log that appears, whole and flushed, when the block ends.

        Whatever happens before leaves no log; a left-over of an earlier try is
        removed first. Raises DirectoryError where a log is already there.
        """
        if self.has_log():
            raise DirectoryError(self.path, "it already holds a log")
        building = self.path / LOG_NEW
        try:
            if building.exists():
                shutil.rmtree(building)
            building.mkdir(_DIRECTORY_MODE)
        except OSError as error:
            raise DirectoryError(building, str(error.strerror)) from error
        failpoint.reach("create.before_log")
        store = LmdbStore.open(building, is_new=True)
        try:
            yield Log.create(store, meta, base_state)
        finally:
            store.close()
        _flush_file(building / DATA_FILE)
        flush_directory(building)
        failpoint.reach("create.before_rename")
        building.rename(self.log_path)
        failpoint.reach("create.after_rename")
        flush_directory(self.path)
        failpoint.reach("create.after_flush")

    def _may_register(self) -> bool:
        """Say whether a reader can tell a writer of itself, in LMDB's lock file."""
        lock = self.log_path / LOCK_FILE
        return os.access(lock if lock.exists() else self.log_path, os.W_OK)

    def release(self) -> None:
        """Let another server have the directory."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _is_locked(path: Path) -> bool:
    """Say whether somebody holds a lock file, as far as we may look."""
    with contextlib.suppress(OSError), path.open("rb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _take_lock(path: Path) -> int:
    """Lock the directory with flock and leave our pid there."""
    lock = os.open(path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _FILE_MODE)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.pread(lock, 32, 0).strip()
        os.close(lock)
        pid = int(holder) if holder.isdigit() else None
        raise LockedError(path, pid) from error
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    return lock
