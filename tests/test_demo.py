"""`alphabet demo`, for real: it must come out equal, and must see it if it were not."""

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import attrs
import pytest

from alphabet.cli import main
from alphabet.trial.children import ChildError, Children
from alphabet.trial.demo import Demonstration, Plan
from alphabet.trial.vote_sum import VoteSum, sum_votes, write_votes
from tests.inspection import last_sequence
from tests.process import SECONDS_MAX, environment, finish, wait_until

VOTES = 20_000
QUICK = ("--votes", VOTES, "--rate", 3 * VOTES)


@attrs.define
class Notes:
    """A display that keeps what it was told."""

    lines: list[str] = attrs.Factory(list)

    def say(self, line: str) -> None:
        """Keep a line."""
        self.lines.append(line)

    def update(self, totals: Mapping[str, int]) -> None:
        """See that totals come by letter."""
        assert all(len(letter) == 1 for letter in totals)


@contextlib.contextmanager
def started(*words: object) -> Iterator[subprocess.Popen[str]]:
    """Start the demo as a process, with its output to read; end all that it started."""
    command = [sys.executable, "-m", "alphabet.cli", "demo", *map(str, words)]
    with subprocess.Popen(
        command,
        env=environment({}),
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            # All of its own session, so that a demo that fails leaves nothing either.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def is_there(pid: int) -> bool:
    """Say whether a process exists."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


def plan(place: Path, expected: VoteSum | None = None) -> Plan:
    """Plan a small demonstration."""
    file = place / "votes"
    write_votes(file, VOTES, seed=1)
    return Plan(file, expected or sum_votes(file), place / "data", place, 3 * VOTES)


class TestDemo:
    """The command as people run it."""

    def test_all_are_equal(self, tmp_path: Path) -> None:
        """A server killed in mid-stream loses nothing, and the demo says all of it."""
        done = finish("alphabet.cli", "demo", *QUICK, "--data-dir", tmp_path / "data")
        assert done.code == 0, done.stderr
        said = re.search(
            r"KILLED: server (\d+) got SIGKILL after sequence (\d+);"
            r".*started again: server (\d+) replayed (\d+) events from "
            r"(?:the snapshot at \d+|the log's beginning); ready \d+ ms"
            r".*alphabet send --skip \2\n.*got (\d+) outputs.*\nEQUAL: ",
            done.stdout,
            re.DOTALL,
        )
        assert said, done.stdout
        assert said[1] != said[3]
        assert 0 < int(said[2]) <= VOTES
        assert int(said[4]) <= int(said[2])
        assert int(said[5]) >= VOTES
        assert last_sequence(tmp_path) == VOTES

    def test_a_file_of_ones_own(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """The demo counts the file that it is given."""
        file = tmp_path / "votes"
        write_votes(file, 500, seed=3)
        assert main(["demo", str(file), "--rate", "1000"]) == 0
        assert "500 votes in the file" in capsys.readouterr().out

    def test_a_terminal_has_a_table_and_a_bar(
        self,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        """What a terminal shows last is every total, and a bar that is full."""
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setenv("COLUMNS", "100")
        assert main(["demo", "--votes", "2000", "--rate", "4000"]) == 0
        shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", capsys.readouterr().out)
        _, _, last = shown.rpartition("totals received")
        total = sum(
            int(each.replace(",", "")) for each in re.findall(r"[\d,]{4,}", last)
        )
        [worth] = set(re.findall(r"2000 votes in the file, worth (\d+)", shown))
        assert total == int(worth)
        assert "100%" in last

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_a_stop_leaves_no_process(self, number: signal.Signals) -> None:
        """Ctrl-C and SIGTERM end the demo and all that it started."""
        with started("--votes", VOTES, "--rate", VOTES / 60) as demo:
            assert demo.stdout is not None
            lines = iter(demo.stdout.readline, "")
            server = next(filter(None, (re.match(r"server (\d+)", x) for x in lines)))
            assert is_there(int(server[1]))
            demo.send_signal(number)
            assert demo.wait(SECONDS_MAX) == 130
        wait_until(lambda: not is_there(int(server[1])), "the server's end")

    def test_a_directory_in_use_is_left_alone(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """A directory that holds something is refused, and stays as it was."""
        (tmp_path / "log").mkdir()
        assert main(["demo", "--data-dir", str(tmp_path)]) == 3
        assert "is not empty" in capsys.readouterr().err
        assert [each.name for each in tmp_path.iterdir()] == ["log"]

    @pytest.mark.parametrize(
        ("data", "words"), [(b"", "no votes"), (b"\0\0\0\5a123", "ended after 8")]
    )
    def test_a_file_without_votes_is_refused(
        self,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
        data: bytes,
        words: str,
    ) -> None:
        """A file that is empty or damaged is named, and nothing is started."""
        file = tmp_path / "votes"
        file.write_bytes(data)
        assert main(["demo", str(file)]) == 1
        assert words in capsys.readouterr().err


class TestJudgement:
    """The demo is worth something only if it can fail."""

    def test_a_lost_vote_is_seen(self, tmp_path: Path) -> None:
        """If the file had one vote more than was counted, the demo would say so."""
        true = sum_votes(plan(tmp_path).file)
        more = VoteSum(true.votes + 1, true.totals | {"a": true.totals["a"] + 1})
        with Children(tmp_path) as children:
            faults = Demonstration(
                plan(tmp_path, more), children, Notes(), silence_seconds_max=1.0
            ).run()
        a = true.totals["a"]
        assert faults == [
            f"a: the file's total is {a + 1}, the log's is {a}",
            f"a: the file's total is {a + 1}, the receiver's is {a}",
            f"the file has {VOTES + 1} votes, the log holds {VOTES}",
        ]

    def test_a_server_that_cannot_start_is_named(self, tmp_path: Path) -> None:
        """What a child says last is what the demo fails with."""
        (tmp_path / "data").write_text("a file, no directory")
        with (
            Children(tmp_path) as children,
            pytest.raises(ChildError, match=r"server ended \(3\): .* not a directory"),
        ):
            Demonstration(plan(tmp_path), children, Notes()).run()
