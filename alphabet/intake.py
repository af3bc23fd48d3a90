"""What arrived for one pipeline becomes numbered events with their outputs.

Large groups of one size go as batches, all others event by event: the same meaning
at two speeds. Where a batch cannot be taken as one, its events are taken one by one,
so that each that is bad is found and no other is touched.

Pure.
"""

import operator
from collections.abc import Iterator

import attrs

from alphabet.arrival import Received
from alphabet.framing import Rows
from alphabet.group import Group
from alphabet.outputs import Outputs
from alphabet.pipeline.batch import EVENTS_MIN, SLICE_EVENTS_MAX
from alphabet.pipeline.machine import Capture, Decoded, Failure, Machine
from log.block import Records
from log.row import Reject

REFUSED_LISTED_MAX = 100
"""How many refused payloads one step lists one by one."""


@attrs.frozen
class Rejection:
    """A reject, and the connection it came by (None for a failed event).

    It stands for `count` of that connection: itself, and those after it that are not
    listed.
    """

    connection: object
    reject: Reject
    count: int = 1


@attrs.define
class Intake:
    """The events of one pipeline that one step of the engine takes.

    The first `REFUSED_LISTED_MAX` refused payloads are listed, each a rejection; those
    after them are one for all that came together.

    They are numbered from `next_sequence` on. The states are captured at the first
    marked event at or after `capture_from`. `parts` are the events' records;
    `rejections` keep the order in which the payloads came.
    """

    machine: Machine
    pipeline: int
    next_sequence: int
    time_ns: int
    capture_from: int | None = None
    parts: list[Records] = attrs.Factory(list)
    outputs: list[Outputs] = attrs.Factory(list)
    rejections: list[Rejection] = attrs.Factory(list)
    capture: Capture | None = None
    listed_max: int = REFUSED_LISTED_MAX
    _listed: int = attrs.field(default=0, init=False)

    def take(self, group: Group) -> None:
        """Take a group's payloads in order."""
        is_batch = group.count >= EVENTS_MIN and self.machine.has_batch(self.pipeline)
        if not (is_batch and group.payload_bytes):
            payloads = group.payloads()
            for start in range(0, len(payloads), SLICE_EVENTS_MAX):
                part = payloads[start : start + SLICE_EVENTS_MAX]
                self._take_events(group, start, part)
            return
        rows = group.rows()
        start = 0
        while start < len(rows):
            stop = min(start + self._events_until_due(), len(rows))
            records = records_of(rows[start:stop])
            outputs = self.machine.compute_rows(
                self.pipeline, self.next_sequence, rows[start:stop]
            )
            if outputs is None:
                self._take_events(group, start, list(records))
            else:
                self._append(records, outputs)
            start = stop

    def _events_until_due(self) -> int:
        """Say how many events go before a snapshot falls due, as far as a slice goes.

        Where one is due, or nearly, a few go one by one, until one is marked.
        """
        if self.capture_from is None:
            return SLICE_EVENTS_MAX
        until_due = self.capture_from - self.next_sequence
        return min(SLICE_EVENTS_MAX, max(until_due, EVENTS_MIN - 1))

    def _take_events(self, group: Group, start: int, payloads: list[bytes]) -> None:
        """Take payloads, the group's from index `start` on, one by one."""
        decoded = self.machine.decode(self.pipeline, payloads)
        rejections: list[tuple[int, Rejection]] = []
        if decoded.refused:
            rejections += self._refuse(group, start, payloads, decoded)
        if decoded.payloads:
            rejections += self._take_decoded(decoded)
        if rejections:
            rejections.sort(key=operator.itemgetter(0))
            self.rejections += [rejection for _, rejection in rejections]

    def _refuse(
        self, group: Group, start: int, payloads: list[bytes], decoded: Decoded
    ) -> Iterator[tuple[int, Rejection]]:
        """Give what did not decode, each with the sequence of the event after it."""
        refused = [start + index for index, _ in decoded.refused]
        number = 0
        for received, positions in group.origins(refused):
            listed = min(len(positions), self.listed_max - self._listed)
            self._listed += listed
            for place, position in enumerate(positions[: listed + 1]):
                index, cause = decoded.refused[number + place]
                reject = self._refused(cause, payloads[index], received, position)
                count = 1 if place < listed else len(positions) - listed
                sequence = self.next_sequence + index - number - place
                yield sequence, Rejection(received.connection, reject, count)
            number += len(positions)

    def _take_decoded(self, decoded: Decoded) -> list[tuple[int, Rejection]]:
        """Take what was decoded; give those that failed, with their sequences."""
        first_sequence = self.next_sequence
        computed = self.machine.compute(
            self.pipeline, first_sequence, decoded.values, self.capture_from
        )
        if computed.capture is not None:
            self.capture, self.capture_from = computed.capture, None
        self._append(Records.pack(decoded.payloads), computed.outputs)
        return [
            (
                failure.sequence,
                self._failed(
                    failure, decoded.payloads[failure.sequence - first_sequence]
                ),
            )
            for failure in computed.failures
        ]

    def _refused(
        self, cause: str, payload: bytes, received: Received, position: int
    ) -> Reject:
        return Reject(
            time_ns=self.time_ns,
            reason="decode",
            cause=cause,
            peer=received.peer,
            position=position,
            sequence=0,
            payload_bytes=len(payload),
            payload=payload,
        )

    def _failed(self, failure: Failure, payload: bytes) -> Rejection:
        reject = Reject(
            time_ns=self.time_ns,
            reason=failure.reason,
            cause=failure.cause,
            peer="",
            position=None,
            sequence=failure.sequence,
            payload_bytes=len(payload),
            payload=payload,
        )
        return Rejection(None, reject)

    def _append(self, records: Records, outputs: Outputs) -> None:
        self.parts.append(records)
        self.outputs.append(outputs)
        self.next_sequence += records.count


def records_of(rows: Rows) -> Records:
    """Store rows as records of one size, without copying them."""
    return Records(len(rows), rows.shape[1], rows.reshape(-1).data)
