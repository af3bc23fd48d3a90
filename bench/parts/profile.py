"""Where the processor's time goes: nanoseconds a vote for each thread of a flood.

Two cores give two nanoseconds of processor time for each that passes; what the threads
do not use of that, they wait.
"""

import socket
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import attrs

from alphabet.trial.children import Children
from alphabet.trial.figure import ALPHABET
from alphabet.trial.flood import Sending, receive, sender
from alphabet.trial.measured_server import served_with_sink
from alphabet.trial.output_check import check_all
from alphabet.trial.vote_load import Load, load_of
from bench.bare import driver
from bench.case import Case, Value
from bench.plan import Plan
from bench.processes import NANOSECONDS, ThreadTime, thread_times
from bench.subjects import BARE

UNIT = "ns/vote"
SHARE = 4
BUSY_SHARE = 0.005
"""Threads that use less of the server's time are not worth a row."""


@contextmanager
def cases(plan: Plan) -> Iterator[list[Case]]:
    """Give a case for Alphabet and one for the bare server."""
    profile = _Profile(plan, load_of(plan.votes // SHARE))
    yield [
        Case(f"profile: {ALPHABET}", profile.measure_alphabet),
        Case(f"profile: {BARE}", profile.measure_bare),
    ]


@attrs.frozen
class _Profile:
    plan: Plan
    load: Load

    def measure_alphabet(self, place: Path) -> Iterable[Value]:
        """Flood Alphabet."""
        with (
            Children(place) as children,
            served_with_sink(children, place / "data") as (server, sink),
        ):
            sending = Sending(self.load, server.port)
            yield from self._measure(ALPHABET, server.child.pid, sending, sink)

    def measure_bare(self, place: Path) -> Iterable[Value]:
        """Flood the bare server."""
        with driver.served(place, "flow") as (server, sink):
            sending = Sending(self.load, server.port, has_receipt=False)
            yield from self._measure(BARE, server.child.pid, sending, sink)

    def _measure(
        self, subject: str, pid: int, sending: Sending, sink: socket.socket
    ) -> Iterable[Value]:
        outputs = self.plan.buffer.view(self.load.output_bytes)
        with sender(sending) as source:
            before, ours = thread_times(pid), time.thread_time()
            began = time.perf_counter()
            source.go()
            receive(sink, outputs)
            wall = time.perf_counter() - began
            after, receiver = thread_times(pid), time.thread_time() - ours
            sent = source.await_end()
        check_all(self.load, outputs)
        times = {"time that passed": wall, **used(before, after)}
        times |= {"driver, sending": sent, "driver, receiving": receiver}
        for name, seconds in times.items():
            yield Value(name, UNIT, NANOSECONDS * seconds / self.load.votes, subject)


def used(before: Sequence[ThreadTime], after: Sequence[ThreadTime]) -> dict[str, float]:
    """Give what each busy thread has used meanwhile, and all of them in the kernel.

    A thread that shares its name with others is told by its place among all threads.
    """
    old = {each.tid: each for each in before}
    names = Counter(each.name for each in after)
    found: dict[str, float] = {}
    system = 0.0
    for number, each in enumerate(after, 1):
        start = old.get(each.tid, ThreadTime(each.tid, each.name, 0.0, 0.0))
        name = each.name if names[each.name] == 1 else f"unnamed {number}"
        found[f"server thread, {name}"] = each.seconds - start.seconds
        system += each.system_seconds - start.system_seconds
    total = sum(found.values())
    busy = {name: used for name, used in found.items() if used > BUSY_SHARE * total}
    return busy | {"server, all threads": total, "server, in the kernel": system}
