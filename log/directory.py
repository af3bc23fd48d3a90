"""The data directory: what it may hold, who holds it, how a log comes into it.

```
DATA_DIR/
  log/          LMDB's own files
  log.new/      a log in the making: nothing in it was ever acknowledged
  snapshots/    the snapshots' files
  server.lock   held (flock) by the one server, its pid inside
```

The log's own file is held too: `server.lock` may be removed, and still there is one.

A log appears under its name whole and flushed, or not at all. Nothing else is
ever put here. This module is the edge: it makes, locks, renames and flushes.
"""

import contextlib
import fcntl
import os
import pwd
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

import attrs

from log import failpoint
from log.errors import DirectoryError, LockedError
from log.lmdb_check import Structure
from log.lmdb_store import DATA_FILE, LOCK_FILE, MAP_BYTES, LmdbStore
from log.log import Log
from log.row import Meta
from log.tree_store import inspect_file

LOG = "log"
LOG_NEW = "log.new"
SNAPSHOTS = "snapshots"
LOCK = "server.lock"
CONTENTS = frozenset({LOG, LOG_NEW, SNAPSHOTS, LOCK})

_DIRECTORY_MODE = 0o700
_FILE_MODE = 0o600
_LOCK_TRIES = 5
_LOCK_RETRY_SECONDS = 0.01
_MISSING = "no such directory"


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
    _locks: list[int] = attrs.Factory(list)

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
            locks = _take_locks(path)
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
        return cls(path, locks)

    @property
    def log_path(self) -> Path:
        """Where the log is."""
        return self.path / LOG

    @property
    def snapshots_path(self) -> Path:
        """Where the snapshots are."""
        return self.path / SNAPSHOTS

    @property
    def _data_file(self) -> Path:
        return self.log_path / DATA_FILE

    def has_log(self) -> bool:
        """Say whether a log is there."""
        return self.log_path.is_dir()

    def is_served(self) -> bool | None:
        """Say whether a server is running on it; None where we may not look."""
        found = {_is_locked(file) for file in (self.path / LOCK, self._data_file)}
        return True if True in found else None if None in found else False

    def open_log(
        self,
        *,
        is_read_only: bool = False,
        is_offline: bool = False,
        is_damage_accepted: bool = False,
        map_bytes: int = MAP_BYTES,
    ) -> Log:
        """Open the log that is there; see `LmdbStore.open` and `Log.open`.

        A server learns of readers by LMDB's lock file. Where that may not be written,
        only a read-only medium is read without, and only while no server is seen to
        run. With `is_offline`, the operator's word that none is running, reading does
        without the file wherever no server is seen.
        """
        self._require_log()
        is_alone = is_read_only and self._reads_alone(is_offline=is_offline)
        if not is_alone:
            self._give_lock_file()
        if not is_read_only:
            self._require_leave_to_write()
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

    def inspect_file(
        self,
        *,
        is_offline: bool = False,
        progress: Callable[[int], None] = lambda _pages: None,
    ) -> Structure:
        """Look at the structure of the log's file; see `tree_store.inspect_file`."""
        self._require_log()
        is_alone = self._reads_alone(is_offline=is_offline)
        if not is_alone:
            self._give_lock_file()
        return inspect_file(self.log_path, is_alone=is_alone, progress=progress)

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
        try:
            self._bring_in(building)
        except OSError as error:
            raise DirectoryError(building, str(error.strerror)) from error

    def _bring_in(self, building: Path) -> None:
        """Flush a new log, and give it its name; raises OSError."""
        _flush_file(building / DATA_FILE)
        flush_directory(building)
        if self._locks:
            self._locks.append(_take_lock(self.path, building / DATA_FILE))
        failpoint.reach("create.before_rename")
        building.rename(self.log_path)
        failpoint.reach("create.after_rename")
        flush_directory(self.path)
        failpoint.reach("create.after_flush")

    def _require_log(self) -> None:
        """Raise DirectoryError unless a log is there that we may read."""
        data = self.log_path / DATA_FILE
        try:
            if not stat.S_ISDIR(self.log_path.stat().st_mode):
                raise DirectoryError(self.path, "there is no log in it")
            is_readable = os.access(data, os.R_OK) or not data.exists()
        except FileNotFoundError as error:
            reason = "there is no log in it" if self.path.is_dir() else _MISSING
            raise DirectoryError(self.path, reason) from error
        except NotADirectoryError as error:
            raise DirectoryError(self.path, "it is not a directory") from error
        except PermissionError:
            is_readable = False
        except OSError as error:
            reason = f"it cannot be used: {error.strerror}"
            raise DirectoryError(self.path, reason) from error
        if not is_readable:
            reason = f"no leave to read it: {self._way_in('rX')}"
            raise DirectoryError(self.path, reason)

    def _require_leave_to_write(self) -> None:
        """Raise DirectoryError where a file of the log is there, and not for us."""
        for file in (self._data_file, self.log_path / LOCK_FILE):
            if file.exists() and not os.access(file, os.R_OK | os.W_OK):
                owner, ours = _user(file.stat().st_uid), _user(os.geteuid())
                reason = f"no leave to write {file.name}, of user {owner}"
                way = f"run chown -R {ours} {self.path} as root, or become its owner"
                raise DirectoryError(self.path, f"{reason}: {way}")

    def _give_lock_file(self) -> None:
        """As root, make LMDB's lock file where it is missing, for the log's owner.

        A tool's would be root's otherwise, and keep the server out.
        """
        lock = self.log_path / LOCK_FILE
        if os.geteuid() or lock.exists():
            return
        # Who cannot make it is told so by LMDB, which needs it.
        with contextlib.suppress(OSError):
            owner = self._data_file.stat()
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
            descriptor = os.open(lock, flags, _FILE_MODE)
            try:
                os.fchown(descriptor, owner.st_uid, owner.st_gid)
            finally:
                os.close(descriptor)

    def _reads_alone(self, *, is_offline: bool) -> bool:
        """Say whether to read without LMDB's lock file; raise where that is unsafe."""
        lock = self.log_path / LOCK_FILE
        place = lock if lock.exists() else self.log_path
        may_register = os.access(place, os.W_OK)
        if may_register and not is_offline:
            return False
        is_served = self.is_served()
        if is_served and may_register:
            reason = "a server is running on it: leave --offline out"
            raise DirectoryError(self.path, reason)
        if is_served:
            reason = (
                "a server is running on it, and reading beside it needs leave to write "
                f"{LOCK_FILE}: {self._way_in('rwX')}"
            )
            raise DirectoryError(self.path, reason)
        is_medium_read_only = os.statvfs(place).f_flag & os.ST_RDONLY
        if is_offline or (is_medium_read_only and is_served is False):
            return True
        reason = (
            f"no leave to write {LOCK_FILE}, by which a server learns of readers: "
            f"{self._way_in('rwX')}, or pass --offline if no server is running on it"
        )
        raise DirectoryError(self.path, reason)

    def _way_in(self, modes: str) -> str:
        """Say how to get leave: as another user, or by modes if it is our own."""
        try:
            uid = self.path.stat().st_uid
        except OSError:
            return "become its owner"
        if uid == os.geteuid():
            return f"give yourself leave (chmod -R u+{modes})"
        return f"become user {_user(uid)}"

    def release(self) -> None:
        """Let another server have the directory."""
        while self._locks:
            os.close(self._locks.pop())


def _user(uid: int) -> str:
    """Give a user's name, or the number where it has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _is_locked(file: Path) -> bool | None:
    """Say whether a server holds a file; None where we may not look."""
    try:
        with file.open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    except OSError:
        return None
    return False


def _take_locks(path: Path) -> list[int]:
    """Lock the directory, leave our pid there, and lock the log's file if it is there.

    Who may not read that file is told so when the log is opened.
    """
    lock = _take_lock(path, path / LOCK, os.O_RDWR | os.O_CREAT)
    locks = [lock]
    try:
        with contextlib.suppress(OSError):
            locks.append(_take_lock(path, path / LOG / DATA_FILE))
    except LockedError:
        os.close(lock)
        raise
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    return locks


def _take_lock(path: Path, file: Path, flags: int = os.O_RDONLY) -> int:
    """Lock a file of the directory `path` with flock; give its descriptor."""
    lock = os.open(file, flags | os.O_CLOEXEC, _FILE_MODE)
    for tries_left in reversed(range(_LOCK_TRIES)):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError as error:
            # A tool that looks whether a server is running holds it for an instant.
            if tries_left:
                time.sleep(_LOCK_RETRY_SECONDS)
                continue
            holder = os.pread(lock, 32, 0).strip()
            os.close(lock)
            pid = int(holder) if holder.isdigit() else None
            raise LockedError(path, pid) from error
    return lock
