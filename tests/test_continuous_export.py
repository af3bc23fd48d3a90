"""Votes as segments while a log grows: each range under one name, whatever happens."""

import contextlib
import itertools
import json
import os
import struct
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import attrs
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from alphabet.application import TOTAL_MAX
from log import failpoint
from log.block import Block, Records
from log.errors import DamagedError, DirectoryError
from log.log import Log, Transaction
from log.memory_store import MemoryStore
from log.store import BLOCKS, Change
from recovery.errors import GapError
from recovery.exporting.continuous_export import ContinuousExport
from recovery.exporting.export import (
    ExportDirectory,
    Exporter,
    ExportError,
    Written,
    block_holding,
)
from recovery.exporting.intent import INTENT, read_intent
from recovery.exporting.segment import Label, Plan, Segment
from recovery.exporting.tally import Tally
from recovery.follower import ReplacedError
from recovery.replay import Replayer, take_snapshot
from recovery.snapshot import Snapshot, State
from recovery.snapshot_directory import SnapshotDirectory
from tests.exported import FAILPOINTS, INTENT_FAILPOINTS, names
from tests.machines import VOTES_META, alphabet, flip_middle, key, pack_votes
from tests.power_cut import PowerCut
from tests.votes import Vote

INSTANTS = [*INTENT_FAILPOINTS, *FAILPOINTS]
BASE = 4
"""Events that a log begins behind, for a state that is nearly full."""
ROOM = 10
"""How many votes more the letter `a` has room for, at that base."""
EVERYTHING = 1 << 40

Row = tuple[object, ...]
"""Server, sequence, letter, votes, counted, time in us."""
votes = st.tuples(
    st.sampled_from([b"a", b"a", b"b", b"\xe9"]), st.integers(0, 6) | st.just(2**32 - 1)
)
lots = st.lists(st.lists(votes, min_size=1, max_size=5), min_size=1, max_size=4)


class CrashError(BaseException):
    """The end of the process, where a test wants it."""


def nearly_full() -> Log:
    """Begin a log at a state where `a` has room for a few votes more."""
    meta = attrs.evolve(VOTES_META, base_sequence=BASE, base_checksum=7)
    machine = alphabet()
    [empty] = machine.dump()
    full = attrs.evolve(empty, data=struct.pack(">sQ", b"a", TOTAL_MAX - ROOM))
    version = machine.state_version
    state = Snapshot(meta.log_id, BASE, BASE, 7, "alphabet", version, (full,))
    return Log.create(MemoryStore(), meta, state.encode())


def append(log: Log, content: Sequence[Vote] | int) -> None:
    """Commit a block of votes, or of lost events, a second after the one before."""
    records = Records.gap(content) if isinstance(content, int) else pack_votes(content)
    time_ns = max(log.tail.time_ns, VOTES_META.created_ns) + 1_000_000_001
    log.commit(Transaction((Block.seal(log.tail, records, time_ns=time_ns),)))


def expected(log: Log, server: str) -> list[Row]:
    """Fold a log, from the tutorial's definition alone, into the rows of all of it."""
    room = {b"a": ROOM if log.base.sequence else TOTAL_MAX}
    made: list[Row] = []
    for block in log.read(log.base.sequence):
        for sequence, record in enumerate(block.records, block.first_sequence):
            letter, number = record[:1], int.from_bytes(record[1:])
            left = room.get(letter, TOTAL_MAX)
            counted = number if number <= left else 0
            room[letter] = left - counted
            text = letter.decode("latin-1")
            time_us = block.time_ns // 1000
            made.append((server, sequence, text, number, counted, time_us))
    return made


def rows_of(file: Path) -> list[Row]:
    """Give a segment's rows; fails unless its columns are those agreed upon."""
    table = pq.read_table(file)
    assert table.column_names == [
        "server",
        "sequence",
        "letter",
        "votes",
        "counted",
        "time",
    ]
    times = table["time"].cast("int64")
    table = table.set_column(5, "time", times)
    return list(zip(*(column.to_pylist() for column in table.columns), strict=True))


def whole(to: Path) -> list[str]:
    """Give the names of the segments, in order."""
    return [name for name in names(to) if not name.startswith(".")]


def rows(to: Path) -> list[Row]:
    """Give the rows of all segments, by name."""
    return [row for name in whole(to) for row in rows_of(to / name)]


def replayer_of(log: Log, snapshots: Path = Path("none"), **consents: bool) -> Replayer:
    """Open a log anew, as a look does."""
    fresh = Log.open(log.store)
    return Replayer(
        fresh, SnapshotDirectory(snapshots), is_lost_tail_accepted=True, **consents
    )


@contextlib.contextmanager
def running(
    log: Log,
    to: Path,
    *,
    server: str | None = None,
    events_max: int = EVERYTHING,
    after: int | None = None,
) -> Iterator[ContinuousExport]:
    """Begin as the command does."""
    with ExportDirectory.claim(to) as directory:
        export = ContinuousExport(
            directory, Tally(alphabet()), server, events_max, after
        )
        export.begin(Log.open(log.store))
        yield export


def look(log: Log, to: Path, **options: object) -> list[Written]:
    """Run for one look."""
    with running(log, to, **options) as export:  # type: ignore[arg-type]
        return list(export.catch_up(replayer_of(log)))


@pytest.fixture
def to(tmp_path: Path) -> Path:
    """Return where an export may go."""
    return tmp_path / "to"


@pytest.fixture
def log() -> Log:
    """Return a log of votes, some of which fail: events 5 to 7, 8, 9 to 10."""
    made = nearly_full()
    append(made, [(b"a", 8), (b"a", 3), (b"b", 4)])
    append(made, [(b"a", 2)])
    append(made, [(b"a", 1), (b"c", 2**32 - 1)])
    return made


class TestRows:
    """What segments hold."""

    @settings(max_examples=settings().max_examples // 3)
    @given(
        made=lots, more=lots, events_max=st.integers(1, 9), is_restarted=st.booleans()
    )
    def test_rows_are_the_log_counted(
        self,
        made: list[list[Vote]],
        more: list[list[Vote]],
        events_max: int,
        *,
        is_restarted: bool,
    ) -> None:
        """Every event has its row, and `counted` is what its total grew by."""
        log = nearly_full()
        for each in made:
            append(log, each)
        with tempfile.TemporaryDirectory() as path:
            to = Path(path) / "to"
            with running(log, to, events_max=events_max) as export:
                list(export.catch_up(replayer_of(log)))
                for each in more:
                    append(log, each)
                if not is_restarted:
                    list(export.catch_up(replayer_of(log)))
            if is_restarted:
                look(log, to, events_max=events_max)
            assert rows(to) == expected(log, VOTES_META.log_id)
            machine = alphabet()
            replayer_of(log).recover(machine)
            totals = {"a": TOTAL_MAX - ROOM}
            for _, _, letter, _, counted, _ in rows(to):
                totals[str(letter)] = totals.get(str(letter), 0) + int(str(counted))
        state = machine.state("letter state").votes_by_letter
        found = {name.decode("latin-1"): vote.votes for name, vote in state.items()}
        assert found == {name: total for name, total in totals.items() if name in found}

    def test_failed_events_count_nothing(self, log: Log, to: Path) -> None:
        """A vote that would pass a total's bound has its row, with 0 counted."""
        look(log, to, server="one")
        assert [row[:5] for row in rows(to)] == [
            ("one", 5, "a", 8, 8),
            ("one", 6, "a", 3, 0),
            ("one", 7, "b", 4, 4),
            ("one", 8, "a", 2, 2),
            ("one", 9, "a", 1, 0),
            ("one", 10, "c", 2**32 - 1, 2**32 - 1),
        ]

    def test_types_are_as_documented(self, log: Log, to: Path) -> None:
        """The columns have types that every reader knows, and no nulls."""
        [written] = look(log, to)
        schema = pq.read_schema(to / written.segment.file)
        assert [(field.name, str(field.type), field.nullable) for field in schema] == [
            ("server", "string", False),
            ("sequence", "int64", False),
            ("letter", "string", False),
            ("votes", "int64", False),
            ("counted", "int64", False),
            ("time", "timestamp[us, tz=UTC]", False),
        ]

    def test_a_segment_ends_with_a_block(self, log: Log, to: Path) -> None:
        """Segments are cut where blocks end, as long as they may be."""
        written = look(log, to, events_max=4)
        found = [each.segment for each in written]
        assert [(s.first_sequence, s.last_sequence) for s in found] == [(5, 8), (9, 10)]

    @pytest.mark.parametrize("parent_id", ["", "before-compact"])
    def test_a_segment_names_its_logs_parent(self, to: Path, parent_id: str) -> None:
        """The log that a log was made from is told in the file; none is left out."""
        meta = attrs.evolve(VOTES_META, parent_id=parent_id)
        log = Log.create(MemoryStore(), meta)
        append(log, [(b"a", 8)])
        [written] = look(log, to)
        metadata = pq.read_metadata(to / written.segment.file).metadata
        label = json.loads(metadata[b"alphabet"])
        assert label.get("parent_id", "") == parent_id
        assert ("parent_id" in label) == bool(parent_id)
        assert Label.decode(metadata[b"alphabet"]) == written.label

    def test_it_may_begin_within_a_block(self, log: Log, to: Path) -> None:
        """A new export begins behind any event, with the totals as they are there."""
        look(log, to, after=5)
        assert rows(to) == expected(log, VOTES_META.log_id)[1:]

    def test_a_snapshot_is_a_place_to_begin(
        self, log: Log, to: Path, tmp_path: Path
    ) -> None:
        """A run that goes on begins with the newest snapshot, not the whole log."""
        look(log, to)
        machine = alphabet()
        replayer_of(log).recover(machine)
        path = tmp_path / "snapshots"
        snapshot = take_snapshot(log, machine, 10, machine.dump())
        SnapshotDirectory(path).write(snapshot)
        append(log, [(b"a", 1), (b"a", 0)])
        log.store.commit([Change(BLOCKS, key(5), b"damaged")], 12)
        with running(log, to) as export:
            list(export.catch_up(replayer_of(log, path)))
        assert [row[4] for row in rows(to)[-2:]] == [0, 0]

    def test_lost_events_have_no_rows(self, log: Log, to: Path) -> None:
        """A gap is refused; with consent it is passed over, and the label has it."""
        append(log, 3)
        append(log, [(b"b", 5)])
        with pytest.raises(GapError, match="events 11 to 13 are lost"):
            look(log, to)
        assert whole(to) == []
        with running(log, to) as export:
            [written] = export.catch_up(replayer_of(log, are_gaps_accepted=True))
        assert written.label.gaps == ((11, 3),)
        assert [row[1] for row in rows(to)] == [*range(5, 11), 14]

    def test_nothing_new_is_no_segment(self, log: Log, to: Path) -> None:
        """A look at a log that has not grown writes nothing."""
        with running(log, to) as export:
            assert len(list(export.catch_up(replayer_of(log)))) == 1
            before = {name: (to / name).stat().st_mtime_ns for name in names(to)}
            assert list(export.catch_up(replayer_of(log))) == []
        after = {name: (to / name).stat().st_mtime_ns for name in names(to)}
        assert before == after


def test_flushes_come_in_order(
    log: Log, to: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is next is named durably before any of it is written."""
    seen: list[str] = []

    def note(descriptor: int) -> None:
        name = Path(f"/proc/self/fd/{descriptor}").readlink().name
        seen.append("flush " + name.replace(VOTES_META.log_id, "ID"))

    with running(log, to) as export:
        monkeypatch.setattr(os, "fsync", note)
        monkeypatch.setattr(failpoint, "handler", seen.append)
        list(export.catch_up(replayer_of(log)))
    assert seen == [
        "flush .next.tmp",
        "intent.before_rename",
        "intent.after_rename",
        "flush to",
        "intent.after_flush",
        "export.after_create",
        "export.after_row_group",
        f"flush .{5:020}-{10:020}-ID.parquet.tmp",
        "export.before_rename",
        "export.after_rename",
        "flush to",
        "export.after_flush",
    ]


class TestServer:
    """Whose votes they are."""

    def test_it_is_the_logs_id_by_default(self, log: Log, to: Path) -> None:
        """A server that was given no name goes by its log's id."""
        look(log, to)
        assert {row[0] for row in rows(to)} == {VOTES_META.log_id}

    def test_it_stays(self, log: Log, to: Path) -> None:
        """A later run that is given no name goes on with the one that is there."""
        look(log, to, server="north")
        append(log, [(b"z", 1)])
        look(log, to)
        assert {row[0] for row in rows(to)} == {"north"}

    @pytest.mark.parametrize("is_begun", [True, False])
    def test_another_is_refused(self, log: Log, to: Path, *, is_begun: bool) -> None:
        """One directory has one server, also before its first segment is whole."""
        if is_begun:
            crash(log, to, "export.before_rename", server="north")
        else:
            look(log, to, server="north")
        with pytest.raises(ExportError, match="is of server 'north', not 'south'"):
            look(log, to, server="south")


def crash(log: Log, to: Path, name: str, turn: int = 1, **options: object) -> None:
    """Run, and end the process the n-th time that it reaches an instant."""
    left = to.with_name("left")
    turns = itertools.count(1)

    def reach(reached: str) -> None:
        if reached == name and next(turns) == turn:
            # Nothing that this process does from here on reaches the directory.
            to.rename(left)
            raise CrashError(name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(failpoint, "handler", reach)
        with contextlib.suppress(CrashError):
            look(log, to, **options)
    if left.exists():
        left.rename(to)


class TestRefusals:
    """What may not be added to."""

    def check(
        self, log: Log, to: Path, said: str, error: type[Exception] = ExportError
    ) -> None:
        """Fail unless a run is refused for this reason, and changes nothing."""
        before = {name: (to / name).read_bytes() for name in names(to)}
        with pytest.raises(error, match=said):
            look(log, to)
        assert {name: (to / name).read_bytes() for name in names(to)} == before

    @pytest.mark.parametrize("name", ["export.after_flush", "intent.after_flush"])
    def test_a_log_that_went_on_otherwise(self, log: Log, to: Path, name: str) -> None:
        """Not even a range that was only named is written from another history."""
        crash(log, to, name)
        other = nearly_full()
        for content in (
            [(b"a", 8), (b"a", 3), (b"b", 4)],
            [(b"a", 2)],
            [(b"x", 1)] * 3,
        ):
            append(other, content)
        self.check(other, to, r"lost|otherwise")

    @pytest.mark.parametrize("name", ["export.after_flush", "intent.after_flush"])
    def test_a_lost_tail(self, log: Log, to: Path, name: str) -> None:
        """A log that ends before what was exported, or named, does is refused."""
        crash(log, to, name)
        log.store.commit([Change(BLOCKS, key(9), None)], 8)
        self.check(log, to, "reached 10, and this one ends at 8: its tail was lost")

    @pytest.mark.parametrize("name", ["export.after_flush", "intent.after_flush"])
    def test_another_log(self, log: Log, to: Path, name: str) -> None:
        """A directory is one log's, from the moment its first segment is named."""
        crash(log, to, name)
        other = Log.create(MemoryStore(), attrs.evolve(VOTES_META, log_id="f" * 32))
        self.check(other, to, f"holds the export of log {VOTES_META.log_id}")

    def test_another_log_between_two_looks(self, to: Path) -> None:
        """A log that is put in the other's place is noticed, where nothing is yet."""
        empty = Log.create(MemoryStore(), VOTES_META)
        other = Log.create(MemoryStore(), attrs.evolve(VOTES_META, log_id="f" * 32))
        append(other, [(b"a", 1)])
        with (
            running(empty, to) as export,
            pytest.raises(ReplacedError, match="it is log ffff"),
        ):
            list(export.catch_up(replayer_of(other)))

    def test_another_beginning(self, log: Log, to: Path) -> None:
        """A first segment that was named and not written is written as it was named."""
        crash(log, to, "intent.after_flush", after=6)
        self.check(log, to, "was begun with --after 6, not 4: go on so")
        look(log, to, after=6)
        assert rows(to) == expected(log, VOTES_META.log_id)[2:]

    def test_a_segment_that_is_missing(self, log: Log, to: Path) -> None:
        """Of the segments before the one that was named, none may be away."""
        first, second = look(log, to, events_max=4)
        append(log, [(b"q", 1)])
        crash(log, to, "intent.after_flush")
        content = (to / second.segment.file).read_bytes()
        (to / second.segment.file).unlink()
        self.check(log, to, "lacks events 9 to 10: bring back the file as it was, or")
        other = to.with_name("other")
        look(log, other, after=first.segment.last_sequence)
        assert rows(other) == expected(log, VOTES_META.log_id)[4:]
        (to / second.segment.file).write_bytes(content)
        look(log, to)
        assert rows(to) == expected(log, VOTES_META.log_id)

    def test_a_hole(self, log: Log, to: Path) -> None:
        """Where a segment between others is away, those before it may be so too."""
        first, second, _ = look(log, to, events_max=2)
        (to / second.segment.file).unlink()
        said = "lacks events 8 to 8: bring the file back, or move away all before it"
        self.check(log, to, said)
        (to / first.segment.file).unlink()
        append(log, [(b"q", 1)])
        look(log, to)
        assert rows(to) == expected(log, VOTES_META.log_id)[4:]

    @pytest.mark.parametrize("is_next_named", [False, True])
    def test_a_damaged_newest(self, log: Log, to: Path, *, is_next_named: bool) -> None:
        """A damaged segment may be removed unless another is named to follow it."""
        *_, newest = look(log, to, events_max=4)
        append(log, [(b"q", 1)])
        if is_next_named:
            crash(log, to, "intent.after_flush")
        file = to / newest.segment.file
        before = file.read_bytes()
        file.write_bytes(before[:-1])
        way = "bring back the file as it was, or go" if is_next_named else "remove it, "
        self.check(log, to, rf"no whole Parquet file: .*; {way}")
        if is_next_named:
            file.write_bytes(before)
        else:
            file.unlink()
        look(log, to)
        assert file.read_bytes() == before
        assert rows(to) == expected(log, VOTES_META.log_id)

    @pytest.mark.parametrize("name", ["export.after_flush", "intent.after_flush"])
    def test_a_log_made_of_the_other(self, log: Log, to: Path, name: str) -> None:
        """A compacted log goes on in another directory, behind what is exported."""
        crash(log, to, name)
        meta = attrs.evolve(VOTES_META, log_id="f" * 32, parent_id=VOTES_META.log_id)
        base = attrs.evolve(meta, base_sequence=10, base_checksum=log.tail.checksum)
        way = "choose another directory, with --after 10: it was made from that one$"
        self.check(Log.create(MemoryStore(), base, b"state"), to, way)
        # What it does not have cannot be what it begins behind.
        short = Log.create(MemoryStore(), meta)
        self.check(short, to, "choose another directory$")

    def test_a_newest_that_was_removed_is_made_again(self, log: Log, to: Path) -> None:
        """A segment that was removed comes back as it was, also if more came."""
        *_, newest = look(log, to, events_max=4)
        file = to / newest.segment.file
        before = file.read_bytes()
        file.unlink()
        append(log, [(b"q", 1)])
        look(log, to)
        assert file.read_bytes() == before
        assert rows(to) == expected(log, VOTES_META.log_id)

    def test_a_newest_that_goes_while_it_runs(self, log: Log, to: Path) -> None:
        """A segment that is gone at a later look is called that, and not damaged."""
        with running(log, to) as export:
            [written] = export.catch_up(replayer_of(log))
            (to / written.segment.file).unlink()
            with pytest.raises(ExportError, match=r"\.parquet is gone: bring it back"):
                list(export.catch_up(replayer_of(log)))
        [again] = look(log, to)
        assert again.segment == written.segment

    def test_a_plain_export(self, log: Log, to: Path) -> None:
        """Files of other columns are not mixed with segments."""
        plan = Plan(VOTES_META.log_id, False, EVERYTHING, partial(block_holding, log))  # noqa: FBT003 - by size
        with ExportDirectory.claim(to) as directory:
            list(Exporter(log, directory, plan).export(BASE, 10))
        said = "it has other columns: sequence, time, time_ns, letter, votes; choose"
        self.check(log, to, said)

    def test_a_damaged_intent(self, log: Log, to: Path) -> None:
        """What says nothing is named, with when it may be removed."""
        look(log, to)
        (to / INTENT).write_bytes(b"{")
        self.check(log, to, "does not say what it holds; remove it if no reader")
        (to / INTENT).unlink()
        look(log, to)

    def test_two_at_once(self, log: Log, to: Path) -> None:
        """While one runs, a second is kept out."""
        with running(log, to):
            self.check(log, to, "another export is writing to it", DirectoryError)

    def test_damage(self, log: Log, to: Path) -> None:
        """A damaged block ends it, with nothing of its segment written."""
        value = log.store.get(BLOCKS, key(8))
        assert value is not None
        log.store.commit([Change(BLOCKS, key(8), flip_middle(value))], 10)
        with pytest.raises(DamagedError, match="at sequence 8"):
            look(log, to)
        assert names(to) == [INTENT]
        log.store.commit([Change(BLOCKS, key(8), value)], 10)
        look(log, to)
        assert rows(to) == expected(log, VOTES_META.log_id)


@attrs.frozen
class Reach:
    """How far a directory's segments, and what was named, go in a log."""

    sequence: int
    checksum: int

    @classmethod
    def of(cls, log: Log, sequence: int) -> "Reach":
        """Note the end of a block."""
        return cls(sequence, log.tail_at(sequence).checksum)

    def holds(self, log: Log) -> bool:
        """Say whether a log still has that block."""
        return (
            self.sequence <= log.tail.sequence and Reach.of(log, self.sequence) == self
        )


class Segments(RuleBasedStateMachine):
    """A growing log, backups of it that are put back, and an exporter that may die.

    `seen` is every segment that a reader can have seen, at any instant, with its
    bytes; `reach` is where the last one that was named ends.
    """

    def __init__(self) -> None:
        super().__init__()
        self.resources = contextlib.ExitStack()
        self.place = Path(self.resources.enter_context(tempfile.TemporaryDirectory()))
        self.turns = itertools.count()
        self.log = nearly_full()
        self.backup = self.log.store.disk.tables  # type: ignore[attr-defined]
        self.begin_anew()

    def teardown(self) -> None:
        """Go to the end undisturbed, where all must be there once, and let go."""
        try:
            if not self.reach or self.reach.holds(self.log):
                self.run(5, None)
                assert self.rows == expected(self.log, "s")
        finally:
            self.resources.close()

    def begin_anew(self) -> None:
        """Choose a directory that has nothing in it yet."""
        self.to = self.place / str(next(self.turns))
        self.seen: dict[str, bytes] = {}
        self.rows: list[Row] = []
        self.reach: Reach | None = None
        self.power = PowerCut(self.to)

    @initialize(made=lots)
    def begin(self, made: list[list[Vote]]) -> None:
        """Have votes in the log."""
        self.vote(made)

    @rule(made=lots)
    def vote(self, made: list[list[Vote]]) -> None:
        """Let the log grow."""
        for each in made:
            append(self.log, each)

    @rule()
    def take_backup(self) -> None:
        """Copy the log as it is."""
        self.backup = self.log.store.disk.tables  # type: ignore[attr-defined]

    @rule()
    def restore(self) -> None:
        """Put the backup in the log's place."""
        self.log.store.disk.tables = self.backup  # type: ignore[attr-defined]
        self.log = Log.open(self.log.store)

    @rule(
        events_max=st.integers(1, 9),
        end=st.none()
        | st.tuples(st.sampled_from(INSTANTS), st.integers(1, 3), st.booleans()),
    )
    def run(self, events_max: int, end: tuple[str, int, bool] | None) -> None:
        """Run; `end` is an instant, which time, and whether the power fails too."""
        if self.reach and not self.reach.holds(self.log):
            before = {name: (self.to / name).read_bytes() for name in names(self.to)}
            with pytest.raises(ExportError, match=r"otherwise|its tail was lost"):
                look(self.log, self.to, server="s", events_max=events_max)
            assert before == {n: (self.to / n).read_bytes() for n in names(self.to)}
            self.begin_anew()
            return
        with self.power.watching(), pytest.MonkeyPatch.context() as patch:
            patch.setattr(failpoint, "handler", Reached(self, end))
            with contextlib.suppress(CrashError):
                look(self.log, self.to, server="s", events_max=events_max)
        left = self.place / "left"
        if left.exists():
            left.rename(self.to)
            if end and end[2]:
                self.power.strike()
        self.check()

    def note(self) -> None:
        """See what a reader sees now, and what is named."""
        for name in whole(self.to):
            content = (self.to / name).read_bytes()
            if self.seen.setdefault(name, content) != content:
                raise AssertionError(f"{name} was changed")

    def check(self) -> None:
        """Fail unless what readers saw is the beginning of the log, each event once."""
        self.note()
        self.reach = self.named()
        found = []
        for name in sorted(self.seen):
            segment = Segment.parse(name)
            assert segment is not None
            found.append((segment.first_sequence, segment.last_sequence))
        assert all(a[1] + 1 == b[0] for a, b in itertools.pairwise(found)), found
        self.rows = rows(self.to)
        assert self.rows == expected(self.log, "s")[: len(self.rows)]

    def named(self) -> Reach | None:
        """Give the end of the segment that was named last."""
        named = read_intent(self.to) if self.to.exists() else None
        return None if named is None else Reach.of(self.log, named.last_sequence)


@attrs.define
class Reached:
    """Ends a run at an instant, and lets readers look at each before that."""

    machine: Segments
    end: tuple[str, int, bool] | None
    times: int = 0

    def __call__(self, name: str) -> None:
        """Look, and end the run if this is where."""
        self.machine.note()
        if self.end is None or name != self.end[0]:
            return
        self.times += 1
        if self.times == self.end[1]:
            # Nothing that this process does from here on reaches the directory.
            self.machine.to.rename(self.machine.place / "left")
            raise CrashError(name)


Segments.TestCase.settings = settings(
    max_examples=settings().max_examples // 2, stateful_step_count=15
)
TestSegments = Segments.TestCase


class TestTally:
    """A machine kept where an export is."""

    def test_it_goes_where_it_is_asked_for(self, log: Log) -> None:
        """Asked for events again, it tells the same, and counts none of them twice."""
        tally = Tally(alphabet())
        for after in (BASE, BASE, 7, 5):
            found = [
                sequence
                for _, failed in tally.replay(replayer_of(log), after)
                for sequence in failed
            ]
            assert found == [each for each in (6, 9) if each > after]

    def test_a_snapshot_counts_what_is_lost(self, log: Log, tmp_path: Path) -> None:
        """Behind lost events, it goes on with what a snapshot among them counted."""
        counted = self.lose(log, tmp_path)
        tally = Tally(alphabet())
        list(tally.replay(replayer_of(log, tmp_path, are_gaps_accepted=True), BASE))
        assert tally.machine.dump() == counted

    def test_a_snapshot_is_no_consent(self, log: Log, tmp_path: Path) -> None:
        """Lost events are refused also where a snapshot counted them."""
        self.lose(log, tmp_path)
        replayed = Tally(alphabet()).replay(replayer_of(log, tmp_path), 10)
        with pytest.raises(GapError, match="events 11 to 12 are lost"):
            next(replayed)

    def lose(self, log: Log, snapshots: Path) -> tuple[State, ...]:
        """Lose two events that a snapshot counted, and give its states."""
        append(log, 2)
        machine = alphabet()
        replayer_of(log, are_gaps_accepted=True).recover(machine)
        machine.replay(0, 11, pack_votes([(b"b", 1), (b"d", 7)]))
        states = machine.dump()
        SnapshotDirectory(snapshots).write(take_snapshot(log, machine, 12, states))
        return states
