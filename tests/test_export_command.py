"""`alphabet-replay export` as its users meet it."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import pytest

from log.block import Records
from log.directory import DataDirectory
from log.log import Log
from log.row import Meta
from log.store import BLOCKS, Change
from recovery.cli import main
from recovery.commands.export import FILE_EVENTS
from tests.exported import FAILPOINTS, names, rows, summed, vote_rows, votes_of
from tests.machines import (
    LOTS,
    VOTES_META,
    append_records,
    append_votes,
    change,
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
    finish,
    replay,
    serving,
    submit,
    wait_until,
)
from tests.votes import make_votes, tally, wire

VOTES = [vote for lot in LOTS for vote in lot]
LOG_ID = VOTES_META.log_id

Run = Callable[..., Finished]


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no variable of ours reach a command that runs in this process."""
    for name in [name for name in os.environ if name.startswith("ALPHABET_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    """Return what runs a command in this process."""

    def run(*words: object) -> Finished:
        capfd.readouterr()
        code = main([str(word) for word in words])
        sys.stdout.flush()
        out, err = capfd.readouterr()
        return Finished(code, out, err)

    return run


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Return a data directory of ten votes in four blocks."""
    return write_votes(tmp_path / "data").path


@pytest.fixture
def to(tmp_path: Path) -> Path:
    """Return where an export may go."""
    return tmp_path / "to"


@contextlib.contextmanager
def opened(data: Path) -> Iterator[Log]:
    """Open a log to look at it, or to append."""
    with contextlib.closing(DataDirectory(data).open_log()) as log:
        yield log


def damage_block(data: Path, first: int) -> None:
    """Change a block as it is stored."""
    with opened(data) as log:
        value = log.store.get(BLOCKS, key(first))
        assert value is not None
        log.store.commit([Change(BLOCKS, key(first), flip_middle(value))], 0)


def all_votes(data: Path) -> object:
    """Give all rows that an export must have."""
    with opened(data) as log:
        return votes_of(log, 0, log.tail.sequence)


def file_name(first: int, last: int) -> str:
    """Give a segment's name."""
    return f"{first:020}-{last:020}-{LOG_ID}.parquet"


class TestResults:
    """What is written, and what is said of it."""

    def test_all_votes_are_written(self, data: Path, to: Path, run: Run) -> None:
        """Every vote is in the files, and their number and size are told."""
        done = run("export", data, to)
        [name] = names(to)
        size = (to / name).stat().st_size
        assert done == Finished(
            0,
            f"files: 1\nevents: 10\nbytes: {size}\nafter: 0\nlast sequence: 10\n",
            "",
        )
        assert name == file_name(1, 10)
        assert vote_rows(to) == all_votes(data)
        assert summed(to) == tally(VOTES)

    def test_json(self, data: Path, to: Path, run: Run) -> None:
        """The same is told as JSON; a run with nothing to do says so."""
        found = json.loads(run("export", data, to, "--json").stdout)
        assert found.pop("bytes") == (to / file_name(1, 10)).stat().st_size
        first = {"files": 1, "events": 10, "after": 0, "last_sequence": 10, "gaps": []}
        assert found == first
        found = json.loads(run("export", data, to, "--json").stdout)
        nothing = {"files": 0, "events": 0, "bytes": 0, "after": 10}
        assert found == first | nothing

    def test_it_goes_on(self, data: Path, to: Path, run: Run) -> None:
        """A later run writes what came since, and what a bound had left."""
        assert "events: 4\n" in run("export", data, to, "--until", 4).stdout
        with opened(data) as log:
            append_votes(log, [(b"n", 1)])
        assert "events: 7\n" in run("export", data, to).stdout
        assert "events: 0\n" in run("export", data, to, "--until", 3).stdout
        assert names(to) == [file_name(1, 4), file_name(5, 11)]
        assert vote_rows(to) == all_votes(data)

    def test_files_end_where_blocks_do(self, data: Path, to: Path, run: Run) -> None:
        """A file has at most so many events, but for the rest of a block."""
        done = run("export", data, to, "--file-events", 3)
        assert "files: 3\n" in done.stdout
        assert names(to) == [file_name(1, 3), file_name(4, 6), file_name(7, 10)]

    def test_by_day(self, data: Path, to: Path, run: Run) -> None:
        """By day, files are in directories by day, and a later run goes on so."""
        assert run("export", data, to, "--partition", "day", "--until", 5).code == 0
        assert run("export", data, to).code == 0
        assert names(to) == [
            f"day=2023-11-14/{file_name(1, 5)}",
            f"day=2023-11-14/{file_name(6, 10)}",
        ]

    def test_after(self, data: Path, to: Path, run: Run) -> None:
        """An export may begin later; the same bound does no harm in a later run."""
        assert run("export", data, to, "--after", 4, "--until", 7).code == 0
        assert run("export", data, to, "--after", 4).code == 0
        with opened(data) as log:
            assert vote_rows(to) == votes_of(log, 4, 10)

    def test_bounds_may_be_times(self, data: Path, to: Path, run: Run) -> None:
        """A bound that is a time is the last event at or before it."""
        words = ("--after", "2023-11-14T22:13:21Z", "--until", "2023-11-14T22:13:23.5Z")
        assert run("export", data, to, *words).code == 0
        assert names(to) == [file_name(4, 6)]
        words = ("--after", "2023-11-14T22:13:21.9Z", "--until", "2099-01-01")
        assert run("export", data, to, *words).code == 0
        assert names(to) == [file_name(4, 6), file_name(7, 10)]

    def test_a_compacted_log(self, data: Path, to: Path, run: Run) -> None:
        """A log that begins at a snapshot is exported from there."""
        write_votes(data.with_name("other"), snapshots=[6])
        assert run("compact", data.with_name("other"), data.with_name("new")).code == 0
        done = run("export", data.with_name("new"), to, "--json")
        found = json.loads(done.stdout)
        assert (found["after"], found["events"]) == (6, 4)
        assert summed(to) == tally(VOTES[6:])

    def test_gaps_are_named(self, data: Path, to: Path, run: Run) -> None:
        """Lost events have no rows, and are named on standard error and in JSON."""
        with opened(data) as log:
            append_records(log, Records.gap(5))
            append_votes(log, [(b"a", 1)])
        done = run("export", data, to, "--json")
        assert done.code == 0
        assert done.stderr == "events 11 to 15 are lost: they have no rows\n"
        found = json.loads(done.stdout)
        assert (found["events"], found["last_sequence"]) == (11, 16)
        assert found["gaps"] == [[11, 5]]
        assert vote_rows(to) == all_votes(data)

    def test_another_application(self, tmp_path: Path, to: Path, run: Run) -> None:
        """A log of another application is exported without its code."""
        directory = DataDirectory.claim(tmp_path / "sizes")
        with directory.new_log(Meta("sizes-log", "sizes", ("sizes",))) as log:
            append_records(log, Records.pack([b"1", b"", b"333"]))
        directory.release()
        assert run("export", directory.path, to).code == 0
        assert rows(to, "sequence", "pipeline", "record") == [
            (1, "sizes", b"1"),
            (2, "sizes", b""),
            (3, "sizes", b"333"),
        ]

    def test_an_empty_log(self, tmp_path: Path, to: Path, run: Run) -> None:
        """Of no events comes no file."""
        write_votes(tmp_path / "none", [])
        assert "files: 0\n" in run("export", tmp_path / "none", to).stdout
        assert names(to) == []

    @pytest.mark.parametrize(("first", "events"), [(7, 6), (4, 3), (1, 0)])
    def test_damage_after_what_is_intact(
        self, data: Path, to: Path, run: Run, first: int, events: int
    ) -> None:
        """What is intact before damage is exported and told, then the damage."""
        damage_block(data, first)
        done = run("export", data, to)
        assert done.code == 1
        assert f"events: {events}\n" in done.stdout
        assert f"is damaged at sequence {first}" in done.stderr
        assert done.stderr.count("\n") == 1
        assert len(vote_rows(to)) == events

    def test_damage_behind_the_bound(self, data: Path, to: Path, run: Run) -> None:
        """Damage behind what was asked for is no failure; within, it is one."""
        damage_block(data, 7)
        assert run("export", data, to, "--until", 6).code == 0
        done = run("export", data, to, "--until", 7)
        assert (done.code, done.stdout) == (1, "")
        assert "is damaged at sequence 7" in done.stderr


class TestFailures:
    """How it ends when it cannot do what it was asked for."""

    def check(self, done: Finished, code: int, said: str) -> None:
        """Fail unless it ended so, said so in one line, and printed nothing."""
        assert done.code == code, done
        assert said in done.stderr
        assert done.stdout == ""
        assert done.stderr.count("\n") == 1
        assert "Traceback" not in done.stderr

    def test_1_another_log(self, data: Path, to: Path, run: Run) -> None:
        """The export of another log is not added to."""
        assert run("export", data, to).code == 0
        other = attrs.evolve(VOTES_META, log_id="f" * 32)
        write_votes(data.with_name("other"), meta=other)
        done = run("export", data.with_name("other"), to)
        self.check(done, 1, f"{to} holds the export of log {LOG_ID}, and this is fff")
        assert names(to) == [file_name(1, 10)]

    def test_1_a_log_that_went_on_otherwise(
        self, data: Path, to: Path, run: Run
    ) -> None:
        """A log whose block is not the one that was exported is refused."""
        assert run("export", data, to).code == 0
        write_votes(data.with_name("other"), [*LOTS[:3], LOTS[3][::-1]])
        done = run("export", data.with_name("other"), to)
        self.check(done, 1, "went on otherwise: the block that ends at 10 is another")

    def test_1_a_lost_tail(self, data: Path, to: Path, run: Run) -> None:
        """A log that ends before its export does is refused."""
        assert run("export", data, to).code == 0
        with opened(data) as log:
            log.store.commit([Change(BLOCKS, key(7), None)], 0)
        self.check(run("export", data, to), 1, "its tail was lost")

    def test_1_a_damaged_file(self, data: Path, to: Path, run: Run) -> None:
        """A newest file that is not whole is named, with what to do."""
        assert run("export", data, to).code == 0
        change(to / file_name(1, 10), lambda file: file[:-1])
        done = run("export", data, to)
        self.check(done, 1, f"{to / file_name(1, 10)}: it is no whole Parquet file")
        assert "remove it" in done.stderr

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            ("", "Missing argument 'DATA_DIR'"),
            ("DATA", "Missing argument 'TO'"),
            ("DATA TO --after 11", "--after 11 is not in the log, which goes from 0"),
            ("DATA TO --until 11", "--until 11 is not in the log, which goes from 0"),
            ("DATA TO --after 5 --until 4", "--until 4 comes before --after 5"),
            ("DATA TO --after -1", "is neither a sequence nor a time"),
            ("DATA TO --file-events 0", "it must be at least 1, not 0"),
            ("DATA TO --partition hour", "'hour' is not one of"),
            ("DATA TO --format csv", "'csv' is not one of"),
        ],
    )
    def test_2_usage(
        self, data: Path, to: Path, run: Run, words: str, said: str
    ) -> None:
        """What cannot be asked for is said, and nothing is made."""
        places = {"DATA": data, "TO": to}
        given = [places.get(word, word) for word in words.split()]
        self.check(run("export", *given), 2, said)
        assert not to.exists()

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            ("--partition day", "is partitioned by size: go on so"),
            ("--after 2", "begins behind 3, not 2, and goes on behind 10"),
        ],
    )
    def test_2_another_export(
        self, data: Path, to: Path, run: Run, words: str, said: str
    ) -> None:
        """An export goes on as it was begun."""
        assert run("export", data, to, "--after", 3).code == 0
        self.check(run("export", data, to, *words.split()), 2, said)

    def test_3_places(self, data: Path, to: Path, run: Run) -> None:
        """A place that cannot be is named, and left as it is."""
        none = to / "none" / "to"
        self.check(run("export", data, none), 3, "does not exist; make it first")
        self.check(run("export", none, to), 3, "no such directory")
        self.check(run("export", data, data), 3, f"{data}: it holds 'log'")
        self.check(run("export", data, data / "to"), 3, "it is inside")
        file = to.with_name("file")
        file.write_text("mine")
        self.check(run("export", data, file), 3, f"{file}: it is not a directory")
        assert not to.exists()
        to.mkdir()
        (to / "mine").write_text("mine")
        self.check(run("export", data, to), 3, f"{to}: it holds 'mine'")
        assert names(to) == ["mine"]

    def test_3_no_pyarrow(
        self, data: Path, to: Path, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Without its library it says how to install it, and makes nothing."""
        monkeypatch.setitem(sys.modules, "pyarrow", None)
        done = run("export", data, to)
        self.check(done, 3, "pip install '.[parquet]' in the checkout")
        assert not to.exists()


class TestCrashes:
    """Processes that end early."""

    @pytest.mark.parametrize("name", FAILPOINTS)
    def test_sigkill_at_any_failpoint(self, data: Path, to: Path, name: str) -> None:
        """What a killed run leaves is whole, and the next run completes it."""
        words = ("export", data, to, "--file-events", 3, "--partition", "day")
        failpoint = {"ALPHABET_FAILPOINT": f"{name}:2"}
        killed = finish("recovery.cli", *words, variables=failpoint)
        assert killed.code == 128 + signal.SIGKILL
        whole = len(vote_rows(to))
        is_named = name in {"export.after_rename", "export.after_flush"}
        assert whole == (6 if is_named else 3)
        left_over = [each for each in names(to) if each.endswith(".tmp")]
        assert len(left_over) == (0 if is_named else 1)
        done = replay(*words)
        assert done.code == 0
        assert [line.split(" ")[1] for line in done.stderr.splitlines()] == [
            f"{each}," for each in left_over
        ]
        assert vote_rows(to) == all_votes(data)
        assert names(to) == [
            f"day=2023-11-14/{file_name(first, last)}"
            for first, last in ((1, 3), (4, 6), (7, 10))
        ]

    def test_sigterm_leaves_nothing_unfinished(self, data: Path, to: Path) -> None:
        """A run that is told to end takes its unfinished file with it."""
        stop = """
import os, signal
from log import failpoint
def end(name):
    if name == "export.after_row_group":
        os.kill(os.getpid(), signal.SIGTERM)
failpoint.handler = end
from recovery.cli import run_program
run_program()
"""
        done = subprocess.run(
            [sys.executable, "-c", stop, "export", str(data), str(to)],
            cwd=ROOT,
            env=environment({}),
            capture_output=True,
            text=True,
            timeout=SECONDS_MAX,
            check=False,
        )
        assert done.returncode == 130
        assert "Traceback" not in done.stderr
        assert names(to) == []

    def test_a_reader_that_went_away(self, data: Path, to: Path) -> None:
        """As after `| head`, an output that nobody takes is no failure."""
        readable, writable = os.pipe()
        os.close(readable)
        with os.fdopen(writable, "wb") as stdout:
            done = subprocess.run(
                [*PYTHON, "recovery.cli", "export", str(data), str(to)],
                env=environment({}),
                cwd=ROOT,
                stdout=stdout,
                stderr=subprocess.PIPE,
                text=True,
                timeout=SECONDS_MAX,
                check=False,
            )
        assert (done.returncode, done.stderr) == (0, "")
        assert vote_rows(to) == all_votes(data)


def test_beside_a_live_server(tmp_path: Path, to: Path, run: Run) -> None:
    """Exports while votes stream in, and one after, give every vote once, in order."""
    votes = make_votes(random.Random(7), 2000)
    data = tmp_path / "data"
    lots = 0
    is_over = threading.Event()

    with serving(tmp_path) as server:

        def send() -> None:
            nonlocal lots
            while not is_over.is_set():
                assert submit(server.port, wire(votes))
                lots += 1

        sender = threading.Thread(target=send)
        sender.start()
        try:
            for number in range(1, 4):
                wait_until(lambda least=number: lots >= least, "votes")  # type: ignore[misc]
                acknowledged = lots * len(votes)
                done = run("export", data, to, "--file-events", 3000, "--json")
                assert done.code == 0, done
                assert json.loads(done.stdout)["last_sequence"] >= acknowledged
        finally:
            is_over.set()
            sender.join()
        assert run("export", data, to).code == 0
        assert server.stop() == 0
    sequences = [row[0] for row in rows(to, "sequence")]
    assert sequences == list(range(1, lots * len(votes) + 1))
    assert summed(to) == tally(votes * lots)


def test_the_default_is_documented() -> None:
    """The guide tells how many events a file has by default."""
    guide = (ROOT / "docs" / "REPLAY.md").read_text(encoding="utf-8")
    assert f"{FILE_EVENTS:,}" in guide.partition("## export")[2].partition("\n## ")[0]
