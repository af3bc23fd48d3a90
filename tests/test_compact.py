"""A new log that begins at a snapshot: the same state, outputs, cursors and points."""

import shutil
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
from log.errors import DirectoryError
from log.log import Log, Transaction
from log.memory_store import MemoryStore
from log.row import Cursor
from log.store import BLOCKS, Change
from recovery import compact as compact_module
from recovery.compact import (
    Compacted,
    CompactError,
    choose_base,
    compact,
    read_snapshot,
)
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
    cursors = {"slow": Cursor(6, 77), "fast": Cursor(9, 99, b"transaction")}
    points = (Point(9, 5, b"nine"), Point(7, 61, b"seven"))
    kept.log.commit(Transaction(cursors=cursors, points=points, rejects=rejects))
    return kept


@contextmanager
def compacted(
    kept: Kept, snapshot: Snapshot, path: Path
) -> Iterator[tuple[Compacted, Log]]:
    """Compact a log to a new directory; give what was said, and the new log."""
    target = DataDirectory.claim(path)
    result = compact(kept.log, snapshot, target)
    target.release()
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
            monkeypatch.setattr(compact_module, "COMMIT_BYTES", lot_bytes)
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
        for base, gaps, first in ((9, 1, 10), (11, 1, 12), (13, 0, 14)):
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
        kept.write_snapshot(4)
        assert choose_base(kept.replayer(), toy.machine()).sequence == 4

    def test_damaged_ones_give_way(self, kept: Kept) -> None:
        """A damaged file is passed over, and stays where it is."""
        kept.write_snapshot(4)
        file = kept.write_snapshot(6)
        change(file, flip_middle)
        assert choose_base(kept.replayer(), toy.machine()).sequence == 4
        assert file.exists()

    def test_there_is_none(self, kept: Kept) -> None:
        """Without a snapshot there is nothing to begin at."""
        with pytest.raises(CompactError, match="no good snapshot at or below"):
            choose_base(kept.replayer(), toy.machine())

    def test_the_base_itself_is_none(self, tmp_path: Path) -> None:
        """A snapshot at the log's own base would make nothing shorter."""
        kept = Kept.create(MemoryStore(), tmp_path, (0, b"m1"), (0, b"m2"))
        kept.append((0, [b"m3"]))
        kept.write_snapshot(2)
        with pytest.raises(CompactError, match="no good snapshot"):
            choose_base(kept.replayer(), toy.machine())


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
            assert log.cursors()["slow"] == Cursor(9, 77)
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


class TestCreation:
    """The new place."""

    @pytest.mark.parametrize("name", CREATE_FAILPOINTS + DONE_FAILPOINTS)
    def test_nothing_half_made_is_left(
        self, kept: Kept, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        """A crash while it is made leaves no log, or all of it; then a try succeeds."""

        def reach(reached: str) -> None:
            if reached == name:
                raise CrashError(name)

        monkeypatch.setattr(failpoint, "handler", reach)
        target = DataDirectory.claim(tmp_path / "new")
        with pytest.raises(CrashError):
            compact(kept.log, kept.make_snapshot(4), target)
        target.release()
        monkeypatch.setattr(failpoint, "handler", None)
        assert target.has_log() == (name in DONE_FAILPOINTS)
        if target.has_log():
            with closing(target.open_log(is_read_only=True)) as log:
                assert events(log) == events(kept.log)[4:]
            return
        with compacted(kept, kept.make_snapshot(4), tmp_path / "new") as (_, log):
            assert events(log) == events(kept.log)[4:]
            assert not (tmp_path / "new" / "log.new").exists()

    def test_damage_leaves_nothing(self, kept: Kept, tmp_path: Path) -> None:
        """A block that is damaged ends it, and there is no new log."""
        value = kept.log.store.get(BLOCKS, key(6))
        assert value is not None
        kept.log.store.commit([Change(BLOCKS, key(6), flip_middle(value))], 0)
        target = DataDirectory.claim(tmp_path / "new")
        with pytest.raises(Exception, match="damaged at sequence 6"):
            compact(kept.log, kept.make_snapshot(4), target)
        assert not target.has_log()
        target.release()

    def test_a_log_is_never_rewritten(self, kept: Kept, tmp_path: Path) -> None:
        """A place that has a log already is refused, and what is there stays."""
        with compacted(kept, kept.make_snapshot(4), tmp_path / "new") as (_, log):
            before = events(log)
        data = (tmp_path / "new" / "log" / "data.mdb").read_bytes()
        target = DataDirectory.claim(tmp_path / "new")
        with pytest.raises(DirectoryError, match="already holds a log"):
            compact(kept.log, kept.make_snapshot(8), target)
        target.release()
        assert (tmp_path / "new" / "log" / "data.mdb").read_bytes() == data
        with closing(target.open_log(is_read_only=True)) as log:
            assert events(log) == before
        shutil.rmtree(tmp_path / "new")


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
