"""The engine: arrivals in, sealed batches out, outputs only for what is durable.

A machine of named steps that knows no sockets, clocks, threads or LMDB:

```
take(arrivals)   decode, number, compute, encode          the open batch grows
seal(now)        close the open batch                     a Batch is in flight
flushed()        the oldest batch in flight is durable
release()        give that batch's outputs and receipts away
```

Invariants:

- nothing that `take` computed is given away before `flushed` was told for its batch;
- batches are flushed and released in the order they were sealed;
- the state may run ahead of the flush; after a failed commit the engine is of no
  more use than to offer the very same batch again.

`take` and `seal` are called by one thread at a time, `flushed` and `release` too; these
may be two. What the two share is a queue that only grows at one end.
"""

from collections import deque
from collections.abc import Mapping, Sequence

import attrs

from alphabet.arrival import Arrival, Decision, End, Received, Refusal
from alphabet.group import gather
from alphabet.intake import Intake, Rejection
from alphabet.outputs import Outputs
from alphabet.pipeline.machine import Capture, Machine
from log.block import Block, Point, Records, Tail
from log.log import Transaction
from log.row import Cursor, Reject

REJECTS_PER_COMMIT_MAX = 100
ALONE_SECONDS_MIN = 1.0
"""How far apart are commits that hold no events, only rejects or cursors."""


@attrs.frozen
class Batch:
    """What one commit stores, and what may leave once it is durable.

    `last_sequence` is the log's last sequence with this batch; `received_at` is when
    the first of its arrivals came, in a monotonic clock's seconds.
    """

    transaction: Transaction
    last_sequence: int
    outputs: tuple[Outputs, ...] = ()
    receipts: tuple[object, ...] = ()
    capture: Capture | None = None
    received_at: float | None = None


@attrs.define
class _OpenBatch:
    """What has been taken since the last seal."""

    blocks: list[Block] = attrs.Factory(list)
    outputs: list[Outputs] = attrs.Factory(list)
    points: list[Point] = attrs.Factory(list)
    receipts: list[object] = attrs.Factory(list)
    has_decision: bool = False
    capture: Capture | None = None


@attrs.define
class Engine:
    """One application's state on its way through the log.

    `tail` is the end of all that was taken, `durable` of all that was flushed.
    `snapshot_sequence` is where the last snapshot was taken.
    """

    machine: Machine
    tail: Tail
    snapshot_every: int
    snapshot_sequence: int = 0
    durable: Tail = attrs.field(init=False)
    _open: _OpenBatch = attrs.field(factory=_OpenBatch, init=False)
    _rejects: list[Reject] = attrs.field(factory=list, init=False)
    _cursors: dict[str, Cursor] = attrs.field(factory=dict, init=False)
    _alone_at: float = attrs.field(default=float("-inf"), init=False)
    _is_capturing: bool = attrs.field(default=False, init=False)
    _in_flight: deque[Batch] = attrs.field(factory=deque, init=False)
    _durable_batches: deque[Batch] = attrs.field(factory=deque, init=False)

    def __attrs_post_init__(self) -> None:
        """Begin with nothing in flight."""
        self.durable = self.tail

    def take(self, arrivals: Sequence[Arrival], time_ns: int) -> list[Rejection]:
        """Decode, number, compute and encode what arrived; say what did not count.

        Events of one connection keep their order; those of one pipeline become one
        block. `time_ns` is the wall clock.
        """
        rejections: list[Rejection] = []
        refusals: list[Rejection] = []
        received: dict[int, list[Received]] = {}
        for arrival in arrivals:
            match arrival:
                case Received():
                    received.setdefault(arrival.pipeline, []).append(arrival)
                    if arrival.receipt is not None:
                        self._open.receipts.append(arrival.receipt)
                case Refusal():
                    refusals.append(Rejection(arrival.connection, arrival.reject))
                case End():
                    self._open.receipts.append(arrival.connection)
                case Decision():
                    self.ride({arrival.name: arrival.cursor})
                    self._open.has_decision = True
                    self._open.receipts.append(arrival.token)
        for pipeline in sorted(received):
            rejections += self._take_in(pipeline, received[pipeline], time_ns)
        # A refusal is its connection's end: what came before it is told before it.
        rejections += refusals
        self._keep([rejection.reject for rejection in rejections])
        return rejections

    def ride(self, cursors: Mapping[str, Cursor]) -> None:
        """Let sinks' cursors ride along with the next commit."""
        self._cursors |= cursors

    def seal(
        self, now: float, *, is_last: bool = False, received_at: float | None = None
    ) -> Batch | None:
        """Close the open batch, or say that nothing is worth a commit yet.

        `now` is a monotonic clock's seconds: rejects and cursors alone wait until
        their last commit alone is a second old, but for a decision's cursor, which
        does not wait, and the last batch of all.
        """
        opened = self._open
        has_riders = bool(self._rejects or self._cursors)
        has_cause = bool(opened.blocks or opened.points or opened.has_decision)
        is_due = has_cause or is_last or now - self._alone_at >= ALONE_SECONDS_MIN
        if not (has_cause or opened.receipts or (has_riders and is_due)):
            return None
        blocks, points = tuple(opened.blocks), tuple(opened.points)
        if is_due:
            rejects = tuple(self._rejects)
            transaction = Transaction(
                blocks, points, cursors=self._cursors, rejects=rejects
            )
            self._cursors, self._rejects = {}, []
            if has_riders and not blocks:
                self._alone_at = now
        else:
            transaction = Transaction(blocks)
        batch = Batch(
            transaction,
            self.tail.sequence,
            tuple(opened.outputs),
            tuple(opened.receipts),
            opened.capture,
            received_at,
        )
        self._open = _OpenBatch()
        self._in_flight.append(batch)
        return batch

    def flushed(self) -> None:
        """Note that the oldest batch in flight is durable."""
        batch = self._in_flight.popleft()
        if batch.transaction.blocks:
            self.durable = batch.transaction.blocks[-1].tail
        self._durable_batches.append(batch)

    def release(self) -> Batch:
        """Give the oldest durable batch away: its outputs and receipts may leave."""
        return self._durable_batches.popleft()

    def capture(self) -> Capture:
        """Give the states after all that was taken, flushed or not."""
        return Capture(self.tail.sequence, self.machine.dump())

    def snapshot_done(self, sequence: int) -> None:
        """Note that the snapshot in the making is done, kept or not."""
        self.snapshot_sequence = sequence
        self._is_capturing = False

    def _keep(self, rejects: Sequence[Reject]) -> None:
        """Keep rejects for the next commit, as many as it takes.

        Where there are too many, failed events stay: nothing else tells of them.
        """
        found = [*self._rejects, *rejects]
        if len(found) > REJECTS_PER_COMMIT_MAX:
            places = sorted(
                range(len(found)), key=lambda each: not found[each].sequence
            )
            found = [found[each] for each in sorted(places[:REJECTS_PER_COMMIT_MAX])]
        self._rejects = found

    def _take_in(
        self, pipeline: int, received: Sequence[Received], time_ns: int
    ) -> list[Rejection]:
        """Make one block of what arrived for one pipeline; give what did not count."""
        # Asked first: `snapshot_done` moves the sequence before it says so.
        is_free = not self._is_capturing
        capture_from = self.snapshot_sequence + self.snapshot_every if is_free else None
        intake = Intake(
            self.machine,
            pipeline,
            self.tail.sequence + 1,
            # The block's own time: a clock that went back is overruled.
            max(time_ns, self.tail.time_ns),
            capture_from,
        )
        for group in gather(received):
            intake.take(group)
        points = [point for arrival in received for point in arrival.points]
        if intake.parts:
            block = Block.seal(
                self.tail,
                Records.join(intake.parts),
                time_ns=time_ns,
                pipeline=pipeline,
                # The last one of each stream is where it is.
                points=tuple({point.stream_id: point for point in points}.values()),
            )
            self.tail = block.tail
            self._open.blocks.append(block)
            self._open.outputs += intake.outputs
        else:
            self._open.points += points
        if intake.capture is not None:
            self._is_capturing = True
            self._open.capture = intake.capture
        return intake.rejections
