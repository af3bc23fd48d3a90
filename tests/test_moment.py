"""Moments of the past: how they are written, and which event they are after."""

import contextlib
import datetime as dt
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from log.block import Block, Records
from log.errors import DamagedError
from log.log import Log, Transaction
from log.memory_store import MemoryStore
from log.store import BLOCKS, Change
from recovery.moment import (
    Instant,
    MomentError,
    find_end_damage,
    find_sequence,
    find_time,
    format_instant,
    parse_moment,
)
from tests import samples, toy
from tests.machines import Kept, flip_middle
from tests.samples import COMPACTED, key

NOON_NS = 1_795_694_400_000_000_000
"""2026-11-26T12:00:00Z."""

times = st.integers(-(10**18) * 62, 2**64 - 1)
steps = st.integers(0, 3)
sizes = st.integers(1, 4)
shapes = st.lists(st.tuples(sizes, steps), max_size=12)
"""Blocks: how many events each has, and how much later than the one before it is."""


@attrs.define
class CountingStore(MemoryStore):
    """A store that counts how often it is asked for a row, and for many."""

    floors: int = 0
    scans: int = 0

    def floor(self, table: str, key: bytes) -> tuple[bytes, bytes] | None:
        """Count, then look."""
        self.floors += 1
        return super().floor(table, key)

    def scan(
        self, table: str, start: bytes, bytes_max: int
    ) -> list[tuple[bytes, bytes]]:
        """Count, then look."""
        self.scans += 1
        return super().scan(table, start, bytes_max)


def make_log(
    shape: Sequence[tuple[int, int]], *, base: int = 0, store: MemoryStore | None = None
) -> tuple[Log, list[Block]]:
    """Make a log of blocks, the first at 10 ns or a little later."""
    store = store or MemoryStore()
    if base:
        meta = attrs.evolve(COMPACTED, base_sequence=base)
        log = Log.create(store, meta, b"state")
    else:
        log = Log.create(store, samples.META)
    made = []
    time_ns = 10
    for size, step in shape:
        time_ns += step
        block = Block.seal(log.tail, Records.pack([b"x"] * size), time_ns=time_ns)
        log.commit(Transaction((block,)))
        made.append(block)
    return log, made


def damage(log: Log, block: Block) -> None:
    """Change a block as it is stored."""
    row = Change(BLOCKS, key(block.first_sequence), flip_middle(block.encoded))
    log.store.commit([row], 0)


def reopen(log: Log) -> Log:
    """Open a log anew, as far as it is sound."""
    return Log.open(log.store, is_damage_accepted=True)


class TestWriting:
    """Words and moments."""

    @pytest.mark.parametrize(
        ("text", "after_noon_ns"),
        [
            ("2026-11-26T12:00:00Z", 0),
            ("2026-11-26T12:00:00", 0),
            ("2026-11-26 12:00:00", 0),
            ("2026-11-26T12:00", 0),
            ("2026-11-26T12", 0),
            ("2026-11-26T14:00:00+02:00", 0),
            ("2026-11-26T14:00+0200", 0),
            ("2026-11-26T07:30-04:30", 0),
            ("20261126T120000Z", 0),
            ("2026-11-26", -43_200_000_000_000),
            ("2026-11-26T12:00:00.5Z", 500_000_000),
            ("2026-11-26T12:00:00,5", 500_000_000),
            ("2026-11-26T14:00:00.000000001+02:00", 1),
            ("2026-11-26T12:00:00.1234567899Z", 123_456_789),
            ("20261126T120000.25+0000", 250_000_000),
        ],
    )
    def test_a_time(self, text: str, after_noon_ns: int) -> None:
        """Every common form of ISO 8601 is read to the nanosecond, in UTC if unsaid."""
        assert parse_moment(text) == Instant(NOON_NS + after_noon_ns)

    def test_where_we_are_is_no_matter(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A time that does not say its zone is in UTC, whatever the machine's is."""
        try:
            monkeypatch.setenv("TZ", "XYZ-9")
            time.tzset()
            assert parse_moment("2026-11-26T12:00") == Instant(NOON_NS)
            assert format_instant(NOON_NS) == "2026-11-26T12:00:00Z"
        finally:
            monkeypatch.undo()
            time.tzset()

    @pytest.mark.parametrize("text", ["0", "7", "00012", str(2**64 - 1), "9" * 40])
    def test_digits_are_a_sequence(self, text: str) -> None:
        """What has digits alone is a sequence, however it could be read as a date."""
        assert parse_moment(text) == int(text)

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "noon",
            "-1",
            "+1",
            "1.5",
            "1e3",
            "٣",
            "now",
            "12:00",
            "2026-13-01",
            "2026-02-30",
            "2026-11-26T25:00",
            "2026-11-26T12:00.5",
            "2026-11-26.5",
            "2026-11-26T12:00:00.",
            "2026-11-26T12:00:00.5.5",
            "2026-11-26T12:00:00 UTC",
            "2026-11-26T12:00:00.5 Z",
            "9" * 5000,
        ],
    )
    def test_anything_else_is_refused(self, text: str) -> None:
        """What is neither is an error that shows what a time looks like."""
        with pytest.raises(MomentError, match="2026-11-26T14:30:00Z"):
            parse_moment(text)

    @given(times)
    def test_what_is_printed_is_read_back(self, time_ns: int) -> None:
        """A time from the year 6 on, as it is printed, means exactly that time."""
        assert parse_moment(format_instant(time_ns)) == Instant(time_ns)

    @given(st.text(alphabet="0123456789-+:.,TZ WU", max_size=30))
    def test_no_text_is_an_accident(self, text: str) -> None:
        """Whatever is given is a moment, or the one error."""
        with contextlib.suppress(MomentError):
            assert isinstance(parse_moment(text), int | Instant)

    @given(
        st.datetimes(timezones=st.timezones(), min_value=dt.datetime(1800, 1, 1))  # noqa: DTZ001 - hypothesis wants it so
    )
    def test_any_zone(self, moment: dt.datetime) -> None:
        """A time with an offset is the same moment as in UTC, also before 1970."""
        epoch = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
        expected = (moment - epoch) // dt.timedelta(microseconds=1) * 1000
        offset = moment.utcoffset()
        assert offset is not None
        if offset % dt.timedelta(minutes=1):  # ISO 8601 has no seconds there.
            return
        assert parse_moment(moment.isoformat()) == Instant(expected)


class TestFinding:
    """Which event a moment is after."""

    @given(shapes, st.integers(5, 50), st.sampled_from([0, 100]))
    def test_a_time_is_after_the_last_block_by_then(
        self, shape: list[tuple[int, int]], time_ns: int, base: int
    ) -> None:
        """A time means the last block at or before it; the base, before the first."""
        log, made = make_log(shape, base=base)
        ends = [block.last_sequence for block in made if block.time_ns <= time_ns]
        assert find_sequence(log, Instant(time_ns)) == max(ends, default=base)

    def test_it_does_not_read_the_log(self) -> None:
        """Among n events, whatever their blocks, log2(n) blocks are looked at."""
        store = CountingStore()
        log, made = make_log([(3, 1)] * 300, store=store)
        for block in made[::17]:
            store.floors = store.scans = 0
            assert find_sequence(log, Instant(block.time_ns)) == block.last_sequence
            assert store.floors <= 11  # 900 events, and a look at the end.
            assert not store.scans

    @given(shapes, st.sampled_from([0, 100]))
    def test_a_sequence_is_itself(
        self, shape: list[tuple[int, int]], base: int
    ) -> None:
        """A sequence from the base to the end is itself; any other is an error."""
        log, _ = make_log(shape, base=base)
        end = log.tail.sequence
        for sequence in range(base, end + 1):
            assert find_sequence(log, sequence) == sequence
        for outside in {end + 1, 2**64 - 1, 10**40} | ({base - 1} if base else set()):
            said = f"{outside} is not in the log, which goes from {base} to {end}"
            with pytest.raises(MomentError, match=said):
                find_sequence(log, outside)

    @given(shapes, st.sampled_from([0, 100]))
    def test_every_event_has_its_blocks_time(
        self, shape: list[tuple[int, int]], base: int
    ) -> None:
        """An event's time is its block's; the base and what is not there have none."""
        log, made = make_log(shape, base=base)
        expected: dict[int, int | None] = {base: None, log.tail.sequence + 1: None}
        expected[0] = None
        for block in made:
            numbers = range(block.first_sequence, block.last_sequence + 1)
            times_ns: dict[int, int | None] = dict.fromkeys(numbers, block.time_ns)
            expected |= times_ns
        assert {number: find_time(log, number) for number in expected} == expected

    @settings(max_examples=settings().max_examples // 2)
    @given(
        st.lists(
            st.tuples(toy.pipelines, st.lists(toy.payloads, min_size=1)), max_size=6
        ),
        st.data(),
    )
    def test_the_state_is_the_fold_up_to_it(
        self, made: list[tuple[int, list[bytes]]], data: st.DataObject
    ) -> None:
        """A moment's state is the fold of the events up to it, from any snapshot."""
        with tempfile.TemporaryDirectory() as path:
            kept = Kept.create(MemoryStore(), Path(path) / "snapshots")
            kept.append(*made)
            end = kept.log.tail.sequence
            for sequence in data.draw(st.sets(st.integers(0, end), max_size=2)):
                kept.write_snapshot(sequence)
            # In `Kept`, a block's time is the number of events before it.
            time_ns = data.draw(st.integers(-1, end))
            sequence = find_sequence(kept.log, Instant(time_ns))
            blocks = [b for b in kept.log.read(0) if b.first_sequence - 1 <= time_ns]
            assert sequence == sum(block.records.count for block in blocks)
            assert kept.recover(sequence).sequence == sequence


class TestDamage:
    """Moments of a log that is damaged."""

    SHAPE = ((2, 1), (1, 1), (3, 0), (2, 1), (1, 1))
    """Events 1 and 2 at 11 ns, 3 and 4 to 6 at 12, 7 and 8 at 13, 9 at 14."""

    @pytest.mark.parametrize(
        ("time_ns", "sequence"),
        [(10, 0), (11, 2), (12, 6), (13, None), (14, None), (15, None)],
    )
    def test_the_last_block(self, time_ns: int, sequence: int | None) -> None:
        """A time before the last intact block's is found; a later one may be behind."""
        log, made = make_log(self.SHAPE)
        damage(log, made[-1])
        log = reopen(log)
        if sequence is None:
            with pytest.raises(DamagedError) as caught:
                find_sequence(log, Instant(time_ns))
            assert caught.value.sequence == 9
        else:
            assert find_sequence(log, Instant(time_ns)) == sequence

    @pytest.mark.parametrize("number", range(4))
    def test_a_block_in_the_middle(self, number: int) -> None:
        """A time is found unless the next block is the damaged one, which is named."""
        log, made = make_log(self.SHAPE)
        damage(log, made[number])
        for time_ns in range(9, 16):
            self.check(reopen(log), made, number, time_ns)

    @pytest.mark.parametrize("number", range(4))
    def test_a_block_that_is_missing(self, number: int) -> None:
        """A time at which a missing block may have been is never found."""
        log, made = make_log(self.SHAPE)
        row = Change(BLOCKS, key(made[number].first_sequence), None)
        log.store.commit([row], 0)
        for time_ns in range(9, 16):
            # A block that follows nothing may be taken for the damage, too.
            is_behind = time_ns >= made[number + 1].time_ns
            with contextlib.suppress(*[DamagedError] * is_behind):
                self.check(reopen(log), made, number, time_ns)

    def check(self, log: Log, made: list[Block], number: int, time_ns: int) -> None:
        """Fail unless a time is found where one can, with a block that is not there."""
        before = made[number - 1].time_ns if number else 0
        if before <= time_ns < made[number + 1].time_ns:
            with pytest.raises(DamagedError) as caught:
                find_sequence(log, Instant(time_ns))
            assert caught.value.sequence == made[number].first_sequence
        else:
            ends = [block.last_sequence for block in made if block.time_ns <= time_ns]
            assert find_sequence(log, Instant(time_ns)) == max(ends, default=0)

    def test_the_first_damage_is_named(self) -> None:
        """Of several damaged blocks in a row the first is the one to look before."""
        log, made = make_log(self.SHAPE)
        for block in made[2:]:
            damage(log, block)
        with pytest.raises(DamagedError, match="at sequence 4"):
            find_sequence(reopen(log), Instant(99))

    def test_a_sequence_behind_it(self) -> None:
        """A sequence behind the damaged end is no misuse: the damage is named."""
        log, made = make_log(self.SHAPE)
        assert find_end_damage(log) is None
        damage(log, made[-1])
        log = reopen(log)
        found = find_end_damage(log)
        assert found is not None
        assert found.sequence == 9
        assert find_sequence(log, 8) == 8
        for sequence in (9, 10):
            with pytest.raises(DamagedError) as caught:
                find_sequence(log, sequence)
            assert caught.value.sequence == 9
