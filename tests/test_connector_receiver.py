"""The sink's end of the connector protocol: each transition, and a server's whole life.

No socket and no file: sessions are given frames, and the sink is a model in memory.
"""

import random
from collections.abc import Sequence

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from alphabet.connector.frames import (
    FRAME_BYTES_MAX,
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
from alphabet.connector.receiver import (
    CREDITS,
    REASON_CHARS_MAX,
    ConnectorReceiver,
    Session,
    State,
)
from tests.model_sink import ModelSink

COOKIE = b"secret"
WHOLE = random.Random(1).randbytes(10_000)
"""All outputs that there ever are."""


def encoded(*frames: Frame | Phase) -> list[memoryview]:
    """Write frames as a session takes them, without their lengths."""
    return [
        memoryview(
            encode_phase(each) if isinstance(each, Phase) else encode_frame(each)
        )[4:]
        for each in frames
    ]


def decoded(data: bytes) -> list[Frame | Phase]:
    """Read the answers of a session."""
    found: list[Frame | Phase] = []
    while data:
        size = int.from_bytes(data[:4], "big")
        frame = decode_frame(data[4 : 4 + size])
        if isinstance(frame, Message):
            found.append(decode_phase(bytes(frame.payload)))
        else:
            found.append(frame)
        data = data[4 + size :]
    return found


def hello(instance: bytes = b"one", cookie: bytes = COOKIE) -> Hello:
    """Greet as a server does."""
    return Hello(b"v0.0.1", cookie, b"alphabet", instance)


def outputs(start: int, end: int, size_max: int = 1 << 20) -> list[Message]:
    """Give messages that carry the outputs of a range."""
    return [
        Message(1, each, 0, b"", WHOLE[each : min(each + size_max, end)])
        for each in range(start, end, size_max)
    ]


OPENING = (hello(), Notify(1, b"out", 0), ListUncommitted(7))


@attrs.define
class Side:
    """A receiver with a sink, and its sessions."""

    sink: ModelSink = attrs.field(factory=ModelSink)
    receiver: ConnectorReceiver = attrs.field(init=False)
    session: Session = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        """Begin with a connection."""
        self.receiver = ConnectorReceiver(self.sink, COOKIE)
        self.session = Session(self.receiver)

    def tell(self, *frames: Frame | Phase) -> list[Frame | Phase]:
        """Give the session frames; give its answers."""
        return decoded(self.session.receive(encoded(*frames)))

    def opened(self) -> "Side":
        """Open the stream."""
        assert self.tell(*OPENING) == [
            Ok(CREDITS),
            NotifyAck(True, 1, self.sink.committed_bytes),  # noqa: FBT003 - as sent
            ReplyUncommitted(7, ()),
        ]
        return self

    def refusal(self, *frames: Frame | Phase) -> str:
        """Give frames that must end the session with an ERROR; give its reason."""
        *_, error = self.tell(*frames)
        assert isinstance(error, Error)
        assert self.session.state is State.ENDED
        assert self.session.reason == error.reason.decode()
        assert self.tell(*OPENING) == []
        return error.reason.decode()


def commit(name: bytes) -> Phase2:
    """Decide for a transaction."""
    return Phase2(name, is_commit=True)


def abort(name: bytes) -> Phase2:
    """Decide against a transaction."""
    return Phase2(name, is_commit=False)


def yes(name: bytes) -> Reply:
    """Answer that a transaction is prepared."""
    return Reply(name, is_commit=True)


def no(name: bytes) -> Reply:
    """Answer that a transaction is refused."""
    return Reply(name, is_commit=False)


def side_in(state: State) -> Side:
    """Bring a session into a state."""
    side = Side()
    if state is State.GREETED:
        side.tell(hello())
    elif state is not State.NEW:
        side.opened()
    if state is State.PREPARED:
        side.tell(*outputs(0, 10), Phase1(b"t", ((1, 0, 10),)))
    elif state is State.REFUSED:
        side.tell(Phase1(b"t", ((1, 0, 10),)))
    elif state is State.ENDED:
        side.tell(Error(b"enough"))
    assert side.session.state is state
    return side


SAMPLES: list[Frame | Phase] = [
    hello(),
    hello(cookie=b"other"),
    Ok(1),
    Error(b"why"),
    Notify(1, b"out", 5),
    Notify(2, b"out", 5),
    NotifyAck(True, 1, 0),  # noqa: FBT003 - as sent
    *outputs(0, 5),
    *outputs(4, 9),
    *outputs(20, 25),
    Message(2, 0, 0, b"key", b"x"),
    Ack(1),
    Restart(),
    EndOfStream(1),
    EndOfStream(2, 9),
    ListUncommitted(1),
    ReplyUncommitted(1, ()),
    Phase1(b"t", ()),
    Phase1(b"t", ((1, 0, 5),)),
    Phase1(b"", ()),
    yes(b"t"),
    commit(b"t"),
    abort(b"t"),
    commit(b"u"),
    abort(b"u"),
]
samples = st.sampled_from(SAMPLES)


class TestRules:
    """The table, against what it says."""

    @pytest.mark.parametrize("state", State)
    def test_each_frame_does_what_the_table_says(self, state: State) -> None:
        """A frame leads to a state that its rule names, or ends with an ERROR."""
        for frame in SAMPLES:
            self.check(state, frame)

    def check(self, state: State, frame: Frame | Phase) -> None:
        """Give a session in a state a frame."""
        side = side_in(state)
        answers = side.tell(frame)
        rule_ = Session.RULES.get((state, type(frame)))
        is_refused = any(isinstance(answer, Error) for answer in answers)
        if state is State.ENDED:
            assert answers == []
        elif rule_ is None:
            assert is_refused
            assert f"{type(frame).__name__} may not come {state.value}" in str(answers)
        elif not is_refused:
            assert side.session.state in rule_[1]
        if is_refused:
            assert side.session.state is State.ENDED

    def test_every_transition_can_be_taken(self) -> None:
        """Each state that the table names as following is reached by some frame."""
        reached = set()
        for state in State:
            for frame in SAMPLES:
                side = side_in(state)
                side.tell(frame)
                reached.add((state, type(frame), side.session.state))
        named = {
            (state, kind, after)
            for (state, kind), (_, states_after) in Session.RULES.items()
            for after in states_after
        } - {(State.GREETED, Notify, State.PREPARED)}
        assert named <= reached

    @given(st.lists(samples, max_size=12))
    def test_nothing_is_final_but_by_a_decision(
        self, frames: list[Frame | Phase]
    ) -> None:
        """Whatever comes, what is committed is a beginning of the whole output."""
        side = Side()
        for frame in frames:
            before = side.sink.committed
            prepared = side.sink.prepared
            side.tell(frame)
            if side.sink.committed != before:
                assert prepared is not None
                assert frame == commit(prepared.name)
            assert WHOLE.startswith(side.sink.committed)
            if side.session.state is State.ENDED:
                assert side.sink.prepared or not side.sink.tail

    @given(st.lists(st.binary(max_size=60), max_size=5), samples)
    def test_bytes_of_any_kind_harm_nobody(
        self, data: list[bytes], frame: Frame | Phase
    ) -> None:
        """What is no frame ends the session with an ERROR, and another may come."""
        side = Side()
        answers = side.session.receive([memoryview(each) for each in data])
        if data:
            *_, last = decoded(answers)
            assert isinstance(last, Error)
        side.session = Session(side.receiver)
        side.opened().tell(frame)

    @given(samples, st.data())
    def test_cut_frames_are_refused(
        self, frame: Frame | Phase, data: st.DataObject
    ) -> None:
        """A frame that is cut short within its fields ends the session."""
        [whole] = encoded(frame)
        payload_bytes = len(frame.payload) if isinstance(frame, Message) else 0
        size = data.draw(st.integers(0, max(0, len(whole) - payload_bytes - 1)))
        if isinstance(frame, EndOfStream) and size == 9:
            return
        side = Side()
        [error] = decoded(side.session.receive([whole[:size]]))
        assert isinstance(error, Error) == (size < len(whole))


class TestSession:
    """What is said, and what comes of it."""

    @pytest.mark.parametrize(
        ("greeting", "reason"),
        [
            (
                attrs.evolve(hello(), version=b"0.0.1"),
                "version '0.0.1', where 'v0.0.1'",
            ),
            (hello(cookie=b""), "the cookie is another one here"),
            (hello(cookie=COOKIE + b"\n"), "the cookie is another one here"),
        ],
    )
    def test_a_greeting_must_fit(self, greeting: Hello, reason: str) -> None:
        """Another version or cookie is refused, and the sink is nobody's."""
        side = Side()
        assert reason in side.refusal(greeting)
        assert side.receiver.holder is None

    def test_a_round(self) -> None:
        """Outputs that are prepared and committed are final, and not before."""
        side = Side().opened()
        assert side.tell(*outputs(0, 30, 7)) == []
        assert side.tell(Phase1(b"t", ((1, 0, 30),))) == [yes(b"t")]
        assert side.sink.committed == b""
        assert side.tell(commit(b"t")) == []
        assert side.sink.committed == WHOLE[:30]
        assert side.tell(*outputs(30, 40), Phase1(b"u", ((1, 30, 40),))) == [yes(b"u")]
        assert side.tell(commit(b"u"), commit(b"u")) == []
        assert side.sink.committed == WHOLE[:40]
        assert side.receiver.transactions_committed == 2

    @pytest.mark.parametrize(
        ("ranges", "is_commit"),
        [
            (((1, 0, 10),), True),
            (((1, 0, 4), (1, 4, 10)), True),
            (((1, 0, 0), (1, 0, 10)), True),
            ((), False),
            (((1, 0, 9),), False),
            (((1, 1, 10),), False),
            (((1, 0, 11),), False),
            (((2, 0, 10),), False),
            (((1, 0, 4), (1, 5, 10)), False),
            (((1, 0, 10), (1, 10, 9), (1, 9, 10)), False),
        ],
    )
    def test_ranges_are_what_came(
        self, ranges: tuple[tuple[int, int, int], ...], is_commit: bool
    ) -> None:
        """A transaction is prepared only if it names all that came and nothing else."""
        side = Side().opened()
        side.tell(*outputs(0, 10))
        answer = Reply(b"t", is_commit)
        assert side.tell(Phase1(b"t", ranges)) == [answer]
        assert (side.sink.prepared is not None) == is_commit

    @pytest.mark.parametrize("ranges", [(), ((1, 10, 10),)])
    def test_a_round_may_be_empty(
        self, ranges: tuple[tuple[int, int, int], ...]
    ) -> None:
        """A transaction without outputs is prepared and settled like any other."""
        side = Side(ModelSink(WHOLE[:10])).opened()
        assert side.tell(Phase1(b"t", ranges), commit(b"t")) == [yes(b"t")]
        assert side.tell(*outputs(10, 12), Phase1(b"u", ((1, 10, 12),))) == [yes(b"u")]

    @pytest.mark.parametrize("end", [10, 12])
    def test_an_abort_takes_back(self, end: int) -> None:
        """After an abort, of a refused one too, the same offsets come again."""
        side = Side().opened()
        side.tell(*outputs(0, 10), Phase1(b"t", ((1, 0, end),)))
        assert side.tell(abort(b"t")) == []
        assert side.sink.tail == b""
        assert side.tell(*outputs(0, 10), Phase1(b"u", ((1, 0, 10),))) == [yes(b"u")]
        side.tell(commit(b"u"))
        assert side.sink.committed == WHOLE[:10]

    @given(st.integers(0, 20), st.integers(1, 30), st.integers(1, 9))
    def test_what_is_final_may_come_again(
        self, start: int, size: int, size_max: int
    ) -> None:
        """Outputs that are final already are not written twice, and may be named."""
        side = Side(ModelSink(WHOLE[:20])).opened()
        end = start + size
        side.tell(*outputs(start, end, size_max))
        assert side.tell(Phase1(b"t", ((1, start, end),)), commit(b"t")) == [yes(b"t")]
        assert side.sink.committed == WHOLE[: max(20, end)]

    def test_a_prepared_transaction_is_named(self) -> None:
        """What was prepared over an older connection is named, and must be settled."""
        side = Side(ModelSink(WHOLE[:10], b"tail"))
        side.sink.prepare(b"t")
        assert side.tell(*OPENING)[-1] == ReplyUncommitted(7, (b"t",))
        assert side.session.state is State.PREPARED
        assert "Message may not come" in side.refusal(*outputs(14, 20))
        assert side.sink.prepared is not None
        side.session = Session(side.receiver)
        side.tell(hello(), abort(b"t"))
        assert (side.sink.tail, side.session.state) == (b"", State.GREETED)
        side.tell(Notify(1, b"out", 0))
        assert side.session.state is State.OPEN

    def test_other_streams_stay_closed(self) -> None:
        """Stream 1 alone is opened; others are answered with no success."""
        side = Side()
        side.tell(hello())
        refused = NotifyAck(False, 2, NO_POINT)  # noqa: FBT003 - as sent
        assert side.tell(Notify(2, b"x", 0)) == [refused]
        assert "stream 2, which is closed" in side.refusal(
            Notify(1, b"out", 0), Message(2, 0, 0, b"", b"x")
        )

    def test_a_closed_stream_may_be_opened_again(self) -> None:
        """The end of the stream takes an unfinished round back."""
        side = Side().opened()
        side.tell(*outputs(0, 10), EndOfStream(1, 3))
        assert (side.sink.tail, side.session.state) == (b"", State.GREETED)
        side.tell(Notify(1, b"out", 0), *outputs(0, 5))
        assert side.sink.tail == WHOLE[:5]

    @pytest.mark.parametrize(
        ("frames", "reason"),
        [
            (outputs(11, 12), "from byte 11 on, where the file ends at 10"),
            ([*outputs(10, 12), *outputs(13, 14)], "from byte 13 on, where 12 is next"),
            ([*outputs(10, 12), *outputs(10, 12)], "from byte 10 on, where 12 is next"),
            ([Message(1, 5, 0, b"", b"other")], "that differ from those in the file"),
            ([Message(1, 2**64 - 2, 0, b"", b"x")], "where the file ends at 10"),
            ([Phase1(b"old", ())], "transaction 'old' is empty or committed already"),
            ([Phase1(b"", ())], "transaction '' is empty or"),
            ([commit(b"never")], "transaction 'never' is not prepared here"),
            ([abort(b"old")], "transaction 'old' is committed here"),
            ([Phase1(b"t", ((1, 0, 9),)), commit(b"t")], "'t' is not prepared"),
            ([EndOfStream(3)], "the end of stream 3, which is closed"),
            ([commit(b"x" * 60_000)], "transaction 'xxx"),
        ],
        ids=range(12),
    )
    def test_what_may_not_be_is_refused(
        self, frames: list[Frame | Phase], reason: str
    ) -> None:
        """A frame out of order ends the session with its reason, and harms nothing."""
        side = Side(ModelSink(WHOLE[:10], last_committed=b"old")).opened()
        said = side.refusal(*frames)
        assert reason in said
        assert len(said) <= REASON_CHARS_MAX
        assert side.sink == ModelSink(WHOLE[:10], last_committed=b"old")

    def test_what_is_decided_already_does_no_harm(self) -> None:
        """The last commit again, and aborts of the unknown, change nothing."""
        side = Side(ModelSink(WHOLE[:10], last_committed=b"old")).opened()
        side.tell(*outputs(10, 15))
        assert side.tell(commit(b"old"), abort(b"never"), *outputs(15, 20)) == []
        assert side.tell(Phase1(b"t", ((1, 10, 20),)), commit(b"old")) == [yes(b"t")]
        assert side.session.state is State.PREPARED

    def test_an_error_is_heard(self) -> None:
        """A server's own ERROR ends the session without an answer, and is told."""
        side = Side().opened()
        side.tell(*outputs(0, 5))
        assert side.tell(Error(b"enough\n")) == []
        assert side.session.reason == "the server says: 'enough\\n'"
        assert (side.sink.tail, side.receiver.holder) == (b"", None)

    def test_the_same_instance_takes_over(self) -> None:
        """A newer connection of an instance ends its older one, whose round is lost."""
        side = Side().opened()
        older = side.session
        side.tell(*outputs(0, 5))
        side.session = Session(side.receiver)
        side.opened()
        assert older.state is State.ENDED
        assert older.receive(encoded(*outputs(5, 6))) == b""
        side.tell(*outputs(0, 3))
        older.end("late")
        assert side.sink.tail == WHOLE[:3]

    def test_another_instance_is_refused(self) -> None:
        """While one instance is connected, another has to wait for its end."""
        side = Side().opened()
        first, side.session = side.session, Session(side.receiver)
        assert "instance 'one' is connected; 'two' has" in side.refusal(hello(b"two"))
        assert first.state is State.OPEN
        first.end("")
        side.session = Session(side.receiver)
        assert side.tell(hello(b"two")) == [Ok(CREDITS)]

    def test_outputs_are_not_copied(self) -> None:
        """What the sink is handed is a view of what was received."""
        side = Side().opened()
        handed: list[Sequence[bytes | memoryview]] = []

        class Watched(ModelSink):
            """A sink that is looked at."""

            def put(self, offset: int, payloads: Sequence[bytes | memoryview]) -> bool:
                """Note what came."""
                handed.append(list(payloads))
                return super().put(offset, payloads)

        side.receiver.sink = Watched()
        frames = encoded(*outputs(0, 9000, 4000))
        side.session.receive(frames)
        [payloads] = handed
        assert [each.obj for each in payloads if isinstance(each, memoryview)] == [
            frame.obj for frame in frames
        ]
        assert sum(map(len, frames)) < FRAME_BYTES_MAX


class ServerMachine(RuleBasedStateMachine):
    """A model server with a durable record, and crashes of either end.

    The record is (offset, transaction): cursor and decision in one.
    """

    def __init__(self) -> None:
        super().__init__()
        self.side = Side()
        self.record: tuple[int, bytes] = (0, b"none")
        self.is_connected = False
        self.round: tuple[int, int] | None = None
        self.asked: bytes | None = None
        self.decided: Phase2 | None = None
        self.number = 0

    @property
    def may_send(self) -> bool:
        """Say whether outputs may go out."""
        return self.is_connected and self.asked is None

    @precondition(lambda self: not self.is_connected)
    @rule()
    def connect(self) -> None:
        """Connect, settle what is named, and go on from the record."""
        self.side.session = Session(self.side.receiver)
        *_, named = self.side.tell(*OPENING)
        assert isinstance(named, ReplyUncommitted)
        for name in named.transactions:
            is_commit = name == self.record[1]
            assert self.side.tell(Phase2(name, is_commit)) == []
        assert self.side.session.state is State.OPEN
        self.is_connected = True
        self.round = self.asked = self.decided = None
        # All that the server has decided is final now, and nothing else is.
        assert self.side.sink.committed == WHOLE[: self.record[0]]

    @precondition(lambda self: self.may_send)
    @rule(size=st.integers(0, 60), size_max=st.integers(1, 40))
    def send(self, size: int, size_max: int) -> None:
        """Send outputs."""
        start, end = self.round or (self.record[0], self.record[0])
        assert self.side.tell(*outputs(end, end + size, size_max)) == []
        self.round = start, end + size

    @precondition(lambda self: self.may_send)
    @rule(is_right=st.sampled_from([True, True, False]))
    def ask(self, is_right: bool) -> None:
        """Ask whether the round can be kept; wrong ranges get a no."""
        start, end = self.round or (self.record[0], self.record[0])
        self.number += 1
        self.asked = b"t%d" % self.number
        answer = self.side.tell(Phase1(self.asked, ((1, start, end + (not is_right)),)))
        assert answer == [Reply(self.asked, is_right)]
        self.decided = abort(self.asked)
        self.round = start, end

    @precondition(lambda self: self.is_connected and self.asked and not self.is_no)
    @rule()
    def decide(self) -> None:
        """Flush the record: from here on it is a commit."""
        assert self.asked is not None
        assert self.round is not None
        self.record = self.round[1], self.asked
        self.decided = commit(self.asked)

    @property
    def is_no(self) -> bool:
        """Say whether the sink refused."""
        return self.side.session.state is State.REFUSED

    @precondition(lambda self: self.is_connected and self.decided is not None)
    @rule()
    def tell_decision(self) -> None:
        """Tell the sink; it may be told twice."""
        assert self.decided is not None
        assert self.side.tell(self.decided) == []
        assert self.side.tell(self.decided) == []
        self.round = self.asked = self.decided = None
        assert self.side.sink.committed == WHOLE[: self.record[0]]

    @rule(is_silent=st.booleans())
    def lose_connection(self, is_silent: bool) -> None:
        """Lose the connection; the receiver may not notice."""
        if not is_silent:
            self.side.session.end("lost")
        self.is_connected = False

    @rule()
    def crash_receiver(self) -> None:
        """Lose the receiver: what is neither committed nor prepared is gone."""
        self.side.sink.take_back()
        self.side = Side(self.side.sink)
        self.is_connected = False

    @precondition(lambda self: self.is_connected)
    @rule()
    def disturb(self) -> None:
        """Let another instance and a stranger try, in vain."""
        for frame in (hello(b"two"), Restart()):
            stranger = Session(self.side.receiver)
            [error] = decoded(stranger.receive(encoded(frame)))
            assert isinstance(error, Error)

    @invariant()
    def is_a_beginning(self) -> None:
        """What is final is a beginning of the whole output, at most what is decided."""
        sink = self.side.sink
        assert WHOLE[: self.record[0]].startswith(sink.committed)
        assert WHOLE.startswith(sink.committed + sink.tail)


TestServerMachine = ServerMachine.TestCase
