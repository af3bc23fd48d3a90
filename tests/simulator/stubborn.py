"""A client of the connector protocol that heeds no point: it sends all of it again.

The server must count each message once all the same.
"""

import attrs

from alphabet.connector.client import ServerFaultError, State
from alphabet.connector.frames import (
    FRAME_BYTES_MAX,
    VERSION_IN,
    Ack,
    EndOfStream,
    Error,
    Hello,
    Message,
    Notify,
    NotifyAck,
    Ok,
    decode_frame,
    encode_frame,
)
from alphabet.framing import FrameReader, decode_length


@attrs.define
class StubbornClient:
    """Has the part of `ConnectorClient` that senders use."""

    stream_id: int
    name: bytes
    instance: bytes
    state: State = State.AWAY
    has_room: bool = True
    frames: list[bytes] = attrs.Factory(list)
    control: bytes = b""
    size: int = 0
    reader: FrameReader = attrs.field(init=False)

    def offer(self, frames: bytes) -> None:
        """Take frames, each with its length before it."""
        while frames:
            end = 4 + decode_length(frames[:4])
            self.size += end
            message = Message(self.stream_id, self.size, 0, b"", frames[4:end])
            self.frames.append(encode_frame(message))
            frames = frames[end:]

    def end(self) -> None:
        """Take the input's end."""
        self.frames.append(encode_frame(EndOfStream(self.stream_id)))
        self.has_room = False

    def connect(self) -> None:
        """Begin a connection."""
        self.reader = FrameReader(4, decode_length, FRAME_BYTES_MAX)
        self.control = encode_frame(Hello(VERSION_IN, b"", b"p", self.instance))
        self.state = State.GREETING

    def lose(self) -> None:
        """Take it that there is no connection any more."""
        if self.state is not State.DONE:
            self.state = State.AWAY

    def take(self) -> bytes:
        """Give the next bytes to send: all messages, once they may come."""
        data, self.control = self.control, b""
        if self.state is State.STREAMING and not self.has_room:
            data += b"".join(self.frames)
            self.state = State.ENDING
        return data

    def receive(self, data: bytes) -> None:
        """Take what the server sent; raises ServerFaultError for an ERROR."""
        for body in self.reader.receive(data).payloads:
            match decode_frame(body):
                case Ok():
                    notify = Notify(self.stream_id, self.name, 0)
                    self.control = encode_frame(notify)
                    self.state = State.OPENING
                case NotifyAck(is_success=True):
                    self.state = State.STREAMING
                case NotifyAck():
                    self.state = State.AWAY
                case Ack(points=points):
                    if (self.stream_id, self.size) in points and not self.has_room:
                        self.state = State.DONE
                case Error(reason=reason):
                    raise ServerFaultError(reason.decode())
