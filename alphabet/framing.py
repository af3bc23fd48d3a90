"""Cut a byte stream into frames: a header that tells a payload's length, the payload.

Sans-IO: a `FrameReader` is fed bytes as they come and hands back whole payloads. It
imports no sockets and no clocks, of ours only what tells a cause, and it knows nothing
of votes: what a header means is said by the decoder's `payload_length`.

Invariants:
    - Frames come out in stream order, each once, however the stream was cut.
    - A length is judged before anything is allocated for it; what is held is only
      what was received.
    - The work is linear in the bytes received, also for one large frame that comes
      byte by byte.
    - After a fault nothing more comes out.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import attrs
import numpy as np

from alphabet.cause import describe

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


RUN_FRAMES_MIN = 64
"""Fewer frames than this are cut one by one: looking for a run costs more."""
WINDOW_BYTES = 1 << 14
"""How much is cut one by one before a run is looked for again."""

_INTEGER_BYTES = frozenset({1, 2, 4, 8})

Rows = np.ndarray[tuple[int, int], np.dtype[np.uint8]]
"""Payloads of one size, one a row."""


@attrs.frozen
class Payloads:
    """Frames that were cut one by one: their payloads, without the headers.

    `position` is the byte offset in the stream of the first frame's first byte.
    """

    position: int
    header_bytes: int
    payloads: list[bytes]

    @property
    def count(self) -> int:
        """How many frames these are."""
        return len(self.payloads)

    @property
    def payload_bytes(self) -> int | None:
        """The one size of all payloads, None where they differ."""
        sizes = set(map(len, self.payloads))
        return sizes.pop() if len(sizes) == 1 else None

    def positions(self) -> Sequence[int]:
        """Give the offset in the stream of each frame's first byte."""
        sizes = (self.header_bytes + len(payload) for payload in self.payloads)
        return list(itertools.accumulate(sizes, initial=self.position))[:-1]

    def fill(self, rows: Rows) -> None:
        """Copy payloads of one size into rows, one a row."""
        flat = np.frombuffer(b"".join(self.payloads), np.uint8)
        rows[:] = flat.reshape(rows.shape)


@attrs.frozen
class Run:
    """Frames with equal headers, hence of one size, uncut and back to back.

    `data` borrows the buffer that the bytes were received in; it is of use until that
    buffer is given back.
    """

    position: int
    header_bytes: int
    frame_bytes: int
    data: memoryview = attrs.field(repr=False)

    @property
    def count(self) -> int:
        """How many frames these are."""
        return len(self.data) // self.frame_bytes

    @property
    def payload_bytes(self) -> int:
        """The size of every payload."""
        return self.frame_bytes - self.header_bytes

    @property
    def payloads(self) -> list[bytes]:
        """The payloads, cut one by one."""
        data = bytes(self.data)
        ends = range(self.frame_bytes, len(data) + 1, self.frame_bytes)
        return [data[end - self.payload_bytes : end] for end in ends]

    def positions(self) -> Sequence[int]:
        """Give the offset in the stream of each frame's first byte."""
        end = self.position + len(self.data)
        return range(self.position, end, self.frame_bytes)

    def fill(self, rows: Rows) -> None:
        """Copy the payloads into rows, one a row."""
        item = f"V{self.payload_bytes}"
        form = [("header", f"V{self.header_bytes}"), ("payload", item)]
        # A row is copied as one item, which is three times as fast as byte by byte.
        rows.view(item)[:, 0] = np.frombuffer(self.data, form)["payload"]


Piece = Payloads | Run


@attrs.frozen
class Frames:
    """The frames that one piece of a stream completed, in stream order.

    `position` is the byte offset in the stream of the first frame's first byte; of
    the next frame's, if there is none here.
    """

    position: int
    pieces: list[Piece]

    @property
    def count(self) -> int:
        """How many frames these are."""
        return sum(piece.count for piece in self.pieces)

    @property
    def payloads(self) -> list[bytes]:
        """What the frames carry, cut one by one."""
        return [payload for piece in self.pieces for payload in piece.payloads]


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


@attrs.define(on_setattr=attrs.setters.NO_OP)  # Settings are checked, once: it is hot.
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

    def receive(self, data: bytes | memoryview) -> Frames:
        """Take the next piece of the stream and return the frames that it completes.

        Frames before a fault are returned and `fault` is set; what comes after a
        fault is ignored. Runs borrow `data`.

        Raises:
            MemoryError: `payload_length` raised it. The reader is of no use then.
            RecursionError: Likewise.
        """
        frames = Frames(self._position, [])
        view = memoryview(data)
        if self._held:
            view = self._complete_held(view, frames.pieces)
        start = 0
        while start < len(view) and self.fault is None:
            size = self._take_run(view[start:], frames.pieces)
            size = size or self._take_some(view[start:], frames.pieces)
            if not size:
                break
            start += size
        if self.fault is None:
            self._held += view[start:]
        return frames

    def _complete_held(self, view: memoryview, pieces: list[Piece]) -> memoryview:
        """Add what the unfinished frame lacks; return what comes after it."""
        while self._held and view and self.fault is None:
            missing = self._wanted_bytes - len(self._held)
            self._held += view[:missing]
            view = view[missing:]
            if len(self._held) == self._wanted_bytes and self._take(
                bytes(self._held), pieces
            ):
                self._held.clear()
        return view

    def _take_run(self, view: memoryview, pieces: list[Piece]) -> int:
        """Put out the run of equal headers at the beginning, if it is a long one.

        Equal headers mean equal lengths, so only the first is asked for its length.
        Returns the run's bytes, 0 for none.
        """
        header = bytes(view[: self.header_bytes])
        if len(view) < RUN_FRAMES_MIN * len(header):
            return 0
        try:
            length = self.payload_length(header)
        except (MemoryError, RecursionError):
            raise
        except Exception:  # noqa: BLE001 - told by `_take`, which meets it again
            return 0
        if not isinstance(length, int) or not 0 <= length <= self.frame_bytes_max:
            return 0
        frame_bytes = self.header_bytes + length
        count = _count_equal(view, header, frame_bytes)
        if count < RUN_FRAMES_MIN:
            return 0
        size = count * frame_bytes
        pieces.append(Run(self._position, len(header), frame_bytes, view[:size]))
        self._position += size
        return size

    def _take_some(self, view: memoryview, pieces: list[Piece]) -> int:
        """Put out frames one by one, until a run is worth another look."""
        size = self._take(bytes(view[:WINDOW_BYTES]), pieces)
        if not size and len(view) > WINDOW_BYTES and self.fault is None:
            size = self._take(bytes(view), pieces)
        return size

    def _take(self, data: bytes, pieces: list[Piece]) -> int:
        """Put out the whole frames in `data`, one by one; return their bytes.

        Every vote that comes alone passes this loop, so it works on local names.
        """
        header_bytes = self.header_bytes
        payload_length = self.payload_length
        frame_bytes_max = self.frame_bytes_max
        payloads: list[bytes] = []
        put = payloads.append
        size = len(data)
        start = 0
        body = header_bytes
        wanted_bytes = header_bytes
        fault: FrameFault | None = None
        while body <= size:
            header = data[start:body]
            try:
                length = payload_length(header)
            except (MemoryError, RecursionError):
                raise
            except Exception as error:  # noqa: BLE001 - it is the application's code
                cause = f"payload_length raised {describe(error)}"
                fault = FrameFault(self._position + start, cause, header)
                break
            if not isinstance(length, int) or not 0 <= length <= frame_bytes_max:
                cause = _length_cause(length, frame_bytes_max)
                fault = FrameFault(self._position + start, cause, header)
                break
            end = body + length
            if end > size:
                wanted_bytes = end - start
                break
            put(data[body:end])
            start = end
            body = end + header_bytes
        if payloads:
            pieces.append(Payloads(self._position, header_bytes, payloads))
            self._position += start
        self._wanted_bytes = wanted_bytes
        if fault is not None:
            self.fault = fault
            self._held.clear()
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
            cause = (
                f"the stream ended after {len(held)} of a {part}'s"
                f" {self._wanted_bytes} bytes"
            )
            self.fault = FrameFault(self._position, cause, held[: self.header_bytes])
            self._held.clear()
        return self.fault


def _count_equal(view: memoryview, header: bytes, frame_bytes: int) -> int:
    """Count the whole frames from the beginning on that have this header.

    Looks ahead in steps, so that a short run costs little.
    """
    width = len(header)
    form = f"u{width}" if width in _INTEGER_BYTES else f"V{width}"
    wanted = np.frombuffer(header, form)[0]
    count = 0
    frames = len(view) // frame_bytes
    step = RUN_FRAMES_MIN
    while count < frames:
        shape = (min(step, frames - count),)
        headers = np.ndarray(shape, form, view, count * frame_bytes, (frame_bytes,))
        differs = headers != wanted
        if differs.any():
            return count + int(differs.argmax())
        count += shape[0]
        step *= 8
    return count


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
