"""Connector senders, streams and commits in any order, crashes included.

The model is simple: a stream is the even numbers, and a sender that was told a point
goes on behind it, or further back. Then whatever happens, what is in the log of a
stream is its first numbers, in order, each once, up to the stream's durable point.
"""

import struct
from typing import TYPE_CHECKING

import attrs
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from alphabet import framing
from alphabet.connector import message_run
from alphabet.connector.frames import (
    NO_POINT,
    Ack,
    EndOfStream,
    Error,
    Frame,
    Hello,
    Notify,
    NotifyAck,
    Ok,
)
from alphabet.connector.streams import Streams
from tests.connector_senders import Talk, flood, message, refused, wire

if TYPE_CHECKING:
    from alphabet.connector.inbound import Taken
    from log.block import Point

CREDITS = 40
STREAMS = (1, 2, 3)

foul_frames = st.sampled_from(
    [
        Hello(b"0.0.1", b"", b"", b""),
        Ack(3),
        message(9, 1),
        EndOfStream(9),
        message(9, NO_POINT),
        Ok(1),
        Notify(1, b"another name", 0),
    ]
)


@pytest.fixture(autouse=True)
def _small_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a few messages be a flood."""
    for module in (framing, message_run):
        monkeypatch.setattr(module, "RUN_FRAMES_MIN", 2)


@attrs.define(eq=False)
class Peer:
    """A sender as the model has it.

    `next_index` is by stream the number of the next even number, None while the
    stream's NOTIFY is unanswered.
    """

    talk: Talk
    next_index: dict[int, int | None] = attrs.Factory(dict)
    spent: int = 0
    returned: int = 0
    refusals: int = 0
    ends_due: list[int] = attrs.Factory(list)
    is_over: bool = False

    @property
    def open_streams(self) -> list[int]:
        """The streams that were granted."""
        return [each for each, at in self.next_index.items() if at is not None]


class ConnectorMachine(RuleBasedStateMachine):
    """One server at a time, its connections, and the log that outlives it."""

    def __init__(self) -> None:
        super().__init__()
        self.counts = dict.fromkeys(STREAMS, 0)
        self.points: dict[int, Point] = {}
        self.inbox: list[Taken] = []
        self.peers: list[Peer] = []
        self.streams = Streams()

    def peer(self, choice: int) -> Peer:
        """Choose one of the connections."""
        return self.peers[choice % len(self.peers)]

    @precondition(lambda self: len(self.peers) < 6)
    @rule(instance=st.sampled_from([b"a", b"b"]))
    def connect(self, instance: bytes) -> None:
        """Connect, of one of two instances."""
        peer = Peer(Talk.begin(self.streams, CREDITS))
        self.peers.append(peer)
        answers = peer.talk.say(Hello(b"0.0.1", b"", b"p", instance))
        assert answers == [Ok(CREDITS)]

    @precondition(lambda self: self.peers)
    @rule(choice=st.integers(0, 5), stream_id=st.sampled_from(STREAMS))
    def notify(self, choice: int, stream_id: int) -> None:
        """Ask for a stream."""
        peer = self.peer(choice)
        if stream_id not in peer.next_index:
            peer.next_index[stream_id] = None
            peer.spent += 1
            self.say(peer, wire(Notify(stream_id, b"name", 0)))

    @precondition(lambda self: self.peers)
    @rule(
        choice=st.integers(0, 5),
        stream_choice=st.integers(0, 2),
        count=st.integers(1, 6),
        back=st.integers(0, 4),
        key=st.sampled_from([b"", b"key"]),
    )
    def send(
        self, choice: int, stream_choice: int, count: int, back: int, key: bytes
    ) -> None:
        """Send what comes next, after some that were sent before."""
        peer = self.peer(choice)
        found = peer.open_streams
        if not found:
            return
        stream_id = found[stream_choice % len(found)]
        at = peer.next_index[stream_id] or 0
        indexes = range(max(at - back, 0), at + count)
        if peer.spent - peer.returned + len(indexes) > 2 * CREDITS:
            return
        peer.next_index[stream_id] = indexes.stop
        peer.spent += len(indexes)
        self.say(peer, flood(stream_id, (2 * each for each in indexes), key))

    @precondition(lambda self: self.peers)
    @rule(choice=st.integers(0, 5), stream_choice=st.integers(0, 2))
    def end_stream(self, choice: int, stream_choice: int) -> None:
        """Close a stream."""
        peer = self.peer(choice)
        found = peer.open_streams
        if found:
            stream_id = found[stream_choice % len(found)]
            del peer.next_index[stream_id]
            peer.ends_due.append(stream_id)
            self.say(peer, wire(EndOfStream(stream_id)))

    @precondition(lambda self: self.peers)
    @rule(choice=st.integers(0, 5), frame=foul_frames)
    def be_foul(self, choice: int, frame: Frame) -> None:
        """Break the protocol: that connection ends with an ERROR."""
        peer = self.peer(choice)
        if isinstance(frame, Notify) and frame.stream_id not in self.points:
            return  # A stream that nobody knows has no name yet.
        self.say(peer, wire(frame, message(1, 2**62)))
        assert peer.is_over

    @precondition(lambda self: self.peers)
    @rule(choice=st.integers(0, 5))
    def overdraw(self, choice: int) -> None:
        """Use more than twice the credits: what was within them counts."""
        peer = self.peer(choice)
        for stream_id in peer.open_streams[:1]:
            at = peer.next_index[stream_id] or 0
            indexes = range(at, at + 2 * CREDITS + 1)
            self.say(peer, flood(stream_id, (2 * each for each in indexes)))
            assert peer.is_over

    @precondition(lambda self: self.peers)
    @rule(choice=st.integers(0, 5), is_reset=st.booleans())
    def close(self, choice: int, *, is_reset: bool) -> None:
        """Close, or be cut off."""
        peer = self.peer(choice)
        if is_reset:
            peer.talk.machine.lost()
        else:
            peer.talk.machine.half_closed()
        peer.next_index.clear()
        self.peers.remove(peer)
        self.hear_all()

    @precondition(lambda self: self.inbox)
    @rule(count=st.integers(1, 4))
    def commit(self, count: int) -> None:
        """Commit the oldest of what was taken; tell of it."""
        for taken in self.inbox[:count]:
            self.points |= {point.stream_id: point for point in taken.points}
            for piece in taken.pieces:
                for payload in piece.payloads:
                    self.apply(payload)
        for taken in self.inbox[:count]:
            self.streams.settle(taken.points)
        del self.inbox[:count]
        self.hear_all()

    @rule(is_stored=st.booleans())
    def crash(self, *, is_stored: bool) -> None:
        """End the server, perhaps after a commit that nobody was told of."""
        if is_stored and self.inbox:
            peers, self.peers = self.peers, []
            self.commit(1)
            self.peers = peers
        self.inbox.clear()
        self.peers.clear()
        self.streams = Streams.begin(self.points.values())

    def say(self, peer: Peer, data: bytes) -> None:
        """Put bytes to a connection, and let all others hear what came of it."""
        answers = peer.talk.send(data)
        self.inbox += peer.talk.given
        peer.talk.given.clear()
        self.hear(peer, answers)
        self.hear_all()

    def hear_all(self) -> None:
        """Let every connection hear what it is told."""
        for peer in list(self.peers):
            self.hear(peer, peer.talk.answers())

    def hear(self, peer: Peer, answers: list[Frame]) -> None:
        """Check what a connection is told."""
        for answer in answers:
            assert not peer.is_over, f"{answer} behind an ERROR"
            match answer:
                case Ack():
                    self.hear_ack(peer, answer)
                case NotifyAck(is_success=True):
                    self.hear_grant(peer, answer)
                case NotifyAck():
                    assert answer == refused(answer.stream_id)
                    del peer.next_index[answer.stream_id]
                    peer.refusals += 1
                case _:
                    assert isinstance(answer, Error)
                    peer.is_over = True
                    self.peers.remove(peer)

    def hear_ack(self, peer: Peer, ack: Ack) -> None:
        """An ACK tells points as they are stored, and gives back what was spent."""
        peer.returned += ack.credits
        assert peer.returned <= peer.spent
        for stream_id, point in ack.points:
            assert point == self.durable(stream_id)
            if stream_id in peer.ends_due:
                peer.ends_due.remove(stream_id)

    def hear_grant(self, peer: Peer, answer: NotifyAck) -> None:
        """A stream is granted to one, at its durable point, nothing being in flight."""
        stream_id = answer.stream_id
        assert answer.point == self.durable(stream_id)
        assert not any(
            point.stream_id == stream_id
            for taken in self.inbox
            for point in taken.points
        )
        others = [each for each in self.peers if each is not peer]
        assert not any(
            stream_id in each.open_streams and each.talk.machine.is_heard
            for each in others
        )
        point = answer.point
        peer.next_index[stream_id] = 0 if point == NO_POINT else point // 2 + 1

    def durable(self, stream_id: int) -> int:
        """Give what is stored of a stream, as it goes over the wire."""
        point = self.points.get(stream_id)
        return NO_POINT if point is None else point.message_id

    def apply(self, payload: bytes) -> None:
        """Count a payload: it must be the next of its stream."""
        stream_id, message_id = struct.unpack(">HQ", payload)
        assert message_id == 2 * self.counts[stream_id]
        self.counts[stream_id] += 1

    @invariant()
    def points_are_where_the_log_is(self) -> None:
        """A stream's point is the last of its messages that counted."""
        assert {
            stream_id: point.message_id for stream_id, point in self.points.items()
        } == {
            stream_id: 2 * (count - 1)
            for stream_id, count in self.counts.items()
            if count
        }

    @invariant()
    def nothing_is_left_unsaid(self) -> None:
        """When all is durable every credit is back, and every stream's end answered."""
        if not self.inbox:
            for peer in self.peers:
                assert not peer.ends_due
                assert None not in peer.next_index.values()
                left = peer.spent - peer.returned
                assert left <= peer.refusals
                assert left < CREDITS / 2


TestConnectorMachine = ConnectorMachine.TestCase
