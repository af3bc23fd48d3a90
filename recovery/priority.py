"""Who goes first where a command and a live server want the same processor.

The lowest priority alone is not enough: two processors may be one core, and all share
their way to memory. So beside a server a command also rests, most of the time, while
the machine is busy. The edge: locks, priorities, clocks. Imports nothing slow: a
command's own imports are what it would take from a server first.
"""

import contextlib
import fcntl
import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path

import attrs

LOCK = "server.lock"
"""What a server holds in its data directory, as `log.directory` has it."""

NICEST = 19
"""How far a priority can be lowered."""
AUTOGROUP = Path("/proc/self/autogroup")
"""Where Linux weighs sessions: processes are weighed only within theirs."""
STAT = Path("/proc/stat")
"""Where Linux counts what the processors have done."""

WORK_SECONDS = 0.02
REST_SECONDS = 0.13
"""How long a child works, then rests, while the machine is busy."""
BUSY_SHARE = 0.5
"""The machine is busy if others have more of its processors' time than this."""


@attrs.frozen
class ProcessorTimes:
    """What the processors have done so far, in ticks of any length.

    Attributes:
        others: For processes that have not gone last, and for the system.
        all: Everything, idleness included.
    """

    others: int
    all: int

    @classmethod
    def parse(cls, stat: str) -> "ProcessorTimes":
        """Read the first line of /proc/stat."""
        user, _nice, system, *rest = map(int, stat.partition("\n")[0].split()[1:9])
        _idle, _waiting, *interrupts = rest
        return cls(user + system + sum(interrupts), user + _nice + system + sum(rest))

    def is_busy_since(self, before: "ProcessorTimes") -> bool:
        """Say whether others have kept the machine busy since then."""
        passed = self.all - before.all
        return self.others - before.others > BUSY_SHARE * passed


@attrs.define
class Governor:
    """Lets a child that goes last work, and rest while the machine is busy."""

    child: int
    _before: ProcessorTimes | None = None

    def take_turn(self) -> None:
        """Let it work for a moment, then rest if others had the processors."""
        time.sleep(WORK_SECONDS)
        times = _processor_times()
        before, self._before = self._before, times
        if times is None or before is None or not times.is_busy_since(before):
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.child, signal.SIGSTOP)
            try:
                time.sleep(REST_SECONDS)
            finally:
                os.kill(self.child, signal.SIGCONT)


def is_beside_server(words: Iterable[str]) -> bool:
    """Say whether a server has a directory that is among a command's words.

    Where we may not look, one may have it.
    """
    return any(_is_held(Path(word) / LOCK) for word in words)


def go_last() -> None:
    """Let every other process go first, from now on: begin a session that does.

    The terminal's signals no longer reach this process.
    """
    os.setsid()
    os.nice(NICEST)
    # There may be no such weights, and to change them is limited to ten times a second.
    with contextlib.suppress(OSError):
        AUTOGROUP.write_text(str(NICEST))


def _is_held(lock: Path) -> bool:
    try:
        with lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return True
    except (OSError, ValueError):
        return False
    return False


def _processor_times() -> ProcessorTimes | None:
    try:
        return ProcessorTimes.parse(STAT.read_text())
    except (OSError, ValueError):
        return None
