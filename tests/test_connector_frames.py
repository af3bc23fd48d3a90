"""Frames of the connector protocol: there and back, and nothing else passes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

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

U32 = st.integers(0, 2**32 - 1)
U64 = st.integers(0, 2**64 - 1)
I64 = st.integers(-(2**63), 2**63 - 1)
SHORT = st.binary(max_size=20)

FRAMES: st.SearchStrategy[Frame] = st.one_of(
    st.builds(Hello, SHORT, SHORT, SHORT, SHORT),
    st.builds(Ok, U32),
    st.builds(Error, SHORT),
    st.builds(Notify, U64, SHORT, U64),
    st.builds(NotifyAck, st.booleans(), U64, U64),
    st.builds(Message, U64, U64, I64, SHORT, SHORT),
    st.builds(Ack, U32, st.lists(st.tuples(U64, U64), max_size=4).map(tuple)),
    st.just(Restart()),
    st.builds(EndOfStream, U64, st.none() | U64),
)
PHASES: st.SearchStrategy[Phase] = st.one_of(
    st.builds(ListUncommitted, U64),
    st.builds(ReplyUncommitted, U64, st.lists(SHORT, max_size=4).map(tuple)),
    st.builds(Phase1, SHORT, st.lists(st.tuples(U64, U64, U64), max_size=4).map(tuple)),
    st.builds(Reply, SHORT, st.booleans()),
    st.builds(Phase2, SHORT, st.booleans()),
)


class TestFrames:
    """Frames of both sides."""

    @given(FRAMES)
    def test_there_and_back(self, frame: Frame) -> None:
        """A frame is read as what was written, and its length is that of the rest."""
        written = encode_frame(frame)
        assert int.from_bytes(written[:4]) == len(written) - 4
        assert decode_frame(written[4:]) == frame

    @given(FRAMES, st.data())
    def test_a_part_is_no_frame(self, frame: Frame, data: st.DataObject) -> None:
        """A frame that is cut is refused, or is one with a shorter open end."""
        written = encode_frame(frame)[4:]
        part = written[: data.draw(st.integers(0, len(written) - 1))]
        try:
            found = decode_frame(part)
        except WireError:
            return
        assert type(found) is type(frame)
        assert isinstance(found, Message | EndOfStream)
        assert encode_frame(found)[4:] == part

    @given(FRAMES.filter(lambda frame: not isinstance(frame, Message)), st.binary())
    def test_more_is_no_frame(self, frame: Frame, more: bytes) -> None:
        """What follows the fields makes it none, unless it is a last field itself."""
        written = encode_frame(frame)[4:] + more
        try:
            found = decode_frame(written)
        except WireError:
            return
        assert encode_frame(found)[4:] == written

    @given(st.binary(max_size=60))
    def test_any_bytes(self, data: bytes) -> None:
        """Bytes are one frame's; of a NotifyAck, any success but 0 is the same."""
        try:
            frame = decode_frame(data)
        except WireError:
            return
        again = encode_frame(frame)[4:]
        assert decode_frame(again) == frame
        assert isinstance(frame, NotifyAck) or again == data

    @pytest.mark.parametrize(
        ("frame", "written"),
        [
            (Ok(7), "00000005 01 00000007"),
            (
                Notify(2, b"ab", 9),
                "00000015 03 0000000000000002 0002 6162 0000000000000009",
            ),
            (
                Message(1, 5, -1, b"k", b"pay"),
                "0000001f 05"
                + 7 * "00"
                + "01"
                + 7 * "00"
                + "05"
                + 8 * "ff"
                + "0001 6b 706179",
            ),
            (
                Ack(3, ((1, 5),)),
                "00000019 06 00000003 00000001 0000000000000001 0000000000000005",
            ),
            (EndOfStream(1), "00000009 08 0000000000000001"),
        ],
    )
    def test_as_on_the_wire(self, frame: Frame, written: str) -> None:
        """Types, widths and byte order are the protocol's."""
        assert encode_frame(frame) == bytes.fromhex(written)

    @pytest.mark.parametrize(
        "frame", [Ok(2**32), Error(bytes(2**16)), Message(1, -1, 0, b"", b"")]
    )
    def test_what_does_not_fit(self, frame: Frame) -> None:
        """A field that is too large for its width is refused before it is sent."""
        with pytest.raises(WireError):
            encode_frame(frame)

    def test_a_count_is_not_trusted(self) -> None:
        """A count that the bytes cannot hold is refused before anything is made."""
        with pytest.raises(WireError, match="4294967295 entries"):
            decode_frame(bytes([6]) + bytes(4) + b"\xff" * 4)


class TestPhases:
    """The two-phase commit inside of messages."""

    @given(PHASES)
    def test_there_and_back(self, phase: Phase) -> None:
        """A step is read as what was written, from a message of stream 0."""
        frame = decode_frame(encode_phase(phase)[4:])
        assert isinstance(frame, Message)
        assert (frame.stream_id, frame.message_id, frame.key) == (0, 0, b"")
        assert decode_phase(bytes(frame.payload)) == phase

    @given(PHASES, st.binary(min_size=1))
    def test_more_is_none(self, phase: Phase, more: bytes) -> None:
        """A step that is followed by anything is refused."""
        frame = decode_frame(encode_phase(phase)[4:])
        assert isinstance(frame, Message)
        with pytest.raises(WireError):
            decode_phase(bytes(frame.payload) + more)

    @pytest.mark.parametrize(
        ("phase", "payload"),
        [
            (ListUncommitted(1), "c9 0000000000000001"),
            (ReplyUncommitted(1, (b"t",)), "ca 0000000000000001 00000001 0001 74"),
            (
                Phase1(b"t", ((1, 0, 13),)),
                "cb 0001 74 00000001" + 7 * "00" + "01" + 15 * "00" + "0d",
            ),
            (Reply(b"t", is_commit=True), "cc 0001 74 01"),
            (Phase2(b"t", is_commit=False), "cd 0001 74 00"),
        ],
    )
    def test_as_on_the_wire(self, phase: Phase, payload: str) -> None:
        """Tags, widths and byte order are the protocol's."""
        assert encode_phase(phase).endswith(bytes.fromhex(payload))
