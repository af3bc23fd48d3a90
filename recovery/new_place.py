"""A place for a new log: apart from the old one, and empty again if none comes of it.

The edge: directories. What is written there is the caller's affair.
"""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from log.directory import LOCK, LOG_NEW, DataDirectory
from log.errors import DirectoryError


@contextlib.contextmanager
def new_place(to: Path, source: Path) -> Iterator[DataDirectory]:
    """Take `to` for a new log, made of the one in the data directory `source`.

    Whatever is raised in the block leaves no log there, and no directory that was not
    there before. Raises DirectoryError for a place that cannot be, LockedError for one
    that is in use; then nothing was touched.
    """
    check_apart(to, source)
    _check_empty(to)
    is_made = not to.exists()
    has_lock = (to / LOCK).exists()
    target = DataDirectory.claim(to)
    try:
        # Another may have made one before the place was ours.
        _check_empty(to)
        try:
            yield target
        except BaseException:
            _empty(target)
            if not has_lock:
                (to / LOCK).unlink(missing_ok=True)
            if is_made:
                to.rmdir()
            raise
    finally:
        target.release()


def check_apart(place: Path, directory: Path) -> None:
    """Raise DirectoryError for a place inside a data directory."""
    if directory.resolve() in place.resolve().parents:
        reason = (
            f"it is inside {directory}, where nothing but a log may be; choose a place "
            "beside it"
        )
        raise DirectoryError(place, reason)


def holds_log(to: Path) -> bool:
    """Say whether a place holds a log; raises DirectoryError where we may not look."""
    try:
        return DataDirectory(to).has_log()
    except OSError as error:
        reason = f"it cannot be looked into: {error.strerror}"
        raise DirectoryError(to, reason) from error


def _check_empty(to: Path) -> None:
    if holds_log(to):
        raise DirectoryError(to, "it already holds a log; choose a new directory")
    # What we may not read, we may not write either: that is told when it is claimed.
    with contextlib.suppress(OSError):
        if any(DataDirectory(to).snapshots_path.iterdir()):
            reason = "it holds snapshots of a log that is not there; choose another"
            raise DirectoryError(to, f"{reason} directory")


def _empty(target: DataDirectory) -> None:
    """Remove what was made; a log loses its name first, so that none is there in part.

    The disk may be full or gone, and the first error is the one to tell.
    """
    building = target.path / LOG_NEW
    with contextlib.suppress(OSError):
        target.log_path.rename(building)
    shutil.rmtree(building, ignore_errors=True)
    shutil.rmtree(target.snapshots_path, ignore_errors=True)
