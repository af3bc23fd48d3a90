"""The machine's bare limits: what nobody on it can pass.

The disk's flush, sequential writes that are flushed, loopback TCP, and the numpy
kernel alone.
"""

import os
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs

from alphabet.trial.figure import quantile
from alphabet.trial.flood import HOST, Sending, receive, sender
from alphabet.trial.vote_load import VOTE_BYTES, load_of
from bench.bare.kernel import Kernel
from bench.case import Case, Value
from bench.plan import Plan
from bench.processes import MEGABYTE

MACHINE = "machine"
PAGE = bytes(4096)
PIECE = bytes(1 << 20)
MICROSECONDS = 1_000_000
FLUSHES = 500
"""How many small writes are flushed, one by one, and how many large ones."""
KERNEL_VOTES = (1 << 20) // VOTE_BYTES


@contextmanager
def cases(plan: Plan) -> Iterator[list[Case]]:
    """Give a case for each limit."""
    limits = _Limits(plan)
    yield [
        Case("flush", limits.measure_flush),
        Case("sequential writes", limits.measure_writes),
        Case("loopback", limits.measure_loopback),
        Case("numpy kernel", limits.measure_kernel),
    ]


@attrs.frozen
class _Limits:
    plan: Plan

    def measure_flush(self, place: Path) -> Iterable[Value]:
        """Append pages to a file, and flush each."""
        seconds = _append(place / "pages", PAGE)
        for permille, name in ((500, "p50"), (990, "p99")):
            number = MICROSECONDS * quantile(seconds, permille)
            yield Value(f"append 4 KiB and fdatasync, {name}", "µs", number, MACHINE)

    def measure_writes(self, place: Path) -> Iterable[Value]:
        """Append a mebibyte at a time, and flush each."""
        seconds = _append(place / "pieces", PIECE)
        rate = len(seconds) * len(PIECE) / MEGABYTE / sum(seconds)
        yield Value(
            "append 1 MiB and fdatasync, again and again", "MB/s", rate, MACHINE
        )

    def measure_loopback(self, place: Path) -> Iterable[Value]:
        """Send votes one way, to someone who only reads them."""
        del place
        load = load_of(self.plan.votes // 2)
        view = self.plan.buffer.view(load.votes * VOTE_BYTES)
        with socket.create_server((HOST, 0)) as listener:
            port = listener.getsockname()[1]
            with sender(Sending(load, port, has_receipt=False)) as sending:
                connection, _ = listener.accept()
                with connection:
                    began = time.perf_counter()
                    sending.go()
                    receive(connection, view)
                    seconds = time.perf_counter() - began
        rate = len(view) / MEGABYTE / seconds
        yield Value("loopback TCP, one way, 1 MiB a call", "MB/s", rate, MACHINE)

    def measure_kernel(self, place: Path) -> Iterable[Value]:
        """Decode, sum up and encode, a read's worth of votes at a time."""
        del place
        kernel = Kernel()
        frames = memoryview(load_of(KERNEL_VOTES).frames().tobytes())
        times = max(1, self.plan.votes // 4 // KERNEL_VOTES)
        began = time.perf_counter()
        for _ in range(times):
            kernel.count(frames)
        rate = times * KERNEL_VOTES / (time.perf_counter() - began)
        yield Value("the numpy kernel alone, one core", "votes/s", rate, MACHINE)


def _append(file: Path, data: bytes) -> list[float]:
    """Append and flush again and again; give each time's seconds."""
    samples = []
    descriptor = os.open(file, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    try:
        for _ in range(FLUSHES):
            began = time.perf_counter()
            os.write(descriptor, data)
            os.fdatasync(descriptor)
            samples.append(time.perf_counter() - began)
    finally:
        os.close(descriptor)
    return samples
