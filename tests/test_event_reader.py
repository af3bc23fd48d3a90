"""A log read look by look: every event once, in order, and of one log alone."""

from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from log.block import SEQUENCE_MAX, Block, Records
from log.log import Log, Transaction
from log.memory_store import MemoryDisk, MemoryStore
from log.store import BLOCKS, Change
from recovery.errors import GapError
from recovery.event_reader import EventReader, find_end
from recovery.follower import ReplacedError
from tests import toy
from tests.machines import Batch, Kept, batches, flip_middle, key


def kept() -> Kept:
    """Make a log without an event."""
    return Kept.create(MemoryStore(MemoryDisk()), Path("none"))


def numbered(reader: EventReader, of: Kept, until: int) -> list[tuple[int, toy.Event]]:
    """Give what one look gives: each event with its sequence."""
    return [
        (number, (part.pipeline, record))
        for part in reader.look(of.replayer(), until)
        for number, record in enumerate(part.records, part.first_sequence)
    ]


@given(st.lists(st.tuples(st.lists(batches, max_size=3), st.integers(0, 30))))
def test_every_event_comes_once(looks: list[tuple[list[Batch], int]]) -> None:
    """However a log grows and wherever looks end, its events come in order, once."""
    of, reader, found = kept(), EventReader(0), []
    for made, until in looks:
        of.append(*made)
        found += numbered(reader, of, until)
    found += numbered(reader, of, 1000)
    assert found == list(enumerate(of.folded.events, 1))
    assert reader.reached == len(found)


class TestAnotherLog:
    """What was read is looked at again."""

    @pytest.fixture
    def read(self) -> tuple[EventReader, Kept]:
        """Return a log of two blocks, and its reader, which has read all."""
        of, reader = kept(), EventReader(0)
        of.append((0, [b"p1"]), (1, [b"p2"]))
        assert len(numbered(reader, of, 9)) == 2
        return reader, of

    def test_another_id(self, read: tuple[EventReader, Kept]) -> None:
        """A log of another name is refused."""
        reader, of = read
        of.log.meta = attrs.evolve(of.log.meta, log_id="another")
        with pytest.raises(ReplacedError, match="it is log another, not toy-log"):
            numbered(reader, of, 9)

    @pytest.mark.parametrize("more", [[], [(0, [b"p3"])], [(0, [b"p3", b"p4"])]])
    def test_another_end(
        self, read: tuple[EventReader, Kept], more: list[Batch]
    ) -> None:
        """A log that lost what was read is refused, also if it went on otherwise."""
        reader, of = read
        of.lose_tail(1)
        of.append(*more)
        with pytest.raises(ReplacedError, match="it has another block at 2"):
            numbered(reader, of, 9)


def test_a_gap_needs_consent() -> None:
    """Without consent a gap is an error; with it, a part of the events asked for."""
    of = kept()
    of.append((0, [b"p1"]))
    gap = Block.seal(of.log.tail, Records.gap(4), time_ns=9)
    of.log.commit(Transaction((gap,)))
    with pytest.raises(GapError, match="events 2 to 5 are lost"):
        list(EventReader(0).look(of.replayer(), 9))
    parts = EventReader(0).look(of.replayer(are_gaps_accepted=True), 4)
    spans = [(p.first_sequence, p.last_sequence, p.records.is_gap) for p in parts]
    assert spans == [(1, 1, False), (2, 4, True)]


class TestEnd:
    """How far a log goes."""

    def test_what_another_wrote_counts(self) -> None:
        """The end is that of the log now, whoever wrote to it since it was opened."""
        of = kept()
        of.append((0, [b"p1"]))
        reader = Log.open(of.log.store)
        of.append((0, [b"p2", b"p3"]))
        assert reader.tail.sequence == 1
        assert find_end(reader) == 3

    def test_a_damaged_end_is_met(self) -> None:
        """Where the last block is damaged, whoever reads to the end meets that."""
        of = kept()
        of.append((0, [b"p1"]), (0, [b"p2"]))
        store = of.log.store
        value = store.get(BLOCKS, key(2))
        assert value is not None
        store.commit([Change(BLOCKS, key(2), flip_middle(value))], 0)
        assert find_end(of.log) == SEQUENCE_MAX


def test_behind_the_end_is_not_looked_at() -> None:
    """Damage behind what is asked for is nobody's affair."""
    of = kept()
    of.append((0, [b"p1"]), (0, [b"p2"]), (0, [b"p3"]))
    store = of.log.store
    value = store.get(BLOCKS, key(2))
    assert value is not None
    store.commit([Change(BLOCKS, key(2), flip_middle(value))], 0)
    of.log = Log.open(store)
    assert numbered(EventReader(0), of, 1) == [(1, (0, b"p1"))]
