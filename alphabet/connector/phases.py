"""The steps of the connector protocol's two-phase commit, as values.

They travel as payloads of messages of PHASES_STREAM, told apart by a tag byte. Pure:
which step may follow which is for the protocols' state machines.
"""

import struct
from typing import Self

import attrs

from alphabet.connector.frames import PHASES_STREAM, Message, encode_frame
from alphabet.connector.wire_fields import U16, U32, U64, Fields, WireError, bytes16

_RANGE = struct.Struct(">QQQ")


@attrs.frozen
class ListUncommitted:
    """Ask a sink for the transactions that it has not settled."""

    tag: int

    def body(self) -> bytes:
        """Write the fields."""
        return U64.pack(self.tag)

    @classmethod
    def read(cls, fields: Fields) -> Self:
        """Read the fields."""
        return cls(*fields.unpack(U64))


@attrs.frozen
class ReplyUncommitted:
    """A sink's answer: the ids of the transactions that it has not settled."""

    tag: int
    transactions: tuple[bytes, ...]

    def body(self) -> bytes:
        """Write the fields."""
        names = b"".join(map(bytes16, self.transactions))
        return U64.pack(self.tag) + U32.pack(len(self.transactions)) + names

    @classmethod
    def read(cls, fields: Fields) -> Self:
        """Read the fields."""
        (tag,) = fields.unpack(U64)
        (count,) = fields.unpack(U32)
        fields.check_count(count, U16.size)
        return cls(tag, tuple(fields.bytes16() for _ in range(count)))


@attrs.frozen
class Phase1:
    """Ask a sink whether it can commit: (stream id, start, end) of bytes sent to it.

    `start` is inclusive, `end` exclusive.
    """

    transaction: bytes
    ranges: tuple[tuple[int, int, int], ...]

    def body(self) -> bytes:
        """Write the fields."""
        head = bytes16(self.transaction) + U32.pack(len(self.ranges))
        return head + b"".join(_RANGE.pack(*each) for each in self.ranges)

    @classmethod
    def read(cls, fields: Fields) -> Self:
        """Read the fields."""
        transaction = fields.bytes16()
        (count,) = fields.unpack(U32)
        fields.check_count(count, _RANGE.size)
        found = [fields.unpack(_RANGE) for _ in range(count)]
        return cls(transaction, tuple((s, start, end) for s, start, end in found))


@attrs.frozen
class Reply:
    """A sink's answer to Phase1."""

    transaction: bytes
    is_commit: bool

    def body(self) -> bytes:
        """Write the fields."""
        return bytes16(self.transaction) + bytes([self.is_commit])

    @classmethod
    def read(cls, fields: Fields) -> Self:
        """Read the fields."""
        return cls(fields.bytes16(), fields.take(1) != b"\0")


@attrs.frozen
class Phase2:
    """What is decided about a transaction."""

    transaction: bytes
    is_commit: bool

    def body(self) -> bytes:
        """Write the fields."""
        return bytes16(self.transaction) + bytes([self.is_commit])

    @classmethod
    def read(cls, fields: Fields) -> Self:
        """Read the fields."""
        return cls(fields.bytes16(), fields.take(1) != b"\0")


Phase = ListUncommitted | ReplyUncommitted | Phase1 | Reply | Phase2
_PHASES: dict[int, type[Phase]] = {
    201: ListUncommitted,
    202: ReplyUncommitted,
    203: Phase1,
    204: Reply,
    205: Phase2,
}
"""By their tag byte."""
_TAGS = {kind: tag for tag, kind in _PHASES.items()}


def encode_phase(phase: Phase) -> bytes:
    """Write a frame with a step of the two-phase commit; raises WireError."""
    try:
        payload = bytes([_TAGS[type(phase)]]) + phase.body()
    except struct.error as error:
        raise WireError(f"{type(phase).__name__}: {error}") from error
    return encode_frame(Message(PHASES_STREAM, 0, 0, b"", payload))


def decode_phase(payload: bytes) -> Phase:
    """Read the payload of a message of PHASES_STREAM; raises WireError."""
    if not payload or payload[0] not in _PHASES:
        raise WireError("a message of stream 0 that is no step of a commit")
    kind = _PHASES[payload[0]]
    fields = Fields(payload, 1)
    try:
        phase = kind.read(fields)
        fields.end()
    except WireError as error:
        raise WireError(f"{kind.__name__}: {error}") from None
    return phase
