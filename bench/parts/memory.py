"""The server's memory: its own (RssAnon), and pages of files (RssFile) apart.

Sampled a hundred times a second; a figure is the peak of its phase.
"""

import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import attrs

from alphabet.trial.children import Children
from alphabet.trial.flood import FloodError, Sending, raise_file_limit, sender
from alphabet.trial.measured_server import MeasuredServer, launch, served_with_sink
from alphabet.trial.output_check import OutputCheck, check_of
from alphabet.trial.self_bench import LONE_VOTE, connected, fill, without_snapshots
from alphabet.trial.vote_load import OUTPUT_BYTES, load_of
from bench.case import Case, Value
from bench.plan import Plan, in_words
from bench.processes import Peak, memory_of, sampled

OWN = "own memory (RssAnon)"
FILES = "pages of files (RssFile)"
STALLED_SHARE = 5
PIECE_BYTES = 4 << 20


@contextmanager
def cases(plan: Plan) -> Iterator[list[Case]]:
    """Give a case for each way to use memory."""
    place = plan.directory / "replayed"
    place.mkdir()
    data_dir = fill(place, load_of(plan.votes))
    memory = _Memory(plan, data_dir)
    yield [
        Case("while counting", memory.measure_counting),
        Case("while replaying", memory.measure_replay),
        Case("while a sink is stalled, then catches up", memory.measure_stalled),
        Case("with idle connections", memory.measure_idle),
    ]


@attrs.frozen
class _Memory:
    plan: Plan
    data_dir: Path

    def measure_counting(self, place: Path) -> Iterable[Value]:
        """Flood a server, and take the peak at each tenfold."""
        load = load_of(self.plan.votes)
        marks = [load.votes // 100, load.votes // 10, load.votes]
        check = check_of(load)
        with (
            Children(place) as children,
            served_with_sink(children, place / "data") as (server, sink),
            sender(Sending(load, server.port)) as sending,
            sampled(server.child.pid) as peak,
        ):
            sending.go()
            before = 0
            for mark in marks:
                self._drain(sink, check, (mark - before) * OUTPUT_BYTES)
                yield from _values(f"counting {in_words(mark)}", peak)
                before = mark
            sending.await_end()
        check.finish()

    def measure_replay(self, place: Path) -> Iterable[Value]:
        """Replay the log from its first event."""
        with Children(place) as children, without_snapshots(self.data_dir):
            began = time.perf_counter()
            child = launch(children, self.data_dir)
            with sampled(child.pid) as peak:
                server = MeasuredServer.ready(child, began)
            phase = f"replaying {in_words(self.plan.votes)}"
            yield from _values(phase, peak)
            pages = memory_of(child.pid).files_mb
            yield Value(f"{FILES}, after {phase}", "MB", pages)
            server.kill()

    def measure_stalled(self, place: Path) -> Iterable[Value]:
        """Let a sink read nothing until all is durable, and then everything."""
        load = load_of(self.plan.votes // STALLED_SHARE)
        check = check_of(load)
        with (
            Children(place) as children,
            served_with_sink(children, place / "data") as (server, sink),
            sender(Sending(load, server.port)) as sending,
        ):
            with sampled(server.child.pid) as peak:
                sending.go()
                sending.await_end()
            yield from _values("a stalled sink", peak)
            began = time.perf_counter()
            with sampled(server.child.pid) as peak:
                self._drain(sink, check, load.output_bytes)
            rate = load.votes / (time.perf_counter() - began)
            yield from _values("a sink that catches up", peak)
            yield Value("a sink that catches up", "votes/s", rate)
        check.finish()

    def measure_idle(self, place: Path) -> Iterable[Value]:
        """Open connections; one vote from each shows that it is served."""
        raise_file_limit()
        count = self.plan.connections
        with (
            Children(place) as children,
            served_with_sink(children, place / "data") as (server, sink),
            ExitStack() as stack,
            sampled(server.child.pid) as peak,
        ):
            for _ in range(count):
                connection = stack.enter_context(connected(server.port))
                connection.sendall(LONE_VOTE)
                sink.recv(OUTPUT_BYTES, socket.MSG_WAITALL)
            yield from _values(f"{count:,} idle connections", peak)

    def _drain(self, sink: socket.socket, check: OutputCheck, size: int) -> None:
        """Receive and check so many bytes."""
        room = self.plan.buffer.view(PIECE_BYTES)
        while size:
            count = sink.recv_into(room[:size])
            if not count:
                raise FloodError(f"the outputs ended {size} bytes too early")
            check.feed(room[:count])
            size -= count


def _values(phase: str, peak: Peak) -> Iterable[Value]:
    yield Value(f"{OWN}, {phase}", "MB", peak.own_mb)
    yield Value(f"{FILES}, {phase}", "MB", peak.files_mb)
