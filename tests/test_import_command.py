"""`alphabet-replay import` as its users meet it: what it makes, and how it ends."""

import contextlib
import io
import json
import os
import pty
import random
import resource
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from log import failpoint
from log.directory import LOCK, DataDirectory
from log.log import Log
from log.row import Reject
from recovery.cli import main
from recovery.commands import import_, watch
from recovery.snapshot_directory import SnapshotDirectory
from tests.machines import write_votes
from tests.process import (
    PYTHON,
    ROOT,
    SECONDS_MAX,
    environment,
    finish,
    serving,
    submit,
    wait_until,
)
from tests.votes import Vote, frame, make_votes, tally, wire

VOTES: list[Vote] = [(b"a", 1), (b"b", 2), (b"\xff", 2**32 - 1), (b"#", 0)]

letters = st.integers(0, 255).map(lambda code: bytes([code]))
votes = st.lists(st.tuples(letters, st.integers(0, 2**32 - 1)), max_size=150)


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no variable of ours reach a command that runs in this process."""
    for name in [name for name in os.environ if name.startswith("ALPHABET_")]:
        monkeypatch.delenv(name)


@attrs.frozen
class Ended:
    """A command that ran in this process."""

    code: int
    out: str
    err: str


Run = Callable[..., Ended]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    """Return what runs a command in this process."""

    def run(*words: object) -> Ended:
        capfd.readouterr()
        code = main([str(word) for word in words])
        sys.stdout.flush()
        return Ended(code, *capfd.readouterr())

    return run


@pytest.fixture
def to(tmp_path: Path) -> Path:
    """Return a place for the new log, which is not there yet."""
    return tmp_path / "to"


def write(path: Path, data: bytes) -> Path:
    """Write a file."""
    path.write_bytes(data)
    return path


def opened(path: Path) -> Log:
    """Open a log to look at it."""
    return DataDirectory(path).open_log(is_read_only=True)


def records(path: Path) -> list[bytes]:
    """Give the records of a log."""
    log = opened(path)
    try:
        return [record for block in log.read(0) for record in block.records]
    finally:
        log.close()


def rejects(path: Path) -> list[Reject]:
    """Give the rejects of a log, their times aside."""
    log = opened(path)
    try:
        return [attrs.evolve(reject, time_ns=0) for _, reject in log.rejects()]
    finally:
        log.close()


def totals(path: Path, run: Run) -> dict[str, int]:
    """Give the totals of a log."""
    found: dict[str, int] = json.loads(run("state", path, "--json").out)["totals"]
    return found


def fails(done: Ended, code: int, said: str) -> None:
    """Fail unless it ended so, said so in one line, and printed nothing."""
    assert done.code == code, done
    assert said in done.err
    assert (done.out, done.err.count("\n")) == ("", 1)


class TestRoundTrip:
    """From a log to frames, and back."""

    @settings(max_examples=settings().max_examples // 20)
    @given(st.lists(votes, min_size=1, max_size=4))
    def test_events_become_the_same_log(self, lots: list[list[Vote]]) -> None:
        """`events --format wire` into `import` keeps every record, in order."""
        with tempfile.TemporaryDirectory() as name:
            place = Path(name)
            write_votes(place / "old", [lot for lot in lots if lot])
            with (
                (place / "wire").open("w") as stream,
                contextlib.redirect_stdout(stream),
            ):
                code = main(["events", str(place / "old"), "--format", "wire"])
            assert code == 0
            assert main(["import", str(place / "to"), str(place / "wire")]) == 0
            assert records(place / "to") == records(place / "old")
            assert main(["verify", str(place / "to")]) == 0

    def test_in_one_pipeline_of_the_shell(self, tmp_path: Path, to: Path) -> None:
        """Standard output of one is standard input of the other."""
        old = write_votes(tmp_path / "old").path
        replay = f"{' '.join(PYTHON)} recovery.cli"
        subprocess.run(
            [
                "sh",
                "-c",
                f"{replay} events {old} --format wire | {replay} import {to} -",
            ],
            cwd=ROOT,
            env=environment({}),
            capture_output=True,
            timeout=SECONDS_MAX,
            check=True,
        )
        assert records(to) == records(old)

    def test_the_log_that_a_server_writes(
        self, tmp_path: Path, to: Path, run: Run
    ) -> None:
        """Good and bad frames give the events, totals and rejects that a server has."""
        data = wire(VOTES) + frame(b"bad") + wire(VOTES * 100) + frame(b"") + b"\0\0\0"
        file = write(tmp_path / "votes", data)
        with serving(tmp_path) as server:
            submit(server.port, data)
            assert server.stop() == 0
        served = tmp_path / "data"
        assert run("import", to, file, "--skip-bad").code == 0
        assert records(to) == records(served)
        assert totals(to, run) == totals(served, run) == tally(VOTES * 101)
        found = [attrs.evolve(each, peer="") for each in rejects(to)]
        assert found == [attrs.evolve(each, peer="") for each in rejects(served)]
        assert {each.peer for each in rejects(to)} == {str(file)}

    def test_a_server_goes_on(self, tmp_path: Path, run: Run) -> None:
        """A server starts on an imported log without a replay, and counts on."""
        file = write(tmp_path / "votes", wire(VOTES))
        assert run("import", tmp_path / "data", file).code == 0
        with serving(tmp_path) as server:
            line = "RESILIENCE: Replayed 0 entries from recovery log file."
            assert line in server.lines()
            assert submit(server.port, wire(VOTES))
            assert server.stop() == 0
        assert totals(tmp_path / "data", run) == tally(VOTES * 2)
        assert run("verify", tmp_path / "data").code == 0


class TestFiles:
    """What is read."""

    def test_files_come_in_order(self, tmp_path: Path, to: Path, run: Run) -> None:
        """Several files are one log, in the order that they were named."""
        lots: Sequence[list[Vote]] = ([(b"a", 1)], [(b"b", 2)] * 70, [(b"c", 3)])
        files = [write(tmp_path / str(n), wire(lot)) for n, lot in enumerate(lots)]
        done = run("import", to, *files, files[0])
        assert (done.code, done.err) == (0, "")
        expected = [vote for lot in (*lots, lots[0]) for vote in lot]
        assert records(to) == [letter + n.to_bytes(4) for letter, n in expected]
        log = opened(to)
        log.close()
        assert done.out == f"log {log.meta.log_id} in {to}: 73 events\n"
        assert log.meta.application == "alphabet"
        assert log.meta.record_schema == ">sI"

    def test_an_empty_file(self, tmp_path: Path, to: Path, run: Run) -> None:
        """No vote gives a log without one."""
        done = run("import", to, write(tmp_path / "empty", b""))
        assert (done.code, done.err) == (0, "")
        assert records(to) == []
        assert run("verify", to).out.startswith("sound: 0 events")
        assert SnapshotDirectory(to / "snapshots").sequences() == []

    def test_more_than_one_block(self, tmp_path: Path, to: Path, run: Run) -> None:
        """A file larger than a read is cut anywhere, and nothing is lost there."""
        many = make_votes(random.Random(3), 120_000)
        assert run("import", to, write(tmp_path / "many", wire(many))).code == 0
        assert totals(to, run) == tally(many)
        assert run("verify", to).out == (
            "sound: 120000 events in 2 blocks, 1 snapshot\n"
        )

    def test_modes_are_private(self, tmp_path: Path, to: Path, run: Run) -> None:
        """Others may not read the votes."""
        assert run("import", to, write(tmp_path / "votes", wire(VOTES))).code == 0
        modes = {
            stat.S_IMODE(each.stat().st_mode) & 0o077 for each in [to, *to.rglob("*")]
        }
        assert modes == {0}


@attrs.frozen
class Bad:
    """What follows good votes in a file, and what is said of it."""

    tail: bytes
    cause: str
    is_end: bool = True


BAD = [
    Bad(frame(b"bad"), "error: unpack requires a buffer of 5 bytes", is_end=False),
    Bad(b"\0\0\0\x05a", "the stream ended after 5 of a frame's 9 bytes"),
    Bad(b"\0", "the stream ended after 1 of a header's 4 bytes"),
    Bad(b"\xff" * 9, "a payload of 4294967295 bytes, where 1048576 are accepted"),
]


class TestBadFrames:
    """What is no vote."""

    @pytest.mark.parametrize("bad", BAD)
    def test_1_it_is_named(self, tmp_path: Path, to: Path, run: Run, bad: Bad) -> None:
        """File, byte and cause are said, and nothing is made."""
        good = write(tmp_path / "good", wire(VOTES))
        file = write(tmp_path / "bad", wire(VOTES) + bad.tail)
        done = run("import", to, good, file, good)
        fails(done, 1, f"{file}: byte 36: {bad.cause}: no log was made")
        assert not to.exists()

    @pytest.mark.parametrize("bad", BAD)
    def test_it_is_skipped(self, tmp_path: Path, to: Path, run: Run, bad: Bad) -> None:
        """With leave, it is kept as a reject; the votes around it and behind count."""
        good = write(tmp_path / "good", wire(VOTES))
        file = write(tmp_path / "bad", wire(VOTES) + bad.tail)
        done = run("import", to, file, good, "--skip-bad")
        assert done.code == 0
        place = f"{file}: byte 36: {bad.cause}"
        assert f"bad frames left out: 1; the first: {place}\n" in done.err
        assert (f"{place}; the rest of it is left out\n" in done.err) == bad.is_end
        assert totals(to, run) == tally(VOTES * 2)
        [reject] = rejects(to)
        assert (reject.peer, reject.position) == (str(file), 36)
        assert (reject.cause, reject.sequence) == (bad.cause, 0)
        assert run("verify", to).code == 0

    def test_a_place_that_was_there_stays(
        self, tmp_path: Path, to: Path, run: Run
    ) -> None:
        """An empty directory that no log came into is empty again."""
        to.mkdir()
        bad = write(tmp_path / "bad", frame(b"bad"))
        assert run("import", to, bad).code == 1
        assert list(to.iterdir()) == []
        assert run("import", to, write(tmp_path / "good", wire(VOTES))).code == 0

    def test_the_longest_frame_is_a_choice(
        self, tmp_path: Path, to: Path, run: Run
    ) -> None:
        """`--max-frame-bytes` is inclusive, as a server's is."""
        file = write(tmp_path / "votes", wire(VOTES))
        done = run("import", to, file, "--max-frame-bytes", 4)
        fails(done, 1, f"{file}: byte 0: a payload of 5 bytes, where 4 are accepted")
        assert run("import", to, file, "--max-frame-bytes", 5).code == 0


class TestRefused:
    """What cannot be imported, or not there."""

    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        """Return a file of four votes."""
        return write(tmp_path / "votes", wire(VOTES))

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            ("TO", "Missing argument 'FILE...'"),
            ("TO NONE", "does not exist"),
            ("TO FILE /tmp", "'/tmp' is a directory"),
            ("TO - FILE -", "standard input can be read only once"),
            ("TO FILE --pipeline no", "there is no pipeline 'no' (known: alphabet)"),
            ("TO FILE --max-frame-bytes 536870913", "--max-frame-bytes"),
        ],
    )
    def test_2_usage(
        self, to: Path, file: Path, run: Run, words: str, said: str
    ) -> None:
        """What cannot be asked for is said before anything is made."""
        words = words.replace("TO", str(to)).replace("FILE", str(file))
        fails(run("import", *words.split()), 2, said)
        assert not to.exists()

    def test_3_no_place(self, tmp_path: Path, file: Path, run: Run) -> None:
        """A place must be new or empty, have a parent, and be in no data directory."""
        old = write_votes(tmp_path / "old", snapshots=[6]).path
        lost = Path(shutil.copytree(old, tmp_path / "lost"))
        shutil.rmtree(lost / "log")
        (tmp_path / "full").mkdir()
        (tmp_path / "full" / "mine.txt").touch()
        before = sorted(tmp_path.rglob("*"))
        for to, said in [
            (old, "it already holds a log"),
            (lost, "it holds snapshots of a log that is not there"),
            (tmp_path / "full", "it holds 'mine.txt'"),
            (tmp_path / "none" / "to", "does not exist"),
            (old / "to", f"it is inside {old}"),
            (old / "snapshots" / "to", f"it is inside {old}"),
            (file, "not a directory"),
        ]:
            fails(run("import", to, file), 3, said)
            assert sorted(tmp_path.rglob("*")) == before

    def test_3_no_such_application(self, to: Path, file: Path, run: Run) -> None:
        """A module that cannot be imported is named."""
        done = run("import", to, file, "--application-module", "no_such")
        fails(done, 3, "application module 'no_such': ModuleNotFoundError")

    def test_3_a_file_that_fails(self, to: Path, run: Run) -> None:
        """A file that cannot be read is named, with the byte, and nothing is made."""
        fails(run("import", to, "/proc/self/mem"), 3, "/proc/self/mem: byte 0: ")
        assert not to.exists()

    def test_3_a_file_that_fails_in_the_middle(
        self, to: Path, file: Path, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The byte is told up to which the file could be read."""

        class Rotten(io.BytesIO):
            """A file with a bad sector behind its second piece."""

            def read(self, size: int | None = -1) -> bytes:
                if self.tell() == 10:
                    raise OSError(5, "Input/output error")
                return super().read(size)

        monkeypatch.setattr(import_, "BLOCK_BYTES", 5)
        monkeypatch.setattr(import_, "_opened", lambda _: Rotten(wire([(b"a", 1)] * 2)))
        fails(run("import", to, file), 3, f"{file}: byte 10: Input/output error; no")
        assert not to.exists()

    def test_3_a_log_that_cannot_be_written(self, tmp_path: Path, to: Path) -> None:
        """A disk that takes no more leaves nothing behind but a line."""
        file = write(tmp_path / "many", wire([(b"a", 1)] * 100_000))
        done = subprocess.run(
            [*PYTHON, "recovery.cli", "import", str(to), str(file)],
            cwd=ROOT,
            env=environment({"PYTHONDONTWRITEBYTECODE": "1"}),
            capture_output=True,
            text=True,
            timeout=SECONDS_MAX,
            check=False,
            preexec_fn=lambda: resource.setrlimit(
                resource.RLIMIT_FSIZE, (200_000, 200_000)
            ),
        )
        assert done.returncode == 3
        assert f"{to}: LMDB says: " in done.stderr
        assert done.stderr.endswith("; no log was made\n")
        assert not to.exists()


MODULE = """
from alphabet import wallaroo
class Count:
    total = 0
class Builder:
    def build(self): return Count()
    def dump(self, state): return bytes([state.total])
    def load(self, data):
        state = Count()
        state.total = data[0]
        return state
class Codec:
    def header_length(self): return 2
    def payload_length(self, bs): return int.from_bytes(bs)
    def decode(self, bs): return bs
    def encode(self, data): return data
class Add:
    def name(self): return "add"
    def compute(self, data, state):
        state.total += 1
        if data == b"fail": raise ValueError("it failed")
        return data, data == b"mark"
def application_setup(args):
    ab = wallaroo.ApplicationBuilder("marks")
    for name in ("one", "two"):
        ab.new_pipeline(name, wallaroo.TCPSourceConfig("127.0.0.1", "0", Codec()))
        ab.to_stateful(Add(), Builder(), "count")
        ab.to_sink(wallaroo.TCPSinkConfig("", "", Codec()))
    return ab.build()
"""


class TestOtherApplications:
    """Frames that Alphabet's own application does not read."""

    @pytest.fixture(autouse=True)
    def in_place(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let the module be found."""
        (tmp_path / "marks_module.py").write_text(MODULE)
        monkeypatch.syspath_prepend(tmp_path)

    def frames(self, *payloads: bytes) -> bytes:
        """Frame payloads as the module has them."""
        return b"".join(len(each).to_bytes(2) + each for each in payloads)

    @pytest.mark.parametrize("last", [b"mark", b"other"])
    def test_a_snapshot_where_the_last_event_is_marked(
        self, tmp_path: Path, to: Path, run: Run, last: bytes
    ) -> None:
        """As a server's clean stop, it keeps the state if compute said so, else not."""
        file = write(tmp_path / "frames", self.frames(b"mark", b"", last))
        done = run("import", to, file, "--application-module", "marks_module")
        assert (done.code, done.err) == (0, "")
        assert records(to) == [b"mark", b"", last]
        expected = [3] if last == b"mark" else []
        assert SnapshotDirectory(to / "snapshots").sequences() == expected
        assert run("verify", to, "--application-module", "marks_module").code == 0

    def test_a_snapshot_that_cannot_be_written(
        self, tmp_path: Path, to: Path, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The log is there without it, and that it is not is told."""
        file = write(tmp_path / "frames", self.frames(b"mark"))

        def fail(moment: str) -> None:
            if moment == "snapshot.before_rename":
                raise OSError(28, "No space left on device")

        monkeypatch.setattr(failpoint, "handler", fail)
        done = run("import", to, file, "--application-module", "marks_module")
        assert done.code == 0
        assert "no snapshot at sequence 1: [Errno 28] No space left" in done.err
        assert records(to) == [b"mark"]

    def test_it_can_be_watched(
        self, tmp_path: Path, to: Path, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Who watches it names its application once, and each look knows it."""
        file = write(tmp_path / "frames", self.frames(b"mark"))
        assert run("import", to, file, "--application-module", "marks_module").code == 0
        looks = [True, False]
        monkeypatch.setattr(watch, "is_read_for", lambda _: looks.pop(0))
        done = run("state", to, "--watch", "--application-module", "marks_module")
        assert (done.code, looks) == (0, [])

    def test_failed_events_are_events(self, tmp_path: Path, to: Path, run: Run) -> None:
        """What compute refuses stays in the log, is counted, and listed once."""
        file = write(tmp_path / "frames", self.frames(b"1", b"fail", b"3"))
        done = run("import", to, file, "--application-module", "marks_module")
        assert done.code == 0
        assert done.err.startswith("failed events: 1; ")
        assert records(to) == [b"1", b"fail", b"3"]
        assert [(each.sequence, each.reason) for each in rejects(to)] == [
            (2, "compute")
        ]

    def test_a_pipeline_is_chosen(self, tmp_path: Path, run: Run) -> None:
        """Frames go to the first pipeline, or to the one that is named."""
        file = write(tmp_path / "frames", self.frames(b"1", b"2"))
        words = (file, "--application-module", "marks_module")
        for number, name in enumerate(("one", "two")):
            place = tmp_path / name
            option = ["--pipeline", name] if number else []
            assert run("import", place, *words, *option).code == 0
            log = opened(place)
            assert {block.pipeline for block in log.read(0)} == {number}
            assert log.meta.pipelines == ("one", "two")
            log.close()


class TestEnds:
    """However it ends."""

    @pytest.mark.parametrize(
        "failpoint", ["commit.after_flush:2", "create.before_rename"]
    )
    def test_a_kill_leaves_no_log(
        self, tmp_path: Path, to: Path, run: Run, failpoint: str
    ) -> None:
        """Killed before it is whole, there is no log; a second try makes it."""
        file = write(tmp_path / "votes", wire(VOTES))
        done = finish(
            "recovery.cli",
            *("import", to, file),
            variables={"ALPHABET_FAILPOINT": failpoint},
        )
        assert done.code == 128 + signal.SIGKILL
        assert not DataDirectory(to).has_log()
        assert run("import", to, file).code == 0
        assert totals(to, run) == tally(VOTES)

    def test_a_kill_before_the_snapshot_costs_a_replay(
        self, tmp_path: Path, to: Path, run: Run
    ) -> None:
        """Once it has its name the log is whole, with its snapshot or without."""
        file = write(tmp_path / "votes", wire(VOTES))
        variables = {"ALPHABET_FAILPOINT": "snapshot.before_rename"}
        done = finish("recovery.cli", "import", to, file, variables=variables)
        assert done.code == 128 + signal.SIGKILL
        assert totals(to, run) == tally(VOTES)
        assert run("verify", to).code == 0

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_told_to_end(self, to: Path, number: int) -> None:
        """Interrupted while it waits for input, it leaves no directory behind."""
        with subprocess.Popen(
            [*PYTHON, "recovery.cli", "import", str(to), "-"],
            cwd=ROOT,
            env=environment({}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:
            assert process.stdin is not None
            process.stdin.write(wire(VOTES))
            process.stdin.flush()
            wait_until((to / "log.new" / "data.mdb").exists, "a log in the making")
            wait_until((to / LOCK).exists, "a lock")
            process.send_signal(number)
            _, err = process.communicate(timeout=SECONDS_MAX)
        assert process.returncode == 130
        assert b"Traceback" not in err
        assert not to.exists()

    def test_a_bar_on_a_terminal(self, tmp_path: Path, to: Path) -> None:
        """A bar tells how much is read; what is printed stays the same."""
        file = write(tmp_path / "votes", wire(VOTES))
        ours, theirs = pty.openpty()
        with os.fdopen(ours, "rb", buffering=0) as terminal:
            done = subprocess.run(
                [*PYTHON, "recovery.cli", "import", str(to), str(file)],
                env=environment({"TERM": "xterm"}),
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=theirs,
                timeout=SECONDS_MAX,
                check=True,
            )
            os.close(theirs)
            shown = terminal.read(1 << 16)
        assert done.stdout.endswith(b": 4 events\n")
        assert b"import" in shown
