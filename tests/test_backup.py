"""A copy of a log: the same log, whole at every moment, also beside a live server."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alphabet.lost_tail import LostTail
from log import failpoint
from log.block import Point
from log.directory import DataDirectory
from log.errors import DamagedError, DirectoryError, LockedError
from log.log import Log, Transaction
from log.memory_store import MemoryStore
from log.row import Cursor
from log.store import BLOCKS, CURSORS, META, REJECTS, STREAMS, TABLES, Change
from recovery import backup, copying
from recovery.backup import BackedUp, DivergedError, back_up
from recovery.errors import AheadError
from recovery.new_place import new_place
from recovery.snapshot_directory import KEPT_MAX, SnapshotDirectory
from recovery.verify import Verifier
from tests import samples, toy
from tests.machines import (
    Batch,
    BusyStore,
    Kept,
    batches,
    change,
    flip_middle,
    key,
)

CREATE_FAILPOINTS = [
    "create.before_log",
    "commit.before_flush",
    "commit.after_flush",
    "create.before_rename",
    "create.after_rename",
    "create.after_flush",
    "snapshot.before_rename",
    "snapshot.after_rename",
]
ADD_FAILPOINTS = [
    "commit.before_flush",
    "commit.after_flush",
    "snapshot.before_rename",
    "snapshot.after_rename",
]

Tables = dict[str, dict[bytes, bytes]]


class CrashError(BaseException):
    """The end of the process, where a test wants it."""


@attrs.define
class Moment:
    """Crashes the N-th time that a failpoint is reached."""

    name: str
    turns_left: int = 1

    def reach(self, name: str) -> None:
        """Crash if it is time."""
        self.turns_left -= name == self.name
        if not self.turns_left and name == self.name:
            raise CrashError(name)


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    """Return a log of events 1 to 9 in blocks that begin at 1, 3, 6 and 7.

    Streams 7 and 8 are in the blocks, 9 advanced without an event; sinks are at 6 and
    9; one reject is of event 2; snapshots are at 2, 5 and 8.
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
    for sequence in (2, 5, 8):
        kept.write_snapshot(sequence)
    return kept


def tables(log: Log) -> Tables:
    """Give everything that a log stores, as it is stored."""
    return {table: dict(log.store.scan(table, b"", 1 << 30)) for table in TABLES}


def back(kept: Kept, to: Path) -> BackedUp:
    """Back up a log to `to`, and give what was done."""
    return back_up(kept.log, kept.snapshots, to.parent / "no place", to)


@contextmanager
def copy(to: Path) -> Iterator[Kept]:
    """Open a backup, and check that verify finds nothing in it."""
    directory = DataDirectory(to)
    with closing(directory.open_log(is_read_only=True)) as log:
        snapshots = SnapshotDirectory(directory.snapshots_path)
        found = Verifier(log, snapshots, toy.machine()).run()
        assert found.findings == []
        assert LostTail.find(log).subjects() == []
        yield Kept(log, snapshots)


def snapshot_files(snapshots: SnapshotDirectory) -> dict[str, bytes]:
    """Give the snapshots' files."""
    return {file.name: file.read_bytes() for file in snapshots.path.iterdir()}


class TestCopy:
    """What the copy has."""

    def test_everything_is_the_same(self, kept: Kept, tmp_path: Path) -> None:
        """Every row of every table, and every snapshot, is there byte for byte."""
        result = back(kept, tmp_path / "to")
        assert (result.start, result.last_sequence) == (0, 9)
        assert result.log_id == kept.log.meta.log_id
        assert result.snapshots == (2, 5, 8)
        assert result.left_out == ()
        blocks = tables(kept.log)[BLOCKS].values()
        assert result.block_bytes == sum(map(len, blocks))
        with copy(tmp_path / "to") as made:
            assert tables(made.log) == tables(kept.log)
            assert snapshot_files(made.snapshots) == snapshot_files(kept.snapshots)
        names = {path.name for path in (tmp_path / "to").iterdir()}
        assert names == {"log", "snapshots", "server.lock"}

    @settings(max_examples=settings().max_examples // 8)
    @given(
        parts=st.lists(st.lists(batches, max_size=4), min_size=1, max_size=4),
        data=st.data(),
    )
    def test_any_log_in_any_number_of_steps(
        self, parts: list[list[Batch]], data: st.DataObject
    ) -> None:
        """However often it is brought up to the log, the copy is the log's like."""
        with tempfile.TemporaryDirectory() as place:
            path = Path(place)
            kept = Kept.create(MemoryStore(), path / "snapshots", (0, b"m1"))
            for number, made in enumerate(parts):
                start = kept.log.tail.sequence
                for batch in made:
                    point = Point(data.draw(st.integers(1, 3)), number, b"name")
                    kept.append(batch, points=(point,))
                last = kept.log.tail.sequence
                kept.write_snapshot(data.draw(st.integers(1, last)))
                rows = Transaction(
                    cursors={data.draw(st.sampled_from("abc")): Cursor(last, number)},
                    forgotten=(data.draw(st.sampled_from("ABC")).lower(),),
                    points=(Point(data.draw(st.integers(1, 3)), number + 9, b"name"),),
                    rejects=(samples.REJECT,) * data.draw(st.integers(0, 2)),
                )
                kept.log.commit(rows)
                result = back(kept, path / "to")
                # The base is at 1.
                assert result.start == (start if number else 1)
                with copy(path / "to") as made_copy:
                    assert tables(made_copy.log) == tables(kept.log)
                    newest = kept.snapshots.sequences()[:KEPT_MAX]
                    assert {*newest} <= {*made_copy.snapshots.sequences()}

    def test_what_is_forgotten_goes(self, kept: Kept, tmp_path: Path) -> None:
        """A sink that was dropped since, and a reject that gave way, go there too."""
        back(kept, tmp_path / "to")
        kept.log.commit(Transaction(forgotten=("slow",)))
        kept.log.store.commit([Change(REJECTS, key(1), None)], 9)
        back(kept, tmp_path / "to")
        with copy(tmp_path / "to") as made:
            assert tables(made.log) == tables(kept.log)
            assert list(made.log.cursors()) == ["fast"]
            assert [number for number, _ in made.log.rejects()] == [2]

    def test_snapshots_do_not_pile_up(self, kept: Kept, tmp_path: Path) -> None:
        """Kept are the newest three, and one for the slowest sink, as in the log."""
        back(kept, tmp_path / "to")
        for number in range(10, 16):
            kept.append((0, [b"m%d" % number]))
            kept.write_snapshot(number)
            kept.snapshots.prune(6)
            back(kept, tmp_path / "to")
        with copy(tmp_path / "to") as made:
            assert made.snapshots.sequences() == [15, 14, 13, 5]

    def test_of_an_empty_log(self, tmp_path: Path) -> None:
        """A log without events can be copied, and the copy brought up to it."""
        kept = Kept.create(MemoryStore(), tmp_path / "snapshots")
        for last in (0, 1):
            assert back(kept, tmp_path / "to").last_sequence == last
            with copy(tmp_path / "to") as made:
                assert tables(made.log) == tables(kept.log)
                assert made.snapshots.sequences() == []
            kept.append((0, [b"m1"]))

    def test_bad_snapshots_stay_behind(self, kept: Kept, tmp_path: Path) -> None:
        """One that is damaged, or another log's, is left out, and that is said."""
        change(kept.snapshots.file(5), flip_middle)
        kept.write_snapshot(3, lambda it: attrs.evolve(it, log_id="other"))
        result = back(kept, tmp_path / "to")
        assert result.snapshots == (2, 8)
        assert result.left_out == (
            (5, "its checksum does not match"),
            (3, "it belongs to log other"),
        )

    def test_how_far_it_is(
        self, kept: Kept, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It is told between which events the work is, and how far it has come."""
        monkeypatch.setattr(copying, "COMMIT_BYTES", 1)
        told: list[object] = []

        def shown(*span: int) -> nullcontext[Callable[[int], None]]:
            told.append(span)
            return nullcontext(told.append)

        place = tmp_path / "none"
        back_up(kept.log, kept.snapshots, place, tmp_path / "to", shown)
        kept.append((0, [b"m10"]))
        back_up(kept.log, kept.snapshots, place, tmp_path / "to", shown)
        assert told == [(0, 9), 2, 5, 6, 9, (9, 10), 10]


class TestRefusals:
    """What is not copied, and what it is not copied to."""

    def check(self, kept: Kept, to: Path, error: type[Exception], said: str) -> None:
        """Fail unless it is refused with such a line, and nothing has changed."""
        before = {file: file.read_bytes() for file in to.rglob("*.*") if file.is_file()}
        was_there = to.exists()
        with pytest.raises(error, match=said):
            back(kept, to)
        assert to.exists() == was_there
        after = {file: file.read_bytes() for file in to.rglob("*.*") if file.is_file()}
        assert {k: v for k, v in after.items() if k.name != "lock.mdb"} == {
            k: v for k, v in before.items() if k.name != "lock.mdb"
        }

    def test_a_log_with_damage(self, kept: Kept, tmp_path: Path) -> None:
        """A damaged block or row is named; an earlier copy stays as it is."""
        back(kept, tmp_path / "to")
        kept.append((0, [b"m10", b"m11"]), (0, [b"m12"]))
        for table, row, said in (
            (BLOCKS, key(10), "damaged at sequence 10"),
            (CURSORS, b"slow", "cursors row b'slow'"),
            (REJECTS, key(2), "rejects row"),
            (STREAMS, key(7), "streams row"),
            (META, b"log", "meta row"),
        ):
            value = kept.log.store.get(table, row)
            assert value is not None
            kept.log.store.commit([Change(table, row, flip_middle(value))], 0)
            self.check(kept, tmp_path / "new", DamagedError, said)
            if table != BLOCKS:
                self.check(kept, tmp_path / "to", DamagedError, said)
            kept.log.store.commit([Change(table, row, value)], 0)
        with copy(tmp_path / "to") as made:
            assert made.log.tail.sequence == 9

    @pytest.mark.parametrize("has_copy", [False, True])
    @pytest.mark.parametrize("what", ["sink", "stream", "snapshot"])
    def test_a_log_that_has_lost_its_tail(
        self, kept: Kept, tmp_path: Path, what: str, *, has_copy: bool
    ) -> None:
        """What is ahead of the log's end is named, and no copy hides that."""
        if has_copy:
            back(kept, tmp_path / "to")
        if what != "snapshot":
            kept.snapshots.file(8).unlink()
        if what != "sink":
            kept.log.commit(Transaction(forgotten=("fast",)))
        if what != "stream":
            changes = [Change(STREAMS, key(number), None) for number in (7, 9)]
            kept.log.store.commit(changes, 9)
        kept.lose_tail(6)
        if has_copy:
            said = "ends with an event 9 that is not in .*, which ends at 6"
            self.check(kept, tmp_path / "to", DivergedError, said)
        said = {"sink": "sink fast is at sequence 9", "stream": "stream 7 is at"}.get(
            what, "snapshot 8 is at sequence 8"
        )
        self.check(kept, tmp_path / "new", AheadError, said)

    def test_a_copy_that_went_on(self, kept: Kept, tmp_path: Path) -> None:
        """Where a server was started on the copy, it has events of its own."""
        back(kept, tmp_path / "to")
        with closing(DataDirectory(tmp_path / "to").open_log()) as log:
            Kept(log, kept.snapshots, kept.folded).append((0, [b"x10"]), (0, [b"x11"]))
        said = "ends with an event 11 that is not in .*, which ends at 9: a server was"
        self.check(kept, tmp_path / "to", DivergedError, said)
        # The log goes on too, as far and further: with other events, or other blocks.
        kept.append((0, [b"m10"]), (0, [b"m11"]))
        self.check(kept, tmp_path / "to", DivergedError, "an event 11 that is not in")
        kept.append((0, [b"m12"]))
        self.check(kept, tmp_path / "to", DivergedError, "an event 11 that is not in")

    def test_a_copy_of_another_log(self, kept: Kept, tmp_path: Path) -> None:
        """A directory with another log is refused; the log's own parent by name."""
        other = attrs.evolve(kept.log.meta, log_id="other")
        target = DataDirectory.claim(tmp_path / "to")
        with target.new_log(other):
            pass
        target.release()
        said = "it holds log other, not this one; choose another directory"
        self.check(kept, tmp_path / "to", DirectoryError, said)
        kept.log.commit(
            Transaction(meta=attrs.evolve(kept.log.meta, parent_id="other"))
        )
        said = "it holds log other, the one that this one was made from"
        self.check(kept, tmp_path / "to", DirectoryError, said)

    def test_a_disk_with_too_little_room(
        self, kept: Kept, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What a disk has no room for is refused before anything is written."""
        monkeypatch.setattr(backup, "SPARE_BYTES", 1 << 60)
        with pytest.raises(DirectoryError, match="it takes about 1,152,9"):
            back(kept, tmp_path / "to")
        assert not (tmp_path / "to").exists()

    def test_a_copy_that_is_served(self, kept: Kept, tmp_path: Path) -> None:
        """No backup goes where a server is running."""
        back(kept, tmp_path / "to")
        kept.append((0, [b"m10"]))
        server = DataDirectory.claim(tmp_path / "to")
        self.check(kept, tmp_path / "to", LockedError, "is in use by server")
        server.release()

    def test_a_copy_that_is_damaged(self, kept: Kept, tmp_path: Path) -> None:
        """A copy whose last block is damaged is named, not added to."""
        back(kept, tmp_path / "to")
        with closing(DataDirectory(tmp_path / "to").open_log()) as log:
            value = log.store.get(BLOCKS, key(7))
            assert value is not None
            log.store.commit([Change(BLOCKS, key(7), flip_middle(value))], 0)
        said = f"{tmp_path / 'to' / 'log'} is damaged at sequence 7"
        self.check(kept, tmp_path / "to", DamagedError, said)

    def test_places_that_are_none(self, kept: Kept, tmp_path: Path) -> None:
        """The log's own directory and places in it are refused before a touch."""
        source = tmp_path / "data"
        back(kept, source)
        before = sorted(source.rglob("*"))
        (tmp_path / "link").symlink_to(source)
        for to, said in (
            (source, "it is the log that is to be copied"),
            (tmp_path / "link", "it is the log that is to be copied"),
            (source / "to", "it is inside .*, where nothing but a log may be"),
            (tmp_path / "link" / "log" / "to", "it is inside .*, where nothing but"),
            (tmp_path / "none" / "to", "its parent .* does not exist"),
        ):
            with pytest.raises(DirectoryError, match=said):
                back_up(kept.log, kept.snapshots, source, to)
        assert sorted(source.rglob("*")) == before


def test_a_failure_before_there_is_a_log(tmp_path: Path) -> None:
    """What went wrong is told, though there is nothing to remove but the place."""
    to = tmp_path / "to"
    with pytest.raises(ZeroDivisionError), new_place(to, tmp_path / "from"):
        raise ZeroDivisionError
    assert not to.exists()


class TestCrash:
    """A crash while it is made, or brought up to the log."""

    @pytest.mark.parametrize("name", CREATE_FAILPOINTS)
    def test_a_failure_leaves_nothing(
        self, kept: Kept, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        """Whatever fails while the first copy is made, there is none."""
        monkeypatch.setattr(failpoint, "handler", Moment(name).reach)
        with pytest.raises(CrashError):
            back(kept, tmp_path / "to")
        assert not (tmp_path / "to").exists()
        monkeypatch.setattr(failpoint, "handler", None)
        back(kept, tmp_path / "to")
        with copy(tmp_path / "to") as made:
            assert tables(made.log) == tables(kept.log)

    @pytest.mark.parametrize("turn", [1, 2, 3])
    @pytest.mark.parametrize("name", ADD_FAILPOINTS)
    def test_a_copy_stays_whole(
        self,
        kept: Kept,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        name: str,
        turn: int,
    ) -> None:
        """Whatever fails while a copy is added to, it is a sound log; then go on."""
        monkeypatch.setattr(copying, "COMMIT_BYTES", 1)
        back(kept, tmp_path / "to")
        for number in range(10, 13):
            point = Point(7, 10 * number, b"seven")
            kept.append((0, [b"m%d" % number]), points=(point,))
            kept.write_snapshot(number)
        kept.log.commit(Transaction(cursors={"fast": Cursor(12, 120)}))
        monkeypatch.setattr(failpoint, "handler", Moment(name, turn).reach)
        with pytest.raises(CrashError):
            back(kept, tmp_path / "to")
        monkeypatch.setattr(failpoint, "handler", None)
        with copy(tmp_path / "to") as made:
            assert 9 <= made.log.tail.sequence <= 12
        back(kept, tmp_path / "to")
        with copy(tmp_path / "to") as made:
            assert tables(made.log) == tables(kept.log)
            assert {10, 11, 12} <= set(made.snapshots.sequences())
        assert not list((tmp_path / "to").rglob("*.tmp"))

    @pytest.mark.parametrize("is_first", [True, False])
    @pytest.mark.parametrize("place", [b"m9", b"seven", b"slow"])
    def test_what_was_written_is_read_back(
        self,
        kept: Kept,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        place: bytes,
        *,
        is_first: bool,
    ) -> None:
        """A block or row that the disk has otherwise than written is noticed."""
        if not is_first:
            back(kept, tmp_path / "to")
            kept.append((0, [b"m9"]), points=(Point(7, 100, b"seven"),))
            kept.log.commit(Transaction(cursors={"slow": Cursor(9, 0)}))
        commits = 0

        def reach(name: str) -> None:
            nonlocal commits
            commits += name == "commit.after_flush"
            # The first copy begins with one more: the log's own.
            if name == "commit.after_flush" and commits == 2 + is_first:
                [file] = (tmp_path / "to").rglob("data.mdb")
                change(file, lambda data: data.replace(place, place[::-1]))

        monkeypatch.setattr(failpoint, "handler", reach)
        with pytest.raises(DamagedError):
            back(kept, tmp_path / "to")
        assert (tmp_path / "to").exists() != is_first

    def test_a_snapshot_is_read_back(
        self, kept: Kept, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A snapshot that the disk has otherwise than written is noticed."""

        def reach(name: str) -> None:
            if name == "snapshot.after_rename":
                for file in (tmp_path / "to").rglob("*.snapshot"):
                    change(file, flip_middle)

        monkeypatch.setattr(failpoint, "handler", reach)
        with pytest.raises(DamagedError, match="does not read as it was written"):
            back(kept, tmp_path / "to")
        assert not (tmp_path / "to").exists()


@pytest.mark.parametrize("pause", range(1, 6))
def test_beside_a_live_server(kept: Kept, tmp_path: Path, pause: int) -> None:
    """What a server commits meanwhile is in the copy whole, or not at all.

    No row is ahead of its blocks, and no stream behind them: a server that is started
    on the copy is told of each stream what it has of it, and counts nothing twice.
    """
    store = kept.log.store
    assert isinstance(store, MemoryStore)
    steps = 0
    bound = 40

    def go_on() -> None:
        nonlocal steps
        steps += 1
        number = kept.log.tail.sequence + 1
        if steps % pause or number > bound:
            return
        kept.append((0, [b"m%d" % number]), points=(Point(7, 10 * number, b"seven"),))
        if number % 3 == 0:
            kept.write_snapshot(number)
        kept.log.commit(
            Transaction(
                cursors={"out": Cursor(number, number)},
                points=(Point(7, 10 * number + 1, b"seven"),),
                rejects=(attrs.evolve(samples.REJECT, sequence=number),),
            )
        )

    old = Log.open(BusyStore(store.disk, between=go_on))
    reached = [9]
    for bound in (40, 60):
        result = back_up(old, kept.snapshots, tmp_path / "none", tmp_path / "to")
        with copy(tmp_path / "to") as made:
            last = made.log.tail.sequence
            assert reached[-1] < last == result.last_sequence <= bound
            reached.append(last)
            assert made.log.cursors()["out"].sequence <= last
            _, point = made.log.points()[7]
            assert point.message_id in {10 * last, 10 * last + 1}
            again = Kept(made.log, made.snapshots, kept.folded)
            assert again.recover().sequence == last
            expected = [block.encoded for block in kept.log.read(0)]
            blocks = [block.encoded for block in made.log.read(0)]
            assert blocks == expected[: len(blocks)]
