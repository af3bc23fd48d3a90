"""A sender's part of the connector protocol: one stream, from its input to durable.

Sans-IO: it is told of connections, bytes and the input, and says which bytes to send.
It keeps what was offered to it until that is durable, so a lost connection asks nothing
of the input.

Invariants:
    - Message ids go out in order; on one connection each once, behind the point that
      the server named when it opened the stream.
    - Never more messages than there are credits.
    - DONE comes only after the input's end, when all of it is durable.
    - `durable` never falls: a server whose point does has lost what it acknowledged.
"""

from __future__ import annotations

import enum
from collections import deque
from typing import TYPE_CHECKING

import attrs

from alphabet.connector.frames import (
    FRAME_BYTES_MAX,
    NO_POINT,
    VERSION_IN,
    Ack,
    EndOfStream,
    Error,
    Hello,
    Notify,
    NotifyAck,
    Ok,
    Restart,
    decode_frame,
    encode_frame,
)
from alphabet.connector.message_span import (
    HEADER_BYTES,
    BorderError,
    Span,
    encode_messages,
)
from alphabet.connector.wire_fields import WireError
from alphabet.framing import FrameReader, decode_length

if TYPE_CHECKING:
    from alphabet.connector.frames import Frame

PROGRAM = b"alphabet-send"
RETAINED_BYTES_MAX = 64 << 20
"""How much is kept that is not durable, before no more is asked for."""


class State(enum.Enum):
    """How far a sender has come; the value ends the sentence "it came while …"."""

    AWAY = "there was no connection"
    GREETING = "the answer to HELLO was due"
    POOR = "credits were due"
    OPENING = "the answer to NOTIFY was due"
    STREAMING = "the stream was open"
    ENDING = "the stream was ending"
    DONE = "all was durable"


@attrs.frozen
class ServerFaultError(Exception):
    """The server ended the stream, or broke the protocol: trying again is no use.

    Attributes:
        cause: What it did, as the rest of a sentence about it.
    """

    cause: str

    def __str__(self) -> str:
        return self.cause


@attrs.frozen
class PointError(Exception):
    """The server's point of reference does not fit the input, or what it said before.

    Attributes:
        cause: What does not fit, as a sentence.
    """

    cause: str

    def __str__(self) -> str:
        return self.cause


@attrs.define
class ConnectorClient:
    """Send one stream.

    Attributes:
        stream_id: The stream's number.
        stream_name: The stream's name, which belongs to the number for good.
        instance: Tells this sender from others; who has the same takes a stream over.
        cookie: What the server wants to hear.
        is_prefix: Whether what is offered may end before what the server has.
        state: How far this has come.
        credits: How many frames may be sent.
        durable: The offset up to which the input is durable; 0 for none of it.
        offered: The offset up to which the input was offered.
        votes_there: How many frames of it were durable when it came to them.
        votes_taken: How many were not.
        votes_durable: How many are durable, those that were there included.
        refusals: How often another sender was found to hold the stream.
        failures: How often a connection ended since the server last got on.
    """

    stream_id: int
    stream_name: bytes
    instance: bytes
    cookie: bytes = attrs.field(default=b"", repr=False)
    is_prefix: bool = False
    state: State = attrs.field(default=State.AWAY, init=False)
    credits: int = attrs.field(default=0, init=False)
    durable: int = attrs.field(default=0, init=False)
    offered: int = attrs.field(default=0, init=False)
    votes_there: int = attrs.field(default=0, init=False)
    votes_taken: int = attrs.field(default=0, init=False)
    votes_durable: int = attrs.field(default=0, init=False)
    refusals: int = attrs.field(default=0, init=False)
    failures: int = attrs.field(default=0, init=False)
    _is_ended: bool = attrs.field(default=False, init=False)
    _sent: int = attrs.field(default=0, init=False)
    _unsent: deque[Span] = attrs.field(factory=deque, init=False, repr=False)
    _undurable: deque[Span] = attrs.field(factory=deque, init=False, repr=False)
    _control: list[bytes] = attrs.field(factory=list, init=False, repr=False)
    _reader: FrameReader = attrs.field(init=False, repr=False)

    @_reader.default
    def _new_reader(self) -> FrameReader:
        return FrameReader(HEADER_BYTES, decode_length, FRAME_BYTES_MAX)

    @property
    def has_room(self) -> bool:
        """Say whether more of the input may be offered."""
        return not self._unsent and self.offered - self.durable < RETAINED_BYTES_MAX

    @property
    def is_owed(self) -> bool:
        """Say whether the server has an answer to give."""
        return self.state is not State.STREAMING or self.durable < self.offered

    def begin_at(self, offset: int, votes: int) -> None:
        """Take it that the input is offered from an offset on, behind so many votes."""
        self.offered = offset
        self.votes_there = self.votes_durable = votes

    def offer(self, frames: bytes) -> None:
        """Take the input's next whole frames.

        Raises:
            PointError: What is durable ends within one of them.
        """
        span = Span.cut(self.offered, frames)
        rest = self._undone(span)
        self.offered = span.end
        self.votes_there += span.count - rest.count
        self.votes_durable += span.count - rest.count
        self.votes_taken += rest.count
        if rest.count:
            self._unsent.append(rest)

    def end(self) -> None:
        """Take the input's end.

        Raises:
            PointError: It comes before the end of what is durable.
        """
        if self.offered < self.durable and not self.is_prefix:
            raise PointError(
                f"the input ends at byte {self.offered}, but the server has it up to"
                f" byte {self.durable}"
            )
        self._is_ended = True

    def connect(self) -> None:
        """Take it that there is a new connection."""
        self._reader = self._new_reader()
        hello = Hello(VERSION_IN, self.cookie, PROGRAM, self.instance)
        self._control = [encode_frame(hello)]
        self.state = State.GREETING

    def lose(self) -> None:
        """Take it that there is no connection any more, or that none could be had."""
        if self.state is not State.DONE:
            self.state = State.AWAY
            self.failures += 1

    def take(self) -> bytes:
        """Give the next bytes to send; none if there is nothing, or no credit."""
        parts: list[bytes | bytearray] = [*self._control]
        self._control.clear()
        if self.state is State.STREAMING and self._unsent and self.credits:
            span, rest = self._unsent.popleft().split(self.credits)
            if rest.count:
                self._unsent.appendleft(rest)
            parts.append(encode_messages(self.stream_id, span))
            self._undurable.append(span)
            self.credits -= span.count
            self._sent = span.end
        if self.state is State.STREAMING and self._is_ended and not self._unsent:
            parts.append(encode_frame(EndOfStream(self.stream_id)))
            self.state = State.ENDING
            self._settle(self.durable)
        return b"".join(parts)

    def receive(self, data: bytes) -> None:
        """Take what the server sent. After RESTART or a refusal the state is AWAY.

        Raises:
            ServerFaultError: It sent ERROR, or what cannot come now.
            PointError: Its point does not fit what was offered.
        """
        for body in self._reader.receive(data).payloads:
            if self.state in {State.AWAY, State.DONE}:
                return
            try:
                frame = decode_frame(body)
            except WireError as error:
                raise ServerFaultError(f"sent a bad frame: {error}") from error
            self._step(frame)
        if self._reader.fault:
            raise ServerFaultError(f"sent a bad frame: {self._reader.fault.cause}")

    def _step(self, frame: Frame) -> None:
        """The table: what each frame does in each state."""
        match self.state, frame:
            case State.GREETING, Ok() as ok:
                self._grant(ok)
            case State.POOR, Ack() as ack:
                self._enrich(ack)
            case State.OPENING, NotifyAck(is_success=False) as answer:
                self._stand_back(answer)
            case State.OPENING, NotifyAck() as answer:
                self._open(answer)
            case State.OPENING | State.STREAMING | State.ENDING, Ack() as ack:
                self._acknowledge(ack)
            case _, Restart():
                self.state = State.AWAY
            case _, Error() as error:
                reason = error.reason.decode("utf-8", "backslashreplace")
                raise ServerFaultError(f"refused: {reason}")
            case state, unexpected:
                kind = type(unexpected).__name__
                raise ServerFaultError(f"sent {kind}, and it came while {state.value}")

    def _grant(self, ok: Ok) -> None:
        """Take the first credits."""
        self.credits = ok.credits
        self._notify()

    def _enrich(self, ack: Ack) -> None:
        """Take credits for a NOTIFY that waited for one."""
        self.credits += ack.credits
        self._notify()

    def _notify(self) -> None:
        """Ask for the stream, which costs a credit."""
        if not self.credits:
            self.state = State.POOR
            return
        self.credits -= 1
        notify = Notify(self.stream_id, self.stream_name, self.durable)
        self._control.append(encode_frame(notify))
        self.state = State.OPENING

    def _stand_back(self, answer: NotifyAck) -> None:
        """Leave the stream to who holds it, for a while."""
        self._check_stream(answer)
        self.refusals += 1
        self.state = State.AWAY

    def _open(self, answer: NotifyAck) -> None:
        """Go on behind what is durable."""
        self._check_stream(answer)
        point = _offset(answer.point)
        if point < self.durable:
            raise PointError(
                f"the server had acknowledged byte {self.durable} and now has only"
                f" {point} bytes: it has lost what was durable"
            )
        self._unsent.extendleft(reversed(self._undurable))
        self._undurable.clear()
        self._sent = point
        self.state = State.STREAMING
        self._settle(point)

    def _check_stream(self, answer: NotifyAck) -> None:
        """Refuse an answer to what was not asked."""
        if answer.stream_id != self.stream_id:
            raise ServerFaultError(f"answered for stream {answer.stream_id}")

    def _acknowledge(self, ack: Ack) -> None:
        """Take credits, and what is durable now."""
        self.credits += ack.credits
        for stream_id, message_id in ack.points:
            point = _offset(message_id)
            if stream_id == self.stream_id and point > self._sent:
                raise ServerFaultError(f"acknowledged {point}, which was not sent")
            if stream_id == self.stream_id:
                self._settle(point)

    def _settle(self, point: int) -> None:
        """Let go of what is durable; be done if that is all."""
        if point > self.durable:
            self.durable = point
            self.failures = 0
        for spans in (self._undurable, self._unsent):
            while spans and spans[0].start < point:
                rest = self._undone(spans[0])
                self.votes_durable += spans[0].count - rest.count
                if rest.count:
                    spans[0] = rest
                    break
                spans.popleft()
        if self.state is State.ENDING and self.durable >= self.offered:
            self.state = State.DONE

    def _undone(self, span: Span) -> Span:
        """Leave out what is durable."""
        try:
            return span.after(self.durable)
        except BorderError as error:
            raise PointError(
                f"the server has the stream up to byte {error.point}, and a frame of"
                " the input goes across it: that is not what was sent before"
            ) from error


def _offset(point: int) -> int:
    """Tell the offset that a point of reference stands for; some servers' none is 0."""
    return 0 if point == NO_POINT else point
