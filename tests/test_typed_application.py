"""A small application with types, as a type checker sees it and as it runs.

`mypy` is strict and reads this file too: each `type: ignore` is a mistake that it must
find, for one that it does not find is an error of its own.
"""

import struct

import attrs

from alphabet import wallaroo
from alphabet.pipeline.machine import Machine


@attrs.frozen
class Reading:
    """A sensor's number, and what it has measured."""

    sensor: int
    celsius: float


@attrs.define
class Highest:
    """The highest reading so far."""

    celsius: float = -273.15


class ReadingDecoder:
    """Reads 10 bytes."""

    def header_length(self) -> int:
        """Give the header's size."""
        return 2

    def payload_length(self, bs: bytes) -> int:
        """Read the payload's size."""
        return int.from_bytes(bs)

    def decode(self, bs: bytes) -> Reading:
        """Read a reading."""
        return Reading(*struct.unpack(">Hd", bs))


class KeepHighest:
    """Lets through what is higher than all before."""

    def compute(self, data: Reading, state: Highest) -> tuple[float | None, bool]:
        """Compare."""
        if data.celsius <= state.celsius:
            return None, False
        state.celsius = data.celsius
        return data.celsius, True


class HighestBuilder:
    """Makes states."""

    def build(self) -> Highest:
        """Begin at absolute zero."""
        return Highest()


class OtherBuilder:
    """Makes states of another kind."""

    def build(self) -> list[int]:
        """Make a list."""
        return []


class FloatEncoder:
    """Writes a number as a line."""

    def encode(self, data: float) -> bytes:
        """Write it."""
        return f"{data}\n".encode()


@wallaroo.partition
def by_sensor(data: Reading) -> int:
    """Give a reading's sensor."""
    return data.sensor


DECODER: wallaroo.Decoder[Reading] = ReadingDecoder()
ENCODER: wallaroo.Encoder[float] = FloatEncoder()
KEEP: wallaroo.StateComputation[Reading, Highest, float] = KeepHighest()
BUILDER: wallaroo.StateBuilder[Highest] = HighestBuilder()
BY_SENSOR: wallaroo.PartitionFunction[Reading, int] = by_sensor


def begun() -> wallaroo.ApplicationBuilder:
    """Give a builder with an open pipeline."""
    builder = wallaroo.ApplicationBuilder("readings")
    return builder.new_pipeline(
        "readings", wallaroo.TCPSourceConfig("127.0.0.1", "0", DECODER)
    )


def test_it_runs() -> None:
    """What passes the type checker runs."""
    builder = begun().to_state_partition_u64(KEEP, BUILDER, "h", BY_SENSOR, range(3))
    sink = wallaroo.TCPSinkConfig("", "", ENCODER)
    machine = Machine(builder.to_sink(sink).build())
    payloads = [struct.pack(">Hd", 1, each) for each in (20.5, 19.0, 21.0)]
    values = machine.decode(0, payloads).values
    assert machine.compute(0, 1, values).outputs.data == b"20.5\n21.0\n"


def mistakes() -> None:
    """Make every mistake that a type checker has to find; nobody calls this."""
    begun().to_stateful(KEEP, OtherBuilder(), "h")  # type: ignore[misc]
    begun().to_stateful(KEEP, HighestBuilder, "h")  # type: ignore[arg-type]
    begun().to_stateful(DECODER, BUILDER, "h")  # type: ignore[arg-type]
    begun().to_stateful(KEEP, BUILDER, 5)  # type: ignore[arg-type]
    begun().to(KEEP)  # type: ignore[arg-type]
    begun().to_sink(ENCODER)  # type: ignore[call-overload]
    begun().to_state_partition(KEEP, BUILDER, "h", len, [1])  # type: ignore[arg-type]
    wallaroo.TCPSourceConfig("127.0.0.1", "0", ENCODER)  # type: ignore[arg-type]
    wallaroo.TCPSinkConfig("127.0.0.1", "0", DECODER)  # type: ignore[arg-type]
    wrong: wallaroo.Encoder[float] = DECODER  # type: ignore[assignment]
    del wrong
