"""Alphabet's part of one connection to a two-phase sink, without a socket.

A round is outputs of whole events and the transaction that makes them count: they are
sent, the sink is asked whether it can keep them, its yes is stored with the cursor and
flushed, and only then is it told to commit.

Invariants:

- while a round runs no outputs are sent;
- a commit is sent only behind the flush of its record, and `record` is what was
  flushed last;
- a transaction that the sink names is committed if it is the record's, else aborted.

Offsets are in the sink's whole output, over all connections: a message's id is the
offset of its first byte, a round's range is [start, end). Pure: `_STEPS` has every
transition; what a step asks of its owner is given back as values.
"""

import bisect
import enum
from collections.abc import Callable, Iterable, Iterator
from typing import Any, ClassVar

import attrs

from alphabet.connector.frames import (
    OUTPUTS_STREAM,
    PHASES_STREAM,
    Ack,
    Error,
    Frame,
    Hello,
    Message,
    Notify,
    NotifyAck,
    Ok,
    Restart,
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
from alphabet.outputs import Outputs
from log.row import Cursor

NO_TRANSACTION = b"none"
"""The record's transaction id before a two-phase sink's first: it is no plain one's."""
ROUND_BYTES_MAX = 4 << 20
"""A round takes no more outputs once it has so many bytes."""
MESSAGE_BYTES_MAX = 1 << 18
"""The longest payload of a message: far below what any peer takes."""

_LIST_TAG = 1
_REASON_CHARS_MAX = 200


class State(enum.Enum):
    """Where a connection stands, and what it waits for."""

    GREETING = "for the answer to Hello"
    OPENING = "for the answer to Notify"
    LISTING = "for the transactions that are not settled"
    IDLE = "for outputs"
    PREPARING = "for the sink's yes or no"
    DECIDING = "for the flush of the sink's yes"
    PASSING = "for the flush of a cursor that passed events without output"
    ENDED = "for nothing"


class Happening(enum.Enum):
    """What may happen to a connection: the sink's frames, then what its owner says."""

    OK = "OK"
    OPENED = "NOTIFY_ACK"
    REFUSED = "NOTIFY_ACK without success"
    UNCOMMITTED = "REPLY_UNCOMMITTED"
    YES = "REPLY(commit)"
    NO = "REPLY(abort)"
    CREDITS = "ACK"
    FAILED = "ERROR"
    RESTART = "RESTART"
    ROUND = "a round"
    SILENCE = "events without output"
    FLUSHED = "a flush"


_OWN = {Happening.ROUND, Happening.SILENCE, Happening.FLUSHED}
_LIVE = set(State) - {State.ENDED}
_GREETED = _LIVE - {State.GREETING}


@attrs.define
class Round:
    """Outputs gathered for one transaction; they follow event `last_sequence`.

    `outputs_bytes` may pass ROUND_BYTES_MAX by the last that was added.
    """

    last_sequence: int
    pieces: list[Outputs] = attrs.field(factory=list, init=False)
    outputs_bytes: int = attrs.field(default=0, init=False)

    @property
    def is_full(self) -> bool:
        """Say whether it takes no more."""
        return self.outputs_bytes >= ROUND_BYTES_MAX

    def add(self, outputs: Outputs) -> None:
        """Take the outputs of the next events; raises ValueError for any others."""
        if outputs.first_sequence != self.last_sequence + 1:
            raise ValueError(
                f"outputs from {outputs.first_sequence} after {self.last_sequence}"
            )
        self.last_sequence = outputs.last_sequence
        if outputs.data:
            self.pieces.append(outputs)
            self.outputs_bytes += len(outputs.data)


@attrs.frozen
class Decide:
    """Make this cursor durable, then call `flushed`."""

    cursor: Cursor


@attrs.frozen
class Derive:
    """Outputs are wanted from the record on; `refused` is the transaction that was."""

    refused: bytes | None = None


@attrs.frozen
class End:
    """The connection is over, once what came before this is sent."""

    reason: str


Action = bytes | Decide | Derive | End
"""What the owner is to do, in this order; bytes are to be sent."""
Actions = list[Action]


class _FoulError(Exception):
    """A frame that may not come now; the sink is told the reason."""


_Act = Callable[["ConnectorOut", Any], Iterator[Action]]


@attrs.define
class ConnectorOut:
    """One connection; `record` is what the log has of this sink, flushed.

    `new_id` gives transaction ids, never one twice, whatever crashes in between.
    `sink_offset` is where the sink says that it is: it is told to people, not obeyed.
    """

    hello: Hello
    stream_name: bytes
    record: Cursor
    new_id: Callable[[], bytes]
    state: State = attrs.field(default=State.GREETING, init=False)
    sink_offset: int | None = attrs.field(default=None, init=False)
    _decided: Cursor = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        """Begin with nothing on the way."""
        self._decided = self.record

    def begin(self) -> Actions:
        """Greet the sink: the first of all."""
        return [encode_frame(self.hello)]

    def receive(self, body: bytes) -> Actions:
        """Take a frame from the sink, given without its length."""
        try:
            return self._step(*_read(body))
        except (WireError, _FoulError) as error:
            return self.refuse(str(error))

    def refuse(self, reason: str) -> Actions:
        """End the connection for something that the sink did."""
        self.state = State.ENDED
        return [encode_frame(Error(reason.encode())), End(reason)]

    def send(self, gathered: Round) -> Actions:
        """Begin a round, which has outputs; raises ValueError while one runs."""
        return self._step(Happening.ROUND, gathered)

    def pass_over(self, last_sequence: int) -> Actions:
        """Move the cursor over events without output, as `send` does."""
        return self._step(Happening.SILENCE, last_sequence)

    def flushed(self) -> Actions:
        """Go on behind the flush of what was to be decided."""
        return self._step(Happening.FLUSHED, None)

    def _step(self, happening: Happening, subject: object) -> Actions:
        """Make the one transition that may be made now."""
        step = self._STEPS.get((self.state, happening))
        if step is not None:
            following, act = step
            # First the act: where it finds a fault, the state is still the old one.
            actions = list(act(self, subject))
            self.state = following or self.state
            return actions
        reason = f"{happening.value} came while we wait {self.state.value}"
        if happening in _OWN:
            raise ValueError(reason)
        raise _FoulError(reason)

    def _open_stream(self, _: Ok) -> Iterator[Action]:
        notify = Notify(OUTPUTS_STREAM, self.stream_name, self.record.offset)
        yield encode_frame(notify)

    def _list(self, answer: NotifyAck) -> Iterator[Action]:
        self._check_stream(answer)
        self.sink_offset = answer.point
        yield encode_phase(ListUncommitted(_LIST_TAG))

    def _be_refused(self, answer: NotifyAck) -> Iterator[Action]:
        self._check_stream(answer)
        yield End("the sink does not open its stream")

    def _settle(self, answer: ReplyUncommitted) -> Iterator[Action]:
        if answer.tag != _LIST_TAG:
            raise _FoulError(f"the answer to list {answer.tag}, which was not asked")
        for transaction in answer.transactions:
            is_ours = transaction == self.record.transaction_id
            yield encode_phase(Phase2(transaction, is_ours))
        yield Derive()

    def _prepare(self, gathered: Round) -> Iterator[Action]:
        start = offset = self.record.offset
        for payload in payloads(gathered.pieces, MESSAGE_BYTES_MAX):
            yield encode_frame(Message(OUTPUTS_STREAM, offset, 0, b"", payload))
            offset += len(payload)
        if offset == start:
            raise ValueError("a round without outputs")
        transaction = b"%d-%d-%s" % (start, offset, self.new_id())
        self._decided = Cursor(gathered.last_sequence, offset, transaction)
        yield encode_phase(Phase1(transaction, ((OUTPUTS_STREAM, start, offset),)))

    def _decide(self, answer: Reply) -> Iterator[Action]:
        self._check_transaction(answer)
        yield Decide(self._decided)

    def _commit(self, _: None) -> Iterator[Action]:
        self.record = self._decided
        yield encode_phase(Phase2(self.record.transaction_id, is_commit=True))

    def _abort(self, answer: Reply) -> Iterator[Action]:
        self._check_transaction(answer)
        yield encode_phase(Phase2(answer.transaction, is_commit=False))
        yield Derive(answer.transaction)

    def _pass(self, last_sequence: int) -> Iterator[Action]:
        # The sink has nothing to say to it, so the transaction stays the last one.
        self._decided = attrs.evolve(self.record, sequence=last_sequence)
        yield Decide(self._decided)

    def _adopt(self, _: None) -> Iterator[Action]:
        self.record = self._decided
        yield from ()

    def _ignore(self, _: Ack) -> Iterator[Action]:
        yield from ()

    def _fail(self, error: Error) -> Iterator[Action]:
        yield End(f"the sink says {_printable(error.reason)}")

    def _again(self, _: Restart) -> Iterator[Action]:
        yield End("the sink wants a new connection")

    _STEPS: ClassVar[dict[tuple[State, Happening], tuple[State | None, _Act]]] = {
        (State.GREETING, Happening.OK): (State.OPENING, _open_stream),
        (State.OPENING, Happening.OPENED): (State.LISTING, _list),
        (State.OPENING, Happening.REFUSED): (State.ENDED, _be_refused),
        (State.LISTING, Happening.UNCOMMITTED): (State.IDLE, _settle),
        (State.IDLE, Happening.ROUND): (State.PREPARING, _prepare),
        (State.PREPARING, Happening.YES): (State.DECIDING, _decide),
        (State.PREPARING, Happening.NO): (State.IDLE, _abort),
        (State.DECIDING, Happening.FLUSHED): (State.IDLE, _commit),
        (State.IDLE, Happening.SILENCE): (State.PASSING, _pass),
        (State.PASSING, Happening.FLUSHED): (State.IDLE, _adopt),
        **dict.fromkeys([(s, Happening.CREDITS) for s in _GREETED], (None, _ignore)),
        **dict.fromkeys([(s, Happening.FAILED) for s in _LIVE], (State.ENDED, _fail)),
        **dict.fromkeys([(s, Happening.RESTART) for s in _LIVE], (State.ENDED, _again)),
    }
    """Every transition: where it stands, what happens; where it then is (None for where
    it was), what is done. Anything else that the sink does ends it with ERROR.
    """

    def _check_stream(self, answer: NotifyAck) -> None:
        if answer.stream_id != OUTPUTS_STREAM:
            raise _FoulError(f"an answer for stream {answer.stream_id}, not ours")

    def _check_transaction(self, answer: Reply) -> None:
        running = self._decided.transaction_id
        if answer.transaction != running:
            other = _printable(answer.transaction)
            raise _FoulError(f"a reply for {other}, not for {_printable(running)}")


def _read(body: bytes) -> tuple[Happening, Frame | Phase]:
    """Say what a frame of the sink is; raises WireError or _FoulError."""
    frame = decode_frame(body)
    match frame:
        case Ok():
            return Happening.OK, frame
        case NotifyAck():
            return Happening.OPENED if frame.is_success else Happening.REFUSED, frame
        case Ack():
            return Happening.CREDITS, frame
        case Error():
            return Happening.FAILED, frame
        case Restart():
            return Happening.RESTART, frame
        case Message(stream_id=stream_id) if stream_id == PHASES_STREAM:
            return _read_phase(bytes(frame.payload))
    raise _FoulError(f"a {type(frame).__name__} frame, which is not for a sink to send")


def _read_phase(payload: bytes) -> tuple[Happening, Phase]:
    phase = decode_phase(payload)
    match phase:
        case ReplyUncommitted():
            return Happening.UNCOMMITTED, phase
        case Reply():
            return Happening.YES if phase.is_commit else Happening.NO, phase
    raise _FoulError(f"a {type(phase).__name__}, which is not for a sink to send")


def _printable(data: bytes) -> str:
    """Write what a sink has sent so that it is safe to print."""
    return ascii(data.decode("utf-8", "backslashreplace"))[:_REASON_CHARS_MAX]


def payloads(pieces: Iterable[Outputs], bytes_max: int) -> Iterator[bytes]:
    """Cut outputs into payloads of `bytes_max` at most (inclusive), in order.

    Each ends with an event's output; only one that is longer is itself cut.
    """
    held: list[memoryview] = []
    room = bytes_max
    for piece in pieces:
        data = memoryview(piece.data)
        start = 0
        while start < len(data):
            whole = bisect.bisect_right(piece.ends, start + room)
            end = piece.ends[whole - 1] if whole else 0
            if end <= start and room == bytes_max:
                end = start + room
            if end > start:
                held.append(data[start:end])
                room -= end - start
                start = end
            if start < len(data):
                yield b"".join(held)
                held, room = [], bytes_max
    if held:
        yield b"".join(held)
