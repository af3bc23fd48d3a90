"""What a log that has lost its tail does not reach: sinks' cursors and streams' points.

They are refused, or brought back to the log's end. Snapshots ahead of the log are
recovery's affair. No files here, but through the log.
"""

from collections.abc import Mapping, Sequence
from typing import Self

import attrs

from alphabet.connector.frames import NO_POINT
from alphabet.journal import entries
from alphabet.journal.journal import Journal
from log.block import Point
from log.log import Log, Transaction
from log.row import Cursor
from recovery.errors import AheadError
from recovery.snapshot_directory import SnapshotDirectory


@attrs.frozen
class LostTail:
    """The cursors and points that a log does not reach; none if nothing is lost."""

    cursors: Mapping[str, Cursor]
    points: Mapping[int, tuple[int, Point]]

    @classmethod
    def find(cls, log: Log) -> Self:
        """Find them all."""
        last = log.tail.sequence
        return cls(
            {
                k: cursor
                for k, cursor in log.cursors().items()
                if cursor.sequence > last
            },
            {k: point for k, point in log.points().items() if point[0] > last},
        )

    def subjects(self) -> list[tuple[str, int]]:
        """Name each, and the sequence where it is."""
        return [
            *((f"sink {name}", each.sequence) for name, each in self.cursors.items()),
            *(
                (f"stream {key}", sequence)
                for key, (sequence, _) in self.points.items()
            ),
        ]

    def check(self, log: Log, snapshots: SnapshotDirectory) -> None:
        """Raise AheadError if there is any; a snapshot ahead as well is a way on."""
        last = log.tail.sequence
        for subject, sequence in self.subjects():
            newest = next(iter(snapshots.sequences()), 0)
            file = snapshots.file(newest) if newest > last else None
            raise AheadError(log.store.path.parent, subject, sequence, last, file)

    def bring_back(self, log: Log, journal: Journal) -> None:
        """Let them go on from the log's end, as the operator has agreed."""
        if not self.subjects():
            return
        last = log.tail.sequence
        named = ", ".join(f"{subject} at {at}" for subject, at in self.subjects())
        journal.say(entries.tail_lost(sequence=last, subjects=named))
        cursors = {
            name: attrs.evolve(cursor, sequence=last)
            for name, cursor in self.cursors.items()
        }
        points = _points_of_blocks(log, [point for _, point in self.points.values()])
        log.commit(Transaction(cursors=cursors, points=points))


def _points_of_blocks(log: Log, ahead: Sequence[Point]) -> tuple[Point, ...]:
    """Give points as the blocks have them.

    A stream of which no block is left begins anew, so that its sender gives again
    what was lost; but not where blocks of it may lie before the base, and would count
    twice.
    """
    if not ahead:
        return ()
    found = {
        point.stream_id: point
        for block in log.read(log.base.sequence)
        for point in block.points
    }
    if not log.base.sequence:
        ahead = [attrs.evolve(point, message_id=NO_POINT) for point in ahead]
    return tuple(found.get(point.stream_id, point) for point in ahead)
