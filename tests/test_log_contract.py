"""What the log promises, on both stores."""

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from log import log as log_module
from log.block import FORMAT_VERSION, Block, Point, Records, Tail
from log.errors import CommitError, DamagedError, DiskFullError, ForeignError
from log.log import META_KEY, Log, Transaction
from log.memory_store import MemoryStore
from log.row import REJECTS_KEPT_MAX, Cursor, Meta, seal_row
from log.store import BLOCKS, META, Change
from tests import samples
from tests.faults import Fault, FaultyStore
from tests.places import Place, place
from tests.samples import COMPACTED, append, key, rejects

__all__ = ["place"]  # A fixture, which pytest finds by its name here.


@pytest.fixture
def log(place: Place) -> Log:
    """Return a new log."""
    return Log.create(place.open(), samples.META)


class TestCreate:
    """Beginning a log."""

    def test_a_new_log_is_empty(self, log: Log) -> None:
        """A new log has its meta and nothing else."""
        assert log.meta == samples.META
        assert log.tail == log.base == Tail(0, 0)
        assert list(log.read(0)) == []
        assert list(log.rejects()) == []
        assert log.cursors() == {}
        assert log.points() == {}
        assert log.base_state() is None

    def test_it_is_there_when_opened_again(self, log: Log, place: Place) -> None:
        """What a log was made as is what it is opened as."""
        append(log, [b"a"])
        again = Log.open(place.open())
        assert (again.meta, again.tail) == (log.meta, log.tail)

    def test_a_base_needs_its_state(self, place: Place) -> None:
        """A log that begins after an event must be given the state there."""
        with pytest.raises(ValueError, match="begins after 100 needs its state"):
            Log.create(place.open(), COMPACTED)

    def test_a_log_begins_at_its_base(self, place: Place) -> None:
        """The first block of a log follows the base; the base's state is kept."""
        log = Log.create(place.open(), COMPACTED, b"state")
        assert log.base_state() == b"state"
        assert log.base == log.tail == Tail(100, 0xABCD)
        [block] = append(log, [b"a", b"b"])
        assert block.first_sequence == 101
        again = Log.open(place.open())
        assert again.tail.sequence == 102
        assert list(again.read(100)) == list(again.read(0)) == [block]
        assert again.tail_at(100) == again.tail_at(101) == again.base

    def test_a_base_may_have_a_state_at_0(self, place: Place) -> None:
        """A log that begins at 0 may be given a state all the same."""
        assert Log.create(place.open(), samples.META, b"s").base_state() == b"s"

    def test_a_closed_log_is_of_no_use(self, log: Log) -> None:
        """To close a log closes its store, and whoever uses it after that is told."""
        log.close()
        with pytest.raises(ValueError, match="closed"):
            list(log.read(0))


class TestCommit:
    """Storing a transaction."""

    def test_everything_goes_together(self, log: Log, place: Place) -> None:
        """Blocks, points, cursors, rejects and meta of a transaction are stored."""
        point, idle = Point(7, 70, b"seven"), Point(8, 80, b"eight")
        first = Block.seal(
            log.tail, Records.pack([b"a", b"b"]), time_ns=1, points=[point]
        )
        second = Block.seal(
            first.tail, Records.pack([b"", b"c"]), time_ns=2, pipeline=1
        )
        grown = attrs.evolve(samples.META, pipelines=("alphabet", "second"))
        log.commit(
            Transaction(
                blocks=(first, second),
                points=(idle,),
                cursors={"out": Cursor(2, 20), "two": Cursor(4, 40, b"t-1")},
                rejects=rejects(1, 2),
                meta=grown,
            )
        )
        for reopen in (False, True):
            found = Log.open(place.open()) if reopen else log
            assert found.tail == second.tail
            assert list(found.read(0)) == [first, second]
            assert found.points() == {7: (4, point), 8: (4, idle)}
            assert found.cursors() == {
                "out": Cursor(2, 20),
                "two": Cursor(4, 40, b"t-1"),
            }
            assert list(found.rejects()) == list(enumerate(rejects(1, 2), 1))
            assert found.meta == grown

    def test_nothing_is_a_transaction_too(self, log: Log) -> None:
        """An empty transaction is false, and stores nothing."""
        assert not Transaction()
        log.commit(Transaction())
        assert log.tail == log.base

    @pytest.mark.parametrize(
        "transaction",
        [
            Transaction(blocks=tuple(samples.chain([b"a"]))),
            Transaction(points=(Point(1, 2, b""),)),
            Transaction(cursors={"out": Cursor(0, 0)}),
            Transaction(forgotten=("out",)),
            Transaction(rejects=(samples.REJECT,)),
            Transaction(meta=samples.META),
        ],
    )
    def test_anything_makes_a_transaction_true(self, transaction: Transaction) -> None:
        """A transaction that changes anything is true."""
        assert transaction

    @pytest.mark.parametrize(
        ("after", "reason"),
        [
            (Tail(1, 0), "a block from 2 comes after 2"),
            (Tail(3, 0), "events 3 to 3 are missing"),
            (Tail(2, 0), "does not follow"),
        ],
    )
    def test_a_block_must_follow(self, log: Log, after: Tail, reason: str) -> None:
        """A block that does not follow the tail is refused, with its company."""
        append(log, [b"a", b"b"])
        stray = Block.seal(after, Records.pack([b"c"]), time_ns=9)
        with pytest.raises(ValueError, match=reason):
            log.commit(Transaction(blocks=(stray,), cursors={"out": Cursor(1, 1)}))
        assert log.tail.sequence == 2
        assert log.cursors() == {}

    def test_time_never_goes_back(self, log: Log) -> None:
        """A block older than the one before it is refused."""
        first = Block.seal(log.tail, Records.pack([b"a"]), time_ns=5)
        log.commit(Transaction(blocks=(first,)))
        timeless = attrs.evolve(first.tail, time_ns=0)
        older = Block.seal(timeless, Records.pack([b"b"]), time_ns=4)
        with pytest.raises(ValueError, match="is older than the one before"):
            log.commit(Transaction(blocks=(older,)))

    def test_blocks_of_one_commit_must_follow_each_other(self, log: Log) -> None:
        """The second block of a transaction follows its first."""
        twice = samples.chain([b"a"]) * 2
        with pytest.raises(ValueError, match="a block from 1 comes after 1"):
            log.commit(Transaction(blocks=tuple(twice)))

    def test_the_newest_point_holds(self, log: Log) -> None:
        """Of the points of a stream in a transaction the last one is stored."""
        old, new, idle = (Point(7, number, b"seven") for number in (1, 2, 3))
        first = Block.seal(log.tail, Records.pack([b"a"]), time_ns=1, points=[old])
        second = Block.seal(first.tail, Records.pack([b"b"]), time_ns=1, points=[new])
        log.commit(Transaction(blocks=(first, second)))
        assert log.points() == {7: (2, new)}
        log.commit(Transaction(points=(idle,)))
        assert log.points() == {7: (2, idle)}

    def test_a_cursor_moves_and_goes(self, log: Log) -> None:
        """A sink has one row, which moves, and goes when the sink is forgotten."""
        log.commit(Transaction(cursors={"out": Cursor(1, 10), "é": Cursor(0, 0)}))
        log.commit(Transaction(cursors={"out": Cursor(2, 20)}))
        assert log.cursors() == {"out": Cursor(2, 20), "é": Cursor(0, 0)}
        log.commit(Transaction(forgotten=("out", "never")))
        assert log.cursors() == {"é": Cursor(0, 0)}

    @pytest.mark.parametrize("name", ["", "n" * 512])
    def test_a_name_has_a_length(self, log: Log, name: str) -> None:
        """A sink's name of no bytes, or above 511, is a ValueError."""
        with pytest.raises(ValueError, match="must be"):
            log.commit(Transaction(cursors={name: Cursor(0, 0)}))


class TestRejects:
    """The newest rejects are kept."""

    def test_the_newest_are_kept(
        self, log: Log, place: Place, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Past the limit the oldest go, and numbers go on, also when reopened."""
        monkeypatch.setattr(log_module, "REJECTS_KEPT_MAX", 5)
        log.commit(Transaction(rejects=rejects(1, 3)))
        log.commit(Transaction(rejects=rejects(4, 6)))
        kept = list(log.rejects())
        assert kept == list(enumerate(rejects(2, 6), 2))
        again = Log.open(place.open())
        again.commit(Transaction(rejects=rejects(7, 7)))
        assert [number for number, _ in again.rejects()] == [3, 4, 5, 6, 7]

    def test_one_commit_may_bring_more(self, log: Log) -> None:
        """Of 10,001 rejects in one commit the newest 10,000 are kept."""
        assert REJECTS_KEPT_MAX == 10_000
        log.commit(Transaction(rejects=(samples.REJECT,) * 10_001))
        numbers = [number for number, _ in log.rejects()]
        assert numbers == list(range(2, 10_002))


class TestRead:
    """Reading what was stored."""

    @pytest.mark.parametrize("scan_bytes", [1, 200, 1 << 20])
    def test_events_after_a_sequence(
        self, log: Log, monkeypatch: pytest.MonkeyPatch, scan_bytes: int
    ) -> None:
        """From any sequence on, the blocks with later events come, in order.

        However many reads of the store that takes.
        """
        monkeypatch.setattr(log_module, "SCAN_BYTES", scan_bytes)
        made = append(log, [b"a", b"b"], [b"c"], [b"d", b"", b"f"])
        for after in range(8):
            expected = [block for block in made if block.last_sequence > after]
            assert list(log.read(after)) == expected
        assert list(log.read(2**64 - 1)) == []

    def test_tails_inside(self, log: Log) -> None:
        """The tail at a sequence is that of the last block that ends by then."""
        first, second, third = append(log, [b"a", b"b"], [b"c"], [b"d", b"e"])
        ends = [log.base, log.base, first.tail, second.tail, second.tail, third.tail]
        found = [log.tail_at(sequence) for sequence in range(6)]
        assert [(tail.sequence, tail.checksum) for tail in found] == [
            (tail.sequence, tail.checksum) for tail in ends
        ]
        assert log.tail_at(999) == third.tail

    @pytest.mark.parametrize("base", [0, 100])
    def test_the_block_of_an_event(self, place: Place, base: int) -> None:
        """An event leads to its block, what is past the end to the last one."""
        meta = attrs.evolve(COMPACTED, base_sequence=base)
        log = Log.create(place.open(), meta, b"state")
        assert log.block_at(base) is log.block_at(base + 1) is None
        first, second = append(log, [b"a", b"b"], [b"c"])
        expected = [None, first, first, second, second]
        assert [log.block_at(base + index) for index in range(5)] == expected
        assert log.block_at(2**64 - 1) == second

    def test_a_damaged_block_is_named(self, log: Log) -> None:
        """A damaged block is not given, whichever of its events is asked for."""
        [first, second] = append(log, [b"a"], [b"b", b"c"])
        log.store.commit([Change(BLOCKS, key(2), second.encoded[:-1] + b"?")], 3)
        assert log.block_at(1) == first
        for sequence in (2, 3, 9):
            with pytest.raises(DamagedError, match="is damaged at sequence 2"):
                log.block_at(sequence)

    @given(st.lists(samples.payloads, max_size=6))
    def test_what_went_in_comes_out(self, contents: list[list[bytes]]) -> None:
        """Every payload is read back, in order, and numbered without a gap."""
        log = Log.create(MemoryStore(), samples.META)
        append(log, *contents)
        found = list(log.read(0))
        assert [list(block.records) for block in found] == contents
        assert log.tail.sequence == sum(map(len, contents))

    def test_a_gap_is_a_block(self, log: Log) -> None:
        """A gap stands for events, has none, and others follow it."""
        [first] = append(log, [b"a"])
        gap = Block.seal(first.tail, Records.gap(9), time_ns=2)
        log.commit(Transaction(blocks=(gap,)))
        [after] = append(log, [b"b"])
        assert after.first_sequence == 11
        assert list(log.read(0)) == [first, gap, after]

    def test_a_reader_catches_up(self, log: Log) -> None:
        """A reader's tail moves when it is refreshed."""
        reader = Log.open(log.store)
        append(log, [b"a"])
        assert reader.tail.sequence == 0
        reader.refresh()
        assert reader.tail == log.tail


class TestHolds:
    """A commit that failed, and what the log makes of it."""

    @pytest.fixture
    def store(self, place: Place) -> FaultyStore:
        """Return a store that fails where it is told."""
        return FaultyStore(place.open())

    @pytest.fixture
    def log(self, store: FaultyStore) -> Log:
        """Return a log with two events and a reject, on the faulty store."""
        log = Log.create(store, samples.META)
        append(log, [b"a", b"b"])
        log.commit(Transaction(rejects=rejects(1, 1)))
        return log

    @pytest.fixture
    def next_one(self, log: Log) -> Transaction:
        """Return what shall be committed next."""
        return Transaction(
            blocks=tuple(samples.chain([b"c"], [b"d", b"e"], after=log.tail)),
            cursors={"out": Cursor(5, 50)},
            rejects=rejects(2, 3),
            meta=attrs.evolve(samples.META, pipelines=("alphabet", "more")),
        )

    def check(self, log: Log, transaction: Transaction) -> None:
        """Everything of the transaction is there, once, and the log goes on."""
        assert log.tail == transaction.blocks[-1].tail
        events = [event for block in log.read(0) for event in block.records]
        assert events == [b"a", b"b", b"c", b"d", b"e"]
        assert log.cursors() == {"out": Cursor(5, 50)}
        assert log.meta == transaction.meta
        log.commit(Transaction(rejects=rejects(4, 4)))
        assert list(log.rejects()) == list(enumerate(rejects(1, 4), 1))
        append(log, [b"f"])
        assert log.tail.sequence == 6

    def test_a_commit_that_was_lost(
        self, log: Log, store: FaultyStore, next_one: Transaction
    ) -> None:
        """What failed and is not there may be committed again, as it is."""
        store.faults = [Fault.LOST]
        with pytest.raises(CommitError, match="commit after sequence 2 failed"):
            log.commit(next_one)
        assert log.tail.sequence == 2
        assert not log.holds(next_one)
        log.commit(next_one)
        self.check(log, next_one)

    def test_a_commit_that_was_kept(
        self, log: Log, store: FaultyStore, next_one: Transaction
    ) -> None:
        """What failed and is there all the same is taken over, and not doubled."""
        store.faults = [Fault.KEPT]
        with pytest.raises(CommitError):
            log.commit(next_one)
        assert log.tail.sequence == 2
        assert log.holds(next_one)
        self.check(log, next_one)

    def test_a_full_disk(
        self, log: Log, store: FaultyStore, next_one: Transaction
    ) -> None:
        """However often there is no room, the same transaction goes in at last."""
        store.faults = [Fault.FULL] * 3
        for _ in range(3):
            with pytest.raises(DiskFullError, match="no space left"):
                log.commit(next_one)
            assert not log.holds(next_one)
        log.commit(next_one)
        self.check(log, next_one)

    @pytest.mark.parametrize("fault", [Fault.LOST, Fault.KEPT])
    def test_a_commit_without_blocks(
        self, log: Log, store: FaultyStore, fault: Fault
    ) -> None:
        """What has no block may be committed again, whether it was stored or not."""
        small = Transaction(
            cursors={"out": Cursor(2, 9)},
            points=(Point(1, 2, b"p"),),
            rejects=rejects(2, 2),
        )
        store.faults = [fault]
        with pytest.raises(CommitError):
            log.commit(small)
        assert not log.holds(small)
        log.commit(small)
        assert log.cursors() == {"out": Cursor(2, 9)}
        assert log.points() == {1: (2, Point(1, 2, b"p"))}
        assert list(log.rejects()) == list(enumerate(rejects(1, 2), 1))

    def test_nothing_can_be_read(
        self, log: Log, store: FaultyStore, next_one: Transaction
    ) -> None:
        """When nothing can be read after a failure, nothing may be tried again."""
        store.faults = [Fault.REFUSED]
        with pytest.raises(CommitError):
            log.commit(next_one)
        with pytest.raises(CommitError, match="the log cannot be read"):
            log.holds(next_one)
        assert log.tail.sequence == 2

    def test_somebody_else_wrote(
        self, log: Log, store: FaultyStore, next_one: Transaction
    ) -> None:
        """A block that is not ours at the end of the log is no answer."""
        [stranger] = samples.chain([b"x"], after=log.tail)
        store.inner.commit([Change(BLOCKS, key(3), stranger.encoded)], 2)
        for transaction in (next_one, Transaction(cursors={"out": Cursor(1, 1)})):
            with pytest.raises(CommitError, match="ends at 3, which is not ours"):
                log.holds(transaction)
        assert log.tail.sequence == 2


class TestIdentity:
    """Whose log it is."""

    def test_ours_is_taken(self, log: Log) -> None:
        """The same application, schema and pipelines pass; new pipelines are told."""
        assert not log.require("Alphabet", ">sI", ["alphabet"])
        assert log.require("Alphabet", ">sI", ["alphabet", "second"])

    @pytest.mark.parametrize(
        ("application", "schema", "pipelines", "reason"),
        [
            ("Other", ">sI", ["alphabet"], "application 'Alphabet', not 'Other'"),
            ("Alphabet", ">sQ", ["alphabet"], "records are '>sI', not '>sQ'"),
            ("Alphabet", ">sI", [], "its pipelines are alphabet"),
            ("Alphabet", ">sI", ["second", "alphabet"], "keep their order"),
        ],
    )
    def test_anothers_is_refused(
        self,
        log: Log,
        application: str,
        schema: str,
        pipelines: list[str],
        reason: str,
    ) -> None:
        """Another application, schema or order of pipelines is refused in one line."""
        with pytest.raises(ForeignError, match=reason) as caught:
            log.require(application, schema, pipelines)
        assert "choose another data directory" in str(caught.value)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize(
        ("changes", "reason"),
        [
            ({"format_version": FORMAT_VERSION + 1}, "format is version 2, newer"),
            ({"engine": "lmdb-1.0"}, "written with engine lmdb-1.0, not lmdb-0.9"),
        ],
    )
    def test_anothers_format_is_refused(
        self, place: Place, changes: dict[str, object], reason: str
    ) -> None:
        """A newer format or another engine is refused, and what is stored stays."""
        store = place.open()
        body = Meta(**attrs.asdict(samples.META) | changes).encode()
        row = (META_KEY, seal_row(META, META_KEY, 0, body))
        store.commit([Change(META, *row)], 0)
        with pytest.raises(ForeignError, match=reason) as caught:
            Log.open(store)
        assert "use the" in str(caught.value)
        assert store.scan(META, b"", 1) == [row]
