"""Checksums of any stretch of a file, from those of its parts."""

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recovery.damage import part_checksums
from recovery.damage.part_checksums import PartChecksums
from tests.test_block_scan import Bytes


@given(
    data=st.binary(max_size=400),
    draws=st.data(),
    part_bytes=st.sampled_from([1, 7, 64, 1 << 14]),
    read_bytes=st.sampled_from([1, 100, 1 << 20]),
)
def test_a_stretch_has_the_checksum_of_its_bytes(
    data: bytes, draws: st.DataObject, part_bytes: int, read_bytes: int
) -> None:
    """Every stretch behind the origin has the checksum that zlib gives it."""
    origin = draws.draw(st.integers(0, len(data)))
    places = st.integers(origin, len(data))
    stretches = draws.draw(st.lists(st.tuples(places, places).map(sorted), max_size=5))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(part_checksums, "PART_BYTES", part_bytes)
        patch.setattr(part_checksums, "_READ_BYTES", read_bytes)
        checksums = PartChecksums(Bytes(data).read, origin)
        for start, stop in stretches:
            expected = zlib.crc32(data[start:stop])
            assert checksums.between(start, stop) == expected


def test_a_long_stretch() -> None:
    """A stretch of many parts has the checksum that zlib gives it."""
    data = bytes(range(256)) * 20_000
    checksums = PartChecksums(Bytes(data).read, 3)
    for start, stop in [(3, len(data)), (77_777, 5_000_001), (2_000_000, 2_000_000)]:
        assert checksums.between(start, stop) == zlib.crc32(data[start:stop])


def test_what_was_asked_for_is_not_read_again() -> None:
    """Of a stretch inside one that was asked for, only its ends are read."""
    source = Bytes(bytes(5_000_000))
    checksums = PartChecksums(source.read, 0)
    checksums.between(0, source.size)
    before = source.total_bytes
    checksums.between(1000, source.size - 1000)
    assert before <= source.size + part_checksums.PART_BYTES
    assert source.total_bytes - before <= 2 * part_checksums.PART_BYTES
