"""A sink's place in the log: live or derived, it is given the same bytes, in order."""

import contextlib
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
)

from alphabet.pipeline import machine as machine_module
from alphabet.pipeline.machine import Capture
from alphabet.sink.feed import Feed
from alphabet.sink.subscription import Pace, Subscription
from log.block import Block, Records, Tail
from log.errors import DamagedError
from log.log import Log, Transaction
from log.memory_store import MemoryDisk, MemoryStore
from log.store import BLOCKS, Change
from recovery.errors import GapError, ReplayError
from recovery.replay import Replayer, take_snapshot
from recovery.snapshot_directory import SnapshotDirectory
from tests import toy
from tests.toy import Event, Fold

if TYPE_CHECKING:
    from alphabet.outputs import Outputs

SECONDS_MAX = 20.0
UNHURRIED = Pace(lambda: False, lambda _: None)

shares = st.sampled_from([1.0, 1.0, 0.9, 0.5, 0.0])
few_events = st.lists(toy.events, min_size=1, max_size=5)


@pytest.fixture(autouse=True)
def _do_not_flush(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spare the disk: no power fails here."""
    monkeypatch.setattr("os.fsync", lambda _: None)


class World:
    """A log, the machine that runs ahead of it, and one sink's feed.

    `folded` has what was committed; `unreleased` what the feed was not told of yet.
    """

    def __init__(self, path: Path) -> None:
        self.snapshots = SnapshotDirectory(path / "snapshots")
        self.disk = MemoryDisk()
        self.folded = Fold()
        Log.create(MemoryStore(self.disk), toy.META)
        self.wake = threading.Event()
        self.start()

    def start(self) -> None:
        """Start from what is on the disk, as a process does."""
        self.log = Log.open(MemoryStore(self.disk))
        self.machine = toy.machine()
        self.replayer = Replayer(self.log, self.snapshots)
        self.replayer.recover(self.machine)
        self.unreleased: list[tuple[list[Outputs], int]] = []
        self.feed = Feed(self.log.tail.sequence)
        self.subscription = self.subscribe(UNHURRIED)

    def subscribe(self, pace: Pace) -> Subscription:
        """Make the subscription of a sink that has not begun."""
        return Subscription(self.feed, self.replayer, self.machine.fresh(), pace)

    def commit(self, events: list[Event]) -> None:
        """Commit events in one transaction, a block for each change of pipeline."""
        blocks: list[Block] = []
        outputs: list[Outputs] = []
        tail = self.log.tail
        for pipeline, payloads in stretches(events):
            values = self.machine.decode(pipeline, payloads).values
            computed = self.machine.compute(pipeline, tail.sequence + 1, values)
            outputs.append(computed.outputs)
            blocks.append(
                Block.seal(tail, Records.pack(payloads), time_ns=0, pipeline=pipeline)
            )
            tail = blocks[-1].tail
        self.log.commit(Transaction(tuple(blocks)))
        for event in events:
            self.folded.add(event)
        self.unreleased.append((outputs, tail.sequence))

    def release(self) -> None:
        """Tell the feed of the oldest commit that it was not told of; wake its sink."""
        self.feed.push(*self.unreleased.pop(0))
        self.wake.set()

    def capture(self) -> Capture:
        """Capture the states after all that was committed."""
        return Capture(self.log.tail.sequence, self.machine.dump())

    def snapshot(self) -> None:
        """Keep the states after all that was committed."""
        capture = self.capture()
        snapshot = take_snapshot(
            self.log, self.machine, capture.sequence, capture.states
        )
        self.snapshots.write(snapshot)


def stretches(events: list[Event]) -> list[tuple[int, list[bytes]]]:
    """Cut events where the pipeline changes: (pipeline, payloads)."""
    found: list[tuple[int, list[bytes]]] = []
    for pipeline, payload in events:
        if not found or found[-1][0] != pipeline:
            found.append((pipeline, []))
        found[-1][1].append(payload)
    return found


class SubscriptionMachine(RuleBasedStateMachine):
    """A sink that is fast and slow, away and back, while commits go on and crash.

    `given` is the last event that the sink was given the output of.
    """

    def __init__(self) -> None:
        super().__init__()
        self.resources = contextlib.ExitStack()
        path = self.resources.enter_context(tempfile.TemporaryDirectory())
        self.world = World(Path(path))
        self.given = 0
        self.world.subscription.begin(0)

    def teardown(self) -> None:
        """Let everything go."""
        self.resources.close()

    @rule(events=few_events, is_released=st.booleans())
    def commit(self, events: list[Event], *, is_released: bool) -> None:
        """Make events durable, of which the sink is told at once or later."""
        self.world.commit(events)
        while is_released and self.world.unreleased:
            self.world.release()

    @precondition(lambda self: self.world.unreleased)
    @rule()
    def release(self) -> None:
        """Tell the sink of durable events."""
        self.world.release()

    @rule(count=st.integers(1, 4))
    def take(self, count: int) -> None:
        """Take what comes next."""
        for _ in range(count):
            self.take_next()

    @rule()
    def take_all(self) -> None:
        """Take all there is: that is all that was released, at least."""
        while self.take_next():
            pass
        assert self.given >= self.world.feed.released
        if not self.world.unreleased:
            assert self.world.subscription.is_at_end

    def take_next(self) -> bool:
        """Take what comes next: it follows what came before, and is the fold's."""
        outputs = self.world.subscription.next()
        if outputs is None:
            return False
        before, self.given = self.given, outputs.last_sequence
        expected = self.world.folded.outputs[before : self.given]
        assert outputs == toy.outputs(before + 1, expected)
        return True

    @rule()
    def let_go(self) -> None:
        """Let the sink go, as the engine does with one that is slow."""
        self.world.feed.let_go(self.world.capture())

    @rule(share=shares, is_crash=st.booleans())
    def begin_again(self, share: float, *, is_crash: bool) -> None:
        """Begin at any place that the sink has passed; after a crash, with the disk."""
        if is_crash:
            self.world.start()
        self.given = int(self.given * share)
        self.world.subscription.begin(self.given)

    @rule()
    def snapshot(self) -> None:
        """Keep a snapshot, so that later beginnings are nearer."""
        self.world.snapshot()

    @invariant()
    def nothing_is_given_early(self) -> None:
        """The sink has nothing that is not durable."""
        assert self.given <= self.world.log.tail.sequence


TestSubscriptionMachine = SubscriptionMachine.TestCase


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Give a log with six events in three commits, all released."""
    world = World(tmp_path)
    for pipeline in (0, 1, 0):
        world.commit([(pipeline, b"m1"), (pipeline, b"p2")])
        world.release()
    return world


def take_all(subscription: Subscription) -> bytes:
    """Take all there is."""
    pieces = []
    while (outputs := subscription.next()) is not None:
        pieces.append(outputs.data)
    return b"".join(pieces)


class TestBegin:
    """Where the outputs come from."""

    def test_from_the_newest_snapshot_at_or_below(self, world: World) -> None:
        """What lies before the newest snapshot below the cursor is not read again."""
        world.snapshot()
        world.commit([(0, b"m7"), (0, b"p8")])
        world.release()
        damage(world, 1)
        world.subscription.begin(7)
        assert take_all(world.subscription) == world.folded.data(7, 8)

    def test_in_the_middle_of_a_block(self, world: World) -> None:
        """A sink may begin behind any event, not only behind a block's last."""
        for after in range(7):
            world.subscription.begin(after)
            assert take_all(world.subscription) == world.folded.data(after, 6)

    def test_again_at_any_time(self, world: World) -> None:
        """A sink that begins again, while it derives, is given all from there."""
        world.subscription.begin(0)
        assert world.subscription.next() is not None
        world.subscription.begin(1)
        assert take_all(world.subscription) == world.folded.data(1, 6)

    def test_it_is_at_the_end_when_nothing_is_left(self, world: World) -> None:
        """The end is where nothing is derived and the window is empty."""
        subscription = world.subscription
        subscription.begin(5)
        assert not subscription.is_at_end
        take_all(subscription)
        assert subscription.is_at_end
        world.commit([(0, b"p")])
        world.release()
        assert not subscription.is_at_end


def damage(world: World, sequence: int) -> None:
    """Break the block that begins at a sequence."""
    key = sequence.to_bytes(8)
    block = world.log.store.get(BLOCKS, key)
    assert block is not None
    broken = block[:-5] + bytes([block[-5] ^ 1]) + block[-4:]
    world.log.store.commit([Change(BLOCKS, key, broken)], 0)


class TestDamage:
    """A log that cannot give what the sink needs."""

    def test_a_damaged_block_is_named(self, world: World) -> None:
        """What comes before a damaged block is given; then its place is named."""
        damage(world, 3)
        world.subscription.begin(0)
        outputs = world.subscription.next()
        assert outputs is not None
        assert outputs.last_sequence == 2
        with pytest.raises(DamagedError) as caught:
            world.subscription.next()
        assert caught.value.sequence == 3

    def test_a_released_event_that_is_not_there_is_damage(self, world: World) -> None:
        """A log that ends before what was released is damaged, not waited for."""
        world.subscription.begin(0)
        world.feed.push([], 9)
        with pytest.raises(DamagedError) as caught:
            take_all(world.subscription)
        assert caught.value.sequence == 7

    def test_an_event_that_no_longer_decodes_is_named(self, world: World) -> None:
        """A record that the decoder does not take any more stops the sink."""
        block = Block.seal(world.log.tail, Records.pack([b"p", b"r"]), time_ns=0)
        world.log.commit(Transaction((block,)))
        world.feed.push([], 8)
        world.subscription.begin(6)
        with pytest.raises(ReplayError) as caught:
            take_all(world.subscription)
        assert caught.value.sequence == 8


class TestGap:
    """Lost events that salvage left a gap for."""

    @pytest.fixture
    def world(self, tmp_path: Path) -> World:
        """Give a log that begins with an event, lost ones, and an event."""
        path = tmp_path / "snapshots"
        store = MemoryStore()
        log = Log.create(store, toy.META)
        first = Block.seal(Tail(0, 0), Records.pack([b"p1"]), time_ns=0)
        gap = Block.seal(first.tail, Records.gap(3), time_ns=0)
        last = Block.seal(gap.tail, Records.pack([b"p5"]), time_ns=0)
        log.commit(Transaction((first, gap, last)))
        world = World(tmp_path)
        world.log = log
        world.replayer = Replayer(log, SnapshotDirectory(path))
        world.feed = Feed(5)
        world.folded = toy.fold((0, b"p1"), (0, b"p5"))
        return world

    def test_it_is_not_passed_over(self, world: World) -> None:
        """A gap that nobody agreed to stops the sink, and is named."""
        subscription = world.subscribe(UNHURRIED)
        subscription.begin(0)
        with pytest.raises(GapError) as caught:
            take_all(subscription)
        assert (caught.value.first, caught.value.last) == (2, 4)

    @pytest.mark.parametrize("after", range(6))
    def test_it_is_passed_over_by_consent(self, world: World, after: int) -> None:
        """With consent a gap has no outputs, and those behind it keep their places."""
        world.replayer = attrs.evolve(world.replayer, are_gaps_accepted=True)
        subscription = world.subscribe(UNHURRIED)
        subscription.begin(after)
        found: list[Outputs] = []
        while (outputs := subscription.next()) is not None:
            found.append(outputs)
        data = b"".join(outputs.data for outputs in found)
        assert data == b"".join(world.folded.outputs[int(after > 0) + int(after > 4) :])
        assert [outputs.last_sequence for outputs in found][-1:] in ([], [5])


class TestPace:
    """A sink that derives leaves the machine to those who count."""

    @pytest.mark.parametrize(("is_busy", "rests"), [(True, [6.0]), (False, [])])
    def test_it_rests_three_times_as_long_as_it_worked(
        self, rests: list[float], *, is_busy: bool
    ) -> None:
        """While votes wait a sink works a quarter of the time, else all the time."""
        rested: list[float] = []
        Pace(lambda: is_busy, rested.append).rest(2.0)
        assert rested == rests

    def test_it_rests_in_a_replay_too(self) -> None:
        """On the way to its cursor a sink rests after each stretch of work."""
        rested: list[float] = []
        times = iter([0.0, 2.0, 8.0, 9.0, 12.0])
        pace = Pace(lambda: True, rested.append, lambda: next(times))
        progress = pace.between()
        progress(5)
        progress(9)
        assert rested == [6.0, 3.0]

    def test_it_rests_after_each_block(self, world: World) -> None:
        """A sink that derives rests once for each block."""
        rested: list[float] = []
        times = iter(range(100))
        pace = Pace(lambda: True, rested.append, lambda: float(next(times)))
        subscription = world.subscribe(pace)
        subscription.begin(0)
        take_all(subscription)
        assert rested == [3.0, 3.0, 3.0]

    @pytest.mark.parametrize(
        ("slice_events", "rests"), [(1, [3.0] * 6), (100, [6.0] * 3)]
    )
    def test_it_rests_for_all_that_it_derived(
        self,
        world: World,
        monkeypatch: pytest.MonkeyPatch,
        slice_events: int,
        rests: list[float],
    ) -> None:
        """It rests for the work of deriving, and not for that of the receiver.

        So it does after each part of a block that is derived at once.
        """
        monkeypatch.setattr(machine_module, "SLICE_EVENTS_MAX", slice_events)
        rested: list[float] = []
        machine = world.machine.fresh()
        # Time passes when an event is computed, and while the receiver takes it.
        idle = iter(range(0, 10**6, 1000))
        seconds = [0.0]

        def clock() -> float:
            return float(machine.state("shared").count) + seconds[0]

        pace = Pace(lambda: True, rested.append, clock)
        subscription = Subscription(world.feed, world.replayer, machine, pace)
        subscription.begin(0)
        while subscription.next() is not None:
            seconds[0] = next(idle)
        assert rested == rests


@attrs.define(eq=False)
class Sink:
    """A sink in a thread of its own, which may be slow and is let go then."""

    world: World
    until: int
    received: list[bytes] = attrs.Factory(list)
    failures: list[BaseException] = attrs.Factory(list)

    def run(self) -> None:
        """Take all outputs up to an event."""
        try:
            self._run()
        except BaseException as error:  # noqa: BLE001 - the test raises it
            self.failures.append(error)

    def _run(self) -> None:
        given = 0
        self.world.subscription.begin(0)
        while given < self.until:
            outputs = self.world.subscription.next()
            if outputs is None:
                assert self.world.wake.wait(SECONDS_MAX), "nobody woke the sink"
                self.world.wake.clear()
                continue
            assert outputs.first_sequence == given + 1
            given = outputs.last_sequence
            self.received.append(bytes(outputs.data))


class TestThreads:
    """A sink's thread beside the one that commits."""

    @pytest.mark.parametrize("window_bytes_max", [60, 1 << 20])
    def test_no_output_and_no_wake_is_lost(
        self, tmp_path: Path, window_bytes_max: int
    ) -> None:
        """Whoever is faster, the sink gets every output once, and never sleeps on."""
        world = World(tmp_path)
        world.feed.window_bytes_max = window_bytes_max
        world.feed.clock = iter(float, 1.0)  # type: ignore[assignment]
        commits = 150
        sink = Sink(world, 2 * commits)
        thread = threading.Thread(target=sink.run)
        thread.start()
        for number in range(commits):
            if number % 3 == 0:
                world.feed.let_go(world.capture())
            world.commit([(number % 2, b"m%d" % number), (0, b"p%d" % number)])
            world.release()
        thread.join(SECONDS_MAX)
        assert not thread.is_alive()
        assert sink.failures == []
        assert b"".join(sink.received) == world.folded.data(0, 2 * commits)
