"""A toy application whose every event says how it wants to be treated.

The first byte of a payload is its wish. The states are chains of checksums, so each of
them, and each output, shows every event before it and the order they came in. `Fold`
says what must come of any events: it is written from the design alone, and has nothing
of the runtime in it.
"""

import itertools
import struct
import zlib

import attrs
from hypothesis import strategies as st

from alphabet.arrival import Received
from alphabet.framing import Frames, Payloads
from alphabet.outputs import Outputs
from alphabet.pipeline.machine import Machine
from alphabet.wallaroo import ApplicationBuilder, TCPSinkConfig, TCPSourceConfig
from log.row import Meta

PLAIN = b"p"
MARKED = b"m"
SILENT = b"s"
SILENT_MARKED = b"S"
REFUSED = b"r"
FAILING = b"f"
SHAPELESS = b"x"
UNENCODABLE = b"u"

OUTPUT_WISHES = [PLAIN, MARKED]
EVENT_WISHES = [
    *OUTPUT_WISHES,
    SILENT,
    SILENT_MARKED,
    FAILING,
    SHAPELESS,
    UNENCODABLE,
]
MARKING = {MARKED, SILENT_MARKED, UNENCODABLE}
HEADER_BYTES = 1

Event = tuple[int, bytes]
"""A pipeline's number, and a payload."""

META = Meta("toy-log", "toy", ("one", "two"))

endings = st.binary(max_size=3)
payloads = st.builds(bytes.__add__, st.sampled_from(EVENT_WISHES), endings)
inputs = st.builds(bytes.__add__, st.sampled_from([*EVENT_WISHES, REFUSED]), endings)
pipelines = st.sampled_from([0, 1])
events = st.tuples(pipelines, payloads)


class Decoder:
    """A header is one byte of length; a payload is the event, unless it is refused."""

    def header_length(self) -> int:
        """Give the header's size."""
        return HEADER_BYTES

    def payload_length(self, bs: bytes) -> int:
        """Give the payload's size."""
        return bs[0]

    def decode(self, bs: bytes) -> bytes:
        """Give the payload back."""
        if bs.startswith(REFUSED):
            raise ValueError("it wished to be refused")
        return bs


@attrs.define
class Chain:
    """How many events there were, and a checksum of all of them in order."""

    count: int = 0
    checksum: int = 0


class ChainBuilder:
    """Makes chains, and their bytes."""

    def build(self) -> Chain:
        """Make the chain before the first event."""
        return Chain()

    def dump(self, state: Chain) -> bytes:
        """Write a chain."""
        return struct.pack(">QI", state.count, state.checksum)

    def load(self, data: bytes) -> Chain:
        """Read a chain."""
        return Chain(*struct.unpack(">QI", data))


class Append:
    """Puts an event at a chain's end, and gives the event with the new checksum."""

    def name(self) -> str:
        """Name the computation."""
        return "append"

    def compute(self, data: bytes, state: Chain) -> tuple[bytes | None, bool]:
        """Change the chain first, whatever is wished for."""
        state.count += 1
        state.checksum = zlib.crc32(data, state.checksum)
        wish = data[:1]
        if wish == FAILING:
            raise ValueError("it wished to fail")
        if wish == SHAPELESS:
            return None  # type: ignore[return-value]
        is_silent = wish in {SILENT, SILENT_MARKED}
        output = None if is_silent else data + state.checksum.to_bytes(4)
        return output, wish in MARKING


class Encoder:
    """Ends every output with a dot."""

    def encode(self, data: bytes) -> bytes:
        """Write an output."""
        if data.startswith(UNENCODABLE):
            raise ValueError("it wished not to be encoded")
        return data + b"."


def machine() -> Machine:
    """Make the toy: pipeline `one` has one step, `two` has two and shares a state."""
    source = TCPSourceConfig("127.0.0.1", "0", Decoder())
    sink = TCPSinkConfig("", "", Encoder())
    builder = ApplicationBuilder("toy")
    builder.new_pipeline("one", source)
    builder.to_stateful(Append(), ChainBuilder(), "shared").to_sink(sink)
    builder.new_pipeline("two", source)
    builder.to_stateful(Append(), ChainBuilder(), "shared")
    builder.to_stateful(Append(), ChainBuilder(), "own").to_sink(sink)
    return Machine(builder.build())


def received(
    *payloads: bytes,
    pipeline: int = 0,
    connection: object = None,
    position: int = 0,
    header_bytes: int = HEADER_BYTES,
) -> Received:
    """Make the arrival of these payloads, cut one by one; at first of all, if not said.

    `position` is that of the first frame in all that the connection has sent.
    """
    pieces = [Payloads(position, header_bytes, list(payloads))] if payloads else []
    return Received(connection, "peer", pipeline, Frames(position, [*pieces]))


def outputs(first_sequence: int, pieces: list[bytes]) -> Outputs:
    """Make the outputs of consecutive events, one piece for each."""
    ends = list(itertools.accumulate(map(len, pieces)))
    return Outputs(first_sequence, b"".join(pieces), ends)


@attrs.define
class Fold:
    """What must come of events 1, 2, 3, …, for each of them.

    An output is empty where there is none; `failures` says why an event failed, and
    `states` has the bytes of the states after each event, by name.
    """

    events: list[Event] = attrs.Factory(list)
    outputs: list[bytes] = attrs.Factory(list)
    failures: dict[int, str] = attrs.Factory(dict)
    marks: list[bool] = attrs.Factory(list)
    states: list[dict[str, bytes]] = attrs.Factory(list)
    shared: bytes = bytes(12)
    own: bytes = bytes(12)

    def add(self, event: Event) -> None:
        """Take the next event."""
        self.events.append(event)
        pipeline, payload = event
        wish = payload[:1]
        link = payload
        self.shared, link = append(self.shared, link)
        is_over = wish in {FAILING, SHAPELESS, SILENT, SILENT_MARKED}
        if pipeline == 1 and not is_over:
            self.own, link = append(self.own, link)
        has_output = not is_over and wish != UNENCODABLE
        self.outputs.append(link + b"." if has_output else b"")
        self.marks.append(wish in MARKING)
        self.states.append({"shared": self.shared, "own": self.own})
        if wish in {FAILING, SHAPELESS}:
            self.failures[len(self.events)] = "compute"
        elif wish == UNENCODABLE:
            self.failures[len(self.events)] = "encode"

    def data(self, after: int, until: int) -> bytes:
        """Give the outputs after event `after` (exclusive) to `until` (inclusive)."""
        return b"".join(self.outputs[after:until])

    def states_at(self, sequence: int) -> dict[str, bytes]:
        """Give the states' bytes after an event; 0 means before the first."""
        if not sequence:
            return {"shared": bytes(12), "own": bytes(12)}
        return self.states[sequence - 1]


def append(chain: bytes, data: bytes) -> tuple[bytes, bytes]:
    """Give a chain with one more event in it, and the link that comes out."""
    count, checksum = struct.unpack(">QI", chain)
    checksum = zlib.crc32(data, checksum)
    return struct.pack(">QI", count + 1, checksum), data + checksum.to_bytes(4)


def fold(*made: Event) -> Fold:
    """Fold events from nothing."""
    folded = Fold()
    for event in made:
        folded.add(event)
    return folded


def state_bytes(of: Machine) -> dict[str, bytes]:
    """Give a machine's states as `Fold` has them."""
    return {state.name: state.data for state in of.dump()}
