"""Who goes first: how busy a server is, and a child that rests meanwhile."""

import itertools
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from recovery import priority
from recovery.priority import (
    LOCK,
    NICE,
    REST_SECONDS,
    UNKNOWN,
    WORK_SECONDS,
    Governor,
    find_server,
)
from tests.process import ROOT, SECONDS_MAX, environment, state_of, wait_until
from tests.process import child as child_process

TICKS = os.sysconf("SC_CLK_TCK")
"""How many are a second."""


def stat(user_ticks: int, system_ticks: int = 0) -> str:
    """Write what Linux tells of a process whose name is meant to confuse."""
    return f"7 (a) 1 (b) S 1 2 3 4 5 6 7 8 9 10 {user_ticks} {system_ticks} 0 0 20 0\n"


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """Return a process that waits."""
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    with subprocess.Popen(command) as process:
        try:
            yield process
        finally:
            process.kill()


class TestGovernor:
    """Turns of work and rest."""

    @pytest.fixture(autouse=True)
    def told(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """Return the file that tells what server 7 has used: nothing, at first."""
        file = tmp_path / "7" / "stat"
        file.parent.mkdir()
        file.write_text(stat(0))
        monkeypatch.setattr(priority, "PROCESSES", tmp_path)
        return file

    def test_it_rests_while_the_server_is_at_work(
        self,
        told: Path,
        child: subprocess.Popen[bytes],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """A child is stopped for a rest, and then goes on."""
        monkeypatch.setattr(priority, "REST_SECONDS", 0.5)
        seconds = itertools.count()
        governor = Governor(child.pid, 7, lambda: float(next(seconds)))
        governor.take_turn()
        told.write_text(stat(TICKS // 2, 1))
        turn = threading.Thread(target=governor.take_turn)
        turn.start()
        wait_until(lambda: state_of(child.pid) == "T", "a rest")
        turn.join(SECONDS_MAX)
        wait_until(lambda: state_of(child.pid) != "T", "work")

    @pytest.mark.parametrize("text", [stat(TICKS // 4, TICKS // 4), "", "7 (a\n"])
    def test_it_goes_on_otherwise(
        self, told: Path, monkeypatch: pytest.MonkeyPatch, text: str
    ) -> None:
        """Where a server has little to do, or nothing is told, a child is let alone."""
        sent: list[int] = []
        monkeypatch.setattr(os, "kill", lambda _pid, number: sent.append(number))
        seconds = itertools.count()
        governor = Governor(1, 7, lambda: float(next(seconds)))
        for _ in range(3):
            governor.take_turn()
            told.write_text(text)
        assert sent == []

    def test_a_server_that_is_not_known(self, child: subprocess.Popen[bytes]) -> None:
        """Beside a server that nothing is known of, a child is let alone."""
        governor = Governor(child.pid, priority.UNKNOWN)
        governor.take_turn()
        governor.take_turn()
        assert state_of(child.pid) != "T"

    def test_a_child_that_has_ended(self, told: Path) -> None:
        """A child that ends in its turn is no failure."""
        governor = Governor(2**22 + 1, 7)
        governor.take_turn()
        told.write_text(stat(1000 * TICKS))
        governor.take_turn()

    def test_how_long_its_turns_are(
        self,
        told: Path,
        child: subprocess.Popen[bytes],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """It works as long as is said, and then rests as long where it has to."""
        slept: list[float] = []
        monkeypatch.setattr(time, "sleep", slept.append)
        seconds = itertools.count()
        governor = Governor(child.pid, 7, lambda: float(next(seconds)))
        governor.take_turn()
        governor.take_turn()
        assert slept == [WORK_SECONDS] * 2
        told.write_text(stat(TICKS))
        governor.take_turn()
        assert slept == [*[WORK_SECONDS] * 3, REST_SECONDS]


GO_LAST = """
import os, pathlib, sys
from recovery import priority
priority.AUTOGROUP = pathlib.Path(sys.argv[1])
before = os.nice(0)
priority.go_last()
print(os.getsid(0) == os.getpid(), os.nice(0) - before)
"""


def test_who_goes_last_is_in_a_session_of_its_own(tmp_path: Path) -> None:
    """Processes are weighed within a session, and sessions against each other."""
    weight = tmp_path / "autogroup"
    done = subprocess.run(
        [sys.executable, "-c", GO_LAST, str(weight)],
        cwd=ROOT,
        env=environment({}),
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=True,
    )
    assert done.stdout.split() == ["True", str(NICE)]
    assert weight.read_text() == str(NICE)


def test_the_first_server_is_found(tmp_path: Path) -> None:
    """Of several directories one that a server has is enough; a free one is none."""
    (tmp_path / "free").mkdir()
    (tmp_path / "free" / LOCK).write_text("7")
    with child_process("claim", tmp_path / "held") as server:
        words = [str(tmp_path / "free"), str(tmp_path / "held")]
        assert find_server(words) == server.pid
        (tmp_path / "held" / LOCK).write_text("")
        assert find_server(words) == UNKNOWN
        assert find_server(words[:1]) is None
    assert find_server(words) is None
