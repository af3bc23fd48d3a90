"""Alphabet's part of a two-phase sink's connection: every transition, and no other.

The rule-based machine drives it against the model sink, with every crash there is.
"""

import itertools
from collections import deque
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
)

from alphabet.connector.frames import (
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
from alphabet.connector.outbound import (
    NO_TRANSACTION,
    Actions,
    ConnectorOut,
    Decide,
    Derive,
    End,
    Round,
    State,
    payloads,
)
from alphabet.connector.phases import (
    ListUncommitted,
    Phase1,
    Phase2,
    Reply,
    ReplyUncommitted,
    encode_phase,
)
from log.row import Cursor
from tests.toy import outputs
from tests.two_phase_sink import Memory, Session

HELLO = Hello(b"v0.0.1", b"cookie", b"program", b"instance")
RECORD = Cursor(7, 100, b"before")
TRANSACTION = b"100-103-id"
SHORT = st.binary(max_size=6)


def connector(record: Cursor = RECORD) -> ConnectorOut:
    """Make a connection that has not begun."""
    return ConnectorOut(HELLO, b"name", record, lambda: b"id")


def gathered(*pieces: bytes, after: int = 7) -> Round:
    """Gather the outputs of the events after one, each on its own."""
    made = Round(after)
    for number, piece in enumerate(pieces, after + 1):
        made.add(outputs(number, [piece]))
    return made


def told(machine: ConnectorOut, frame: Frame | bytes) -> Actions:
    """Let the sink send a frame."""
    data = frame if isinstance(frame, bytes) else encode_frame(frame)
    return machine.receive(data[4:])


OK = encode_frame(Ok(3))
OPENED = encode_frame(NotifyAck(is_success=True, stream_id=1, point=55))
REFUSED = encode_frame(NotifyAck(is_success=False, stream_id=1, point=0))
UNCOMMITTED = encode_phase(ReplyUncommitted(1, ()))
YES = encode_phase(Reply(TRANSACTION, is_commit=True))
NO = encode_phase(Reply(TRANSACTION, is_commit=False))
CREDITS = encode_frame(Ack(2, ((1, 5),)))
FAILED = encode_frame(Error(b"why"))
RESTART = encode_frame(Restart())

WAYS: dict[State, list[Callable[[ConnectorOut], Actions]]] = {
    State.GREETING: [lambda machine: machine.begin()],
    State.OPENING: [lambda machine: told(machine, OK)],
    State.LISTING: [lambda machine: told(machine, OPENED)],
    State.IDLE: [lambda machine: told(machine, UNCOMMITTED)],
    State.PREPARING: [lambda machine: machine.send(gathered(b"abc"))],
    State.DECIDING: [lambda machine: told(machine, YES)],
}
"""How a connection comes to each state from the one before it."""

ALLOWED = {
    (State.GREETING, OK): State.OPENING,
    (State.OPENING, OPENED): State.LISTING,
    (State.LISTING, UNCOMMITTED): State.IDLE,
    (State.PREPARING, YES): State.DECIDING,
    (State.PREPARING, NO): State.IDLE,
}
"""What a sink may send, and where that leads, beside credits and endings."""

NEVER = [
    encode_frame(HELLO),
    encode_frame(Notify(1, b"name", 0)),
    encode_frame(Message(1, 0, 0, b"", b"data")),
    encode_frame(EndOfStream(1)),
    encode_phase(ListUncommitted(1)),
    encode_phase(Phase1(TRANSACTION, ())),
    encode_phase(Phase2(TRANSACTION, is_commit=True)),
    b"\0\0\0\0",
    b"\0\0\0\1\x63",
    b"\0\0\0\2\1\0",
]


def at(state: State) -> ConnectorOut:
    """Bring a connection to a state."""
    machine = connector()
    for each, ways in WAYS.items():
        for way in ways:
            way(machine)
        if each is state:
            break
    if state is State.PASSING:
        machine = at(State.IDLE)
        machine.pass_over(9)
    assert machine.state is state
    return machine


LIVE = [state for state in State if state is not State.ENDED]
every_live_state = pytest.mark.parametrize("state", LIVE)


class TestTransitions:
    """Each state against each frame."""

    def test_the_good_way(self) -> None:
        """From the greeting to the commit, each side says what the protocol wants."""
        machine = connector()
        said = [
            *machine.begin(),
            *told(machine, OK),
            *told(machine, OPENED),
            *told(machine, encode_phase(ReplyUncommitted(1, (b"before", b"other")))),
            *machine.send(gathered(b"ab", b"", b"c")),
            *told(machine, YES),
            *machine.flushed(),
        ]
        cursor = Cursor(10, 103, TRANSACTION)
        assert said == [
            encode_frame(HELLO),
            encode_frame(Notify(1, b"name", 100)),
            encode_phase(ListUncommitted(1)),
            encode_phase(Phase2(b"before", is_commit=True)),
            encode_phase(Phase2(b"other", is_commit=False)),
            Derive(),
            encode_frame(Message(1, 100, 0, b"", b"abc")),
            encode_phase(Phase1(TRANSACTION, ((1, 100, 103),))),
            Decide(cursor),
            encode_phase(Phase2(TRANSACTION, is_commit=True)),
        ]
        assert machine.record == cursor
        assert machine.sink_offset == 55
        assert machine.state is State.IDLE

    def test_a_no(self) -> None:
        """A transaction that is refused is aborted; its outputs are wanted again."""
        machine = at(State.PREPARING)
        assert told(machine, NO) == [
            encode_phase(Phase2(TRANSACTION, is_commit=False)),
            Derive(TRANSACTION),
        ]
        assert machine.record == RECORD
        assert machine.state is State.IDLE

    def test_events_without_output(self) -> None:
        """They move the cursor, and the sink hears nothing of it."""
        machine = at(State.IDLE)
        cursor = Cursor(9, 100, b"before")
        assert machine.pass_over(9) == [Decide(cursor)]
        assert machine.record == RECORD
        assert machine.flushed() == []
        assert machine.record == cursor
        assert machine.state is State.IDLE

    def test_nothing_is_committed_before_the_first(self) -> None:
        """A new sink's record is no transaction that a sink could name."""
        machine = connector(Cursor(0, 0, NO_TRANSACTION))
        for frame in (OK, OPENED):
            told(machine, frame)
        named = encode_phase(ReplyUncommitted(1, (b"0-5-id",)))
        assert told(machine, named)[0] == encode_phase(
            Phase2(b"0-5-id", is_commit=False)
        )

    @every_live_state
    @pytest.mark.parametrize(
        "frame", [OK, OPENED, UNCOMMITTED, YES, NO, *NEVER], ids=bytes.hex
    )
    def test_what_may_come_when(self, state: State, frame: bytes) -> None:
        """A frame that is early, late, doubled, malformed or no sink's ends it."""
        machine = at(state)
        actions = told(machine, frame)
        if (state, frame) in ALLOWED:
            assert machine.state is ALLOWED[state, frame]
            assert not any(isinstance(each, End) for each in actions)
            return
        error, end = actions
        assert isinstance(end, End)
        assert isinstance(error, bytes)
        assert decode_frame(error[4:]) == Error(end.reason.encode())
        assert machine.state is State.ENDED

    @every_live_state
    def test_credits(self, state: State) -> None:
        """Credits mean nothing, but that they may not come before all else."""
        machine = at(state)
        actions = told(machine, CREDITS)
        if state is State.GREETING:
            assert machine.state is State.ENDED
        else:
            assert actions == []
            assert machine.state is state

    @every_live_state
    @pytest.mark.parametrize(
        ("frame", "reason"),
        [(FAILED, "the sink says 'why'"), (RESTART, "the sink wants a new connection")],
    )
    def test_the_sink_ends_it(self, state: State, frame: bytes, reason: str) -> None:
        """A sink may end a connection at any time, and is not answered."""
        machine = at(state)
        assert told(machine, frame) == [End(reason)]
        assert machine.state is State.ENDED

    def test_a_stream_that_is_not_opened(self) -> None:
        """A sink may refuse the stream."""
        machine = at(State.OPENING)
        assert told(machine, REFUSED) == [End("the sink does not open its stream")]

    @pytest.mark.parametrize(
        ("state", "frame", "reason"),
        [
            (
                State.OPENING,
                encode_frame(NotifyAck(is_success=True, stream_id=2, point=0)),
                "stream 2, not ours",
            ),
            (
                State.OPENING,
                encode_frame(NotifyAck(is_success=False, stream_id=2, point=0)),
                "stream 2, not ours",
            ),
            (
                State.LISTING,
                encode_phase(ReplyUncommitted(2, ())),
                "list 2, which was not asked",
            ),
            (
                State.PREPARING,
                encode_phase(Reply(b"other", is_commit=True)),
                "a reply for 'other', not for '100-103-id'",
            ),
            (
                State.PREPARING,
                encode_phase(Reply(b"other", is_commit=False)),
                "a reply for 'other', not for '100-103-id'",
            ),
        ],
    )
    def test_about_something_else(
        self, state: State, frame: bytes, reason: str
    ) -> None:
        """An answer to what was not asked ends it."""
        machine = at(state)
        _, end = told(machine, frame)
        assert isinstance(end, End)
        assert reason in end.reason

    @every_live_state
    def test_our_own_mistakes(self, state: State) -> None:
        """Its owner may begin a round or tell of a flush only where that is awaited."""
        ours: list[tuple[Callable[[ConnectorOut], Actions], set[State]]] = [
            (lambda machine: machine.send(gathered(b"abc")), {State.IDLE}),
            (lambda machine: machine.pass_over(9), {State.IDLE}),
            (ConnectorOut.flushed, {State.DECIDING, State.PASSING}),
        ]
        for call, states in ours:
            machine = at(state)
            if state in states:
                call(machine)
            else:
                with pytest.raises(ValueError, match="came while we wait"):
                    call(machine)
                assert machine.state is state

    def test_a_round_has_outputs(self) -> None:
        """A round of events without output is a mistake of its owner."""
        with pytest.raises(ValueError, match="a round without outputs"):
            at(State.IDLE).send(gathered(b""))

    @every_live_state
    @given(bodies=st.lists(st.binary(max_size=40), max_size=4))
    def test_any_bytes(self, state: State, bodies: list[bytes]) -> None:
        """Whatever comes, it is an answer or the end, and nothing is committed."""
        machine = at(state)
        record = machine.record
        for body in bodies:
            if machine.state is not State.ENDED:
                machine.receive(body)
        assert machine.record == record

    @given(reason=st.binary(max_size=300))
    def test_reasons_are_safe_to_print(self, reason: bytes) -> None:
        """What a sink gives as its reason is one printable line, and not too long."""
        [end] = told(at(State.IDLE), Error(reason))
        assert isinstance(end, End)
        assert end.reason.isprintable()
        assert len(end.reason) < 250


class TestRound:
    """Outputs gathered for one transaction."""

    def test_only_what_follows(self) -> None:
        """Outputs that leave a gap or come twice are refused: all rests on that."""
        made = gathered(b"a")
        for first in (7, 8, 10):
            with pytest.raises(ValueError, match=f"outputs from {first} after 8"):
                made.add(outputs(first, [b"x"]))

    @given(st.lists(st.lists(SHORT, min_size=1), max_size=8), st.integers(1, 8))
    def test_payloads(self, pieces: list[list[bytes]], bytes_max: int) -> None:
        """Payloads are all outputs in order; each is whole ones, or a part of one."""
        made = []
        sequence = 1
        for piece in pieces:
            made.append(outputs(sequence, piece))
            sequence += len(piece)
        found = list(payloads(made, bytes_max))
        flat = [output for piece in pieces for output in piece]
        assert b"".join(found) == b"".join(flat)
        assert all(0 < len(each) <= bytes_max for each in found)
        ends = {0, *itertools.accumulate(map(len, flat))}
        reached = 0
        for each in found:
            reached += len(each)
            within = max(end for end in ends if end <= reached)
            # An end inside an output: it is longer than what a payload takes.
            following = min(end for end in ends if end >= reached)
            assert reached in ends or following - within > bytes_max

    @given(st.lists(st.integers(1, 4), min_size=1), st.integers(4, 12))
    def test_payloads_are_as_large_as_they_may_be(
        self, sizes: list[int], bytes_max: int
    ) -> None:
        """A payload ends only where the next output has no room in it."""
        made = [outputs(n, [bytes(size)]) for n, size in enumerate(sizes, 1)]
        found = list(map(len, payloads(made, bytes_max)))
        # The payload after one begins with the output that had no room in it.
        starts = list(itertools.accumulate(found, initial=0))
        first = dict(zip(itertools.accumulate(sizes, initial=0), sizes, strict=False))
        assert all(
            size + first[start] > bytes_max
            for size, start in zip(found[:-1], starts[1:-1], strict=True)
        )


class World(RuleBasedStateMachine):
    """A server and a sink that crash, a wire that is cut, and a log that is flushed.

    `events` are the outputs of all events that are durable; `record` is what the log
    has of the sink, and `deciding` what was handed over to be flushed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.events: list[bytes] = []
        self.record = Cursor(0, 0, NO_TRANSACTION)
        self.deciding: Cursor | None = None
        self.memory = Memory()
        self.willing = True
        self.numbers = itertools.count()
        self.to_sink: deque[bytes] = deque()
        self.to_us: deque[bytes] = deque()
        self.machine: ConnectorOut | None = None
        self.session: Session | None = None
        self.round: Round | None = None
        self.connect()

    @property
    def whole(self) -> bytes:
        """All outputs of the log."""
        return b"".join(self.events)

    def obey(self, actions: Actions) -> None:
        """Do what the machine asks for."""
        for action in actions:
            match action:
                case Decide(cursor=cursor):
                    assert self.deciding is None
                    self.deciding = cursor
                case Derive():
                    self.round = Round(self.record.sequence)
                case End():
                    raise AssertionError(action.reason)
                case _:
                    self.to_sink.append(action)

    @precondition(lambda self: self.machine is None and self.deciding is None)
    @rule()
    def connect(self) -> None:
        """Connect anew, once what was handed over is known."""
        self.session = Session(self.memory, lambda: self.willing)
        self.machine = ConnectorOut(
            HELLO, b"name", self.record, lambda: b"%d" % next(self.numbers)
        )
        self.obey(self.machine.begin())

    @rule(pieces=st.lists(SHORT, min_size=1, max_size=4))
    def append(self, pieces: list[bytes]) -> None:
        """Events become durable."""
        self.events += pieces

    @precondition(lambda self: self.round is not None)
    @rule(count=st.integers(1, 5))
    def gather(self, count: int) -> None:
        """Take outputs for the coming round."""
        assert self.round is not None
        start = self.round.last_sequence
        pieces = self.events[start : start + count]
        if pieces:
            self.round.add(outputs(start + 1, pieces))

    @precondition(lambda self: self.machine and self.machine.state is State.IDLE)
    @rule()
    def send(self) -> None:
        """Begin a round, or move over events without output."""
        assert self.machine is not None
        made = self.round
        assert made is not None
        if made.outputs_bytes:
            self.round = Round(made.last_sequence)
            self.obey(self.machine.send(made))
        elif made.last_sequence > self.record.sequence:
            self.obey(self.machine.pass_over(made.last_sequence))

    @precondition(lambda self: self.to_sink)
    @rule()
    def deliver_to_sink(self) -> None:
        """The sink takes a frame, and answers."""
        assert self.session is not None
        self.to_us += self.session.receive(self.to_sink.popleft()[4:])

    @precondition(lambda self: self.to_us)
    @rule()
    def deliver_to_us(self) -> None:
        """We take a frame."""
        assert self.machine is not None
        self.obey(self.machine.receive(self.to_us.popleft()[4:]))

    @precondition(lambda self: self.deciding)
    @rule()
    def flush(self) -> None:
        """What was handed over is durable; it may be that nobody waits any more."""
        assert self.deciding is not None
        self.record, self.deciding = self.deciding, None
        if self.machine is not None:
            self.obey(self.machine.flushed())
            assert self.machine.record == self.record

    @precondition(lambda self: self.machine)
    @rule()
    def cut(self) -> None:
        """The wire is cut, or the sink dies: what was on it is lost."""
        self.machine = self.session = self.round = None
        self.to_sink.clear()
        self.to_us.clear()

    @rule()
    def crash(self) -> None:
        """The server dies: what was not flushed is lost, too."""
        self.cut()
        self.deciding = None

    @precondition(lambda self: self.to_sink)
    @rule(count=st.integers(0, 6))
    def die_in_the_midst(self, count: int) -> None:
        """The server dies when some of what it has sent had left."""
        for _ in range(min(count, len(self.to_sink))):
            self.deliver_to_sink()
        self.crash()

    @rule(willing=st.booleans())
    def change_mind(self, *, willing: bool) -> None:
        """The sink says no from now on, or yes."""
        self.willing = willing

    @invariant()
    def committed_is_a_prefix(self) -> None:
        """What took effect is the beginning of the whole output, byte for byte."""
        assert self.whole.startswith(self.memory.committed)

    @invariant()
    def nothing_is_committed_before_its_record(self) -> None:
        """The sink has what the record says at most, and the rest is prepared there."""
        due = self.record.offset - len(self.memory.committed)
        prepared = self.memory.prepared.get(self.record.transaction_id, b"")
        assert due == len(prepared)

    @invariant()
    def the_record_is_within_the_log(self) -> None:
        """A decision is never ahead of the durable log; its offset is its events'."""
        for cursor in filter(None, (self.record, self.deciding)):
            assert cursor.sequence <= len(self.events)
            assert cursor.offset == len(b"".join(self.events[: cursor.sequence]))

    @rule(steps=st.integers(1, 30))
    def go_on(self, steps: int) -> None:
        """For a while all goes well."""
        for _ in range(steps):
            self.step()

    @rule(is_flushed=st.booleans())
    def overtake(self, *, is_flushed: bool) -> None:
        """The cursor moves over a silent event before the sink knows of a commit."""
        for _ in range(40):
            is_idle = self.machine and self.machine.state is State.IDLE
            if (is_idle and self.to_sink) or not self.step():
                break
        if self.machine is None or self.machine.state is not State.IDLE:
            return
        assert self.round is not None
        self.append([b""])
        self.gather(len(self.events))
        if not self.round.outputs_bytes:
            self.send()
            if is_flushed:
                self.flush()

    def step(self) -> bool:
        """Do what is next where nothing goes wrong; say whether there was anything."""
        if self.deciding:
            self.flush()
        elif self.machine is None:
            self.connect()
        elif self.to_us:
            self.deliver_to_us()
        elif self.to_sink:
            self.deliver_to_sink()
        elif self.round and self.round.last_sequence < len(self.events):
            self.gather(5)
        elif self.record.sequence < len(self.events):
            self.send()
        else:
            return False
        return True

    def teardown(self) -> None:
        """In the end, when nobody crashes any more, all has taken effect."""
        self.willing = True
        while self.step():
            pass
        assert self.memory.committed == self.whole
        assert not self.memory.prepared


TestWorld = World.TestCase
