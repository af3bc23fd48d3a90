"""`alphabet-replay export --follow` as its users meet it: real processes, killed."""

import contextlib
import fcntl
import json
import os
import random
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import attrs
import pytest

from log.block import Records
from log.directory import DataDirectory
from recovery.commands.follow_export import EVERY_SECONDS
from recovery.exporting.segment import Segment
from tests import toy
from tests.exported import FAILPOINTS, INTENT_FAILPOINTS, names, rows, summed
from tests.machines import VOTES_META, append_records, append_votes, write_votes
from tests.process import (
    PYTHON,
    ROOT,
    SECONDS_MAX,
    Server,
    environment,
    finish,
    serving,
    submit,
    wait_until,
)
from tests.replaying import replay_here
from tests.votes import make_votes, tally, wire

LOTS = [[(b"a", lot), (b"b", lot + 1)] for lot in range(12)]
QUICK = ("--every-seconds", 0.02)


@attrs.define
class Following:
    """An exporter that goes on, as a process."""

    process: subprocess.Popen[str]
    to: Path
    stdout: Path

    def last_sequence(self) -> int:
        """Give how far the segments go."""
        whole = [name for name in names(self.to) if not name.startswith(".")]
        return max([0, *(int(name.split("-")[1]) for name in whole)])

    def wait_for(self, sequence: int) -> None:
        """Wait until its segments go so far."""
        wait_until(
            lambda: self.last_sequence() >= sequence or self.process.poll() is not None,
            f"a segment up to {sequence}",
        )

    def lines(self, count: int) -> list[str]:
        """Wait until it told so many segments, and give the lines."""
        wait_until(
            lambda: self.stdout.read_text().count("\n") >= count,
            f"{count} lines",
        )
        return self.stdout.read_text().splitlines()

    def stop(self) -> str:
        """Tell it to end, fail unless it does in good order, and give its errors."""
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(SECONDS_MAX) == 0
        assert self.process.stderr is not None
        return self.process.stderr.read()

    def kill(self) -> None:
        """End it at once, and wait until nothing holds the directory."""
        self.process.kill()
        self.process.wait(SECONDS_MAX)
        if self.to.exists():
            wait_until(lambda: is_free(self.to), "a directory that nobody holds")


def is_free(to: Path) -> bool:
    """Say whether no exporter holds a directory."""
    descriptor = os.open(to, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    else:
        return True
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def following(
    data: Path, to: Path, *words: object, variables: Mapping[str, str] | None = None
) -> Iterator[Following]:
    """Give an exporter, and end it at once if the test did not."""
    stdout = to.with_name("follow.stdout")
    command = [*PYTHON, "recovery.cli", "export", data, to, "--follow", *QUICK, *words]
    with stdout.open("w") as out:
        process = subprocess.Popen(
            [str(word) for word in command],
            cwd=ROOT,
            env=environment(variables or {}),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.PIPE,
            text=True,
        )
    with process:
        found = Following(process, to, stdout)
        try:
            yield found
        finally:
            found.kill()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Return a data directory of 24 votes in blocks of two."""
    return write_votes(tmp_path / "data", LOTS).path


@pytest.fixture
def to(tmp_path: Path) -> Path:
    """Return where an export may go."""
    return tmp_path / "to"


def test_it_goes_on_until_it_is_told_to_end(data: Path, to: Path) -> None:
    """It tells each segment on a line, waits for votes, and ends in good order."""
    with following(data, to, "--json", "--server", "north") as export:
        export.wait_for(24)
        with contextlib.closing(DataDirectory(data).open_log()) as log:
            append_votes(log, [(b"z", 26)])
        told = [json.loads(line) for line in export.lines(2)]
        assert export.stop() == ""
    whole = [name for name in names(to) if not name.startswith(".")]
    assert [each["file"] for each in told] == whole
    assert [(each["first_sequence"], each["events"]) for each in told] == [
        (1, 24),
        (25, 1),
    ]
    assert rows(to, "server", "sequence", "letter", "votes", "counted")[-1] == (
        "north",
        25,
        "z",
        26,
        26,
    )
    assert names(to) == [".next", *whole]


def test_lost_events_and_files_are_told(data: Path, to: Path) -> None:
    """The first look tells its segment, and apart what was removed and is lost."""
    with contextlib.closing(DataDirectory(data).open_log()) as log:
        append_records(log, Records.gap(3))
        append_votes(log, [(b"z", 26)])
    left_over = f".{Segment(1, 2, 'abc').file}.tmp"
    to.mkdir()
    (to / left_over).touch()
    words = ("--accept-gaps", "--every-seconds", 3600)
    with following(data, to, *words) as export:
        told = export.lines(1)
        errors = export.stop()
    [name] = [name for name in names(to) if not name.startswith(".")]
    assert told == [f"{name}: 25 events, {(to / name).stat().st_size} bytes"]
    assert errors.splitlines() == [
        f"removed {left_over}, which an earlier export left unfinished",
        "events 25 to 27 are lost: they have no rows",
    ]


def test_sigkill_at_every_failpoint(data: Path, to: Path) -> None:
    """Whatever instant kills it, the next run makes whole what was begun."""
    seen: list[str] = []
    for name in [*INTENT_FAILPOINTS, *FAILPOINTS]:
        words = ("export", data, to, "--follow", *QUICK, "--file-events", 2)
        killed = finish("recovery.cli", *words, variables={"ALPHABET_FAILPOINT": name})
        assert killed.code == 128 + signal.SIGKILL, killed
        assert set(seen) <= set(names(to))
        seen = [each for each in names(to) if not each.startswith(".")]
    with following(data, to, "--file-events", 2) as export:
        export.wait_for(24)
    assert rows(to, "sequence") == [(sequence,) for sequence in range(1, 25)]
    assert summed(to) == tally([vote for lot in LOTS for vote in lot])
    assert len(seen) < 12


def test_server_and_exporter_are_killed_at_random(tmp_path: Path, to: Path) -> None:
    """In the end the segments are the log, each event once, and the totals its own."""
    chance = random.Random(os.environ.get("ALPHABET_SEED"))
    votes = make_votes(chance, 300)
    data = tmp_path / "data"
    for _ in range(20 if os.environ.get("ALPHABET_SOAK") else 2):
        with serving(tmp_path) as server:
            assert submit(server.port, wire(votes))
            sender = threading.Thread(target=flood, args=(server, wire(votes)))
            with following(data, to, "--file-events", 900) as export:
                before = export.last_sequence() if to.exists() else 0
                sender.start()
                try:
                    export.wait_for(before + chance.randrange(1, 2000))
                    for each in chance.sample([server.kill, export.kill], k=2):
                        each()
                finally:
                    server.kill()
                    sender.join()
    with contextlib.closing(DataDirectory(data).open_log(is_read_only=True)) as log:
        last = log.tail.sequence
    with following(data, to) as export:
        export.wait_for(last)
    found = rows(to, "sequence", "votes", "counted")
    assert [row[0] for row in found] == list(range(1, last + 1))
    assert all(row[1] == row[2] for row in found)
    state = json.loads(replay_here("state", str(data), "--json").stdout)
    assert summed(to) == {name: int(total) for name, total in state["totals"].items()}


def flood(server: Server, data: bytes) -> None:
    """Send votes until the server is gone."""
    with contextlib.suppress(OSError):
        while submit(server.port, data):
            pass


class TestFailures:
    """How it ends when it cannot do what it was asked for."""

    def check(self, code: int, said: str, *words: object) -> None:
        """Fail unless it ended so, said so in one line, and printed nothing."""
        done = replay_here("export", *map(str, words))
        assert done.code == code, done
        assert said in done.stderr
        assert done.stdout == ""
        assert done.stderr.count("\n") == 1

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            ("--follow --until 5", "--follow takes no --until"),
            ("--follow --partition day", "no --partition day"),
            ("--server a", "--server and --accept-gaps go with --follow"),
            ("--accept-gaps", "--server and --accept-gaps go with --follow"),
            ("--follow --server a/b", "it must be 1 to 64 of A-Z"),
            ("--follow --every-seconds nan", "nan is no number"),
            ("--follow --after 25", "--after 25 is not in the log"),
        ],
    )
    def test_2_usage(self, data: Path, to: Path, words: str, said: str) -> None:
        """What cannot be asked for is said, and nothing is made."""
        self.check(2, said, data, to, *words.split())
        assert not to.exists()

    def test_1_a_restored_backup(self, data: Path, to: Path) -> None:
        """A log that went back and on otherwise is refused, with what to do."""
        with following(data, to) as export:
            export.wait_for(24)
        other = write_votes(data.with_name("other"), [*LOTS[:11], [(b"x", 1)] * 2])
        said = "went on otherwise: the block that ends at 24 is another; choose another"
        self.check(1, said, other.path, to, "--follow")
        early = write_votes(data.with_name("early"), LOTS[:11])
        self.check(1, "its tail was lost", early.path, to, "--follow")

    def test_3_another_application(self, tmp_path: Path, to: Path) -> None:
        """What is not Alphabet's own log of votes is refused."""
        with DataDirectory.claim(tmp_path / "toy").new_log(toy.META):
            pass
        self.check(3, "toy", tmp_path / "toy", to, "--follow")
        assert not to.exists()

    def test_3_a_log_that_is_moved(self, data: Path, to: Path) -> None:
        """A log that is moved away is told, and in its new place the export goes on."""
        moved = data.with_name("moved")
        with following(data, to, "--server", "north") as export:
            export.wait_for(24)
            data.rename(moved)
            assert export.process.wait(SECONDS_MAX) == 3
            assert export.process.stderr is not None
            [line] = export.process.stderr.read().splitlines()
        assert f"DATA_DIR {data} was moved or removed: bring it back, or start" in line
        assert f"with its new place; {to} goes on where it is" in line
        with contextlib.closing(DataDirectory(moved).open_log()) as log:
            append_votes(log, [(b"z", 26)])
        with following(moved, to) as export:
            export.wait_for(25)
        assert {server for (server,) in rows(to, "server")} == {"north"}

    def test_3_a_second_exporter(self, data: Path, to: Path) -> None:
        """While one goes on, another is kept out."""
        with following(data, to) as export:
            export.wait_for(24)
            self.check(3, "another export is writing to it", data, to, "--follow")
            self.check(3, "another export is writing to it", data, to)


def test_the_default_is_documented() -> None:
    """The guide tells how often a segment is written by default."""
    guide = (ROOT / "docs" / "REPLAY.md").read_text(encoding="utf-8")
    section = guide.partition("### --follow")[2].partition("\n## ")[0]
    assert f"{EVERY_SECONDS:g} seconds" in section
    assert VOTES_META.log_id not in section
