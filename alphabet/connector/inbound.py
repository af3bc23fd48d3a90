"""The connector protocol, server's part: one connection of a sender, as a machine.

Frames come in by `receive`; what is to be counted comes out of it, and what is to be
said gathers in `outgoing`. The table `_STEPS` has every transition: whatever is not in
it is foul, and gets an ERROR with the reason.

Invariants:

- nothing is acknowledged that is not durable: what is owed waits in a queue, in order,
  and each entry leaves once its stream's durable point has reached it;
- every good message before a foul frame counts, and none after it;
- a message id at or below its stream's point is a duplicate: acknowledged, not counted.

Sans-IO: no sockets, no clocks; time is passed in.
"""

import enum
import hmac
from collections import deque
from collections.abc import Callable
from typing import ClassVar

import attrs
import numpy as np

from alphabet.connector.frames import (
    MESSAGE_TYPE,
    NO_POINT,
    VERSION_IN,
    Ack,
    EndOfStream,
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
from alphabet.connector.message_run import HEAD_BYTES, between, heads_of, parts_of
from alphabet.connector.streams import Stream, StreamError, Streams
from alphabet.connector.wire_fields import WireError
from alphabet.framing import Frames, Payloads, Piece, Run
from log.block import Point

CREDITS = 1 << 18
"""How many frames a sender may have unacknowledged; as many again are forgiven."""
HELLO_SECONDS_MAX = 10.0
"""How long a connection may take to say HELLO."""
REASON_BYTES_MAX = 1000


class Phase(enum.Enum):
    """Where a connection is."""

    GREETING = enum.auto()
    """HELLO has not come."""
    TALKING = enum.auto()
    CLOSING = enum.auto()
    """Nothing more is heard; what is owed is still said."""
    ENDED = enum.auto()
    """Nothing more is heard or said, but for what is in `outgoing`."""


class Standing(enum.Enum):
    """Where a stream is, on this connection."""

    CLOSED = enum.auto()
    OPENING = enum.auto()
    """NOTIFY has come and is not answered: something of the stream is in flight."""
    OPEN = enum.auto()


_Case = tuple[Phase, type[Frame], Standing | None]
"""Where a connection is, what comes, and where its stream is, if it is about one."""


@attrs.frozen
class Ending:
    """Why the connection ends; `position` is the foul frame's byte, if there is one."""

    reason: str
    position: int | None = None


@attrs.define
class Due:
    """What is owed to the sender once a stream's durable point has come so far."""

    stream: Stream
    message_id: int
    credits: int = 0
    answers: type[Notify | EndOfStream] | None = None

    @property
    def is_ready(self) -> bool:
        """Say whether it may be said."""
        return self.stream.durable >= self.message_id


@attrs.define(eq=False)
class Held:
    """A stream that this connection holds."""

    stream: Stream
    standing: Standing


@attrs.define
class Taken:
    """What is to be counted of the frames that came, and the points it leads to.

    Pieces are as `framing` has them, but with a message's head for a header.
    """

    pieces: list[Piece] = attrs.Factory(list)
    points: tuple[Point, ...] = ()
    streams: dict[int, Stream] = attrs.Factory(dict)
    dues: dict[int, Due] = attrs.Factory(dict)
    end: int = 0

    def add(self, position: int, header_bytes: int, payload: bytes) -> None:
        """Add a payload; `position` is its frame's first byte."""
        last = self.pieces[-1] if self.pieces else None
        is_next = isinstance(last, Payloads) and self.end == position
        if isinstance(last, Payloads) and is_next and last.header_bytes == header_bytes:
            last.payloads.append(payload)
        else:
            self.pieces.append(Payloads(position, header_bytes, [payload]))
        self.end = position + header_bytes + len(payload)


class FoulError(Exception):
    """A frame that breaks the protocol; the message says how."""


@attrs.define(eq=False)
class ConnectorIn:
    """One connection; `hello_until` is when HELLO is due, on the caller's clock."""

    streams: Streams
    cookie: bytes = attrs.field(repr=False)
    payload_bytes_max: int
    hello_until: float
    credits: int = CREDITS
    phase: Phase = attrs.field(default=Phase.GREETING, init=False)
    identity: tuple[bytes, bytes] = attrs.field(default=(b"", b""), init=False)
    ending: Ending | None = attrs.field(default=None, init=False)
    outgoing: bytearray = attrs.field(factory=bytearray, init=False)
    duplicates: int = attrs.field(default=0, init=False)
    _held: dict[int, Held] = attrs.field(factory=dict, init=False)
    _dues: deque[Due] = attrs.field(factory=deque, init=False)
    _used: int = attrs.field(default=0, init=False)
    _withheld: int = attrs.field(default=0, init=False)
    _is_freed: bool = attrs.field(default=False, init=False)
    _taken: Taken = attrs.field(factory=Taken, init=False)

    @property
    def is_heard(self) -> bool:
        """Say whether frames are still taken."""
        return self.phase in {Phase.GREETING, Phase.TALKING}

    @property
    def is_done(self) -> bool:
        """Say whether nothing more will be said."""
        is_settled = self.phase is Phase.CLOSING and not self._dues
        return is_settled or self.phase is Phase.ENDED

    def receive(self, frames: Frames) -> Taken:
        """Take frames, whose payloads are the connector's; give what is to be counted.

        What it gives must be handed on, and `Streams.settle` told once it is durable.
        """
        self._taken = Taken()
        for piece in frames.pieces:
            if isinstance(piece, Run):
                for part, is_alike in parts_of(piece):
                    if not (is_alike and self._take_alike(part)):
                        self._take_each(part)
            else:
                self._take_each(piece)
        self._taken.points = tuple(
            Point(each.stream_id, each.taken, each.name)
            for each in self._taken.streams.values()
        )
        self.advance()
        return self._taken

    def advance(self) -> None:
        """Say what may be said by now."""
        self._taken.dues.clear()  # What is said is not added to.
        given, points = 0, dict[int, int]()
        is_freed, self._is_freed = self._is_freed, False
        if is_freed or self._withheld * 2 >= self.credits:
            given, self._withheld = self._withheld, 0
        while self._dues and self._dues[0].is_ready:
            due = self._dues.popleft()
            stream = due.stream
            if due.answers is Notify:
                self._give_back(given, points)
                given, points = 0, {}
                self._held[stream.stream_id].standing = Standing.OPEN
                self._answer(stream.stream_id, stream.point, is_success=True)
            else:
                points[stream.stream_id] = stream.point
            given += due.credits
        if is_freed and not (given or points):
            # Some senders ask for a stream again on an ACK only.
            self._say(Ack(0))
        self._give_back(given, points)

    def tick(self, now: float) -> None:
        """End the connection if its HELLO is overdue."""
        if self.phase is Phase.GREETING and now >= self.hello_until:
            self.foul(0, "no HELLO came in time")

    def half_closed(self) -> None:
        """Hear no more, free the streams, and acknowledge what is in flight."""
        self._hear_no_more(Phase.CLOSING)

    def lost(self) -> None:
        """End without a word: nobody is there."""
        self._hear_no_more(Phase.ENDED)

    def foul(self, position: int, reason: str) -> None:
        """End the connection for cause, with an ERROR."""
        self._end(Ending(reason, position))

    def take_over(self, stream_id: int) -> None:
        """End: another connection of the same program and instance has come."""
        self._end(Ending(f"stream {stream_id} was taken over by a newer connection"))

    def freed(self) -> None:
        """Take note that a stream that was refused may be asked for again."""
        self._is_freed = True

    def _take_each(self, piece: Piece) -> None:
        """Take frames one by one; behind a foul one all are, and say no more."""
        for position, data in zip(piece.positions(), piece.payloads, strict=True):
            try:
                self._step(position, decode_frame(data))
            except (FoulError, StreamError, WireError) as error:
                self.foul(position, str(error))

    def _step(self, position: int, frame: Frame) -> None:
        standing = None
        if isinstance(frame, Notify | Message | EndOfStream):
            held = self._held.get(frame.stream_id)
            standing = Standing.CLOSED if held is None else held.standing
        step = self._STEPS.get((self.phase, type(frame), standing))
        if step is None:
            raise FoulError(_objection(self.phase, frame))
        step(self, position, frame)

    def _greet(self, _position: int, hello: Hello) -> None:
        if hello.version != VERSION_IN:
            wanted = VERSION_IN.decode()
            raise FoulError(f"version {hello.version[:20]!r} is not spoken: {wanted}")
        if not hmac.compare_digest(hello.cookie, self.cookie):
            raise FoulError("the cookie is not the server's")
        self.identity = (hello.program, hello.instance)
        self.phase = Phase.TALKING
        self._say(Ok(self.credits))

    def _open(self, _position: int, notify: Notify) -> None:
        self._spend()
        stream = self.streams.claim(notify.stream_id, notify.name, self)
        if stream is None:
            self._withheld += 1
            self._answer(notify.stream_id, NO_POINT, is_success=False)
            return
        self._held[stream.stream_id] = Held(stream, Standing.OPENING)
        self._dues.append(Due(stream, stream.taken, 1, Notify))
        self.advance()

    def _take(self, position: int, message: Message) -> None:
        payload = bytes(message.payload)
        if message.message_id == NO_POINT:
            raise FoulError(f"{NO_POINT} is no message id")
        if len(payload) > self.payload_bytes_max:
            size, most = len(payload), self.payload_bytes_max
            raise FoulError(f"a payload of {size} bytes, where {most} are accepted")
        self._spend()
        stream = self._held[message.stream_id].stream
        if self._note(stream, message.message_id, 1):
            self._taken.add(position, HEAD_BYTES + len(message.key), payload)
        else:
            self.duplicates += 1

    def _take_alike(self, part: Run) -> bool:
        """Take messages of one stream, whose ids rise, at once; if all are good."""
        heads = heads_of(part)
        held = self._held.get(int(heads["stream_id"][0]))
        ids = heads["message_id"]
        last = int(ids[-1])
        header_bytes = HEAD_BYTES + int(heads["key_bytes"][0])
        if (
            held is None
            or held.standing is not Standing.OPEN
            or heads["type"][0] != MESSAGE_TYPE
            or last == NO_POINT
            or not 0 <= part.frame_bytes - header_bytes <= self.payload_bytes_max
            or self._used + part.count > 2 * self.credits
        ):
            return False
        self._used += part.count
        known = int(np.searchsorted(ids, np.uint64(held.stream.taken + 1)))
        self.duplicates += known
        if self._note(held.stream, last, part.count):
            new = between(part, known, part.count)
            self._taken.pieces.append(attrs.evolve(new, header_bytes=header_bytes))
        return True

    def _note(self, stream: Stream, message_id: int, count: int) -> bool:
        """Owe credits for messages up to this one; say whether it is a new one."""
        due = self._taken.dues.get(stream.stream_id)
        if due is None:
            due = self._taken.dues[stream.stream_id] = Due(stream, message_id)
            self._dues.append(due)
        due.credits += count
        due.message_id = max(due.message_id, message_id)
        if message_id <= stream.taken:
            return False
        stream.taken = message_id
        self._taken.streams[stream.stream_id] = stream
        return True

    def _close(self, _position: int, end: EndOfStream) -> None:
        stream = self._held.pop(end.stream_id).stream
        self._dues.append(Due(stream, stream.taken, 0, EndOfStream))
        self.streams.release(stream, self)

    def _give_up(self, _position: int, error: Error) -> None:
        reason = error.reason[:REASON_BYTES_MAX]
        self._hear_no_more(Phase.ENDED)
        self.ending = Ending(f"it gave up: {reason!r}")

    def _spend(self) -> None:
        if self._used >= 2 * self.credits:
            raise FoulError(f"more than twice the {self.credits} credits were used")
        self._used += 1

    def _give_back(self, count: int, points: dict[int, int]) -> None:
        if count or points:
            self._used -= count
            self._say(Ack(count, tuple(points.items())))

    def _end(self, ending: Ending) -> None:
        if self.is_heard:
            self.ending = ending
            reason = ending.reason.encode("utf-8", "replace")[:REASON_BYTES_MAX]
            self._say(Error(reason))
            self._hear_no_more(Phase.ENDED)

    def _hear_no_more(self, phase: Phase) -> None:
        self.phase = phase
        is_over = phase is Phase.ENDED
        self._dues = deque(
            due for due in self._dues if not (is_over or due.answers is Notify)
        )
        for held in self._held.values():
            self.streams.release(held.stream, self)
        self._held.clear()

    def _answer(self, stream_id: int, point: int, *, is_success: bool) -> None:
        self._say(NotifyAck(is_success, stream_id, point))

    def _say(self, frame: Frame) -> None:
        self.outgoing += encode_frame(frame)

    _STEPS: ClassVar[dict[_Case, Callable[..., None]]] = {
        (Phase.GREETING, Hello, None): _greet,
        (Phase.GREETING, Error, None): _give_up,
        (Phase.TALKING, Error, None): _give_up,
        (Phase.TALKING, Notify, Standing.CLOSED): _open,
        (Phase.TALKING, Message, Standing.OPEN): _take,
        (Phase.TALKING, EndOfStream, Standing.OPEN): _close,
    }
    """What a frame does; whatever is not here is foul."""


def _objection(phase: Phase, frame: Frame) -> str:
    """Say why a frame is not in the table."""
    name = type(frame).__name__
    if phase is Phase.GREETING:
        return f"the first frame is {name}, not Hello"
    if isinstance(frame, Notify | Message | EndOfStream):
        is_notify = isinstance(frame, Notify)
        state = "open already" if is_notify else "not open"
        return f"{name} of stream {frame.stream_id}, which is {state}"
    return f"{name} may not come here"
