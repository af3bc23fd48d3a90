"""`alphabet-replay state` at any moment of the past, and as it changes."""

import contextlib
import fcntl
import itertools
import json
import os
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import attrs
import pytest

from log.block import Records
from log.directory import DataDirectory
from log.store import BLOCKS, Change
from recovery.snapshot_directory import SnapshotDirectory
from tests.machines import (
    LOTS,
    VOTES_META,
    append_records,
    append_votes,
    flip_middle,
    key,
    write_votes,
)
from tests.process import (
    PYTHON,
    ROOT,
    SECONDS_MAX,
    Finished,
    environment,
    serving,
    submit,
    wait_until,
)
from tests.replaying import replay_here
from tests.votes import Vote, tally, wire

VOTES = [vote for lot in LOTS for vote in lot]
ENDS = [0, 3, 5, 6, 10]
"""Where the blocks of LOTS end; the n-th is of n seconds after BEGIN."""
BEGIN = "2023-11-14T22:13:20Z"
UP = b"\x1b[1A"
CURSOR = b"\x1b[?25h"
"""What a terminal is told to go up a line, and to show its cursor."""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Return a directory with a log of ten votes in four blocks, and a snapshot."""
    return write_votes(tmp_path / "data", snapshots=[5]).path


def damage(data: Path, first: int) -> None:
    """Change a block as it is stored."""
    with contextlib.closing(DataDirectory(data).open_log()) as log:
        value = log.store.get(BLOCKS, key(first))
        assert value is not None
        log.store.commit([Change(BLOCKS, key(first), flip_middle(value))], 0)


def at(data: Path, moment: object, *words: object) -> Finished:
    """Ask for a moment, as JSON."""
    return replay_here("state", data, "--at", moment, "--json", *words)


class TestAt:
    """A moment of the past."""

    @pytest.mark.parametrize("seconds", range(6))
    @pytest.mark.parametrize("fraction", ["", ".000000001"])
    def test_a_time(self, data: Path, seconds: int, fraction: str) -> None:
        """At a time the totals are those after the last block at or before it."""
        done = at(data, f"2023-11-14T22:13:{20 + seconds}{fraction}Z")
        end = ENDS[min(seconds, 4)]
        found = json.loads(done.stdout)
        assert (found["sequence"], found["totals"]) == (end, tally(VOTES[:end]))

    @pytest.mark.parametrize("seconds", range(1, 5))
    def test_an_instant_before_a_block(self, data: Path, seconds: int) -> None:
        """A nanosecond before a block it does not count yet."""
        done = at(data, f"2023-11-14T22:13:{19 + seconds}.999999999Z")
        assert json.loads(done.stdout)["sequence"] == ENDS[seconds - 1]

    def test_what_it_says_can_be_asked_for(self, data: Path) -> None:
        """The time that the answer tells leads to the same answer."""
        for end in ENDS[1:]:
            told = json.loads(at(data, end).stdout)["time"]
            assert json.loads(at(data, told).stdout)["sequence"] == end

    def test_how_it_came_to_it(self, data: Path) -> None:
        """The answer tells the moment's time, where it began and what it replayed."""
        found = json.loads(at(data, 9).stdout)
        assert found.pop("seconds") >= 0
        assert found == {
            "sequence": 9,
            "time": "2023-11-14T22:13:24Z",
            "snapshot": 5,
            "replayed": 4,
            "totals": tally(VOTES[:9]),
        }
        found = json.loads(at(data, 4).stdout)
        assert (found["snapshot"], found["replayed"]) == (None, 4)
        said = replay_here("state", data, "--at", 9).stderr
        assert re.fullmatch(
            r"after sequence 9 \(2023-11-14T22:13:24Z\): began at the snapshot 5, "
            r"replayed 4 events in \d+\.\d{3} s \([\d,]+/s\)\n",
            said,
        )

    def test_before_everything(self, data: Path) -> None:
        """Before the first block there are no votes, and the moment has no time."""
        for moment in (0, "1969-07-20T20:17:40Z", BEGIN):
            found = json.loads(at(data, moment).stdout)
            assert (found["sequence"], found["time"]) == (0, None)
            assert found["totals"] == {}

    def test_before_the_base(self, tmp_path: Path, data: Path) -> None:
        """Of a compacted log, a time before its first block is refused: it is gone."""
        new = tmp_path / "new"
        file = data / "snapshots" / f"{5:020}.snapshot"
        assert replay_here("compact", data, new, "--from-snapshot", file).code == 0
        done = at(new, "2000-01-01")
        assert (done.code, done.stdout) == (2, "")
        assert "is before the first event of this log" in done.stderr
        found = json.loads(at(new, 5).stdout)
        assert (found["sequence"], found["time"]) == (5, None)
        assert found["totals"] == tally(VOTES[:5])
        done = at(new, 4)
        assert (done.code, done.stdout) == (2, "")
        assert "--at 4 is not in the log, which goes from 5 to 10" in done.stderr

    def test_a_time_in_a_gap(self, data: Path) -> None:
        """A time at which events were lost is refused, or passes over them."""
        with contextlib.closing(DataDirectory(data).open_log()) as log:
            append_records(log, Records.gap(5))
            append_votes(log, [(b"a", 1)])
        moment = "2023-11-14T22:13:25Z"
        done = at(data, moment)
        assert (done.code, done.stdout) == (1, "")
        assert "events 11 to 15 are lost" in done.stderr
        found = json.loads(at(data, moment, "--accept-gaps").stdout)
        assert (found["sequence"], found["totals"]) == (15, tally(VOTES))


def test_the_seconds_are_those_it_took(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time is from begin to end, and the rate is that of the events replayed."""
    seconds = itertools.count(100, 2)
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(seconds)))
    done = replay_here("state", data, "--at", 9)
    assert "replayed 4 events in 2.000 s (2/s)" in done.stderr
    assert json.loads(at(data, 9).stdout)["seconds"] == 2.0


def test_watching_takes_no_moment(data: Path) -> None:
    """Who watches a log sees its end, and asks for no other moment."""
    done = replay_here("state", data, "--watch", "--at", 5)
    assert (done.code, done.stdout) == (2, "")
    assert "--watch follows the log's end: it takes no --at" in done.stderr


class TestLostTail:
    """A snapshot of an event that the log does not have."""

    @pytest.mark.parametrize(
        ("sequence", "log_id", "code"),
        [(10, VOTES_META.log_id, 0), (11, VOTES_META.log_id, 1), (11, "other", 0)],
    )
    def test_it_tells_that_events_were_lost(
        self, data: Path, sequence: int, log_id: str, code: int
    ) -> None:
        """Totals now are printed, with what they lack, if it is this log's snapshot."""
        snapshots = SnapshotDirectory(data / "snapshots")
        snapshot = attrs.evolve(snapshots.read(5), sequence=sequence, log_id=log_id)
        snapshots.write(snapshot)
        done = replay_here("state", data, "--json")
        assert (done.code, json.loads(done.stdout)["sequence"]) == (code, 10)
        said = "ends at sequence 10, and there is a snapshot at 11: what came between"
        assert (said in done.stderr) == bool(code)
        assert at(data, 10).code == 0

    def test_one_that_is_broken_hides_no_other(self, data: Path) -> None:
        """Whatever else lies there, a whole one beyond the end is told."""
        snapshots = SnapshotDirectory(data / "snapshots")
        snapshots.write(attrs.evolve(snapshots.read(5), sequence=12))
        for sequence in (11, 13):
            snapshots.file(sequence).write_bytes(b"nonsense of some length")
        done = replay_here("state", data)
        assert done.code == 1
        assert "there is a snapshot at 12" in done.stderr


class TestDamage:
    """A log that is damaged has the moments before that."""

    @pytest.mark.parametrize("moment", [0, 1, 3, 4, 5, 6, "2023-11-14T22:13:22.9Z"])
    def test_before_a_damaged_end(self, data: Path, moment: int | str) -> None:
        """Any moment before the damaged last block is there; the damage is told."""
        damage(data, 7)
        done = at(data, moment)
        assert done.code == 0, done
        end = moment if isinstance(moment, int) else 5
        found = json.loads(done.stdout)
        assert (found["sequence"], found["totals"]) == (end, tally(VOTES[:end]))
        assert done.stderr == (
            f"{data}/log is damaged at sequence 7: its checksum does not match; this "
            "is a moment before it\n"
        )

    @pytest.mark.parametrize(
        "words",
        [
            [],
            ["--at", 7],
            ["--at", 11],
            ["--at", "2030-01-01"],
            ["--at", "2023-11-14T22:13:24Z"],
            ["--watch"],
        ],
    )
    def test_behind_a_damaged_end(self, data: Path, words: list[object]) -> None:
        """What the damage hides is an error that names it, and the ways past it."""
        damage(data, 7)
        done = replay_here("state", data, *words)
        assert (done.code, done.stdout) == (1, "")
        assert done.stderr == (
            f"alphabet-replay: {data}/log is damaged at sequence 7: its checksum does "
            f"not match; --at 6 gives the totals before it, 'alphabet-replay salvage "
            f"{data} TO' saves what is intact\n"
        )

    @pytest.mark.parametrize("moment", [1, 3, "2023-11-14T22:13:20.5Z"])
    def test_before_damage_in_the_middle(self, data: Path, moment: int | str) -> None:
        """A moment before a damaged block is there, whatever is behind it."""
        damage(data, 4)
        done = at(data, moment)
        end = moment if isinstance(moment, int) else 0
        assert json.loads(done.stdout)["totals"] == tally(VOTES[:end])

    def test_across_damage_in_the_middle(self, data: Path) -> None:
        """A moment that needs a damaged block names the last one that does not."""
        damage(data, 6)
        done = at(data, 6)
        assert (done.code, done.stdout) == (1, "")
        assert "--at 5 gives the totals before it" in done.stderr


@attrs.define
class Watching:
    """`state --watch` as a process; what it says is kept in two files."""

    process: subprocess.Popen[bytes]
    stdout: Path
    stderr: Path

    @classmethod
    @contextlib.contextmanager
    def start(cls, data: Path, *words: object) -> Iterator[Self]:
        """Start it, and end it at once if the test did not."""
        stdout, stderr = data.parent / "watch.out", data.parent / "watch.err"
        command = ["recovery.cli", "state", data, "--watch", *words]
        quick = ["--interval-seconds", "0.02"]
        with stdout.open("wb") as out, stderr.open("wb") as err:
            process = subprocess.Popen(
                [*PYTHON, *map(str, command), *quick],
                cwd=ROOT,
                env=environment({}),
                stdout=out,
                stderr=err,
            )
        try:
            yield cls(process, stdout, stderr)
        finally:
            process.kill()
            process.wait()

    def wait_printed(self, part: str) -> None:
        """Wait until it has printed something."""
        wait_until(
            lambda: part in self.stdout.read_text() or self.process.poll() is not None,
            f"{part!r} in {self.stdout}",
        )
        assert part in self.stdout.read_text(), self.stderr.read_text()

    def wait_totals(self, expected: dict[str, int]) -> None:
        """Wait until the last line of JSON has these totals."""

        def is_there() -> bool:
            *_, last, rest = ["{}", *self.stdout.read_text().split("\n")]
            return not rest and json.loads(last).get("totals") == expected

        wait_until(lambda: is_there() or self.process.poll() is not None, f"{expected}")
        assert is_there(), self.stderr.read_text()

    def stop(self, number: int = signal.SIGINT) -> int:
        """Ask it to end; give its exit code."""
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        """Wait for its end; give its exit code."""
        return self.process.wait(SECONDS_MAX)


class TestWatch:
    """The totals as they change."""

    def test_tables_in_a_pipe(self, tmp_path: Path) -> None:
        """Each change is a whole table, a blank line between two; Ctrl-C ends it."""
        with serving(tmp_path) as server:
            assert submit(server.port, wire([(b"a", 1)]))
            with Watching.start(tmp_path / "data") as watching:
                watching.wait_printed("a => 1\n")
                assert submit(server.port, wire([(b"a", 1), (b" ", 3)]))
                watching.wait_printed("a => 2\n")
                assert watching.stop() == 0
            assert watching.stdout.read_text() == ("a => 1\n\n\\x20 => 3\na => 2\n")
            said = watching.stderr.read_text()
            assert said.startswith("after sequence 1 (")
            assert len(said.strip().splitlines()) == 1

    def test_a_server_that_comes_and_goes(self, tmp_path: Path) -> None:
        """A server may be killed, be away, and start again: all of it is seen."""
        data = tmp_path / "data"
        lots: list[list[Vote]] = [[(b"a", 1)], [(b"b", 2), (b"a", 3)], [(b"c", 4)]]
        with serving(tmp_path) as server:
            assert submit(server.port, wire(lots[0]))
            server.kill()
        with Watching.start(data, "--json") as watching:
            watching.wait_totals({"a": 1})
            with serving(tmp_path) as server:
                assert submit(server.port, wire(lots[1]))
                watching.wait_totals({"a": 4, "b": 2})
                assert server.stop() == 0
            with serving(tmp_path) as server:
                assert submit(server.port, wire(lots[2]))
                watching.wait_totals({"a": 4, "b": 2, "c": 4})
                server.kill()
            assert watching.stop() == 0
        lines = [json.loads(line) for line in watching.stdout.read_text().splitlines()]
        assert [line["sequence"] for line in lines] == [1, 3, 4]
        assert lines[0].keys() == {"sequence", "time", "totals"}
        told = [json.loads(at(data, line["time"]).stdout) for line in lines]
        assert [each["totals"] for each in told] == [line["totals"] for line in lines]

    def test_nothing_new_is_nothing_said(self, data: Path) -> None:
        """Without a change nothing is printed, however often it looks."""
        with Watching.start(data, "--format", "csv") as watching:
            watching.wait_printed("\\xe9,5\n")
            with contextlib.closing(DataDirectory(data).open_log()) as log:
                append_votes(log, [(b"q", 1)])
            watching.wait_printed("q,1\n")
            assert watching.stop(signal.SIGTERM) == 0
        tables = watching.stdout.read_text().split("\n\n")
        assert [table.partition("\n")[0] for table in tables] == ["letter,votes"] * 2
        assert watching.stderr.read_text() == ""

    def test_a_log_that_was_replaced(self, data: Path, tmp_path: Path) -> None:
        """Another log in its place is an error that says so, and no more totals."""
        other = attrs.evolve(VOTES_META, log_id="f" * 32)
        new = write_votes(tmp_path / "new", [[(b"x", 1)]] * 12, meta=other).path
        with Watching.start(data, "--json") as watching:
            watching.wait_totals(tally(VOTES))
            (data / "log").rename(tmp_path / "old")
            (new / "log").rename(data / "log")
            code = watching.wait()
        assert len(watching.stdout.read_text().splitlines()) == 1
        said = watching.stderr.read_text()
        # It may have looked just when there was none.
        assert (code, f"{data}/log was replaced: it is log ffff" in said) in {
            (1, True),
            (3, False),
        }
        assert len(said.splitlines()) == 1

    def test_an_older_copy_of_the_log(self, data: Path, tmp_path: Path) -> None:
        """A log that went back is one that was replaced."""
        older = shutil.copytree(data / "log", tmp_path / "older")
        with contextlib.closing(DataDirectory(data).open_log()) as log:
            append_votes(log, [(b"q", 1)])
        with Watching.start(data, "--json") as watching:
            watching.wait_totals(tally([*VOTES, (b"q", 1)]))
            (older / "data.mdb").replace(data / "log" / "data.mdb")
            assert watching.wait() == 1
        said = watching.stderr.read_text()
        assert "was replaced: it ends at 10, and was at 11" in said
        assert len(said.splitlines()) == 1

    def test_damage_that_comes(self, data: Path) -> None:
        """A new block that is damaged ends it, with the ways past it."""
        with Watching.start(data, "--json") as watching:
            watching.wait_totals(tally(VOTES))
            with contextlib.closing(DataDirectory(data).open_log()) as log:
                log.store.commit([Change(BLOCKS, key(11), b"nonsense" * 20)], 0)
            assert watching.wait() == 1
        said = watching.stderr.read_text()
        assert "is damaged at sequence 11" in said
        assert "--at 10 gives the totals before it" in said

    def test_a_reader_that_goes_away(self, data: Path) -> None:
        """As by `| head`, it ends at once when nobody reads, though nothing changes."""
        readable, writable = os.pipe()
        with subprocess.Popen(
            [*PYTHON, "recovery.cli", "state", str(data), "--watch", "--json"],
            cwd=ROOT,
            env=environment({}),
            stdout=writable,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                os.close(writable)
                with os.fdopen(readable) as reader:
                    assert json.loads(reader.readline())["totals"] == tally(VOTES)
                _, said = process.communicate(timeout=SECONDS_MAX)
            finally:
                process.kill()
        assert (process.returncode, said) == (0, "")

    def test_without_a_log(self, tmp_path: Path) -> None:
        """A directory without a log is one that was mistyped."""
        done = replay_here("state", tmp_path, "--watch")
        assert (done.code, done.stdout) == (3, "")
        assert "there is no log in it" in done.stderr


class TestTerminal:
    """The totals redrawn in place."""

    def test_redrawn_in_place(self, data: Path) -> None:
        """Totals stand in columns and are redrawn; Ctrl-C gives the cursor back."""
        with terminal(data) as (process, screen):
            seen = read_until(screen, b"; Ctrl-C ends")
            [line] = [line for line in seen.splitlines() if b"a => 21" in line]
            assert line.count(b" => ") > 1
            with contextlib.closing(DataDirectory(data).open_log()) as log:
                append_votes(log, [(b"a", 4)])
            seen = read_until(screen, b"after sequence 11 (2023-11-14T")
            assert UP in seen
            assert b"a => 25" in seen
            os.write(screen, b"\x03")
            rest = read_until(screen, CURSOR)
            assert process.wait(SECONDS_MAX) == 0
        assert b"Traceback" not in rest

    def test_ended_from_outside(self, data: Path) -> None:
        """Who ends it otherwise leaves a terminal with its cursor, too."""
        with terminal(data) as (process, screen):
            read_until(screen, b"; Ctrl-C ends")
            process.terminate()
            read_until(screen, CURSOR)
            assert process.wait(SECONDS_MAX) == 0


@contextlib.contextmanager
def terminal(data: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Watch on a terminal of its own; give the process, and where to type and read."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    command = ["state", str(data), "--watch", "--interval-seconds", "0.02"]
    # The first terminal that a new session opens is its own.
    opening = "import os, sys; os.open(os.ttyname(0), os.O_RDWR);"
    opening += " os.execv(sys.argv[1], sys.argv[1:])"
    process = subprocess.Popen(
        [PYTHON[0], "-c", opening, *PYTHON, "recovery.cli", *command],
        cwd=ROOT,
        env=environment({"TERM": "xterm"}),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    try:
        yield process, ours
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def read_until(terminal: int, part: bytes) -> bytes:
    """Read what a terminal shows until something is there."""
    seen = bytearray()
    while part not in seen:
        readable, _, _ = select.select([terminal], [], [], SECONDS_MAX)
        assert readable, f"in vain: {part!r} in {bytes(seen)!r}"
        try:
            seen += os.read(terminal, 1 << 16)
        except OSError:  # It was closed.
            pytest.fail(f"{part!r} is not in {bytes(seen)!r}")
    return bytes(seen)
