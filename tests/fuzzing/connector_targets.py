"""The connector protocol, every side of it, against a peer that sends anything.

A script's acts drive one machine each: bytes that come, and what its owner does.
"""

import contextlib
from collections.abc import Iterator

import attrs
import pytest

from alphabet.connector import message_run
from alphabet.connector.client import (
    ConnectorClient,
    PointError,
    ServerFaultError,
    State,
)
from alphabet.connector.frames import (
    MESSAGE_HEAD_BYTES,
    NO_POINT,
    PHASES_STREAM,
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
from alphabet.connector.inbound import Phase as Stage
from alphabet.connector.outbound import (
    NO_TRANSACTION,
    ConnectorOut,
    Decide,
    Derive,
    End,
    Round,
)
from alphabet.connector.outbound import State as OutState
from alphabet.connector.phases import Phase1, Phase2, Reply, decode_phase, encode_phase
from alphabet.connector.receiver import ConnectorReceiver, Session
from alphabet.connector.receiver import State as SinkState
from alphabet.connector.streams import Streams
from alphabet.connector.wire_fields import WireError
from alphabet.framing import Frames, Payloads, Piece
from alphabet.framing import encode_frame as frame_of
from alphabet.outputs import Outputs
from log.block import Point
from log.row import Cursor
from tests.connector_senders import Talk, cut
from tests.fuzzing.script import acts, pieces
from tests.fuzzing.wire_targets import Expected
from tests.model_sink import ModelSink
from tests.speeds import small_bounds

CREDITS = 20
STREAM_ID = 7


def connector_frames(data: bytes) -> None:
    """A frame that is read is read again from what is written of it."""
    with contextlib.suppress(WireError):
        frame = decode_frame(data)
        encoded = encode_frame(frame)
        assert decode_frame(encoded[4:]) == frame
        assert int.from_bytes(encoded[:4]) == len(encoded) - 4 == len(data)
    with contextlib.suppress(WireError):
        phase = decode_phase(data)
        message = decode_frame(encode_phase(phase)[4:])
        assert isinstance(message, Message)
        assert message.stream_id == PHASES_STREAM
        assert len(message.payload) == len(data)
        assert decode_phase(bytes(message.payload)) == phase


@attrs.define
class Server:
    """Two senders' connections to one server, and what it may say to them.

    `is_cut` has it take messages one by one. `waiting` is not durable yet; `points` are
    the streams' durable points, `taken` their last messages that are to be counted.
    """

    is_cut: bool
    streams: Streams = attrs.Factory(lambda: Streams.begin([Point(9, 90, b"nine")]))
    talks: list[Talk] = attrs.Factory(list)
    waiting: list[tuple[Point, ...]] = attrs.Factory(list)
    seen: list[object] = attrs.Factory(list)
    points: dict[int, int] = attrs.Factory(lambda: {9: 90})
    taken: dict[int, int] = attrs.Factory(lambda: {9: 90})

    def __attrs_post_init__(self) -> None:
        """Begin with two connections."""
        self.talks = [Talk.begin(self.streams, CREDITS) for _ in range(2)]

    def act(self, act: int, data: bytes) -> None:
        """Do one thing, and hold what is said of it against what may be said."""
        number = act & 1
        talk = self.talks[number]
        match act >> 1 & 3:
            case 0 | 1:
                self._receive(talk, data)
            case 2:
                self._settle(len(data))
            case _:
                self._change(number, len(data) % 4)
        for each in self.talks:
            self._hear(each)

    def _receive(self, talk: Talk, data: bytes) -> None:
        was_heard = talk.machine.is_heard
        frames = talk.reader.receive(data)
        if self.is_cut:
            cut_up: list[Piece] = [
                Payloads(each.position, each.header_bytes, each.payloads)
                for each in frames.pieces
            ]
            frames = Frames(frames.position, cut_up)
        taken = talk.machine.receive(frames)
        if talk.reader.fault is not None:
            talk.machine.foul(talk.reader.fault.position, talk.reader.fault.cause)
        payloads = [
            (at, payload)
            for each in taken.pieces
            for at, payload in zip(each.positions(), each.payloads, strict=True)
        ]
        assert was_heard or not payloads
        assert payloads == sorted(payloads, key=lambda placed: placed[0])
        for point in taken.points:
            assert self.taken.get(point.stream_id, -1) < point.message_id < NO_POINT
            self.taken[point.stream_id] = point.message_id
        assert bool(taken.points) == bool(payloads)
        self.seen.append((payloads, taken.points, talk.machine.duplicates))
        self.waiting.append(taken.points)

    def _settle(self, count: int) -> None:
        """Let some of what was taken be durable, in the order that it came."""
        for points in self.waiting[: count + 1]:
            self.streams.settle(points)
            self.points |= {point.stream_id: point.message_id for point in points}
        del self.waiting[: count + 1]

    def _change(self, number: int, change: int) -> None:
        talk = self.talks[number]
        if change == 0:
            talk.machine.half_closed()
        elif change == 1:
            talk.machine.lost()
        elif change == 2:
            talk.machine.tick(10.0)
        else:
            talk.machine.lost()
            self.talks[number] = Talk.begin(self.streams, CREDITS)

    def _hear(self, talk: Talk) -> None:
        machine = talk.machine
        answers = talk.answers()
        for frame in answers:
            if isinstance(frame, NotifyAck) and frame.is_success:
                assert frame.point == self.points.get(frame.stream_id, NO_POINT)
            elif isinstance(frame, Ack):
                told = dict(frame.points)
                assert all(self.points.get(s, NO_POINT) == told[s] for s in told)
            elif isinstance(frame, Error):
                assert frame is answers[-1]
                assert machine.phase is Stage.ENDED
            else:
                assert isinstance(frame, Ok | NotifyAck)
        self.seen.append((answers, machine.phase, machine.ending, machine.is_done))


def connector_in(data: bytes) -> None:
    """Floods count as messages do one by one; no more is said than is durable."""
    with small_bounds(), small_runs():
        servers = [Server(is_cut=False), Server(is_cut=True)]
        for server in servers:
            for act, content in acts(data):
                server.act(act, content)
        assert servers[0].seen == servers[1].seen


@contextlib.contextmanager
def small_runs() -> Iterator[None]:
    """Let two messages be a flood."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(message_run, "RUN_FRAMES_MIN", 2)
        yield


@attrs.define
class Sender:
    """A sender, and what its server may hold against it."""

    client: ConnectorClient = attrs.Factory(
        lambda: ConnectorClient(STREAM_ID, b"name", b"instance")
    )
    last_id: int = 0
    credits: int = 0
    is_ended: bool = False

    def act(self, act: int, data: bytes) -> None:
        """Do one thing."""
        client = self.client
        durable = client.durable
        match act % 8:
            case 0:
                client.connect()
                self.last_id = self.credits = 0
            case 1:
                client.lose()
            case 2 if client.has_room and data and not self.is_ended:
                payloads = pieces(data, act >> 3)
                client.offer(b"".join(map(frame_of, payloads)))
            case 3:
                client.end()
                self.is_ended = True
            case _ if client.state is not State.AWAY:
                expected = Expected.of(data, 4)
                for body in expected.payloads:
                    with contextlib.suppress(WireError):
                        frame = decode_frame(body)
                        self.credits += getattr(frame, "credits", 0)
                client.receive(data)
        assert client.durable >= durable
        assert client.credits >= 0
        if client.state is not State.AWAY:
            self._check_sent(cut(client.take()))
        assert client.votes_durable <= client.votes_there + client.votes_taken
        if client.state is State.DONE:
            assert client.durable >= client.offered
            assert client.votes_durable == client.votes_there + client.votes_taken

    def _check_sent(self, frames: list[Frame]) -> None:
        for frame in frames:
            if isinstance(frame, Message):
                self.credits -= 1
                assert self.client.durable <= self.last_id or not self.last_id
                assert self.last_id < frame.message_id <= self.client.offered
                self.last_id = frame.message_id
            elif isinstance(frame, Notify):
                self.credits -= 1
                assert frame.point <= self.client.durable
            else:
                assert isinstance(frame, Hello | EndOfStream)
        assert self.credits >= 0


def connector_client(data: bytes) -> None:
    """A sender keeps to its credits and its order, and blames no one without reason."""
    sender = Sender()
    with contextlib.suppress(ServerFaultError, PointError):
        for act, content in acts(data):
            sender.act(act, content)


@attrs.define
class Upstream:
    """A connection to a sink, and what was flushed for it."""

    out: ConnectorOut
    flushed: set[bytes]
    due: Cursor | None = None
    is_over: bool = False

    def act(self, act: int, data: bytes) -> None:
        """Do one thing that an owner may do now."""
        out = self.out
        match act % 4:
            case 1 if out.state is OutState.IDLE and data:
                gathered = Round(out.record.sequence)
                ends = range(1, len(data) + 1)
                gathered.add(Outputs(out.record.sequence + 1, data, ends))
                self._do(out.send(gathered), may_message=True)
            case 2 if out.state is OutState.IDLE:
                self._do(out.pass_over(out.record.sequence + len(data)))
            case 3 if self.due is not None:
                self.flushed.add(self.due.transaction_id)
                expected, self.due = self.due, None
                self._do(out.flushed())
                assert out.record == expected
            case 0:
                for body in Expected.of(data, 4).payloads:
                    if not self.is_over:
                        self._do(out.receive(body))
        waits = out.state in {OutState.DECIDING, OutState.PASSING}
        assert waits == (self.due is not None)

    def _do(
        self, actions: list[bytes | Decide | Derive | End], *, may_message: bool = False
    ) -> None:
        for action in actions:
            assert not self.is_over
            match action:
                case Decide(cursor=cursor):
                    assert cursor.sequence >= self.out.record.sequence
                    assert cursor.offset >= self.out.record.offset
                    self.due = cursor
                case End():
                    self.is_over = True
                    self.due = None
                case Derive():
                    assert self.due is None
                case bytes():
                    self._check_sent(action, may_message=may_message)
        assert self.is_over == (self.out.state is OutState.ENDED)

    def _check_sent(self, data: bytes, *, may_message: bool) -> None:
        for frame in cut(data):
            if not isinstance(frame, Message):
                continue
            if frame.stream_id != PHASES_STREAM:
                assert may_message
                continue
            phase = decode_phase(bytes(frame.payload))
            if isinstance(phase, Phase2) and phase.is_commit:
                assert phase.transaction in self.flushed
                assert phase.transaction == self.out.record.transaction_id


def connector_out(data: bytes) -> None:
    """A sink is told to commit what was flushed, and never anything else."""
    record = Cursor(3, 30, NO_TRANSACTION)
    hello = Hello(b"v0.0.1", b"", b"alphabet", b"one")
    out = ConnectorOut(hello, b"out", record, lambda: b"id")
    assert [type(each) for each in out.begin()] == [bytes]
    upstream = Upstream(out, {NO_TRANSACTION})
    for act, content in acts(data):
        if upstream.is_over:
            break
        upstream.act(act, content)


def connector_receiver(data: bytes) -> None:
    """A sink keeps what is committed, and the same if frames come one at a time."""
    told = list(acts(data))
    assert _received(told, at_once=True) == _received(told, at_once=False)


def _answered(session: Session, bodies: list[bytes]) -> bytes:
    """Give a session frames; whoever says yes to a range has it."""
    answers = session.receive(map(memoryview, bodies))
    said_yes = encode_phase(Reply(b"", is_commit=True))[-1:] == answers[-1:]
    if len(bodies) == 1 and said_yes and session.state is SinkState.PREPARED:
        with contextlib.suppress(WireError):
            phase = decode_phase(bodies[0][MESSAGE_HEAD_BYTES:])
            if isinstance(phase, Phase1):
                ends = [end for _, _, end in phase.ranges]
                assert max(ends, default=0) <= session.receiver.sink.end_bytes
    return answers


def _received(told: list[tuple[int, bytes]], *, at_once: bool) -> list[object]:
    """Play a script to a sink; give all that came of it."""
    sink = ModelSink()
    receiver = ConnectorReceiver(sink, b"")
    sessions = [Session(receiver), Session(receiver)]
    seen: list[object] = []
    for act, content in told:
        number = act & 1
        session = sessions[number]
        before = sink.committed
        prepared, tail = sink.prepared, sink.tail
        if act & 6 == 6:
            session.end("it is lost")
            sessions[number] = Session(receiver)
        else:
            bodies = Expected.of(content, 4).payloads
            lots = [bodies] if at_once else [[body] for body in bodies]
            was_over = session.state is SinkState.ENDED
            answers = b"".join(_answered(session, lot) for lot in lots)
            assert not (was_over and answers)
            frames = cut(answers)
            assert not any(isinstance(each, Error) for each in frames[:-1])
            seen.append([Error if isinstance(f, Error) else f for f in frames])
        assert sink.committed.startswith(before)
        assert sink.committed in (before, before + tail) or prepared != sink.prepared
        holder = receiver.holder
        assert holder is None or holder.state is not SinkState.ENDED
        seen.append((attrs.evolve(sink), [each.state for each in sessions]))
    return seen
