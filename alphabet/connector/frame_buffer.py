"""One buffer that a stream is received into, and the frames that it holds, uncopied.

For streams of frames whose payloads go to a file as they are: where `framing` gives out
copies that may be kept, this lends views that may not. A frame is a big-endian u32
length and that many bytes.

Invariants: frames come out in stream order, each once, however the stream was cut; a
length is judged before its frame is there; only an unfinished frame is ever moved.
Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from alphabet.connector.wire_fields import U32, WireError

if TYPE_CHECKING:
    from collections.abc import Iterator


@attrs.define(eq=False)
class FrameBuffer:
    """Holds what was received and is not cut yet.

    Attributes:
        frame_bytes_max: The longest frame that is taken, without its length; inclusive.
        spare_bytes: How much it has room for beyond one such frame, 1 or more.
    """

    frame_bytes_max: int
    spare_bytes: int
    _view: memoryview = attrs.field(init=False, repr=False)
    _start: int = attrs.field(default=0, init=False)
    _end: int = attrs.field(default=0, init=False)

    def __attrs_post_init__(self) -> None:
        """Have room for a whole frame, and more."""
        size = U32.size + self.frame_bytes_max + self.spare_bytes
        self._view = memoryview(bytearray(size))

    def make_room(self) -> memoryview:
        """Give where the stream's next bytes belong; all that was lent is gone."""
        left = bytes(self._view[self._start : self._end])
        self._view[: len(left)] = left
        self._start, self._end = 0, len(left)
        return self._view[self._end :]

    def frames(self, received_bytes: int) -> Iterator[memoryview]:
        """Cut the frames that so many more bytes completed; each is lent, not given.

        Raises:
            WireError: A frame is too long; those before it were lent.
        """
        self._end += received_bytes
        while self._end - self._start >= U32.size:
            (size,) = U32.unpack_from(self._view, self._start)
            if size > self.frame_bytes_max:
                raise WireError(
                    f"a frame of {size} bytes, where {self.frame_bytes_max} are taken"
                )
            body = self._start + U32.size
            if body + size > self._end:
                break
            self._start = body + size
            yield self._view[body : self._start]
