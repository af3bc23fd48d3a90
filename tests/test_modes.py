"""Who may read what Alphabet writes, under a umask that takes nothing away."""

import os
import random
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from recovery.snapshot_directory import SnapshotDirectory
from tests.process import replay, serving, submit, wait_until
from tests.votes import make_votes, wire

DIRECTORY_MODE, FILE_MODE = 0o700, 0o600
VOTES = make_votes(random.Random(14), 1000)


@pytest.fixture(autouse=True, scope="module")
def open_umask() -> Iterator[None]:
    """Let whoever makes a file decide alone about its mode."""
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a place with a log, its locks and a snapshot."""
    made = tmp_path_factory.mktemp("template")
    with serving(made, "--snapshot-every", 500) as server:
        assert submit(server.port, wire(VOTES))
        snapshots = SnapshotDirectory(made / "data" / "snapshots")
        wait_until(snapshots.sequences, "a snapshot")
        assert server.stop() == 0
    return made


@pytest.fixture
def place(template: Path, tmp_path: Path) -> Path:
    """Give a place of its own whose data are the template's."""
    (tmp_path / "data").symlink_to(template / "data")
    return tmp_path


def opened(path: Path) -> dict[str, str]:
    """Give what is not private, under a path and with it: its mode by its name."""
    modes = {
        each: stat.S_IMODE(each.stat().st_mode) for each in [path, *path.rglob("*")]
    }
    return {
        str(each): oct(mode)
        for each, mode in modes.items()
        if mode != (DIRECTORY_MODE if each.is_dir() else FILE_MODE)
    }


def test_the_data_directory(place: Path) -> None:
    """Directories are 0700 and files 0600: the log, snapshots and locks."""
    data = (place / "data").resolve()
    assert not opened(data)
    assert len(list(data.rglob("*"))) >= 6


@pytest.mark.parametrize("command", ["backup", "compact", "salvage"])
def test_a_new_log(place: Path, command: str) -> None:
    """What makes a log of a log makes it as private."""
    done = replay(command, place / "data", place / "new")
    assert done.code == 0, done.stderr
    assert not opened(place / "new")


def test_an_archive(place: Path) -> None:
    """The events that compact leaves out are as private as those that it keeps."""
    words = ("--archive", place / "archive")
    done = replay("compact", place / "data", place / "new", *words)
    assert done.code == 0, done.stderr
    assert (place / "archive").exists()
    assert not opened(place / "archive")


def test_an_export(place: Path) -> None:
    """An export is made to be handed on, so the umask has the say, as with `cp`."""
    before = os.umask(0o027)
    done = replay("export", place / "data", place / "new")
    os.umask(before)
    assert done.code == 0, done.stderr
    [file] = (place / "new").glob("*.parquet")
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert stat.S_IMODE((place / "new").stat().st_mode) == 0o750
