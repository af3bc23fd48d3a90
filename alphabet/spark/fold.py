"""An application at work on the events of many servers.

It is the very same `decode_batch`, `compute_batch` and `encode_batch` as on one
machine, with the same way one by one where a batch cannot be taken. Events come in the
order in which they are given: within a server that of its log, between servers none
that means anything. So an application has one answer if its result does not depend on
the order between servers.

An event that `decode` refuses, or for which `compute` or `encode` raises, gives no
output, as on one machine. Pure.
"""

from collections.abc import Iterable, Iterator
from typing import Self

import attrs
import numpy as np
from numpy.typing import NDArray

from alphabet.cause import FATAL, describe
from alphabet.framing import Rows
from alphabet.intake import records_of
from alphabet.pipeline.batch import SLICE_EVENTS_MAX
from alphabet.pipeline.machine import Machine
from alphabet.spark.folded import Folded
from alphabet.spark.newest import Newest
from recovery.exporting.event_columns import VOTES_SCHEMA

_PIPELINE = 0


class FoldError(ValueError):
    """An application that cannot be used here; says why and what to do."""


@attrs.frozen
class Events:
    """Events of one server, in order: `sequences[i]` is the number of `rows[i]`."""

    server: str
    sequences: NDArray[np.int64]
    rows: Rows

    def slices(self) -> Iterator[Self]:
        """Cut them into pieces of SLICE_EVENTS_MAX."""
        for start in range(0, len(self.rows), SLICE_EVENTS_MAX):
            part = slice(start, start + SLICE_EVENTS_MAX)
            yield attrs.evolve(
                self, sequences=self.sequences[part], rows=self.rows[part]
            )


@attrs.frozen
class Fault:
    """An event without output: `reason` (decode, compute, encode) raised `cause`."""

    server: str
    sequence: int
    reason: str
    cause: str


@attrs.define
class Fold:
    """An application's states, and what went wrong in the batch under way.

    Raises FoldError for an application that does not take votes in one pipeline.
    """

    machine: Machine
    faults_count: int = attrs.field(default=0, init=False)
    first_fault: Fault | None = attrs.field(default=None, init=False)
    _newest: Newest = attrs.field(factory=Newest, init=False)

    def __attrs_post_init__(self) -> None:
        """Refuse what cannot take votes."""
        machine = self.machine
        if len(machine.pipeline_names) != 1:
            raise FoldError(
                f"application {machine.application!r} has "
                f"{len(machine.pipeline_names)} pipelines: here it must have one"
            )
        if machine.record_schema != VOTES_SCHEMA:
            raise FoldError(
                f"application {machine.application!r} takes records of "
                f"{machine.record_schema!r}: segments hold votes, so its decoder must "
                f"have record_schema = {VOTES_SCHEMA!r}"
            )

    def begin(self, folded: Folded | None) -> None:
        """Go on with the states that were folded; None: before the first event.

        Raises FoldError for those of another application or version, StateError for
        what cannot be loaded.
        """
        if folded is None:
            self.machine.reset()
            self._newest = Newest()
            return
        theirs = (folded.application, folded.state_version)
        ours = (self.machine.application, self.machine.state_version)
        if theirs != ours:
            raise FoldError(
                f"it was counted by application {theirs[0]!r} with STATE_VERSION "
                f"{theirs[1]}, not by {ours[0]!r} with {ours[1]}; count all anew with "
                "another --checkpoint"
            )
        self.machine.load(folded.states)
        self._newest = Newest.of(folded.newest)

    def compute(self, batch: Iterable[Events]) -> Iterator[bytes | memoryview]:
        """Take a batch's events in order; gives their outputs, as bytes, in pieces.

        `faults_count` and `first_fault` are then the batch's. Raises FoldError where
        `encode_batch` does not do what `encode` does, for the states have run ahead.
        """
        self.faults_count, self.first_fault = 0, None
        self._newest.begin_batch()
        for events in batch:
            yield from map(self._compute_slice, events.slices())

    def folded(self, outputs_bytes: int, outputs_checksum: int) -> Folded:
        """Give the states as they are now; raises StateError."""
        machine = self.machine
        return Folded(
            machine.application,
            machine.state_version,
            machine.dump(),
            outputs_bytes,
            outputs_checksum,
            self._newest.outputs,
            self._newest.earlier_count,
        )

    def _compute_slice(self, events: Events) -> bytes | memoryview:
        machine = self.machine
        try:
            outputs = machine.compute_rows(_PIPELINE, 0, events.rows)
        except FATAL:
            raise
        except Exception as error:
            raise FoldError(
                f"encode_batch of application {machine.application!r} failed: "
                f"{describe(error)}; it must do what encode does"
            ) from error
        letters = events.rows[:, 0]
        if outputs is not None:
            self._newest.take(letters, outputs)
            return outputs.data
        decoded = machine.decode(_PIPELINE, records_of(events.rows))
        computed = machine.compute(_PIPELINE, 0, decoded.values)
        refused = [index for index, _ in decoded.refused]
        kept = np.delete(np.arange(len(events.rows)), refused)
        faults = [(index, "decode", cause) for index, cause in decoded.refused]
        faults += [
            (int(kept[failure.sequence]), failure.reason, failure.cause)
            for failure in computed.failures
        ]
        self._note(events, faults)
        self._newest.take(letters[kept], computed.outputs)
        return computed.outputs.data

    def _note(self, events: Events, faults: list[tuple[int, str, str]]) -> None:
        """Count faults, each with its event's index."""
        self.faults_count += len(faults)
        if faults and self.first_fault is None:
            index, reason, cause = min(faults)
            sequence = int(events.sequences[index])
            self.first_fault = Fault(events.server, sequence, reason, cause)
