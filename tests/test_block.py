"""A block: what is sealed comes back, and nothing else passes for it."""

import itertools
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from log import block as block_module
from log.block import (
    HEADER_BYTES,
    MAGIC,
    SEQUENCE_MAX,
    Block,
    BlockError,
    Point,
    Records,
    Tail,
    claimed_bytes,
)
from log.lmdb_store import DATA_FILE, LmdbStore
from log.store import BLOCKS, Change
from tests import samples

VOTES = [b"a\0\0\0\x01", b"b\0\0\0\x02"]
SMALL = Block.seal(
    Tail(6, 0xFEEDBEEF, 5),
    Records.pack(VOTES),
    time_ns=7,
    points=[Point(1, 2, b"s")],
)

# Where the header's fields stand, as docs/FORMAT.md says.
START, VERSION, FLAGS = (0, ">B"), (4, ">B"), (5, ">B")
FIRST_SEQUENCE, COUNT, BLOCK_LENGTH, RECORD_LENGTH, POINT_COUNT = (
    (8, ">Q"),
    (16, ">Q"),
    (36, ">I"),
    (40, ">I"),
    (44, ">I"),
)


def forge(block: Block, place: tuple[int, str], value: int) -> bytes:
    """Return a block's bytes with one field changed and the checksum made good."""
    changed = bytearray(block.encoded)
    struct.pack_into(place[1], changed, place[0], value)
    changed[-4:] = zlib.crc32(changed[:-4]).to_bytes(4)
    return bytes(changed)


def scan(data: bytes) -> Iterator[Block]:
    """Find every block in raw bytes, as docs/FORMAT.md says how."""
    start = data.find(MAGIC)
    while start >= 0:
        try:
            block = Block.decode(data, start)
        except BlockError:
            start += 1
        else:
            yield block
            start += len(block.encoded)
        start = data.find(MAGIC, start)


class TestRecords:
    """Payloads as a block stores them."""

    @given(samples.payloads)
    def test_payloads_come_back(self, payloads: list[bytes]) -> None:
        """What is packed is given back, one by one, in order."""
        assert list(Records.pack(payloads)) == payloads

    @given(samples.fixed_payloads)
    def test_one_size_costs_nothing(self, payloads: list[bytes]) -> None:
        """Records of one size stand back to back."""
        assert Records.pack(payloads).body == b"".join(payloads)

    def test_different_sizes_cost_four_bytes(self) -> None:
        """Records of different sizes have a table of u32 lengths before them."""
        records = Records.pack([b"a", b"", b"bcd"])
        assert records.body == struct.pack(">III", 1, 0, 3) + b"abcd"

    def test_empty_payloads_are_records(self) -> None:
        """Payloads without bytes are still counted."""
        assert list(Records.pack([b"", b""])) == [b"", b""]

    @given(samples.payloads, st.integers(-2, 14), st.integers(-2, 14))
    def test_a_part_is_what_packing_it_gives(
        self, payloads: list[bytes], start: int, size: int
    ) -> None:
        """A cut gives the records from an index to another, as if packed alone."""
        stop = max(start, 0) + max(size, 0)
        cut = Records.pack(payloads).cut(start, stop)
        assert list(cut) == payloads[max(start, 0) : stop]
        assert cut.count == len(list(cut))
        if cut.count:
            assert cut == Records.pack(payloads[max(start, 0) : stop])
            cut.check()

    @given(samples.payloads, st.data())
    def test_parts_joined_are_the_whole(
        self, payloads: list[bytes], data: st.DataObject
    ) -> None:
        """However records are cut, in bytes or in views of them, joined they are one.

        What comes is what packing all of them at once gives, to the byte.
        """
        whole = Records.pack(payloads)
        view = attrs.evolve(whole, body=memoryview(whole.body))
        places = st.sets(st.integers(1, max(len(payloads) - 1, 1)))
        borders = sorted({0, *data.draw(places), len(payloads)})
        for records in (whole, view):
            parts = [records.cut(*pair) for pair in itertools.pairwise(borders)]
            joined = Records.join(parts)
            assert joined == whole
            assert Block.seal(samples.START, joined, time_ns=0).encoded == (
                Block.seal(samples.START, whole, time_ns=0).encoded
            )

    @given(st.lists(samples.payloads, min_size=1, max_size=4))
    def test_parts_of_any_sizes_are_joined(self, contents: list[list[bytes]]) -> None:
        """Joined, parts of different sizes are what packing all at once gives."""
        joined = Records.join([Records.pack(payloads) for payloads in contents])
        assert joined == Records.pack(list(itertools.chain(*contents)))
        joined.check()

    @given(st.integers(1, 2**64), st.integers(0, 2**64), st.integers(0, 2**64))
    def test_a_part_of_a_gap_is_a_gap(self, count: int, start: int, size: int) -> None:
        """What is cut of a gap stands for as many lost events."""
        part = Records.gap(count).cut(start, start + size)
        assert part == Records.gap(max(min(size, count - start), 0))

    def test_payloads_are_bytes_of_their_own(self) -> None:
        """What is given of a view's records is bytes, fit for a dictionary or a set."""
        for payloads in ([b"ab", b"cd"], [b"a", b"bcd"]):
            packed = Records.pack(payloads)
            view = attrs.evolve(packed, body=memoryview(packed.body))
            assert {type(payload) for payload in view} == {bytes}
            assert list(view) == payloads

    def test_a_gap_gives_nothing(self) -> None:
        """A gap has a count, and no payloads."""
        gap = Records.gap(1_000_000)
        assert (gap.count, list(gap)) == (1_000_000, [])

    @pytest.mark.parametrize(
        "records",
        [
            Records(3, 5, b"x" * 14),
            Records(1, 0, b"\0\0\0"),
            Records(2, 0, struct.pack(">II", 1, 2) + b"ab"),
            Records(1, 0, struct.pack(">I", 1) + b"ab"),
            Records(5, 0, b"a", is_gap=True),
        ],
        ids=["fixed", "table", "short", "long", "gap"],
    )
    def test_a_wrong_fill_is_never_sealed(self, records: Records) -> None:
        """Records that do not fill their body make no block."""
        with pytest.raises(ValueError, match=r"records fill|cut short"):
            Block.seal(samples.START, records, time_ns=0)


class TestSeal:
    """Making a block."""

    @given(samples.blocks)
    def test_it_comes_back(self, block: Block) -> None:
        """Decoding a block's bytes gives an equal block."""
        assert Block.decode(block.encoded) == block

    @given(samples.blocks, st.binary(max_size=9), st.binary(max_size=9))
    def test_it_is_found_among_others(
        self, block: Block, before: bytes, after: bytes
    ) -> None:
        """A block is read from where it begins, whatever stands around it."""
        assert Block.decode(before + block.encoded + after, len(before)) == block

    @given(samples.tails, samples.records, samples.u64)
    def test_it_follows_its_tail(
        self, tail: Tail, records: Records, time_ns: int
    ) -> None:
        """A block takes sequence, checksum and time from the one before it."""
        block = Block.seal(tail, records, time_ns=time_ns)
        assert block.first_sequence == tail.sequence + 1
        assert block.last_sequence == tail.sequence + records.count
        assert block.previous_checksum == tail.checksum
        assert block.time_ns == max(time_ns, tail.time_ns)
        assert block.tail == Tail(block.last_sequence, block.checksum, block.time_ns)

    def test_a_vote_costs_its_bytes(self) -> None:
        """A thousand votes take five thousand bytes and one block's overhead."""
        votes = Records.pack([b"a\0\0\0\x01"] * 1000)
        block = Block.seal(samples.START, votes, time_ns=0)
        assert len(block.encoded) == 5000 + HEADER_BYTES + 4

    def test_the_last_sequence_is_taken(self) -> None:
        """Sequences reach 2^64-1, inclusive, and no further."""
        tail = Tail(SEQUENCE_MAX - 2, 0)
        block = Block.seal(tail, Records.pack([b"a", b"b"]), time_ns=0)
        assert Block.decode(block.encoded).last_sequence == SEQUENCE_MAX
        with pytest.raises(ValueError, match="cannot hold 3 events"):
            Block.seal(tail, Records.pack([b"a", b"b", b"c"]), time_ns=0)

    def test_it_is_never_empty(self) -> None:
        """No records make no block, and no gap."""
        for records in (Records.pack([]), Records.gap(0)):
            with pytest.raises(ValueError, match="cannot hold 0 events"):
                Block.seal(samples.START, records, time_ns=0)

    def test_its_size_has_a_limit(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A block may be as large as the limit, and no larger, on both ways."""
        monkeypatch.setattr(block_module, "BLOCK_BYTES_MAX", len(SMALL.encoded))
        assert Block.decode(SMALL.encoded) == SMALL
        monkeypatch.setattr(block_module, "BLOCK_BYTES_MAX", len(SMALL.encoded) - 1)
        with pytest.raises(ValueError, match="too large"):
            Block.seal(
                Tail(6, 0xFEEDBEEF, 5),
                SMALL.records,
                time_ns=7,
                points=SMALL.points,
            )
        with pytest.raises(BlockError, match="its length says"):
            Block.decode(SMALL.encoded)


class TestDamage:
    """Bytes that are no block."""

    def test_every_changed_byte_is_noticed(self) -> None:
        """Whatever byte of a block is changed to whatever value, it is refused."""
        data = bytearray(SMALL.encoded)
        for position, good in enumerate(SMALL.encoded):
            for bad in range(256):
                if bad != good:
                    data[position] = bad
                    with pytest.raises(BlockError):
                        Block.decode(bytes(data))
            data[position] = good

    @given(samples.blocks, st.data())
    def test_any_changed_byte_is_noticed(
        self, block: Block, data: st.DataObject
    ) -> None:
        """A changed byte of any block is refused, whatever may follow it."""
        position = data.draw(st.integers(0, len(block.encoded) - 1))
        changed = bytearray(block.encoded)
        changed[position] ^= data.draw(st.integers(1, 255))
        with pytest.raises(BlockError):
            Block.decode(bytes(changed) + data.draw(st.binary(max_size=300)))

    @given(samples.blocks)
    def test_every_truncation_is_noticed(self, block: Block) -> None:
        """A block without its end is refused, wherever it was cut."""
        for size in range(len(block.encoded)):
            with pytest.raises(BlockError):
                Block.decode(block.encoded[:size])

    @given(st.binary(max_size=200), st.integers(0, 200))
    def test_random_bytes_are_refused(self, data: bytes, start: int) -> None:
        """Bytes that nobody sealed raise BlockError, and nothing else."""
        with pytest.raises(BlockError):
            Block.decode(data, start)
        with pytest.raises(BlockError):
            Block.decode(MAGIC + data)

    @pytest.mark.parametrize(
        ("place", "value", "reason"),
        [
            (START, 0, "it does not begin with a block's magic"),
            (VERSION, 2, "its format version is 2"),
            (FLAGS, 0x03, "its flags are 0x03"),
            (FIRST_SEQUENCE, 0, "it claims 2 events from 0"),
            (COUNT, 0, "it claims 0 events"),
            (FIRST_SEQUENCE, SEQUENCE_MAX, "it claims 2 events from"),
            (COUNT, 3, "records fill 10 bytes, not 15"),
            (FLAGS, 0x01, "records fill 10 bytes, not 0"),
            (RECORD_LENGTH, 4, "records fill 10 bytes, not 8"),
            (RECORD_LENGTH, 0, "records fill 10 bytes"),
            (POINT_COUNT, 2, "points of reference are cut short"),
            (POINT_COUNT, 2**32 - 1, "points of reference are cut short"),
            (POINT_COUNT, 0, "records fill 29 bytes, not 10"),
            (BLOCK_LENGTH, 2**32 - 1, "its length says 4294967295 bytes"),
            (BLOCK_LENGTH, 0, "its length says 0 bytes"),
        ],
    )
    def test_a_good_checksum_is_not_enough(
        self, place: tuple[int, str], value: int, reason: str
    ) -> None:
        """Fields that contradict each other are refused under a good checksum."""
        with pytest.raises(BlockError, match=reason):
            Block.decode(forge(SMALL, place, value))

    def test_a_forged_copy_is_the_same(self) -> None:
        """The forger of these tests changes nothing else."""
        assert forge(SMALL, COUNT, 2) == SMALL.encoded

    @given(block=samples.blocks, rest=st.binary(max_size=9))
    @example(block=Block.seal(Tail(6, 0), Records.pack([b""] * 5), time_ns=7), rest=b"")
    def test_every_block_is_what_its_header_claims(
        self, block: Block, rest: bytes
    ) -> None:
        """The header of a block, alone, tells its length."""
        assert claimed_bytes(block.encoded[:HEADER_BYTES] + rest) == len(block.encoded)

    @pytest.mark.parametrize("records", [Records.pack(VOTES), Records.gap(2)])
    def test_the_longest_name_is_the_limit(self, records: Records) -> None:
        """A header may claim a block with the longest name, and not a byte more."""
        longest = [Point(1, 2, bytes(2**16 - 1))]
        block = Block.seal(Tail(6, 0), records, time_ns=7, points=longest)
        size = len(block.encoded)
        assert claimed_bytes(block.encoded) == size
        assert claimed_bytes(forge(block, BLOCK_LENGTH, size + 1)) is None

    @pytest.mark.parametrize("block", [SMALL, *samples.chain([b"", b"a"])])
    def test_records_need_room(self, block: Block) -> None:
        """A header may not claim more records than its block has room for."""
        assert claimed_bytes(forge(block, COUNT, 2)) == len(block.encoded)
        assert claimed_bytes(forge(block, COUNT, 99)) is None


class TestScan:
    """Finding blocks without LMDB's tree."""

    @pytest.mark.parametrize("are_metas_lost", [False, True])
    def test_every_stored_block_is_found(
        self, tmp_path: Path, *, are_metas_lost: bool
    ) -> None:
        """The raw bytes of a data file hold each stored block in one piece.

        Sizes range from a few bytes, within a page of the tree, to many pages.
        """
        sizes = [1, 100, 1900, 2000, 4000, 4100, 9000, 100_000, 3]
        stored = samples.chain(*([b"v" * size, b"w" * size] for size in sizes))
        store = LmdbStore.open(tmp_path, is_new=True)
        for block in stored:
            key = block.first_sequence.to_bytes(8)
            store.commit([Change(BLOCKS, key, block.encoded, is_append=True)], 0)
        store.close()
        data = (tmp_path / DATA_FILE).read_bytes()
        if are_metas_lost:
            data = bytes(2 * 4096) + data[2 * 4096 :]
        found = {block.first_sequence: block for block in scan(data)}
        assert [found[block.first_sequence] for block in stored] == stored
        assert len(found) == len(stored)
