"""A model of the server's part of the connector protocol, for one stream.

It takes frames one by one, keeps what it was sent in a list, and checks what a sender
owes it: no message beyond the credits, none before the stream is open, ids that rise
from the point that it named. What is committed, and when, is for the test to say.
"""

import attrs

from alphabet.connector.frames import (
    NO_POINT,
    Ack,
    EndOfStream,
    Frame,
    Hello,
    Message,
    Notify,
    NotifyAck,
    Ok,
    decode_frame,
    encode_frame,
)
from alphabet.framing import FrameReader, decode_length

Entry = tuple[int, bytes]
"""A message's id and payload."""


@attrs.define
class ModelServer:
    """What outlives a connection, and what a crash takes."""

    durable: list[Entry] = attrs.Factory(list)
    in_flight: list[Entry] = attrs.Factory(list)
    refusals_due: int = 0

    @property
    def point(self) -> int:
        """The last durable message's id."""
        return self.durable[-1][0] if self.durable else NO_POINT

    def commit(self, count: int | None = None) -> None:
        """Make the first messages durable that are not."""
        self.durable += self.in_flight[:count]
        del self.in_flight[: len(self.in_flight) if count is None else count]


@attrs.define
class ModelConnection:
    """One connection; `outgoing` is what it says."""

    server: ModelServer
    credits_first: int
    stream_id: int | None = None
    hello: Hello | None = None
    is_open: bool = False
    is_ended: bool = False
    outgoing: bytearray = attrs.Factory(bytearray)
    _given: int = 0
    _used: int = 0
    _last: int = -1
    _reader: FrameReader = attrs.Factory(lambda: FrameReader(4, decode_length, 1 << 20))

    @property
    def has_credit(self) -> bool:
        """Say whether the sender may say something that costs one."""
        return self._used < self._given

    def receive(self, data: bytes) -> None:
        """Take what the sender sent."""
        for body in self._reader.receive(data).payloads:
            self._step(decode_frame(body))
        assert self._reader.fault is None

    def acknowledge(self, returned: int) -> None:
        """Send an ACK of what is durable, with new credits."""
        self._given += returned
        stream_id, point = self.stream_id, self.server.point
        points = () if stream_id is None or not self.is_open else ((stream_id, point),)
        self.say(Ack(returned, points))

    def say(self, frame: Frame) -> None:
        """Send a frame."""
        self.outgoing += encode_frame(frame)

    def _spend(self) -> None:
        assert self.has_credit, "the sender is overdrawn"
        self._used += 1

    def _step(self, frame: Frame) -> None:
        match frame:
            case Hello() as hello:
                assert self.hello is None
                self.hello = hello
                self._given = self.credits_first
                self.say(Ok(self.credits_first))
            case Notify() as notify:
                assert self.hello
                assert not self.is_open
                self._spend()
                self._open(notify)
            case Message() as message:
                assert self.is_open
                assert message.stream_id == self.stream_id
                assert message.message_id > self._last
                assert (message.key, message.event_time) == (b"", 0)
                self._spend()
                self._last = message.message_id
                entry = (message.message_id, bytes(message.payload))
                self.server.in_flight.append(entry)
            case EndOfStream() as end:
                assert self.is_open
                assert end.stream_id == self.stream_id
                assert not self.is_ended
                self.is_ended = True
            case unexpected:
                raise AssertionError(f"a sender does not say {unexpected}")

    def _open(self, notify: Notify) -> None:
        """Open the stream, or refuse it."""
        self.stream_id = notify.stream_id
        is_success = not self.server.refusals_due
        self.server.refusals_due -= not is_success
        if is_success:
            self.server.commit()
            self._last = -1 if self.server.point == NO_POINT else self.server.point
        self.is_open = is_success
        point = self.server.point if is_success else NO_POINT
        self.say(NotifyAck(is_success, notify.stream_id, point))
