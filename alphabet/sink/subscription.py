"""A sink's place in the log: live while it keeps up, else derived again.

Outputs are a function of the log, so a sink that was away, or slow, or is new, gets
them by computing them once more: from the newest snapshot at or below its place, or
from the states it was given when it was let go. Belongs to the sink's thread.
"""

import time
from collections.abc import Callable, Iterator

import attrs

from alphabet.outputs import Outputs
from alphabet.pipeline.machine import Capture, Machine
from alphabet.sink.feed import Feed
from log.errors import DamagedError
from recovery.replay import Replayer

BUSY_SHARE = 4
"""A deriving sink takes one part in so many of the time while votes are waiting."""


@attrs.frozen
class Pace:
    """Keeps a deriving sink from taking the machine from those who count.

    `is_busy` says whether votes are waiting; `wait` sleeps, and ends early when the
    server stops.
    """

    is_busy: Callable[[], bool]
    wait: Callable[[float], object]
    clock: Callable[[], float] = time.perf_counter

    def rest(self, worked_seconds: float) -> None:
        """Wait in proportion to the work done, if votes are waiting."""
        if self.is_busy():
            self.wait((BUSY_SHARE - 1) * worked_seconds)

    def between(self) -> Callable[[int], None]:
        """Make a progress callback that rests after each stretch of work."""
        started = self.clock()

        def progress(_sequence: int) -> None:
            nonlocal started
            self.rest(self.clock() - started)
            started = self.clock()

        return progress


@attrs.define
class Subscription:
    """Gives a sink its outputs in log order, wherever they come from."""

    feed: Feed
    replayer: Replayer
    machine: Machine
    pace: Pace
    _derived: Iterator[Outputs] | None = attrs.field(default=None, init=False)

    def begin(self, after: int) -> None:
        """Start, or start again, behind event `after`."""
        self.feed.detach()
        self._derived = None
        if not self.feed.attach(after):
            self._derived = self._derive_from_snapshot(after)

    @property
    def is_at_end(self) -> bool:
        """Say whether the sink has been given all that was released."""
        return self._derived is None and self.feed.is_empty

    @property
    def is_live(self) -> bool:
        """Say whether the sink is given live outputs, and nothing is derived for it."""
        return self._derived is None

    def next_live(self) -> Outputs | None:
        """Give the next outputs if that takes no work: they are live, and there."""
        return self.feed.pop_outputs() if self._derived is None else None

    def next(self) -> Outputs | None:
        """Give the next outputs, or None when nothing is there yet.

        Raises DamagedError, ForeignError or a RecoveryError where the log cannot give
        them.
        """
        if self._derived is None:
            found = self.feed.pop()
            if not isinstance(found, Capture):
                return found
            self._derived = self._derive_from_capture(found)
        outputs = next(self._derived, None)
        if outputs is None:
            self._derived = None
            return self.next()
        return outputs

    def _derive_from_snapshot(self, after: int) -> Iterator[Outputs]:
        """Bring the machine to `after`, which no output is due for, and go on."""
        self.replayer.recover(self.machine, after, self.pace.between())
        yield from self._derive(after)

    def _derive_from_capture(self, capture: Capture) -> Iterator[Outputs]:
        self.machine.load(capture.states)
        yield from self._derive(capture.sequence)

    def _derive(self, after: int) -> Iterator[Outputs]:
        """Give the outputs of all later events, and end when the feed took over."""
        log = self.replayer.log
        while not self.feed.attach(after):
            reached = after
            for block in log.read(after):
                started = self.pace.clock()
                self.replayer.check_gap(block)
                passed = after + 1 - block.first_sequence
                records = block.records.cut(passed, block.records.count)
                derived = self.machine.derive(block.pipeline, after + 1, records)
                after = block.last_sequence
                for outputs in derived:
                    worked_seconds = self.pace.clock() - started
                    yield self.feed.choose(outputs)
                    self.pace.rest(worked_seconds)
                    started = self.pace.clock()
            if after == reached:
                reason = "it was released, and is not there"
                raise DamagedError(log.store.path, after + 1, reason)
