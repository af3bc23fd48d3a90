"""Good senders beside floods of peers that misbehave: votes alone, and beside each.

The peers are a process of their own, connected before the first vote and at it until
the last output; it has its share of the cores, as everybody else here.
"""

import struct
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import attrs

from alphabet.trial.children import Children
from alphabet.trial.flood import FloodError, Sending, receive, sender
from alphabet.trial.measured_server import served_with_sink
from alphabet.trial.output_check import check_all
from alphabet.trial.vote_load import Load, load_of
from bench.case import Case, Value
from bench.misconduct import Conduct, misbehaving, random_bytes
from bench.parts.memory import OWN
from bench.plan import Plan
from bench.processes import sampled

ALONE = "good votes, alone"
BLOCK_BYTES = 1 << 20
FLOODS = {
    "5,000 idle connections": Conduct(5000),
    "connections that close": Conduct(64, b"\0", is_short=True),
    "connections that reset": Conduct(64, b"\0", is_short=True, has_reset=True),
    "2,000 senders of a byte a second": Conduct(
        2000, bytes(4), piece_bytes=1, pause_seconds=1.0
    ),
    "zeros": Conduct(20, bytes(BLOCK_BYTES), is_repeated=True),
    "random bytes": Conduct(20, random_bytes(BLOCK_BYTES), is_repeated=True),
    "frames that are no votes": Conduct(
        20, (struct.pack(">I", 6) + b"abcdef") * 100_000, is_repeated=True
    ),
    "HTTP requests": Conduct(20, b"GET / HTTP/1.1\r\n\r\n" * 1000, is_repeated=True),
}
ALL_AT_ONCE = "all of these at once"
FLOOD_SECONDS_MAX = 120.0
"""How long good votes may take beside a flood; they are starved then."""
_SHARE = 2


def beside_name(flood: str) -> str:
    """Give the name of the good senders' figure beside a flood."""
    return f"good votes, beside {flood}"


@contextmanager
def cases(plan: Plan) -> Iterator[list[Case]]:
    """Give a case for good votes alone, and one beside each flood."""
    floods = _Floods(plan, load_of(plan.votes // _SHARE))
    conducts: dict[str, tuple[Conduct, ...]] = {ALONE: ()}
    conducts |= {beside_name(name): (each,) for name, each in FLOODS.items()}
    conducts[beside_name(ALL_AT_ONCE)] = tuple(FLOODS.values())
    yield [
        Case(name, partial(floods.measure, name, each))
        for name, each in conducts.items()
    ]


@attrs.frozen
class _Floods:
    plan: Plan
    load: Load

    def measure(
        self, name: str, conducts: tuple[Conduct, ...], place: Path
    ) -> Iterable[Value]:
        """Send good votes to a new server, while peers misbehave, if there are any."""
        outputs = self.plan.buffer.view(self.load.output_bytes)
        with (
            Children(place) as children,
            served_with_sink(children, place / "data") as (server, sink),
            sender(Sending(self.load, server.port)) as sending,
            sampled(server.child.pid) as peak,
            ExitStack() as stack,
        ):
            if conducts:
                stack.enter_context(misbehaving(server.port, *conducts))
            began = time.perf_counter()

            def watch(received_bytes: int) -> None:
                if time.perf_counter() - began > FLOOD_SECONDS_MAX:
                    raise FloodError(
                        f"{name}: {received_bytes} of {len(outputs)} bytes of outputs "
                        f"after {FLOOD_SECONDS_MAX:g} s"
                    )

            sink.settimeout(FLOOD_SECONDS_MAX)
            sending.go()
            receive(sink, outputs, watch)
            seconds = time.perf_counter() - began
            sending.await_end()
        check_all(self.load, outputs)
        yield Value(name, "votes/s", self.load.votes / seconds)
        yield Value(f"{OWN}, {name}", "MB", peak.own_mb)
