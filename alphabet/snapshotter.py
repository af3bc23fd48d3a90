"""Writes snapshots in the background, one at a time.

A capture comes here once its event is durable. Whatever goes wrong costs a line and
leaves the older snapshots: counting goes on.
"""

import queue
from collections.abc import Callable, Iterable

import attrs

from alphabet.journal import entries
from alphabet.journal.journal import Journal
from alphabet.pipeline.machine import Capture, Machine
from log.errors import LogError
from log.log import Log
from recovery.replay import take_snapshot
from recovery.snapshot_directory import SnapshotDirectory


@attrs.define(eq=False)
class Snapshotter:
    """Turns captures into files; `run` is for a thread of its own.

    `floors` gives the lowest sequence that each sink at work may have to begin from.
    `on_done` is told the sequence of each capture, kept or not.
    """

    log: Log
    snapshots: SnapshotDirectory
    machine: Machine
    floors: Callable[[], Iterable[int]]
    on_done: Callable[[int], None]
    journal: Journal
    _captures: queue.SimpleQueue[Capture | None] = attrs.field(
        factory=queue.SimpleQueue, init=False
    )

    def submit(self, capture: Capture) -> None:
        """Hand over a capture whose event is durable."""
        self._captures.put(capture)

    def close(self) -> None:
        """End the thread behind what was submitted."""
        self._captures.put(None)

    def run(self) -> None:
        """Write what is submitted until closed."""
        while (capture := self._captures.get()) is not None:
            self.write(capture)
            self.on_done(capture.sequence)

    def write(self, capture: Capture) -> None:
        """Write one snapshot, and remove those that nobody needs any more."""
        try:
            snapshot = take_snapshot(
                self.log, self.machine, capture.sequence, capture.states
            )
            self.snapshots.write(snapshot)
            self.snapshots.prune(self._lowest_floor())
        except (OSError, LogError) as error:
            self.journal.say(
                entries.snapshot_failed(sequence=capture.sequence, cause=str(error))
            )

    def _lowest_floor(self) -> int | None:
        """Give the lowest sequence that a sink may have to begin from, away or not."""
        cursors = self.log.cursors().values()
        floors = [*self.floors(), *(cursor.sequence for cursor in cursors)]
        return min(floors, default=None)
