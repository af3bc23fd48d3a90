"""Raise an alarm when a sensor's last readings are too much together.

Each sensor has a state of its own: its last `WINDOW` readings. When their total
reaches `LIMIT` the alarm goes off, once; when it has fallen below, the all-clear is
given, once. The window slides with the sensor's readings and knows no clock: a replay
must come to the same alarms, whenever it is.
"""

import struct
from typing import NamedTuple

import attrs

from alphabet import wallaroo

WINDOW = 4
"""How many readings are looked at together."""
LIMIT = 100
"""The total at which the alarm goes off."""
SENSORS = range(1, 9)
"""The sensors there are; another one's reading is a failed event."""

READING = struct.Struct(">HI")
FRAME = struct.Struct(">IHQ?")


class Reading(NamedTuple):
    """What a sensor has measured."""

    sensor: int
    amount: int


class Alarm(NamedTuple):
    """A sensor's alarm has gone off, or is over."""

    sensor: int
    total: int
    is_on: bool


@attrs.define
class History:
    """A sensor's last readings, oldest first, and whether its alarm is on."""

    amounts: list[int] = attrs.field(factory=list)
    is_on: bool = False

    def add(self, amount: int) -> int:
        """Take a reading, let the oldest go, and return the total of those kept."""
        self.amounts = [*self.amounts, amount][-WINDOW:]
        return sum(self.amounts)


class HistoryBuilder:
    """Makes histories, and stores them: a byte for the alarm, four for each reading."""

    def build(self) -> History:
        """Begin with no readings."""
        return History()

    def dump(self, state: History) -> bytes:
        """Write a history."""
        return struct.pack(f">?{len(state.amounts)}I", state.is_on, *state.amounts)

    def load(self, bs: bytes) -> History:
        """Read a history."""
        is_on, *amounts = struct.unpack(f">?{len(bs) // 4}I", bs)
        return History(amounts, is_on)


class Watch:
    """Looks at a sensor's last readings together."""

    def name(self) -> str:
        """Name the computation."""
        return "watch"

    def compute(self, data: Reading, state: History) -> tuple[Alarm | None, bool]:
        """Return an alarm when it goes off or ends, else None.

        Only these are checkpoints: states worth coming back to.
        """
        total = state.add(data.amount)
        if (total >= LIMIT) == state.is_on:
            return None, False
        state.is_on = not state.is_on
        return Alarm(data.sensor, total, state.is_on), True


class BySensor:
    """Gives each sensor a state of its own."""

    def partition(self, data: Reading) -> int:
        """Give a reading's sensor."""
        return data.sensor


class Decoder:
    """Reads frames: a length in four bytes; the sensor, two; what it measured, four."""

    record_schema = ">HI"

    def header_length(self) -> int:
        """Say how many bytes a frame's header has."""
        return 4

    def payload_length(self, bs: bytes) -> int:
        """Read a payload's length from its header."""
        return int.from_bytes(bs)

    def decode(self, bs: bytes) -> Reading:
        """Read a reading."""
        return Reading(*READING.unpack(bs))


class Encoder:
    """Writes frames: a length in four bytes; the sensor, the total, on or off."""

    def encode(self, data: Alarm) -> bytes:
        """Write an alarm."""
        return FRAME.pack(FRAME.size - 4, *data)


def application_setup(args: list[str]) -> wallaroo.Application:
    """Put the application together."""
    in_host, in_port = wallaroo.tcp_parse_input_addrs(args)[0]
    out_host, out_port = wallaroo.tcp_parse_output_addrs(args)[0]

    ab = wallaroo.ApplicationBuilder("alarm")
    ab.new_pipeline("readings", wallaroo.TCPSourceConfig(in_host, in_port, Decoder()))
    ab.to_state_partition_u64(
        Watch(), HistoryBuilder(), "histories", BySensor(), SENSORS
    )
    ab.to_sink(wallaroo.TCPSinkConfig(out_host, out_port, Encoder()))
    return ab.build()
