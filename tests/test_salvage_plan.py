"""The plan of a new log, whichever blocks of the old one are left.

`Past` is a log as it was, with the blocks that were found of it: a snapshot that it
really took is never contradicted, and one that it cannot have taken is.
"""

import itertools

import attrs
import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st

from log.block import Tail
from log.row import Cursor, Meta
from recovery.damage.chain import Chain
from recovery.damage.remains import Live, Remains
from recovery.damage.row_scan import Rows
from recovery.damage.salvage_plan import Move, Plan, contradiction, make_plan
from recovery.snapshot import Snapshot
from tests.test_chain import Found, rows

LOG_ID = "old-log"
NONE = np.empty(0, np.uint64)


@attrs.frozen
class Past:
    """Blocks of `sizes` events behind a base; those at the places `left` were found."""

    base: int
    sizes: tuple[int, ...]
    left: frozenset[int]
    has_meta: bool
    has_base_state: bool

    @property
    def ends(self) -> list[int]:
        """The base's sequence and each block's last; the checksum is 1000 above it."""
        return list(itertools.accumulate(self.sizes, initial=self.base))

    @property
    def found(self) -> list[Found]:
        """The blocks that were found."""
        pairs = list(itertools.pairwise(self.ends))
        return [
            Found(pairs[n][0] + 1, pairs[n][1], pairs[n][0] + 1000, pairs[n][1] + 1000)
            for n in sorted(self.left)
        ]

    @property
    def is_base_told(self) -> bool:
        """Whether anything but blocks tells where the log began."""
        return self.has_meta or self.has_base_state

    def snapshot(self, sequence: int) -> Snapshot:
        """Give the snapshot that the log took at an event."""
        block = max(end for end in self.ends if end <= sequence)
        return Snapshot(LOG_ID, sequence, block, block + 1000, "toy", 1, ())

    def remains(self, cursors: dict[str, Cursor] | None = None) -> Remains:
        """Give what was found."""
        blocks = rows(self.found)
        base = self.base if self.is_base_told else 0
        checksum = self.base + 1000 if self.is_base_told else 0
        meta = Meta(LOG_ID, "toy", ("one",), base_sequence=base, base_checksum=checksum)
        return Remains(
            chain=Chain(blocks, np.ones(len(blocks), np.bool_), rows([]), 0),
            rows=Rows(meta if self.has_meta else None, None, cursors or {}, {}, (), ()),
            live=Live(None, NONE, NONE, NONE, frozenset(), is_whole=False),
            log_id=LOG_ID,
            base=Tail(base, checksum),
            base_state=self.snapshot(self.base) if self.has_base_state else None,
            last_known=0,
            torn=0,
            is_certain=False,
        )

    def tells(self, end: int) -> bool:
        """Say whether anything that was found has the checksum at a block's end."""
        is_seen = any(end in {each.first - 1, each.last} for each in self.found)
        return is_seen or (end == self.base and self.is_base_told)


@st.composite
def pasts(draw: st.DrawFn) -> Past:
    """Draw a log and what is left of it."""
    sizes = draw(st.lists(st.integers(1, 4), max_size=6))
    left = draw(st.sets(st.sampled_from(range(len(sizes))))) if sizes else set()
    base = draw(st.integers(0, 5))
    return Past(
        base,
        tuple(sizes),
        frozenset(left),
        has_meta=draw(st.booleans()),
        has_base_state=bool(base) and draw(st.booleans()),
    )


class TestContradiction:
    """Which snapshots go along."""

    @given(st.data(), pasts())
    def test_a_true_one_is_believed(self, data: st.DataObject, past: Past) -> None:
        """No snapshot that the log took is contradicted by what is left of it."""
        sequence = data.draw(st.integers(past.base, past.ends[-1]))
        assert contradiction(past.remains(), past.snapshot(sequence)) is None

    @given(st.data(), pasts())
    def test_another_history_is_not(self, data: st.DataObject, past: Past) -> None:
        """A snapshot with another checksum for a place that is told is refused."""
        sequence = data.draw(st.integers(past.base, past.ends[-1]))
        true = past.snapshot(sequence)
        assume(past.tells(true.block_sequence))
        other = attrs.evolve(true, block_checksum=true.block_checksum + 1)
        reason = "it does not stand on the log's blocks"
        assert contradiction(past.remains(), other) == reason

    @given(st.data(), pasts())
    def test_nor_a_block_behind_it(self, data: st.DataObject, past: Past) -> None:
        """A snapshot that names a block which ends behind its event is refused."""
        sequence = data.draw(st.integers(past.base, past.ends[-1]))
        later = attrs.evolve(past.snapshot(sequence), block_sequence=sequence + 1)
        assert contradiction(past.remains(), later) is not None


class TestPlan:
    """What the new log is made of."""

    def plan(self, data: st.DataObject, past: Past) -> Plan:
        """Plan with any of the snapshots that the log took."""
        places = st.sets(st.integers(past.base, past.ends[-1]), max_size=4)
        snapshots = [past.snapshot(sequence) for sequence in data.draw(places)]
        return make_plan(past.remains(), snapshots)

    @given(st.data(), pasts())
    def test_every_event_has_one_piece(self, data: st.DataObject, past: Past) -> None:
        """Pieces follow each other from the base on, and have all blocks found."""
        plan = self.plan(data, past)
        reached = plan.base.sequence
        found = []
        for piece in plan.pieces:
            assert piece.first == reached + 1
            if piece.blocks is None:
                assert piece.count > 0
                reached += piece.count
            else:
                found += piece.blocks["first"].tolist()
                reached = int(piece.blocks["last"][-1])
        assert found == [each.first for each in past.found]
        assert reached >= max((each.last for each in past.found), default=0)
        assert all(each.sequence <= reached for each in plan.snapshots)

    @given(st.data(), pasts())
    def test_gaps_are_what_is_missing(self, data: st.DataObject, past: Past) -> None:
        """A gap has just the events that no block has; counted ones are in a state."""
        plan = self.plan(data, past)
        start = plan.base.sequence if not past.is_base_told else past.base
        lost = {n for gap in plan.gaps for n in range(gap.first, gap.last + 1)}
        there = {n for f in past.found for n in range(f.first, f.last + 1)}
        assert not lost & there
        assert len(lost) == sum(gap.last + 1 - gap.first for gap in plan.gaps)
        known = max([plan.base.sequence, *(s.sequence for s in plan.snapshots)])
        assert all(gap.is_counted == (gap.last <= known) for gap in plan.gaps)
        end = max([known, *there], default=0)
        if plan.base.sequence >= start:
            assert lost | there >= set(range(start + 1, end + 1))

    def test_the_first_block_follows_the_base(self) -> None:
        """Where a snapshot names an earlier block, the base has the block's link."""
        past = Past(0, (3, 2, 4), frozenset({2}), has_meta=True, has_base_state=False)
        odd = attrs.evolve(past.snapshot(5), block_sequence=3, block_checksum=1003)
        plan = make_plan(past.remains(), [odd])
        assert (plan.base, plan.base_state) == (Tail(5, 1005), odd)

    def test_the_base_is_the_newest_snapshot_before_the_blocks(self) -> None:
        """Where the beginning is lost the log begins as late as a state allows."""
        past = Past(0, (3, 2, 4), frozenset({2}), has_meta=True, has_base_state=False)
        plan = make_plan(past.remains(), [past.snapshot(n) for n in (2, 4, 6)])
        assert (plan.base, plan.base_state) == (Tail(4, 1003), past.snapshot(4))
        assert plan.snapshots == (past.snapshot(6),)

    def test_a_sink_leaves_the_gap_that_it_is_in(self) -> None:
        """Without a state behind the gap a sink goes on where the gap ends."""
        past = Past(
            0, (1, 3, 4), frozenset({0, 2}), has_meta=True, has_base_state=False
        )
        cursors = {"before": Cursor(1, 10), "in": Cursor(2, 20), "out": Cursor(6, 30)}
        plan = make_plan(past.remains(cursors), [])
        placed = {name: cursor.sequence for name, cursor in plan.cursors.items()}
        assert placed == {"before": 1, "in": 4, "out": 6}
        assert plan.moves == (Move("in", 2, 4),)
