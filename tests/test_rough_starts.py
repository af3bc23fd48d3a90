"""Starts on what a start may find: half a recovery, bad snapshots, a bad lock file."""

import io
import os
import signal
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest

from alphabet.journal.journal import Journal
from alphabet.startup import Consent, Opened
from log import failpoint
from log.lmdb_store import DATA_FILE, LOCK_FILE
from recovery.snapshot_directory import SnapshotDirectory
from tests.faults import cut
from tests.inspection import totals
from tests.machines import LOTS, alphabet, change, flip_middle, write_votes
from tests.process import serving
from tests.test_every_damage import run_cases
from tests.test_page_damage import NEW, NEW_COMMITS, count_on
from tests.votes import Vote, tally

VOTES = [vote for lot in LOTS for vote in lot]
PLAIN: list[list[Vote]] = [[(b"a", 1), (b"b", 2)], [(b"a", 3)]]
COUNTED_ON = (3, tally([*PLAIN[0], *PLAIN[1], *[NEW] * NEW_COMMITS]))
"""What a start on `PLAIN` finds, and comes to."""
Fault = Callable[[Path], object]


def killed_at(path: Path, name: str, turn: int) -> int:
    """Start on a directory in a forked process that is killed; give its end."""
    child = os.fork()
    if not child:
        reached: list[str] = []

        def kill(instant: str) -> None:
            reached.append(instant)
            if reached.count(name) == turn:
                os.kill(os.getpid(), signal.SIGKILL)

        failpoint.handler = kill
        try:
            journal = Journal.open(io.StringIO(), "json")
            Opened.open(path, alphabet(), Consent(), journal)
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def ruin_snapshots(data: Path) -> None:
    """Leave one good snapshot, at 4, and newer ones that are bad in every way."""
    snapshots = SnapshotDirectory(data / "snapshots")
    good = snapshots.read(7)
    snapshots.write(attrs.evolve(good, log_id="another"))
    snapshots.file(10).unlink()
    snapshots.file(10).mkdir()
    cut(snapshots.file(9), 100)
    cut(snapshots.file(8), 0)
    change(snapshots.file(6), flip_middle)
    snapshots.file(5).unlink()


def test_bad_snapshots_and_kills(tmp_path: Path) -> None:
    """Killed in its replay, then as it sets snapshots aside, it serves at last."""
    write_votes(tmp_path / "data", snapshots=range(4, 11))
    ruin_snapshots(tmp_path / "data")
    files = tmp_path / "data" / "snapshots"
    assert killed_at(tmp_path / "data", "recover.block", 2) == -signal.SIGKILL
    assert not list(files.glob("*.broken"))
    assert killed_at(tmp_path / "data", "recover.set_aside", 3) == -signal.SIGKILL
    assert len(list(files.glob("*.broken"))) == 2
    with serving(tmp_path) as server:
        assert "RESILIENCE: Replayed 6 entries from recovery log file." in [
            *server.lines(),
            *server.said(),
        ]
        said = [line for line in server.said() if line.startswith("set aside")]
        assert len(said) == 3
        assert server.stop() == 0
    broken = sorted(int(each.name[:20]) for each in files.glob("*.broken"))
    assert broken == [6, 7, 8, 9, 10]
    assert totals(tmp_path) == tally(VOTES)


def grow(log: Path) -> None:
    """Put garbage behind the log's last page, and half a page more."""
    with (log / DATA_FILE).open("ab") as stream:
        stream.write(b"\xa5" * 10_000)


FAULTS: dict[str, Fault] = {
    "grown": grow,
    "no lock file": lambda log: (log / LOCK_FILE).unlink(),
    "empty": lambda log: (log / LOCK_FILE).write_bytes(b""),
    "zeros": lambda log: (log / LOCK_FILE).write_bytes(bytes(8192)),
    "ones": lambda log: (log / LOCK_FILE).write_bytes(b"\xff" * 8192),
    "long": lambda log: (log / LOCK_FILE).write_bytes(b"\xa5" * 100_000),
}


def test_a_grown_file_and_a_bad_lock_file(tmp_path: Path) -> None:
    """Neither garbage behind the log nor what lock.mdb holds keeps it from serving."""

    def complaint(name: str) -> str | None:
        path = tmp_path / name
        directory = write_votes(path, PLAIN)
        FAULTS[name](directory.log_path)
        found = count_on(path)
        return None if found == COUNTED_ON else f"{found}"

    assert not run_cases(list(FAULTS), complaint, tmp_path / "cases")


@pytest.mark.parametrize("kind", ["file", "link"])
def test_no_directory_for_snapshots(tmp_path: Path, kind: str) -> None:
    """A file or a link to nowhere in the snapshots' place: the log serves."""
    write_votes(tmp_path / "data", PLAIN)
    place = tmp_path / "data" / "snapshots"
    if kind == "file":
        place.write_bytes(b"")
    else:
        place.symlink_to(tmp_path / "nowhere")
    assert count_on(tmp_path / "data") == COUNTED_ON
