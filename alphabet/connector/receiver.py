"""The sink's end of the connector protocol: what each frame of a server does here.

Sans-IO: a `Session` takes one connection's frames and gives the bytes to answer with;
what becomes of outputs is a `DurableSink`'s. `Session.RULES` has every transition.

Invariants:
    - One session at most holds the sink. Another connection of the same instance
      takes it over, for the older one may hang; other instances are refused.
    - Outputs go into the sink in the order of their offsets, without a gap; a
      message's id is the offset of its first byte in the whole output.
    - A transaction is answered with commit only when the sink has prepared it, and
      nothing but the server's decision settles it then.
    - A round that is not prepared when its session ends is taken back.
    - A session that has ended, by an ERROR of either side or otherwise, does nothing.
"""

from __future__ import annotations

import enum
import hmac
import struct
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import attrs

from alphabet.connector.frames import (
    MESSAGE_HEAD_BYTES,
    MESSAGE_TYPE,
    NO_POINT,
    OUTPUTS_STREAM,
    PHASES_STREAM,
    VERSION_OUT,
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
from alphabet.connector.phases import (
    ListUncommitted,
    Phase,
    Phase1,
    Phase2,
    Reply,
    ReplyUncommitted,
    decode_phase,
    encode_phase,
)
from alphabet.connector.wire_fields import WireError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from alphabet.connector.transaction_log import Transaction

CREDITS = 2**31 - 1
"""What the OK grants: nobody counts credits in this direction, TCP slows a server."""
REASON_CHARS_MAX = 300
"""A reason is cut to this: names in it are the peer's, and may be long."""

_HEAD = struct.Struct(">BQQqH")


class DurableSink(Protocol):
    """Where the outputs go: `FileSink` says what each of these means."""

    @property
    def committed_bytes(self) -> int:
        """How much is final."""
        ...

    @property
    def end_bytes(self) -> int:
        """How much there is, with what is not final."""
        ...

    @property
    def prepared(self) -> Transaction | None:
        """The transaction that waits for a decision."""
        ...

    @property
    def last_committed(self) -> bytes | None:
        """The id of the transaction committed last."""
        ...

    def put(self, offset: int, payloads: Sequence[bytes | memoryview]) -> bool:
        """Append outputs; False if those that are there already are not the same."""
        ...

    def take_back(self) -> None:
        """Cut off what is neither committed nor prepared."""
        ...

    def prepare(self, name: bytes) -> None:
        """Make what is not committed a durable transaction."""
        ...

    def commit(self) -> None:
        """Make the prepared transaction final."""
        ...

    def abort(self) -> None:
        """Take the prepared transaction back."""
        ...


class PeerError(Exception):
    """A server does what it may not; the message is the reason it is given."""


class State(enum.Enum):
    """Where a session stands."""

    NEW = "before a Hello"
    GREETED = "while stream 1 is not open"
    OPEN = "while outputs may come"
    PREPARED = "while a prepared transaction is not settled"
    REFUSED = "while a refused transaction is not settled"
    ENDED = "after the end"


@attrs.define(eq=False)
class ConnectorReceiver:
    """What all sessions share.

    Attributes:
        sink: Where the outputs go.
        cookie: What a server must know.
        holder: The session that the sink belongs to; None for none.
        transactions_committed: How many were, since the start.
    """

    sink: DurableSink
    cookie: bytes = attrs.field(repr=False)
    holder: Session | None = attrs.field(default=None, init=False)
    transactions_committed: int = attrs.field(default=0, init=False)

    def claim(self, session: Session) -> None:
        """Give the sink to a session; raises PeerError if another instance has it."""
        if self.holder is not None:
            if self.holder.instance != session.instance:
                raise PeerError(
                    f"instance {_show(self.holder.instance)} is connected;"
                    f" {_show(session.instance)} has to wait until it is not"
                )
            self.holder.end("the same instance has connected anew")
        self.holder = session


Rule = tuple["Callable[[Session, Any], State]", set[State]]


@attrs.define(eq=False)
class Session:
    """One connection of a server.

    Attributes:
        receiver: What it shares with others.
        state: Where it stands.
        instance: What the server calls itself.
        reason: Why it has ended; None until then.
    """

    receiver: ConnectorReceiver
    state: State = attrs.field(default=State.NEW, init=False)
    instance: bytes = attrs.field(default=b"", init=False)
    reason: str | None = attrs.field(default=None, init=False)
    _answers: list[bytes] = attrs.field(factory=list, init=False)
    _round_start: int | None = attrs.field(default=None, init=False)
    _next_offset: int = attrs.field(default=0, init=False)
    _gathered: list[bytes | memoryview] = attrs.field(factory=list, init=False)
    _refused: bytes | None = attrs.field(default=None, init=False)

    def receive(self, frames: Iterable[memoryview]) -> bytes:
        """Take frames, without their lengths, and give what to answer.

        What they bring is in the sink when this returns, so that they may be lent.
        What the sink raises is its own; the session is of no use then.
        """
        self._answers.clear()
        try:
            for data in frames:
                if self.state is State.ENDED:
                    break
                frame = _decode(data)
                if not isinstance(frame, Message):
                    self._put_gathered()
                self._take(frame)
            self._put_gathered()
        except (PeerError, WireError) as error:
            reason = str(error)[:REASON_CHARS_MAX]
            self._answers.append(encode_frame(Error(reason.encode())))
            self.end(reason)
        return b"".join(self._answers)

    def end(self, reason: str) -> None:
        """End, if that has not happened; what is not prepared is taken back."""
        if self.state is State.ENDED:
            return
        self.state = State.ENDED
        self.reason = reason
        self._gathered.clear()
        if self.receiver.holder is self:
            self.receiver.holder = None
            self.receiver.sink.take_back()

    def _take(self, frame: Frame | Phase) -> None:
        """Do what the rules have for a frame, none of which is for an ended session."""
        rule = self.RULES.get((self.state, type(frame)))
        if rule is None:
            name = type(frame).__name__
            raise PeerError(f"{name} may not come {self.state.value}")
        action, _ = rule
        self.state = action(self, frame)

    def _greet(self, hello: Hello) -> State:
        """Let a server in that has our version and cookie, if the sink is free."""
        if hello.version != VERSION_OUT:
            ours = _show(VERSION_OUT)
            raise PeerError(f"version {_show(hello.version)}, where {ours} is spoken")
        if not hmac.compare_digest(hello.cookie, self.receiver.cookie):
            raise PeerError("the cookie is another one here")
        self.instance = hello.instance
        self.receiver.claim(self)
        self._answers.append(encode_frame(Ok(CREDITS)))
        return State.GREETED

    def _open(self, notify: Notify) -> State:
        """Open the stream of outputs; there is no other."""
        is_ours = notify.stream_id == OUTPUTS_STREAM
        sink = self.receiver.sink
        point = sink.committed_bytes if is_ours else NO_POINT
        answer = NotifyAck(is_ours, notify.stream_id, point)
        self._answers.append(encode_frame(answer))
        if not is_ours:
            return State.GREETED
        return State.PREPARED if sink.prepared else State.OPEN

    def _list(self, request: ListUncommitted) -> State:
        """Name the transaction that is not settled."""
        prepared = self.receiver.sink.prepared
        names = (prepared.name,) if prepared else ()
        self._answers.append(encode_phase(ReplyUncommitted(request.tag, names)))
        return self.state

    def _gather(self, message: Message) -> State:
        """Take outputs that begin where those before end, or a round that may."""
        offset = message.message_id
        if message.stream_id != OUTPUTS_STREAM:
            raise PeerError(f"a Message of stream {message.stream_id}, which is closed")
        if self._round_start is None:
            end = self.receiver.sink.end_bytes
            if offset > end:
                raise PeerError(
                    f"outputs from byte {offset} on, where the file ends at {end}:"
                    " it is not the one that this server wrote to before"
                )
            self._round_start = self._next_offset = offset
        if offset != self._next_offset:
            raise PeerError(
                f"outputs from byte {offset} on, where {self._next_offset} is next"
            )
        self._gathered.append(message.payload)
        self._next_offset += len(message.payload)
        return State.OPEN

    def _put_gathered(self) -> None:
        """Hand the sink what was gathered."""
        if not self._gathered:
            return
        offset = self._next_offset - sum(map(len, self._gathered))
        if not self.receiver.sink.put(offset, self._gathered):
            raise PeerError(
                f"outputs from byte {offset} on that differ from those in the file:"
                " it is not the one that this server wrote to before"
            )
        self._gathered.clear()

    def _prepare(self, request: Phase1) -> State:
        """Prepare a transaction if its ranges are what came in this round."""
        sink = self.receiver.sink
        name = request.transaction
        if not name or name == sink.last_committed:
            raise PeerError(f"transaction {_show(name)} is empty or committed already")
        is_commit = self._has(request.ranges)
        if is_commit:
            sink.prepare(name)
        else:
            self._refused = name
        self._answers.append(encode_phase(Reply(name, is_commit)))
        return State.PREPARED if is_commit else State.REFUSED

    def _has(self, ranges: Iterable[tuple[int, int, int]]) -> bool:
        """Say whether ranges are, one after the other, what came in this round."""
        position = round_end = self.receiver.sink.end_bytes
        if self._round_start is not None:
            position, round_end = self._round_start, self._next_offset
        for stream_id, start, end in ranges:
            if stream_id != OUTPUTS_STREAM or start != position or end < start:
                return False
            position = end
        return position == round_end

    def _settle(self, decision: Phase2) -> State:
        """Do what is decided about a transaction; what is done already does no harm."""
        sink = self.receiver.sink
        name, is_commit = decision.transaction, decision.is_commit
        if sink.prepared and name == sink.prepared.name:
            if is_commit:
                sink.commit()
                self.receiver.transactions_committed += 1
            else:
                sink.abort()
        elif name == self._refused and not is_commit:
            sink.take_back()
            self._refused = None
        elif is_commit == (name == sink.last_committed):
            return self.state
        else:
            done = "not prepared" if is_commit else "committed"
            raise PeerError(f"transaction {_show(name)} is {done} here")
        self._round_start = None
        return self.state if self.state is State.GREETED else State.OPEN

    def _close(self, ending: EndOfStream) -> State:
        """Close the stream of outputs; what came of a round is taken back."""
        if ending.stream_id != OUTPUTS_STREAM:
            raise PeerError(f"the end of stream {ending.stream_id}, which is closed")
        self.receiver.sink.take_back()
        self._round_start = None
        return State.GREETED

    def _hear(self, error: Error) -> State:
        """End as the server does."""
        self.end(f"the server says: {_show(error.reason)}"[:REASON_CHARS_MAX])
        return State.ENDED

    RULES: ClassVar[dict[tuple[State, type[Frame | Phase]], Rule]] = {
        (State.NEW, Hello): (_greet, {State.GREETED}),
        (State.NEW, Error): (_hear, {State.ENDED}),
        (State.GREETED, Notify): (_open, {State.OPEN, State.PREPARED, State.GREETED}),
        (State.GREETED, ListUncommitted): (_list, {State.GREETED}),
        (State.GREETED, Phase2): (_settle, {State.GREETED}),
        (State.GREETED, Error): (_hear, {State.ENDED}),
        (State.OPEN, Message): (_gather, {State.OPEN}),
        (State.OPEN, Phase1): (_prepare, {State.PREPARED, State.REFUSED}),
        (State.OPEN, Phase2): (_settle, {State.OPEN}),
        (State.OPEN, ListUncommitted): (_list, {State.OPEN}),
        (State.OPEN, EndOfStream): (_close, {State.GREETED}),
        (State.OPEN, Error): (_hear, {State.ENDED}),
        (State.PREPARED, Phase2): (_settle, {State.OPEN, State.PREPARED}),
        (State.PREPARED, ListUncommitted): (_list, {State.PREPARED}),
        (State.PREPARED, Error): (_hear, {State.ENDED}),
        (State.REFUSED, Phase2): (_settle, {State.OPEN, State.REFUSED}),
        (State.REFUSED, ListUncommitted): (_list, {State.REFUSED}),
        (State.REFUSED, Error): (_hear, {State.ENDED}),
    }
    """Every transition: what a frame does where a session stands, and where it may
    stand then. A frame without a rule ends it with an ERROR; so does an action that
    raises PeerError."""


def _decode(data: memoryview) -> Frame | Phase:
    """Read a frame; outputs are not copied. Raises WireError."""
    if len(data) >= MESSAGE_HEAD_BYTES and data[0] == MESSAGE_TYPE:
        _, stream_id, message_id, event_time, key_bytes = _HEAD.unpack_from(data)
        start = MESSAGE_HEAD_BYTES + key_bytes
        if stream_id != PHASES_STREAM and start <= len(data):
            key = bytes(data[MESSAGE_HEAD_BYTES:start])
            return Message(stream_id, message_id, event_time, key, data[start:])
    frame = decode_frame(bytes(data))
    if isinstance(frame, Message):
        return decode_phase(bytes(frame.payload))
    return frame


def _show(name: bytes) -> str:
    """Write a peer's bytes for people."""
    return repr(name)[1:]
