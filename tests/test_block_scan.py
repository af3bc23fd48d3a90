"""Blocks found in raw bytes: all that are whole, and nothing that is in one."""

import struct
import zlib

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from log.block import HEADER_BYTES, MAGIC, Block, Records, Tail
from recovery.damage import block_scan, part_checksums
from recovery.damage.block_scan import Scan, scan_blocks
from tests.samples import START, blocks, chain

WINDOWS = st.sampled_from([HEADER_BYTES + 4, 100, 1 << 20])


@attrs.define
class Bytes:
    """Bytes as a source; `read_bytes` is the most that was asked for at once.

    `total_bytes` is all that was given.
    """

    data: bytes
    read_bytes: int = 0
    total_bytes: int = 0

    @property
    def size(self) -> int:
        """How many there are."""
        return len(self.data)

    def read(self, start: int, length: int) -> bytes:
        """Give a part."""
        self.read_bytes = max(self.read_bytes, length)
        part = self.data[start : start + length]
        self.total_bytes += len(part)
        return part


def scanned(data: bytes, window_bytes: int = 1 << 20) -> Scan:
    """Scan bytes by windows of a size."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(block_scan, "WINDOW_BYTES", window_bytes)
        if window_bytes < part_checksums.PART_BYTES:
            patch.setattr(block_scan, "PART_BYTES", 64)
            patch.setattr(part_checksums, "PART_BYTES", 64)
        return scan_blocks(Bytes(data))


def noise() -> st.SearchStrategy[bytes]:
    """Give bytes without a magic, though with parts of one."""
    parts = st.sampled_from([b"", b"\xab", b"\xabB", b"\xabBL", b"LK", b"\0" * 60])
    joined = st.lists(parts | st.binary(max_size=9), max_size=4).map(b"".join)
    return joined.map(lambda data: data.replace(MAGIC, b"none") + b"\0")


@given(
    found=st.lists(st.tuples(noise(), blocks), max_size=6),
    end=noise(),
    window_bytes=WINDOWS,
)
def test_every_block_is_found(
    found: list[tuple[bytes, Block]], end: bytes, window_bytes: int
) -> None:
    """Whatever lies between blocks, each is found at its place with its numbers."""
    data = b""
    expected = []
    for between, block in found:
        data += between
        expected.append(
            (
                len(data),
                len(block.encoded),
                block.first_sequence,
                block.last_sequence,
                block.time_ns,
                block.previous_checksum,
                block.checksum,
                block.pipeline,
                block.records.is_gap,
            )
        )
        data += block.encoded
    scan = scanned(data + end, window_bytes)
    assert scan.blocks.tolist() == expected
    assert scan.torn == 0


@given(
    contents=st.lists(
        st.lists(st.binary(max_size=60), min_size=1, max_size=3),
        min_size=1,
        max_size=5,
    ),
    data=st.data(),
    window_bytes=WINDOWS,
)
def test_a_damaged_block_is_torn_and_its_neighbours_are_found(
    contents: list[list[bytes]], data: st.DataObject, window_bytes: int
) -> None:
    """A changed byte costs the one block that it is in."""
    made = chain(*contents)
    damaged = data.draw(st.integers(0, len(made) - 1))
    whole = made[damaged].encoded
    place = data.draw(st.integers(len(MAGIC), len(whole) - 1))
    broken = bytearray(whole)
    broken[place] ^= data.draw(st.integers(1, 255))
    parts = [block.encoded for block in made]
    parts[damaged] = bytes(broken)
    scan = scanned(b"".join(parts), window_bytes)
    firsts = [block.first_sequence for block in made]
    assert scan.blocks["first"].tolist() == firsts[:damaged] + firsts[damaged + 1 :]
    assert scan.torn >= 1


@pytest.mark.parametrize("window_bytes", [52, 100, 1000])
def test_what_a_record_spells_is_no_block(window_bytes: int) -> None:
    """A whole block that is a record of another one is never looked at."""
    inner = chain([b"x"])[0].encoded
    [outer] = chain([b"a" * 10, inner, b"b" * 300])
    assert scanned(outer.encoded, window_bytes).blocks["offset"].tolist() == [0]


def test_a_block_cut_by_the_end_is_torn() -> None:
    """A block whose end is beyond the file's is none."""
    [block] = chain([b"some", b"events"])
    for length in range(4, len(block.encoded)):
        scan = scanned(block.encoded[:length], 60)
        assert len(scan.blocks) == 0
        assert scan.torn == 1


def test_nothing_is_read_in_vain_for_a_length_that_cannot_be() -> None:
    """A header that claims more bytes than there can be costs nothing."""
    [block] = chain([b"x" * 100])
    for claimed in (1 << 20, 2**32 - 1, 0):
        header = bytearray(block.encoded)
        header[36:40] = claimed.to_bytes(4)
        source = Bytes(bytes(header) + bytes(1000))
        assert len(scan_blocks(source).blocks) == 0
        assert source.read_bytes <= block_scan.WINDOW_BYTES


def header(block_bytes: int, record_bytes: int = 0, count: int = 1) -> bytes:
    """Give a header that makes a claim."""
    numbers = (1, count, 5, 6, block_bytes, record_bytes, 0)
    return struct.pack(">4sBBHQQQIIII", MAGIC, 1, 0, 0, *numbers)


def surrounded(forged: bytes) -> tuple[bytes, list[Block]]:
    """Give a file whose second block holds what was forged and is damaged."""
    behind = [[b"y" * 100_000]] * 20
    before, damaged, *others = chain([b"before"], [b"-" + forged, b"x"], *behind)
    torn = bytearray(damaged.encoded)
    torn[-1] ^= 1
    parts = [before.encoded, bytes(torn), *(block.encoded for block in others)]
    return b"".join(parts), [before, *others]


@pytest.fixture
def summed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Give the sizes of all that checksums are made of."""
    sizes: list[int] = []
    crc32 = zlib.crc32

    def counted(data: bytes, value: int = 0) -> int:
        sizes.append(len(data))
        return crc32(data, value)

    monkeypatch.setattr(zlib, "crc32", counted)
    return sizes


@pytest.mark.parametrize("window_bytes", [1 << 16, 1 << 22])
def test_forged_claims_do_not_multiply_the_work(
    summed: list[int], window_bytes: int
) -> None:
    """Each header that a record spells costs two parts of the file at the most."""
    count = 200
    data, whole = surrounded(header(1_900_000) * count)
    source = Bytes(data)
    summed.clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(block_scan, "WINDOW_BYTES", window_bytes)
        scan = scan_blocks(source)
    assert scan.blocks["checksum"].tolist() == [block.checksum for block in whole]
    assert scan.torn == count + 1
    bound = 4 * len(data) + 2 * part_checksums.PART_BYTES * (count + 1)
    assert sum(summed) <= bound
    assert source.total_bytes <= bound + 2 * window_bytes
    assert source.read_bytes <= max(window_bytes, 1 << 20)


def test_a_mere_claim_is_not_held() -> None:
    """A claim that is larger than a window is checked part by part."""
    source = Bytes(header(1_900_000) + bytes(2_000_000))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(block_scan, "WINDOW_BYTES", 1 << 16)
        assert scan_blocks(source).torn == 1
    assert source.read_bytes <= 1 << 20


def test_headers_that_no_block_has_cost_nothing(summed: list[int]) -> None:
    """A claim that a header itself contradicts is not looked into."""
    impossible = [
        header(900_000, record_bytes=5),
        header(900_000, count=1 << 20),
        header(900_000, count=0),
        b"\xabBLK\2" + header(900_000)[5:],
        b"\xabBLK\1\4" + header(900_000)[6:],
    ]
    data, whole = surrounded(b"".join(impossible) * 20)
    summed.clear()
    scan = scan_blocks(Bytes(data))
    assert scan.blocks["checksum"].tolist() == [block.checksum for block in whole]
    assert sum(summed) <= len(data)


def test_what_is_forged_under_a_good_checksum_is_passed_over(
    summed: list[int],
) -> None:
    """Bytes within bytes, all with good checksums and none a block, are read once."""
    count = 100
    forged = b"\xff" * 200_000
    for _ in range(count):
        forged = header(HEADER_BYTES + len(forged) + 4) + forged
        forged += zlib.crc32(forged).to_bytes(4)
    data, whole = surrounded(forged)
    summed.clear()
    scan = scan_blocks(Bytes(data))
    assert scan.blocks["checksum"].tolist() == [block.checksum for block in whole]
    assert scan.torn == 2
    assert sum(summed) <= 5 * len(data)


def test_a_large_block_in_reach_of_a_false_claim_is_found() -> None:
    """A whole block is found though a header before it claims its bytes."""
    made = chain([b"x" * 100_000], [b"y" * 100_000], [b"z" * 50])
    whole = b"".join(block.encoded for block in made)
    forged = header(300_000)
    scan = scanned(forged + whole + bytes(300_000))
    assert scan.blocks["offset"].tolist() == [
        len(forged) + place for place in (0, 100_052, 200_104)
    ]
    assert scan.torn == 1


def test_progress_reaches_the_end() -> None:
    """Progress never goes back, and ends with the file."""
    data = b"".join(block.encoded for block in chain([b"a" * 500], [b"b" * 500]))
    told: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(block_scan, "WINDOW_BYTES", 64)
        scan_blocks(Bytes(data), told.append)
    assert told == sorted(told)
    assert told[-1] == len(data)


def test_a_gap_is_told_from_events() -> None:
    """A gap's block is found as a gap."""
    gap = Block.seal(Tail(5, 6, 7), Records.gap(2**40), time_ns=8)
    event = Block.seal(START, Records.pack([b"x"]), time_ns=8)
    scan = scanned(gap.encoded + event.encoded)
    assert scan.blocks["is_gap"].tolist() == [True, False]
    assert scan.blocks["last"].tolist() == [5 + 2**40, 1]
