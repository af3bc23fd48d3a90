"""Who goes first where a command and a live server want the same processor.

A low priority alone is not enough: two processors may be one core, and all share their
way to memory. So beside a server that is at work a command also rests, most of the
time. The edge: locks, priorities, clocks. Imports nothing slow: a command's own imports
are what it would take from a server first.
"""

import contextlib
import fcntl
import os
import signal
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import attrs

LOCK = "server.lock"
"""What a server holds in its directory, with its pid, as `log.directory` has it."""
UNKNOWN = 0
"""The pid of a server that we may not look at."""

NICE = 10
"""How far the priority is lowered: to a tenth of the usual weight."""
AUTOGROUP = Path("/proc/self/autogroup")
"""Where Linux weighs sessions: processes are weighed only within theirs."""
PROCESSES = Path("/proc")
"""Where Linux counts what each process has used."""

WORK_SECONDS = 0.015
REST_SECONDS = 0.15
"""How long a child works, then rests, while the server is at work."""
WORKING_SHARE = 0.5
"""A server is at work if it uses more than this share of one processor."""

_TICK_SECONDS = 1 / os.sysconf("SC_CLK_TCK")


@attrs.define
class Governor:
    """Lets a child that goes last work, and rest while a server is at work."""

    child: int
    server: int
    clock: Callable[[], float] = time.monotonic
    _before: tuple[float, float] | None = None

    def take_turn(self) -> None:
        """Let it work for a moment, then rest if the server was at work meanwhile."""
        time.sleep(WORK_SECONDS)
        before, self._before = self._before, self._look()
        if before is None or self._before is None:
            return
        passed, used = (
            now - then for now, then in zip(self._before, before, strict=True)
        )
        if used <= WORKING_SHARE * passed:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.child, signal.SIGSTOP)
            try:
                time.sleep(REST_SECONDS)
            finally:
                os.kill(self.child, signal.SIGCONT)

    def _look(self) -> tuple[float, float] | None:
        """Give the time, and what the server has used of all processors, in seconds."""
        try:
            stat = (PROCESSES / str(self.server) / "stat").read_text()
            # The name before them may have anything in it.
            user, system = stat.rpartition(")")[2].split()[11:13]
            return self.clock(), (int(user) + int(system)) * _TICK_SECONDS
        except (OSError, ValueError):
            return None


def find_server(words: Iterable[str]) -> int | None:
    """Give the pid of the server that has a directory among a command's words.

    UNKNOWN where we may not look, None where there is none.
    """
    found = [_holder(Path(word) / LOCK) for word in words]
    return next((pid for pid in found if pid is not None), None)


def go_last() -> None:
    """Let other processes go first, from now on: begin a session that does.

    The terminal's signals no longer reach this process.
    """
    os.setsid()
    os.nice(NICE)
    # There may be no such weights, and to change them is limited to ten times a second.
    with contextlib.suppress(OSError):
        AUTOGROUP.write_text(str(NICE))


def _holder(lock: Path) -> int | None:
    """Give the pid in a lock file that somebody holds."""
    try:
        with lock.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return int(file.read(32) or UNKNOWN)
    except PermissionError:
        return UNKNOWN
    except (OSError, ValueError):
        return None
    return None
