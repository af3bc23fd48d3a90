"""A state's way through a stretch of the log: thinned samples, and the gaps on it.

The log is read once, in short reads, into a machine; what is held is bounded by the
stretch's span. Knows no application: what is to be seen of a state is asked of `look`.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Generic, Self, TypeVar

import attrs

from log.block import Block
from recovery.errors import AheadError, SnapshotError, StateError
from recovery.picture.sampling import Moment, Sample, choose_cell, thin
from recovery.replay import Replayer, StateMachine, replay_block

T = TypeVar("T")


@attrs.frozen
class Gap:
    """Lost events: `lost` of those from `first` to `last` (inclusive).

    They came between two times, those of the blocks before and behind. Gaps that begin
    closer to each other than samples do are one.
    """

    first: int
    last: int
    lost: int
    from_ns: int
    to_ns: int

    def join(self, later: Self) -> Self:
        """Give this gap and a later one as one."""
        lost = self.lost + later.lost
        return attrs.evolve(self, last=later.last, lost=lost, to_ns=later.to_ns)


@attrs.frozen
class History(Generic[T]):
    """What was seen of events `first` to `last` (inclusive), and of what was before.

    `counted` has for each sample how many events came up to it, the lost ones left out.
    `blocks` is how many there were, `cell_ns` how far apart samples are at least.
    """

    samples: list[Sample[T]]
    counted: list[int]
    gaps: list[Gap]
    blocks: int
    cell_ns: int

    @property
    def first(self) -> int:
        """The first event's sequence."""
        return self.samples[0].sequence + 1

    @property
    def last(self) -> int:
        """The last event's sequence."""
        return self.samples[-1].sequence


def read_history(
    replayer: Replayer,
    machine: StateMachine,
    look: Callable[[], T],
    events: range,
    progress: Callable[[int], None] = lambda _sequence: None,
) -> History[T]:
    """Replay `events`, a range of sequences: one at least, and all in the log.

    `look` is called when a sample of the machine's state is taken. Where events are
    lost, the state goes on without them up to the next good snapshot. Raises
    DamagedError, ForeignError or a RecoveryError.
    """
    after, until = events.start - 1, events[-1]
    recovered = replayer.recover(machine, after, progress)
    start_ns = next(replayer.log.read(after)).time_ns
    cell_ns = choose_cell(next(replayer.log.read(until - 1)).time_ns - start_ns)
    walk = _Walk(replayer, machine, after, until, cell_ns, progress)
    walk.is_lacking = any(
        recovered.start < first <= after for first, _ in replayer.log.meta.gaps
    )
    seen = list(thin(after, walk.moments(), lambda: (walk.counted, look()), cell_ns))
    samples = [Sample(each.time_ns, each.sequence, each.seen[1]) for each in seen]
    counted = [each.seen[0] for each in seen]
    return History(samples, counted, walk.gaps, walk.blocks, cell_ns)


@attrs.define
class _Walk:
    """A machine on its way; `is_lacking` tells that its state lacks lost events."""

    replayer: Replayer
    machine: StateMachine
    after: int
    until: int
    cell_ns: int
    progress: Callable[[int], None]
    is_lacking: bool = False
    gaps: list[Gap] = attrs.Factory(list)
    blocks: int = 0
    counted: int = 0
    _snapshots: list[int] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        """List the snapshots that may make up for what is lost."""
        self._snapshots = self.replayer.snapshots.sequences()

    def moments(self) -> Iterator[Moment]:
        """Give the blocks as moments, to be passed in order."""
        before_ns: int | None = None
        for block in self.replayer.log.read(self.after):
            if block.first_sequence > self.until:
                return
            self._note_gap(block, block.time_ns if before_ns is None else before_ns)
            before_ns = block.time_ns
            self.blocks += 1
            last = min(block.last_sequence, self.until)
            yield Moment(block.time_ns, last, partial(self._pass, block, last))

    def _note_gap(self, block: Block, before_ns: int) -> None:
        """Keep a gap, or end the one before at this block's time."""
        first = max(block.first_sequence, self.after + 1)
        if block.records.is_gap:
            last = min(block.last_sequence, self.until)
            gap = Gap(first, last, last - first + 1, before_ns, block.time_ns)
            is_near = self.gaps and (
                self.gaps[-1].last + 1 == first
                or self.gaps[-1].from_ns // self.cell_ns == before_ns // self.cell_ns
            )
            self.gaps.append(self.gaps.pop().join(gap) if is_near else gap)
        elif self.gaps and self.gaps[-1].last + 1 == first:
            self.gaps[-1] = attrs.evolve(self.gaps[-1], to_ns=block.time_ns)

    def _pass(self, block: Block, last: int) -> None:
        start = max(block.first_sequence - 1, self.after)
        self.counted += 0 if block.records.is_gap else last - start
        self.is_lacking = self.is_lacking or block.records.is_gap
        if self.is_lacking:
            found = self._load_snapshot(start, last)
            # One from amidst lost events lacks the later ones of them.
            self.is_lacking = found is None or (block.records.is_gap and found < last)
            start = found or start
        replay_block(self.machine, block, start, last)
        self.progress(last)

    def _load_snapshot(self, after: int, until: int) -> int | None:
        """Load the newest good snapshot of these events; give its sequence."""
        for sequence in self._snapshots:
            if after < sequence <= until:
                try:
                    found = self.replayer.snapshots.read(sequence)
                    self.replayer.load_snapshot(self.machine, found)
                except (AheadError, SnapshotError, StateError):
                    continue
                return sequence
        return None
