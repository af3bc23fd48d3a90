"""Senders that speak the connector protocol, for tests: by hand, and over a socket.

`Talk` puts frames to one machine and reads what it says; `Sender` does so over TCP.
"""

import socket
import struct
from collections.abc import Iterable
from typing import Self

import attrs

from alphabet.connector.frames import (
    NO_POINT,
    Ack,
    Error,
    Frame,
    Hello,
    Message,
    Notify,
    NotifyAck,
    Ok,
    decode_frame,
    encode_frame,
)
from alphabet.connector.inbound import ConnectorIn, Taken
from alphabet.connector.streams import Streams
from alphabet.framing import FrameReader, decode_length
from log.block import Point
from tests.process import SECONDS_MAX

PAYLOAD_BYTES_MAX = 50
HELLO = Hello(b"0.0.1", b"", b"program", b"instance")


def cut(data: bytes) -> list[Frame]:
    """Read whole frames, of which nothing may be left over."""
    reader = FrameReader(4, decode_length, 1 << 20)
    found = reader.receive(data).payloads
    assert reader.end() is None
    return [decode_frame(each) for each in found]


def wire(*frames: Frame) -> bytes:
    """Write frames, one behind the other."""
    return b"".join(map(encode_frame, frames))


def message(stream_id: int, message_id: int, payload: bytes = b"v.") -> Message:
    """Make a message with no key."""
    return Message(stream_id, message_id, 0, b"", payload)


def granted(stream_id: int, point: int) -> NotifyAck:
    """Make the answer to a NOTIFY that opened its stream."""
    return NotifyAck(is_success=True, stream_id=stream_id, point=point)


def refused(stream_id: int) -> NotifyAck:
    """Make the answer to a NOTIFY of a stream that another holds."""
    return NotifyAck(is_success=False, stream_id=stream_id, point=NO_POINT)


def telling(stream_id: int, message_id: int) -> bytes:
    """Make a payload of 10 bytes that tells where it belongs."""
    return struct.pack(">HQ", stream_id, message_id)


def flood(stream_id: int, ids: Iterable[int], key: bytes = b"") -> bytes:
    """Write messages of one length; each one's payload tells its stream and id."""
    return wire(*(Message(stream_id, i, -1, key, telling(stream_id, i)) for i in ids))


@attrs.define(eq=False)
class Talk:
    """One connection's machine, and what it gave so far: payloads, points, frames."""

    machine: ConnectorIn
    reader: FrameReader = attrs.Factory(lambda: FrameReader(4, decode_length, 1000))
    given: list[Taken] = attrs.Factory(list)

    @classmethod
    def begin(
        cls,
        streams: Streams | None = None,
        initial_credits: int = 100,
        cookie: bytes = b"",
    ) -> Self:
        """Begin a connection whose HELLO is due at second 10."""
        streams = Streams() if streams is None else streams
        return cls(
            ConnectorIn(streams, cookie, PAYLOAD_BYTES_MAX, 10.0, initial_credits)
        )

    @classmethod
    def opened(
        cls,
        *stream_ids: int,
        streams: Streams | None = None,
        initial_credits: int = 100,
    ) -> Self:
        """Begin a connection that has said HELLO and holds streams."""
        talk = cls.begin(streams, initial_credits)
        talk.say(HELLO, *(Notify(each, b"name", 0) for each in stream_ids))
        return talk

    def say(self, *frames: Frame) -> list[Frame]:
        """Put frames to it, all at once; give what it answers."""
        return self.send(wire(*frames))

    def send(self, data: bytes) -> list[Frame]:
        """Put bytes to it; give what it answers."""
        taken = self.machine.receive(self.reader.receive(data))
        if taken.pieces:
            self.given.append(taken)
        if self.reader.fault is not None:
            self.machine.foul(self.reader.fault.position, self.reader.fault.cause)
        return self.answers()

    def answers(self) -> list[Frame]:
        """Give what it has said since the last time."""
        self.machine.advance()
        said = cut(bytes(self.machine.outgoing))
        self.machine.outgoing.clear()
        return said

    def settle(self, count: int | None = None) -> list[Frame]:
        """Let the first of what it gave be durable, or all; give what it answers."""
        for taken in self.given[:count]:
            self.machine.streams.settle(taken.points)
        del self.given[:count]
        return self.answers()

    @property
    def payloads(self) -> list[bytes]:
        """What it gave to be counted and is not durable yet."""
        return [
            payload
            for taken in self.given
            for piece in taken.pieces
            for payload in piece.payloads
        ]

    @property
    def points(self) -> list[tuple[Point, ...]]:
        """The points of each lot that is not durable yet."""
        return [taken.points for taken in self.given]


@attrs.define(eq=False)
class Sender:
    """A connection to a server; `acked` has the newest acknowledged point by stream."""

    socket: socket.socket
    acked: dict[int, int] = attrs.Factory(dict)
    _held: bytearray = attrs.Factory(bytearray)

    @classmethod
    def connect(cls, port: int, hello: Hello = HELLO) -> Self:
        """Connect and say HELLO; what is answered is still to be heard."""
        connection = socket.create_connection(("127.0.0.1", port), SECONDS_MAX)
        sender = cls(connection)
        sender.say(hello)
        return sender

    @classmethod
    def opened(cls, port: int, *stream_ids: int, hello: Hello = HELLO) -> Self:
        """Connect and open streams; fails where another holds one."""
        sender = cls.connect(port, hello)
        assert isinstance(sender.hear(), Ok)
        for stream_id in stream_ids:
            assert sender.notify(stream_id).is_success
        return sender

    def say(self, *frames: Frame) -> None:
        """Send frames."""
        self.socket.sendall(wire(*frames))

    def notify(self, stream_id: int) -> NotifyAck:
        """Ask for a stream; give the answer."""
        self.say(Notify(stream_id, b"name", 0))
        while not isinstance(frame := self.hear(), NotifyAck):
            assert frame is not None
        if frame.is_success:
            self.acked[stream_id] = frame.point
        return frame

    def hear(self) -> Frame | None:
        """Give the next frame, None at the connection's plain end."""
        while True:
            end = 4 + int.from_bytes(self._held[:4])
            if len(self._held) >= max(end, 5):
                frame = decode_frame(bytes(self._held[4:end]))
                del self._held[:end]
                if isinstance(frame, Ack):
                    self.acked |= dict(frame.points)
                return frame
            data = self.socket.recv(1 << 16)
            if not data:
                assert not self._held
                return None
            self._held += data

    def skip(self, size: int) -> None:
        """Hear so many bytes without a look at them."""
        size -= len(self._held)
        self._held.clear()
        while size > 0:
            data = self.socket.recv(min(size, 1 << 20))
            assert data
            size -= len(data)

    def hear_until(self, stream_id: int, point: int) -> None:
        """Hear until a stream is acknowledged so far."""
        while self.acked.get(stream_id) != point:
            assert isinstance(self.hear(), Ack)

    def hear_error(self) -> bytes:
        """Hear until an ERROR, which must be the last; give its reason."""
        while not isinstance(frame := self.hear(), Error):
            assert frame is not None, "it ended without an ERROR"
        assert self.hear() is None
        return frame.reason

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()
