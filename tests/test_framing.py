"""Framing: every way to cut a stream gives the same frames, or the same fault.

All of it is run twice: as it is, and with short runs and small windows, so that a
few frames are enough for runs, for frames cut one by one, and for both in turn.
"""

from collections.abc import Callable, Iterable, Iterator

import attrs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphabet import framing
from alphabet.framing import (
    RUN_FRAMES_MIN,
    WINDOW_BYTES,
    FrameFault,
    FrameReader,
    Frames,
    Payloads,
    Run,
    decode_length,
    encode_frame,
)

FRAME_BYTES_MAX = 300

runs = st.lists(
    st.tuples(st.binary(max_size=12), st.sampled_from([1, 2, 3, 70, 200])), max_size=5
)
payload_lists = st.lists(st.binary(max_size=FRAME_BYTES_MAX), max_size=20) | runs.map(
    lambda pairs: [payload for payload, count in pairs for _ in range(count)]
)
piece_sizes = st.lists(st.integers(0, 40) | st.integers(0, 3000), max_size=60)


@pytest.fixture(
    autouse=True,
    scope="module",
    params=[(RUN_FRAMES_MIN, WINDOW_BYTES), (2, 24)],
    ids=["", "small"],
)
def _bounds(request: pytest.FixtureRequest) -> Iterator[None]:
    """Take the bounds as they are, then small ones."""
    frames_min, window_bytes = request.param
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(framing, "RUN_FRAMES_MIN", frames_min)
        patch.setattr(framing, "WINDOW_BYTES", window_bytes)
        yield


def new_reader(
    payload_length: Callable[[bytes], object] = decode_length,
    header_bytes: int = 4,
) -> FrameReader:
    """Make a reader that takes payloads of up to `FRAME_BYTES_MAX` bytes."""
    return FrameReader(header_bytes, payload_length, FRAME_BYTES_MAX)


def cut(stream: bytes, sizes: Iterable[int]) -> list[bytes]:
    """Cut a stream into pieces of these sizes, and a last one of what is left."""
    pieces = []
    for size in sizes:
        pieces.append(stream[:size])
        stream = stream[size:]
    return [*pieces, stream]


def feed(reader: FrameReader, pieces: Iterable[bytes]) -> list[tuple[int, bytes]]:
    """Feed a reader and return each frame's position and payload."""
    found = []
    for piece in pieces:
        frames = reader.receive(piece)
        placed = places(frames)
        assert frames.count == len(placed)
        assert not placed or placed[0][0] == frames.position
        assert frames.payloads == [payload for _, payload in placed]
        found += placed
    return found


def places(frames: Frames) -> list[tuple[int, bytes]]:
    """Give each frame's position and payload."""
    return [
        place
        for piece in frames.pieces
        for place in zip(piece.positions(), piece.payloads, strict=True)
    ]


def frame_positions(payloads: list[bytes], header_bytes: int) -> list[int]:
    """Say where each payload's frame begins in a stream of them all."""
    sizes = [header_bytes + len(payload) for payload in payloads]
    return [sum(sizes[:index]) for index in range(len(payloads))]


@attrs.frozen
class Case:
    """A stream, the payloads in it, and the fault it ends in, if any."""

    name: str
    stream: bytes
    payloads: list[bytes]
    fault: FrameFault | None


VOTE = encode_frame(b"a\0\0\0\7")
TOO_LONG = (FRAME_BYTES_MAX + 1).to_bytes(4, "big")

CASES = [
    Case("nothing", b"", [], None),
    Case("one", VOTE, [b"a\0\0\0\7"], None),
    Case("two", VOTE * 2, [b"a\0\0\0\7"] * 2, None),
    Case("empty payload", b"\0\0\0\0", [b""], None),
    Case(
        "empty among others", VOTE + b"\0\0\0\0" + VOTE, [VOTE[4:], b"", VOTE[4:]], None
    ),
    Case(
        "longest", encode_frame(bytes(FRAME_BYTES_MAX)), [bytes(FRAME_BYTES_MAX)], None
    ),
    Case(
        "too long",
        VOTE + TOO_LONG,
        [VOTE[4:]],
        FrameFault(
            9,
            f"a payload of {FRAME_BYTES_MAX + 1} bytes, where {FRAME_BYTES_MAX} are"
            " accepted",
            TOO_LONG,
        ),
    ),
    Case(
        "far too long",
        b"\xff\xff\xff\xff",
        [],
        FrameFault(
            0, "a payload of 4294967295 bytes, where 300 are accepted", b"\xff" * 4
        ),
    ),
]


class TestCases:
    """Each case whole, byte by byte, and with something after it."""

    @pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
    @pytest.mark.parametrize("bytewise", [False, True], ids=["whole", "bytewise"])
    @pytest.mark.parametrize("trailing", [b"", b"\0", VOTE[:7], b"\xff" * 50])
    def test_frames_and_fault(
        self, case: Case, trailing: bytes, *, bytewise: bool
    ) -> None:
        """The frames come out with their positions, and the fault is the one."""
        reader = new_reader()
        stream = case.stream + trailing
        pieces = [bytes([byte]) for byte in stream] if bytewise else [stream]
        positions = frame_positions(case.payloads, 4)
        found = feed(reader, pieces)
        assert found == list(zip(positions, case.payloads, strict=True))
        if case.fault or trailing[:1] != b"\xff":
            assert reader.fault == case.fault
        else:
            assert reader.fault is not None
            assert reader.fault.position == len(case.stream)

    @pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
    def test_the_end_between_frames_is_no_fault(self, case: Case) -> None:
        """A stream that ends where a frame ends has only the fault it had."""
        reader = new_reader()
        reader.receive(case.stream)
        assert reader.partial_bytes == 0
        assert reader.end() == case.fault


class TestCutting:
    """Streams in any pieces."""

    @given(payload_lists, piece_sizes, st.integers(2, 9))
    def test_pieces_make_no_difference(
        self, payloads: list[bytes], sizes: list[int], header_bytes: int
    ) -> None:
        """All payloads come out in order with their positions, however cut."""
        stream = b"".join(encode_frame(payload, header_bytes) for payload in payloads)
        reader = new_reader(header_bytes=header_bytes)
        positions = frame_positions(payloads, header_bytes)
        found = feed(reader, cut(stream, sizes))
        assert found == list(zip(positions, payloads, strict=True))
        assert reader.end() is None

    @given(payload_lists, piece_sizes, st.data())
    def test_a_cut_stream_loses_one_frame(
        self, payloads: list[bytes], sizes: list[int], data: st.DataObject
    ) -> None:
        """A stream that ends in mid-frame gives the frames before it and says where."""
        stream = b"".join(map(encode_frame, payloads))
        size = data.draw(st.integers(0, len(stream)))
        reader = new_reader()
        found = feed(reader, cut(stream[:size], sizes))
        ends = [*frame_positions(payloads, 4)[1:], len(stream)]
        whole = sum(end <= size for end in ends) if payloads else 0
        assert [payload for _, payload in found] == payloads[:whole]
        start = ends[whole - 1] if whole else 0
        assert reader.partial_bytes == size - start
        fault = reader.end()
        assert (fault is None) == (size == start)
        if fault:
            assert fault.position == start
            assert fault.header == stream[start : min(start + 4, size)]
            assert reader.fault == fault
            assert reader.partial_bytes == 0

    @given(st.lists(st.binary(max_size=30)), st.sampled_from([1, 2, 4]))
    def test_any_bytes_give_frames_or_a_fault(
        self, pieces: list[bytes], header_bytes: int
    ) -> None:
        """Random bytes are frames, part of one, and a fault, and nothing is lost."""
        reader = new_reader(header_bytes=header_bytes)
        found = feed(reader, pieces)
        stream = b"".join(pieces)
        frames = b"".join(encode_frame(payload, header_bytes) for _, payload in found)
        assert stream.startswith(frames)
        if reader.fault is None:
            assert len(frames) + reader.partial_bytes == len(stream)
        else:
            assert reader.fault.position == len(frames)
            at = len(frames)
            assert reader.fault.header == stream[at : at + header_bytes]
            length = int.from_bytes(reader.fault.header, "big")
            assert length > FRAME_BYTES_MAX

    def test_the_end_says_what_is_missing(self) -> None:
        """The fault at the end tells how much came of what."""
        reader = new_reader()
        reader.receive(VOTE + VOTE[:3])
        cause = "the stream ended after 3 of a header's 4 bytes"
        assert reader.end() == FrameFault(9, cause, b"\0\0\0")
        reader = new_reader()
        reader.receive(VOTE[:3])
        reader.receive(VOTE[3:7])
        cause = "the stream ended after 7 of a frame's 9 bytes"
        assert reader.end() == FrameFault(0, cause, b"\0\0\0\5")

    def test_an_empty_piece_says_where_the_next_frame_is(self) -> None:
        """The position of no frames is that of the frame to come."""
        reader = new_reader()
        assert reader.receive(b"") == Frames(0, [])
        reader.receive(VOTE + VOTE[:2])
        assert reader.receive(b"") == Frames(9, [])
        frames = Frames(9, [Payloads(9, 4, [VOTE[4:]])])
        assert reader.receive(VOTE[2:]) == frames


class TestRuns:
    """Many frames with one header, which are not cut."""

    def test_a_run_is_one_piece(self) -> None:
        """Equal headers in a row are a run; what is too short for one is cut."""
        reader = new_reader()
        few = VOTE * (framing.RUN_FRAMES_MIN - 1)
        other = encode_frame(b"other")[:-1] + b"s"
        longer = encode_frame(b"longer")
        assert reader.receive(few).pieces == [
            Payloads(0, 4, [VOTE[4:]] * (framing.RUN_FRAMES_MIN - 1))
        ]
        many = (VOTE + other) * framing.RUN_FRAMES_MIN
        start = len(few)
        assert reader.receive(many + longer + VOTE[:8]).pieces == [
            Run(start, 4, 9, memoryview(many)),
            Payloads(start + len(many), 4, [b"longer"]),
        ]
        assert reader.partial_bytes == 8

    def test_a_run_borrows_what_was_received(self) -> None:
        """A run is a view of the buffer; frames cut one by one, and held, are not."""
        buffer = bytearray(VOTE * 100 + encode_frame(b"single") + VOTE[:7])
        reader = new_reader()
        run, single = reader.receive(memoryview(buffer)).pieces
        assert isinstance(run, Run)
        assert run.data.obj is buffer
        buffer[:] = bytes(len(buffer))
        assert run.payloads == [bytes(5)] * 100
        assert single.payloads == [b"single"]
        assert reader.receive(VOTE[7:]).payloads == [VOTE[4:]]

    @pytest.mark.parametrize("header_bytes", range(1, 10))
    def test_a_header_may_have_any_size(self, header_bytes: int) -> None:
        """Runs are found behind headers of every size, and end where these differ."""
        streams = [
            encode_frame(bytes([number]) * size, header_bytes)
            for size in (3, 0, 4)
            for number in range(100)
        ]
        reader = new_reader(header_bytes=header_bytes)
        pieces = reader.receive(b"".join(streams) + b"\7").pieces
        assert [(type(piece), piece.count) for piece in pieces] == [(Run, 100)] * 3
        assert [piece.payload_bytes for piece in pieces] == [3, 0, 4]
        found = [payload for piece in pieces for payload in piece.payloads]
        assert found == [frame[header_bytes:] for frame in streams]

    def test_the_longest_frames_are_a_run_too(self) -> None:
        """The limit is inclusive in a run as it is for one frame."""
        longest = encode_frame(bytes(FRAME_BYTES_MAX))
        reader = new_reader()
        [run] = reader.receive(longest * 70).pieces
        assert (type(run), run.count, reader.fault) == (Run, 70, None)
        reader = new_reader()
        reader.receive(encode_frame(bytes(FRAME_BYTES_MAX + 1)) * 70)
        assert reader.fault is not None
        assert (reader.fault.position, reader.partial_bytes) == (0, 0)

    @given(st.integers(0, 200), st.integers(0, 12), piece_sizes)
    def test_a_fault_behind_a_run(
        self, count: int, payload_bytes: int, sizes: list[int]
    ) -> None:
        """All frames before a fault come out, and its place is behind them."""
        good = encode_frame(bytes(payload_bytes)) * count
        reader = new_reader()
        stream = good + TOO_LONG * 100
        found = feed(reader, cut(stream, sizes))
        assert len(found) == count
        assert reader.fault is not None
        assert (reader.fault.position, reader.fault.header) == (len(good), TOO_LONG)
        assert reader.partial_bytes == 0

    def test_large_frames_among_runs(self) -> None:
        """A frame larger than a window, and than what came, is one frame in its place.

        It is cut whether votes, or others like it, stand around it.
        """
        large = bytes(3 * WINDOW_BYTES)
        payloads = [b"votes"] * 100 + [large] + [b"votes"] * 10 + [large] * 3
        payloads += [b"votes"] * 100
        stream = b"".join(map(encode_frame, payloads))
        for size in (len(stream), 1 << 17, WINDOW_BYTES, 1001):
            reader = FrameReader(4, decode_length, len(large))
            found = feed(reader, cut(stream, [size] * (len(stream) // size)))
            positions = frame_positions(payloads, 4)
            assert found == list(zip(positions, payloads, strict=True))

    @given(
        st.integers(1, 9),
        st.integers(1, 12).flatmap(
            lambda size: st.lists(
                st.binary(min_size=size, max_size=size), min_size=1, max_size=200
            )
        ),
    )
    def test_pieces_fill_rows(self, header_bytes: int, payloads: list[bytes]) -> None:
        """Payloads of one size become rows, whichever way they were cut."""
        stream = b"".join(encode_frame(payload, header_bytes) for payload in payloads)
        size = header_bytes + len(payloads[0])
        for piece in (
            Payloads(0, header_bytes, payloads),
            Run(0, header_bytes, size, memoryview(stream)),
        ):
            assert (piece.count, piece.payload_bytes) == (
                len(payloads),
                len(payloads[0]),
            )
            rows = np.zeros((len(payloads) + 2, len(payloads[0])), np.uint8)
            piece.fill(rows[1:-1])
            assert rows.tobytes() == b"".join(
                [bytes(len(payloads[0])), *payloads, bytes(len(payloads[0]))]
            )

    @pytest.mark.parametrize("payloads", [[], [b"a", b"bc"]])
    def test_payloads_of_other_sizes_have_no_one_size(
        self, payloads: list[bytes]
    ) -> None:
        """Where sizes differ, or there is none, no size is told."""
        assert Payloads(0, 4, payloads).payload_bytes is None


class TestWork:
    """How much is done and held for a frame."""

    def test_a_large_frame_costs_what_it_weighs(self) -> None:
        """A frame that comes byte by byte has its header read twice and no more."""
        asked = []

        def payload_length(header: bytes) -> int:
            asked.append(header)
            return decode_length(header)

        reader = FrameReader(4, payload_length, 1 << 16)
        stream = encode_frame(bytes(1 << 16))
        frames = [reader.receive(bytes([byte])) for byte in stream]
        assert frames[-1].payloads == [bytes(1 << 16)]
        assert asked == [stream[:4]] * 2

    def test_no_room_is_made_for_what_has_not_come(self) -> None:
        """A length alone makes the reader hold no more than its header."""
        reader = FrameReader(4, decode_length, 2**32 - 1)
        reader.receive(b"\xff\xff\xff\xff")
        assert reader.partial_bytes == 4
        assert reader.fault is None


class TestFaults:
    """A `payload_length` that cannot be trusted, and what follows a fault."""

    @pytest.mark.parametrize(
        ("returned", "cause"),
        [
            (-1, "payload_length returned a negative number"),
            (None, "payload_length returned a NoneType, not an int"),
            (5.0, "payload_length returned a float, not an int"),
            ("5", "payload_length returned a str, not an int"),
            (301, "a payload of 301 bytes, where 300 are accepted"),
            pytest.param(
                10**5000,
                "a payload of 2**64 or more bytes, where 300 are accepted",
                id="huge",
            ),
            pytest.param(
                -(10**5000), "payload_length returned a negative number", id="less"
            ),
        ],
    )
    def test_what_is_no_length_is_a_fault(self, returned: object, cause: str) -> None:
        """A length that is none ends the stream; frames before it are given out."""
        reader = new_reader(lambda header: returned if header == b"bad!" else 5)
        frames = Frames(0, [Payloads(0, 4, [VOTE[4:]])])
        assert reader.receive(VOTE + b"bad!" * 3 + VOTE) == frames
        assert reader.fault == FrameFault(9, cause, b"bad!")
        assert reader.partial_bytes == 0

    def test_what_is_raised_is_a_fault(self) -> None:
        """A `payload_length` that raises ends the stream, and the cause says so."""

        def payload_length(header: bytes) -> int:
            if header == b"bad!":
                raise KeyError("no\nlength")
            return decode_length(header)

        reader = new_reader(payload_length)
        assert feed(reader, [VOTE + b"ba", b"d!" + VOTE]) == [(0, VOTE[4:])]
        cause = r"payload_length raised KeyError: 'no\nlength'"
        assert reader.fault == FrameFault(9, cause, b"bad!")
        reader = new_reader(payload_length)
        assert feed(reader, [VOTE + b"bad!" * 100]) == [(0, VOTE[4:])]
        assert reader.fault == FrameFault(9, cause, b"bad!")
        assert reader.partial_bytes == 0

    def test_what_is_raised_need_not_tell_itself(self) -> None:
        """An error whose own `repr` raises is told by its class, and no longer."""

        class MuteError(Exception):
            def __repr__(self) -> str:
                raise ValueError

            __str__ = __repr__

        def payload_length(_header: bytes) -> int:
            raise MuteError

        reader = new_reader(payload_length)
        assert feed(reader, [VOTE]) == []
        assert reader.fault == FrameFault(
            0, "payload_length raised MuteError", VOTE[:4]
        )

    @pytest.mark.parametrize("error", [MemoryError, RecursionError, KeyboardInterrupt])
    def test_what_is_not_the_peers_fault_is_raised(
        self, error: type[BaseException]
    ) -> None:
        """An error that is the process's own is not put on the stream."""

        def payload_length(_header: bytes) -> int:
            raise error

        for count in (1, 100):
            reader = new_reader(payload_length)
            with pytest.raises(error):
                reader.receive(VOTE * count)
            assert reader.fault is None

    def test_after_a_fault_nothing_comes_out(self) -> None:
        """Good frames after a fault are ignored, and the fault stays the first."""
        reader = new_reader()
        reader.receive(VOTE + TOO_LONG + VOTE)
        fault = reader.fault
        assert reader.receive(VOTE) == Frames(9, [])
        assert reader.receive(b"\xff" * 8) == Frames(9, [])
        assert reader.end() == fault == reader.fault
        assert reader.partial_bytes == 0

    @pytest.mark.parametrize("header_bytes", [0, -1, None, 4.0])
    def test_a_header_has_a_size(self, header_bytes: int) -> None:
        """A reader is not made for headers of no size."""
        with pytest.raises(ValueError, match="header_bytes is a whole number from 1"):
            FrameReader(header_bytes, decode_length, 1)

    def test_a_limit_is_no_negative_number(self) -> None:
        """A reader is not made for payloads below nothing."""
        with pytest.raises(ValueError, match="frame_bytes_max"):
            FrameReader(4, decode_length, -1)


class TestHeader:
    """Lengths as bytes."""

    @given(st.binary(max_size=300), st.integers(2, 8))
    def test_a_length_comes_back(self, payload: bytes, header_bytes: int) -> None:
        """A header tells its payload's length."""
        frame = encode_frame(payload, header_bytes)
        assert frame[header_bytes:] == payload
        assert decode_length(frame[:header_bytes]) == len(payload)

    def test_a_length_must_fit(self) -> None:
        """A payload that is too long for its header is an OverflowError."""
        with pytest.raises(OverflowError):
            encode_frame(bytes(256), 1)
