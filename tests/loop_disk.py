"""A disk of our own: an ext4 file system in a file, which only root may mount."""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path


def can_mount() -> bool:
    """Say whether there may be such a disk here."""
    return os.geteuid() == 0 and Path("/dev/loop-control").exists()


@contextlib.contextmanager
def mounted(place: Path, size_bytes: int) -> Iterator[Path]:
    """Give the root of a new file system of this size, and take it away again."""
    image, root = place / "disk.image", place / "disk"
    with image.open("wb") as file:
        file.truncate(size_bytes)
    root.mkdir()
    _do("mkfs.ext4", "-q", "-m", "0", str(image))
    _do("mount", "-o", "loop", str(image), str(root))
    try:
        yield root
    finally:
        # Lazily: a process that hangs must not keep its failure from being told.
        _do("umount", "--lazy", str(root))
        image.unlink()
        root.rmdir()


def fill(file: Path) -> None:
    """Take all the room that is left on a file's disk."""
    left = os.statvfs(file.parent)
    with file.open("wb") as ballast, contextlib.suppress(OSError):
        os.posix_fallocate(ballast.fileno(), 0, left.f_bavail * left.f_frsize)


def _do(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True, timeout=60)
