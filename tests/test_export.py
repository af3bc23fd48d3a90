"""A log as Parquet files: each event once, exactly, whatever ends a run and when."""

import collections
import contextlib
import errno
import itertools
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import attrs
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from log import failpoint
from log.block import Block, Records, Tail
from log.errors import DamagedError, DirectoryError
from log.log import Log, Transaction
from log.memory_store import MemoryStore
from log.row import Meta
from log.store import BLOCKS, Change
from recovery.exporting import parquet_file
from recovery.exporting.event_columns import Form
from recovery.exporting.export import (
    ExportDirectory,
    Exporter,
    ExportError,
    Written,
    block_holding,
)
from recovery.exporting.segment import Label, LabelError, Plan, Segment, day_of
from recovery.replay import Replayer
from recovery.snapshot import Snapshot
from recovery.snapshot_directory import SnapshotDirectory
from tests import samples, toy
from tests.exported import (
    FAILPOINTS,
    names,
    records_of,
    rows,
    summed,
    vote_rows,
    votes_of,
)
from tests.machines import (
    DAMAGES,
    VOTES_META,
    alphabet,
    change,
    flip_middle,
    key,
    pack_votes,
)
from tests.votes import Vote, tally

DAY_NS = 86_400_000_000_000
NOON_NS = VOTES_META.created_ns // DAY_NS * DAY_NS + DAY_NS // 2
EVERYTHING = 1 << 40


class CrashError(BaseException):
    """The end of the process, where a test wants it."""


votes = st.tuples(
    st.binary(min_size=1, max_size=1),
    st.sampled_from([0, 1, 2**32 - 1]) | st.integers(0, 2**32 - 1),
)
pauses_ns = st.sampled_from([0, 1, 999, 1000, DAY_NS // 2 - 1, DAY_NS // 2]) | (
    st.integers(0, 3 * DAY_NS)
)
Lot = tuple[int, list[Vote] | int]
"""A block: ns since the one before, and its votes, or how many events are lost."""
lots: st.SearchStrategy[list[Lot]] = st.lists(
    st.tuples(
        pauses_ns,
        st.lists(votes, min_size=1, max_size=6)
        | st.lists(votes, min_size=1, max_size=6)
        | st.integers(1, 9),
    ),
    max_size=8,
)
sizes = st.lists(
    st.tuples(st.sampled_from([0, 1, DAY_NS // 4, DAY_NS]), st.integers(1, 5)),
    min_size=1,
    max_size=12,
)
"""Blocks: ns since the one before, and how many events."""
histories = st.lists(votes, max_size=4)


def new_log(before: Sequence[Vote] = (), meta: Meta = VOTES_META) -> Log:
    """Begin a log behind votes that it no longer has, as a compacted one does."""
    base = len(before)
    meta = attrs.evolve(meta, base_sequence=base, base_checksum=base * 7)
    machine = alphabet()
    if before:
        machine.replay(0, 1, pack_votes(before))
    version, states = machine.state_version, machine.dump()
    state = Snapshot(meta.log_id, base, base, base * 7, "alphabet", version, states)
    return Log.create(MemoryStore(), meta, state.encode() if base else None)


def append(log: Log, pause_ns: int, content: list[Vote] | int) -> None:
    """Commit a block of votes, or of lost events, a while after the one before."""
    records = Records.gap(content) if isinstance(content, int) else pack_votes(content)
    append_records(log, records, (log.tail.time_ns or NOON_NS) + pause_ns)


def append_records(
    log: Log, records: Records, time_ns: int = NOON_NS, pipeline: int = 0
) -> None:
    """Commit a block."""
    block = Block.seal(log.tail, records, time_ns=time_ns, pipeline=pipeline)
    log.commit(Transaction((block,)))


def fill(log: Log, made: Sequence[Lot]) -> Log:
    """Commit a block for each lot."""
    for pause_ns, content in made:
        append(log, pause_ns, content)
    return log


def export(
    log: Log,
    to: Path,
    *,
    until: int | None = None,
    after: int | None = None,
    is_by_day: bool = False,
    events_max: int = EVERYTHING,
) -> list[Written]:
    """Export what a directory lacks of a log, as one run of the command does."""
    with ExportDirectory.claim(to) as directory:
        directory.check(log, Form(log.meta))
        directory.prepare()
        plan = Plan(log.meta.log_id, is_by_day, events_max, partial(block_holding, log))
        begin = directory.last_sequence
        if begin is None:
            begin = log.base.sequence if after is None else after
        end = log.tail.sequence if until is None else until
        return list(Exporter(log, directory, plan).export(begin, end))


@contextlib.contextmanager
def temporary_place() -> Iterator[Path]:
    """Give a directory's name, for a test that makes many."""
    with tempfile.TemporaryDirectory() as path:
        yield Path(path) / "to"


@pytest.fixture
def log() -> Log:
    """Return a log of votes: events 1 to 3 and 4 to 6 of one day, 7 of the next."""
    made: list[Lot] = [
        (0, [(b"a", 1), (b"b", 2), (b"a", 3)]),
        (1, [(b"\xe9", 2**32 - 1), (b"\0", 0), (b"z", 6)]),
        (DAY_NS, [(b"a", 7)]),
    ]
    return fill(new_log(), made)


@pytest.fixture
def to(tmp_path: Path) -> Path:
    """Return where an export may go."""
    return tmp_path / "to"


ids = st.text("0123456789abcdef", min_size=1, max_size=32)
days = st.none() | st.dates().map(str)
segments = st.builds(
    lambda first, count, log_id, day: Segment(first, first + count, log_id, day),
    st.integers(1, 2**63),
    st.integers(0, 2**62),
    ids,
    days,
)


class TestSegment:
    """A segment's name, and what its file says of itself."""

    @given(segment=segments)
    def test_a_name_tells_its_segment(self, segment: Segment) -> None:
        """What a name was made of is read from it."""
        assert Segment.parse(segment.file) == segment

    @given(one=segments, other=segments)
    def test_names_sort_by_sequence(self, one: Segment, other: Segment) -> None:
        """Of two names, the one with the lower first sequence comes first."""
        found = sorted([one, other], key=lambda each: each.file.rpartition("/")[2])
        sequences = [each.first_sequence for each in found]
        assert sequences == sorted(sequences)

    @pytest.mark.parametrize(
        "name",
        [
            "a.parquet",
            "00000000000000000001-00000000000000000002.parquet",
            "00000000000000000001-00000000000000000002-.parquet",
            "1-2-abc.parquet",
            "00000000000000000000-00000000000000000002-abc.parquet",
            "00000000000000000003-00000000000000000002-abc.parquet",
            "00000000000000000001-00000000000000000002-abc.parquet.tmp",
            ".00000000000000000001-00000000000000000002-abc.parquet",
            "day=today/00000000000000000001-00000000000000000002-abc.parquet",
            "sub/00000000000000000001-00000000000000000002-abc.parquet",
        ],
    )
    def test_other_names_are_no_segments(self, name: str) -> None:
        """A name of another form tells nothing."""
        assert Segment.parse(name) is None

    @given(
        segment=segments,
        block=samples.blocks,
        gaps=st.lists(st.tuples(samples.u64, samples.u64)),
    )
    def test_a_label_is_read_back(
        self, segment: Segment, block: Block, gaps: list[tuple[int, int]]
    ) -> None:
        """What a label was made of is read from its text."""
        label = Label.of(segment, VOTES_META, block, gaps)
        assert Label.decode(label.encode()) == label
        assert Label.decode(label.encode().encode()) == label

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("", "does not say"),
            ("[]", "does not say"),
            ("{}", "does not say"),
            ('{"format_version": 1}', "does not say"),
            ('{"format_version": 2, "more": 1}', "its format is version 2, not 1"),
        ],
    )
    def test_other_texts_are_no_labels(self, text: str, said: str) -> None:
        """A text of another form or version is refused, saying which."""
        with pytest.raises(LabelError, match=said):
            Label.decode(text)


class TestPlan:
    """Which events go into which file."""

    @given(
        made=sizes,
        is_by_day=st.booleans(),
        events_max=st.integers(1, 30),
        data=st.data(),
    )
    def test_segments_are_as_long_as_they_may_be(
        self,
        made: list[tuple[int, int]],
        *,
        is_by_day: bool,
        events_max: int,
        data: st.DataObject,
    ) -> None:
        """Segments follow each other, break no rule, and would with a block more."""
        log = fill(new_log(), list(made))
        blocks = list(log.read(0))
        after = data.draw(st.integers(0, 3))
        until = max(after, log.tail.sequence - data.draw(st.integers(0, 3)))
        plan = Plan("id", is_by_day, events_max, partial(block_holding, log))
        ends = {block.last_sequence for block in blocks}
        while after < until:
            segment = plan.next_segment(after, until)
            last = segment.last_sequence
            assert segment.first_sequence == after + 1 <= last <= until
            assert last in ends | {until}
            inside = _between(blocks, after, last)
            assert last - after <= events_max or len(inside) == 1
            inside_days = {day_of(block.time_ns) for block in inside}
            assert segment.day == (min(inside_days) if is_by_day else None)
            assert not is_by_day or len(inside_days) == 1
            if last < until:
                following = block_holding(log, last + 1)
                end = min(following.last_sequence, until)
                is_next_day = day_of(following.time_ns) not in inside_days
                assert end - after > events_max or (is_by_day and is_next_day)
            after = last

    @pytest.mark.parametrize(
        ("events_max", "ends"),
        [
            (1, [1, 2, 4, 7, 8]),
            (2, [2, 4, 7, 8]),
            (3, [2, 4, 7, 8]),
            (4, [4, 8]),
            (5, [4, 8]),
            (7, [7, 8]),
            (8, [8]),
        ],
    )
    def test_a_size_is_never_passed(self, events_max: int, ends: list[int]) -> None:
        """A segment ends at the last block that fits, or has one that does not."""
        sizes = [1, 1, 2, 3, 1]
        log = fill(new_log(), [(0, [(b"a", 1)] * size) for size in sizes])
        plan = Plan("id", False, events_max, partial(block_holding, log))  # noqa: FBT003 - by size
        found = [0]
        while found[-1] < 8:
            found.append(plan.next_segment(found[-1], 8).last_sequence)
        assert found[1:] == ends

    @pytest.mark.parametrize(("until", "last"), [(2, 2), (5, 5), (9, 9), (12, 9)])
    def test_a_large_block_is_one_segment(self, until: int, last: int) -> None:
        """A block with more events than fit is taken as far as the bound allows."""
        log = fill(new_log(), [(0, [(b"a", 1)] * 9), (0, [(b"a", 1)] * 3)])
        plan = Plan("id", False, 3, partial(block_holding, log))  # noqa: FBT003 - by size
        assert plan.next_segment(0, until).last_sequence == last

    @pytest.mark.parametrize(
        ("time_ns", "day"),
        [
            (0, "1970-01-01"),
            (DAY_NS - 1, "1970-01-01"),
            (DAY_NS, "1970-01-02"),
            (2**63 - 1, "2262-04-11"),
        ],
    )
    def test_days_begin_at_midnight(self, time_ns: int, day: str) -> None:
        """A day has its first nanosecond, and not the next day's."""
        assert day_of(time_ns) == day

    def test_a_day_is_found_in_few_looks(self) -> None:
        """Of a thousand blocks of a day, the last is found by looking at a score."""
        log = new_log()
        for number in range(1001):
            append(log, DAY_NS if number == 1000 else 1, [(b"a", 1)] * 3)
        looks: list[int] = []

        def look(sequence: int) -> Block:
            looks.append(sequence)
            return block_holding(log, sequence)

        plan = Plan("id", True, EVERYTHING, look)  # noqa: FBT003 - by day
        assert plan.next_segment(0, 3003).last_sequence == 3000
        assert len(looks) <= 20


def _between(blocks: Sequence[Block], after: int, last: int) -> list[Block]:
    return [b for b in blocks if b.last_sequence > after and b.first_sequence <= last]


@contextlib.contextmanager
def small_row_groups(events: int = 3) -> Iterator[None]:
    """Let a few events fill a row group, and no flush take its time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parquet_file, "ROW_GROUP_EVENTS", events)
        patch.setattr(os, "fsync", lambda _descriptor: None)
        yield


class TestVotes:
    """What the rows say, as DuckDB reads them."""

    @settings(max_examples=settings().max_examples // 2)
    @given(
        before=histories,
        made=lots,
        is_by_day=st.booleans(),
        events_max=st.integers(1, 20),
    )
    def test_rows_are_the_log(
        self, before: list[Vote], made: list[Lot], *, is_by_day: bool, events_max: int
    ) -> None:
        """Every vote has its row and no other has one; totals are the replayed ones."""
        log = fill(new_log(before), made)
        with temporary_place() as place, small_row_groups():
            written = export(log, place, is_by_day=is_by_day, events_max=events_max)
            expected = votes_of(log, log.base.sequence, log.tail.sequence)
            assert vote_rows(place) == expected
            assert rows(place, "epoch_us(time)") == [
                (t // 1000,) for _, t, _, _ in expected
            ]
            assert sum(each.events for each in written) == len(expected)
            gaps = [gap for each in written for gap in each.label.gaps]
            assert _events(gaps) == _events(
                (block.first_sequence, block.records.count)
                for block in log.read(log.base.sequence)
                if block.records.is_gap
            )
            totals = collections.Counter(tally(before))
            if written:
                totals.update(summed(place))
        assert dict(totals) == _replayed_totals(log)

    def test_every_byte_is_a_letter(self, to: Path) -> None:
        """256 letters stay 256, and DuckDB tells each one's number."""
        made = [(bytes([byte]), byte) for byte in range(256)]
        export(fill(new_log(), [(0, made)]), to)
        found = rows(to, "ord(letter)", "votes", "length(letter)")
        assert found == [(byte, byte, 1) for byte in range(256)]

    def test_types_are_as_documented(self, log: Log, to: Path) -> None:
        """The columns have types that DuckDB, Polars and Spark all know, no nulls."""
        [written] = export(log, to)
        schema = pq.read_schema(to / written.segment.file)
        assert [(field.name, str(field.type), field.nullable) for field in schema] == [
            ("sequence", "int64", False),
            ("time", "timestamp[us, tz=UTC]", False),
            ("time_ns", "int64", False),
            ("letter", "string", False),
            ("votes", "uint32", False),
        ]

    def test_days_are_directories(self, log: Log, to: Path) -> None:
        """By day, each file is in the directory of its votes' day."""
        export(log, to, is_by_day=True)
        span = "00000000000000000001-00000000000000000006"
        assert names(to) == [
            f"day=2023-11-14/{span}-{VOTES_META.log_id}.parquet",
            f"day=2023-11-15/{'7':0>20}-{'7':0>20}-{VOTES_META.log_id}.parquet",
        ]

    def test_midnight_divides_days(self, to: Path) -> None:
        """A vote at a day's last nanosecond is of that day, one later of the next."""
        made: list[Lot] = [
            (0, [(b"a", 1)]),
            (DAY_NS // 2 - 1, [(b"b", 2)]),
            (1, [(b"c", 3)]),
        ]
        written = export(fill(new_log(), made), to, is_by_day=True)
        found = [(each.segment.day, each.segment.last_sequence) for each in written]
        assert found == [("2023-11-14", 2), ("2023-11-15", 3)]

    @pytest.mark.parametrize("sizes", [[1, 1, 1, 25, 2, 7, 9], [4, 3, 2, 4]])
    def test_row_groups_are_bounded(self, to: Path, sizes: list[int]) -> None:
        """A row group has less than twice the events that fill one, of any blocks."""
        log = fill(new_log(), [(1, [(b"a", 1)] * size) for size in sizes])
        with small_row_groups(4):
            [written] = export(log, to)
        metadata = pq.read_metadata(to / written.segment.file)
        found = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
        assert sum(found) == sum(sizes)
        assert max(found) < 8
        assert min(found[:-1]) >= 4

    def test_a_range_is_written_the_same_again(self, log: Log, to: Path) -> None:
        """The same events give the same bytes under the same name."""
        other = to.with_name("other")
        for place in (to, other):
            export(log, place, events_max=3)
        assert names(to) == names(other)
        for name in names(to):
            assert (to / name).read_bytes() == (other / name).read_bytes()


def _events(gaps: Iterator[tuple[int, int]] | list[tuple[int, int]]) -> list[int]:
    return [first + index for first, count in gaps for index in range(count)]


def _replayed_totals(log: Log) -> dict[str, int]:
    machine = alphabet()
    replayer = Replayer(log, SnapshotDirectory(Path("none")), are_gaps_accepted=True)
    replayer.recover(machine)
    state = machine.state("letter state")
    return {
        letter.decode("latin-1"): vote.votes
        for letter, vote in state.votes_by_letter.items()
    }


class TestRecords:
    """The rows of another application."""

    @settings(max_examples=settings().max_examples // 4)
    @given(made=st.lists(st.tuples(toy.pipelines, samples.payloads), max_size=6))
    def test_rows_are_the_log(self, made: list[tuple[int, list[bytes]]]) -> None:
        """Every record has its row, with its pipeline's name and its bytes."""
        log = Log.create(MemoryStore(), toy.META)
        for pipeline, payloads in made:
            append_records(log, Records.pack(payloads), log.tail.sequence, pipeline)
        with temporary_place() as place, small_row_groups():
            export(log, place, events_max=10)
            found = rows(place, "sequence", "time_ns", "pipeline", "record")
        assert found == records_of(log)

    def test_bytes_fill_a_row_group_too(
        self, to: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Few records that are large make a row group, so that memory is bounded."""
        monkeypatch.setattr(parquet_file, "ROW_GROUP_BYTES", 100)
        log = Log.create(MemoryStore(), toy.META)
        for _ in range(6):
            append_records(log, Records.pack([b"x" * 50]))
        [written] = export(log, to)
        assert pq.read_metadata(to / written.segment.file).num_row_groups == 3

    def test_votes_of_two_pipelines_keep_them(self, to: Path) -> None:
        """Records that look like votes stay records where pipelines differ."""
        meta = attrs.evolve(VOTES_META, pipelines=("one", "two"))
        log = Log.create(MemoryStore(), meta)
        append_records(log, pack_votes([(b"a", 1)]), pipeline=1)
        export(log, to)
        assert rows(to, "pipeline", "record") == [("two", b"a\0\0\0\1")]


class TestWhatNoColumnHolds:
    """Events that are refused, and not changed."""

    def check(self, log: Log, to: Path, said: str) -> None:
        """Fail unless the export is refused, and leaves nothing."""
        with pytest.raises(ExportError, match=said):
            export(log, to)
        assert names(to) == []

    def test_times_beyond_2262(self, to: Path) -> None:
        """A time of 2^63 ns or more is refused; one below is kept to the nanosecond."""
        log = new_log()
        append_records(log, pack_votes([(b"a", 1)]), 2**63 - 1)
        export(log, to.with_name("fine"))
        assert vote_rows(to.with_name("fine")) == [(1, 2**63 - 1, "a", 1)]
        append_records(log, pack_votes([(b"a", 1)]), 2**63)
        self.check(log, to, "the block from 2, at 9223372036854775808 ns, is beyond")

    def test_sequences_beyond_int64(self, to: Path) -> None:
        """A sequence of 2^63 is refused."""
        meta = attrs.evolve(VOTES_META, base_sequence=2**63 - 2, base_checksum=1)
        log = Log.create(MemoryStore(), meta, b"a state")
        append_records(log, pack_votes([(b"a", 1)]))
        export(log, to.with_name("fine"))
        assert vote_rows(to.with_name("fine")) == [(2**63 - 1, NOON_NS, "a", 1)]
        append_records(log, pack_votes([(b"a", 1)]))
        self.check(log, to, "the block from 9223372036854775808")

    def test_records_that_are_no_votes(self, to: Path) -> None:
        """A record of another size in a log of votes is refused by its sequence."""
        log = new_log()
        append_records(log, pack_votes([(b"a", 1)]))
        append_records(log, Records.pack([b"four"]))
        self.check(log, to, "the records from 2 are no votes of 5 bytes")

    def test_pipelines_without_a_name(self, to: Path) -> None:
        """A pipeline that the log does not name is refused by its event."""
        log = Log.create(MemoryStore(), toy.META)
        append_records(log, Records.pack([b"x"]), pipeline=2)
        self.check(log, to, "the pipeline of event 1 has no name")


@attrs.define
class Runs:
    """Exports a growing log, run after run, each of which may crash."""

    log: Log
    to: Path
    is_by_day: bool
    reached: int = 0

    def run(self, events_max: int, until: int, crash: tuple[str, int] | None) -> None:
        """Run once; a crash is at the n-th time that a failpoint is reached."""
        turns = itertools.count(1)
        left = self.to.with_name("left")

        def reach(name: str) -> None:
            if crash and name == crash[0] and next(turns) == crash[1]:
                # What is there at this instant is what a crash leaves.
                shutil.copytree(self.to, left)
                raise CrashError(name)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(failpoint, "handler", reach)
            try:
                export(
                    self.log,
                    self.to,
                    until=until,
                    is_by_day=self.is_by_day,
                    events_max=events_max,
                )
                self.reached = max(self.reached, until)
            except CrashError:
                shutil.rmtree(self.to)
                left.rename(self.to)
        self.check()

    def check(self) -> None:
        """Fail unless whole segments hold the first events once, and no other."""
        found = rows(self.to, "sequence", "time_ns", "letter", "votes")
        ends = [int(name.split("-")[-2]) for name in self.whole_names()]
        self.reached = max([self.reached, *ends])
        assert found == votes_of(self.log, 0, self.reached)

    def whole_names(self) -> list[str]:
        """Give the names of the segments."""
        return [name for name in names(self.to) if not name.endswith(".tmp")]


run_lists = st.lists(
    st.tuples(
        lots,
        st.integers(1, 20),
        st.floats(0, 1),
        st.none() | st.tuples(st.sampled_from(FAILPOINTS), st.integers(1, 3)),
    ),
    max_size=5,
)


class TestRuns:
    """Run after run."""

    @settings(max_examples=settings().max_examples // 4)
    @given(made=run_lists, is_by_day=st.booleans())
    def test_each_event_is_in_one_file(
        self,
        made: list[tuple[list[Lot], int, float, tuple[str, int] | None]],
        *,
        is_by_day: bool,
    ) -> None:
        """However runs are bounded or crash, none is lost and none is there twice."""
        log = new_log()
        with temporary_place() as place, small_row_groups():
            runs = Runs(log, place, is_by_day)
            for more, events_max, part, crash in made:
                fill(log, more)
                runs.run(events_max, round(part * log.tail.sequence), crash)
            runs.run(EVERYTHING, log.tail.sequence, None)
            assert runs.reached == log.tail.sequence
            assert names(place) == runs.whole_names()

    @pytest.mark.parametrize("name", FAILPOINTS)
    def test_a_crash_repeats_its_range(self, log: Log, to: Path, name: str) -> None:
        """A run that goes on behind a crash gives the very files of one without."""
        undisturbed = to.with_name("undisturbed")
        export(log, undisturbed, events_max=3)
        runs = Runs(log, to, is_by_day=False)
        runs.run(3, 7, (name, 1))
        export(log, to, events_max=3)
        assert names(to) == names(undisturbed)

    def test_flushes_come_in_order(
        self, log: Log, to: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A file is flushed before it is named, and names before and after that."""
        seen: list[str] = []

        def note(descriptor: int) -> None:
            is_file = stat.S_ISREG(os.fstat(descriptor).st_mode)
            seen.append(
                "file"
                if is_file
                else str(Path(f"/proc/self/fd/{descriptor}").readlink())
            )

        monkeypatch.setattr(os, "fsync", note)
        monkeypatch.setattr(failpoint, "handler", seen.append)
        export(log, to, is_by_day=True, until=6)
        assert seen == [
            str(to),
            str(to.parent),
            str(to),
            "export.after_create",
            "export.after_row_group",
            "file",
            "export.before_rename",
            "export.after_rename",
            str(to / "day=2023-11-14"),
            "export.after_flush",
        ]
        # What a killed run left may never have been flushed.
        seen.clear()
        export(log, to, until=6)
        assert sorted(seen) == [str(to.parent), str(to), str(to / "day=2023-11-14")]

    def test_a_bound_within_a_block(self, log: Log, to: Path) -> None:
        """A run may end and the next begin inside of a block."""
        for until in (1, 1, 2, 5, 7):
            export(log, to, until=until)
            assert vote_rows(to) == votes_of(log, 0, until)
        assert len(names(to)) == 4

    def test_it_may_begin_later(self, log: Log, to: Path) -> None:
        """An export begins behind any event, which is not in it."""
        export(log, to, after=4)
        assert vote_rows(to) == votes_of(log, 4, 7)

    def test_what_is_new_alone_is_written(self, log: Log, to: Path) -> None:
        """A later run changes no file of an earlier one."""
        export(log, to)
        before = {name: (to / name).stat().st_mtime_ns for name in names(to)}
        append(log, 1, [(b"n", 1)])
        [written] = export(log, to)
        assert (written.segment.first_sequence, written.events) == (8, 1)
        assert (
            before.items()
            <= {name: (to / name).stat().st_mtime_ns for name in names(to)}.items()
        )
        assert export(log, to) == []

    def test_damage_ends_it_behind_what_is_intact(self, log: Log, to: Path) -> None:
        """Events before a damaged block are exported, and it is named."""
        value = log.store.get(BLOCKS, key(4))
        assert value is not None
        log.store.commit([Change(BLOCKS, key(4), flip_middle(value))], 7)
        with pytest.raises(DamagedError, match="at sequence 4"):
            export(log, to)
        assert [row[0] for row in vote_rows(to)] == [1, 2, 3]
        with pytest.raises(DamagedError, match="at sequence 4"):
            export(log, to)
        log.store.commit([Change(BLOCKS, key(4), value)], 7)
        export(log, to)
        assert vote_rows(to) == votes_of(log, 0, 7)

    def test_one_event_before_damage_is_written(self, to: Path) -> None:
        """As little as one intact event makes a segment."""
        log = fill(new_log(), [(0, [(b"a", 1)]), (0, [(b"b", 2)])])
        log.store.commit([Change(BLOCKS, key(2), b"damaged")], 2)
        with pytest.raises(DamagedError, match="at sequence 2"):
            export(log, to)
        assert [row[0] for row in vote_rows(to)] == [1]

    @pytest.mark.parametrize("events_max", [1, 2, 4, EVERYTHING])
    @pytest.mark.parametrize("is_by_day", [False, True])
    def test_a_missing_block_is_named(
        self, log: Log, to: Path, events_max: int, *, is_by_day: bool
    ) -> None:
        """Events before a missing block are exported, the first missing is named."""
        log.store.commit([Change(BLOCKS, key(4), None)], 7)
        with pytest.raises(DamagedError, match="at sequence 4: its block is missing"):
            block_holding(log, 6)
        with pytest.raises(DamagedError, match="at sequence 4"):
            export(log, to, events_max=events_max, is_by_day=is_by_day)
        assert [row[0] for row in vote_rows(to)] == [1, 2, 3]


class TestRefusals:
    """A directory that an export may not be added to."""

    def check(
        self, log: Log, to: Path, said: str, error: type[Exception] = ExportError
    ) -> None:
        """Fail unless an export is refused for this reason, and changes nothing."""
        before = {name: (to / name).read_bytes() for name in names(to)}
        with pytest.raises(error, match=said):
            export(log, to)
        assert {name: (to / name).read_bytes() for name in names(to)} == before

    def test_another_log(self, log: Log, to: Path) -> None:
        """The export of another log is not added to, and both are named."""
        export(log, to)
        other = fill(new_log(meta=attrs.evolve(VOTES_META, log_id="f" * 32)), [])
        self.check(
            other, to, f"holds the export of log {VOTES_META.log_id}, and .* f{{32}}"
        )

    def test_exports_of_two_logs(self, log: Log, to: Path) -> None:
        """A directory with files of two logs is refused."""
        [written] = export(log, to, until=3)
        second = attrs.evolve(
            written.segment, first_sequence=4, last_sequence=6, log_id="b"
        )
        shutil.copy(to / written.segment.file, to / second.file)
        self.check(log, to, "holds exports of logs")

    def test_a_log_that_went_on_otherwise(self, log: Log, to: Path) -> None:
        """The block that a file ends in must be the log's, what follows its end too."""
        export(log, to, until=5)
        other = fill(new_log(), [(0, [(b"a", 1), (b"b", 2), (b"a", 3)])])
        append(other, 1, [(b"\xe9", 2**32 - 1), (b"\0", 0), (b"z", 9)])
        self.check(other, to, "went on otherwise: the block that ends at 6")
        export(log, to)

    def test_a_log_of_other_blocks(self, log: Log, to: Path) -> None:
        """The same events in other blocks are another log."""
        export(log, to, until=3)
        other = fill(
            new_log(), [(0, [(b"a", 1), (b"b", 2)]), (0, [(b"a", 3), (b"c", 4)])]
        )
        self.check(other, to, "went on otherwise: the block that ends at 3")

    def test_a_lost_tail(self, log: Log, to: Path) -> None:
        """A log that ends before its export does has lost its tail."""
        export(log, to)
        log.store.commit([Change(BLOCKS, key(7), None)], 6)
        self.check(Log.open(log.store), to, "reached 7, and this one ends at 6")

    @pytest.mark.parametrize(
        "damage", [damage for damage in DAMAGES if damage is not flip_middle]
    )
    def test_a_damaged_newest_file(
        self, log: Log, to: Path, damage: Callable[[bytes], bytes]
    ) -> None:
        """A newest file that is not whole is named; once removed, it is made again."""
        [*_, newest] = export(log, to, events_max=6)
        change(to / newest.segment.file, damage)
        if damage.__name__ != "flip_first":
            self.check(log, to, f"{newest.segment.file}: it is no whole Parquet file")
        (to / newest.segment.file).unlink()
        export(log, to)
        assert vote_rows(to) == votes_of(log, 0, 7)

    def test_a_foreign_parquet_file(self, log: Log, to: Path) -> None:
        """A Parquet file under a segment's name that we did not write is refused."""
        [written] = export(log, to)
        file = to / written.segment.file
        pq.write_table(pq.read_table(file).replace_schema_metadata(), file)
        self.check(log, to, "it does not say what it holds; choose another directory")

    def test_other_columns(self, log: Log, to: Path) -> None:
        """A log whose rows came to have other columns needs another directory."""
        export(log, to)
        grown = attrs.evolve(VOTES_META, pipelines=("alphabet", "second"))
        log.commit(Transaction(meta=grown))
        append(log, 0, [(b"a", 1)])
        self.check(
            log,
            to,
            "it has other columns: sequence, time, time_ns, letter, votes; choose",
        )

    def test_a_renamed_file(self, log: Log, to: Path) -> None:
        """A newest file that holds other events than its name says is refused."""
        [written] = export(log, to, until=3)
        renamed = attrs.evolve(written.segment, last_sequence=4)
        (to / written.segment.file).rename(to / renamed.file)
        name = written.segment.file
        self.check(log, to, f"was renamed: it holds events 1 to 3; call it {name} aga")
        (to / renamed.file).rename(to / name)
        export(log, to)
        assert vote_rows(to) == votes_of(log, 0, 7)

    def test_a_missing_file(self, log: Log, to: Path) -> None:
        """A hole between files is named."""
        written = export(log, to, events_max=1)
        (to / written[1].segment.file).unlink()
        said = "lacks events 4 to 6: bring the file back, or move away all before it"
        self.check(log, to, said)
        (to / written[0].segment.file).unlink()
        export(log, to)
        assert vote_rows(to) == votes_of(log, 6, 7)

    def test_events_twice(self, log: Log, to: Path) -> None:
        """Files that share events are named by what they share."""
        export(log, to, until=3)
        other = to.with_name("other")
        [written] = export(log, other, after=1)
        shutil.copy(other / written.segment.file, to)
        said = f"has events 2 to 3 twice, in .* and {written.segment.file}; move away "
        self.check(log, to, said)
        (to / written.segment.file).unlink()
        export(log, to)
        assert vote_rows(to) == votes_of(log, 0, 7)

    def test_days_and_sizes(self, log: Log, to: Path) -> None:
        """Files of both partitions in one directory are refused."""
        export(log, to, until=3)
        export(log, to, is_by_day=True)
        self.check(log, to, "holds segments by day and by size; move away what anot")

    @pytest.mark.parametrize(
        "name", ["other.parquet", "notes.txt", "sub/a", "day=2023-11-14/x"]
    )
    def test_strangers(self, log: Log, to: Path, name: str) -> None:
        """A directory that holds anything else is refused by that name."""
        (to / name).parent.mkdir(parents=True)
        (to / name).write_bytes(b"")
        stranger = name.removesuffix("/a")
        self.check(log, to, f"it holds {stranger!r}", DirectoryError)

    def test_what_readers_pass_over(self, log: Log, to: Path) -> None:
        """Files that begin as hidden ones do are left alone, unless we began them."""
        to.mkdir()
        kept = [".DS_Store", "_SUCCESS", ".a.parquet.tmp"]
        ours = f".{Segment(1, 2, 'abc').file}.tmp"
        for name in [*kept, ours]:
            (to / name).write_bytes(b"")
        [written] = export(log, to)
        assert names(to) == sorted([*kept, written.segment.file])

    def test_two_at_once(self, log: Log, to: Path) -> None:
        """While one export is written, a second is kept out."""
        with ExportDirectory.claim(to):
            self.check(log, to, "another export is writing to it", DirectoryError)
        export(log, to)

    def test_a_full_disk(
        self, log: Log, to: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What the system refuses is told, and leaves no file; later it goes on."""
        flush = os.fsync

        def fail(descriptor: int) -> None:
            if stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise OSError(errno.ENOSPC, "No space left on device")
            flush(descriptor)

        monkeypatch.setattr(os, "fsync", fail)
        self.check(log, to, "it cannot be written: No space left", DirectoryError)
        monkeypatch.undo()
        export(log, to)
        assert vote_rows(to) == votes_of(log, 0, 7)


def test_blocks_that_end_too_soon(log: Log, to: Path) -> None:
    """A segment never claims events that it was not given."""
    to.mkdir()
    blocks = [(block, ()) for block in list(log.read(0))[:1]]
    with (
        (to / "file").open("wb") as stream,
        pytest.raises(ValueError, match="before event 6"),
    ):
        parquet_file.write_segment(
            stream, Segment(1, 6, "id"), Form(VOTES_META), blocks, lambda _reached: None
        )


def test_a_log_without_events(to: Path) -> None:
    """Of nothing comes no file."""
    assert export(new_log(), to) == []
    assert names(to) == []
    assert Tail(0, 0) == new_log().tail
