"""`alphabet-replay compact` as users meet it: places, archives, full disks, kills."""

import hashlib
import json
import os
import random
import shutil
import signal
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import attrs
import pytest

from log import failpoint
from log.block import Block, Records
from log.directory import LOCK, DataDirectory
from log.log import Transaction
from log.row import Cursor, Meta
from recovery.cli import main
from recovery.snapshot_directory import SnapshotDirectory
from tests.machines import (
    VOTES_META,
    append_records,
    pack_votes,
    write_votes,
    write_votes_snapshot,
)
from tests.process import Finished, finish, serving
from tests.small_disk import on_small_disk
from tests.votes import Vote, make_votes, tally, wire

KILLED = 128 + signal.SIGKILL
BASE = 700


def digest(path: Path) -> dict[str, str]:
    """Give a hash of every file under a path, but for LMDB's list of readers."""
    return {
        str(file.relative_to(path)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(path.rglob("*"))
        if file.is_file() and file.name not in {LOCK, "lock.mdb"}
    }


@pytest.fixture(scope="module")
def votes() -> list[Vote]:
    """Return a thousand votes."""
    return make_votes(random.Random(5), 1000)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, votes: list[Vote]) -> Path:
    """Return their log, in blocks of 90, with a sink at 800 and snapshots."""
    path = tmp_path_factory.mktemp("made") / "data"
    lots = [votes[start : start + 90] for start in range(0, len(votes), 90)]
    directory = write_votes(path, lots)
    with closing(directory.open_log()) as log:
        log.commit(Transaction(cursors={"out": Cursor(800, 10_400)}))
    for sequence in (300, BASE, 950):
        write_votes_snapshot(directory, sequence)
    return path


@pytest.fixture
def data(tmp_path: Path, made: Path) -> Path:
    """Return a copy of it, to do with as one likes."""
    return Path(shutil.copytree(made, tmp_path / "data"))


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no variable of ours reach a command that runs in this process."""
    for name in [name for name in os.environ if name.startswith("ALPHABET_")]:
        monkeypatch.delenv(name)


Run = Callable[..., Finished]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    """Return what runs a command in this process."""

    def run(*words: object) -> Finished:
        capfd.readouterr()
        code = main([str(word) for word in words])
        sys.stdout.flush()
        return Finished(code, *capfd.readouterr())

    return run


def totals(run: Run, path: Path, *words: object) -> dict[str, int]:
    """Give the totals that a data directory has."""
    found: dict[str, dict[str, int]] = json.loads(
        run("state", path, "--json", *words).stdout
    )
    return found["totals"]


class TestArchive:
    """The events that are left out, as a file."""

    def test_the_archive_is_the_base(
        self, data: Path, tmp_path: Path, votes: list[Vote], run: Run
    ) -> None:
        """Sent to an empty server, the archive gives the totals that the log begins at.

        And nothing of the old log has changed, by the hash of each of its files.
        """
        before = digest(data)
        file = tmp_path / "archive.wire"
        done = run("compact", data, tmp_path / "to", "--archive", file)
        assert (done.code, done.stderr) == (0, "")
        assert done.stdout.startswith(f"{BASE} events in {file}\n")
        assert file.read_bytes() == wire(votes[:BASE])
        assert digest(data) == before
        with serving(tmp_path, "--data-dir", tmp_path / "new") as server:
            address = f"127.0.0.1:{server.port}"
            sent = finish("alphabet.cli", "send", file, "--to", address)
            assert sent.code == 0, sent
            assert server.stop() == 0
        expected = tally(votes[:BASE])
        assert totals(run, tmp_path / "new") == expected
        assert totals(run, tmp_path / "to", "--at", BASE) == expected
        assert totals(run, tmp_path / "to") == tally(votes)
        assert run("verify", tmp_path / "to").code == 0

    def test_places_that_are_none(self, data: Path, tmp_path: Path, run: Run) -> None:
        """An archive overwrites nothing, and stands in no data directory."""
        file = tmp_path / "mine"
        file.write_text("mine")
        (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
        before = digest(data)
        to = tmp_path / "to"
        for archive, code, said in (
            (file, 3, "it is there already"),
            (tmp_path / "dangling", 3, "it is there already"),
            (data, 3, "it is there already"),
            (tmp_path / "none" / "archive", 3, "does not exist; make it first"),
            (data / "archive", 3, "where nothing but a log may be"),
            (to / "archive", 3, "where nothing but a log may be"),
            (to, 2, "TO and --archive name one place"),
        ):
            done = run("compact", data, to, "--archive", archive)
            assert done.code == code, done
            assert said in done.stderr
            assert done.stderr.count("\n") == 1
            assert not to.exists()
        assert digest(data) == before
        assert file.read_text() == "mine"

    def test_of_several_pipelines(self, tmp_path: Path) -> None:
        """Frames do not tell their pipeline, so such a log has no archive."""
        directory = DataDirectory.claim(tmp_path / "data")
        meta = attrs.evolve(VOTES_META, application="two", pipelines=("a", "b"))
        with directory.new_log(meta):
            pass
        directory.release()
        (tmp_path / "two.py").write_text(
            "from alphabet import application, wallaroo\n"
            "def application_setup(args):\n"
            "    builder = wallaroo.ApplicationBuilder('two')\n"
            "    for name in 'ab':\n"
            "        source = wallaroo.TCPSourceConfig('', 0, application.Decoder())\n"
            "        builder.new_pipeline(name, source)\n"
            "        state = application.LetterStateBuilder()\n"
            "        builder.to_stateful(application.AddVotes(), state, name)\n"
            "        sink = wallaroo.TCPSinkConfig('', 0, application.Encoder())\n"
            "        builder.to_sink(sink)\n"
            "    return builder.build()\n"
        )
        words = ("--application-module", "two", "--archive", "archive")
        done = run_in(tmp_path, "compact", "data", "to", *words)
        assert done.code == 2, done
        assert "holds one pipeline's events, and the log has 2 (a, b)" in done.stderr

    def test_of_frames_of_another_form(self, data: Path, tmp_path: Path) -> None:
        """An application that counts its header too is not given frames of ours."""
        (tmp_path / "other.py").write_text(
            "from alphabet import application, wallaroo\n"
            "from alphabet.application import STATE_VERSION\n"
            "class Decoder(application.Decoder):\n"
            "    def payload_length(self, bs):\n"
            "        return int.from_bytes(bs) - 4\n"
            "application.Decoder = Decoder\n"
            "application_setup = application.application_setup\n"
        )
        words = ("--application-module", "other", "--archive", "archive")
        done = run_in(tmp_path, "compact", data, "to", *words)
        assert done.code == 3, done
        assert "event 1 and those after it cannot be archived as frames" in done.stderr
        assert {path.name for path in tmp_path.iterdir()} <= {
            "data",
            "other.py",
            "__pycache__",
        }


def run_in(place: Path, *words: object) -> Finished:
    """Run `alphabet-replay` in a directory."""
    return finish("recovery.cli", *words, working_directory=place)


class TestPlaces:
    """Where the new log may be."""

    def test_places_that_are_none(self, data: Path, tmp_path: Path, run: Run) -> None:
        """TO with a log, TO that is DATA_DIR, TO inside it: refused, and untouched."""
        other = tmp_path / "other"
        write_votes(other)
        (tmp_path / "link").symlink_to(data)
        before = digest(tmp_path)
        names = sorted(tmp_path.rglob("*"))
        for to, said in (
            (other, "it already holds a log; choose a new directory"),
            (data, "it already holds a log; choose a new directory"),
            (tmp_path / "link", "it already holds a log; choose a new directory"),
            (data / "to", "it is inside"),
            (data / "log" / "to", "it is inside"),
            (tmp_path / "link" / "to", "it is inside"),
        ):
            done = run("compact", data, to)
            assert done.code == 3, done
            assert said in done.stderr
        assert digest(tmp_path) == before
        assert sorted(tmp_path.rglob("*")) == names

    def test_a_disk_without_room(self, tmp_path: Path) -> None:
        """It is told before anything is written, with what it takes and what there is.

        Where room is gone all the same in the middle, nothing is left behind.
        """
        lots = [make_votes(random.Random(1), 30_000)] * 10
        data = write_votes(tmp_path / "data", lots).path
        write_votes_snapshot(DataDirectory(data), 6)
        disk = tmp_path / "disk"
        disk.mkdir()
        ended = on_small_disk(disk, f"compact {data} {disk}/to")
        assert (ended.codes, ended.left) == ([3], [])
        assert "it takes about 1,5" in ended.stderr
        assert "left; make room, or choose another disk" in ended.stderr
        ended = on_small_disk(disk, f"compact {data} {disk}/to", is_blind=True)
        assert (ended.codes, ended.left) == ([3], [])
        assert "its disk is full; make room, or choose another" in ended.stderr
        write_votes_snapshot(DataDirectory(data), 300_000)
        with closing(DataDirectory(data).open_log()) as log:
            log.commit(Transaction(forgotten=("out",)))
        line = f"compact {data} {disk}/to --archive {disk}/archive"
        ended = on_small_disk(disk, line)
        assert (ended.codes, ended.left) == ([3], [])
        assert "archive: it takes about 2,7" in ended.stderr
        ended = on_small_disk(disk, line, is_blind=True)
        assert (ended.codes, ended.left) == ([3], [])
        assert "archive: it cannot be written: No space left" in ended.stderr
        # It has room for a log without events.
        ended = on_small_disk(disk, f"compact {data} {disk}/to")
        assert (ended.codes, ended.left[:2]) == ([0], ["to", "to/log"])


class TestBases:
    """Where the new log begins, and what is said of it."""

    @pytest.mark.parametrize("sequence", [300, BASE])
    def test_at_the_snapshot_that_is_named(
        self, data: Path, tmp_path: Path, run: Run, sequence: int
    ) -> None:
        """A snapshot of DATA_DIR is named as `snapshots` does, or as a file is."""
        file = SnapshotDirectory(data / "snapshots").file(sequence)
        for number, name in enumerate([file, file.name]):
            to = tmp_path / str(number)
            done = run("compact", data, to, "--from-snapshot", name)
            assert (done.code, done.stderr) == (0, ""), done
            assert f"in {to}: begins after {sequence}, ends at 1000" in done.stdout

    def test_ahead_of_a_sink(self, data: Path, tmp_path: Path, run: Run) -> None:
        """A sink that goes on behind events it never had is told of, as a warning."""
        name = SnapshotDirectory(data / "snapshots").file(950)
        done = run("compact", data, tmp_path / "to", "--from-snapshot", name)
        assert done.stdout.endswith("begins after 950, ends at 1000\n")
        assert done.stdout.count("\n") == 1
        assert done.stderr == "sink out was behind sequence 950 and goes on there\n"

    def test_of_another_history(self, data: Path, tmp_path: Path, run: Run) -> None:
        """Where the log went on otherwise, it is told that events stay behind."""
        other = write_votes(tmp_path / "other", [[(b"x", 1)] * 20])
        file = write_votes_snapshot(other, 20)
        done = run("compact", data, tmp_path / "to", "--from-snapshot", file)
        assert done.code == 0, done
        assert "begins after 20, ends at 20" in done.stdout
        assert (
            "the log went on otherwise than the snapshot at 20: its events stay behind"
            in done.stderr
        )


class TestEnds:
    """Ended in the middle."""

    @pytest.mark.parametrize(
        ("moment", "has_archive", "has_log"),
        [
            ("create.before_log", False, False),
            ("commit.before_flush:2", False, False),
            ("archive.before_rename", False, False),
            ("archive.after_rename", True, False),
            ("create.before_rename", True, False),
            ("create.after_rename", True, True),
        ],
    )
    def test_killed(
        self,
        data: Path,
        tmp_path: Path,
        run: Run,
        moment: str,
        *,
        has_archive: bool,
        has_log: bool,
    ) -> None:
        """A kill leaves a whole log or none, an archive likewise, the old as it was.

        What is left of it does not hinder another try.
        """
        before = digest(data)
        to, file = tmp_path / "to", tmp_path / "archive"
        done = finish(
            "recovery.cli",
            *("compact", data, to, "--archive", file),
            variables={"ALPHABET_FAILPOINT": moment},
        )
        assert done.code == KILLED, done
        assert digest(data) == before
        assert file.exists() == has_archive
        assert not has_archive or file.stat().st_size == BASE * 9
        assert (to / "log").exists() == has_log
        again = "archive2" if has_archive else "archive"
        if not has_log:
            done = run("compact", data, to, "--archive", tmp_path / again)
            assert done.code == 0, done
        assert run("verify", to).code == 0

    def test_told_to_end(
        self, data: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """SIGTERM and Ctrl-C leave nothing behind."""
        for number in (signal.SIGTERM, signal.SIGINT):

            def end(name: str, number: int = number) -> None:
                if name == "create.before_rename":
                    os.kill(os.getpid(), number)

            monkeypatch.setattr(failpoint, "handler", end)
            assert run("compact", data, tmp_path / "to").code == 130
            assert [path.name for path in tmp_path.iterdir()] == ["data"]


class TestGaps:
    """A log that lacks events."""

    def test_it_is_agreed_to(self, tmp_path: Path, run: Run) -> None:
        """A base behind lost events needs consent; then they are gone from the log."""
        data = write_votes(tmp_path / "data").path
        with closing(DataDirectory(data).open_log()) as log:
            time_ns = log.tail.time_ns + 1
            gap = Block.seal(log.tail, Records.gap(5), time_ns=time_ns)
            rest = Block.seal(gap.tail, pack_votes([(b"a", 1)]), time_ns=time_ns)
            meta = attrs.evolve(log.meta, gaps=[(11, 5)])
            cursors = {"out": Cursor(16, 0)}
            log.commit(Transaction((gap, rest), meta=meta, cursors=cursors))
            tail = log.tail
        snapshots = SnapshotDirectory(data / "snapshots")
        made = SnapshotDirectory(write_votes(tmp_path / "whole").snapshots_path)
        file = write_votes_snapshot(DataDirectory(tmp_path / "whole"), 10)
        snapshot = attrs.evolve(
            made.read(int(file.stem)),
            sequence=16,
            block_sequence=tail.sequence,
            block_checksum=tail.checksum,
        )
        snapshots.write(snapshot)
        to = tmp_path / "to"
        done = run("compact", data, to)
        assert done.code == 1
        assert "events 11 to 15 are lost" in done.stderr
        assert not to.exists()
        done = run("compact", data, to, "--accept-gaps")
        assert done.code == 0, done
        assert "events 11 to 15 are lost: snapshot 16 cannot be held" in done.stderr
        assert json.loads(run("info", to, "--json").stdout)["gaps"] == []
        assert run("verify", to).stdout.startswith("sound: 0 events")


def test_other_applications(tmp_path: Path) -> None:
    """A log of records of many sizes has an archive that its own server reads."""
    directory = DataDirectory.claim(tmp_path / "data")
    with directory.new_log(Meta("sizes-log", "sizes", ("sizes",))) as log:
        append_records(log, Records.pack([b"1", b"", b"333"]))
    directory.release()
    (tmp_path / "sizes.py").write_text(
        "from alphabet import wallaroo\n"
        "class Builder:\n"
        "    def build(self):\n"
        "        return []\n"
        "    def dump(self, state):\n"
        "        return bytes(state)\n"
        "    def load(self, data):\n"
        "        return list(data)\n"
        "class Codec:\n"
        "    def header_length(self):\n"
        "        return 2\n"
        "    def payload_length(self, bs):\n"
        "        return int.from_bytes(bs)\n"
        "    def decode(self, bs):\n"
        "        return bs\n"
        "    encode = decode\n"
        "class Measure:\n"
        "    def name(self):\n"
        "        return 'measure'\n"
        "    def compute(self, data, state):\n"
        "        state.append(len(data))\n"
        "        return data, True\n"
        "def application_setup(args):\n"
        "    ab = wallaroo.ApplicationBuilder('sizes')\n"
        "    ab.new_pipeline('sizes', wallaroo.TCPSourceConfig('', 0, Codec()))\n"
        "    ab.to_stateful(Measure(), Builder(), 'sizes')\n"
        "    ab.to_sink(wallaroo.TCPSinkConfig('', 0, Codec()))\n"
        "    return ab.build()\n"
    )
    module = ("--application-module", "sizes")
    done = run_in(tmp_path, "compact", "data", "to", *module)
    assert "there is no snapshot from sequence 1 to 3 to begin at" in done.stderr
    assert done.code == 3
    words = ("--data-dir", tmp_path / "data", *module)
    with serving(tmp_path, *words, working_directory=tmp_path) as server:
        assert server.stop() == 0
    done = run_in(tmp_path, "compact", "data", "to", *module, "--archive", "archive")
    assert done.code == 0, done
    assert (tmp_path / "archive").read_bytes() == b"\0\x011\0\0\0\x03333"
