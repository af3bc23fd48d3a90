"""The steps of engine, log and sink: no threads, no sockets, any may be the last.

The real engine, log, recovery, feed, subscription and delivery, on a disk in memory.
Each step checks what it may. The promises, after every crash:

- the sandwich: what was acknowledged is recovered, what is recovered was submitted,
  in order;
- what was released, to a sink or for a receipt, was durable, and is the fold's;
- rejects and cursors are stored with their own batch, or not at all.
"""

import operator
from collections import deque
from collections.abc import Sequence
from pathlib import Path

import attrs

from alphabet.arrival import Arrival, End, Received, Refusal
from alphabet.engine import REJECTS_PER_COMMIT_MAX, Batch, Engine
from alphabet.outputs import Outputs
from alphabet.pipeline.machine import Capture, Machine
from alphabet.sink.delivery import Delivery
from alphabet.sink.feed import Feed
from alphabet.sink.subscription import Pace, Subscription
from log import failpoint
from log.errors import CommitError, DiskFullError
from log.log import Log
from log.memory_store import MemoryDisk, MemoryStore
from log.row import Cursor, Reject
from recovery.replay import Replayer, take_snapshot
from recovery.snapshot_directory import SnapshotDirectory
from tests import toy
from tests.faults import Fault, FaultyStore
from tests.generated import Folding, Plan
from tests.toy import Event

SINK = "out"
IN_FLIGHT_MAX = 2


class Crash(BaseException):
    """The process ends here."""


@attrs.define
class Flight:
    """A sealed batch on its way, and what must be true of it once it is durable."""

    batch: Batch
    rejects: list[Reject]
    receipts: list[object]
    cursor: Cursor | None


@attrs.define
class Life:
    """What one process knows, and loses when it ends."""

    store: FaultyStore
    log: Log
    machine: Machine
    replayer: Replayer
    engine: Engine
    feed: Feed
    subscription: Subscription
    delivery: Delivery
    sealed: deque[Flight] = attrs.Factory(deque)
    flushed: deque[Flight] = attrs.Factory(deque)
    captures: deque[Capture] = attrs.Factory(deque)
    is_stored: bool = False
    is_open_empty: bool = True
    rejects: list[Reject] = attrs.Factory(list)
    receipts: list[tuple[object, int]] = attrs.Factory(list)
    ridden: Cursor | None = None
    given: int = 0


class Simulation:
    """One data directory, and the processes that serve it one after the other.

    `folded` has the events that the process of now has taken, which begin with those
    it recovered; `acknowledged` is how many of them were released. `rejects` are
    those that the log must have, `cursor` the one.
    """

    def __init__(
        self,
        path: Path,
        snapshot_every: int,
        plan: Plan | None = None,
        sink_pipelines: frozenset[int] | None = None,
    ) -> None:
        self.plan = plan
        self.sink_pipelines = sink_pipelines
        self.snapshots = SnapshotDirectory(path / "snapshots")
        self.snapshot_every = snapshot_every
        self.disk = MemoryDisk()
        self.folded: Folding = self.fold()
        self.acknowledged = 0
        self.rejects: list[Reject] = []
        self.cursor = Cursor(0, 0)
        self.now = 0.0
        Log.create(MemoryStore(self.disk), toy.META if plan is None else plan.meta)
        self.life = self.start()

    def fold(self, *events: Event) -> Folding:
        """Say what must come of events."""
        return toy.fold(*events) if self.plan is None else self.plan.fold(*events)

    def start(self) -> Life:
        """Start a process: recover, and check what was recovered."""
        store = FaultyStore(MemoryStore(self.disk))
        log = Log.open(store)
        machine = toy.machine() if self.plan is None else self.plan.machine()
        replayer = Replayer(log, self.snapshots)
        recovered = replayer.recover(machine)
        self.check_sandwich(log)
        assert toy.state_bytes(machine) == self.folded.states_at(log.tail.sequence)
        start = recovered.start
        engine = Engine(machine, log.tail, self.snapshot_every, start)
        feed = Feed(
            log.tail.sequence, window_bytes_max=200, pipelines=self.sink_pipelines
        )
        pace = Pace(lambda: False, lambda _: None)
        subscription = Subscription(feed, replayer, machine.fresh(), pace)
        cursor = log.cursors().get(SINK, Cursor(0, 0))
        assert cursor == self.cursor
        assert [reject for _, reject in log.rejects()] == self.rejects
        delivery = Delivery(cursor)
        subscription.begin(cursor.sequence)
        return Life(
            store,
            log,
            machine,
            replayer,
            engine,
            feed,
            subscription,
            delivery,
            given=cursor.sequence,
        )

    def check_sandwich(self, log: Log) -> None:
        """Check what is in the log; from now on it is what was submitted."""
        found: list[Event] = [
            (block.pipeline, record)
            for block in log.read(0)
            for record in block.records
        ]
        assert self.acknowledged <= len(found) == log.tail.sequence
        assert found == self.folded.events[: len(found)]
        self.folded = self.fold(*found)

    def crash(self) -> None:
        """End the process, between two steps, and start another."""
        self.life = self.start()

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds

    def take(self, arrivals: Sequence[Arrival]) -> None:
        """Take what arrived: all that decodes is submitted, pipeline by pipeline."""
        life = self.life
        life.is_open_empty = False
        rejections = life.engine.take(arrivals, time_ns=int(self.now))
        expected: list[tuple[str, int]] = []
        for pipeline, payload in frames_by_pipeline(arrivals):
            if payload.startswith(toy.REFUSED):
                expected.append(("decode", 0))
                continue
            self.folded.add((pipeline, payload))
            sequence = len(self.folded.events)
            if sequence in self.folded.failures:
                expected.append((self.folded.failures[sequence], sequence))
        count = len(self.folded.events)
        expected += [
            (each.reject.reason, 0) for each in arrivals if isinstance(each, Refusal)
        ]
        found = [(each.reject.reason, each.reject.sequence) for each in rejections]
        assert found == expected
        life.rejects += [each.reject for each in rejections]
        life.receipts += [
            (each.connection, count) for each in arrivals if isinstance(each, End)
        ]
        assert life.engine.tail.sequence == count
        assert toy.state_bytes(life.machine) == self.folded.states_at(count)

    @property
    def may_seal(self) -> bool:
        """Say whether one more batch may be in flight."""
        return len(self.life.sealed) < IN_FLIGHT_MAX

    def seal(self) -> None:
        """Seal what was taken: events and receipts at once, riders as they may."""
        life = self.life
        batch = life.engine.seal(self.now)
        life.is_open_empty = True
        has_events = life.engine.tail.sequence > self.sealed_sequence
        if batch is None:
            assert not has_events
            assert not life.receipts
            return
        transaction = batch.transaction
        rejects = life.rejects[:REJECTS_PER_COMMIT_MAX]
        may_ride = bool(transaction.rejects or transaction.cursors or has_events)
        if may_ride:
            life.rejects = []
        assert transaction.rejects == tuple(rejects if may_ride else ())
        cursor, life.ridden = (life.ridden, None) if may_ride else (None, life.ridden)
        assert transaction.cursors == ({} if cursor is None else {SINK: cursor})
        assert batch.receipts == tuple(token for token, _ in life.receipts)
        assert all(count <= batch.last_sequence for _, count in life.receipts)
        life.receipts = []
        flight = Flight(batch, list(transaction.rejects), list(batch.receipts), cursor)
        life.sealed.append(flight)

    @property
    def sealed_sequence(self) -> int:
        """The last sequence that was sealed, or recovered."""
        flights = [*self.life.flushed, *self.life.sealed]
        last = [flight.batch.last_sequence for flight in flights]
        return max(last, default=self.life.feed.released)

    @property
    def may_commit(self) -> bool:
        """Say whether a batch waits to be stored."""
        return bool(self.life.sealed) and not self.life.is_stored

    def commit(self, fault: Fault | None = None) -> None:
        """Store the oldest sealed batch, or fail; a full disk is met by trying again.

        Any other failure ends the process.
        """
        life = self.life
        flight = life.sealed[0]
        life.store.faults = [] if fault is None else [fault]
        try:
            life.log.commit(flight.batch.transaction)
        except DiskFullError:
            assert not life.log.holds(flight.batch.transaction)
        except CommitError:
            if fault is Fault.KEPT:
                self.keep(flight)
            self.crash()
        else:
            self.keep(flight)
            life.is_stored = True

    def keep(self, flight: Flight) -> None:
        """Note what the log has from now on."""
        self.rejects += flight.rejects
        self.cursor = flight.cursor or self.cursor

    @property
    def may_flush(self) -> bool:
        """Say whether the engine was not told yet of what is stored."""
        return self.life.is_stored

    def flush(self) -> None:
        """Tell the engine that the oldest batch is durable."""
        life = self.life
        life.engine.flushed()
        life.flushed.append(life.sealed.popleft())
        life.is_stored = False
        assert life.engine.durable == life.log.tail

    @property
    def may_release(self) -> bool:
        """Say whether something durable was not released yet."""
        return bool(self.life.flushed)

    def release(self) -> None:
        """Release the oldest durable batch: it is acknowledged by that."""
        life = self.life
        batch = life.engine.release()
        assert batch is life.flushed.popleft().batch
        assert batch.last_sequence <= Log.open(MemoryStore(self.disk)).tail.sequence
        before = life.feed.released
        for outputs in batch.outputs:
            assert outputs == self.expected(before, outputs.last_sequence)
            before = outputs.last_sequence
        assert before == batch.last_sequence
        self.acknowledged = max(self.acknowledged, before)
        life.feed.push(batch.outputs, batch.last_sequence)
        if batch.capture is not None:
            self.check_capture(batch.capture)
            life.captures.append(batch.capture)

    def expected(self, after: int, until: int) -> Outputs:
        """Give what the fold says of events `after` (exclusive) to `until`."""
        return toy.outputs(after + 1, self.folded.outputs[after:until])

    def expected_of_sink(self, after: int, until: int) -> Outputs:
        """Give what the sink must have of these events: its pipelines' outputs."""
        pieces = [
            output
            if self.sink_pipelines is None or pipeline in self.sink_pipelines
            else b""
            for (pipeline, _), output in zip(
                self.folded.events[after:until],
                self.folded.outputs[after:until],
                strict=True,
            )
        ]
        return toy.outputs(after + 1, pieces)

    def check_capture(self, capture: Capture) -> None:
        """Check that a capture is at a mark, due, durable, and the fold's."""
        sequence = capture.sequence
        assert self.folded.marks[sequence - 1]
        assert sequence >= self.life.engine.snapshot_sequence + self.snapshot_every
        assert sequence <= self.acknowledged
        assert not self.life.captures
        states = {state.name: state.data for state in capture.states}
        assert states == self.folded.states_at(sequence)

    @property
    def may_snapshot(self) -> bool:
        """Say whether a capture waits to be written."""
        return bool(self.life.captures)

    def snapshot(self, crash_at: str | None = None) -> None:
        """Write the capture, or end the process at a named instant in between."""
        life = self.life
        capture = life.captures.popleft()

        def reach(name: str) -> None:
            if name == crash_at:
                raise Crash

        before, failpoint.handler = failpoint.handler, reach
        try:
            self.snapshots.write(
                take_snapshot(life.log, life.machine, capture.sequence, capture.states)
            )
            self.snapshots.prune(life.delivery.floor)
        except Crash:
            self.crash()
        else:
            life.engine.snapshot_done(capture.sequence)
        finally:
            failpoint.handler = before

    def serve_sink(self) -> bool:
        """Give the sink its next outputs, live or derived; say whether it had any."""
        life = self.life
        outputs = life.subscription.next()
        if outputs is None:
            return False
        assert outputs == self.expected_of_sink(life.given, outputs.last_sequence)
        assert outputs.last_sequence <= life.log.tail.sequence
        life.given = outputs.last_sequence
        life.delivery.push(outputs)
        life.delivery.sent(len(outputs.data))
        return True

    def acknowledge_sink(self, outstanding: int) -> None:
        """Let the peer's TCP acknowledge; the cursor rides with the next commit."""
        life = self.life
        life.delivery.acknowledged(outstanding)
        self.ride()

    def ride(self) -> None:
        """Let the cursor ride, and check that it stands between two events."""
        life = self.life
        cursor = life.delivery.cursor
        expected = self.expected_of_sink(0, cursor.sequence)
        assert cursor.offset == len(expected.data)
        assert cursor.sequence <= life.given
        life.engine.ride({SINK: cursor})
        life.ridden = cursor

    def reset_sink(self) -> None:
        """Reset the sink's connection, and begin another."""
        life = self.life
        life.delivery.rewind()
        life.delivery.open()
        life.given = life.delivery.cursor.sequence
        life.subscription.begin(life.given)
        self.ride()

    def let_go_sink(self) -> None:
        """Let the sink go, as a server does with one that is slow, before it takes."""
        if self.life.is_open_empty:
            self.life.feed.let_go(self.life.engine.capture())

    def finish(self) -> None:
        """Store and release all, give the sink all of it, and start again."""
        for _ in range(IN_FLIGHT_MAX + 2):
            self.wait(1.0)
            if self.may_seal:
                self.seal()
            if self.may_commit:
                self.commit()
            if self.may_flush:
                self.flush()
            if self.may_release:
                self.release()
        assert self.life.feed.released == len(self.folded.events)
        for _ in range(len(self.folded.events) + 2):
            self.serve_sink()
        assert self.life.given == self.life.feed.released
        self.crash()


def frames_by_pipeline(arrivals: Sequence[Arrival]) -> list[Event]:
    """Give all payloads that arrived, pipeline by pipeline, in the order they came."""
    found = [
        (arrival.pipeline, payload)
        for arrival in arrivals
        if isinstance(arrival, Received)
        for payload in arrival.frames.payloads
    ]
    return sorted(found, key=operator.itemgetter(0))
