"""Frames of an input as messages of a connector stream.

A message's id is the byte offset in the input at which its frame ends, so a point of
reference tells where to go on. Pure. Ids strictly increase, and none is 0.
"""

from __future__ import annotations

from typing import Self

import attrs
import numpy as np

from alphabet.connector.frames import Message, encode_frame
from alphabet.framing import decode_length

HEADER_BYTES = 4

Ends = np.ndarray[tuple[int], np.dtype[np.uint64]]

_ID_AT = 13
"""Where a message's id is in its frame: behind length, type and the stream's id."""
_BODY_AT = 31
"""Where its payload begins, if it has no key."""


@attrs.frozen
class BorderError(Exception):
    """A point of reference is not where a frame of the input ends.

    Attributes:
        point: The byte offset.
    """

    point: int

    def __str__(self) -> str:
        return f"byte {self.point} is in the middle of a frame"


@attrs.frozen(eq=False)
class Span:
    """Whole frames, back to back.

    Attributes:
        start: The byte offset in the input of the first frame's first byte.
        frames: The frames, each with its header.
        ends: For each frame the byte offset in the input of what comes after it.
        frame_bytes: The one size of all frames, None where they differ.
    """

    start: int
    frames: memoryview = attrs.field(repr=False)
    ends: Ends = attrs.field(repr=False)
    frame_bytes: int | None

    @classmethod
    def cut(cls, start: int, frames: bytes) -> Self:
        """Find the frames' ends."""
        view = memoryview(frames)
        size = even_bytes(frames)
        if size is not None:
            stop = start + len(frames) + 1
            ends = np.arange(start + size, stop, size, dtype=np.uint64)
            return cls(start, view, ends, size)
        found: list[int] = []
        at = 0
        while at < len(frames):
            at += HEADER_BYTES + decode_length(frames[at : at + HEADER_BYTES])
            found.append(start + at)
        return cls(start, view, np.array(found, np.uint64), None)

    @property
    def count(self) -> int:
        """How many frames these are."""
        return len(self.ends)

    @property
    def end(self) -> int:
        """The byte offset in the input of what comes after the last frame."""
        return self.start + len(self.frames)

    def split(self, count: int) -> tuple[Self, Self]:
        """Cut off the first `count` frames, or all if there are no more."""
        count = min(count, self.count)
        at = int(self.ends[count - 1]) if count else self.start
        first = self._part(self.start, at, 0, count)
        return first, self._part(at, self.end, count, None)

    def after(self, point: int) -> Self:
        """Leave out the frames that end at or before a point.

        Raises:
            BorderError: The point is within a frame.
        """
        if point <= self.start:
            return self
        count = int(np.searchsorted(self.ends, np.uint64(point), "right"))
        _, rest = self.split(count)
        if rest.start < point < self.end:
            raise BorderError(point)
        return rest

    def _part(self, start: int, end: int, first: int, last: int | None) -> Self:
        """Give the frames from one byte offset to another."""
        frames = self.frames[start - self.start : end - self.start]
        return type(self)(start, frames, self.ends[first:last], self.frame_bytes)


def even_bytes(frames: bytes) -> int | None:
    """Tell the size of all frames, None if they differ, are empty or are none."""
    header = frames[:HEADER_BYTES]
    size = HEADER_BYTES + decode_length(header)
    if size == HEADER_BYTES or len(frames) % size:
        return None
    headers = np.ndarray((len(frames) // size,), ">u4", frames, 0, (size,))
    return size if (headers == decode_length(header)).all() else None


def encode_messages(stream_id: int, span: Span) -> bytes | bytearray:
    """Write a span's frames as Message frames; without keys, at event time 0.

    Frames of one size are written by columns: some 30 million a second.
    """
    if span.frame_bytes is None:
        return b"".join(_encode_each(stream_id, span))
    payload_bytes = span.frame_bytes - HEADER_BYTES
    frame = encode_frame(Message(stream_id, 0, 0, b"", bytes(payload_bytes)))
    data = bytearray(frame * span.count)
    rows = np.frombuffer(
        data,
        {
            "names": ["id", "payload"],
            "formats": [">u8", f"V{payload_bytes}"],
            "offsets": [_ID_AT, _BODY_AT],
            "itemsize": len(frame),
        },
    )
    rows["id"] = span.ends
    form = [("header", f"V{HEADER_BYTES}"), ("payload", f"V{payload_bytes}")]
    rows["payload"] = np.frombuffer(span.frames, form)["payload"]
    return data


def _encode_each(stream_id: int, span: Span) -> list[bytes]:
    """Write frames of any size, one by one."""
    written: list[bytes] = []
    start = span.start
    for end in span.ends.tolist():
        payload = span.frames[start + HEADER_BYTES - span.start : end - span.start]
        written.append(encode_frame(Message(stream_id, end, 0, b"", payload)))
        start = end
    return written
