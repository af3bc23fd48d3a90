"""One connector sender's connection: what is taken, answered, and refused."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphabet.connector.frames import (
    MESSAGE_HEAD_BYTES,
    NO_POINT,
    Ack,
    EndOfStream,
    Error,
    Frame,
    Hello,
    Message,
    Notify,
    Ok,
    Restart,
    encode_frame,
)
from alphabet.connector.inbound import CREDITS, ConnectorIn, Phase
from alphabet.connector.message_run import frame_bytes_max
from alphabet.connector.streams import Streams
from alphabet.framing import FrameReader, Run, decode_length
from log.block import Point
from tests.connector_senders import (
    HELLO,
    PAYLOAD_BYTES_MAX,
    Talk,
    flood,
    granted,
    message,
    refused,
    telling,
    wire,
)

NOTIFY = Notify(1, b"name", 0)
OTHER = Hello(b"0.0.1", b"", b"program", b"other")


def reason(answers: list[Frame]) -> str:
    """Give the reason of the ERROR that must be the last answer."""
    assert isinstance(answers[-1], Error)
    return answers[-1].reason.decode()


class TestGreeting:
    """What comes first."""

    def test_hello_is_answered_with_credits(self) -> None:
        """A good HELLO is answered by OK with the initial credits."""
        assert Talk.begin(initial_credits=7).say(HELLO) == [Ok(7)]

    @pytest.mark.parametrize("version", [b"", b"v0.0.1", b"0.0.2", b"0.0.1 "])
    def test_another_version(self, version: bytes) -> None:
        """Any other version is refused by its name."""
        answers = Talk.begin().say(Hello(version, b"", b"", b""))
        assert reason(answers) == f"version {version!r} is not spoken: 0.0.1"

    @pytest.mark.parametrize("cookie", [b"", b"secre", b"secret\n", b"SECRET"])
    def test_another_cookie(self, cookie: bytes) -> None:
        """A cookie that is not the server's is refused, and neither is told."""
        answers = Talk.begin(cookie=b"secret").say(Hello(b"0.0.1", cookie, b"", b""))
        assert reason(answers) == "the cookie is not the server's"
        assert Talk.begin(cookie=b"secret").say(
            Hello(b"0.0.1", b"secret", b"", b"")
        ) == [Ok(100)]

    def test_hello_has_a_deadline(self) -> None:
        """A connection that has not said HELLO in time ends; one that has does not."""
        late, early = Talk.begin(), Talk.begin()
        early.say(HELLO)
        for talk in (late, early):
            talk.machine.tick(9.9)
            assert talk.machine.is_heard
            talk.machine.tick(10.0)
        assert reason(late.answers()) == "no HELLO came in time"
        assert early.machine.is_heard

    @pytest.mark.parametrize(
        "frame", [NOTIFY, message(1, 1), EndOfStream(1), Ack(1), Ok(1), Restart()]
    )
    def test_nothing_comes_before_hello(self, frame: Frame) -> None:
        """Whatever else comes first ends the connection, a HELLO behind it or not."""
        answers = Talk.begin().say(frame, HELLO)
        assert len(answers) == 1
        assert reason(answers).endswith("not Hello")


class TestStreams:
    """Streams are opened and closed."""

    def test_the_durable_point_is_told(self) -> None:
        """NOTIFY is answered with the last durable message id, if there is one."""
        streams = Streams.begin([Point(1, 41, b"name")])
        talk = Talk.begin(streams)
        talk.say(HELLO)
        assert talk.say(NOTIFY) == [granted(1, 41), Ack(1)]
        assert talk.say(Notify(2, b"", 9)) == [granted(2, NO_POINT), Ack(1)]

    def test_an_answer_waits_for_what_is_in_flight(self) -> None:
        """A stream whose last holder left something in flight opens when it settled."""
        first = Talk.opened(1)
        first.say(message(1, 5), message(1, 6))
        first.machine.lost()
        second = Talk.begin(first.machine.streams)
        assert second.say(HELLO, NOTIFY) == [Ok(100)]
        assert first.settle() == []
        assert second.answers() == [granted(1, 6), Ack(1)]

    def test_a_held_stream_is_refused(self) -> None:
        """Another instance is refused, and has its credit back when it is free."""
        holder = Talk.opened(1)
        other = Talk.begin(holder.machine.streams)
        assert other.say(OTHER, NOTIFY) == [Ok(100), refused(1)]
        holder.machine.lost()
        assert other.answers() == [Ack(1)]
        assert other.say(NOTIFY) == [granted(1, NO_POINT), Ack(1)]

    def test_refusals_do_not_eat_the_credits(self) -> None:
        """Half the credits used for refused streams are given back at once."""
        holder = Talk.opened(1)
        other = Talk.begin(holder.machine.streams, initial_credits=4)
        no = refused(1)
        assert other.say(OTHER, NOTIFY) == [Ok(4), no]
        assert other.say(NOTIFY) == [no, Ack(2)]
        holder.machine.lost()
        assert other.answers() == [Ack(0)], "who asks again on an ACK waits for one"

    def test_a_takeover_ends_the_older_connection(self) -> None:
        """The same program and instance gets the stream; all of the older is freed."""
        older = Talk.opened(1, 2)
        newer = Talk.begin(older.machine.streams)
        assert newer.say(HELLO, NOTIFY)[-2:] == [granted(1, NO_POINT), Ack(1)]
        assert reason(older.answers()).startswith("stream 1 was taken over")
        third = Talk.begin(older.machine.streams)
        assert third.say(OTHER, Notify(2, b"name", 0))[1:] == [
            granted(2, NO_POINT),
            Ack(1),
        ]

    def test_what_the_older_one_had_in_flight_is_not_taken_twice(self) -> None:
        """A takeover opens once the older's messages are durable, and behind them."""
        older = Talk.opened(1)
        older.say(message(1, 3))
        newer = Talk.begin(older.machine.streams)
        newer.say(HELLO, NOTIFY)
        older.settle()
        assert newer.answers() == [granted(1, 3), Ack(1)]
        newer.say(message(1, 3), message(1, 4))
        assert newer.points == [(Point(1, 4, b"name"),)]
        assert len(newer.payloads) == 1

    @pytest.mark.parametrize("end", [EndOfStream(1), EndOfStream(1, 6)])
    def test_end_of_stream_is_answered_when_all_is_durable(
        self, end: EndOfStream
    ) -> None:
        """EOS waits for the stream's last message, and is answered by its point."""
        talk = Talk.opened(1)
        assert talk.say(message(1, 6), end) == []
        assert talk.settle() == [Ack(1, ((1, 6),))]

    def test_end_of_stream_is_answered_though_the_point_was_sent(self) -> None:
        """EOS has an ACK of its own, also where the point was sent before."""
        talk = Talk.opened(1, 2)
        talk.say(message(1, 6))
        assert talk.settle() == [Ack(1, ((1, 6),))]
        assert talk.say(EndOfStream(1)) == [Ack(0, ((1, 6),))]
        assert talk.say(EndOfStream(2)) == [Ack(0, ((2, NO_POINT),))]

    def test_a_stream_may_be_opened_again(self) -> None:
        """Behind its EOS a stream is opened by the next NOTIFY, its ACK before it."""
        talk = Talk.opened(1)
        assert talk.say(message(1, 6), EndOfStream(1), NOTIFY) == []
        assert talk.settle() == [Ack(1, ((1, 6),)), granted(1, 6), Ack(1)]
        assert talk.say(message(1, 7)) == []

    def test_a_half_close_frees_the_streams(self) -> None:
        """A sender that closes frees its streams, and what it sent is acknowledged."""
        talk = Talk.opened(1)
        talk.say(message(1, 6))
        talk.machine.half_closed()
        assert not talk.machine.is_done
        other = Talk.begin(talk.machine.streams)
        assert other.say(OTHER, NOTIFY) == [Ok(100)]
        assert talk.settle() == [Ack(1, ((1, 6),))]
        assert talk.machine.is_done
        assert other.answers()[0] == granted(1, 6)

    def test_a_half_close_withdraws_what_was_asked_for(self) -> None:
        """A NOTIFY that waits is not answered once its sender has closed."""
        talk = Talk.opened(1)
        talk.say(message(1, 6), EndOfStream(1), NOTIFY)
        talk.machine.half_closed()
        assert talk.settle() == [Ack(1, ((1, 6),))]
        assert talk.machine.is_done


class TestMessages:
    """What is counted."""

    def test_nothing_is_acknowledged_before_it_is_durable(self) -> None:
        """An ACK comes with the commit: credits back, and points as stored."""
        talk = Talk.opened(1, 2)
        assert talk.say(message(1, 1), message(2, 5), message(1, 9)) == []
        assert talk.points == [(Point(1, 9, b"name"), Point(2, 5, b"name"))]
        assert talk.settle() == [Ack(3, ((1, 9), (2, 5)))]

    def test_duplicates_are_acknowledged_and_not_counted(self) -> None:
        """At or below the point in flight a message waits; below the durable, not."""
        talk = Talk.opened(1)
        talk.say(message(1, 5), message(1, 5), message(1, 3))
        assert talk.payloads == [b"v."]
        assert talk.say(message(1, 4)) == []
        assert talk.settle() == [Ack(4, ((1, 5),))]
        assert talk.say(message(1, 5), message(1, 0)) == [Ack(2, ((1, 5),))]
        assert talk.machine.duplicates == 5
        assert not talk.payloads

    def test_a_duplicate_does_not_acknowledge_what_is_behind_it(self) -> None:
        """A durable duplicate waits for the new message that came with it."""
        talk = Talk.opened(1, streams=Streams.begin([Point(1, 5, b"name")]))
        assert talk.say(message(1, 5), message(1, 6)) == []
        assert talk.settle() == [Ack(2, ((1, 6),))]

    def test_what_was_said_is_not_added_to(self) -> None:
        """Behind an answer in the same piece, a stream's credits are owed anew."""
        talk = Talk.opened(1, streams=Streams.begin([Point(1, 5, b"name")]))
        answers = talk.say(message(1, 5), Notify(2, b"name", 0), message(1, 6))
        assert answers == [Ack(1, ((1, 5),)), granted(2, NO_POINT), Ack(1)]
        assert talk.settle() == [Ack(1, ((1, 6),))]

    def test_message_zero_counts(self) -> None:
        """0 is a message id like any other."""
        talk = Talk.opened(1)
        talk.say(message(1, 0, b"zero"))
        assert talk.payloads == [b"zero"]
        assert talk.settle() == [Ack(1, ((1, 0),))]

    def test_commits_are_acknowledged_in_order(self) -> None:
        """Each commit is acknowledged on its own, as far as it goes."""
        talk = Talk.opened(1)
        for number in range(3):
            talk.say(message(1, number))
        assert talk.settle(1) == [Ack(1, ((1, 0),))]
        assert talk.settle(2) == [Ack(2, ((1, 2),))]

    def test_positions_are_those_of_the_frames(self) -> None:
        """A payload's position is the offset of its frame in all that was sent."""
        talk = Talk.opened(1)
        start = len(wire(HELLO, NOTIFY))
        frames = [
            message(1, 1, b"one"),
            Message(1, 2, 0, b"key", b"two"),
            Message(1, 2, 0, b"key", b"again"),
            Message(1, 3, 0, b"key", b"three"),
        ]
        expected = [
            (start + len(wire(*frames[:number])), frames[number].payload)
            for number in (0, 1, 3)
        ]
        talk.say(*frames)
        found = [
            (position, payload)
            for taken in talk.given
            for piece in taken.pieces
            for position, payload in zip(piece.positions(), piece.payloads, strict=True)
        ]
        assert found == expected


class TestFoul:
    """What breaks the protocol."""

    @pytest.mark.parametrize(
        ("frame", "why"),
        [
            (HELLO, "Hello may not come here"),
            (NOTIFY, "Notify of stream 1, which is open already"),
            (Notify(3, b"other", 0), "stream 3 is named b'name', not b'other'"),
            (message(2, 9), "Message of stream 2, which is not open"),
            (EndOfStream(2), "EndOfStream of stream 2, which is not open"),
            (message(1, NO_POINT), f"{NO_POINT} is no message id"),
            (message(1, 9, bytes(51)), "a payload of 51 bytes, where 50 are accepted"),
            (Ok(1), "Ok may not come here"),
            (granted(1, 1), "NotifyAck may not come here"),
            (Ack(1), "Ack may not come here"),
            (Restart(), "Restart may not come here"),
        ],
    )
    def test_a_foul_frame(self, frame: Frame, why: str) -> None:
        """It gets ERROR with the reason, and only what was before it counts."""
        streams = Streams.begin([Point(3, 1, b"name")])
        talk = Talk.opened(1, streams=streams)
        answers = talk.say(message(1, 7, b"good"), frame, message(1, 8, b"late"))
        assert reason(answers) == why
        assert talk.payloads == [b"good"]
        assert talk.points == [(Point(1, 7, b"name"),)]
        assert talk.machine.ending is not None
        good = len(wire(HELLO, NOTIFY, message(1, 7, b"good")))
        assert talk.machine.ending.position == good
        # Nobody else is harmed: its streams are free, what is in flight settles.
        other = Talk.begin(streams)
        assert other.say(OTHER, NOTIFY) == [Ok(100)]
        assert talk.settle() == []
        assert other.answers() == [granted(1, 7), Ack(1)]

    @pytest.mark.parametrize("early", [message(1, 7), EndOfStream(1), NOTIFY])
    def test_what_comes_before_the_stream_is_open(self, early: Frame) -> None:
        """A stream that is asked for and not answered takes nothing yet."""
        talk = Talk.opened(1)
        talk.say(message(1, 6), EndOfStream(1), NOTIFY)
        assert "which is" in reason(talk.say(early))

    def test_what_comes_behind_the_end_of_a_stream(self) -> None:
        """A closed stream takes nothing more."""
        answers = Talk.opened(1).say(EndOfStream(1), message(1, 7))
        assert reason(answers) == "Message of stream 1, which is not open"

    @pytest.mark.parametrize("data", [b"", b"\x09", b"\xff" * 9, b"\x05\0", b"\x08"])
    def test_what_is_no_frame(self, data: bytes) -> None:
        """Bytes that are no frame get ERROR, and what was before them counts."""
        talk = Talk.opened(1)
        answers = talk.send(wire(message(1, 7)) + len(data).to_bytes(4) + data)
        assert isinstance(answers[-1], Error)
        assert len(talk.payloads) == 1

    def test_an_overdraft_is_forgiven_once_over(self) -> None:
        """Twice the credits may be used, and not one more."""
        talk = Talk.opened(1, initial_credits=3)
        assert talk.say(*(message(1, each) for each in range(6))) == []
        answers = talk.say(message(1, 6))
        assert reason(answers) == "more than twice the 3 credits were used"
        assert len(talk.payloads) == 6

    def test_credits_that_came_back_may_be_used_again(self) -> None:
        """What an ACK gave back does not count as used."""
        talk = Talk.opened(1, initial_credits=1)
        for each in range(10):
            assert talk.say(message(1, 2 * each), message(1, 2 * each + 1)) == []
            assert talk.settle() == [Ack(2, ((1, 2 * each + 1),))]

    def test_an_error_of_the_sender_ends_it(self) -> None:
        """A sender that says ERROR is not answered; what it sent before counts."""
        talk = Talk.opened(1)
        assert talk.say(message(1, 1), Error(b"enough"), message(1, 2)) == []
        assert talk.machine.phase is Phase.ENDED
        assert talk.machine.ending is not None
        assert talk.machine.ending.reason == "it gave up: b'enough'"
        assert len(talk.payloads) == 1

    def test_the_longest_frame(self) -> None:
        """A message with the longest key and payload passes the cap, one more not."""
        longest = frame_bytes_max(PAYLOAD_BYTES_MAX)
        key = bytes((1 << 16) - 1)
        frame = encode_frame(Message(1, 1, 0, key, bytes(PAYLOAD_BYTES_MAX)))
        assert len(frame) - 4 == longest
        assert longest == MESSAGE_HEAD_BYTES + len(key) + PAYLOAD_BYTES_MAX
        reader = FrameReader(4, decode_length, longest)
        assert reader.receive(frame).count == 1
        reader.receive((longest + 1).to_bytes(4))
        assert reader.fault is not None


frames = st.one_of(
    st.just(HELLO),
    st.builds(Notify, st.integers(1, 3), st.sampled_from([b"name", b"x"]), st.just(0)),
    st.builds(message, st.integers(1, 3), st.integers(0, 9), st.binary(max_size=60)),
    st.builds(EndOfStream, st.integers(1, 3), st.none() | st.integers(0, 9)),
    st.builds(Error, st.binary(max_size=5)),
    st.builds(Ack, st.integers(0, 9)),
)


class TestAnything:
    """Whatever comes, in whatever pieces."""

    @given(st.lists(st.binary(max_size=40) | frames.map(encode_frame)))
    def test_no_bytes_break_it(self, pieces: list[bytes]) -> None:
        """Any bytes leave whole frames as answers, at most one ERROR, as the last."""
        talk = Talk.begin()
        answers = []
        for piece in [wire(HELLO), *pieces]:
            answers += talk.send(piece)
        answers += talk.settle()
        talk.machine.half_closed()
        assert talk.machine.is_done
        errors = [number for number, each in enumerate(answers) if type(each) is Error]
        assert errors in ([], [len(answers) - 1])

    @given(st.lists(frames, max_size=30), st.data())
    def test_pieces_do_not_matter(self, said: list[Frame], data: st.DataObject) -> None:
        """However the bytes are cut, the same is counted and answered in the end."""
        whole = wire(HELLO, NOTIFY, *said)
        places = data.draw(st.lists(st.integers(0, len(whole)), max_size=5))
        ends = [0, *sorted(places), len(whole)]
        together, apart = Talk.begin(), Talk.begin()
        first = together.send(whole)
        for start, end in itertools.pairwise(ends):
            apart.send(whole[start:end])
        assert apart.payloads == together.payloads
        assert apart.machine.phase is together.machine.phase
        assert apart.machine.ending == together.machine.ending
        assert apart.machine.duplicates == together.machine.duplicates
        assert first[0] == Ok(100)


class TestFlood:
    """Messages in bulk: the same as one by one."""

    def test_a_flood_is_taken_whole(self) -> None:
        """Messages of one stream with rising ids are one piece, however they gap."""
        talk = Talk.opened(1, initial_credits=CREDITS)
        talk.send(flood(1, range(0, 3000, 3), b"key"))
        [taken] = talk.given
        [piece] = taken.pieces
        assert isinstance(piece, Run)
        assert piece.payloads == [telling(1, each) for each in range(0, 3000, 3)]
        assert piece.positions()[0] == len(wire(HELLO, NOTIFY))
        assert talk.points == [(Point(1, 2997, b"name"),)]
        assert talk.settle() == [Ack(1000, ((1, 2997),))]

    def test_what_is_known_of_a_flood_is_not_counted(self) -> None:
        """A sender that begins again far back is counted from its point on."""
        talk = Talk.opened(1, initial_credits=CREDITS)
        talk.send(flood(1, range(500)))
        talk.send(flood(1, range(1000)))
        assert talk.payloads == [telling(1, each) for each in range(1000)]
        assert talk.machine.duplicates == 500
        talk.send(flood(1, range(1000)))
        assert talk.machine.duplicates == 1500
        assert talk.settle() == [Ack(2500, ((1, 999),))]

    @given(st.data())
    def test_bulk_is_the_same_as_one_by_one(self, data: st.DataObject) -> None:
        """Any flood, foul places and duplicates included, is what its frames are."""
        stretches = data.draw(
            st.lists(
                st.tuples(
                    st.integers(1, 3),
                    st.integers(0, 400),
                    st.integers(1, 150),
                    st.sampled_from([b"", b"k", b"kk"]),
                ),
                max_size=6,
            )
        )
        odd = data.draw(st.sampled_from([b"", wire(message(1, NO_POINT, bytes(10)))]))
        whole = odd.join(
            flood(stream_id, range(first, first + count), key)
            for stream_id, first, count, key in stretches
        )
        check_bulk(whole, data.draw(st.sampled_from([100, CREDITS])))

    @pytest.mark.parametrize(
        "odd",
        [
            flood(2, [100]),
            flood(1, [99]),
            flood(1, [NO_POINT]),
            wire(Message(1, 100, 0, b"key", b"seven b")),
            flood(1, [100]).replace(b"\0\0\0\x25\x05", b"\0\0\0\x25\x09"),
            flood(1, [100]).replace(b"\0\0\0\x25\x05", b"\0\0\0\x25\x03"),
            flood(3, [100]),
            flood(1, [100]).replace(b"\xff" * 8 + b"\0\0", b"\xff" * 8 + b"\0\x0b"),
            b"",
        ],
    )
    @pytest.mark.parametrize("place", [0, 70, 200])
    def test_one_that_is_odd(self, odd: bytes, place: int) -> None:
        """A message of the flood's length that is unlike it is taken for what it is."""
        assert len(odd) in (0, len(flood(1, [0])))
        if odd:
            assert odd != flood(1, [100])
        before, behind = flood(1, range(place)), flood(1, range(101, 301))
        check_bulk(before + odd + behind, CREDITS)


def check_bulk(whole: bytes, initial_credits: int) -> None:
    """Put frames to two machines, at once and one by one: nothing may differ."""
    bulk = Talk.opened(1, 2, initial_credits=initial_credits)
    single = Talk.opened(1, 2, initial_credits=initial_credits)
    answers = bulk.send(whole)
    answers_one = []
    for frame in pieces_of(whole):
        answers_one += single.send(frame)
    assert bulk.payloads == single.payloads
    assert positions(bulk) == positions(single)
    assert bulk.machine.duplicates == single.machine.duplicates
    assert bulk.machine.ending == single.machine.ending
    last = {p.stream_id: p for points in single.points for p in points}
    assert {p.stream_id: p for points in bulk.points for p in points} == last
    assert bulk.machine.phase is single.machine.phase
    answers += bulk.settle()
    answers_one += single.settle()
    assert credits_of(answers) == credits_of(answers_one)


def pieces_of(data: bytes) -> list[bytes]:
    """Cut frames apart."""
    payloads = FrameReader(4, decode_length, 1000).receive(data).payloads
    return [len(payload).to_bytes(4) + payload for payload in payloads]


def positions(talk: Talk) -> list[int]:
    """Give where all that was given came from."""
    return [
        position
        for taken in talk.given
        for piece in taken.pieces
        for position in piece.positions()
    ]


def credits_of(answers: list[Frame]) -> int:
    """Add up the credits that came back."""
    return sum(each.credits for each in answers if isinstance(each, Ack))


def test_a_machine_is_told_apart() -> None:
    """Two connections of one identity are two holders."""
    assert ConnectorIn(Streams(), b"", 1, 1.0) != ConnectorIn(Streams(), b"", 1, 1.0)
