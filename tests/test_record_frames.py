"""Records as frames: read back by the framing that a server has."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphabet.framing import FrameReader, decode_length
from alphabet.records.record_frames import FrameFormError, check_headers, frame_records
from log.block import Records
from tests.machines import pack_votes
from tests.votes import wire

payloads = st.one_of(
    st.lists(st.binary(max_size=9), min_size=1, max_size=9),
    st.integers(0, 300).flatmap(
        lambda size: st.lists(
            st.binary(min_size=size, max_size=size), min_size=1, max_size=9
        )
    ),
)


@given(payloads, st.sampled_from([2, 4, 8]))
def test_they_are_read_back(records: list[bytes], header_bytes: int) -> None:
    """Whatever the sizes of records and headers, the payloads are the records."""
    frames = frame_records(Records.pack(records), header_bytes)
    reader = FrameReader(header_bytes, decode_length, 1000)
    assert reader.receive(frames).payloads == records
    assert reader.end() is None


def test_votes_are_what_a_sender_sends() -> None:
    """Alphabet's frames are those of the tutorial's sender, byte by byte."""
    votes = [(bytes([code % 256]), code * 65_537) for code in range(1000)]
    assert frame_records(pack_votes(votes), 4) == wire(votes)


def test_a_length_that_has_no_room() -> None:
    """A record longer than a header can say is refused."""
    with pytest.raises(OverflowError):
        frame_records(Records.pack([bytes(256)]), 1)


class TestCheckHeaders:
    """Whether an application reads the headers that are written."""

    def test_ours_are_read(self) -> None:
        """A decoder that reads lengths, big-endian, is fine with every size."""
        check_headers(Records.pack([b"", b"1", b"22"]), 4, decode_length)

    @pytest.mark.parametrize("sizes", [[3, 3], [0, 3]])
    def test_others_are_refused(self, sizes: list[int]) -> None:
        """A decoder that reads another length, or raises, is refused."""
        records = Records.pack([bytes(size) for size in sizes])
        with pytest.raises(FrameFormError, match=r"decoder reads \d+ where 3"):
            check_headers(records, 4, lambda header: int.from_bytes(header, "little"))
        with pytest.raises(FrameFormError, match="ValueError"):
            check_headers(records, 4, lambda header: int(header.decode("utf-16")))
