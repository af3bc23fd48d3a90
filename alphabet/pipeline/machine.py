"""An application at work: its states, and the way of an event through a pipeline.

Decode, compute, encode are the application's own; what is settled here is what
happens when one of them raises, the same live, in replay and for a sink that reads
the log again:

- `decode` raises: the payload is refused and never becomes an event;
- `compute` or `encode` raises: the event failed, it keeps its sequence and has no
  output, and the state is whatever `compute` left, as it will be in every replay;
- MemoryError, RecursionError and what is no Exception end everything.

Pure: no sockets, clocks or files. A `Machine` belongs to one thread.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Self

import attrs

from alphabet.cause import FATAL, StepError, describe
from alphabet.framing import Rows
from alphabet.outputs import Outputs
from alphabet.pipeline.batch import (
    EVENTS_MIN,
    REPLAY_EVENTS_MAX,
    SLICE_EVENTS_MAX,
    BatchMethods,
    find_batch_methods,
    slices,
)
from alphabet.pipeline.state_codec import PICKLE, StateCodec
from alphabet.pipeline.steps import Way, as_bytes, bind, codec_of, initial_state
from alphabet.pipeline.topology import Application
from log.block import Records
from log.row import OPAQUE
from recovery.errors import ReplayError, StateError
from recovery.snapshot import State


@attrs.frozen
class Decoded:
    """Payloads and what they mean, in order; `refused` are (index, cause)."""

    payloads: list[bytes]
    values: list[Any]
    refused: list[tuple[int, str]]


@attrs.frozen
class Failure:
    """An event whose `reason` (compute or encode) raised `cause`."""

    sequence: int
    reason: str
    cause: str


@attrs.frozen
class Capture:
    """Every state's bytes after event `sequence`."""

    sequence: int
    states: tuple[State, ...]


@attrs.frozen
class Computed:
    """What a run of events gave."""

    outputs: Outputs
    failures: list[Failure]
    capture: Capture | None


@attrs.define
class Machine:
    """The states of one application, and its pipelines bound to them.

    `is_marked` tells whether the last event's compute returned True.
    """

    definition: Application
    _module: object = None
    is_marked: bool = attrs.field(default=False, init=False)
    _codecs: dict[str, StateCodec] = attrs.field(init=False)
    _states: dict[str, Any] = attrs.field(init=False)
    _ways: list[Way] = attrs.field(init=False)
    _batches: list[BatchMethods | None] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        """Find every state's codec and every pipeline's batch methods, and begin."""
        self._batches = [
            find_batch_methods(pipeline) for pipeline in self.definition.pipelines
        ]
        self._codecs = {
            step.state_name: codec_of(step, self._module)
            for step in self.definition.stateful_steps
        }
        self.reset()

    def fresh(self) -> Self:
        """Give another machine of the same application, before its first event."""
        return type(self)(self.definition, self._module)

    @property
    def application(self) -> str:
        """The application's name."""
        return self.definition.name

    @property
    def state_version(self) -> int:
        """The application module's STATE_VERSION, 1 if it has none."""
        return int(getattr(self._module, "STATE_VERSION", 1))

    @property
    def record_schema(self) -> str:
        """The form of the records: the first decoder's, `opaque` if it tells none."""
        decoder = self.definition.pipelines[0].source.decoder
        return str(getattr(decoder, "record_schema", OPAQUE))

    @property
    def pipeline_names(self) -> tuple[str, ...]:
        """The pipelines' names, in the order of their numbers."""
        return tuple(pipeline.name for pipeline in self.definition.pipelines)

    @property
    def pickled(self) -> list[str]:
        """The names of the states that go through pickle."""
        return [
            name for name, codec in self._codecs.items() if codec.encoding == PICKLE
        ]

    def reset(self) -> None:
        """Go back to the states before the first event."""
        self._bind(
            {
                step.state_name: initial_state(step)
                for step in self.definition.stateful_steps
            }
        )

    def dump(self) -> tuple[State, ...]:
        """Give every state's bytes; raises StateError."""
        return tuple(
            State(name, self._codecs[name].encoding, self._dump(name))
            for name in self._states
        )

    def load(self, states: Sequence[State]) -> None:
        """Take every state from its bytes; raises StateError, changing nothing."""
        given = {state.name: state for state in states}
        if given.keys() != self._states.keys():
            theirs = ", ".join(sorted(given)) or "none"
            raise StateError(f"it holds other states than the application's: {theirs}")
        self._bind({name: self._load(given[name]) for name in self._states})

    @property
    def state_names(self) -> tuple[str, ...]:
        """The states' names, in the order that the pipelines name them."""
        return tuple(self._states)

    def state(self, name: str) -> Any:  # noqa: ANN401 - a state is the application's
        """Give a state by its name, for a look at it."""
        return self._states[name]

    def decode(self, pipeline: int, payloads: Iterable[bytes]) -> Decoded:
        """Decode payloads, sorting out those that the decoder refuses."""
        decode = self.definition.pipelines[pipeline].source.decoder.decode
        kept: list[bytes] = []
        values: list[Any] = []
        refused: list[tuple[int, str]] = []
        for index, payload in enumerate(payloads):
            try:
                value = decode(payload)
            except FATAL:
                raise
            except Exception as error:  # noqa: BLE001 - it is the application's code
                refused.append((index, describe(error)))
            else:
                kept.append(payload)
                values.append(value)
        return Decoded(kept, values, refused)

    def compute(
        self,
        pipeline: int,
        first_sequence: int,
        values: Sequence[Any],
        capture_from: int | None = None,
    ) -> Computed:
        """Take events in order, and encode what they give.

        The states are captured at the first event at or after `capture_from` that
        is marked. Raises StateError when they cannot be dumped there.
        """
        run, encode = self._ways[pipeline].run, self._ways[pipeline].encode
        pieces: list[bytes] = []
        ends: list[int] = []
        failures: list[Failure] = []
        capture: Capture | None = None
        end = 0
        marked = self.is_marked
        for sequence, value in enumerate(values, first_sequence):
            reason = "compute"
            marked = False
            try:
                output, marked = run(value)
                if output is not None:
                    reason = "encode"
                    piece = encode(output)
                    if type(piece) is not bytes:
                        piece = as_bytes(piece)
                    pieces.append(piece)
                    end += len(piece)
            except FATAL as error:
                error.add_note(f"event {sequence}")
                raise
            except Exception as error:  # noqa: BLE001 - it is the application's code
                told = error if reason == "compute" else self._named(pipeline, error)
                failures.append(Failure(sequence, reason, describe(told)))
            except BaseException as error:
                error.add_note(f"event {sequence}")
                raise
            ends.append(end)
            if marked and capture_from is not None and sequence >= capture_from:
                capture = Capture(sequence, self.dump())
                capture_from = None
        self.is_marked = marked
        outputs = Outputs(first_sequence, b"".join(pieces), ends, pipeline)
        return Computed(outputs, failures, capture)

    def _named(self, pipeline: int, error: Exception) -> Exception:
        """Give what an encoder raised its name, unless it has one."""
        encoder = self.definition.pipelines[pipeline].sink.encoder
        is_named = isinstance(error, StepError)
        return error if is_named else StepError(type(encoder).__name__, error)

    def has_batch(self, pipeline: int) -> bool:
        """Say whether a pipeline can take events in batches."""
        return self._batches[pipeline] is not None

    def compute_rows(
        self, pipeline: int, first_sequence: int, rows: Rows
    ) -> Outputs | None:
        """Take events of one size as a batch; None, with nothing changed, if it cannot.

        Then the same events are for `decode` and `compute`, one by one.
        """
        batch = self._batches[pipeline]
        if batch is None or len(rows) < EVENTS_MIN:
            return None
        state = self._states[batch.state_name]
        try:
            values = batch.decode(rows)
            found, flags = batch.compute(values, state)
        except FATAL:
            raise
        except Exception:  # noqa: BLE001 - one by one tells which event it is
            return None
        encoded = batch.encode(found)
        if len(encoded) != len(rows):
            raise ValueError(f"{len(encoded)} outputs of {len(rows)} events")
        self.is_marked = bool(flags[-1])
        size = encoded.shape[1]
        ends = range(size, encoded.size + 1, size)
        return Outputs(first_sequence, encoded.reshape(-1).data, ends, pipeline)

    def derive(
        self, pipeline: int, first_sequence: int, records: Records
    ) -> Iterator[Outputs]:
        """Compute logged events again, and their outputs; raises ReplayError."""
        for rows, part in slices(records, SLICE_EVENTS_MAX):
            outputs = None
            if rows is not None:
                outputs = self.compute_rows(pipeline, first_sequence, rows)
            if outputs is None:
                values = self._decode_records(pipeline, first_sequence, part)
                outputs = self.compute(pipeline, first_sequence, values).outputs
            yield outputs
            first_sequence += part.count

    def replay(self, pipeline: int, first_sequence: int, records: Records) -> list[int]:
        """Compute logged events again, with no outputs; raises ReplayError.

        Gives the sequences of those for which `compute` raised.
        """
        failed: list[int] = []
        for rows, part in slices(records, REPLAY_EVENTS_MAX):
            # The last event goes alone: it tells whether it is marked.
            is_batch = rows is not None and self._replay_rows(pipeline, rows[:-1])
            passed = part.count - 1 if is_batch else 0
            rest = part.cut(passed, part.count)
            failed += self._replay_events(pipeline, first_sequence + passed, rest)
            first_sequence += part.count
        return failed

    def _replay_rows(self, pipeline: int, rows: Rows) -> bool:
        batch = self._batches[pipeline]
        if batch is None or len(rows) < EVENTS_MIN:
            return False
        state = self._states[batch.state_name]
        try:
            batch.replay(batch.decode(rows), state)
        except FATAL:
            raise
        except Exception:  # noqa: BLE001 - one by one tells which event it is
            return False
        return True

    def _replay_events(
        self, pipeline: int, first_sequence: int, records: Iterable[bytes]
    ) -> list[int]:
        run = self._ways[pipeline].run
        marked = self.is_marked
        failed: list[int] = []
        values = self._decode_records(pipeline, first_sequence, records)
        for sequence, value in enumerate(values, first_sequence):
            marked = False
            try:
                _, marked = run(value)
            except FATAL as error:
                error.add_note(f"event {sequence}")
                raise
            except Exception:  # noqa: BLE001 - it failed so when it was live
                failed.append(sequence)
            except BaseException as error:
                error.add_note(f"event {sequence}")
                raise
        self.is_marked = marked
        return failed

    def _decode_records(
        self, pipeline: int, first_sequence: int, records: Iterable[bytes]
    ) -> list[Any]:
        decoded = self.decode(pipeline, records)
        if decoded.refused:
            index, cause = decoded.refused[0]
            raise ReplayError(first_sequence + index, cause)
        return decoded.values

    def _bind(self, states: dict[str, Any]) -> None:
        self._states = states
        self._ways = [bind(each, states) for each in self.definition.pipelines]

    def _dump(self, name: str) -> bytes:
        try:
            return bytes(memoryview(self._codecs[name].dump(self._states[name])))
        except FATAL:
            raise
        except Exception as error:
            raise StateError(f"it cannot be dumped: {describe(error)}", name) from error

    def _load(self, state: State) -> Any:  # noqa: ANN401 - a state is the application's
        codec = self._codecs[state.name]
        if state.encoding != codec.encoding:
            reason = f"it was stored by {state.encoding}, not by {codec.encoding}"
            raise StateError(reason, state.name)
        try:
            return codec.load(state.data)
        except FATAL:
            raise
        except Exception as error:
            reason = f"it cannot be loaded: {describe(error)}"
            raise StateError(reason, state.name) from error
