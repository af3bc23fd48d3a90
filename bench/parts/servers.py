"""Several servers on this machine, a flood to each: how all together take votes.

They share the machine's cores with their senders, so this tells the processor time that
a vote costs, and whether servers disturb each other; not what more machines give.
Receipts end a flood, and no sink is connected: outputs of many servers are summed
elsewhere.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import attrs

from alphabet.trial.children import Children
from alphabet.trial.flood import FloodError, Sending, sender
from alphabet.trial.measured_server import MeasuredServer, describe_log
from alphabet.trial.vote_load import Load, load_of
from bench.case import Case, Value
from bench.plan import Plan
from bench.processes import NANOSECONDS, thread_times

COUNTS = (1, 2, 4)
CORES = "cores that loops of Python get"
MACHINE = "machine"
_SHARE = 4
_LOOP = """
import time
used, end = time.process_time(), time.perf_counter() + 0.5
while time.perf_counter() < end:
    pass
print((time.process_time() - used) / 0.5)
"""


def rate_name(servers: int) -> str:
    """Give the name of the figure of so many servers' votes, all together."""
    return f"{servers} server{'s' if servers > 1 else ''}, all together"


def cost_name(servers: int) -> str:
    """Give the name of the figure of processor time, senders included."""
    return f"processor time, {servers} server{'s' if servers > 1 else ''}"


@contextmanager
def cases(plan: Plan) -> Iterator[list[Case]]:
    """Give a case for each number of servers; all have the same votes in all."""
    yield [
        Case(CORES, _spin),
        *(Case(rate_name(count), _Servers(plan, count).measure) for count in COUNTS),
    ]


def _spin(_place: Path) -> Iterable[Value]:
    """Tell how much of the cores is to be had beside whatever else runs here."""
    command = [sys.executable, "-c", _LOOP]
    loops = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        for _ in range(os.cpu_count() or 1)
    ]
    shares = [float(loop.communicate()[0]) for loop in loops]
    yield Value(CORES, "cores", sum(shares), MACHINE)


@attrs.frozen
class _Servers:
    plan: Plan
    count: int

    def measure(self, place: Path) -> Iterable[Value]:
        """Flood every server at once, until all votes are durable."""
        load = load_of(self.plan.votes // _SHARE // self.count)
        with ExitStack() as stack:
            children = stack.enter_context(Children(place))
            servers = [
                MeasuredServer.start(children, place / f"data{number}")
                for number in range(self.count)
            ]
            sendings = [
                stack.enter_context(sender(Sending(load, each.port)))
                for each in servers
            ]
            before = sum(map(_processor_seconds, servers))
            began = time.perf_counter()
            for sending in sendings:
                sending.go()
            sent = sum(sending.await_end() for sending in sendings)
            seconds = time.perf_counter() - began
            used = sum(map(_processor_seconds, servers)) - before + sent
            for server in servers:
                server.stop()
            self._check(children, place, load)
        votes = self.count * load.votes
        yield Value(rate_name(self.count), "votes/s", votes / seconds)
        yield Value(cost_name(self.count), "ns/vote", NANOSECONDS * used / votes)

    def _check(self, children: Children, place: Path, load: Load) -> None:
        """Hold each log to what was sent to it; raises FloodError."""
        for number in range(self.count):
            events = describe_log(children, place / f"data{number}")["events"]
            if events != load.votes:
                raise FloodError(f"a log has {events} events of {load.votes}")


def _processor_seconds(server: MeasuredServer) -> float:
    return sum(each.seconds for each in thread_times(server.child.pid))
