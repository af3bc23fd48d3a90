"""Who goes first: how busy others keep a machine, and a child that rests meanwhile."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recovery import priority
from recovery.priority import Governor, ProcessorTimes
from tests.process import SECONDS_MAX, wait_until

ticks = st.integers(0, 1_000_000)


def stat(*, user: int = 0, nice: int = 0, system: int = 0, idle: int = 0) -> str:
    """Write what Linux tells of its processors."""
    return f"cpu  {user} {nice} {system} {idle} 0 0 0 0 0 0\ncpu0 1 1 1 1\n"


def test_what_linux_tells() -> None:
    """Niced work and idleness are nobody else's; all the rest is."""
    times = ProcessorTimes.parse("cpu  1 20 300 4000 50000 6 7 8 9 10\ncpu0 1\n")
    assert times == ProcessorTimes(1 + 300 + 6 + 7 + 8, 54342)


@given(ticks, ticks, ticks, ticks)
def test_busy_is_what_others_have(user: int, nice: int, system: int, idle: int) -> None:
    """The machine is busy if others have more than half; what went last is not."""
    before = ProcessorTimes.parse(stat())
    after = ProcessorTimes.parse(stat(user=user, nice=nice, system=system, idle=idle))
    assert after.is_busy_since(before) == (user + system > nice + idle)


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """Return a process that waits."""
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    with subprocess.Popen(command) as process:
        try:
            yield process
        finally:
            process.kill()


def state_of(pid: int) -> str:
    """Give a process's state, a letter."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


class TestGovernor:
    """Turns of work and rest."""

    @pytest.fixture(autouse=True)
    def told(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """Return the file that tells how busy the machine is: idle, at first."""
        file = tmp_path / "stat"
        file.write_text(stat(idle=100))
        monkeypatch.setattr(priority, "STAT", file)
        return file

    def test_it_rests_while_others_are_busy(
        self,
        told: Path,
        child: subprocess.Popen[bytes],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """A child is stopped for a rest, and then goes on."""
        monkeypatch.setattr(priority, "REST_SECONDS", 0.5)
        governor = Governor(child.pid)
        governor.take_turn()
        told.write_text(stat(user=200, idle=100))
        turn = threading.Thread(target=governor.take_turn)
        turn.start()
        wait_until(lambda: state_of(child.pid) == "T", "a rest")
        turn.join(SECONDS_MAX)
        wait_until(lambda: state_of(child.pid) != "T", "work")

    @pytest.mark.parametrize("text", [stat(nice=200, idle=200), "", "cpu x\n"])
    def test_it_goes_on_otherwise(
        self, told: Path, monkeypatch: pytest.MonkeyPatch, text: str
    ) -> None:
        """Where others leave room, or nothing is told, a child is let alone."""
        sent: list[int] = []
        monkeypatch.setattr(os, "kill", lambda _pid, number: sent.append(number))
        governor = Governor(1)
        for _ in range(3):
            governor.take_turn()
            told.write_text(text)
        assert sent == []

    def test_a_child_that_has_ended(self, told: Path) -> None:
        """A child that ends in its turn is no failure."""
        governor = Governor(2**22 + 1)
        governor.take_turn()
        told.write_text(stat(user=200, idle=100))
        governor.take_turn()
