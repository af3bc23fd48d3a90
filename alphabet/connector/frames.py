"""The connector protocol's frames as values: version 3, as Wallaroo designed it.

A frame is a big-endian u32 length, one type byte, then the fields; integers are
big-endian, and `bytes16` is a u16 length and that many bytes. The two-phase commit of
the sink side is in `phases`.

Invariants: `decode_frame(encode_frame(frame)[4:]) == frame`, and
whatever is not a whole frame raises `WireError`. Pure: what a frame means, and when it
may come, is for the protocols' state machines.
"""

import struct
from typing import Self

import attrs

from alphabet.connector.wire_fields import U32, U64, Fields, WireError, bytes16

VERSION_IN = b"0.0.1"
"""What a sender says to us."""
VERSION_OUT = b"v0.0.1"
"""What we say to a sink: existing sinks want it so."""
NO_POINT = 2**64 - 1
"""The point of reference of a stream that has no durable message; no message id."""
PHASES_STREAM = 0
"""The stream whose messages carry the two-phase commit."""
OUTPUTS_STREAM = 1
"""The stream whose messages carry outputs."""
FRAME_BYTES_MAX = 1 << 20
"""The longest frame that is taken, without its length; inclusive."""

_NOTIFY_ACK = struct.Struct(">BQQ")
_MESSAGE = struct.Struct(">QQqH")
_ACK = struct.Struct(">II")
_POINT = struct.Struct(">QQ")
MESSAGE_HEAD_BYTES = 1 + _MESSAGE.size
"""A message's bytes before its key: the type, both ids, the event time, the key's
length."""


@attrs.frozen
class Hello:
    """The first frame of the side that connects."""

    version: bytes
    cookie: bytes = attrs.field(repr=False)
    program: bytes
    instance: bytes

    def body(self) -> bytes:
        """Write the fields."""
        fields = (self.version, self.cookie, self.program, self.instance)
        return b"".join(map(bytes16, fields))

    @classmethod
    def read(cls, fields: Fields) -> Self:
        """Read the fields."""
        return cls(*(fields.bytes16() for _ in range(4)))


@attrs.frozen
class Ok:
    """The answer to a good Hello: how many credits there are to begin with."""

    credits: int

    def body(self) -> bytes:
        """Write the fields."""
        return U32.pack(self.credits)

    @classmethod
    def read(cls, fields: Fields) -> Self:
        """Read the fields."""
        return cls(*fields.unpack(U32))


@attrs.frozen
class Error:
    """Why the connection ends."""

    reason: bytes

    def body(self) -> bytes:
        """Write the fields."""
        return bytes16(self.reason)

    @classmethod
    def read(cls, fields: Fields) -> Self:
        """Read the fields."""
        return cls(fields.bytes16())


@attrs.frozen
class Notify:
    """A stream is to be opened; `point` is where its sender is."""

    stream_id: int
    name: bytes
    point: int

    def body(self) -> bytes:
        """Write the fields."""
        return U64.pack(self.stream_id) + bytes16(self.name) + U64.pack(self.point)

    @classmethod
    def read(cls, fields: Fields) -> Self:
        """Read the fields."""
        (stream_id,) = fields.unpack(U64)
        name = fields.bytes16()
        return cls(stream_id, name, *fields.unpack(U64))


@attrs.frozen
class NotifyAck:
    """Whether a stream is open, and the last message of it that is durable."""

    is_success: bool
    stream_id: int
    point: int

    def body(self) -> bytes:
        """Write the fields."""
        return _NOTIFY_ACK.pack(self.is_success, self.stream_id, self.point)

    @classmethod
    def read(cls, fields: Fields) -> Self:
        """Read the fields."""
        success, stream_id, point = fields.unpack(_NOTIFY_ACK)
        return cls(bool(success), stream_id, point)


@attrs.frozen
class Message:
    """One payload of a stream; `event_time` is signed."""

    stream_id: int
    message_id: int
    event_time: int
    key: bytes
    payload: bytes | memoryview

    def body(self) -> bytes:
        """Write the fields."""
        head = _MESSAGE.pack(
            self.stream_id, self.message_id, self.event_time, len(self.key)
        )
        return b"".join([head, self.key, self.payload])

    @classmethod
    def read(cls, fields: Fields) -> Self:
        """Read the fields."""
        stream_id, message_id, event_time, size = fields.unpack(_MESSAGE)
        key = fields.take(size)
        return cls(stream_id, message_id, event_time, key, fields.rest())


@attrs.frozen
class Ack:
    """Credits given back, and (stream id, last durable message id) of streams."""

    credits: int
    points: tuple[tuple[int, int], ...] = ()

    def body(self) -> bytes:
        """Write the fields."""
        head = _ACK.pack(self.credits, len(self.points))
        return head + b"".join(_POINT.pack(*point) for point in self.points)

    @classmethod
    def read(cls, fields: Fields) -> Self:
        """Read the fields."""
        returned, count = fields.unpack(_ACK)
        fields.check_count(count, _POINT.size)
        found = [fields.unpack(_POINT) for _ in range(count)]
        return cls(returned, tuple((stream_id, point) for stream_id, point in found))


@attrs.frozen
class Restart:
    """The sender is to begin again from its Hello; we never send it."""

    def body(self) -> bytes:
        """Write the fields: there are none."""
        return b""

    @classmethod
    def read(cls, fields: Fields) -> Self:
        """Read the fields: there are none."""
        del fields
        return cls()


@attrs.frozen
class EndOfStream:
    """A stream is to be closed; `message_id` is what only some senders add."""

    stream_id: int
    message_id: int | None = None

    def body(self) -> bytes:
        """Write the fields."""
        last = b"" if self.message_id is None else U64.pack(self.message_id)
        return U64.pack(self.stream_id) + last

    @classmethod
    def read(cls, fields: Fields) -> Self:
        """Read the fields."""
        (stream_id,) = fields.unpack(U64)
        if fields.start == len(fields.data):
            return cls(stream_id)
        return cls(stream_id, *fields.unpack(U64))


Frame = Hello | Ok | Error | Notify | NotifyAck | Message | Ack | Restart | EndOfStream
_FRAMES: tuple[type[Frame], ...] = (
    Hello,
    Ok,
    Error,
    Notify,
    NotifyAck,
    Message,
    Ack,
    Restart,
    EndOfStream,
)
"""By their type byte."""
_TYPES = {kind: number for number, kind in enumerate(_FRAMES)}
MESSAGE_TYPE = _TYPES[Message]


def encode_frame(frame: Frame) -> bytes:
    """Write a frame with its length; raises WireError for fields that do not fit."""
    try:
        body = frame.body()
    except struct.error as error:
        raise WireError(f"{type(frame).__name__}: {error}") from error
    return b"".join([U32.pack(1 + len(body)), bytes([_TYPES[type(frame)]]), body])


def decode_frame(data: bytes) -> Frame:
    """Read a frame, given without its length; raises WireError."""
    if not data:
        raise WireError("a frame without a type")
    if data[0] >= len(_FRAMES):
        raise WireError(f"there is no frame of type {data[0]}")
    kind = _FRAMES[data[0]]
    fields = Fields(data, 1)
    try:
        frame = kind.read(fields)
        fields.end()
    except WireError as error:
        raise WireError(f"{kind.__name__}: {error}") from None
    return frame
