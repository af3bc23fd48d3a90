"""Applications of any shape: pipelines of steps of every kind, drawn by Hypothesis.

A `Plan` says which steps there are. `Plan.machine` writes it with the API; `PlanFold`
says what must come of any events: it is a reader of plans of its own, and has nothing
of the runtime in it. Payloads and their wishes are the toy's.
"""

import struct
import zlib
from typing import Any, Protocol

import attrs
from hypothesis import strategies as st

from alphabet import wallaroo
from alphabet.pipeline.machine import Machine
from log.row import Meta
from tests import toy

KEYS = [b"", b"a", b"b"]
"""An event's key is its second byte; most of those that come are among these."""
STATELESS = ["echo", "drop", "split"]
STATEFUL = ["append", "twice", "shared part", "own part"]
PIPELINES_MAX = 3

Steps = tuple[str, ...]
payloads = st.builds(
    lambda wish, key: wish + key,
    st.sampled_from([*toy.EVENT_WISHES, toy.PLAIN, toy.MARKED]),
    st.sampled_from([*KEYS, b"a", b"b", b"c", b"ab"]),
)
inputs = st.one_of(payloads, payloads, payloads, st.just(toy.REFUSED))


class Folding(Protocol):
    """What must come of events, one after the other; see `toy.Fold`."""

    events: list[toy.Event]
    outputs: list[bytes]
    failures: dict[int, str]
    marks: list[bool]

    def add(self, event: toy.Event) -> None:
        """Take the next event."""

    def states_at(self, sequence: int) -> dict[str, bytes]:
        """Give the states' bytes after an event."""


@attrs.frozen
class Plan:
    """An application: the steps of each pipeline, and whether it is done sinkless."""

    pipelines: tuple[tuple[Steps, bool], ...]

    @property
    def meta(self) -> Meta:
        """What a log of it says of itself."""
        names = tuple(f"p{number}" for number in range(len(self.pipelines)))
        return Meta("plan-log", "plan", names)

    def machine(self) -> Machine:
        """Write it with the API."""
        builder: Any = wallaroo.ApplicationBuilder("plan")
        for number, (steps, has_sink) in enumerate(self.pipelines):
            source = wallaroo.TCPSourceConfig("", "0", toy.Decoder())
            builder.new_pipeline(f"p{number}", source)
            for step in steps:
                _add(builder, step)
            if has_sink:
                builder.to_sink(wallaroo.TCPSinkConfig("", "", toy.Encoder()))
            else:
                builder.done()
        return Machine(builder.build())

    def fold(self, *events: toy.Event) -> "PlanFold":
        """Say what must come of events."""
        folded = PlanFold(self)
        for event in events:
            folded.add(event)
        return folded


plans = st.builds(
    Plan,
    st.lists(
        st.tuples(
            st.one_of(
                st.lists(st.sampled_from(STATELESS + STATEFUL), max_size=4),
                # Steps of one output each are run in a way of their own.
                st.lists(st.sampled_from(["echo", "append", "own part"]), min_size=2),
            ).map(tuple),
            st.sampled_from([True, True, True, False]),
        ),
        min_size=1,
        max_size=PIPELINES_MAX,
    ).map(tuple),
)


def _add(builder: Any, step: str) -> None:  # noqa: ANN401 - of any types
    match step:
        case "echo":
            builder.to(wallaroo.computation("echo")(lambda data: data + b"e"))
        case "drop":
            builder.to(wallaroo.computation("drop")(_dropped))
        case "split":
            builder.to_parallel(wallaroo.computation_multi("split")(_split))
        case "append":
            builder.to_stateful(toy.Append(), toy.ChainBuilder(), "chain")
        case "twice":
            twice = wallaroo.state_computation_multi("twice")(_twice)
            builder.to_stateful(twice, toy.ChainBuilder(), "chain")
        case _:
            builder.to_state_partition(
                toy.Append(),
                toy.ChainBuilder(),
                step,
                wallaroo.partition(lambda data: data[1:2]),
                KEYS,
            )


def _dropped(data: bytes) -> bytes | None:
    return None if len(data) % 2 else data


def _split(data: bytes) -> list[bytes] | None:
    return None if data.endswith(b"b") else [data, data + b"2"]


def _twice(data: bytes, state: toy.Chain) -> tuple[list[bytes] | None, bool]:
    output, flag = toy.Append().compute(data, state)
    return None if output is None else [output, output + b"3"], flag


class _FailedError(Exception):
    """An event failed; the reason is its argument."""


@attrs.define
class PlanFold:
    """What must come of events 1, 2, 3, … of a plan; see `toy.Fold`."""

    plan: Plan
    events: list[toy.Event] = attrs.Factory(list)
    outputs: list[bytes] = attrs.Factory(list)
    failures: dict[int, str] = attrs.Factory(dict)
    marks: list[bool] = attrs.Factory(list)
    states: list[dict[str, bytes]] = attrs.Factory(list)
    _chain: bytes = bytes(12)
    _parts: dict[str, dict[bytes, bytes]] = attrs.Factory(dict)

    def add(self, event: toy.Event) -> None:
        """Take the next event."""
        self.events.append(event)
        number, payload = event
        steps, has_sink = self.plan.pipelines[number]
        found: list[bytes] = []
        try:
            marked = self._go(payload, list(steps), found)
        except _FailedError:
            marked, found = False, []
            self.failures[len(self.events)] = "compute"
        if has_sink and any(each.startswith(toy.UNENCODABLE) for each in found):
            found = []
            self.failures[len(self.events)] = "encode"
        self.outputs.append(b"".join(each + b"." for each in found if has_sink))
        self.marks.append(marked)
        self.states.append(self._bytes())

    def states_at(self, sequence: int) -> dict[str, bytes]:
        """Give the states' bytes after an event; 0 means before the first."""
        if not sequence:
            return PlanFold(self.plan)._bytes()  # noqa: SLF001 - of its own kind
        return self.states[sequence - 1]

    def _go(self, value: bytes, steps: list[str], found: list[bytes]) -> bool:
        """Take a value through its steps; say whether one of them marked it."""
        if not steps:
            found.append(value)
            return False
        values, marked = self._step(value, steps[0])
        # Not `any` of a generator: each value goes its way, marked or not.
        marks = [self._go(each, steps[1:], found) for each in values]
        return marked or any(marks)

    def _step(self, value: bytes, step: str) -> tuple[list[bytes], bool]:
        if step == "echo":
            return [value + b"e"], False
        if step == "drop":
            return [value] * (len(value) % 2 == 0), False
        if step == "split":
            return ([] if value[-1:] == b"b" else [value, value + b"2"]), False
        wish = value[:1]
        if step in {"append", "twice"}:
            self._chain, link = toy.append(self._chain, value)
        else:
            key = value[1:2]
            if key not in KEYS:
                raise _FailedError
            part = self._parts.setdefault(step, {})
            part[key], link = toy.append(part.get(key, bytes(12)), value)
        # What is shapeless in a step of one output is so in one of many.
        if wish in {toy.FAILING, toy.SHAPELESS}:
            raise _FailedError
        if wish in {toy.SILENT, toy.SILENT_MARKED}:
            return [], wish in toy.MARKING
        links = [link, link + b"3"] if step == "twice" else [link]
        return links, wish in toy.MARKING

    def _bytes(self) -> dict[str, bytes]:
        """Write the states that the plan has."""
        used = {step for steps, _ in self.plan.pipelines for step in steps}
        written = {}
        if used & {"append", "twice"}:
            written["chain"] = self._chain
        checksum = zlib.crc32("\0".join(map(repr, KEYS)).encode())
        for name in used & {"shared part", "own part"}:
            part = self._parts.get(name, {})
            rows = [
                struct.pack(">IQ", KEYS.index(key), 12) + part[key]
                for key in KEYS
                if key in part
            ]
            written[name] = struct.pack(">I", checksum) + b"".join(rows)
        return written
