"""`alphabet-replay backup` as users meet it: a disaster, a live server, a full disk."""

import hashlib
import itertools
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import attrs
import pytest

from log import failpoint
from log.directory import LOCK, DataDirectory
from log.log import Transaction
from log.row import Cursor
from recovery.cli import main
from recovery.snapshot_directory import SnapshotDirectory
from tests.machines import (
    LOTS,
    VOTES_META,
    append_votes,
    write_votes,
    write_votes_snapshot,
)
from tests.permissions import on_read_only_medium, read_only, unprivileged
from tests.process import (
    PYTHON,
    ROOT,
    SECONDS_MAX,
    Finished,
    environment,
    finish,
    refused,
    serving,
    submit,
    wait_until,
)
from tests.small_disk import on_small_disk
from tests.votes import make_votes, tally, wire

KILLED = 128 + signal.SIGKILL
VOTES = [vote for lot in LOTS for vote in lot]

Run = Callable[..., Finished]


def digest(path: Path) -> dict[str, str]:
    """Give a hash of every file under a path, but for LMDB's list of readers."""
    return {
        str(file.relative_to(path)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(path.rglob("*"))
        if file.is_file() and file.name not in {LOCK, "lock.mdb"}
    }


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no variable of ours reach a command that runs in this process."""
    for name in [name for name in os.environ if name.startswith("ALPHABET_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Return a data directory of ten votes, with snapshots at 3 and 10."""
    return write_votes(tmp_path / "data", snapshots=[3, 10]).path


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    """Return what runs a command in this process."""

    def run(*words: object) -> Finished:
        capfd.readouterr()
        code = main([str(word) for word in words])
        sys.stdout.flush()
        return Finished(code, *capfd.readouterr())

    return run


def check_sound(run: Run, path: Path) -> dict[str, int]:
    """Fail unless verify finds nothing; give the totals."""
    done = run("verify", path)
    assert (done.code, done.stdout[:6]) == (0, "sound:"), done
    state = json.loads(run("state", path, "--json").stdout)
    totals: dict[str, int] = state["totals"]
    return totals


class TestDisaster:
    """What a backup is for."""

    def test_a_server_starts_on_it(self, tmp_path: Path, run: Run) -> None:
        """When all else is gone, a server goes on where the backup was made.

        It is the same log, with the same sinks; what came later is lost.
        """
        lots = [make_votes(random.Random(seed), 50) for seed in range(4)]
        data, copy = tmp_path / "data", tmp_path / "copy"
        words = ("--snapshot-every", "60")
        with serving(tmp_path, *words) as server:
            for lot in lots[:2]:
                assert submit(server.port, wire(lot))
            wait_until(SnapshotDirectory(data / "snapshots").sequences, "a snapshot")
            assert run("backup", data, copy).code == 0
            log_id = json.loads(run("info", data, "--json").stdout)["id"]
            assert submit(server.port, wire(lots[2]))
            server.kill()
        shutil.rmtree(data)
        assert check_sound(run, copy) == tally(lots[0] + lots[1])
        copy.rename(data)
        with serving(tmp_path, *words) as server:
            [line] = [line for line in server.lines() if "RESILIENCE" in line]
            assert re.match("RESILIENCE: Replayed [1-4]?[0-9] entries", line)
            assert submit(server.port, wire(lots[3]))
            assert server.stop() == 0
        assert check_sound(run, data) == tally(lots[0] + lots[1] + lots[3])
        assert json.loads(run("info", data, "--json").stdout)["id"] == log_id

    def test_nothing_of_the_log_changes(self, data: Path, run: Run) -> None:
        """The log that is copied stays as it is, by the hash of each of its files."""
        before = digest(data)
        names = sorted(data.rglob("*"))
        to = data.parent / "to"
        for events in (10, 0):
            done = run("backup", data, to)
            assert done.code == 0
            assert f"copied {events} events" in done.stderr
            assert digest(data) == before
        assert sorted(data.rglob("*")) == names
        assert check_sound(run, to) == tally(VOTES)

    def test_a_server_that_was_started_on_it(self, data: Path, run: Run) -> None:
        """While one runs nothing is added, and once it has counted, no more."""
        to = data.parent / "to"
        assert run("backup", data, to).code == 0
        with serving(data.parent, "--data-dir", to) as server:
            done = run("backup", data, to)
            assert done.code == 3
            assert f"{to} is in use by server {server.pid}" in done.stderr
            assert submit(server.port, wire([(b"x", 1)]))
            assert server.stop() == 0
        before = digest(to)
        done = run("backup", data, to)
        assert done.code == 1
        assert "a server was started on the copy" in done.stderr
        assert done.stderr.count("\n") == 1
        assert digest(to) == before

    def test_a_backup_of_before_is_known_by_the_snapshots(
        self, data: Path, tmp_path: Path, run: Run
    ) -> None:
        """A log put back beside younger snapshots is refused, by name."""
        to = tmp_path / "to"
        assert run("backup", data, to).code == 0
        with closing(DataDirectory(data).open_log()) as log:
            append_votes(log, [(b"x", 1)])
        write_votes_snapshot(DataDirectory(data), 11)
        shutil.rmtree(data / "log")
        shutil.copytree(to / "log", data / "log")
        done = refused(tmp_path)
        assert done.code == 1
        assert "snapshot 11 is at sequence 11, and the log ends at 10" in done.stderr


class TestLiveServer:
    """Beside a server that counts."""

    def test_each_is_a_moment_of_the_log(self, tmp_path: Path, run: Run) -> None:
        """Every backup, whole or added to, is sound and has all acknowledged before."""
        data, grown = tmp_path / "data", tmp_path / "grown"
        lot = [(b"a", 1)] * 10
        sent = 0
        is_over = threading.Event()
        with serving(tmp_path, "--snapshot-every", "100") as server:

            def send() -> None:
                nonlocal sent
                while not is_over.is_set():
                    assert submit(server.port, wire(lot))
                    sent += len(lot)

            sender = threading.Thread(target=send)
            sender.start()
            try:
                wait_until(lambda: sent > 100, "votes")
                for number in range(4):
                    acknowledged = sent
                    fresh = tmp_path / f"fresh{number}"
                    for to in (grown, fresh):
                        done = run("backup", data, to)
                        assert done.code == 0, done
                        state = json.loads(run("state", to, "--json").stdout)
                        assert acknowledged <= state["sequence"]
                        assert check_sound(run, to) == {"a": state["sequence"]}
            finally:
                is_over.set()
                sender.join()
            assert server.stop() == 0
        assert run("backup", data, grown).code == 0
        assert check_sound(run, grown) == {"a": sent}


class TestPlaces:
    """Where it works, and where not."""

    def test_read_only(self, data: Path, run: Run) -> None:
        """A log that may only be read can be copied, and the copy written to."""
        with read_only(data):
            before = digest(data)
            done = unprivileged("backup", data, data.parent / "one", "--offline")
            assert done.code == 0, done
            done = on_read_only_medium(data, "backup", data, data.parent / "two")
            assert done.code == 0, done
            assert digest(data) == before
        for name in ("one", "two"):
            assert check_sound(run, data.parent / name) == tally(VOTES)
            with serving(data.parent, "--data-dir", data.parent / name) as server:
                assert submit(server.port, wire(VOTES))

    @pytest.mark.parametrize(
        ("words", "code", "said"),
        [
            ("DATA", 2, "Missing argument 'TO'"),
            ("DATA/none DATA/../to", 3, "no such directory"),
            ("DATA DATA", 3, "it is the log that is to be copied"),
            ("DATA DATA/to", 3, "where nothing but a log may be"),
            ("DATA DATA/../none/to", 3, "does not exist; make it first"),
            ("DATA DATA/../mine", 3, "it holds 'mine.txt'"),
            ("DATA DATA/../mine/mine.txt", 3, "is not a directory"),
        ],
    )
    def test_places_that_are_none(
        self, data: Path, run: Run, words: str, code: int, said: str
    ) -> None:
        """What cannot be is told in one line, and nothing is made or changed."""
        mine = data.parent / "mine"
        mine.mkdir()
        (mine / "mine.txt").touch()
        names = sorted(data.parent.rglob("*"))
        done = run("backup", *words.replace("DATA", str(data)).split())
        assert done.code == code, done
        assert said in done.stderr
        assert (done.stdout, done.stderr.count("\n")) == ("", 1)
        assert sorted(data.parent.rglob("*")) == names

    def test_no_leave_to_write(self, data: Path) -> None:
        """A place that may not be read or written is told in one line, exit code 3."""
        closed = data.parent / "closed"
        closed.mkdir()
        with read_only(closed):
            for to in (closed, closed / "to"):
                done = unprivileged("backup", data, to)
                assert (done.code, done.stderr.count("\n")) == (3, 1), done
                assert f"{to}: it cannot be used: Permission denied" in done.stderr
        closed.chmod(0)
        done = unprivileged("backup", data, closed / "to")
        assert (done.code, done.stderr.count("\n")) == (3, 1), done
        assert f"{closed / 'to'}: it cannot be looked into: Perm" in done.stderr
        archive = ("--archive", closed / "archive")
        done = unprivileged("compact", data, data.parent / "to", *archive)
        assert (done.code, done.stderr.count("\n")) == (3, 1), done
        assert f"{closed / 'archive'}: it cannot be written: Perm" in done.stderr
        closed.chmod(0o700)
        assert list(closed.iterdir()) == []

    def test_a_disk_without_room(self, tmp_path: Path) -> None:
        """It is told before anything is written, and else nothing is left of it."""
        lots = [make_votes(random.Random(1), 30_000)] * 10
        data = write_votes(tmp_path / "data", lots).path
        disk = tmp_path / "disk"
        disk.mkdir()
        ended = on_small_disk(disk, f"backup {data} {disk}/to")
        assert (ended.codes, ended.left) == ([3], [])
        assert "it takes about 1,5" in ended.stderr
        ended = on_small_disk(disk, f"backup {data} {disk}/to", is_blind=True)
        assert (ended.codes, ended.left) == ([3], [])
        assert "its disk is full; make room, or choose another" in ended.stderr

    def test_a_disk_that_is_full_since(self, tmp_path: Path) -> None:
        """A copy that there was stays sound when there is no room to add to it."""
        votes = make_votes(random.Random(1), 300_000)
        old = write_votes(tmp_path / "old", [votes[:1000]]).path
        data = Path(shutil.copytree(old, tmp_path / "data"))
        with closing(DataDirectory(data).open_log()) as log:
            append_votes(log, votes)
        disk = tmp_path / "disk"
        disk.mkdir()
        lines = [f"backup {each} {disk}/to" for each in (old, data)]
        for is_blind in (True, False):
            ended = on_small_disk(
                disk, *lines, f"verify {disk}/to", lines[0], is_blind=is_blind
            )
            assert ended.codes == [0, 3, 0, 0], ended

    def test_a_disk_that_fails(self, data: Path) -> None:
        """A file that cannot grow is told in one line, and nothing is left of it."""
        words = [*PYTHON, "recovery.cli", "backup", data, data.parent / "to"]
        done = subprocess.run(
            list(map(str, words)),
            cwd=ROOT,
            env=environment({"PYTHONDONTWRITEBYTECODE": "1"}),
            capture_output=True,
            text=True,
            timeout=SECONDS_MAX,
            check=False,
            preexec_fn=lambda: resource.setrlimit(
                resource.RLIMIT_FSIZE, (40_000, 40_000)
            ),
        )
        assert done.returncode == 3, done
        assert done.stderr.endswith("; check its disk\n")
        assert done.stderr.count("\n") == 1
        assert [path.name for path in data.parent.iterdir()] == ["data"]


def test_of_any_application(tmp_path: Path, run: Run) -> None:
    """A log is copied without the application that wrote it."""
    meta = attrs.evolve(VOTES_META, application="another")
    data = write_votes(tmp_path / "data", meta=meta).path
    assert run("backup", data, tmp_path / "to").code == 0


def test_how_long_it_took_is_told(
    data: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time is from begin to end, and the rate is that of the events copied."""
    seconds = itertools.count(100, 2)
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(seconds)))
    done = run("backup", data, data.parent / "to")
    assert "copied 10 events in 2.000 s (5/s): 0.0 MB" in done.stderr


class TestEnds:
    """Ended in the middle."""

    @pytest.mark.parametrize(
        ("moment", "has_log"),
        [
            ("create.before_log", False),
            ("commit.after_flush:2", False),
            ("create.before_rename", False),
            ("create.after_rename", True),
            ("snapshot.after_rename", True),
        ],
    )
    def test_killed(self, data: Path, run: Run, moment: str, *, has_log: bool) -> None:
        """A kill leaves a whole log or none; another try is not hindered."""
        to = data.parent / "to"
        before = digest(data)
        variables = {"ALPHABET_FAILPOINT": moment}
        done = finish("recovery.cli", "backup", data, to, variables=variables)
        assert done.code == KILLED, done
        assert (to / "log").exists() == has_log
        if has_log:
            assert check_sound(run, to) == tally(VOTES)
        assert run("backup", data, to).code == 0
        assert check_sound(run, to) == tally(VOTES)
        assert SnapshotDirectory(to / "snapshots").sequences() == [10, 3]
        assert digest(data) == before

    @pytest.mark.parametrize("moment", ["commit.before_flush", "commit.after_flush"])
    def test_killed_while_it_is_added_to(
        self, data: Path, run: Run, moment: str
    ) -> None:
        """A copy that is added to is sound at every moment."""
        to = data.parent / "to"
        assert run("backup", data, to).code == 0
        with closing(DataDirectory(data).open_log()) as log:
            append_votes(log, VOTES)
            log.commit(Transaction(cursors={"out": Cursor(20, 1)}))
        variables = {"ALPHABET_FAILPOINT": moment}
        done = finish("recovery.cli", "backup", data, to, variables=variables)
        assert done.code == KILLED, done
        expected = tally(VOTES * (2 if moment == "commit.after_flush" else 1))
        assert check_sound(run, to) == expected
        assert run("backup", data, to).code == 0
        assert check_sound(run, to) == tally(VOTES * 2)

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_told_to_end(
        self, data: Path, run: Run, monkeypatch: pytest.MonkeyPatch, number: int
    ) -> None:
        """SIGTERM and Ctrl-C leave nothing behind."""

        def end(name: str) -> None:
            if name == "create.before_rename":
                os.kill(os.getpid(), number)

        monkeypatch.setattr(failpoint, "handler", end)
        assert run("backup", data, data.parent / "to").code == 130
        assert [path.name for path in data.parent.iterdir()] == ["data"]


def test_bad_snapshots_are_told(data: Path, run: Run) -> None:
    """A snapshot that is no good is not copied, which is said, and no failure."""
    file = SnapshotDirectory(data / "snapshots").file(3)
    file.write_bytes(b"nonsense of some length")
    done = run("backup", data, data.parent / "to")
    assert done.code == 0
    assert "snapshot 3 is not copied: it does not begin with" in done.stderr
    assert done.stdout.endswith("ends at 10, snapshots: 10\n")
