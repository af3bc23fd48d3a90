"""Snapshot and rest of the log give what the whole log gives, or say why not."""

import tempfile
from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from log import failpoint
from log.block import Block, Records, Tail
from log.errors import DamagedError, ForeignError
from log.log import BASE_KEY, Log, Transaction
from log.memory_store import MemoryDisk, MemoryStore
from log.row import seal_row
from log.store import BLOCKS, META, Change
from recovery.errors import AheadError, GapError, ReplayError
from recovery.replay import Notice, Replayer, agrees, take_snapshot
from recovery.snapshot import Snapshot, State
from tests import toy
from tests.machines import (
    DAMAGES,
    Batch,
    Damage,
    Kept,
    batches,
    change,
    flip_middle,
    in_version,
    key,
)


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    """Return a log of events 1 to 9 in four blocks, that begin at 1, 3, 6 and 7."""
    kept = Kept.create(MemoryStore(), tmp_path / "snapshots")
    kept.append(
        (0, [b"m1", b"f2"]),
        (1, [b"m3", b"p4", b"x5"]),
        (0, [b"u6"]),
        (1, [b"S7", b"m8", b"m9"]),
    )
    return kept


def test_what_is_ahead_is_told_with_the_ways_on() -> None:
    """A snapshot ahead may be the base of a new log; of a sink there is one way on."""
    for file in (None, Path("data/snapshots/9.snapshot")):
        line = str(AheadError(Path("data"), "sink out", 9, 7, file))
        assert "data: sink out is at sequence 9, and the log ends at 7" in line
        assert "with --accept-lost-tail" in line
        assert (f"compact data TO --from-snapshot {file}'" in line) == bool(file)


class TestEquality:
    """The promise: snapshot + rest of the log = whole log."""

    @given(
        before=st.lists(toy.events, max_size=4),
        made=st.lists(batches, max_size=6),
        data=st.data(),
    )
    def test_all_ways_lead_to_one_state(
        self, before: list[toy.Event], made: list[Batch], data: st.DataObject
    ) -> None:
        """From the base or any snapshot, in a block or at its end, it is the fold."""
        with tempfile.TemporaryDirectory() as path:
            kept = Kept.create(MemoryStore(), Path(path) / "snapshots", *before)
            kept.append(*made)
            base, last = len(before), len(kept.folded.events)
            sequences = st.integers(base, last)
            assert kept.recover().start == base
            for sequence in data.draw(st.sets(sequences, max_size=4)):
                kept.write_snapshot(sequence)
            recovered = kept.recover()
            assert recovered.sequence == last
            assert recovered.start == max([base, *kept.snapshots.sequences()])
            assert recovered.replayed == last - recovered.start
            for at in data.draw(st.lists(sequences, max_size=3)):
                kept.recover(at)

    def test_every_snapshot_gives_every_state(self, kept: Kept) -> None:
        """Whatever snapshot is there, every state from it on is reached from it."""
        for snapshot in range(1, 10):
            file = kept.write_snapshot(snapshot)
            for at in range(10):
                recovered = kept.recover(at)
                is_used = snapshot <= at
                assert recovered.is_snapshot == is_used
                assert recovered.start == (snapshot if is_used else 0)
                assert recovered.replayed == at - recovered.start
            file.unlink()

    def test_what_replay_dumps_is_a_snapshot(self, kept: Kept) -> None:
        """The states that a replay reached, stored, serve as those of a live server."""
        machine = toy.machine()
        kept.replayer().recover(machine, 4)
        snapshot = take_snapshot(kept.log, machine, 4, machine.dump())
        assert snapshot == kept.make_snapshot(4)
        assert (snapshot.block_sequence, snapshot.sequence) == (2, 4)

    def test_the_base_is_the_begin(self, tmp_path: Path) -> None:
        """A compacted log begins with the state at its base, and has none before."""
        kept = Kept.create(MemoryStore(), tmp_path, (0, b"m"), (1, b"p"), (0, b"f"))
        recovered = kept.recover()
        assert (recovered.start, recovered.replayed, recovered.is_snapshot) == (
            3,
            0,
            False,
        )
        kept.append((1, [b"p4"]))
        assert kept.recover().sequence == 4

    def test_a_snapshot_at_the_base_serves(self, tmp_path: Path) -> None:
        """A snapshot just where a compacted log begins is as good as its base."""
        kept = Kept.create(MemoryStore(), tmp_path, (0, b"m"), (1, b"p"))
        kept.write_snapshot(2)
        recovered = kept.recover()
        assert (recovered.start, recovered.is_snapshot) == (2, True)
        assert recovered.notices == ()

    def test_a_loaded_snapshot_is_given_back(self, kept: Kept) -> None:
        """Whoever has a machine load a snapshot is given it."""
        snapshot = kept.make_snapshot(4)
        machine = toy.machine()
        assert kept.replayer().load_snapshot(machine, snapshot) == snapshot
        assert toy.state_bytes(machine) == kept.folded.states_at(4)

    def test_a_snapshot_at_the_base_is_held_to_it(self, tmp_path: Path) -> None:
        """A snapshot where a log begins, of another block than its base, is ahead."""
        kept = Kept.create(MemoryStore(), tmp_path, (0, b"m"), (1, b"p"))
        kept.write_snapshot(2, lambda it: attrs.evolve(it, block_checksum=0xBAD))
        with pytest.raises(AheadError):
            kept.recover()

    def test_each_block_is_an_instant(
        self, kept: Kept, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A recovery can be made to end behind each block that it replays."""
        seen: list[str] = []
        monkeypatch.setattr(failpoint, "handler", seen.append)
        kept.replayer().recover(toy.machine())
        assert seen == ["recover.block"] * 4

    def test_a_machine_may_be_used_again(self, kept: Kept) -> None:
        """What a machine did before has no part in the state at the log's base."""
        machine = toy.machine()
        replayer = kept.replayer()
        for at in (9, 4, 0):
            replayer.recover(machine, at)
            assert toy.state_bytes(machine) == kept.folded.states_at(at)

    @pytest.mark.parametrize("at", [4, 5])
    def test_what_is_behind_is_not_read(self, kept: Kept, at: int) -> None:
        """Damage in the next block harms nobody who replays up to the one before it."""
        store = kept.log.store
        store.commit([Change(BLOCKS, key(6), b"no block")], 9)
        assert kept.recover(at).sequence == at
        with pytest.raises(DamagedError, match="at sequence 6"):
            kept.recover(6)

    def test_progress_is_told(self, kept: Kept) -> None:
        """Whoever waits is told each block's end, and never more than was asked for."""
        told: list[int] = []
        kept.replayer().recover(toy.machine(), progress=told.append)
        kept.replayer().recover(toy.machine(), 4, told.append)
        assert told == [2, 5, 6, 9, 2, 4]

    def test_where_nothing_is_left_nothing_is_read(self, kept: Kept) -> None:
        """A snapshot of just the moment is enough, whatever is damaged behind it."""
        kept.write_snapshot(5)
        kept.log.store.commit([Change(BLOCKS, key(6), b"no block")], 9)
        told: list[int] = []
        recovered = kept.replayer().recover(toy.machine(), 5, told.append)
        assert (recovered.start, recovered.replayed, told) == (5, 0, [])

    def test_nothing_is_written(self, kept: Kept) -> None:
        """Recovery changes neither log nor snapshots, whatever it meets."""
        kept.write_snapshot(3)
        change(kept.write_snapshot(5), flip_middle)
        store = kept.log.store
        assert isinstance(store, MemoryStore)
        tables = {table: dict(rows) for table, rows in store.disk.tables.items()}
        files = {file: file.read_bytes() for file in kept.snapshots.path.iterdir()}
        kept.recover()
        assert store.disk.tables == tables
        assert files == {
            file: file.read_bytes() for file in kept.snapshots.path.iterdir()
        }


class TestChoice:
    """Which snapshot serves."""

    def test_the_newest_serves(self, kept: Kept) -> None:
        """Of several good snapshots the newest is taken."""
        for sequence in (2, 8, 5):
            kept.write_snapshot(sequence)
        assert kept.recover().start == 8

    @pytest.mark.parametrize("damage", DAMAGES)
    def test_a_damaged_one_gives_way(self, kept: Kept, damage: Damage) -> None:
        """The next older serves, and the damaged one is named to be set aside."""
        kept.write_snapshot(2)
        change(kept.write_snapshot(5), damage)
        recovered = kept.recover()
        assert (recovered.start, recovered.replayed) == (2, 7)
        [notice] = recovered.notices
        assert (notice.sequence, notice.is_broken) == (5, True)

    def test_the_base_is_the_last_resort(self, kept: Kept) -> None:
        """With all snapshots damaged, the whole log is replayed."""
        for sequence in (2, 5, 9):
            change(kept.write_snapshot(sequence), flip_middle)
        recovered = kept.recover()
        assert (recovered.start, recovered.is_snapshot) == (0, False)
        assert [notice.sequence for notice in recovered.notices] == [9, 5, 2]

    def test_another_logs_is_broken(self, kept: Kept) -> None:
        """A snapshot of another log is set aside, whatever it says, even if ahead."""
        kept.write_snapshot(5, lambda it: attrs.evolve(it, log_id="other"))
        ahead = attrs.evolve(kept.make_snapshot(9), log_id="other", sequence=12)
        kept.snapshots.write(ahead)
        recovered = kept.recover()
        reason = "it belongs to log other, not toy-log"
        assert recovered.start == 0
        assert recovered.notices == (
            Notice(12, reason, is_broken=True),
            Notice(5, reason, is_broken=True),
        )

    def test_another_applications_is_broken(self, kept: Kept) -> None:
        """A snapshot of another application is set aside."""
        kept.write_snapshot(5, lambda it: attrs.evolve(it, application="tally"))
        [notice] = kept.recover().notices
        assert notice == Notice(5, "it belongs to application 'tally'", is_broken=True)

    def test_another_version_is_passed_over(self, kept: Kept) -> None:
        """A snapshot of another STATE_VERSION stays, and an older one serves."""
        kept.write_snapshot(2)
        kept.write_snapshot(5, lambda it: attrs.evolve(it, state_version=2))
        recovered = kept.recover()
        assert recovered.start == 2
        assert recovered.notices == (
            Notice(5, "it is of version 2, not 1", is_broken=False),
        )

    def test_the_version_is_the_modules(self, kept: Kept) -> None:
        """The version that counts is what the application's module says, else 1."""
        kept.write_snapshot(5, lambda it: attrs.evolve(it, state_version=2))
        assert kept.replayer().recover(in_version(2)).start == 5
        kept.write_snapshot(5)
        assert kept.replayer().recover(in_version(1)).start == 5
        assert kept.replayer().recover(in_version(2)).start == 0

    @pytest.mark.parametrize(
        ("states", "reason"),
        [
            ((), "it holds other states than the application's: none"),
            (
                (State("shared", "dump", bytes(12)),),
                "it holds other states than the application's: shared",
            ),
            (
                (State("shared", "pickle", bytes(12)), State("own", "dump", bytes(12))),
                "state 'shared': it was stored by pickle, not by dump",
            ),
            (
                (State("shared", "dump", bytes(12)), State("own", "dump", bytes(3))),
                "state 'own': it cannot be loaded: error: unpack requires",
            ),
        ],
    )
    def test_states_that_do_not_load_are_passed_over(
        self, kept: Kept, states: tuple[State, ...], reason: str
    ) -> None:
        """A whole snapshot that this code cannot load stays, and changes no state."""
        kept.write_snapshot(2)
        kept.write_snapshot(5, lambda it: attrs.evolve(it, states=states))
        recovered = kept.recover()
        assert recovered.start == 2
        [notice] = recovered.notices
        assert (notice.sequence, notice.is_broken) == (5, False)
        assert notice.reason.startswith(reason)

    def test_one_before_the_base_is_passed_over(self, tmp_path: Path) -> None:
        """A snapshot older than a compacted log's base is of no use."""
        kept = Kept.create(MemoryStore(), tmp_path, (0, b"m"), (1, b"p"), (0, b"f"))
        old = attrs.evolve(kept.make_snapshot(3), sequence=2)
        kept.snapshots.write(old)
        recovered = kept.recover()
        assert recovered.start == 3
        reason = "it is older than the log's base"
        assert recovered.notices == (Notice(2, reason, is_broken=False),)


class TestAhead:
    """A snapshot that the log does not reach: its tail was lost."""

    @pytest.fixture
    def short(self, kept: Kept) -> Kept:
        """Return a log that ends at 5, with snapshots at 2 and 8."""
        kept.write_snapshot(2)
        kept.write_snapshot(8)
        kept.lose_tail(5)
        return kept

    def test_it_is_refused(self, short: Kept) -> None:
        """Both sequences are named, and the two ways on, in one line."""
        with pytest.raises(AheadError) as caught:
            short.recover()
        error = caught.value
        assert (error.sequence, error.last_sequence) == (8, 5)
        assert error.snapshot == short.snapshots.file(8)
        line = str(error)
        assert "snapshot 8 is at sequence 8, and the log ends at 5" in line
        assert "--accept-lost-tail" in line
        assert (
            f"alphabet-replay compact {error.path} TO --from-snapshot "
            f"{short.snapshots.file(8)}'" in line
        )
        assert "\n" not in line

    def test_it_is_passed_over_by_consent(self, short: Kept) -> None:
        """With consent what is left is served, and the one ahead is named."""
        recovered = short.recover(is_lost_tail_accepted=True)
        assert (recovered.start, recovered.sequence) == (2, 5)
        assert recovered.ahead == (8,)
        assert recovered.notices == ()

    def test_the_past_needs_no_consent(self, short: Kept) -> None:
        """A moment of the past is rebuilt whatever lies ahead."""
        assert short.recover(4).sequence == 4

    def test_a_tail_lost_within_a_block_is_noticed(self, kept: Kept) -> None:
        """A snapshot taken in the middle of a block that is lost is ahead."""
        kept.write_snapshot(7)
        kept.lose_tail(6)
        with pytest.raises(AheadError, match="at sequence 7, and the log ends at 6"):
            kept.recover()

    @pytest.mark.parametrize("sequence", [8, 9])
    def test_a_log_that_went_on_otherwise_is_refused(
        self, kept: Kept, sequence: int
    ) -> None:
        """A snapshot whose block has another checksum is ahead, though within reach.

        Whether it was taken at its block's end, or within the next block.
        """
        kept.append((0, [b"p10"]))
        kept.write_snapshot(sequence)
        kept.lose_tail(5)
        kept.append((0, [b"other"]), (1, [b"m7", b"m8", b"m9"]), (0, [b"p10"]))
        with pytest.raises(AheadError, match="or differs there") as caught:
            kept.recover()
        assert (caught.value.sequence, caught.value.last_sequence) == (sequence, 10)
        recovered = kept.recover(is_lost_tail_accepted=True)
        assert recovered.ahead == (sequence,)
        assert recovered.start == 0

    def test_a_lost_log_is_noticed(self, kept: Kept) -> None:
        """A log that lost everything is noticed too."""
        kept.write_snapshot(2)
        kept.lose_tail(0)
        with pytest.raises(AheadError, match="the log ends at 0"):
            kept.recover()


class TestGaps:
    """Lost events, as salvage leaves them."""

    @pytest.fixture
    def gapped(self, kept: Kept) -> Kept:
        """Return a log that lacks events 10 to 12, of 14."""
        log = kept.log
        gap = Block.seal(log.tail, Records.gap(3), time_ns=100)
        rest = Block.seal(gap.tail, Records.pack([b"m13", b"m14"]), time_ns=100)
        log.commit(Transaction((gap, rest)))
        return kept

    def test_a_gap_is_refused(self, gapped: Kept) -> None:
        """A state that needs lost events is refused, and the events are named."""
        for at in (10, 12, 13, None):
            with pytest.raises(GapError, match="events 10 to 12 are lost") as caught:
                gapped.recover(at)
            assert "--accept-gaps" in str(caught.value)
        assert gapped.recover(9).sequence == 9

    def test_a_gap_is_passed_by_consent(self, gapped: Kept) -> None:
        """With consent the state lacks the lost events, and no others."""
        machine = toy.machine()
        recovered = gapped.replayer(are_gaps_accepted=True).recover(machine)
        assert (recovered.sequence, recovered.replayed) == (14, 14)
        rest: list[toy.Event] = [(0, b"m13"), (0, b"m14")]
        folded = toy.fold(*gapped.folded.events, *rest)
        assert toy.state_bytes(machine) == folded.states_at(11)

    def test_a_snapshot_behind_it_costs_no_consent(self, gapped: Kept) -> None:
        """Where a snapshot beyond the gap is good, nothing that is needed is lost."""
        machine = toy.machine()
        gapped.replayer(are_gaps_accepted=True).recover(machine, 13)
        gapped.snapshots.write(take_snapshot(gapped.log, machine, 13, machine.dump()))
        recovered = gapped.replayer().recover(toy.machine())
        assert (recovered.start, recovered.replayed) == (13, 1)


class TestRefusal:
    """What cannot be replayed."""

    def test_a_decoder_that_refuses_what_it_took(self, kept: Kept) -> None:
        """The event is named, and that the application's code changed."""
        kept.append((0, [b"m10", b"r11", b"m12"]))
        with pytest.raises(ReplayError, match="event 11 can no longer be") as caught:
            kept.replayer().recover(toy.machine())
        assert caught.value.reason == "ValueError: it wished to be refused"
        kept.replayer().recover(toy.machine(), 10)

    def test_a_base_of_another_version(self, tmp_path: Path) -> None:
        """A compacted log, which begins nowhere else, is refused by another version."""
        kept = Kept.create(MemoryStore(), tmp_path, (0, b"m"), (1, b"p"))
        with pytest.raises(ForeignError, match="version 1, not 2") as caught:
            kept.replayer().recover(in_version(2))
        assert "at 2, cannot be used" in str(caught.value)
        assert "the application's code that it was compacted with" in str(caught.value)

    def test_a_base_that_is_no_snapshot(self, tmp_path: Path) -> None:
        """A base state that was never one is refused."""
        kept = Kept.create(MemoryStore(), tmp_path, (0, b"m"), (1, b"p"))
        row = seal_row(META, BASE_KEY, 2, b"nonsense")
        kept.log.store.commit([Change(META, BASE_KEY, row)], 2)
        with pytest.raises(ForeignError, match="too few for a snapshot"):
            kept.recover()

    @pytest.mark.parametrize("first", [1, 3, 6])
    def test_a_damaged_block_is_named(self, kept: Kept, first: int) -> None:
        """Replay ends at the first block that is damaged, and names it."""
        value = kept.log.store.get(BLOCKS, key(first))
        assert value is not None
        kept.log.store.commit([Change(BLOCKS, key(first), flip_middle(value))], 0)
        with pytest.raises(DamagedError) as caught:
            kept.recover()
        assert caught.value.sequence == first

    def test_what_a_snapshot_spares_is_not_read(self, kept: Kept) -> None:
        """A damaged block that a snapshot lies behind costs nothing."""
        kept.write_snapshot(7)
        value = kept.log.store.get(BLOCKS, key(3))
        assert value is not None
        kept.log.store.commit([Change(BLOCKS, key(3), flip_middle(value))], 0)
        assert kept.recover().start == 7

    @pytest.mark.parametrize("sequence", [2, 5, 6, 8])
    def test_what_follows_a_snapshot_must_follow_it(
        self, kept: Kept, sequence: int
    ) -> None:
        """A block of another log behind the snapshot's is noticed."""
        kept.append((0, [b"p10"]))
        kept.write_snapshot(sequence)
        first = {2: 3, 5: 6, 6: 7, 8: 10}[sequence]
        stray = Block.seal(
            Tail(first - 1, 0xBAD),
            Records.pack([b"p"] * {3: 3, 6: 1, 7: 3, 10: 1}[first]),
            time_ns=50,
        )
        kept.log.store.commit([Change(BLOCKS, key(first), stray.encoded)], 0)
        kept.log = Log.open(kept.log.store)
        with pytest.raises(DamagedError, match="does not follow") as caught:
            kept.replayer().recover(toy.machine())
        assert caught.value.sequence == first


def test_nothing_is_accepted_unasked(kept: Kept) -> None:
    """A replayer that was given no consent has none, to a lost tail or to gaps."""
    replayer = Replayer(kept.log, kept.snapshots)
    gap = Block.seal(kept.log.tail, Records.gap(3), time_ns=100)
    with pytest.raises(GapError):
        replayer.check_gap(gap)
    kept.write_snapshot(8)
    kept.lose_tail(5)
    with pytest.raises(AheadError):
        Replayer(kept.log, kept.snapshots).recover(toy.machine())


@pytest.mark.parametrize(("at", "is_equal"), [(4, True), (3, False)])
def test_a_state_is_held_against_a_snapshot(
    kept: Kept, at: int, *, is_equal: bool
) -> None:
    """A machine agrees with the snapshot of its own state alone, and keeps its own."""
    machine = toy.machine()
    kept.replayer().recover(machine, 4)
    assert agrees(machine, kept.make_snapshot(at)) is is_equal
    assert toy.state_bytes(machine) == kept.folded.states_at(4)


def test_a_snapshot_is_taken_on_a_whole_block(kept: Kept) -> None:
    """A snapshot names the last block that ends at or before it, and its checksum."""
    blocks = {block.last_sequence: block for block in kept.log.read(0)}
    ends = [0, 0, 2, 2, 2, 5, 6, 6, 6, 9]
    for sequence, end in enumerate(ends):
        snapshot = kept.make_snapshot(sequence)
        checksum = blocks[end].checksum if end else 0
        assert snapshot.block_sequence == end
        assert snapshot.block_checksum == checksum
        assert snapshot.log_id == "toy-log"


def test_two_logs_do_not_share_snapshots(kept: Kept) -> None:
    """A log that was made anew does not begin at the old one's snapshot."""
    kept.write_snapshot(5)
    meta = attrs.evolve(toy.META, log_id="another")
    log = Log.create(MemoryStore(MemoryDisk()), meta)
    machine = toy.machine()
    recovered = Replayer(log, kept.snapshots).recover(machine)
    assert (recovered.start, [n.is_broken for n in recovered.notices]) == (0, [True])
    assert isinstance(kept.snapshots.read(5), Snapshot)
