"""Blocks found in raw bytes: all that are whole, and nothing that is in one."""

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from log.block import HEADER_BYTES, MAGIC, Block, Records, Tail
from recovery import block_scan
from recovery.block_scan import Scan, scan_blocks
from tests.samples import START, blocks, chain

WINDOWS = st.sampled_from([HEADER_BYTES + 4, 100, 1 << 20])


@attrs.define
class Bytes:
    """Bytes as a source; `read_bytes` is the most that was asked for at once."""

    data: bytes
    read_bytes: int = 0

    @property
    def size(self) -> int:
        """How many there are."""
        return len(self.data)

    def read(self, start: int, length: int) -> bytes:
        """Give a part."""
        self.read_bytes = max(self.read_bytes, length)
        return self.data[start : start + length]


def scanned(data: bytes, window_bytes: int = 1 << 20) -> Scan:
    """Scan bytes by windows of a size."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(block_scan, "WINDOW_BYTES", window_bytes)
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
    assert scan.torn == ()


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
    start = len(b"".join(parts[:damaged]))
    assert scan.blocks["first"].tolist() == firsts[:damaged] + firsts[damaged + 1 :]
    assert start in scan.torn


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
        assert scan.torn == (0,)


def test_nothing_is_read_in_vain_for_a_length_that_cannot_be() -> None:
    """A header that claims more bytes than there can be costs nothing."""
    [block] = chain([b"x" * 100])
    for claimed in (1 << 20, 2**32 - 1, 0):
        header = bytearray(block.encoded)
        header[36:40] = claimed.to_bytes(4)
        source = Bytes(bytes(header) + bytes(1000))
        assert len(scan_blocks(source).blocks) == 0
        assert source.read_bytes <= block_scan.WINDOW_BYTES


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
