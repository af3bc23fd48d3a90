"""A new log that begins at a snapshot: the same state, outputs, cursors and points."""

import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from log import failpoint
from log.block import Block, Point, Records
from log.directory import DataDirectory
from log.errors import DamagedError, DirectoryError
from log.log import Log, Transaction
from log.memory_store import MemoryStore
from log.row import Cursor
from log.store import BLOCKS, Change
from recovery import copying
from recovery.archive import Archive
from recovery.compact import (
    Compacted,
    CompactError,
    NoBaseError,
    choose_base,
    compact,
    lost_until,
    read_snapshot,
)
from recovery.errors import GapError
from recovery.new_place import new_place
from recovery.replay import Replayer
from recovery.snapshot import Snapshot, State
from recovery.snapshot_directory import SnapshotDirectory
from recovery.verify import Verification, Verifier
from tests import samples, toy
from tests.machines import (
    Batch,
    BusyStore,
    Kept,
    batches,
    change,
    flip_middle,
    in_version,
    key,
)

CREATE_FAILPOINTS = [
    "create.before_log",
    "commit.before_flush",
    "commit.after_flush",
    "create.before_rename",
]
DONE_FAILPOINTS = ["create.after_rename", "create.after_flush"]


class CrashError(BaseException):
    """The end of the process, where a test wants it."""


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    """Return a log of events 1 to 9 in blocks that begin at 1, 3, 6 and 7.

    Streams 7 and 8 are in the blocks, 9 advanced without an event; sinks are at 6 and
    9; one reject is of event 2.
    """
    kept = Kept.create(MemoryStore(), tmp_path / "snapshots")
    kept.append((0, [b"m1", b"f2"]), points=(Point(8, 20, b"eight"),))
    kept.append((1, [b"m3", b"p4", b"x5"]), points=(Point(7, 50, b"seven"),))
    kept.append((0, [b"u6"]), points=(Point(7, 60, b"seven"),))
    kept.append((1, [b"S7", b"m8", b"m9"]))
    rejects = (samples.REJECT, attrs.evolve(samples.REJECT, sequence=2))
    cursors = {"slow": Cursor(6, 77, b"earlier"), "fast": Cursor(9, 99, b"transaction")}
    points = (Point(9, 5, b"nine"), Point(7, 61, b"seven"))
    kept.log.commit(Transaction(cursors=cursors, points=points, rejects=rejects))
    return kept


@contextmanager
def compacted(
    kept: Kept, snapshot: Snapshot, path: Path
) -> Iterator[tuple[Compacted, Log]]:
    """Compact a log to a new directory; give what was said, and the new log."""
    with new_place(path, kept.log.store.path) as target:
        result = compact(kept.log, snapshot, target)
    with closing(target.open_log(is_read_only=True)) as log:
        yield result, log


def outputs(log: Log, after: int, path: Path) -> bytes:
    """Derive the outputs after a cursor, as a sink that comes back gets them."""
    machine = toy.machine()
    start = Replayer(log, SnapshotDirectory(path)).recover(machine, after).sequence
    derived = b""
    for block in log.read(start):
        first = max(after + 1, block.first_sequence)
        records = list(block.records)[first - block.first_sequence :]
        packed = Records.pack(records)
        for outputs in machine.derive(block.pipeline, first, packed):
            derived += outputs.data
    return derived


def events(log: Log) -> list[tuple[int, int, int, bytes]]:
    """Give sequence, pipeline, time and record of every event in a log."""
    return [
        (sequence, block.pipeline, block.time_ns, record)
        for block in log.read(log.base.sequence)
        for sequence, record in enumerate(block.records, block.first_sequence)
    ]


class TestSameState:
    """What the new log gives."""

    @settings(max_examples=settings().max_examples // 4)
    @given(made=st.lists(batches, min_size=1, max_size=5), data=st.data())
    def test_state_and_outputs_are_the_same(
        self, made: list[Batch], data: st.DataObject
    ) -> None:
        """At any base, in a block or at its end, states and outputs are the fold's."""
        with tempfile.TemporaryDirectory() as place:
            path = Path(place)
            kept = Kept.create(MemoryStore(), path / "snapshots")
            kept.append(*made)
            last = kept.log.tail.sequence
            base = data.draw(st.integers(1, last))
            kept.write_snapshot(base)
            snapshot = choose_base(kept.replayer(), toy.machine())
            with compacted(kept, snapshot, path / "new") as (result, log):
                assert (result.base_sequence, result.last_sequence) == (base, last)
                new = Kept(log, SnapshotDirectory(path / "none"), kept.folded)
                for at in range(base, last + 1):
                    assert new.recover(at).start == base
                found = Verifier(log, new.snapshots, toy.machine()).run()
                assert found.findings == []
                assert found.events == last - base
                after = data.draw(st.integers(base, last))
                expected = kept.folded.data(after, last)
                assert outputs(log, after, path / "none") == expected

    @pytest.mark.parametrize("base", range(1, 10))
    def test_events_stay_what_they_were(
        self, kept: Kept, tmp_path: Path, base: int
    ) -> None:
        """Each event behind the base keeps sequence, pipeline, time and record."""
        snapshot = kept.make_snapshot(base)
        with compacted(kept, snapshot, tmp_path / "new") as (_, log):
            assert events(log) == events(kept.log)[base:]

    def test_it_names_its_parent(self, kept: Kept, tmp_path: Path) -> None:
        """The new log has an id of its own and says which log it came from."""
        snapshot = kept.make_snapshot(4)
        with compacted(kept, snapshot, tmp_path / "new") as (result, log):
            expected = attrs.evolve(
                kept.log.meta,
                log_id=result.log_id,
                parent_id="toy-log",
                base_sequence=4,
                base_checksum=snapshot.block_checksum,
            )
            assert log.meta == expected
            assert result.log_id != "toy-log"
            assert result == Compacted(log.meta.log_id, 4, 9, (), is_fork=False)

    def test_what_goes_along(self, kept: Kept, tmp_path: Path) -> None:
        """Cursors, points and rejects are those of the old log."""
        with compacted(kept, kept.make_snapshot(4), tmp_path / "new") as (_, log):
            assert log.cursors() == kept.log.cursors()
            points = {k: point for k, (_, point) in log.points().items()}
            assert points == {
                7: Point(7, 61, b"seven"),
                8: Point(8, 20, b"eight"),
                9: Point(9, 5, b"nine"),
            }
            rejects = [reject for _, reject in log.rejects()]
            assert rejects == [reject for _, reject in kept.log.rejects()]

    def test_it_can_be_compacted_again(self, kept: Kept, tmp_path: Path) -> None:
        """A compacted log is a log like any other, to compact once more."""
        with compacted(kept, kept.make_snapshot(4), tmp_path / "new") as (first, log):
            new = Kept(log, SnapshotDirectory(tmp_path / "none"), kept.folded)
            snapshot = new.make_snapshot(8)
            with compacted(new, snapshot, tmp_path / "newer") as (_, again):
                assert again.meta.parent_id == first.log_id
                newer = Kept(again, new.snapshots, kept.folded)
                recovered = newer.recover()
                assert (recovered.start, recovered.sequence) == (8, 9)

    def test_the_old_one_is_only_read(self, kept: Kept, tmp_path: Path) -> None:
        """Log and snapshots are afterwards what they were."""
        kept.write_snapshot(4)
        store = kept.log.store
        assert isinstance(store, MemoryStore)
        tables = {table: dict(rows) for table, rows in store.disk.tables.items()}
        file = kept.snapshots.file(4)
        data = file.read_bytes()
        with compacted(kept, kept.make_snapshot(4), tmp_path / "new"):
            assert store.disk.tables == tables
            assert file.read_bytes() == data
            assert not (tmp_path / "new" / "snapshots").exists()

    def test_many_blocks_share_a_commit(
        self, kept: Kept, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Blocks are committed in lots of a size, and told of lot by lot."""
        told: list[int] = []
        moments: list[str] = []
        monkeypatch.setattr(failpoint, "handler", moments.append)
        for index, lot_bytes in enumerate([1, 130, 1 << 20]):
            monkeypatch.setattr(copying, "COMMIT_BYTES", lot_bytes)
            target = DataDirectory.claim(tmp_path / f"new{index}")
            compact(kept.log, kept.make_snapshot(1), target, told.append)
            target.release()
        assert told == [2, 5, 6, 9, 5, 9, 9]
        # The log's own first commit, the lots, and what goes along.
        assert moments.count("commit.after_flush") == 3 * 2 + 4 + 2 + 1

    def test_gaps_go_along(self, kept: Kept, tmp_path: Path) -> None:
        """A gap behind the base stays, one around it is cut, one before it is gone."""
        log = kept.log
        gap = Block.seal(log.tail, Records.gap(4), time_ns=100)
        rest = Block.seal(gap.tail, Records.pack([b"m14"]), time_ns=100)
        meta = attrs.evolve(log.meta, gaps=[(10, 4)])
        log.commit(Transaction((gap, rest), meta=meta))
        states = kept.make_snapshot(9).states
        for base, gaps, first in ((9, 1, 10), (11, 1, 12), (12, 1, 13), (13, 0, 14)):
            made = attrs.evolve(kept.make_snapshot(9), sequence=base, states=states)
            tail = log.tail_at(base)
            snapshot = attrs.evolve(
                made, block_sequence=tail.sequence, block_checksum=tail.checksum
            )
            with compacted(kept, snapshot, tmp_path / f"new{base}") as (_, new):
                assert len(new.meta.gaps) == gaps
                blocks = list(new.read(base))
                assert blocks[0].first_sequence == first
                assert blocks[0].records.is_gap == bool(gaps)
                assert blocks[-1].last_sequence == 14


class TestChoice:
    """Which snapshot the new log begins at, when nobody says."""

    def test_the_newest_below_every_cursor(self, kept: Kept) -> None:
        """No sink loses an event: the base is at or before the slowest one's cursor."""
        for sequence in (2, 6, 8):
            kept.write_snapshot(sequence)
        assert choose_base(kept.replayer(), toy.machine()).sequence == 6
        kept.log.commit(Transaction(cursors={"slow": Cursor(5, 0)}))
        assert choose_base(kept.replayer(), toy.machine()).sequence == 2

    def test_without_sinks_the_newest(self, kept: Kept) -> None:
        """Where there is no sink, the newest snapshot is the base."""
        for sequence in (2, 6, 8):
            kept.write_snapshot(sequence)
        kept.log.commit(Transaction(forgotten=("slow", "fast")))
        assert choose_base(kept.replayer(), toy.machine()).sequence == 8

    @pytest.mark.parametrize(
        ("alter", "fault"),
        [
            (lambda it: attrs.evolve(it, log_id="other"), "belongs to log other"),
            (lambda it: attrs.evolve(it, application="a"), "belongs to application"),
            (lambda it: attrs.evolve(it, state_version=2), "of version 2, not 1"),
            (lambda it: attrs.evolve(it, block_checksum=1), "differs there"),
            (
                lambda it: attrs.evolve(
                    it,
                    states=tuple(State(s.name, "dump", bytes(12)) for s in it.states),
                ),
                "not the state of a replay",
            ),
        ],
    )
    def test_the_next_good_one(
        self, kept: Kept, alter: Callable[[Snapshot], Snapshot], fault: str
    ) -> None:
        """One that cannot be the base gives way to the next older; else it is named."""
        kept.write_snapshot(6, alter)
        with pytest.raises(CompactError, match=fault) as caught:
            choose_base(kept.replayer(), toy.machine())
        assert "no good snapshot at or below sequence 6 (snapshot 6: " in str(
            caught.value
        )
        assert not isinstance(caught.value, NoBaseError)
        kept.write_snapshot(4)
        assert choose_base(kept.replayer(), toy.machine()).sequence == 4

    def test_beside_a_server_that_went_on(self, kept: Kept) -> None:
        """Snapshots that came since the log was opened serve, once older ones went."""
        kept.log.commit(Transaction(forgotten=("slow", "fast")))
        replayer = Replayer(Log.open(kept.log.store), kept.snapshots)
        kept.append((0, [b"m10", b"m11"]))
        kept.write_snapshot(11)
        assert choose_base(replayer, toy.machine()).sequence == 11

    def test_damaged_ones_give_way(self, kept: Kept) -> None:
        """A damaged file is passed over, and stays where it is."""
        kept.write_snapshot(4)
        file = kept.write_snapshot(6)
        change(file, flip_middle)
        assert choose_base(kept.replayer(), toy.machine()).sequence == 4
        assert file.exists()

    def test_there_is_none(self, kept: Kept) -> None:
        """Without a snapshot there is nothing to begin at, and what makes one is said.

        That is no damage. Where a sink holds it back, that is said too.
        """
        kept.write_snapshot(8)
        with pytest.raises(NoBaseError, match="from sequence 1 to 6 to ") as caught:
            choose_base(kept.replayer(), toy.machine())
        assert "; sink slow is there: let it catch up, or drop it" in str(caught.value)
        assert "--forget-sink slow', and then a server that is" in str(caught.value)
        kept.snapshots.file(8).unlink()
        kept.log.commit(Transaction(forgotten=("slow", "fast")))
        with pytest.raises(NoBaseError, match="1 to 9 to begin at; a server that is"):
            choose_base(kept.replayer(), toy.machine())

    def test_the_base_itself_is_none(self, tmp_path: Path) -> None:
        """A snapshot at the log's own base would make nothing shorter."""
        kept = Kept.create(MemoryStore(), tmp_path, (0, b"m1"), (0, b"m2"))
        kept.write_snapshot(2)
        with pytest.raises(
            NoBaseError, match="no events to leave out after sequence 2"
        ):
            choose_base(kept.replayer(), toy.machine())
        kept.append((0, [b"m3"]))
        with pytest.raises(NoBaseError, match="no snapshot from sequence 3 to 3 to"):
            choose_base(kept.replayer(), toy.machine())
        kept.log.commit(Transaction(cursors={"new": Cursor(2, 0)}))
        with pytest.raises(
            NoBaseError, match="is where the log begins, at 2; sink new"
        ):
            choose_base(kept.replayer(), toy.machine())

    def test_it_is_told_how_far_the_check_is(self, kept: Kept) -> None:
        """Holding a snapshot against a replay is long work, and shows how far it is."""
        kept.write_snapshot(6)
        told: list[int] = []
        choose_base(kept.replayer(), toy.machine(), told.append)
        assert told == [2, 5, 6]


class TestGaps:
    """A log that salvage could not save whole: events 6 to 9 of 12 are lost."""

    @pytest.fixture
    def gapped(self, tmp_path: Path) -> Kept:
        """Return it, without a snapshot; its fold knows the lost events too."""
        kept = Kept.create(MemoryStore(), tmp_path / "snapshots")
        kept.append((0, [b"m1", b"m2", b"m3"]), (1, [b"m4", b"m5"]))
        gap = Block.seal(kept.log.tail, Records.gap(4), time_ns=90)
        rest = Block.seal(gap.tail, Records.pack([b"m10", b"m11"]), time_ns=99)
        last = Block.seal(rest.tail, Records.pack([b"m12"]), time_ns=99)
        meta = attrs.evolve(kept.log.meta, gaps=[(6, 4)])
        kept.log.commit(Transaction((gap, rest, last), meta=meta))
        for number in range(6, 13):
            kept.folded.add((0, b"m%d" % number))
        return kept

    def test_below_the_base_it_disappears(self, gapped: Kept, tmp_path: Path) -> None:
        """With consent the new log begins behind the gap, with all that was counted."""
        gapped.write_snapshot(11)
        with pytest.raises(GapError, match="events 6 to 9 are lost"):
            choose_base(gapped.replayer(), toy.machine())
        replayer = gapped.replayer(are_gaps_accepted=True)
        snapshot = choose_base(replayer, toy.machine())
        assert snapshot.sequence == 11
        assert lost_until(gapped.log, 11) == [(6, 9)]
        assert lost_until(gapped.log, 6) == [(6, 9)]
        assert lost_until(gapped.log, 5) == []
        with compacted(gapped, snapshot, tmp_path / "new") as (_, log):
            assert log.meta.gaps == ()
            new = Kept(log, SnapshotDirectory(tmp_path / "none"), gapped.folded)
            assert new.recover().sequence == 12
            assert Verifier(log, new.snapshots, toy.machine()).run().findings == []

    def test_above_the_base_it_stays(self, gapped: Kept, tmp_path: Path) -> None:
        """No consent is needed for a gap that the new log has as well."""
        gapped.write_snapshot(4)
        snapshot = choose_base(gapped.replayer(), toy.machine())
        assert lost_until(gapped.log, 4) == []
        with compacted(gapped, snapshot, tmp_path / "new") as (_, log):
            assert log.meta.gaps == ((6, 4),)
            [gap] = [block for block in log.read(4) if block.records.is_gap]
            assert (gap.first_sequence, gap.last_sequence) == (6, 9)

    def test_around_the_base_it_is_cut(self, gapped: Kept, tmp_path: Path) -> None:
        """What is listed of a gap is what the new log has of it."""
        snapshot = gapped.make_snapshot(7)
        with compacted(gapped, snapshot, tmp_path / "new") as (_, log):
            assert log.meta.gaps == ((8, 2),)
            first = next(log.read(7))
            assert (first.first_sequence, first.last_sequence) == (8, 9)
            assert first.records.is_gap

    def test_a_snapshot_before_it_is_held_against_a_replay(self, gapped: Kept) -> None:
        """Consent to a gap is none to a snapshot that is wrong before it."""
        states = gapped.make_snapshot(5).states
        gapped.write_snapshot(4, lambda it: attrs.evolve(it, states=states))
        with pytest.raises(CompactError, match="not the state of a replay"):
            choose_base(gapped.replayer(are_gaps_accepted=True), toy.machine())


class TestFromSnapshot:
    """A base that the operator chose."""

    def test_one_ahead_of_the_log(self, kept: Kept, tmp_path: Path) -> None:
        """After a lost tail the new log begins at the snapshot, without events."""
        file = kept.write_snapshot(9)
        states = kept.folded.states_at(9)
        kept.lose_tail(6)
        snapshot = read_snapshot(file, kept.replayer(), toy.machine())
        with compacted(kept, snapshot, tmp_path / "new") as (result, log):
            assert (result.base_sequence, result.last_sequence) == (9, 9)
            assert result.moved_sinks == ("slow",)
            assert not result.is_fork
            assert log.cursors()["slow"] == Cursor(9, 77, b"earlier")
            assert log.cursors()["fast"] == Cursor(9, 99, b"transaction")
            machine = toy.machine()
            Replayer(log, SnapshotDirectory(tmp_path / "none")).recover(machine)
            assert toy.state_bytes(machine) == states
            found = Verifier(log, SnapshotDirectory(tmp_path), machine).run()
            assert found == Verification(0, 0, 0)

    @pytest.mark.parametrize("sequence", [8, 9])
    def test_one_of_another_course(
        self, kept: Kept, tmp_path: Path, sequence: int
    ) -> None:
        """Where the log went on otherwise, its events are not mixed with the state."""
        file = kept.write_snapshot(sequence)
        states = kept.folded.states_at(sequence)
        kept.lose_tail(5)
        kept.append((0, [b"x6", b"x7", b"x8"]), (1, [b"x9", b"p10"]))
        snapshot = read_snapshot(file, kept.replayer(), toy.machine())
        with compacted(kept, snapshot, tmp_path / "new") as (result, log):
            assert result.is_fork
            assert (result.base_sequence, result.last_sequence) == (sequence, sequence)
            machine = toy.machine()
            Replayer(log, SnapshotDirectory(tmp_path / "none")).recover(machine)
            assert toy.state_bytes(machine) == states

    def test_one_of_this_log_is_held_against_a_replay(self, kept: Kept) -> None:
        """A chosen snapshot within the log must be the state that a replay gives."""
        good = kept.write_snapshot(4)
        assert read_snapshot(good, kept.replayer(), toy.machine()).sequence == 4
        states = kept.make_snapshot(5).states
        wrong = kept.write_snapshot(6, lambda it: attrs.evolve(it, states=states))
        with pytest.raises(CompactError, match="not the state of a replay"):
            read_snapshot(wrong, kept.replayer(), toy.machine())

    def test_what_cannot_be_one(self, kept: Kept, tmp_path: Path) -> None:
        """A damaged, foreign, missing or other file is refused, and the cause said."""
        file = kept.write_snapshot(4)
        foreign = tmp_path / "foreign"
        made = attrs.evolve(kept.make_snapshot(4), log_id="other")
        foreign.write_bytes(made.encode())
        damaged = tmp_path / "damaged"
        damaged.write_bytes(flip_middle(file.read_bytes()))
        for path, reason in [
            (foreign, "belongs to another log, other"),
            (damaged, "cannot be used: its checksum does not match"),
            (tmp_path / "none", "cannot be read: No such file"),
            (tmp_path, "cannot be read: Is a directory"),
        ]:
            with pytest.raises(CompactError, match=reason) as caught:
                read_snapshot(path, kept.replayer(), toy.machine())
            assert str(path) in str(caught.value)
        with pytest.raises(CompactError, match="of version 1, not 2"):
            read_snapshot(file, kept.replayer(), in_version(2))

    def test_one_before_the_base(self, tmp_path: Path) -> None:
        """A snapshot that is older than the log's base is refused."""
        kept = Kept.create(MemoryStore(), tmp_path, (0, b"m1"), (0, b"m2"))
        old = attrs.evolve(kept.make_snapshot(2), sequence=1)
        file = kept.snapshots.write(old)
        with pytest.raises(CompactError, match="older than the log's base"):
            read_snapshot(file, kept.replayer(), toy.machine())


def framed(block: Block) -> bytes:
    """Give a block's events as frames, with the toy's header of one byte."""
    return b"".join(bytes([len(record)]) + record for record in block.records)


class TestArchive:
    """The events that the new log does without, as a file."""

    @pytest.mark.parametrize("base", range(1, 10))
    def test_it_has_what_the_new_log_has_not(
        self, kept: Kept, tmp_path: Path, base: int
    ) -> None:
        """Every event up to the base is in it, in order, as a frame; no other is."""
        file = tmp_path / "archive"
        with new_place(tmp_path / "new", tmp_path / "old") as target:
            snapshot = kept.make_snapshot(base)
            archive = Archive(file, framed)
            result = compact(kept.log, snapshot, target, archive=archive)
        records = [record for *_, record in events(kept.log)[:base]]
        expected = b"".join(bytes([len(record)]) + record for record in records)
        assert file.read_bytes() == expected
        assert result.archived == base
        assert stat.S_IMODE(file.stat().st_mode) == 0o600

    def test_of_a_log_that_goes_no_further(self, kept: Kept, tmp_path: Path) -> None:
        """Where no event goes along, all events are in it."""
        snapshot = kept.make_snapshot(9)
        kept.lose_tail(6)
        with new_place(tmp_path / "new", tmp_path / "old") as target:
            archive = Archive(tmp_path / "archive", framed)
            assert compact(kept.log, snapshot, target, archive=archive).archived == 6

    def test_of_a_log_that_went_on_otherwise(self, kept: Kept, tmp_path: Path) -> None:
        """Where the events are not those of the snapshot, all of them are in it."""
        snapshot = kept.make_snapshot(8)
        kept.lose_tail(5)
        kept.append((0, [b"x6"]), (0, [b"x7", b"x8", b"x9"]))
        with new_place(tmp_path / "new", tmp_path / "old") as target:
            archive = Archive(tmp_path / "archive", framed)
            assert compact(kept.log, snapshot, target, archive=archive).archived == 9

    def test_lost_events_have_no_frames(self, kept: Kept, tmp_path: Path) -> None:
        """A gap's events are not in it, and not counted."""
        gap = Block.seal(kept.log.tail, Records.gap(4), time_ns=100)
        kept.log.commit(Transaction((gap,)))
        archive = Archive(tmp_path / "archive", framed)
        assert archive.write(kept.log.read(6)) == 3

    def test_it_overwrites_nothing(self, kept: Kept, tmp_path: Path) -> None:
        """A file that comes to have the name meanwhile stays, and there is no log."""
        file = tmp_path / "archive"

        def frame(block: Block) -> bytes:
            file.write_text("mine")
            return framed(block)

        with (
            pytest.raises(DirectoryError, match="it is there already"),
            new_place(tmp_path / "new", tmp_path / "old") as target,
        ):
            compact(
                kept.log,
                kept.make_snapshot(4),
                target,
                archive=Archive(file, frame),
            )
        assert file.read_text() == "mine"
        assert [path.name for path in tmp_path.iterdir()] == ["archive"]

    @pytest.mark.parametrize("name", ["archive.before_rename", "archive.after_rename"])
    def test_it_is_there_before_the_log(
        self, kept: Kept, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        """At the moment when it gets its name it is whole, and no log is there."""
        file = tmp_path / "archive"
        found: list[tuple[bool, bool]] = []

        def reach(reached: str) -> None:
            if reached == name:
                found.append((file.exists(), (tmp_path / "new" / "log").exists()))

        monkeypatch.setattr(failpoint, "handler", reach)
        with new_place(tmp_path / "new", tmp_path / "old") as target:
            archive = Archive(file, framed)
            compact(kept.log, kept.make_snapshot(4), target, archive=archive)
        assert found == [(name == "archive.after_rename", False)]


class TestCreation:
    """The new place."""

    @pytest.mark.parametrize("name", CREATE_FAILPOINTS + DONE_FAILPOINTS)
    @pytest.mark.parametrize("is_there", [False, True])
    def test_nothing_half_made_is_left(
        self,
        kept: Kept,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        name: str,
        *,
        is_there: bool,
    ) -> None:
        """A failure at any point leaves the place as it was; then a try succeeds."""
        place = tmp_path / "new"
        if is_there:
            place.mkdir()

        def reach(reached: str) -> None:
            if reached == name:
                raise CrashError(name)

        monkeypatch.setattr(failpoint, "handler", reach)
        with pytest.raises(CrashError), new_place(place, tmp_path / "old") as target:
            compact(kept.log, kept.make_snapshot(4), target)
        monkeypatch.setattr(failpoint, "handler", None)
        assert place.exists() == is_there
        assert not is_there or list(place.iterdir()) == []
        with compacted(kept, kept.make_snapshot(4), place) as (_, log):
            assert events(log) == events(kept.log)[4:]
            assert {each.name for each in place.iterdir()} == {"log", "server.lock"}

    def test_damage_leaves_nothing(self, kept: Kept, tmp_path: Path) -> None:
        """A block that is damaged ends it, and there is no new log."""
        value = kept.log.store.get(BLOCKS, key(6))
        assert value is not None
        kept.log.store.commit([Change(BLOCKS, key(6), flip_middle(value))], 0)
        with (
            pytest.raises(DamagedError, match="damaged at sequence 6"),
            compacted(kept, kept.make_snapshot(4), tmp_path / "new"),
        ):
            pass
        assert list(tmp_path.iterdir()) == []

    def test_what_was_written_is_read_back(
        self, kept: Kept, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A block that the disk has otherwise than it was written is noticed."""
        file = tmp_path / "new" / "log.new" / "data.mdb"
        commits = 0

        def reach(name: str) -> None:
            nonlocal commits
            commits += name == "commit.after_flush"
            if name == "commit.after_flush" and commits == 3:
                change(file, lambda data: data.replace(b"m9", b"m0"))

        monkeypatch.setattr(failpoint, "handler", reach)
        with (
            pytest.raises(DamagedError, match="its checksum does not match"),
            compacted(kept, kept.make_snapshot(4), tmp_path / "new"),
        ):
            pass
        assert list(tmp_path.iterdir()) == []

    def test_a_log_is_never_rewritten(self, kept: Kept, tmp_path: Path) -> None:
        """A place that has a log already is refused, and all that is there stays."""
        place = tmp_path / "new"
        with compacted(kept, kept.make_snapshot(4), place) as (_, log):
            before = events(log)
        (place / "server.lock").write_text("1\n")
        data = {file: file.read_bytes() for file in place.rglob("*.*")}
        with (
            pytest.raises(DirectoryError, match="already holds a log"),
            compacted(kept, kept.make_snapshot(8), place),
        ):
            pass
        assert {file: file.read_bytes() for file in place.rglob("*.*")} == data
        with closing(DataDirectory(place).open_log(is_read_only=True)) as log:
            assert events(log) == before

    def test_another_that_came_meanwhile_stays(
        self, kept: Kept, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A log that another made between the look and the lock is not removed."""
        claim = DataDirectory.claim

        def claim_late(path: Path) -> DataDirectory:
            other = claim(path)
            with other.new_log(kept.log.meta):
                pass
            other.release()
            return claim(path)

        monkeypatch.setattr(DataDirectory, "claim", claim_late)
        with (
            pytest.raises(DirectoryError, match="already holds a log"),
            compacted(kept, kept.make_snapshot(4), tmp_path / "new"),
        ):
            pass
        assert DataDirectory(tmp_path / "new").has_log()

    def test_snapshots_of_a_log_that_is_gone_stay(
        self, kept: Kept, tmp_path: Path
    ) -> None:
        """A place that has lost its log is refused, and keeps the snapshots."""
        file = SnapshotDirectory(tmp_path / "new" / "snapshots").file(4)
        file.parent.mkdir(parents=True)
        file.write_text("a witness")
        with (
            pytest.raises(DirectoryError, match="it holds snapshots of a log that is"),
            compacted(kept, kept.make_snapshot(4), tmp_path / "new"),
        ):
            pass
        assert [each.name for each in tmp_path.rglob("*") if each.is_file()] == [
            file.name
        ]


@pytest.mark.parametrize("pause", range(1, 5))
def test_beside_a_live_server(kept: Kept, tmp_path: Path, pause: int) -> None:
    """What a server commits meanwhile is in the new log whole, or not at all.

    No stream is ahead of its events, which would lose them, and no sink either.
    """
    store = kept.log.store
    assert isinstance(store, MemoryStore)
    snapshot = kept.make_snapshot(4)
    steps = 0

    def go_on() -> None:
        nonlocal steps
        steps += 1
        number = kept.log.tail.sequence + 1
        if steps % pause or number > 40:
            return
        kept.append((0, [b"m%d" % number]), points=(Point(7, 10 * number, b"seven"),))
        kept.log.commit(Transaction(cursors={"out": Cursor(number, number)}))

    old = Log.open(BusyStore(store.disk, between=go_on))
    target = DataDirectory.claim(tmp_path / "new")
    result = compact(old, snapshot, target)
    target.release()
    with closing(target.open_log(is_read_only=True)) as log:
        last = log.tail.sequence
        assert result.last_sequence == last > 9
        assert log.cursors()["out"].sequence <= last
        assert log.points()[7][1] == Point(7, 10 * last, b"seven")
        new = Kept(log, SnapshotDirectory(tmp_path / "none"), kept.folded)
        assert new.recover().sequence == last
        assert Verifier(log, new.snapshots, toy.machine()).run().findings == []
