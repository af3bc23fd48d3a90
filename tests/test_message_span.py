"""Frames of an input as messages: cut, split, and written at two speeds."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphabet.connector.frames import Message, decode_frame
from alphabet.connector.message_span import BorderError, Span, encode_messages
from alphabet.framing import FrameReader, decode_length, encode_frame

PAYLOADS = st.one_of(
    st.lists(st.binary(min_size=5, max_size=5), max_size=20),
    st.lists(st.binary(max_size=3), max_size=20),
)
STARTS = st.integers(0, 2**40)
IDS = st.integers(0, 2**64 - 1)


def join(payloads: list[bytes]) -> bytes:
    """Write payloads as frames."""
    return b"".join(map(encode_frame, payloads))


def ends_of(start: int, payloads: list[bytes]) -> list[int]:
    """Say where each frame ends."""
    sizes = (4 + len(payload) for payload in payloads)
    return list(itertools.accumulate(sizes, initial=start))[1:]


@given(STARTS, PAYLOADS)
def test_every_end_is_found(start: int, payloads: list[bytes]) -> None:
    """A span knows where each of its frames ends, and so does the last one's."""
    span = Span.cut(start, join(payloads))
    assert span.ends.tolist() == ends_of(start, payloads)
    assert span.end == start + len(join(payloads))
    assert span.count == len(payloads)


@given(STARTS, PAYLOADS, IDS)
def test_each_frame_becomes_a_message(
    start: int, payloads: list[bytes], stream_id: int
) -> None:
    """What is written is a MESSAGE for each frame: its end is its id."""
    written = encode_messages(stream_id, Span.cut(start, join(payloads)))
    bodies = FrameReader(4, decode_length, 1 << 20).receive(bytes(written)).payloads
    ids = ends_of(start, payloads)
    assert list(map(decode_frame, bodies)) == [
        Message(stream_id, end, 0, b"", payload)
        for end, payload in zip(ids, payloads, strict=True)
    ]


@given(STARTS, PAYLOADS, st.integers(0, 25))
def test_a_split_loses_nothing(start: int, payloads: list[bytes], count: int) -> None:
    """Both parts of a span are the frames before a place and those behind it."""
    first, rest = Span.cut(start, join(payloads)).split(count)
    for part, wanted in ((first, payloads[:count]), (rest, payloads[count:])):
        assert bytes(part.frames) == join(wanted)
        assert part.ends.tolist() == ends_of(part.start, wanted)
    assert rest.start == first.end


@given(STARTS, PAYLOADS, st.integers(-3, 150))
def test_what_is_behind_a_point(start: int, payloads: list[bytes], past: int) -> None:
    """Frames that end by a point are left out, and a point within one is an error."""
    span = Span.cut(start, join(payloads))
    point = max(0, start + past)
    ends = ends_of(start, payloads)
    if start < point < span.end and point not in ends:
        with pytest.raises(BorderError, match=str(point)):
            span.after(point)
    else:
        rest = span.after(point)
        assert rest.ends.tolist() == [end for end in ends if end > point]
        assert bytes(rest.frames) == join(payloads[len(payloads) - rest.count :])
