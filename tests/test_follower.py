"""A machine that follows a log, whatever becomes of the log."""

import tempfile
from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphabet.pipeline.machine import Machine
from log.block import Records
from log.errors import DamagedError
from log.log import Log
from log.memory_store import MemoryStore
from log.store import BLOCKS, Change
from recovery.errors import GapError
from recovery.follower import Follower, ReplacedError
from recovery.replay import Replayer
from tests import toy
from tests.machines import (
    Kept,
    alphabet,
    append_records,
    append_votes,
    batches,
    flip_middle,
    key,
    write_votes,
)

FIRST = (0, [b"p1", b"m2"])
SECOND = (1, [b"p3"])


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    """Return a log with a block of two events."""
    made = Kept.create(MemoryStore(), tmp_path / "snapshots")
    made.append(FIRST)
    return made


def begun(kept: Kept) -> Follower:
    """Give a follower that has come to the end."""
    follower = Follower(toy.machine())
    follower.begin(look(kept))
    return follower


def look(kept: Kept) -> Replayer:
    """Open the log anew, as a reader in another process does."""
    return attrs.evolve(kept.replayer(), log=Log.open(kept.log.store))


def states_of(follower: Follower) -> dict[str, bytes]:
    """Give the states' bytes, as `Fold` has them."""
    assert isinstance(follower.machine, Machine)
    return toy.state_bytes(follower.machine)


class TestFollowing:
    """A log that grows."""

    @given(st.lists(st.lists(batches, max_size=3), max_size=5))
    def test_it_has_the_state_of_the_end(
        self, rounds: list[list[tuple[int, list[bytes]]]]
    ) -> None:
        """After each look the state is the fold of all; it says whether it changed."""
        with tempfile.TemporaryDirectory() as path:
            kept = Kept.create(MemoryStore(), Path(path) / "snapshots")
            follower = begun(kept)
            assert (follower.sequence, follower.time_ns) == (0, None)
            for made in rounds:
                kept.append(*made)
                assert follower.catch_up(look(kept)) == bool(made)
                end = kept.log.tail.sequence
                assert follower.sequence == end
                assert follower.time_ns == (kept.log.tail.time_ns or None)
                assert states_of(follower) == kept.folded.states_at(end)

    def test_it_applies_new_blocks_alone(self, kept: Kept) -> None:
        """What it has already is not computed again, and is not even looked at."""
        follower = begun(kept)
        kept.append(SECOND, SECOND)
        follower.catch_up(look(kept))
        states = states_of(follower)
        damaged = kept.log.store.get(BLOCKS, key(1))
        assert damaged is not None
        kept.log.store.commit([Change(BLOCKS, key(1), flip_middle(damaged))], 0)
        assert not follower.catch_up(look(kept))
        kept.append(SECOND)
        assert follower.catch_up(look(kept))
        assert states_of(follower) != states

    def test_it_begins_at_a_snapshot(self, kept: Kept) -> None:
        """The first look says from where it came, and what it replayed."""
        kept.write_snapshot(1)
        recovered = Follower(toy.machine()).begin(look(kept))
        assert (recovered.start, recovered.is_snapshot) == (1, True)
        assert (recovered.sequence, recovered.replayed) == (2, 1)

    def test_a_compacted_log(self, tmp_path: Path) -> None:
        """A log that begins at a base, and has no block yet, is followed too."""
        kept = Kept.create(MemoryStore(), tmp_path / "snapshots", (0, b"p"), (1, b"m"))
        follower = begun(kept)
        assert (follower.sequence, follower.time_ns) == (2, None)
        assert not follower.catch_up(look(kept))
        kept.append(SECOND)
        assert follower.catch_up(look(kept))
        assert states_of(follower) == kept.folded.states_at(3)


class TestReplaced:
    """Another log in the followed one's place."""

    def check(self, follower: Follower, replayer: Replayer, reason: str) -> None:
        """Fail unless that is refused, in one line, with nothing applied."""
        states = states_of(follower)
        with pytest.raises(ReplacedError, match=reason) as caught:
            follower.catch_up(replayer)
        assert "memory was replaced" in str(caught.value)
        assert states_of(follower) == states

    def test_another_id(self, kept: Kept) -> None:
        """A log with another id is another log, though all its blocks are the same."""
        follower = begun(kept)
        meta = attrs.evolve(toy.META, log_id="another")
        other = Kept(Log.create(MemoryStore(), meta), kept.snapshots)
        other.append(FIRST)
        assert other.log.tail == kept.log.tail
        self.check(follower, look(other), "it is log another, not toy-log")

    def test_an_end_that_went_back(self, kept: Kept) -> None:
        """A log that ends before what was seen of it is an older copy."""
        kept.append(SECOND)
        follower = begun(kept)
        kept.lose_tail(2)
        self.check(follower, look(kept), "it ends at 2, and was at 3")

    def test_a_log_that_went_on_otherwise(self, kept: Kept) -> None:
        """Another block where the last one was shows that it is not the same log."""
        kept.append(SECOND)
        follower = begun(kept)
        kept.lose_tail(2)
        for batch in ((1, [b"p4"]), (1, [b"p3", b"p4"])):
            kept.append(batch)
            self.check(follower, look(kept), "it has another block at 3")
            kept.lose_tail(2)

    def test_a_follower_of_nothing(self, tmp_path: Path) -> None:
        """An empty log that has become one of another base was replaced."""
        empty = Kept.create(MemoryStore(), tmp_path)
        follower = begun(empty)
        compacted = Kept.create(MemoryStore(), tmp_path, (0, b"p"))
        self.check(follower, look(compacted), "it has another block at 0")


class TestRefused:
    """What a follower cannot go past."""

    def test_damage(self, kept: Kept) -> None:
        """A new block that is damaged is named."""
        follower = begun(kept)
        kept.append(SECOND, SECOND)
        stored = kept.log.store.get(BLOCKS, key(3))
        assert stored is not None
        kept.log.store.commit([Change(BLOCKS, key(3), flip_middle(stored))], 0)
        with pytest.raises(DamagedError, match="sequence 3"):
            follower.catch_up(look(kept))

    def test_a_gap(self, tmp_path: Path) -> None:
        """A gap is refused, unless that was agreed to."""
        directory = write_votes(tmp_path / "data")
        log = directory.open_log()
        try:
            replayer = Replayer(log, Kept.create(MemoryStore(), tmp_path).snapshots)
            follower = Follower(alphabet())
            follower.begin(replayer)
            append_records(log, Records.gap(5))
            append_votes(log, [(b"q", 1)])
            with pytest.raises(GapError):
                follower.catch_up(replayer)
            assert follower.catch_up(attrs.evolve(replayer, are_gaps_accepted=True))
            assert follower.sequence == log.tail.sequence == 16
        finally:
            log.close()
