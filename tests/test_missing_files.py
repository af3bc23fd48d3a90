"""The data directory taken away from a server that is running.

What it writes from then on the next start would not find, so it must not say that a
vote is safe.
"""

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from log.directory import LOCK, DataDirectory
from log.errors import LockedError
from log.lmdb_store import DATA_FILE
from recovery.snapshot_directory import SnapshotDirectory
from tests.inspection import last_sequence, totals, verify
from tests.process import serving, submit, wait_until
from tests.votes import make_votes, tally, wire

COMMIT_FAILED = 4
ROUNDS_MAX = 200
VOTES = make_votes(random.Random(7), 1000)


def remove_directory(data: Path) -> None:
    """Remove everything."""
    shutil.rmtree(data)


def remove_log(data: Path) -> None:
    """Remove the log's file alone."""
    (data / "log" / DATA_FILE).unlink()


def move_directory(data: Path) -> None:
    """Give the whole directory another name."""
    data.rename(data.with_name("moved"))


def replace_log(data: Path) -> None:
    """Put a copy in the place of the log's file, as a restored backup would be."""
    file = data / "log" / DATA_FILE
    copy = file.with_name("copy")
    shutil.copyfile(file, copy)
    copy.rename(file)


@pytest.mark.parametrize(
    "take_away", [remove_directory, remove_log, move_directory, replace_log]
)
def test_a_log_that_is_not_where_it_was(
    tmp_path: Path, take_away: Callable[[Path], None]
) -> None:
    """Nobody has a receipt for votes that the next start would not find; exit 4."""
    with serving(tmp_path) as server:
        assert submit(server.port, wire(VOTES))
        take_away(tmp_path / "data")
        assert not submit(server.port, wire(VOTES))
        assert server.wait() == COMMIT_FAILED
        [line] = server.said()
    assert "was removed, replaced or moved away while in use" in line


def test_a_moved_log_has_all_that_was_acknowledged(tmp_path: Path) -> None:
    """What was acknowledged before the move is where the log went."""
    with serving(tmp_path) as server:
        assert submit(server.port, wire(VOTES))
        move_directory(tmp_path / "data")
        assert not submit(server.port, wire(VOTES))
        server.wait()
    (tmp_path / "moved").rename(tmp_path / "data")
    assert last_sequence(tmp_path) >= len(VOTES)
    assert verify(tmp_path)["ok"]


def test_snapshots_that_were_removed(tmp_path: Path) -> None:
    """Snapshots may be removed at any time: the next one makes their directory anew."""
    snapshots = SnapshotDirectory(tmp_path / "data" / "snapshots")
    with serving(tmp_path, "--snapshot-every", 1000) as server:
        assert submit(server.port, wire(VOTES))
        wait_until(snapshots.sequences, "a snapshot")
        shutil.rmtree(snapshots.path)
        # A mark that comes while the snapshot before it is in the making is let go.
        rounds = 1
        while not snapshots.sequences() and rounds < ROUNDS_MAX:
            assert submit(server.port, wire(VOTES))
            rounds += 1
        assert snapshots.sequences()
        assert server.stop() == 0
    assert totals(tmp_path) == tally(VOTES * rounds)


@pytest.mark.parametrize("is_first_start", [True, False])
def test_a_lock_that_was_removed(tmp_path: Path, is_first_start: bool) -> None:
    """A second server is refused though the lock is gone, and the first serves on."""
    if not is_first_start:
        with serving(tmp_path) as server:
            assert server.stop() == 0
    with serving(tmp_path) as server:
        assert submit(server.port, wire(VOTES))
        (tmp_path / "data" / LOCK).unlink()
        assert DataDirectory(tmp_path / "data").is_served()
        with pytest.raises(LockedError):
            DataDirectory.claim(tmp_path / "data")
        assert submit(server.port, wire(VOTES))
        assert server.stop() == 0
    assert totals(tmp_path) == tally(VOTES * 2)


def test_a_directory_behind_a_link(tmp_path: Path) -> None:
    """A link to a directory serves as the directory itself does, and stays a link."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "data").symlink_to("elsewhere")
    for _ in range(2):
        with serving(tmp_path, "--snapshot-every", 1000) as server:
            assert submit(server.port, wire(VOTES))
            assert server.stop() == 0
    assert (tmp_path / "data").is_symlink()
    assert DataDirectory(tmp_path / "elsewhere").has_log()
    assert totals(tmp_path) == tally(VOTES * 2)
