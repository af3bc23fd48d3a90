"""A new log from a damaged one: all that is whole, nothing that never was.

`Ruin` is a real log on LMDB with all that goes along, and what it should hold; it is
damaged byte by byte and page by page. What must be saved and what may be is said here
from what was committed and from the file's bytes alone.
"""

import contextlib
import itertools
import os
import shutil
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from log import failpoint
from log.block import SEQUENCE_MAX, Block, Point, Records, Tail
from log.directory import DataDirectory
from log.lmdb_store import DATA_FILE
from log.log import Log, Transaction
from log.row import Cursor, Meta
from log.store import CURSORS
from recovery.damage.raw_file import RawFile
from recovery.damage.raw_pages import Pages, Walk
from recovery.damage.remains import Live
from recovery.damage.salvage import (
    Description,
    NewerLogError,
    Salvaged,
    SalvageError,
    salvage,
)
from recovery.damage.salvage_plan import Move
from recovery.replay import has_witness
from recovery.snapshot import Snapshot, State
from recovery.snapshot_directory import SnapshotDirectory
from recovery.verify import GAP, NOTE, Verifier
from tests.faults import cut, zero_page
from tests.samples import chain, rejects

PAGE = 4096
QUICK = next(filter(os.path.isdir, ["/dev/shm"]), None)  # noqa: S108 - no secrets
"""Where files are quick: what is tested here is not that they are durable."""
META = Meta("old-log", "toy", ("one", "two"), created_ns=5)

Event = tuple[int, bytes]


def describe(named: str | None) -> Description:
    """Describe the log as an operator does."""
    return Description(named or "toy", "opaque", ("one", "two"))


def fold(events: Sequence[Event]) -> bytes:
    """Give a state that shows every event before it."""
    return zlib.crc32(repr(events).encode()).to_bytes(4)


@attrs.define
class Ruin:
    """A log, its events and blocks, and the snapshots beside it."""

    directory: DataDirectory
    events: list[Event] = attrs.Factory(list)
    blocks: list[Block] = attrs.Factory(list)
    cursors: dict[str, Cursor] = attrs.Factory(dict)
    touched: set[int] = attrs.Factory(set)

    @classmethod
    def create(cls, path: Path, meta: Meta = META) -> Self:
        """Begin a log, behind whatever base `meta` has."""
        directory = DataDirectory.claim(path)
        state = None
        if meta.base_sequence:
            base = meta.base_sequence, meta.base_checksum
            snapshot = Snapshot(
                meta.log_id, base[0], *base, "toy", 1, (State("fold", "dump", b"base"),)
            )
            state = snapshot.encode()
        with directory.new_log(meta, state):
            pass
        directory.release()
        return cls(directory, [(0, b"")] * meta.base_sequence)

    @property
    def file(self) -> Path:
        """The file that is damaged."""
        return self.directory.log_path / DATA_FILE

    @property
    def snapshots(self) -> SnapshotDirectory:
        """The snapshots beside the log."""
        return SnapshotDirectory(self.directory.snapshots_path)

    def append(self, *lots: Sequence[bytes], pipeline: int = 0) -> None:
        """Commit blocks one by one; stream 7 and sink `out` go along."""
        with contextlib.closing(self.directory.open_log()) as log:
            for payloads in lots:
                self.events += [(pipeline, payload) for payload in payloads]
                end = len(self.events)
                block = Block.seal(
                    log.tail,
                    Records.pack(payloads),
                    time_ns=end,
                    pipeline=pipeline,
                    points=(Point(7, end, b"seven"),),
                )
                self.cursors["out"] = Cursor(end, end * 10)
                log.commit(
                    Transaction(
                        (block,), cursors=self.cursors, rejects=rejects(end, end)
                    )
                )
                self.blocks.append(block)

    def snapshot(self, sequence: int) -> None:
        """Write the snapshot at an event."""
        with contextlib.closing(self.directory.open_log(is_read_only=True)) as log:
            tail = log.tail_at(sequence)
        state = State("fold", "dump", fold(self.events[:sequence]))
        log_id = log.meta.log_id
        self.snapshots.write(
            Snapshot(log_id, sequence, tail.sequence, tail.checksum, "toy", 1, (state,))
        )

    def live(self) -> Live:
        """Say where the blocks are."""
        with contextlib.closing(RawFile.open(self.file)) as source:
            return Live.find(Pages.find(source))

    def change(self, place: int, data: bytes) -> None:
        """Write over a part of the file."""
        old = self.file.read_bytes()
        data = data[: max(len(old) - place, 0)]
        self.file.write_bytes(old[:place] + data + old[place + len(data) :])
        self.touched.update(range(place // PAGE, (place + len(data)) // PAGE + 1))

    def lose(self, *numbers: int) -> None:
        """Damage a byte of the last record of blocks, wherever they are stored."""
        data = self.file.read_bytes()
        for number in numbers:
            encoded = bytes(self.blocks[number].encoded)
            broken = encoded[:-5] + bytes([encoded[-5] ^ 0xFF]) + encoded[-4:]
            data = data.replace(encoded, broken)
        self.file.write_bytes(data)

    def salvage(self, to: Path) -> Salvaged:
        """Write what is left to a new place."""
        found = self.snapshots.newest(SEQUENCE_MAX)
        snapshots = [each for _, each in found if isinstance(each, Snapshot)]
        target = DataDirectory.claim(to)
        try:
            with contextlib.closing(RawFile.open(self.file)) as source:
                return salvage(source, snapshots, target, describe)
        finally:
            target.release()

    @contextlib.contextmanager
    def salvaged(self) -> Iterator[tuple[Salvaged, Log, SnapshotDirectory]]:
        """Salvage, check what must always be so, and give what there is."""
        with tempfile.TemporaryDirectory(dir=QUICK) as place:
            to = DataDirectory(Path(place) / "to")
            result = self.salvage(to.path)
            snapshots = SnapshotDirectory(to.snapshots_path)
            with contextlib.closing(to.open_log(is_read_only=True)) as log:
                self.check(result, log, snapshots)
                yield result, log, snapshots

    def check(self, result: Salvaged, log: Log, snapshots: SnapshotDirectory) -> None:
        """Fail unless a new log is sound and holds nothing that never was."""
        found = Verifier(log, snapshots, None).run()
        assert {each.severity for each in found.findings} <= {GAP, NOTE}
        assert log.meta.log_id == result.log_id != META.log_id
        assert log.tail.sequence == result.last_sequence
        gaps = []
        saved = 0
        for block in log.read(log.base.sequence):
            if block.records.is_gap:
                gaps.append((block.first_sequence, block.records.count))
            for sequence, record in enumerate(block.records, block.first_sequence):
                assert self.events[sequence - 1] == (block.pipeline, record)
                saved += 1
        assert log.meta.gaps == tuple(gaps)
        assert saved == result.events
        for sequence, snapshot in snapshots.newest(SEQUENCE_MAX):
            assert isinstance(snapshot, Snapshot)
            assert has_witness(log, snapshot)
            assert snapshot.log_id == result.log_id
            assert snapshot.states[0].data == fold(self.events[:sequence])
        for name, cursor in log.cursors().items():
            assert log.base.sequence <= cursor.sequence <= log.tail.sequence
            assert cursor.offset <= self.cursors[name].offset
        for written, point in log.points().values():
            assert point.message_id <= max(len(self.events), written + 1)
        positions = [reject.position for _, reject in log.rejects()]
        assert positions == sorted(set(positions), key=lambda position: position or 0)

    def must_be_saved(self, live: Live) -> set[int]:
        """Give the blocks, by number, that no damage can be the reason to lose.

        They are whole, and one of those that they follow or lead to without a break
        lies in a page that nobody touched.
        """
        data = self.file.read_bytes()
        whole = [bytes(block.encoded) in data for block in self.blocks]
        offsets = live.offsets.tolist()
        sound = [
            data.startswith(bytes(block.encoded), offset)
            and offset // PAGE not in self.touched
            for block, offset in zip(self.blocks, offsets, strict=True)
        ]
        saved = set()
        for is_whole, run in itertools.groupby(range(len(whole)), whole.__getitem__):
            numbers = list(run)
            if is_whole and any(sound[number] for number in numbers):
                saved.update(numbers)
        return saved


def firsts(log: Log) -> set[int]:
    """Give where the blocks with events begin."""
    return {
        block.first_sequence
        for block in log.read(log.base.sequence)
        if not block.records.is_gap
    }


@st.composite
def contents(draw: st.DrawFn) -> list[bytes]:
    """Draw the payloads of one block: small, of several pages, or forged blocks."""
    kind = draw(st.sampled_from(["votes", "votes", "large", "forged"]))
    if kind == "votes":
        return draw(st.lists(st.binary(min_size=5, max_size=5), min_size=1, max_size=9))
    if kind == "large":
        size = draw(st.sampled_from([1500, 2100, 5000, 20_000]))
        return [draw(st.binary(min_size=1, max_size=3)) * size]
    after = Tail(draw(st.integers(0, 30)), draw(st.sampled_from([0, 1])), 0)
    forged = Block.seal(after, Records.pack([b"never"]), time_ns=1)
    key = forged.first_sequence.to_bytes(8)
    node = len(forged.encoded).to_bytes(2, "little") + b"\0\0\0\0\x08\0" + key
    padding = b"p" * draw(st.sampled_from([0, 1, 3000, 4096 - 16 - 16 - 48 - 26]))
    return [padding, node, forged.encoded, b"end" * draw(st.sampled_from([1, 1000]))]


KINDS = ["zero", "flip", "cut", "metas", "copy", "stale", "block"]


@attrs.frozen
class Damage:
    """One damage to a file; `place` and `other` are shares of it, from 0 to 1."""

    kind: str
    place: float
    other: float

    def do(self, ruin: Ruin, before: bytes) -> None:
        """Damage a file; `before` is what it was before its last commits."""
        data = ruin.file.read_bytes()
        pages = max(len(data) // PAGE, 3)
        page = min(int(self.place * pages), pages - 1)
        target = max(min(int(self.other * pages), pages - 1), 2)
        if self.kind == "zero":
            ruin.change(page * PAGE, bytes(PAGE))
        elif self.kind == "flip" and data:
            place = min(int(self.place * len(data)), len(data) - 1)
            ruin.change(place, bytes([data[place] ^ 1 << int(self.other * 7.9)]))
        elif self.kind == "cut":
            cut(ruin.file, int((0.5 + self.place / 2) * len(data)))
        elif self.kind == "metas":
            ruin.change(0, bytes(2 * PAGE))
        elif self.kind == "copy":
            ruin.change(target * PAGE, data[page * PAGE : (page + 1) * PAGE])
        elif self.kind == "stale":
            ruin.change(target * PAGE, before[target * PAGE : (target + 1) * PAGE])
        elif self.kind == "block":
            ruin.lose(min(int(self.place * len(ruin.blocks)), len(ruin.blocks) - 1))


damages = st.builds(Damage, st.sampled_from(KINDS), st.floats(0, 1), st.floats(0, 1))


@settings(max_examples=max(settings().max_examples // 2, 50))
@given(
    lots=st.lists(contents(), min_size=1, max_size=12),
    middle=st.integers(0, 12),
    harm=st.lists(damages, max_size=4),
    shots=st.lists(st.integers(1, 60), max_size=3),
)
def test_the_sandwich(
    lots: list[list[bytes]], middle: int, harm: list[Damage], shots: list[int]
) -> None:
    """All that is whole and linked is saved in its place, and nothing else is."""
    with tempfile.TemporaryDirectory(dir=QUICK) as place:
        ruin = Ruin.create(Path(place) / "data")
        ruin.append(*lots[:middle])
        before = ruin.file.read_bytes()
        ruin.append(*lots[middle:], pipeline=1)
        for sequence in shots:
            if sequence <= len(ruin.events):
                ruin.snapshot(sequence)
        live = ruin.live()
        for damage in harm:
            damage.do(ruin, before)
        must = ruin.must_be_saved(live)
        try:
            with ruin.salvaged() as (result, log, _):
                saved = firsts(log)
                events = len(ruin.events)
                if not harm:
                    assert not result.is_loss
                    assert log.cursors() == ruin.cursors
        except SalvageError:
            assert not must
            return
        needed = {ruin.blocks[number].first_sequence for number in must}
        assert needed <= saved
        lost = sum(gap.last + 1 - gap.first for gap in result.gaps)
        # What nothing tells of may be lost at the end without a word.
        assert result.events + lost == result.last_sequence <= events
        assert (result.events == events) <= (not result.gaps)


def test_a_page_that_is_another_tables_now() -> None:
    """What an earlier page of a tree leads to is not taken for the log's end."""
    for page, lots in itertools.product(range(2, 12), (2, 5)):
        with tempfile.TemporaryDirectory(dir=QUICK) as place:
            ruin = Ruin.create(Path(place) / "data")
            before = ruin.file.read_bytes()
            ruin.append(*[[b"%05d" % number] for number in range(lots)])
            old = before[page * PAGE : (page + 1) * PAGE]
            ruin.change(page * PAGE, old)
            with ruin.salvaged() as (result, _, _):
                assert result.last_sequence <= lots


def votes(first: int, count: int = 3) -> list[bytes]:
    """Give payloads that tell their number."""
    return [b"%05d" % number for number in range(first, first + count)]


def large(first: int) -> list[bytes]:
    """Give three payloads that take pages of their own."""
    return [each * 800 for each in votes(first)]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Ruin:
    """Return a log of 30 events: blocks of three, every other one large."""
    ruin = Ruin.create(tmp_path_factory.mktemp("made") / "data")
    for first in range(1, 31, 3):
        ruin.append((votes if first % 2 else large)(first), pipeline=first % 2)
    return ruin


@pytest.fixture
def ruin(made: Ruin, tmp_path: Path) -> Ruin:
    """Return a copy of it, to do with as one likes."""
    shutil.copytree(made.directory.path, tmp_path / "data")
    return Ruin(
        DataDirectory(tmp_path / "data"),
        list(made.events),
        list(made.blocks),
        dict(made.cursors),
    )


def gap(first: int, last: int, *, is_counted: bool = False) -> tuple[int, int, bool]:
    """Give a gap as a test thinks of it."""
    return (first, last, is_counted)


def gaps(result: Salvaged) -> list[tuple[int, int, bool]]:
    """Give the gaps that were told."""
    return [(each.first, each.last, each.is_counted) for each in result.gaps]


class TestHealthy:
    """A log that nothing is wrong with."""

    def test_it_stays_what_it_is(self, ruin: Ruin) -> None:
        """All blocks keep their bytes, and everything beside them is the same."""
        ruin.snapshot(12)
        ruin.snapshot(17)
        with ruin.salvaged() as (result, log, snapshots):
            assert not result.is_loss
            assert result.sealed_anew == 0
            assert result.doubtful == ()
            assert result.ignored == ()
            found = [bytes(block.encoded) for block in log.read(0)]
            assert found == [bytes(block.encoded) for block in ruin.blocks]
            assert log.cursors() == ruin.cursors
            assert log.points()[7][1] == Point(7, 30, b"seven")
            assert [r.position for _, r in log.rejects()] == list(range(3, 31, 3))
            assert snapshots.sequences() == [17, 12]
            assert log.meta == attrs.evolve(
                META, log_id=result.log_id, parent_id=META.log_id
            )

    def test_the_old_one_is_only_read(self, ruin: Ruin, tmp_path: Path) -> None:
        """Not a byte of the old data directory changes."""
        ruin.snapshot(12)
        files = [f for f in ruin.directory.path.rglob("*") if f.is_file()]
        before = {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in files}
        ruin.salvage(tmp_path / "to")
        after = {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in files}
        assert after == before

    def test_an_empty_log_stays_one(self, tmp_path: Path) -> None:
        """A log without events gives another one."""
        with Ruin.create(tmp_path / "data").salvaged() as (result, log, _):
            assert (result.events, result.is_loss) == (0, False)
            assert log.tail == Tail(0, 0)

    def test_a_compacted_log_keeps_its_base(self, tmp_path: Path) -> None:
        """Base, state and blocks behind it are the same."""
        meta = attrs.evolve(META, base_sequence=40, base_checksum=77)
        ruin = Ruin.create(tmp_path / "data", meta)
        ruin.append(votes(41), large(44))
        for is_meta_page in (True, False):
            if not is_meta_page:
                ruin.change(0, bytes(2 * PAGE))
            with ruin.salvaged() as (result, log, _):
                assert not result.is_loss
                assert log.base == Tail(40, 77)
                state = Snapshot.decode(log.base_state() or b"")
                assert (state.sequence, state.log_id) == (40, result.log_id)
                assert state.states[0].data == b"base"
                assert firsts(log) == {41, 44}

    def test_a_salvaged_log_can_be_salvaged(self, ruin: Ruin, tmp_path: Path) -> None:
        """Gaps that are there already stay, and are no new loss."""
        ruin.lose(3)
        first = ruin.salvage(tmp_path / "to")
        again = attrs.evolve(ruin, directory=DataDirectory(tmp_path / "to"))
        with again.salvaged() as (result, log, _):
            assert first.is_loss
            assert not result.is_loss
            assert log.meta.gaps == ((10, 3),)
            assert (result.events, result.sealed_anew) == (27, 0)


class TestGaps:
    """Blocks that are lost."""

    @pytest.mark.parametrize("has_meta_pages", [True, False])
    @pytest.mark.parametrize("number", range(10))
    def test_any_one_block(
        self, ruin: Ruin, number: int, *, has_meta_pages: bool
    ) -> None:
        """The events of a damaged block are a gap, and all others are there."""
        ruin.lose(number)
        if not has_meta_pages:
            ruin.change(0, bytes(2 * PAGE))
        first = 3 * number + 1
        with ruin.salvaged() as (result, log, _):
            assert gaps(result) == [gap(first, first + 2)]
            assert firsts(log) == set(range(1, 31, 3)) - {first}
            assert result.sealed_anew == 9 - number
            assert result.unproven == (0 if has_meta_pages else 9 - number)
            assert log.cursors() == ruin.cursors
            times = [block.time_ns for block in log.read(0)]
            assert times == sorted(times)
            if number < 9:
                [lost] = [b for b in log.read(0) if b.records.is_gap]
                assert lost.time_ns <= ruin.blocks[number + 1].time_ns

    def test_a_large_gap(self, ruin: Ruin) -> None:
        """Blocks that are missing in a row are one gap."""
        ruin.lose(2, 3, 4, 7)
        with ruin.salvaged() as (result, _, _):
            assert gaps(result) == [gap(7, 15), gap(22, 24)]
            size = sum(len(ruin.blocks[number].encoded) for number in (2, 3, 4))
            assert result.gaps[0].block_bytes == size

    @pytest.mark.parametrize("has_header", [True, False])
    def test_the_last_of_a_log_alone(self, tmp_path: Path, *, has_header: bool) -> None:
        """The tree names a lost last block, and its header tells how many events."""
        ruin = Ruin.create(tmp_path / "data")
        for number in range(2):
            with contextlib.closing(ruin.directory.open_log()) as log:
                records = Records.pack(votes(1 + 3 * number))
                block = Block.seal(log.tail, records, time_ns=1)
                log.commit(Transaction((block,)))
            ruin.blocks.append(block)
            ruin.events += [(0, record) for record in records]
        ruin.lose(1)
        if not has_header:
            [live] = [int(at) for at in ruin.live().offsets[1:]]
            ruin.change(live, bytes(30))
        with ruin.salvaged() as (result, _, _):
            assert gaps(result) == [gap(4, 6 if has_header else 4)]

    def test_all_blocks(self, ruin: Ruin) -> None:
        """A log that has lost all its events is one gap."""
        ruin.lose(*range(10))
        with ruin.salvaged() as (result, log, _):
            assert (gaps(result), result.events) == ([gap(1, 30)], 0)
            assert log.tail.sequence == 30

    def test_nothing_at_all(self, ruin: Ruin, tmp_path: Path) -> None:
        """Where nothing is left, nothing is made."""
        ruin.file.write_bytes(bytes(20 * PAGE))
        with pytest.raises(SalvageError, match="nothing of a log"):
            ruin.salvage(tmp_path / "to")
        assert not (tmp_path / "to" / "log").exists()


class TestSnapshots:
    """A gap costs history, not totals."""

    def test_one_behind_the_gap_goes_along(self, ruin: Ruin) -> None:
        """It stands on its block as that is sealed anew."""
        ruin.snapshot(20)
        ruin.lose(3)
        with ruin.salvaged() as (result, log, snapshots):
            assert gaps(result) == [gap(10, 12, is_counted=True)]
            assert result.snapshots == (20,)
            tail = log.tail_at(20)
            snapshot = snapshots.read(20)
            assert (snapshot.block_sequence, snapshot.block_checksum) == (
                18,
                tail.checksum,
            )
            assert tail.checksum != ruin.blocks[5].checksum

    @pytest.mark.parametrize("sequence", [10, 11, 12])
    def test_one_in_the_gap_cuts_it(self, ruin: Ruin, sequence: int) -> None:
        """The events up to it are counted, those behind it are not."""
        ruin.snapshot(sequence)
        ruin.lose(3)
        with ruin.salvaged() as (result, log, _):
            blocks = [b for b in log.read(0) if b.records.is_gap]
            ends = [block.last_sequence for block in blocks]
            assert ends == ([sequence, 12] if sequence < 12 else [12])
            assert result.snapshots == (sequence,)
            assert gaps(result) == [gap(10, 12, is_counted=sequence == 12)]

    def test_one_behind_the_last_block(self, ruin: Ruin) -> None:
        """With the log's tail lost, its newest snapshot still is the state."""
        ruin.snapshot(29)
        ruin.lose(9)
        ruin.change(0, bytes(2 * PAGE))
        with ruin.salvaged() as (result, log, _):
            assert log.tail.sequence == 30
            assert result.snapshots == (29,)
            assert log.meta.gaps == ((28, 2), (30, 1))
            # The last event's message is beyond what is counted.
            assert result.streams_back == (7,)
            assert log.points()[7][1].message_id == 27

    def test_one_of_another_log_stays_behind(self, ruin: Ruin) -> None:
        """Neither another log's nor one on another block is taken."""
        for sequence in (9, 12, 20):
            ruin.snapshot(sequence)
        for sequence, change in ((9, {"log_id": "x"}), (12, {"block_checksum": 5})):
            altered = attrs.evolve(ruin.snapshots.read(sequence), **change)
            ruin.snapshots.write(altered)
        with ruin.salvaged() as (result, _, _):
            assert result.snapshots == (20,)
            assert [each.what for each in result.ignored] == [
                "snapshot 9",
                "snapshot 12",
            ]
            assert not result.is_loss

    def test_the_first_block_counts_too(self, tmp_path: Path) -> None:
        """One that contradicts a log's only block is not taken."""
        ruin = Ruin.create(tmp_path / "data")
        ruin.append(votes(1))
        ruin.snapshot(3)
        altered = attrs.evolve(ruin.snapshots.read(3), block_checksum=5)
        ruin.snapshots.write(altered)
        with ruin.salvaged() as (result, _, _):
            assert result.snapshots == ()
            assert [each.what for each in result.ignored] == ["snapshot 3"]

    @pytest.mark.parametrize("place", [6, 9, 12])
    def test_one_that_the_blocks_around_a_gap_contradict(
        self, ruin: Ruin, place: int
    ) -> None:
        """One in a gap stands on the block before it, or on one that is lost."""
        ruin.snapshot(11)
        altered = attrs.evolve(
            ruin.snapshots.read(11), block_sequence=place, block_checksum=5
        )
        ruin.snapshots.write(altered)
        ruin.lose(3)
        with ruin.salvaged() as (result, _, _):
            assert result.snapshots == ()
            assert [each.what for each in result.ignored] == ["snapshot 11"]

    def test_the_base_where_the_beginning_is_lost(self, ruin: Ruin) -> None:
        """The newest snapshot before the first block is where the new log begins."""
        for sequence in (3, 6, 8, 20):
            ruin.snapshot(sequence)
        ruin.lose(0, 1, 2)
        with ruin.salvaged() as (result, log, _):
            assert log.base.sequence == 8
            state = Snapshot.decode(log.base_state() or b"")
            assert state.states[0].data == fold(ruin.events[:8])
            assert result.snapshots == (20,)
            assert gaps(result) == [
                gap(1, 8, is_counted=True),
                gap(9, 9, is_counted=True),
            ]

    def test_the_base_just_before_the_first_block(self, ruin: Ruin) -> None:
        """Then nothing is sealed anew, and the new log has no gap to agree to."""
        ruin.snapshot(9)
        ruin.lose(0, 1, 2)
        with ruin.salvaged() as (result, log, _):
            assert (log.base.sequence, log.meta.gaps) == (9, ())
            assert (result.sealed_anew, result.is_loss) == (0, True)

    def test_the_base_of_a_log_without_blocks(self, ruin: Ruin) -> None:
        """A file without anything in it leaves the newest snapshot's state."""
        ruin.snapshot(6)
        ruin.snapshot(30)
        ruin.file.write_bytes(b"")
        with ruin.salvaged() as (result, log, _):
            assert log.tail == Tail(30, ruin.blocks[-1].checksum)
            assert result.parent_id == META.log_id
            assert (log.meta.application, log.meta.gaps) == ("toy", ())

    def test_a_lost_base_state(self, tmp_path: Path) -> None:
        """Without the state at its base a log begins at 0, or at a snapshot of it."""
        meta = attrs.evolve(META, base_sequence=40, base_checksum=77)
        ruin = Ruin.create(tmp_path / "data", meta)
        ruin.append(votes(41), large(44))
        data = ruin.file.read_bytes()
        ruin.file.write_bytes(data.replace(b"\xabSNAP", b"\xabGONE"))
        with ruin.salvaged() as (result, log, _):
            assert result.is_base_lost
            assert gaps(result) == [gap(1, 40)]
            assert firsts(log) == {41, 44}
        state = State("fold", "dump", fold(ruin.events[:40]))
        ruin.snapshots.write(Snapshot("old-log", 40, 40, 77, "toy", 1, (state,)))
        with ruin.salvaged() as (result, log, _):
            assert (result.is_loss, log.base) == (False, Tail(40, 77))


class TestRows:
    """Sinks, streams, rejects, and what the log is."""

    def test_a_sink_in_a_gap_leaves_it(self, ruin: Ruin) -> None:
        """Without a snapshot behind, it goes on at the gap's end."""
        self.place(ruin, {"before": 9, "in": 11, "at": 12, "behind": 20})
        ruin.lose(3)
        with ruin.salvaged() as (result, log, _):
            assert result.moves == (Move("in", 11, 12),)
            found = {name: cursor.sequence for name, cursor in log.cursors().items()}
            assert found == {"before": 9, "in": 12, "at": 12, "behind": 20, "out": 30}

    def test_a_sink_goes_on_where_its_outputs_are_right(self, ruin: Ruin) -> None:
        """With a snapshot behind the gap, whoever is before it goes on there."""
        ruin.snapshot(20)
        ruin.snapshot(26)
        self.place(ruin, {"before": 2, "in": 11, "between": 19, "behind": 21})
        ruin.lose(3)
        with ruin.salvaged() as (_, log, _):
            found = {name: cursor.sequence for name, cursor in log.cursors().items()}
            assert found == {
                "before": 20,
                "in": 20,
                "between": 20,
                "behind": 21,
                "out": 30,
            }

    def place(self, ruin: Ruin, sinks: dict[str, int]) -> None:
        """Place sinks."""
        cursors = {name: Cursor(at, at) for name, at in sinks.items()}
        ruin.cursors |= cursors
        with contextlib.closing(ruin.directory.open_log()) as log:
            log.commit(Transaction(cursors=cursors))

    def test_streams_go_back_with_the_tail(self, ruin: Ruin) -> None:
        """What is lost at the end and in no state, its sender gives again."""
        with contextlib.closing(ruin.directory.open_log()) as log:
            log.commit(Transaction(points=(Point(8, 5, b"only a row"),)))
        ruin.lose(8, 9)
        with ruin.salvaged() as (result, log, _):
            assert result.streams_back == (7, 8)
            assert log.points()[7][1] == Point(7, 24, b"seven")
            assert 8 not in log.points()
            assert log.tail.sequence == 30

    def test_streams_without_events_stay(self, ruin: Ruin) -> None:
        """A point that no block has, and one younger than its block's, are kept."""
        with contextlib.closing(ruin.directory.open_log()) as log:
            points = (Point(8, 5, b"only a row"), Point(7, 31, b"seven"))
            log.commit(Transaction(points=points))
        ruin.lose(4)
        with ruin.salvaged() as (result, log, _):
            found = {key: point.message_id for key, (_, point) in log.points().items()}
            assert found == {7: 31, 8: 5}
            assert (result.streams, result.streams_back) == (2, ())

    def test_a_log_that_says_nothing_of_itself(self, ruin: Ruin) -> None:
        """What it is comes from whoever knows; its blocks tell the rest."""
        ruin.file.write_bytes(
            ruin.file.read_bytes().replace(b'"old-log"', b'"xxx-log"')
        )
        with ruin.salvaged() as (result, log, _):
            assert (result.parent_id, result.events) == ("", 30)
            assert log.meta.pipelines == ("one", "two")
            assert log.meta.created_ns == ruin.blocks[0].time_ns

    def test_pipelines_that_are_not_named(self, ruin: Ruin, tmp_path: Path) -> None:
        """Blocks of a pipeline that has no name are refused, not given to another."""
        ruin.file.write_bytes(
            ruin.file.read_bytes().replace(b'"old-log"', b'"xxx-log"')
        )
        target = DataDirectory.claim(tmp_path / "to")
        with (
            contextlib.closing(RawFile.open(ruin.file)) as source,
            pytest.raises(SalvageError, match="2 pipelines, and 1 are named"),
        ):
            salvage(
                source, [], target, lambda _: Description("toy", "opaque", ("one",))
            )
        target.release()
        assert not target.has_log()

    def test_a_newer_log_is_refused(self, ruin: Ruin, tmp_path: Path) -> None:
        """What a newer program wrote is left to it."""
        with contextlib.closing(ruin.directory.open_log()) as log:
            log.commit(Transaction(meta=attrs.evolve(META, format_version=2)))
        with pytest.raises(NewerLogError, match="use the one that wrote it"):
            ruin.salvage(tmp_path / "to")
        assert not (tmp_path / "to" / "log").exists()

    def test_a_disk_that_dies_meanwhile(self, ruin: Ruin, tmp_path: Path) -> None:
        """A block that cannot be read a second time ends it, and leaves no log."""

        def damage(_offset: int) -> None:
            ruin.lose(4)

        target = DataDirectory.claim(tmp_path / "to")
        with (
            contextlib.closing(RawFile.open(ruin.file)) as source,
            pytest.raises(SalvageError, match="was whole and is not any more"),
        ):
            salvage(source, [], target, describe, damage)
        target.release()
        assert not target.has_log()


class TestChains:
    """Blocks that are whole, and not the log's."""

    @pytest.mark.parametrize("has_meta_pages", [True, False])
    def test_a_withdrawn_branch(self, ruin: Ruin, *, has_meta_pages: bool) -> None:
        """Where both branches are there, the log's own is taken, or the longer one."""
        padding = chain(votes(50), votes(53), after=ruin.blocks[-1].tail)
        ruin.append(votes(31), large(34), votes(37))
        # Somewhere in free pages, as a withdrawn transaction leaves them.
        stale = b"".join(bytes(block.encoded) for block in padding)
        ruin.file.write_bytes(ruin.file.read_bytes() + stale.ljust(PAGE, b"\0"))
        if not has_meta_pages:
            ruin.change(0, bytes(2 * PAGE))
        with ruin.salvaged() as (result, log, _):
            assert not result.is_loss
            assert log.tail.sequence == 39
            assert [each.what.split(" at ")[0] for each in result.ignored] == [
                "block 31 to 33",
                "block 34 to 36",
            ]
            reason = "the log names it" if has_meta_pages else "more follows from it"
            assert reason in result.ignored[0].reason

    def test_a_commit_that_never_was(self, ruin: Ruin) -> None:
        """A block that the sound tree does not name is left, though it would follow."""
        [block] = chain([b"never"], after=ruin.blocks[-1].tail)
        data = ruin.file.read_bytes()
        ruin.file.write_bytes(data + bytes(block.encoded).ljust(PAGE, b"\0"))
        with ruin.salvaged() as (result, log, _):
            assert log.tail.sequence == 30
            assert not result.is_loss
            assert result.ignored[0].what.startswith("block 31 to 31 ")
            assert result.ignored[0].reason == "nothing leads to it from the log"

    def test_a_lost_last_commit_is_found(self, ruin: Ruin) -> None:
        """With a meta page gone, what it alone named is there all the same."""
        for number in (0, 1):
            data = ruin.file.read_bytes()
            zero_page(ruin.file, number)
            with ruin.salvaged() as (result, _, _):
                assert (result.events, result.is_loss) == (30, False)
            ruin.file.write_bytes(data)

    def test_another_version_of_a_lost_block(self, ruin: Ruin) -> None:
        """In a lost block's place none is taken that the tree did not mean."""
        other = Block.seal(
            ruin.blocks[3].tail, Records.pack([b"never was", b"", b""]), time_ns=13
        )
        ruin.lose(4)
        data = ruin.file.read_bytes()
        ruin.file.write_bytes(data + bytes(other.encoded).ljust(PAGE, b"\0"))
        with ruin.salvaged() as (result, _, _):
            assert gaps(result) == [gap(13, 15)]

    def test_a_lost_block_that_is_elsewhere(self, ruin: Ruin) -> None:
        """An earlier copy of a block takes its place, wherever it is."""
        encoded = bytes(ruin.blocks[4].encoded)
        ruin.lose(4)
        data = ruin.file.read_bytes()
        ruin.file.write_bytes(data + encoded.ljust(PAGE, b"\0"))
        with ruin.salvaged() as (result, _, _):
            assert (result.events, result.is_loss) == (30, False)

    def test_a_tree_that_went_back(self, tmp_path: Path) -> None:
        """A page that was never written, so that the tree is an earlier one, shows."""
        ruin = Ruin.create(tmp_path / "data")
        before = ruin.file.read_bytes()
        ruin.append(votes(1), large(4), votes(7))
        for number in range(2, len(before) // PAGE):
            data = ruin.file.read_bytes()
            page = slice(number * PAGE, (number + 1) * PAGE)
            ruin.change(number * PAGE, before[page])
            with ruin.salvaged() as (result, log, _):
                assert len(firsts(log)) >= 2
                assert log.tail.sequence == 9 or result.is_loss
            ruin.file.write_bytes(data)

    def test_remainders_in_other_pages_do_not_matter(self, ruin: Ruin) -> None:
        """What is left of a block in a page of another table's changes nothing."""
        with contextlib.closing(ruin.directory.open_log()) as log:
            for number in range(40):
                log.commit(Transaction(cursors={"out": Cursor(30, 300 + number)}))
        ruin.cursors["out"] = Cursor(30, 339)
        [never] = chain([b"never"], after=ruin.blocks[-1].tail)
        data = ruin.file.read_bytes()
        for block in (never, ruin.blocks[0]):
            ruin.file.write_bytes(_in_slack(data, ruin, bytes(block.encoded)))
            with ruin.salvaged() as (result, log, _):
                assert (result.events, result.is_loss) == (30, False)

    def test_a_snapshot_proves_a_block(self, ruin: Ruin) -> None:
        """A block that the tree has lost, and a snapshot stands on, is the log's."""
        head = ruin.file.read_bytes()[: 2 * PAGE]
        ruin.append(votes(31))
        ruin.snapshot(33)
        ruin.file.write_bytes(head + ruin.file.read_bytes()[2 * PAGE :])
        with ruin.salvaged() as (result, log, _):
            assert log.tail.sequence == 33
            assert (result.events, result.snapshots) == (33, (33,))

    def test_a_forged_block_in_a_damaged_one(self, tmp_path: Path) -> None:
        """What a record spelled is not taken, though the block around it is lost."""
        ruin = Ruin.create(tmp_path / "data")
        for before, after in ([], []), ([b"x" * 5000], [b"y" * 5000]):
            ruin.append(votes(1))
            end = len(ruin.events) + 1
            [forged] = chain([b"forged"], after=Tail(end, 1))
            node = len(forged.encoded).to_bytes(2, "little") + b"\0\0\0\0\x08\0"
            spelled = node + (end + 1).to_bytes(8) + bytes(forged.encoded)
            ruin.append([*before, spelled, *after, b"some", b"more", b"last"], votes(4))
        ruin.lose(1, 4)
        for is_sound in (True, False):
            if not is_sound:
                ruin.change(0, bytes(2 * PAGE))
            with ruin.salvaged() as (result, _, _):
                assert len(result.gaps) == 2
                is_told = any("nothing leads" in i.reason for i in result.ignored)
                assert is_told

    def test_bytes_in_other_places(self, ruin: Ruin) -> None:
        """A file whose pages are all elsewhere still gives its blocks."""
        data = ruin.file.read_bytes()
        ruin.file.write_bytes(data[3 * PAGE + 100 :])
        kept = ruin.file.read_bytes()
        whole = [b for b in ruin.blocks if bytes(b.encoded) in kept]
        assert len(whole) > 5
        with ruin.salvaged() as (_, log, _):
            assert firsts(log) == {block.first_sequence for block in whole}


def _in_slack(data: bytes, ruin: Ruin, encoded: bytes) -> bytes:
    """Put bytes into the empty middle of the leaf that holds the cursors."""
    with contextlib.closing(RawFile.open(ruin.file)) as source:
        pages = Pages.find(source)
        [value] = Walk(pages).table(pages.heads[0].root, CURSORS)
    start = value.offset // PAGE * PAGE + 200
    assert start + len(encoded) < value.offset
    return data[:start] + encoded + data[start + len(encoded) :]


class CrashError(BaseException):
    """The end of the process, where a test wants it."""


@pytest.mark.parametrize(
    ("name", "is_there"),
    [
        ("create.before_log", False),
        ("commit.after_flush", False),
        ("salvage.before_snapshots", False),
        ("snapshot.before_rename", False),
        ("salvage.after_snapshots", False),
        ("create.before_rename", False),
        ("create.after_rename", True),
    ],
)
def test_a_crash_leaves_no_part_of_a_log(
    ruin: Ruin,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    *,
    is_there: bool,
) -> None:
    """Wherever it ends, the new log is not there, or there whole with its snapshots."""
    ruin.snapshot(20)

    def crash(reached: str) -> None:
        if reached == name:
            raise CrashError

    monkeypatch.setattr(failpoint, "handler", crash)
    with pytest.raises(CrashError):
        ruin.salvage(tmp_path / "to")
    monkeypatch.setattr(failpoint, "handler", None)
    to = DataDirectory(tmp_path / "to")
    assert to.has_log() == is_there
    if is_there:
        assert SnapshotDirectory(to.snapshots_path).sequences() == [20]
    shutil.rmtree(to.path)
    assert not ruin.salvage(to.path).is_loss
