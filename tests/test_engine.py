"""The engine's steps: take, seal, flushed, release; what each gives, and when."""

from collections.abc import Iterable

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphabet.arrival import Arrival, Decision, End, Received, Refusal
from alphabet.engine import (
    ALONE_SECONDS_MIN,
    REJECTS_PER_COMMIT_MAX,
    Batch,
    Engine,
)
from alphabet.intake import Rejection
from log.block import Point, Tail
from log.row import REJECT_PAYLOAD_BYTES_MAX, Cursor, Reject
from tests import toy
from tests.samples import REJECT
from tests.toy import received

NEVER = 1 << 60


def engine_at(
    tail: Tail = Tail(0, 0),  # noqa: B008 - it is frozen
    *,
    snapshot_every: int = NEVER,
    snapshot_sequence: int = 0,
) -> Engine:
    """Give an engine at the end of a log."""
    return Engine(toy.machine(), tail, snapshot_every, snapshot_sequence)


def take(engine: Engine, *arrivals: Arrival) -> list[Rejection]:
    """Take arrivals."""
    return engine.take(arrivals, time_ns=0)


def sealed(engine: Engine, now: float = 0.0) -> Batch:
    """Seal a batch that there must be."""
    batch = engine.seal(now)
    assert batch is not None
    return batch


def records(batch: Batch) -> list[list[bytes]]:
    """Give a batch's records, block by block."""
    return [list(block.records) for block in batch.transaction.blocks]


def through(engine: Engine, now: float = 0.0) -> Batch:
    """Bring what was taken all the way."""
    sealed(engine, now)
    engine.flushed()
    return engine.release()


def garbage(count: int) -> Received:
    """Make an arrival of frames that do not decode."""
    return received(*[toy.REFUSED] * count, connection="c")


class TestTake:
    """Arrivals become events."""

    def test_events_are_numbered_behind_the_tail(self) -> None:
        """The first event follows the log's last, the next ones follow it."""
        engine = engine_at(Tail(41, 7, 5))
        take(engine, received(b"p1", b"p2"))
        take(engine, received(b"p3"))
        first, second = sealed(engine).transaction.blocks
        assert (first.first_sequence, first.last_sequence) == (42, 43)
        assert first.previous_checksum == 7
        assert (second.first_sequence, second.last_sequence) == (44, 44)
        assert second.previous_checksum == first.checksum
        assert engine.tail == second.tail

    def test_one_take_makes_one_block_of_a_pipeline(self) -> None:
        """All that arrived for a pipeline is one block, in the order it came."""
        engine = engine_at()
        arrivals = [
            received(b"p1", pipeline=1, connection="a"),
            received(b"p2", connection="b"),
            received(b"p3", pipeline=1, connection="b"),
            received(b"p4", connection="a"),
        ]
        take(engine, *arrivals)
        batch = sealed(engine)
        assert [block.pipeline for block in batch.transaction.blocks] == [0, 1]
        assert records(batch) == [[b"p2", b"p4"], [b"p1", b"p3"]]
        folded = toy.fold((0, b"p2"), (0, b"p4"), (1, b"p1"), (1, b"p3"))
        assert batch.outputs == (
            toy.outputs(1, folded.outputs[:2]),
            toy.outputs(3, folded.outputs[2:]),
        )
        assert batch.last_sequence == 4

    def test_time_does_not_go_back(self) -> None:
        """A block has the wall clock's time, or the one before it if that is later."""
        engine = engine_at(Tail(0, 0, 100))
        for clock in (50, 150, 120):
            engine.take([received(b"p")], time_ns=clock)
        times = [block.time_ns for block in sealed(engine).transaction.blocks]
        assert times == [100, 150, 150]

    def test_what_does_not_decode_has_no_sequence(self) -> None:
        """A refused payload is left out, and the good ones around it are numbered."""
        engine = engine_at()
        rejections = take(engine, received(b"p1", b"r2", b"p3", connection="c"))
        assert records(sealed(engine)) == [[b"p1", b"p3"]]
        [rejection] = rejections
        assert rejection.connection == "c"
        assert rejection.reject == Reject(
            time_ns=0,
            reason="decode",
            cause="ValueError: it wished to be refused",
            peer="peer",
            position=3,
            sequence=0,
            payload_bytes=2,
            payload=b"r2",
        )

    @given(st.lists(toy.inputs), st.integers(0, 1000), st.integers(1, 9))
    def test_a_reject_names_its_place(
        self, payloads: list[bytes], position: int, header_bytes: int
    ) -> None:
        """A refused frame's place is its first byte's, in what its peer has sent."""
        arrival = received(*payloads, position=position, header_bytes=header_bytes)
        rejections = take(engine_at(), arrival)
        sizes = [header_bytes + len(payload) for payload in payloads]
        assert [
            each.reject.position for each in rejections if not each.reject.sequence
        ] == [
            position + sum(sizes[:index])
            for index, payload in enumerate(payloads)
            if payload.startswith(toy.REFUSED)
        ]

    def test_a_large_payload_is_not_kept_whole(self) -> None:
        """A reject keeps a payload's beginning, and its length."""
        payload = toy.REFUSED + bytes(999)
        [rejection] = take(engine_at(), received(payload))
        assert rejection.reject.payload == payload[:REJECT_PAYLOAD_BYTES_MAX]
        assert rejection.reject.payload_bytes == 1000

    def test_a_failed_event_keeps_its_sequence(self) -> None:
        """An event that fails is in the log, has no output, and is listed."""
        engine = engine_at(Tail(10, 0, 77))
        rejections = take(engine, received(b"p1", b"f2", connection="c"))
        batch = sealed(engine)
        assert records(batch) == [[b"p1", b"f2"]]
        [outputs] = batch.outputs
        assert list(outputs.ends) == [len(outputs.data)] * 2
        [rejection] = rejections
        assert rejection.connection is None
        assert rejection.reject == Reject(
            time_ns=77,
            reason="compute",
            cause="append: ValueError: it wished to fail",
            peer="",
            position=None,
            sequence=12,
            payload_bytes=2,
            payload=b"f2",
        )
        assert batch.transaction.rejects == (rejection.reject,)

    def test_what_a_source_refused_is_passed_on(self) -> None:
        """A refusal is a reject of its connection."""
        engine = engine_at()
        assert take(engine, Refusal("c", REJECT)) == [Rejection("c", REJECT)]
        assert sealed(engine).transaction.rejects == (REJECT,)

    @pytest.mark.parametrize("arrivals", [[], [received()], [garbage(3)]])
    def test_no_event_is_no_block(self, arrivals: Iterable[Arrival]) -> None:
        """What has no event in it makes no block, and moves no sequence."""
        engine = engine_at(Tail(3, 4))
        take(engine, *arrivals)
        batch = engine.seal(0)
        assert batch is None or not batch.transaction.blocks
        assert engine.tail == Tail(3, 4)


class TestFlight:
    """Batches on their way."""

    def test_nothing_taken_is_nothing_sealed(self) -> None:
        """Without anything to store or to tell there is no batch."""
        assert engine_at().seal(0) is None
        assert engine_at().seal(0, is_last=True) is None

    def test_nothing_is_released_before_it_is_durable(self) -> None:
        """A batch cannot be had until its flush was told."""
        engine = engine_at()
        take(engine, received(b"p"), End("c"))
        batch = sealed(engine)
        assert engine.durable == Tail(0, 0)
        with pytest.raises(IndexError):
            engine.release()
        engine.flushed()
        assert engine.durable == engine.tail
        assert engine.release() is batch
        with pytest.raises(IndexError):
            engine.release()

    def test_batches_keep_their_order(self) -> None:
        """While one is flushed others are taken and sealed; each has its turn."""
        engine = engine_at()
        batches = []
        for number in range(3):
            take(engine, received(b"p%d" % number))
            batches.append(sealed(engine))
        engine.flushed()
        assert engine.durable.sequence == 1
        engine.flushed()
        assert [engine.release(), engine.release()] == batches[:2]
        with pytest.raises(IndexError):
            engine.release()
        engine.flushed()
        assert engine.release() is batches[2]

    def test_a_flush_of_nothing_new_moves_nothing(self) -> None:
        """A batch without events leaves the durable tail where it is."""
        engine = engine_at(Tail(5, 6))
        take(engine, End("c"))
        through(engine)
        assert engine.durable == Tail(5, 6)


class TestReceipts:
    """Senders that wait until all they sent is durable."""

    def test_they_come_in_order_with_their_events(self) -> None:
        """A receipt comes with its sender's last event, in the order of the ends."""
        engine = engine_at()
        take(engine, received(b"p", connection="a"), End("a"))
        take(engine, End("b"), received(b"p", connection="c"), End("c"))
        batch = sealed(engine)
        assert batch.receipts == ("a", "b", "c")
        assert batch.last_sequence == 2

    def test_alone_they_need_no_commit(self) -> None:
        """A receipt alone stores nothing, and waits behind what is in flight."""
        engine = engine_at()
        take(engine, received(b"p", connection="a"))
        events = sealed(engine)
        take(engine, End("a"))
        receipt = sealed(engine)
        assert not receipt.transaction
        assert receipt.receipts == ("a",)
        engine.flushed()
        assert engine.release() is events
        with pytest.raises(IndexError):
            engine.release()


class TestPoints:
    """Points of reference, stored with the events that they speak of."""

    def test_in_the_block_of_their_events(self) -> None:
        """A block has the last point of each stream that its arrivals brought on."""
        engine = engine_at()
        first = attrs.evolve(
            received(toy.PLAIN), points=(Point(1, 5, b"a"), Point(2, 1, b"b"))
        )
        second = attrs.evolve(received(toy.PLAIN), points=(Point(1, 9, b"a"),))
        take(engine, first, second)
        (block,) = sealed(engine).transaction.blocks
        assert block.points == (Point(1, 9, b"a"), Point(2, 1, b"b"))

    def test_with_nothing_but_rejects(self) -> None:
        """Where no message decodes, the point goes on and the rejects go with it."""
        engine = engine_at()
        take(engine, attrs.evolve(garbage(2), points=(Point(1, 5, b"a"),)))
        transaction = sealed(engine).transaction
        assert (transaction.blocks, transaction.points) == ((), (Point(1, 5, b"a"),))
        assert len(transaction.rejects) == 2

    def test_a_receipt_comes_with_them(self) -> None:
        """What an arrival brought as its receipt is handed back once it is durable."""
        engine = engine_at()
        take(engine, attrs.evolve(received(toy.PLAIN), receipt="r"))
        assert through(engine).receipts == ("r",)


class TestDecisions:
    """A two-phase sink's row."""

    def test_at_once(self) -> None:
        """A decision's cursor does not wait for the second that others wait."""
        engine = engine_at()
        engine.ride({"out": Cursor(0, 0)})
        sealed(engine)
        cursor = Cursor(0, 13, b"t")
        take(engine, Decision("token", "two", cursor))
        batch = sealed(engine)
        assert batch.transaction.cursors == {"two": cursor}
        assert batch.receipts == ("token",)


class TestRejects:
    """How many rejects a commit stores."""

    def test_at_most_a_hundred(self) -> None:
        """A commit stores the first hundred; all are told, to be counted."""
        engine = engine_at()
        assert len(take(engine, garbage(60))) == 60
        assert len(take(engine, garbage(60), received(b"p"))) == 60
        assert len(take(engine, garbage(60))) == 60
        stored = sealed(engine).transaction.rejects
        assert len(stored) == REJECTS_PER_COMMIT_MAX == 100
        take(engine, garbage(1), received(b"p"))
        assert len(sealed(engine).transaction.rejects) == 1

    def test_alone_once_a_second(self) -> None:
        """Rejects alone are stored once a second; until then they are kept."""
        engine = engine_at()
        take(engine, garbage(1))
        assert len(sealed(engine, 50.0).transaction.rejects) == 1
        take(engine, garbage(1))
        assert engine.seal(50.0 + 0.99 * ALONE_SECONDS_MIN) is None
        take(engine, garbage(1))
        batch = sealed(engine, 50.0 + ALONE_SECONDS_MIN)
        assert len(batch.transaction.rejects) == 2
        assert not batch.transaction.blocks

    def test_with_events_at_once(self) -> None:
        """Rejects ride with events whenever these are stored."""
        engine = engine_at()
        take(engine, garbage(1))
        sealed(engine, 50.0)
        take(engine, garbage(1), received(b"p"))
        assert len(sealed(engine, 50.0).transaction.rejects) == 1

    def test_not_with_a_receipt(self) -> None:
        """A receipt alone is no reason to store rejects before their second is over."""
        engine = engine_at()
        take(engine, garbage(1))
        sealed(engine, 50.0)
        take(engine, garbage(1), End("c"))
        batch = sealed(engine, 50.5)
        assert (batch.receipts, batch.transaction.rejects) == (("c",), ())
        assert len(sealed(engine, 51.0).transaction.rejects) == 1

    def test_a_flood_is_no_flood_of_commits(self) -> None:
        """However much garbage comes, and is told, it is one commit a second."""
        engine = engine_at()
        commits = 0
        for tenth in range(100):
            take(engine, garbage(50))
            commits += engine.seal(tenth / 10) is not None
        assert commits == 10

    def test_the_last_batch_takes_all(self) -> None:
        """When the server stops, what waits for its second is stored at once."""
        engine = engine_at()
        take(engine, garbage(1))
        sealed(engine, 50.0)
        take(engine, garbage(2))
        last = engine.seal(50.1, is_last=True)
        assert last is not None
        assert len(last.transaction.rejects) == 2


class TestCursors:
    """Sinks' cursors on their way to the log."""

    def test_they_ride_with_events(self) -> None:
        """The newest cursor of each sink is in the next commit, and in no later one."""
        engine = engine_at()
        engine.ride({"a": Cursor(1, 1), "b": Cursor(1, 1)})
        engine.ride({"a": Cursor(2, 2)})
        take(engine, received(b"p"))
        cursors = sealed(engine).transaction.cursors
        assert cursors == {"a": Cursor(2, 2), "b": Cursor(1, 1)}
        take(engine, received(b"p"))
        assert sealed(engine).transaction.cursors == {}

    def test_what_is_sealed_stays_as_it_is(self) -> None:
        """A cursor that moves later does not change a batch that is in flight."""
        engine = engine_at()
        engine.ride({"a": Cursor(1, 1)})
        batch = sealed(engine)
        engine.ride({"a": Cursor(2, 2)})
        assert batch.transaction.cursors == {"a": Cursor(1, 1)}

    def test_alone_once_a_second(self) -> None:
        """When nothing else is stored cursors are, once a second."""
        engine = engine_at()
        engine.ride({"a": Cursor(1, 1)})
        assert sealed(engine, 7.0).transaction.cursors
        engine.ride({"a": Cursor(2, 2)})
        assert engine.seal(7.9) is None
        take(engine, received(b"p"))
        assert sealed(engine, 7.9).transaction.cursors == {"a": Cursor(2, 2)}
        engine.ride({"a": Cursor(3, 3)})
        assert sealed(engine, 8.0).transaction.cursors == {"a": Cursor(3, 3)}


class TestCapture:
    """When the states are captured for a snapshot."""

    def test_at_the_first_mark_that_is_due(self) -> None:
        """The capture is at the first mark that lies far enough behind the last."""
        engine = engine_at(snapshot_every=3)
        take(engine, received(b"m1", b"m2", b"p3", b"p4", b"m5", b"m6"))
        capture = through(engine).capture
        assert capture is not None
        assert capture.sequence == 5
        folded = toy.fold(*[(0, b) for b in (b"m1", b"m2", b"p3", b"p4", b"m5")])
        states = {state.name: state.data for state in capture.states}
        assert states == folded.states_at(5)

    def test_counted_from_the_last_snapshot(self) -> None:
        """A restart counts from the snapshot that it began at."""
        engine = engine_at(Tail(8, 0), snapshot_every=3, snapshot_sequence=7)
        take(engine, received(b"m9"))
        assert through(engine).capture is None
        take(engine, received(b"m"))
        capture = through(engine).capture
        assert capture is not None
        assert capture.sequence == 10

    def test_one_is_in_the_making(self) -> None:
        """Marks pass until the snapshot is done; the first after it is taken."""
        engine = engine_at(snapshot_every=1)
        for expected in (1, None, None):
            take(engine, received(b"m"))
            capture = through(engine).capture
            assert (capture and capture.sequence) == expected
        engine.snapshot_done(1)
        take(engine, received(b"p4", b"m5"))
        capture = through(engine).capture
        assert capture is not None
        assert capture.sequence == 5

    def test_one_that_is_done_meanwhile(self) -> None:
        """A snapshot that is done while votes are taken is where the next is due from.

        Another thread tells it: first the sequence, then that none is in the making.
        """
        engine = engine_at(snapshot_every=3)

        class Late(int):
            def __add__(self, other: int) -> int:
                engine.snapshot_done(3)
                return int(self) + other

        take(engine, received(b"m", b"m", b"m"))
        assert through(engine).capture is not None
        engine.snapshot_sequence = Late(0)
        take(engine, received(b"m"))
        assert through(engine).capture is None

    def test_never_without_a_mark(self) -> None:
        """Events that are not marked make no snapshot, however many they are."""
        engine = engine_at(snapshot_every=1)
        take(engine, received(*[b"p"] * 100))
        assert through(engine).capture is None

    def test_of_all_pipelines_at_one_event(self) -> None:
        """A capture within a commit of several pipelines has what came before, only."""
        engine = engine_at(snapshot_every=1)
        take(engine, received(b"p2", pipeline=1), received(b"m1"))
        batch = through(engine)
        assert batch.capture is not None
        assert batch.capture.sequence == 1
        assert batch.last_sequence == 2
        states = {state.name: state.data for state in batch.capture.states}
        assert states == toy.fold((0, b"m1")).states_at(1)

    def test_at_any_time_for_a_sink(self) -> None:
        """The states can be had after all that was taken, durable or not."""
        engine = engine_at()
        take(engine, received(b"p1", b"p2"))
        capture = engine.capture()
        assert capture.sequence == 2
        states = {state.name: state.data for state in capture.states}
        assert states == toy.fold((0, b"p1"), (0, b"p2")).states_at(2)
