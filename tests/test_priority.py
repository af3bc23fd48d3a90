"""Who goes first: how busy a server is, and a child that rests meanwhile."""

import itertools
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from recovery import priority
from recovery.priority import Governor
from tests.process import SECONDS_MAX, state_of, wait_until

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
