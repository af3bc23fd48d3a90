"""Cut a byte stream into frames: a header that tells a payload's length, the payload.

Sans-IO: a `FrameReader` is fed bytes as they come and hands back whole payloads. It
imports no sockets, no clocks and nothing of ours, and it knows nothing of votes: what
a header means is said by the decoder's `payload_length`.

Invariants:
    - Frames come out in stream order, each once, however the stream was cut.
    - A length is judged before anything is allocated for it; what is held is only
      what was received.
    - The work is linear in the bytes received, also for one large frame that comes
      byte by byte.
    - After a fault nothing more comes out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Callable


@attrs.frozen
class Frames:
    """The frames that one piece of a stream completed.

    Attributes:
        position: Byte offset in the stream of the first frame's first byte; of the
            next frame's, if there is none here.
        payloads: What the frames carry, in stream order, without their headers.
    """

    position: int
    payloads: list[bytes]

    def position_of(self, index: int, header_bytes: int) -> int:
        """Compute the offset in the stream of one frame's first byte.

        Takes time in proportion to `index`.

        Args:
            index: Which frame, from 0 to `len(payloads)`, inclusive; the last is the
                frame that comes after these.
            header_bytes: The reader's header size.
        """
        before = self.payloads[:index]
        return self.position + header_bytes * index + sum(map(len, before))


@attrs.frozen
class FrameFault:
    """Why a stream cannot go on.

    Attributes:
        position: Byte offset in the stream of the faulty frame's first byte.
        cause: What is wrong with it, as half a sentence.
        header: The frame's header; shorter than one if the stream ended within it.
    """

    position: int
    cause: str
    header: bytes


def _at_least(least: int) -> Callable[[object, attrs.Attribute[int], int], None]:
    """Make a validator for whole numbers."""

    def check(_reader: object, attribute: attrs.Attribute[int], value: object) -> None:
        if not isinstance(value, int) or value < least:
            raise ValueError(
                f"{attribute.name} is a whole number from {least} up, not {value!r}"
            )

    return check


@attrs.define
class FrameReader:
    """Cut one stream into frames.

    Attributes:
        header_bytes: Size of a header, 1 or more.
        payload_length: Tells a payload's length in bytes from its header. It may be
            asked twice about one header, and answers from the header alone. It is not
            trusted: it may raise, or return what is no length.
        frame_bytes_max: The longest payload that is accepted, inclusive.
        fault: Why the stream cannot go on; None while it can.

    Raises:
        ValueError: A size is not a whole number within its bounds.
    """

    header_bytes: int = attrs.field(validator=_at_least(1))
    payload_length: Callable[[bytes], object]
    frame_bytes_max: int = attrs.field(validator=_at_least(0))
    fault: FrameFault | None = attrs.field(default=None, init=False)
    _position: int = attrs.field(default=0, init=False)
    _held: bytearray = attrs.field(factory=bytearray, init=False, repr=False)
    _wanted_bytes: int = attrs.field(default=0, init=False)

    @property
    def partial_bytes(self) -> int:
        """How many bytes of an unfinished frame are held."""
        return len(self._held)

    def receive(self, data: bytes) -> Frames:
        """Take the next piece of the stream and return the frames that it completes.

        Frames before a fault are returned and `fault` is set; what comes after a
        fault is ignored.

        Raises:
            MemoryError: `payload_length` raised it. The reader is of no use then.
            RecursionError: Likewise.
        """
        first = self._position
        if self.fault is not None:
            return Frames(first, [])
        if self._held:
            if len(self._held) + len(data) < self._wanted_bytes:
                self._held += data
                return Frames(first, [])
            data = b"".join((self._held, data))
            self._held.clear()
        payloads: list[bytes] = []
        self._position += self._cut(data, payloads.append)
        return Frames(first, payloads)

    def _cut(self, data: bytes, put: Callable[[bytes], None]) -> int:
        """Put out the payloads in `data` and hold what follows the last one.

        Every vote passes this loop, so it works on local names.

        Returns:
            How many bytes were whole frames.
        """
        header_bytes = self.header_bytes
        payload_length = self.payload_length
        frame_bytes_max = self.frame_bytes_max
        size = len(data)
        start = 0
        body = header_bytes
        wanted_bytes = header_bytes
        while body <= size:
            header = data[start:body]
            try:
                length = payload_length(header)
            except (MemoryError, RecursionError):
                raise
            except Exception as error:  # noqa: BLE001 - it is the application's code
                self._fail(start, f"payload_length raised {error!r}", header)
                return start
            if not isinstance(length, int) or not 0 <= length <= frame_bytes_max:
                self._fail(start, _length_cause(length, frame_bytes_max), header)
                return start
            end = body + length
            if end > size:
                wanted_bytes = end - start
                break
            put(data[body:end])
            start = end
            body = end + header_bytes
        self._wanted_bytes = wanted_bytes
        self._held += data[start:]
        return start

    def end(self) -> FrameFault | None:
        """Say that the stream has ended; return what is wrong with it there.

        Returns:
            None if it ended between two frames or before the first; the fault that
            was found before, if there was one.
        """
        held = bytes(self._held)
        if held and self.fault is None:
            part = "header" if len(held) < self.header_bytes else "frame"
            self._fail(
                0,
                f"the stream ended after {len(held)} of a {part}'s"
                f" {self._wanted_bytes} bytes",
                held[: self.header_bytes],
            )
        return self.fault

    def _fail(self, start: int, cause: str, header: bytes) -> None:
        """Set the fault: it is in the frame `start` bytes after the last position."""
        self.fault = FrameFault(self._position + start, cause, header)
        self._held.clear()


def _length_cause(length: object, frame_bytes_max: int) -> str:
    """Say what is wrong with a payload's length."""
    if not isinstance(length, int):
        return f"payload_length returned a {type(length).__name__}, not an int"
    if length < 0:
        return "payload_length returned a negative number"
    # Python refuses to write very long numbers.
    size = str(length) if length < 2**64 else "2**64 or more"
    return f"a payload of {size} bytes, where {frame_bytes_max} are accepted"


def encode_frame(payload: bytes, header_bytes: int = 4) -> bytes:
    """Put a payload's length, big-endian in `header_bytes` bytes, before it.

    Raises:
        OverflowError: The length does not fit in the header.
    """
    return len(payload).to_bytes(header_bytes, "big") + payload


def decode_length(header: bytes) -> int:
    """Read a payload's length from a header that `encode_frame` wrote."""
    return int.from_bytes(header, "big")
