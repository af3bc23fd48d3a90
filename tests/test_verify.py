"""What verify finds, and where; in a sound log it finds nothing."""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphabet.pipeline.machine import Machine
from alphabet.wallaroo import ApplicationBuilder, TCPSinkConfig, TCPSourceConfig
from log.block import Block, Point, Records, Tail
from log.errors import DamagedError, ForeignError
from log.lmdb_check import Flaw, Structure
from log.lmdb_page import Bounds
from log.log import BASE_KEY, Log, Transaction
from log.memory_store import MemoryStore
from log.row import Cursor
from log.store import BLOCKS, CURSORS, META, REJECTS, STREAMS, Change
from recovery.errors import SnapshotError
from recovery.replay import take_snapshot
from recovery.snapshot import State
from recovery.snapshot_directory import SnapshotDirectory
from recovery.verify import (
    DAMAGE,
    GAP,
    NOTE,
    Finding,
    Verification,
    Verifier,
    structure_findings,
)
from tests import samples, toy
from tests.machines import (
    DAMAGES,
    Batch,
    BusyStore,
    Damage,
    Kept,
    batches,
    change,
    flip_middle,
    in_version,
    key,
)

FIRSTS = [1, 3, 6, 7]


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    """Return a log of events 1 to 9 in blocks that begin at 1, 3, 6 and 7.

    Stream 7 is at 6, stream 8 at 5; sink `out` is at 4; two rejects are kept.
    """
    kept = Kept.create(MemoryStore(), tmp_path / "snapshots")
    kept.append((0, [b"m1", b"f2"]))
    kept.append((1, [b"m3", b"p4", b"x5"]), points=(Point(8, 50, b"eight"),))
    kept.append((0, [b"u6"]), points=(Point(7, 60, b"seven"),))
    kept.append((1, [b"S7", b"m8", b"m9"]))
    rejects = (samples.REJECT, attrs.evolve(samples.REJECT, sequence=2))
    kept.log.commit(Transaction(cursors={"out": Cursor(4, 9)}, rejects=rejects))
    return kept


def verify(kept: Kept, machine: Machine | None) -> Verification:
    """Verify a log."""
    return Verifier(kept.log, kept.snapshots, machine).run()


def findings(kept: Kept) -> list[Finding]:
    """Verify a log against its application; give what was found."""
    return verify(kept, toy.machine()).findings


def places(found: Sequence[Finding]) -> list[tuple[str, str, int | None]]:
    """Give severity, place and first sequence of findings."""
    return [(each.severity, each.place, each.first) for each in found]


def damage_row(log: Log, table: str, row: bytes, damage: Damage) -> None:
    """Change a row as it is stored."""
    value = log.store.get(table, row)
    assert value is not None
    log.store.commit([Change(table, row, damage(value))], 0)


class TestPipelines:
    """Blocks name their pipeline by its number."""

    def test_one_that_has_no_name(self, kept: Kept) -> None:
        """A block of a pipeline that the log does not name is damage."""
        kept.append((0, [b"m1"]))
        block = Block.seal(kept.log.tail, Records.pack([b"m2"]), time_ns=99, pipeline=2)
        kept.log.commit(Transaction((block,)))
        result = Verifier(kept.log, kept.snapshots, None).run()
        [finding] = result.damage
        assert "of pipeline 2, which the log does not name" in finding.reason


class TestSound:
    """Nothing is found where nothing is wrong."""

    @given(
        before=st.lists(toy.events, max_size=3),
        made=st.lists(batches, max_size=6),
        data=st.data(),
    )
    def test_any_log_of_ours_is_sound(
        self, before: list[toy.Event], made: list[Batch], data: st.DataObject
    ) -> None:
        """Any log with any snapshots, as servers leave them, has no findings."""
        with tempfile.TemporaryDirectory() as path:
            kept = Kept.create(MemoryStore(), Path(path) / "snapshots", *before)
            kept.append(*made)
            base, last = len(before), kept.log.tail.sequence
            sequences = data.draw(st.sets(st.integers(base, last), max_size=4))
            for sequence in sequences:
                kept.write_snapshot(sequence)
            expected = Verification(len(made), last - base, len(sequences))
            assert verify(kept, toy.machine()) == expected
            assert verify(kept, None) == expected

    def test_what_goes_along_is_sound(self, kept: Kept) -> None:
        """Points, cursors and rejects of a log are sound, and all is counted."""
        kept.write_snapshot(4)
        assert verify(kept, toy.machine()) == Verification(4, 9, 1)

    def test_a_point_may_lead_its_blocks(self, kept: Kept) -> None:
        """A stream that advanced without an event is sound."""
        kept.log.commit(Transaction(points=(Point(7, 61, b"seven"),)))
        assert findings(kept) == []

    def test_progress_is_told(self, kept: Kept) -> None:
        """Whoever waits is told each block's end."""
        told: list[int] = []
        Verifier(kept.log, kept.snapshots, None, told.append).run()
        assert told == [2, 5, 6, 9]


class TestBlocks:
    """Damage in the blocks."""

    @pytest.mark.parametrize("first", FIRSTS)
    @pytest.mark.parametrize("damage", DAMAGES)
    def test_damage_is_found(self, kept: Kept, first: int, damage: Damage) -> None:
        """A damaged block is found wherever it is, the last one too."""
        damage_row(kept.log, BLOCKS, key(first), damage)
        for machine in (toy.machine(), None):
            found = verify(kept, machine).findings
            assert places(found) == [(DAMAGE, "block", first)]

    @pytest.mark.parametrize("first", FIRSTS)
    def test_a_log_can_be_opened_for_it(self, kept: Kept, first: int) -> None:
        """A log whose last block is damaged is opened where damage is looked for.

        What lies behind its sound part is not blamed on others.
        """
        kept.log.commit(
            Transaction(cursors={"out": Cursor(9, 0)}, points=(Point(7, 61, b"seven"),))
        )
        damage_row(kept.log, BLOCKS, key(first), flip_middle)
        kept.log = Log.open(kept.log.store, is_damage_accepted=True)
        assert kept.log.tail.sequence == (6 if first == 7 else 9)
        assert places(findings(kept)) == [(DAMAGE, "block", first)]
        if first == 7:
            with pytest.raises(DamagedError):
                Log.open(kept.log.store)

    def test_it_goes_on_behind_damage(self, kept: Kept) -> None:
        """Every damaged block is found, and what lies between is counted."""
        for first in (1, 6):
            damage_row(kept.log, BLOCKS, key(first), flip_middle)
        result = verify(kept, toy.machine())
        assert places(result.findings) == [(DAMAGE, "block", 1), (DAMAGE, "block", 6)]
        assert result.damage == result.findings
        assert (result.blocks, result.events) == (2, 6)

    @pytest.mark.parametrize("first", FIRSTS[:-1])
    def test_a_missing_block_is_found(self, kept: Kept, first: int) -> None:
        """The first of the missing events is named."""
        kept.log.store.commit([Change(BLOCKS, key(first), None)], 0)
        assert (DAMAGE, "block", first) in places(findings(kept))

    def test_swapped_blocks_are_found(self, kept: Kept) -> None:
        """Two blocks in each other's place are both found."""
        store = kept.log.store
        one, other = store.get(BLOCKS, key(1)), store.get(BLOCKS, key(7))
        store.commit([Change(BLOCKS, key(1), other), Change(BLOCKS, key(7), one)], 0)
        assert places(findings(kept)) == [(DAMAGE, "block", 1), (DAMAGE, "block", 7)]

    @pytest.mark.parametrize("first", FIRSTS)
    def test_another_logs_block_is_found(self, kept: Kept, first: int) -> None:
        """A sound block that does not follow the one before it is found."""
        count = {1: 2, 3: 3, 6: 1, 7: 3}[first]
        stray = Block.seal(
            Tail(first - 1, 0xBAD), Records.pack([b"p"] * count), time_ns=9
        )
        kept.log.store.commit([Change(BLOCKS, key(first), stray.encoded)], 0)
        assert (DAMAGE, "block", first) in places(findings(kept))

    def test_an_event_that_cannot_be_replayed_is_found(self, kept: Kept) -> None:
        """Where the decoder refuses what it took, the block is named."""
        kept.append((0, [b"m10", b"r11"]), (0, [b"m12"]))
        [found] = findings(kept)
        assert (found.severity, found.place, found.first, found.last) == (
            DAMAGE,
            "block",
            10,
            11,
        )
        assert "event 11 can no longer be replayed" in found.reason
        assert verify(kept, None).findings == []

    def test_gaps_are_listed(self, kept: Kept) -> None:
        """Events that salvage could not save are listed, and are no damage."""
        gap = Block.seal(kept.log.tail, Records.gap(5), time_ns=100)
        kept.log.commit(Transaction((gap,)))
        result = verify(kept, toy.machine())
        assert result.findings == [Finding(GAP, "block", "5 events are lost", 10, 14)]
        assert result.damage == []

    def test_a_reason_is_one_line_and_no_advice(self, kept: Kept) -> None:
        """What is found says what is wrong; to look at it with verify would be late."""
        damage_row(kept.log, BLOCKS, key(3), flip_middle)
        damage_row(kept.log, CURSORS, b"out", flip_middle)
        kept.write_snapshot(9)
        change(kept.write_snapshot(2), flip_middle)
        for found in findings(kept):
            assert "\n" not in found.reason
            assert "alphabet-replay verify" not in found.reason


class TestRanges:
    """Which events a finding is about."""

    @pytest.mark.parametrize(("first", "last"), [(1, 2), (3, 5), (6, 6), (7, None)])
    def test_damage_reaches_up_to_the_next_block(
        self, kept: Kept, first: int, last: int | None
    ) -> None:
        """A damaged block's range ends before the next; of the last nobody knows."""
        damage_row(kept.log, BLOCKS, key(first), flip_middle)
        [found] = findings(kept)
        assert (found.first, found.last) == (first, last)

    def test_two_in_a_row(self, kept: Kept) -> None:
        """Damage that follows damage begins where the block's key says."""
        for first in (3, 6):
            damage_row(kept.log, BLOCKS, key(first), flip_middle)
        assert [(each.first, each.last) for each in findings(kept)] == [(3, 5), (6, 6)]

    def test_a_block_under_a_later_key(self, kept: Kept) -> None:
        """A block that was moved away is looked for where it should be."""
        store = kept.log.store
        value = store.get(BLOCKS, key(3))
        store.commit([Change(BLOCKS, key(3), None), Change(BLOCKS, key(5), value)], 0)
        [found] = findings(kept)
        assert (found.first, found.last) == (3, 5)
        assert "the block of 3 is stored in its place" in found.reason


class TestStructure:
    """What others found of the file under the log."""

    def verify(self, kept: Kept, structure: Structure) -> list[Finding]:
        """Verify a log on a file of this structure."""
        verifier = Verifier(
            kept.log, kept.snapshots, toy.machine(), structure=structure
        )
        return verifier.run().findings

    @pytest.mark.parametrize(
        ("flaw", "finding"),
        [
            (
                Flaw("cursors", 9, "it is zeros"),
                Finding(DAMAGE, "page 9 of cursors", "it is zeros"),
            ),
            (
                Flaw("blocks", None, "it is missing"),
                Finding(DAMAGE, "blocks", "it is missing", 1),
            ),
            (
                Flaw("blocks", 9, "it is zeros", Bounds(key(3), key(7))),
                Finding(DAMAGE, "page 9 of blocks", "it is zeros", 3, 6),
            ),
            (
                Flaw("blocks", 9, "it is zeros", Bounds(key(3), None)),
                Finding(DAMAGE, "page 9 of blocks", "it is zeros", 3),
            ),
            (
                Flaw("blocks", 9, "it is zeros", Bounds(key(3), key(3) + b"\0")),
                Finding(DAMAGE, "page 9 of blocks", "it is zeros", 3, 3),
            ),
        ],
    )
    def test_a_flaw_is_damage(self, flaw: Flaw, finding: Finding) -> None:
        """A flaw is a finding that names page, table and the events under it."""
        assert structure_findings(Structure((flaw,))) == [finding]

    def test_a_base_bounds_a_flaw(self) -> None:
        """Events up to the base were never in the file."""
        [found] = structure_findings(Structure((Flaw("blocks", 9, "?"),)), 100)
        assert found.first == 101

    def test_lost_pages_are_a_note(self, kept: Kept) -> None:
        """Pages that are neither used nor free do no harm, and are noted."""
        [found] = self.verify(kept, Structure(lost_pages=3))
        assert (found.severity, found.place) == (NOTE, "free list")

    def test_what_is_not_certain_is_a_note(self, kept: Kept) -> None:
        """What was seen while a server changed it is no damage."""
        flaw = Flaw("blocks", 9, "it is zeros")
        [found] = self.verify(kept, Structure((flaw,), is_certain=False))
        assert (found.severity, found.place) == (NOTE, "file")
        assert "stop the server" in found.reason

    def test_what_is_under_the_log_comes_first(self, kept: Kept) -> None:
        """The file's flaws come before the damage that they may be the cause of."""
        damage_row(kept.log, BLOCKS, key(6), flip_middle)
        found = self.verify(kept, Structure((Flaw("free list", 5, "it is zeros"),)))
        assert [each.place for each in found] == ["page 5 of free list", "block"]

    def test_a_tail_that_cannot_be_reached_is_not_blamed(self, kept: Kept) -> None:
        """Where blocks may be there, what points at them is not ahead of the log."""
        kept.write_snapshot(2)
        kept.write_snapshot(9)
        kept.log.commit(Transaction(cursors={"out": Cursor(9, 9)}))
        kept.lose_tail(5)
        flaw = Flaw("blocks", 9, "it is zeros", Bounds(key(6), None))
        assert places(self.verify(kept, Structure((flaw,)))) == [
            (DAMAGE, "page 9 of blocks", 6),
            (NOTE, "snapshot 9", 9),
        ]

    def test_blocks_that_cannot_be_reached_are_no_other_course(
        self, kept: Kept
    ) -> None:
        """A snapshot whose block may be on a damaged page is not said to be ahead."""
        kept.write_snapshot(5)
        kept.log.store.commit([Change(BLOCKS, key(3), None)], 0)
        flaw = Flaw("blocks", 9, "it is zeros", Bounds(key(3), key(6)))
        assert places(self.verify(kept, Structure((flaw,)))) == [
            (DAMAGE, "page 9 of blocks", 3),
            (DAMAGE, "block", 3),
            (NOTE, "snapshot 5", 5),
        ]

    def test_rows_that_cannot_be_reached_are_not_missed(self, kept: Kept) -> None:
        """A stream's row that may be on a damaged page is not said to be lost."""
        kept.log.store.commit([Change(STREAMS, key(7), None)], 0)
        flaw = Flaw("streams", 9, "it is zeros")
        [found] = self.verify(kept, Structure((flaw,)))
        assert found.place == "page 9 of streams"
        [found] = self.verify(kept, Structure((Flaw("rejects", 9, "?"),)))[1:]
        assert found.place == "stream 7"


class TestRows:
    """Damage beside the blocks."""

    @pytest.mark.parametrize(
        ("table", "row"),
        [
            (STREAMS, key(7)),
            (STREAMS, key(8)),
            (CURSORS, b"out"),
            (REJECTS, key(1)),
            (REJECTS, key(2)),
        ],
    )
    @pytest.mark.parametrize("damage", DAMAGES)
    def test_damage_is_found(
        self, kept: Kept, table: str, row: bytes, damage: Damage
    ) -> None:
        """A changed row of any table is found, and found alone; the row is named."""
        damage_row(kept.log, table, row, damage)
        [found] = findings(kept)
        assert (found.severity, found.place) == (DAMAGE, table)
        assert repr(row) in found.reason

    @pytest.mark.parametrize("damage", DAMAGES)
    def test_a_damaged_base_is_found(self, tmp_path: Path, damage: Damage) -> None:
        """A changed base state is found, and the blocks are looked at all the same."""
        kept = Kept.create(MemoryStore(), tmp_path, (0, b"m1"), (0, b"m2"))
        kept.append((0, [b"m3"]), (0, [b"m4"]))
        damage_row(kept.log, META, BASE_KEY, damage)
        damage_row(kept.log, BLOCKS, key(3), flip_middle)
        assert places(findings(kept)) == [(DAMAGE, "base", 2), (DAMAGE, "block", 3)]

    def test_a_damaged_base_is_not_blamed_on_snapshots(self, tmp_path: Path) -> None:
        """Without the state at the base no snapshot can be held against a replay."""
        kept = Kept.create(MemoryStore(), tmp_path, (0, b"m1"), (0, b"m2"))
        kept.append((0, [b"m3"]))
        kept.write_snapshot(3)
        damage_row(kept.log, META, BASE_KEY, flip_middle)
        assert places(findings(kept)) == [
            (DAMAGE, "base", 2),
            (NOTE, "snapshot 3", 3),
        ]

    def test_a_base_of_another_version_is_refused(self, tmp_path: Path) -> None:
        """A base that this code cannot load is no damage: other code is needed."""
        kept = Kept.create(MemoryStore(), tmp_path, (0, b"m1"))
        with pytest.raises(ForeignError, match="version 1, not 2"):
            verify(kept, in_version(2))
        assert verify(kept, None).findings == []

    def test_a_lost_stream_is_found(self, kept: Kept) -> None:
        """A stream that the blocks know and the table does not is found."""
        kept.log.store.commit([Change(STREAMS, key(7), None)], 0)
        [found] = findings(kept)
        assert (found.severity, found.place) == (DAMAGE, "stream 7")
        assert "the blocks have it" in found.reason

    @pytest.mark.parametrize("message_id", [59, 0])
    def test_a_stream_that_went_back_is_found(
        self, kept: Kept, message_id: int
    ) -> None:
        """A point before the one in the blocks, which would count votes twice."""
        kept.log.commit(Transaction(points=(Point(7, message_id, b"seven"),)))
        [found] = findings(kept)
        assert (found.place, found.first) == ("stream 7", 6)
        assert f"at message {message_id}, and the blocks are at 60" in found.reason

    def test_a_stream_of_another_name_is_found(self, kept: Kept) -> None:
        """A point whose name is not that in the blocks is found."""
        kept.log.commit(Transaction(points=(Point(7, 60, b"other"),)))
        [found] = findings(kept)
        assert (found.severity, found.place) == (DAMAGE, "stream 7")
        assert "names it b'other', the blocks b'seven'" in found.reason

    def test_a_stream_ahead_is_found(self, kept: Kept) -> None:
        """A point written at an event that the log does not have is found."""
        kept.lose_tail(5)
        kept.log.commit(Transaction(cursors={"out": Cursor(5, 9)}))
        [found] = findings(kept)
        assert (found.severity, found.place, found.first) == (DAMAGE, "stream 7", 6)
        assert "it is at 6, and the log goes from 0 to 5" in found.reason

    @pytest.mark.parametrize("sequence", [10, 2**64 - 1])
    def test_a_cursor_ahead_is_found(self, kept: Kept, sequence: int) -> None:
        """A cursor beyond the log's end is found."""
        kept.log.commit(Transaction(cursors={"late": Cursor(sequence, 0)}))
        found = findings(kept)
        assert places(found) == [(DAMAGE, "sink late", sequence)]

    def test_a_cursor_before_the_base_is_found(self, tmp_path: Path) -> None:
        """A cursor at events that a compacted log has not any more is found."""
        kept = Kept.create(MemoryStore(), tmp_path, (0, b"m1"), (0, b"m2"))
        cursors = {"old": Cursor(1, 0), "new": Cursor(2, 0)}
        kept.log.commit(Transaction(cursors=cursors))
        assert places(findings(kept)) == [(DAMAGE, "sink old", 1)]

    def test_a_reject_of_a_lost_event_is_a_note(self, kept: Kept) -> None:
        """A failed event that the log lost is noted: serving what is left keeps it."""
        reject = attrs.evolve(samples.REJECT, sequence=12)
        kept.log.commit(Transaction(rejects=(reject,)))
        result = verify(kept, toy.machine())
        assert places(result.findings) == [(NOTE, "reject 3", 12)]
        assert result.damage == []


class TestSnapshots:
    """Snapshots against the log."""

    @pytest.mark.parametrize("damage", DAMAGES)
    def test_damage_is_found(self, kept: Kept, damage: Damage) -> None:
        """A changed file is found; the others are compared."""
        kept.write_snapshot(2)
        change(kept.write_snapshot(5), damage)
        result = verify(kept, toy.machine())
        assert places(result.findings) == [(DAMAGE, "snapshot 5", 5)]
        assert result.snapshots == 2

    @pytest.mark.parametrize("sequence", range(10))
    def test_a_wrong_state_is_found(self, kept: Kept, sequence: int) -> None:
        """A whole snapshot with another state is found, wherever in a block it is."""
        wrong = [(0, b"other")] * sequence or [(0, b"m")]
        shared, own = (
            State(name, "dump", data)
            for name, data in toy.fold(*wrong).states_at(1).items()
        )
        kept.write_snapshot(sequence, lambda it: attrs.evolve(it, states=(shared, own)))
        [found] = findings(kept)
        assert (found.severity, found.first) == (DAMAGE, sequence)
        assert "not the state of a replay: damaged, or the code changed" in found.reason
        assert verify(kept, None).findings == []

    def test_the_replay_goes_on_behind_it(self, kept: Kept) -> None:
        """A wrong snapshot does not make the right ones behind it wrong."""
        states = kept.make_snapshot(2).states
        kept.write_snapshot(4, lambda it: attrs.evolve(it, states=states))
        for sequence in (2, 5, 8, 9):
            kept.write_snapshot(sequence)
        assert places(findings(kept)) == [(DAMAGE, "snapshot 4", 4)]

    def test_another_logs_is_found(self, kept: Kept) -> None:
        """A snapshot of another log does not belong there."""
        kept.write_snapshot(5, lambda it: attrs.evolve(it, log_id="other"))
        [found] = findings(kept)
        assert (found.severity, found.place) == (DAMAGE, "snapshot 5")
        assert "it belongs to another log, other" in found.reason

    def test_one_ahead_is_found(self, kept: Kept) -> None:
        """A snapshot that the log does not reach tells of a lost tail."""
        kept.log.store.commit([Change(STREAMS, key(7), None)], 0)
        kept.write_snapshot(8)
        kept.lose_tail(5)
        [found] = findings(kept)
        assert (found.severity, found.place, found.first) == (DAMAGE, "snapshot 8", 8)
        assert "the log ends at 5" in found.reason

    def test_one_of_another_course_is_found(self, kept: Kept) -> None:
        """A snapshot whose block has another checksum is found."""
        kept.write_snapshot(5, lambda it: attrs.evolve(it, block_checksum=1))
        assert places(findings(kept)) == [(DAMAGE, "snapshot 5", 5)]

    def test_one_inside_a_block_of_another_course_is_found(self, kept: Kept) -> None:
        """A block that was replaced by one that reaches past a snapshot is found.

        The snapshot's witness is the block before, which is the same: a replay alone
        tells. Without one it is not noticed.
        """
        kept.write_snapshot(8)
        kept.lose_tail(6)
        kept.append((1, [b"m7", b"other", b"m9", b"m10"]))
        [found] = findings(kept)
        assert (found.severity, found.place, found.first) == (DAMAGE, "snapshot 8", 8)
        assert "not the state of a replay" in found.reason
        assert verify(kept, None).findings == []

    def test_another_version_is_a_note(self, kept: Kept) -> None:
        """A snapshot that this code cannot load is noted, and the log is sound."""
        kept.write_snapshot(5, lambda it: attrs.evolve(it, state_version=2))
        kept.write_snapshot(9)
        result = verify(kept, toy.machine())
        assert places(result.findings) == [(NOTE, "snapshot 5", 5)]
        assert result.damage == []

    @pytest.mark.parametrize(
        ("first", "sequence"),
        [(3, 3), (3, 4), (3, 5), (3, 6), (3, 9), (7, 7), (7, 9)],
    )
    def test_behind_damage_it_is_a_note(
        self, kept: Kept, first: int, sequence: int
    ) -> None:
        """What cannot be compared for the damage before it is noted, and not blamed."""
        kept.write_snapshot(2)
        kept.write_snapshot(sequence)
        damage_row(kept.log, BLOCKS, key(first), flip_middle)
        kept.log = Log.open(kept.log.store, is_damage_accepted=True)
        assert places(findings(kept)) == [
            (DAMAGE, "block", first),
            (NOTE, f"snapshot {sequence}", sequence),
        ]
        assert places(verify(kept, None).findings) == [(DAMAGE, "block", first)]

    def test_what_is_wrong_with_the_log_comes_first(self, kept: Kept) -> None:
        """The first finding is the log's own, if it has one."""
        change(kept.write_snapshot(2), flip_middle)
        damage_row(kept.log, CURSORS, b"out", flip_middle)
        damage_row(kept.log, BLOCKS, key(6), flip_middle)
        assert [found.place for found in findings(kept)] == [
            "block",
            "cursors",
            "snapshot 2",
        ]

    def test_of_a_log_without_events(self, tmp_path: Path) -> None:
        """A snapshot at the base of a log without blocks is compared too."""
        kept = Kept.create(MemoryStore(), tmp_path / "s", (0, b"m1"), (0, b"m2"))
        kept.write_snapshot(2)
        assert findings(kept) == []
        states = (State("shared", "dump", bytes(12)), State("own", "dump", bytes(12)))
        kept.write_snapshot(2, lambda it: attrs.evolve(it, states=states))
        assert places(findings(kept)) == [(DAMAGE, "snapshot 2", 2)]


class Sieve:
    """A computation whose state is a set, which events enter and leave."""

    def name(self) -> str:
        """Name it."""
        return "sieve"

    def compute(self, data: bytes, state: set[int]) -> tuple[bytes, bool]:
        """Put a number into the set, or take it out."""
        number = int(data[1:])
        (state.add if data[:1] == b"+" else state.discard)(number)
        return data, True


class SetBuilder:
    """Makes sets, which go through pickle."""

    def build(self) -> set[int]:
        """Make an empty one."""
        return set()


def test_a_state_of_many_shapes_is_sound(tmp_path: Path) -> None:
    """Equal sets may have other bytes by the way they came about; that is no damage."""
    builder = ApplicationBuilder("toy")
    builder.new_pipeline("one", TCPSourceConfig("127.0.0.1", "0", toy.Decoder()))
    builder.to_stateful(Sieve(), SetBuilder(), "numbers")
    builder.to_sink(TCPSinkConfig("", "", toy.Encoder()))
    machine = Machine(builder.build())
    kept = Kept.create(MemoryStore(), tmp_path / "snapshots")
    kept.append((0, [b"+%d" % n for n in range(40)]))
    kept.append((0, [b"-%d" % n for n in range(40) if n not in {10, 17}]))
    server = machine.fresh()
    kept.replayer().recover(server)
    # As a server that began at a snapshot before this one would have it.
    server.load(server.dump())
    last = kept.log.tail.sequence
    kept.snapshots.write(take_snapshot(kept.log, server, last, server.dump()))
    kept.append((0, [b"+3"]))
    assert verify(kept, machine).findings == []


@attrs.define
class BusySnapshots(SnapshotDirectory):
    """The snapshots of a server that does something before each look at them."""

    between: Callable[[], None] = lambda: None

    def sequences(self) -> list[int]:
        """Let the server go on, then look, and let it go on once more."""
        self.between()
        found = super().sequences()
        self.between()
        return found


@pytest.mark.parametrize("pause", range(1, 7))
def test_a_live_log_is_sound(kept: Kept, pause: int) -> None:
    """A server that commits, takes snapshots and removes old ones is not blamed."""
    server = kept
    store = server.log.store
    assert isinstance(store, MemoryStore)
    steps = 0

    def go_on() -> None:
        nonlocal steps
        steps += 1
        number = server.log.tail.sequence + 1
        if steps % pause or number > 60:
            return
        server.append((0, [b"m%d" % number]), points=(Point(7, 10 * number, b"seven"),))
        server.log.commit(Transaction(cursors={"out": Cursor(number, number)}))
        server.write_snapshot(number)
        server.snapshots.prune(None)

    for sequence in (2, 4, 5):
        server.write_snapshot(sequence)
    busy = BusyStore(store.disk, between=go_on)
    snapshots = BusySnapshots(server.snapshots.path, between=go_on)
    log = Log.open(busy)
    result = Verifier(log, snapshots, toy.machine()).run()
    assert result.findings == []
    assert server.log.tail.sequence > 9


def test_a_snapshot_of_another_name_is_found(kept: Kept) -> None:
    """A snapshot under another sequence's name is found under that name."""
    kept.write_snapshot(4).rename(kept.snapshots.file(5))
    with pytest.raises(SnapshotError):
        kept.snapshots.read(5)
    assert places(findings(kept)) == [(DAMAGE, "snapshot 5", 5)]
