"""The sender's part of the connector protocol, against a model of the server's."""

import contextlib
import struct

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
)

from alphabet.connector import client as module
from alphabet.connector.client import (
    ConnectorClient,
    PointError,
    ServerFaultError,
    State,
)
from alphabet.connector.frames import (
    NO_POINT,
    Ack,
    EndOfStream,
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
from alphabet.framing import FrameReader, decode_length
from alphabet.framing import encode_frame as encode_vote
from tests.connector_model import Entry, ModelConnection, ModelServer

STREAM = 2**64 - 1
PAYLOADS = st.lists(st.sampled_from([b"", b"a", b"b" * 5, b"c" * 5]), max_size=12)

SIZES = st.one_of(st.just(1 << 20), st.integers(0, 60))
"""How many bytes arrive at once: all, or a part."""


def new_client() -> ConnectorClient:
    """Make a client of a stream."""
    return ConnectorClient(STREAM, b"name", b"instance", b"cookie")


def opened(point: int) -> NotifyAck:
    """Make the answer that opens the stream behind a point."""
    return NotifyAck(is_success=True, stream_id=STREAM, point=point)


def frames_in(data: bytes) -> list[Frame]:
    """Cut what a client sends into frames."""
    bodies = FrameReader(4, decode_length, 1 << 20).receive(data).payloads
    return list(map(decode_frame, bodies))


def tell(client: ConnectorClient, *frames: Frame) -> list[Frame]:
    """Let the server say something; give all that the client has to say then."""
    client.receive(b"".join(map(encode_frame, frames)))
    said = b""
    while part := client.take():
        said += part
    return frames_in(said)


def streaming(first_credits: int = 100, point: int = NO_POINT) -> ConnectorClient:
    """Give a client whose stream is open."""
    client = new_client()
    client.connect()
    tell(client, Ok(first_credits + 1), opened(point))
    assert client.state is State.STREAMING
    return client


def entries(payloads: list[bytes]) -> list[Entry]:
    """Give the messages that an input consists of."""
    found: list[Entry] = []
    at = 0
    for payload in payloads:
        at += 4 + len(payload)
        found.append((at, payload))
    return found


class TestConversation:
    """What is said, step by step."""

    def test_greeting(self) -> None:
        """HELLO comes first; NOTIFY behind OK, with what is known to be durable."""
        client = new_client()
        client.connect()
        assert tell(client) == [
            Hello(b"0.0.1", b"cookie", b"alphabet-send", b"instance")
        ]
        assert tell(client, Ok(5)) == [Notify(STREAM, b"name", 0)]

    def test_a_notify_waits_for_a_credit(self) -> None:
        """Without a credit nothing is said before an ACK gives one."""
        client = new_client()
        client.connect()
        tell(client)
        assert tell(client, Ok(0)) == []
        assert tell(client, Ack(0)) == []
        assert tell(client, Ack(1)) == [Notify(STREAM, b"name", 0)]

    def test_messages_have_their_ends_for_ids(self) -> None:
        """A message's id is the offset at which its frame ends."""
        client = streaming()
        client.offer(encode_vote(b"ab") + encode_vote(b""))
        client.end()
        assert tell(client) == [
            Message(STREAM, 6, 0, b"", b"ab"),
            Message(STREAM, 10, 0, b"", b""),
            EndOfStream(STREAM),
        ]
        assert tell(client, Ack(1, ((STREAM, 6),))) == []
        assert client.state.name == "ENDING"
        tell(client, Ack(1, ((STREAM, 10),)))
        assert client.state is State.DONE

    def test_credits_are_kept_to(self) -> None:
        """Without a credit no message goes; each ACK lets as many go as it gives."""
        client = streaming(2)
        client.offer(encode_vote(b"x") * 4)
        assert [m.message_id for m in tell(client) if isinstance(m, Message)] == [5, 10]
        [third] = tell(client, Ack(1))
        assert third == Message(STREAM, 15, 0, b"", b"x")
        assert not client.has_room

    def test_an_acknowledged_end_needs_no_other(self) -> None:
        """What is durable before EOS is said is enough to be done."""
        client = streaming(point=5)
        client.offer(encode_vote(b"x"))
        client.end()
        assert tell(client) == [EndOfStream(STREAM)]
        assert client.state is State.DONE
        assert (client.votes_there, client.votes_taken) == (1, 0)

    def test_an_empty_input_is_done(self) -> None:
        """An input without a vote ends with EOS alone."""
        client = streaming()
        client.end()
        assert tell(client) == [EndOfStream(STREAM)]
        assert client.state is State.DONE

    def test_what_was_lost_goes_again(self) -> None:
        """After a lost connection all goes again that the server does not name."""
        client = streaming()
        client.offer(encode_vote(b"x") * 3)
        tell(client)
        client.lose()
        client.connect()
        tell(client, Ok(9))
        said = tell(client, opened(5))
        assert [m.message_id for m in said if isinstance(m, Message)] == [10, 15]
        assert (client.votes_taken, client.votes_durable) == (3, 1)

    def test_what_was_cut_off_is_forgotten(self) -> None:
        """A part of a frame that a lost connection left is none of the next one's."""
        client = streaming()
        client.receive(encode_frame(Ack(1))[:-1])
        client.lose()
        client.connect()
        tell(client)
        assert tell(client, Ok(5)) == [Notify(STREAM, b"name", 0)]

    def test_what_waited_stays_behind(self) -> None:
        """What goes again goes before what had no credit."""
        client = streaming(2)
        client.offer(encode_vote(b"x") * 3)
        tell(client)
        client.lose()
        client.connect()
        said = tell(client, Ok(9), opened(NO_POINT))
        assert [m.message_id for m in said if isinstance(m, Message)] == [5, 10, 15]

    def test_room_is_bounded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A server that gives credits and makes nothing durable fills no memory."""
        monkeypatch.setattr(module, "RETAINED_BYTES_MAX", 10)
        client = streaming()
        client.offer(encode_vote(b"x"))
        tell(client)
        assert client.has_room
        client.offer(encode_vote(b"x"))
        tell(client)
        assert not client.has_room
        tell(client, Ack(2, ((STREAM, 5),)))
        assert client.has_room

    @pytest.mark.parametrize("kind", ["restart", "refusal"])
    def test_it_stands_back(self, kind: str) -> None:
        """RESTART and a refusal end the connection, and nothing else."""
        client = new_client()
        client.connect()
        refusal = attrs.evolve(opened(NO_POINT), is_success=False)
        tell(client, Ok(9), Restart() if kind == "restart" else refusal)
        assert client.state is State.AWAY
        assert client.refusals == (kind == "refusal")
        client.connect()
        assert isinstance(tell(client)[0], Hello)


class TestFaults:
    """Servers that are wrong, and inputs that are others."""

    def test_an_error_is_told(self) -> None:
        """ERROR ends it, with the server's reason, in whatever state it comes."""
        client = streaming()
        with pytest.raises(ServerFaultError, match="refused: no cookie"):
            tell(client, Error(b"no cookie"))

    @pytest.mark.parametrize(
        "frame",
        [
            Ok(1),
            opened(0),
            Hello(b"", b"", b"", b""),
            Message(1, 1, 1, b"", b""),
            EndOfStream(1),
            Ack(0, ((STREAM, 1),)),
        ],
        ids=lambda frame: type(frame).__name__,
    )
    def test_what_cannot_come_is_refused(self, frame: Frame) -> None:
        """A frame that has no place in the table, or acknowledges what was not sent."""
        client = streaming()
        with pytest.raises(ServerFaultError):
            tell(client, frame)

    @pytest.mark.parametrize("data", [b"\0\0\0\0", b"\0\0\0\1\x63", b"\xff" * 4])
    def test_bad_frames_are_refused(self, data: bytes) -> None:
        """Bytes that are no frame are the server's fault."""
        with pytest.raises(ServerFaultError, match="sent a bad frame"):
            streaming().receive(data)

    def test_an_answer_for_another_stream_is_refused(self) -> None:
        """NOTIFY_ACK names the stream that was asked for."""
        client = new_client()
        client.connect()
        with pytest.raises(ServerFaultError, match="stream 7"):
            tell(client, Ok(9), attrs.evolve(opened(0), stream_id=7))

    def test_other_streams_are_not_ours(self) -> None:
        """A point of another stream moves nothing."""
        client = streaming()
        client.offer(encode_vote(b"x"))
        tell(client, Ack(0, ((7, 5),)))
        assert client.durable == 0

    @given(st.binary(max_size=60))
    def test_any_bytes_are_survived(self, data: bytes) -> None:
        """Whatever a server says is taken, or refused in words."""
        client = streaming()
        with contextlib.suppress(ServerFaultError, PointError):
            client.receive(data)
        assert client.durable == 0

    def test_a_lost_log_is_noticed(self) -> None:
        """A server whose point falls has lost what it acknowledged."""
        client = streaming()
        client.offer(encode_vote(b"x") * 2)
        tell(client)
        tell(client, Ack(0, ((STREAM, 10),)))
        client.lose()
        client.connect()
        with pytest.raises(PointError, match="acknowledged byte 10 and now has only 5"):
            tell(client, Ok(9), opened(5))

    def test_another_input_is_noticed(self) -> None:
        """A point within a frame shows that something else was sent before."""
        with pytest.raises(PointError, match="not what was sent before"):
            streaming(point=7).offer(encode_vote(b"x") * 2)

    def test_a_shorter_input_is_noticed(self) -> None:
        """An input that ends before the point is not the one that was sent."""
        client = streaming(point=10)
        client.offer(encode_vote(b"x"))
        with pytest.raises(PointError, match=r"ends at byte 5.* up to byte 10"):
            client.end()

    def test_a_beginning_may_be_shorter(self) -> None:
        """Who offers only a beginning is done if the server has more."""
        client = streaming(point=10)
        client.is_prefix = True
        client.offer(encode_vote(b"x"))
        client.end()
        tell(client)
        assert client.state is State.DONE


class ClientMachine(RuleBasedStateMachine):
    """A client and the model, over a line that fails at any byte."""

    def __init__(self) -> None:
        super().__init__()
        self.client = new_client()
        self.server = ModelServer()
        self.connection: ModelConnection | None = None
        self.up = b""
        self.input: list[bytes] = []
        self.is_ended = False

    @rule(payloads=PAYLOADS)
    @precondition(lambda self: not self.is_ended)
    def offer(self, payloads: list[bytes]) -> None:
        """The input goes on."""
        self.input += payloads
        self.client.offer(b"".join(map(encode_vote, payloads)))

    @rule()
    @precondition(lambda self: len(self.input) > 5 and not self.is_ended)
    def end(self) -> None:
        """The input ends."""
        self.is_ended = True
        self.client.end()

    @rule(first_credits=st.integers(0, 6))
    @precondition(lambda self: self.client.state is State.AWAY)
    def connect(self, first_credits: int) -> None:
        """A connection is made."""
        self.client.connect()
        self.up = b""
        self.connection = ModelConnection(self.server, first_credits)

    @rule(size=SIZES)
    @precondition(lambda self: self.connection)
    def send(self, size: int) -> None:
        """Some of what the client says arrives."""
        assert self.connection
        self.up += self.client.take()
        self.connection.receive(self.up[:size])
        self.up = self.up[size:]

    @rule(size=SIZES)
    @precondition(lambda self: self.connection)
    def hear(self, size: int) -> None:
        """Some of what the server says arrives."""
        assert self.connection
        data = bytes(self.connection.outgoing[:size])
        del self.connection.outgoing[:size]
        self.client.receive(data)
        if self.client.state is State.AWAY:
            self.lose()

    @rule(first_credits=st.integers(0, 6))
    def converse(self, first_credits: int) -> None:
        """All arrives, both ways, until the stream is open."""
        for _ in range(3):
            if self.client.state is State.AWAY:
                self.connect(first_credits)
            if self.connection:
                self.send(1 << 20)
                self.hear(1 << 20)

    @rule(count=st.integers(0, 4))
    def commit(self, count: int) -> None:
        """The server commits some."""
        self.server.commit(count)

    @rule(returned=st.integers(0, 4))
    @precondition(lambda self: self.connection and self.connection.hello)
    def acknowledge(self, returned: int) -> None:
        """The server acknowledges what is durable by now."""
        assert self.connection
        self.connection.acknowledge(returned)

    @rule()
    @precondition(lambda self: self.connection)
    def restart(self) -> None:
        """The server asks to begin again."""
        assert self.connection
        self.connection.say(Restart())

    @rule()
    def hold(self) -> None:
        """Another sender holds the stream when it is asked for next."""
        self.server.refusals_due = 1

    @rule(count=st.integers(0, 4))
    @precondition(lambda self: not self.connection)
    def go_ahead(self, count: int) -> None:
        """Another sender of the same input sends some of it."""
        self.server.commit()
        done = len(self.server.durable)
        self.server.durable += entries(self.input)[done : done + count]

    @rule()
    @precondition(lambda self: self.connection)
    def lose(self) -> None:
        """The connection is lost."""
        self.client.lose()
        self.connection = None

    @rule()
    @precondition(lambda self: self.connection)
    def crash(self) -> None:
        """The server crashes: what was in flight is gone."""
        self.server.in_flight.clear()
        self.lose()

    @invariant()
    def each_once_in_order(self) -> None:
        """What the server has is a beginning of the input, each message once."""
        has = self.server.durable + self.server.in_flight
        assert has == entries(self.input)[: len(has)]

    @invariant()
    def durable_is_durable(self) -> None:
        """The client takes nothing for durable that is not; done means all of it."""
        ends = [end for end, _ in self.server.durable]
        assert self.client.durable <= (ends[-1] if ends else 0)
        assert self.client.votes_durable <= len(ends)
        votes = self.client.votes_there + self.client.votes_taken
        assert votes == len(self.input)
        if self.client.state is State.DONE:
            assert self.server.durable == entries(self.input)
            assert self.client.votes_durable == len(self.input)

    def teardown(self) -> None:
        """After one more loss the line holds: all becomes durable."""
        self.lose()
        if not self.is_ended:
            self.client.end()
        self.server.refusals_due = 0
        for _ in range(500):
            if self.client.state is State.DONE:
                break
            if self.client.state is State.AWAY:
                self.lose()
                self.connect(2)
            assert self.connection
            self.send(1 << 20)
            self.server.commit()
            if self.connection.hello:
                self.connection.acknowledge(1)
            self.hear(1 << 20)
        assert self.client.state is State.DONE
        self.durable_is_durable()


TestClientMachine = ClientMachine.TestCase
TestClientMachine.settings = settings(stateful_step_count=40, deadline=None)


def test_the_model_can_fail() -> None:
    """A message that was not asked for is seen by the model."""
    connection = ModelConnection(ModelServer(), 1)
    connection.receive(encode_frame(Hello(b"", b"", b"", b"")))
    with pytest.raises(AssertionError):
        connection.receive(struct.pack(">IBQQqH", 27, 5, 1, 1, 0, 0))
