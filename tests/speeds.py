"""The two speeds side by side: applications with batch methods, and without.

`Side` takes the same bytes as another one and notes all that can be seen of it, for
tests that hold the two equal.
"""

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any, Self

import attrs
import numpy as np
import pytest

from alphabet import application, framing, intake
from alphabet.arrival import Received
from alphabet.engine import Engine
from alphabet.framing import FrameReader, Frames, Payloads, Rows
from alphabet.pipeline import machine as machine_module
from alphabet.pipeline.machine import Capture, Machine
from alphabet.wallaroo import (
    ApplicationBuilder,
    StatefulStep,
    TCPSinkConfig,
    TCPSourceConfig,
)
from log.block import Block, Tail
from log.row import Reject
from tests import toy
from tests.machines import alphabet
from tests.toy import Chain

FRAME_BYTES_MAX = 100


@contextlib.contextmanager
def small_bounds() -> Iterator[None]:
    """Let a few events be enough for batches, of several slices, and for runs."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (intake, machine_module):
            patch.setattr(module, "EVENTS_MIN", 3)
            patch.setattr(module, "SLICE_EVENTS_MAX", 8)
        patch.setattr(framing, "RUN_FRAMES_MIN", 2)
        patch.setattr(framing, "WINDOW_BYTES", 32)
        yield


def only(component: object, *names: str) -> Any:  # noqa: ANN401 - as it is asked for
    """Give a component of its class's name, with these attributes and no others."""
    kind = type(type(component).__name__, (SimpleNamespace,), {})
    return kind(**{name: getattr(component, name) for name in names})


def without_batch_methods(machine: Machine) -> Machine:
    """Give a machine of the same application, as one that offers no batch methods."""
    definition = machine.definition
    builder = ApplicationBuilder(definition.name)
    for pipeline in definition.pipelines:
        decoder = only(
            pipeline.source.decoder, "header_length", "payload_length", "decode"
        )
        builder.new_pipeline(pipeline.name, TCPSourceConfig("", "0", decoder))
        for step in pipeline.steps:
            assert isinstance(step, StatefulStep)
            computation = only(step.computation, "name", "compute")
            builder.to_stateful(computation, step.state_builder, step.state_name)
        encoder = only(pipeline.sink.encoder, "encode")
        builder.to_sink(TCPSinkConfig("", "", encoder))
    return Machine(builder.build())


class BatchDecoder(toy.Decoder):
    """The toy's decoder, with its batch form."""

    def decode_batch(self, rows: Rows) -> list[bytes]:
        """Give the payloads back, unless one is refused."""
        return [self.decode(row.tobytes()) for row in rows]


@attrs.define
class BatchAppend(toy.Append):
    """The toy's computation, with its batch form; `taken` are the batches' sizes."""

    taken: list[int] = attrs.Factory(list)

    def compute_batch(
        self, data: list[bytes], state: Chain
    ) -> tuple[list[bytes], np.ndarray[tuple[int], np.dtype[np.bool_]]]:
        """Take events that all have an output; of any other it will have none."""
        if any(event[:1] not in toy.OUTPUT_WISHES for event in data):
            raise ValueError("one of them wishes for something else")
        self.taken.append(len(data))
        computed = [self.compute(event, state) for event in data]
        outputs = [output for output, _ in computed if output is not None]
        return outputs, np.array([flag for _, flag in computed])


class BatchEncoder(toy.Encoder):
    """The toy's encoder, with its batch form."""

    def encode_batch(self, data: list[bytes]) -> Rows:
        """Write outputs of one size."""
        flat = np.frombuffer(b"".join(map(self.encode, data)), np.uint8)
        return flat.reshape(len(data), -1)


def batch_toy() -> Machine:
    """Make the toy with batch methods: pipeline `two` has two steps, and no batches."""
    source = TCPSourceConfig("127.0.0.1", "0", BatchDecoder())
    sink = TCPSinkConfig("", "", BatchEncoder())
    append = BatchAppend()
    builder = ApplicationBuilder("toy")
    builder.new_pipeline("one", source)
    builder.to_stateful(append, toy.ChainBuilder(), "shared").to_sink(sink)
    builder.new_pipeline("two", source)
    builder.to_stateful(append, toy.ChainBuilder(), "shared")
    builder.to_stateful(append, toy.ChainBuilder(), "own").to_sink(sink)
    return Machine(builder.build())


def batches(machine: Machine) -> list[int]:
    """Give the sizes of the batches that a toy's first pipeline has taken."""
    [step] = machine.definition.pipelines[0].steps
    assert isinstance(step.computation, BatchAppend)
    return step.computation.taken


def batch_alphabet(totals: dict[bytes, int] | None = None) -> Machine:
    """Make a machine of Alphabet's own, with these totals."""
    machine = alphabet()
    state = machine.state("letter state")
    for letter, total in (totals or {}).items():
        state.update(application.Votes(letter, total))
    return machine


@attrs.define
class Side:
    """An engine at one speed, and all that came of what it took.

    `is_cut` says that frames come cut one by one, as a peer that trickles has them.
    """

    machine: Machine
    snapshot_every: int = 1 << 60
    is_cut: bool = False
    engine: Engine = attrs.field(init=False)
    readers: dict[object, FrameReader] = attrs.field(factory=dict, init=False)
    sizes: list[int] = attrs.field(factory=list, init=False)
    data: list[bytes] = attrs.field(factory=list, init=False)
    rejections: list[tuple[object, Reject]] = attrs.field(factory=list, init=False)
    blocks: list[Block] = attrs.field(factory=list, init=False)
    captures: list[Capture] = attrs.field(factory=list, init=False)
    marks: list[bool] = attrs.field(factory=list, init=False)

    def __attrs_post_init__(self) -> None:
        """Begin with an empty log."""
        self.engine = Engine(self.machine, Tail(0, 0), self.snapshot_every)

    @classmethod
    def pair(cls, machine: Machine, other: Machine, snapshot_every: int) -> list[Self]:
        """Give the side with batches and the one without, in the same state."""
        other.load(machine.dump())
        return [
            cls(machine, snapshot_every),
            cls(other, snapshot_every, is_cut=True),
        ]

    def receive(self, connection: object, data: bytes, pipeline: int = 0) -> Received:
        """Frame what a connection sent."""
        decoder = self.machine.definition.pipelines[pipeline].source.decoder
        new = FrameReader(
            decoder.header_length(), decoder.payload_length, FRAME_BYTES_MAX
        )
        reader = self.readers.setdefault(connection, new)
        frames = reader.receive(data)
        if self.is_cut:
            frames = Frames(
                frames.position,
                [
                    Payloads(piece.position, piece.header_bytes, piece.payloads)
                    for piece in frames.pieces
                ],
            )
        return Received(connection, f"peer {connection}", pipeline, frames)

    def take(self, arrivals: Sequence[Received], *, is_saved: bool = True) -> None:
        """Bring arrivals all the way; a snapshot that was begun is done, or not yet."""
        found = self.engine.take(arrivals, time_ns=len(self.blocks))
        self.rejections += [(each.connection, each.reject) for each in found]
        self.marks.append(self.machine.is_marked)
        batch = self.engine.seal(0.0, is_last=True)
        if batch is None:
            return
        self.engine.flushed()
        self.engine.release()
        self.blocks += batch.transaction.blocks
        for outputs in batch.outputs:
            assert outputs.first_sequence == len(self.sizes) + 1
            ends = list(outputs.ends)
            assert len(outputs.data) == ([0, *ends])[-1]
            self.sizes += [b - a for a, b in itertools.pairwise([0, *ends])]
            self.data.append(bytes(outputs.data))
        assert batch.last_sequence == len(self.sizes)
        if batch.capture is not None:
            self.captures.append(batch.capture)
        if is_saved and self.captures:
            self.engine.snapshot_done(self.captures[-1].sequence)

    def seen(self) -> dict[str, object]:
        """Give all that came, in a form that can be compared."""
        return {
            "output": b"".join(self.data),
            "sizes": self.sizes,
            "rejections": self.rejections,
            "log": [block.encoded for block in self.blocks],
            "captures": self.captures,
            "marks": self.marks,
            "states": self.machine.dump(),
        }


def replayed(machine: Machine, blocks: Sequence[Block], after: int = 0) -> list[int]:
    """Replay blocks' events later than `after` (exclusive), as they are read back.

    Gives the sequences of those for which compute raised.
    """
    failed: list[int] = []
    for block in map(Block.decode, [block.encoded for block in blocks]):
        passed = max(after + 1 - block.first_sequence, 0)
        if passed < block.records.count:
            records = block.records.cut(passed, block.records.count)
            first = block.first_sequence + passed
            failed += machine.replay(block.pipeline, first, records)
    return failed


def derived(machine: Machine, blocks: Sequence[Block]) -> tuple[bytes, list[int]]:
    """Derive blocks' outputs again: their bytes, and each one's size."""
    data = b""
    sizes: list[int] = []
    for block in map(Block.decode, [block.encoded for block in blocks]):
        first = block.first_sequence
        for outputs in machine.derive(block.pipeline, first, block.records):
            assert outputs.first_sequence == len(sizes) + 1
            data += outputs.data
            sizes += [b - a for a, b in itertools.pairwise([0, *outputs.ends])]
    return data, sizes
