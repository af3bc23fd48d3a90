"""What a tool beside a live server at full load costs it: a flood, alone and beside.

The tool runs again and again, from before the first vote until the last output, on the
very directory that the server writes; it lets the server go first. The last rows are
beside a `verify` that does not, and say what that is worth.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import attrs

from alphabet.trial.children import ChildError, Children
from alphabet.trial.flood import Sending, receive, sender
from alphabet.trial.measured_server import served_with_sink
from alphabet.trial.output_check import check_all
from alphabet.trial.vote_load import Load, load_of
from bench.case import Case, Value
from bench.plan import Plan

ALONE = "a flood, alone"
TOOLS = {
    "state": ("recovery.cli", "state"),
    "verify": ("recovery.cli", "verify"),
    "events": ("recovery.cli", "events", "--format", "wire"),
    "a hasty verify": ("bench.hasty_replay", "verify"),
}
GOALS_FOR = ("state", "verify", "events")
"""Tools that must not slow a server down."""

_ROOT = Path(__file__).parent.parent.parent
_SHARE = 2
_MS = 1000


def rate_name(tool: str) -> str:
    """Give the name of a flood's figure beside a tool."""
    return f"a flood, beside {tool}"


@contextmanager
def cases(plan: Plan) -> Iterator[list[Case]]:
    """Give a case for the server alone, and one for each tool."""
    beside = _Beside(plan, load_of(plan.votes // _SHARE))
    floods = {ALONE: ()} | {rate_name(tool): words for tool, words in TOOLS.items()}
    yield [
        Case(name, partial(beside.measure, name, words))
        for name, words in floods.items()
    ]


@attrs.define
class _Usage:
    """What a tool had of the processor, in seconds, and how often it came to an end."""

    seconds: float = 0.0
    runs: int = 0


@attrs.frozen
class _Beside:
    plan: Plan
    load: Load

    def measure(
        self, name: str, words: tuple[str, ...], place: Path
    ) -> Iterable[Value]:
        """Flood a new server while a tool is running, if words name one."""
        outputs = self.plan.buffer.view(self.load.output_bytes)
        data_dir = place / "data"
        waits = _Waits()
        with (
            Children(place) as children,
            served_with_sink(children, data_dir) as (server, sink),
            sender(Sending(self.load, server.port)) as sending,
            _repeated(words, data_dir) as usage,
        ):
            began = waits.last = time.perf_counter()
            sending.go()
            receive(sink, outputs, waits.note)
            seconds = time.perf_counter() - began
            sending.await_end()
        check_all(self.load, outputs)
        yield Value(name, "votes/s", self.load.votes / seconds)
        yield Value(f"{name}: longest wait for outputs", "ms", _MS * waits.longest)
        size = (data_dir / "log" / "data.mdb").stat().st_size
        yield Value(f"{name}: the log's file", "bytes/vote", size / self.load.votes)
        if words:
            yield Value(
                f"{name}: processor that it had", "cores", usage.seconds / seconds
            )
            yield Value(f"{name}: whole runs", "runs", usage.runs)


@attrs.define
class _Waits:
    """The longest time between two arrivals of outputs."""

    last: float = 0.0
    longest: float = 0.0

    def note(self, _have: int) -> None:
        """Outputs have arrived."""
        now = time.perf_counter()
        self.longest = max(self.longest, now - self.last)
        self.last = now


@contextmanager
def _repeated(words: tuple[str, ...], data_dir: Path) -> Iterator[_Usage]:
    """Run a tool on a directory, then again and again meanwhile; at last end it.

    Raises:
        ChildError: It failed.
    """
    usage = _Usage()
    if not words:
        yield usage
        return
    is_over = threading.Event()
    failures: list[int] = []
    running: list[int] = []

    def run() -> None:
        process = _start(words, data_dir)
        running[:] = [process.pid]
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        usage.seconds += used.ru_utime + used.ru_stime
        usage.runs += not process.returncode
        if process.returncode and not is_over.is_set():
            failures.append(process.returncode)

    def run_again() -> None:
        while not is_over.is_set() and not failures:
            run()

    run()
    usage.seconds, usage.runs = 0.0, 0
    loop = threading.Thread(target=run_again)
    loop.start()
    try:
        yield usage
    finally:
        is_over.set()
        while loop.is_alive():
            with suppress(ProcessLookupError):
                os.kill(running[0], signal.SIGTERM)
            loop.join(0.1)
    if failures:
        raise ChildError(f"{' '.join(words)} ended with exit code {failures[0]}")


def _start(words: tuple[str, ...], data_dir: Path) -> subprocess.Popen[bytes]:
    """Start a tool; nobody reads what it says."""
    variables = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("ALPHABET_")
    }
    return subprocess.Popen(
        [sys.executable, "-m", *words, str(data_dir)],
        cwd=_ROOT,
        env=variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
