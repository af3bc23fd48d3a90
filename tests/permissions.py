"""Programs for which modes hold, directories of other users, media that are read-only.

Root may do anything, so these take its leave away. Mounts are a process's own
(`unshare --map-root-user --mount`, from util-linux).
"""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from tests.process import PYTHON, ROOT, SECONDS_MAX, Finished, environment

STRANGER = 54321
"""A user's id that no system has."""

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")

_GIVE_UP = """import ctypes, os, sys
for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
    ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP
os.execv(sys.argv[1], sys.argv[1:])"""

_MOUNT = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"'


def unprivileged(
    *words: object, variables: Mapping[str, str] | None = None
) -> Finished:
    """Run `alphabet-replay` as a program for which modes hold, even if we are root."""
    return _run([sys.executable, "-c", _GIVE_UP], words, variables)


def on_read_only_medium(path: Path, *words: object) -> Finished:
    """Run `alphabet-replay` where `path` is mounted read-only."""
    return _run(
        ["unshare", "--map-root-user", "--mount", "sh", "-c", _MOUNT, str(path)],
        words,
        None,
    )


def _run(
    before: Sequence[str],
    words: Sequence[object],
    variables: Mapping[str, str] | None,
) -> Finished:
    done = subprocess.run(
        [*before, *PYTHON, "recovery.cli", *map(str, words)],
        cwd=ROOT,
        env=environment(variables or {}),
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )
    return Finished(done.returncode, done.stdout, done.stderr)


@contextlib.contextmanager
def read_only(path: Path) -> Iterator[None]:
    """Take away all leave to write under a path, for a while."""
    everything = [path, *path.rglob("*")]
    for each in everything:
        each.chmod(0o500 if each.is_dir() else 0o400)
    try:
        yield
    finally:
        for each in everything:
            each.chmod(0o700 if each.is_dir() else 0o600)


@contextlib.contextmanager
def of_a_stranger(path: Path, *, file_mode: int = 0o644) -> Iterator[None]:
    """Give all under a path to another user, for a while; everybody may enter."""
    everything = [path, *path.rglob("*")]
    for each in everything:
        os.chown(each, STRANGER, STRANGER)
        each.chmod(0o755 if each.is_dir() else file_mode)
    try:
        yield
    finally:
        for each in everything:
            os.chown(each, os.geteuid(), os.getegid())
            each.chmod(0o700 if each.is_dir() else 0o600)
