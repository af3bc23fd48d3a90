"""The streams of connector senders, over all connections: who holds one, how far it is.

Invariants:

- one connection at a time holds a stream;
- message ids of a stream only rise, first `taken` (handed on, perhaps in flight), then
  `durable` (committed, and stored as the stream's point of reference);
- what is in flight of a stream is taken to its end, whoever holds it then.

Pure: what was committed is told by `settle`, and all else is gone with the process.
"""

from collections.abc import Iterable
from typing import Protocol, Self
from weakref import WeakSet

import attrs

from alphabet.connector.frames import NO_POINT
from log.block import Point

NONE = -1
"""Below every message id: nothing of the stream was taken, or is durable."""
STREAMS_BYTES_MAX = 64 << 20
"""What all streams that are known may weigh, names included."""
STREAM_BYTES = 512
"""What a stream weighs beside its name."""
NAME_BYTES_SAID = 50
"""How much of a name is worth saying: it may be very long."""


class StreamError(Exception):
    """A stream that cannot be opened by this name, or at all; the peer's fault."""


class Holder(Protocol):
    """A connection, as the streams see it."""

    @property
    def identity(self) -> tuple[bytes, bytes]:
        """Its program and instance: a new connection of the same ones takes over."""

    def take_over(self, stream_id: int) -> None:
        """End: another connection of the same program and instance has come."""

    def freed(self) -> None:
        """Take note that a stream that was refused may be asked for again."""


@attrs.define(eq=False)
class Stream:
    """One stream; `taken` and `durable` are message ids, or NONE."""

    stream_id: int
    name: bytes
    durable: int = NONE
    taken: int = NONE
    holder: Holder | None = None
    refused: WeakSet[Holder] = attrs.Factory(WeakSet)

    @property
    def point(self) -> int:
        """The point of reference, as it goes over the wire."""
        return NO_POINT if self.durable == NONE else self.durable


@attrs.define
class Streams:
    """All streams that are held, in flight or have a point of reference.

    `touched` are the holders for which something has changed, for whoever drives them.
    """

    touched: set[Holder] = attrs.field(factory=set, init=False)
    _streams: dict[int, Stream] = attrs.field(factory=dict, init=False)
    _bytes: int = attrs.field(default=0, init=False)

    @classmethod
    def begin(cls, points: Iterable[Point]) -> Self:
        """Know the streams that a log has points of."""
        streams = cls()
        for point in points:
            stream = Stream(point.stream_id, point.name)
            if point.message_id != NO_POINT:
                stream.durable = stream.taken = point.message_id
            streams._add(stream)
        return streams

    def claim(self, stream_id: int, name: bytes, holder: Holder) -> Stream | None:
        """Let a connection hold a stream, taking it over from an older one of its own.

        Returns None where another holds it. Raises StreamError for a stream that is
        known under another name, or is one too many.
        """
        stream = self._streams.get(stream_id)
        if stream is None:
            stream = Stream(stream_id, name)
            if self._bytes + _weight(stream) > STREAMS_BYTES_MAX:
                raise StreamError(f"stream {stream_id} is one too many to be known")
            self._add(stream)
        if stream.name != name:
            known, given = stream.name[:NAME_BYTES_SAID], name[:NAME_BYTES_SAID]
            raise StreamError(f"stream {stream_id} is named {known!r}, not {given!r}")
        older = stream.holder
        if older is not None and older.identity != holder.identity:
            stream.refused.add(holder)
            return None
        stream.holder = holder
        if older is not None:
            older.take_over(stream_id)
            self.touched.add(older)
        return stream

    def release(self, stream: Stream, holder: Holder) -> None:
        """Let a stream go, unless another has taken it over already."""
        if stream.holder is not holder:
            return
        stream.holder = None
        for each in stream.refused:
            each.freed()
            self.touched.add(each)
        stream.refused.clear()
        if stream.taken == NONE:
            del self._streams[stream.stream_id]
            self._bytes -= _weight(stream)

    def settle(self, points: Iterable[Point]) -> None:
        """Take note that these points are durable, as they were stored."""
        for point in points:
            stream = self._streams[point.stream_id]
            stream.durable = point.message_id
            if stream.holder is not None:
                self.touched.add(stream.holder)

    def take_touched(self) -> list[Holder]:
        """Give the holders for which something has changed since the last time."""
        touched = list(self.touched)
        self.touched.clear()
        return touched

    def _add(self, stream: Stream) -> None:
        self._streams[stream.stream_id] = stream
        self._bytes += _weight(stream)


def _weight(stream: Stream) -> int:
    return STREAM_BYTES + len(stream.name)
