"""The real server on a disk that fails: errors put in the place of system calls."""

import contextlib
import os
import random
from pathlib import Path
from typing import TypeVar

import pytest

from log.lmdb_store import DATA_FILE
from recovery.snapshot_directory import SnapshotDirectory
from tests.injected import failing
from tests.inspection import last_sequence, records, totals, verify
from tests.process import Server, refused, serving, submit
from tests.receiving import Receiver
from tests.votes import make_votes, outputs, payloads, tally, wire

T = TypeVar("T")

CANNOT_SERVE, COMMIT_FAILED = 3, 4
VOTES = make_votes(random.Random(9), 1000)
PACKETS_MAX = 60
IS_SOAK = bool(os.environ.get("ALPHABET_SOAK"))
WRITES = "pwrite64,pwritev,write,writev"


def soaked(*cases: T) -> tuple[T, ...]:
    """Give more cases, where there is time for them."""
    return cases if IS_SOAK else ()


def sent_until_it_fails(server: Server) -> int:
    """Send packets of all votes, one after the other; give how many were acknowledged.

    The first that has no receipt must be the last that anybody takes.
    """
    for count in range(PACKETS_MAX):
        if not submit(server.port, wire(VOTES)):
            with contextlib.suppress(ConnectionRefusedError):
                assert not submit(server.port, wire(VOTES))
            return count
    raise AssertionError("nothing failed")


def check_kept(place: Path, acknowledged: int, line: str, told: bytes) -> None:
    """Hold the log and the outputs between the acknowledged packets and one more."""
    durable = int(line.partition("after sequence ")[2].split()[0])
    kept = last_sequence(place)
    assert acknowledged * len(VOTES) <= durable
    assert durable <= kept <= (acknowledged + 1) * len(VOTES)
    assert records(place) == payloads((VOTES * (acknowledged + 1))[:kept])
    assert outputs((VOTES * (acknowledged + 1))[:durable]).startswith(told)
    assert verify(place)["ok"]


class TestCommit:
    """A commit that fails."""

    @pytest.mark.parametrize(
        ("calls", "how"),
        [
            ("fdatasync", "error=EIO:when=3"),
            (WRITES, "error=EIO:when=9+"),
            (WRITES, "retval=100:when=8"),
            *soaked(
                ("fdatasync", "error=EIO:when=3+"),
                (WRITES, "error=EIO:when=7"),
                *((WRITES, f"error=EIO:when={number}") for number in range(10, 30)),
                *((WRITES, f"retval=0:when={number}") for number in range(10, 30)),
            ),
        ],
    )
    def test_it_ends_the_server(self, tmp_path: Path, calls: str, how: str) -> None:
        """Exit code 4, one line; acknowledged votes are kept, no other output left."""
        before = failing(calls, how, tmp_path / "data" / "log" / DATA_FILE)
        with (
            Receiver() as receiver,
            serving(tmp_path, "--out", receiver.address, before=before) as server,
        ):
            receiver.wait_connections(1)
            acknowledged = sent_until_it_fails(server)
            assert server.wait() == COMMIT_FAILED
            line = server.said()[-1]
            assert line.startswith("alphabet: ")
            assert line.endswith("start again: the log decides what was stored")
            receiver.wait_hung_up()
            told = bytes(receiver.connections[0])
        assert acknowledged
        check_kept(tmp_path, acknowledged, line, told)

    def test_the_very_first(self, tmp_path: Path) -> None:
        """The first flush of a log may fail as well, and the log is sound."""
        file = tmp_path / "data" / "log" / DATA_FILE
        before = failing("fdatasync", "error=EIO:when=1", file)
        with serving(tmp_path, before=before) as server:
            assert sent_until_it_fails(server) == 0
            assert server.wait() == COMMIT_FAILED
            [line] = server.said()
        check_kept(tmp_path, 0, line, b"")

    def test_a_disk_that_is_full_for_one_commit(self, tmp_path: Path) -> None:
        """ENOSPC and EDQUOT are waited out, also by a stop's last commit."""
        file = tmp_path / "data" / "log" / DATA_FILE
        for number, error in enumerate(("ENOSPC", "EDQUOT"), 1):
            before = failing(WRITES, f"error={error}:when=2", file)
            with serving(tmp_path, before=before) as server:
                assert submit(server.port, wire(VOTES))
                server.wait_said("no space left on the disk after sequence ")
                server.wait_said("there is room on the disk again")
                assert server.stop() == 0
            assert records(tmp_path) == payloads(VOTES * number)


class TestSnapshot:
    """A snapshot that cannot be written; counting goes on whatever it is."""

    @pytest.mark.parametrize(
        ("calls", "how", "kept"),
        [
            ("fsync", "error=EIO:when=1", [2000]),
            *soaked(
                ("write", "error=ENOSPC:when=1+", []),
                ("rename", "error=EIO:when=1+", []),
            ),
        ],
    )
    def test_it_is_given_up(
        self, tmp_path: Path, calls: str, how: str, kept: list[int]
    ) -> None:
        """It costs a line and leaves nothing; the next one is tried as if new."""
        snapshots = SnapshotDirectory(tmp_path / "data" / "snapshots")
        temporary = [snapshots.path / f"{n:020}.tmp" for n in (1000, 2000)]
        before = failing(calls, how, *temporary)
        with serving(tmp_path, "--snapshot-every", 1000, before=before) as server:
            assert submit(server.port, wire(VOTES))
            server.wait_said("no snapshot at sequence 1000: ")
            assert list(snapshots.path.iterdir()) == []
            assert submit(server.port, wire(VOTES))
            assert server.stop() == 0
        assert [int(f.stem) for f in snapshots.path.iterdir()] == kept
        assert verify(tmp_path)["ok"]
        assert totals(tmp_path) == tally(VOTES * 2)

    def test_its_name_may_be_lost(self, tmp_path: Path) -> None:
        """When the directory's flush fails, that is told, and the file is of use."""
        snapshots = SnapshotDirectory(tmp_path / "data" / "snapshots")
        before = failing("fsync", "error=EIO", snapshots.path)
        with serving(tmp_path, "--snapshot-every", 1000, before=before) as server:
            assert submit(server.port, wire(VOTES))
            server.wait_said("no snapshot at sequence 1000: ")
            assert server.stop() == 0
        assert snapshots.sequences() == [1000]
        assert verify(tmp_path)["ok"]


class TestCreation:
    """A log that cannot be made."""

    @pytest.mark.parametrize(
        ("calls", "how"),
        [
            ("pwrite64,pwritev", "error=ENOSPC:when=2"),
            ("fsync", "error=EIO:when=5"),
            *soaked(
                ("fdatasync", "error=EIO:when=1"),
                ("rename", "error=EIO:when=1"),
                *(("fsync", f"error=EIO:when={number}") for number in range(1, 5)),
            ),
        ],
    )
    def test_it_is_refused(self, tmp_path: Path, calls: str, how: str) -> None:
        """Exit code 3, one line that names the directory; the next start makes it."""
        done = refused(tmp_path, before=failing(calls, how))
        assert done.code == CANNOT_SERVE
        assert done.stderr.startswith(f"alphabet: {tmp_path / 'data'}")
        assert "nput/output error" in done.stderr or "No space left" in done.stderr
        with serving(tmp_path) as server:
            assert submit(server.port, wire(VOTES))
            assert server.stop() == 0
        assert totals(tmp_path) == tally(VOTES)
