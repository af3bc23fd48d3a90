"""Frames cut out of the one buffer that they were received into."""

import itertools
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphabet.connector.frame_buffer import FrameBuffer
from alphabet.connector.wire_fields import WireError

FRAME_BYTES_MAX = 20

bodies = st.lists(st.binary(max_size=FRAME_BYTES_MAX), max_size=12)


def encoded(frames: list[bytes]) -> bytes:
    """Write frames as they stand in a stream."""
    return b"".join(len(frame).to_bytes(4, "big") + frame for frame in frames)


def cut(
    buffer: FrameBuffer, stream: bytes, sizes: Iterator[int]
) -> Iterator[list[bytes]]:
    """Receive a stream in pieces, and give the frames that each one completes."""
    while stream:
        room = buffer.make_room()
        size = min(len(room), len(stream), next(sizes))
        room[:size] = stream[:size]
        stream = stream[size:]
        # All that was lent is good until the next piece, not only the last.
        yield list(map(bytes, list(buffer.frames(size))))


class TestFrameBuffer:
    """Any frames, cut anywhere."""

    @given(bodies, st.lists(st.integers(1, 60), min_size=1), st.integers(1, 50))
    def test_frames_come_out_as_they_went_in(
        self, frames: list[bytes], sizes: list[int], spare_bytes: int
    ) -> None:
        """However a stream is cut, its frames come out in order, each once."""
        buffer = FrameBuffer(FRAME_BYTES_MAX, spare_bytes)
        pieces = cut(buffer, encoded(frames), itertools.cycle(sizes))
        assert list(itertools.chain.from_iterable(pieces)) == frames

    @given(bodies, st.integers(FRAME_BYTES_MAX + 1, 2**32 - 1))
    def test_a_long_frame_is_refused_by_its_length(
        self, frames: list[bytes], size: int
    ) -> None:
        """Frames before one that is too long come out, and then an error does."""
        buffer = FrameBuffer(FRAME_BYTES_MAX, 1000)
        stream = encoded(frames) + size.to_bytes(4, "big")
        buffer.make_room()[: len(stream)] = stream
        found: list[bytes] = []
        with pytest.raises(WireError, match=f"a frame of {size} bytes, where 20"):
            found.extend(map(bytes, buffer.frames(len(stream))))
        assert found == frames

    def test_what_is_lent_is_no_copy(self) -> None:
        """A frame is a view of the memory that it was received into."""
        buffer = FrameBuffer(FRAME_BYTES_MAX, 1)
        room = buffer.make_room()
        room[:5] = encoded([b"a"])
        [frame] = buffer.frames(5)
        room[4:5] = b"b"
        assert bytes(frame) == b"b"
