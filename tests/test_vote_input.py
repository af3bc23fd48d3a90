"""Votes to send: read however they come, faulty where they are, cut where asked."""

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphabet.framing import encode_frame
from alphabet.sending.vote_input import (
    CHUNK_VOTES,
    FRAME_BYTES_MAX,
    LINE_BYTES_MAX,
    Chunk,
    LineReader,
    VoteInputError,
    VoteReader,
    WireReader,
    cut_votes,
    first_votes,
    random_votes,
    read_votes,
    skip_votes,
)

votes = st.binary(min_size=5, max_size=5)
payload_lists = st.lists(votes | votes | st.binary(max_size=20), max_size=30)
piece_sizes = st.lists(st.integers(0, 60), max_size=20)


def pieces_of(stream: bytes, sizes: Iterable[int]) -> Iterator[bytes]:
    """Cut a stream into pieces of these sizes, and a last one of what is left."""
    for size in sizes:
        yield stream[:size]
        stream = stream[size:]
    yield stream


def read(
    pieces: Iterable[bytes], reader: VoteReader
) -> tuple[list[Chunk], VoteInputError | None]:
    """Read an input; return its chunks, and the fault that it ended in."""
    chunks: list[Chunk] = []
    try:
        chunks.extend(read_votes(pieces, reader))
    except VoteInputError as error:
        return chunks, error
    return chunks, None


def chunks_of(*frame_counts: int) -> list[Chunk]:
    """Make chunks of so many frames, all of them numbered through."""
    numbers = itertools.count()
    return [
        Chunk(b"".join(encode_frame(bytes([next(numbers)])) for _ in range(n)), n)
        for n in frame_counts
    ]


def numbers_in(chunks: Iterable[Chunk]) -> list[int]:
    """Read the numbers back, and check that each chunk counts its frames."""
    found: list[int] = []
    for chunk in chunks:
        assert len(chunk.frames) == 5 * chunk.votes
        found += chunk.frames[4::5]
    return found


class TestChunk:
    """Whole frames and their number."""

    @given(st.lists(st.binary(max_size=9), max_size=9), st.integers(0, 12))
    def test_a_chunk_is_cut_between_frames(
        self, payloads: list[bytes], size: int
    ) -> None:
        """The first frames and the rest are the chunk, and each is counted."""
        frames = [encode_frame(payload) for payload in payloads]
        first, rest = Chunk(b"".join(frames), len(frames)).split(size)
        assert first == Chunk(b"".join(frames[:size]), len(frames[:size]))
        assert rest == Chunk(b"".join(frames[size:]), len(frames[size:]))

    @given(st.lists(st.binary(max_size=9), max_size=9), st.integers(0, 120))
    def test_a_part_counts_its_whole_frames(
        self, payloads: list[bytes], size: int
    ) -> None:
        """A frame counts once its last byte is within."""
        frames = [encode_frame(payload) for payload in payloads]
        ends = itertools.accumulate(map(len, frames))
        chunk = Chunk(b"".join(frames), len(frames))
        assert chunk.votes_within(size) == sum(end <= size for end in ends)


class TestWireReader:
    """Frames."""

    @given(payload_lists, piece_sizes)
    def test_frames_come_out_as_they_went_in(
        self, payloads: list[bytes], sizes: list[int]
    ) -> None:
        """Frames of any size pass unchanged and counted, however they are cut."""
        stream = b"".join(map(encode_frame, payloads))
        chunks, fault = read(pieces_of(stream, sizes), WireReader())
        assert fault is None
        assert b"".join(chunk.frames for chunk in chunks) == stream
        assert sum(chunk.votes for chunk in chunks) == len(payloads)

    @given(payload_lists, piece_sizes, st.data())
    def test_an_end_in_mid_frame_is_a_fault(
        self, payloads: list[bytes], sizes: list[int], data: st.DataObject
    ) -> None:
        """What is whole comes out, and the fault names where the rest begins."""
        stream = b"".join(map(encode_frame, payloads))
        size = data.draw(st.integers(0, len(stream)))
        chunks, fault = read(pieces_of(stream[:size], sizes), WireReader())
        whole = b"".join(chunk.frames for chunk in chunks)
        assert stream[:size].startswith(whole)
        assert (fault is None) == (len(whole) == size)
        if fault:
            assert fault.place == f"byte {len(whole)}"
            assert fault.cause.startswith(f"the stream ended after {size - len(whole)}")

    @given(st.lists(st.binary(max_size=30)))
    def test_any_bytes_are_frames_or_a_fault(self, pieces: list[bytes]) -> None:
        """Random bytes give out a beginning of themselves and nothing else."""
        chunks, fault = read(pieces, WireReader())
        whole = b"".join(chunk.frames for chunk in chunks)
        assert b"".join(pieces).startswith(whole)
        assert (fault is None) == (whole == b"".join(pieces))

    @pytest.mark.parametrize("sizes", [[], [1] * 50, [18], [20]])
    def test_a_frame_too_long_is_a_fault(self, sizes: list[int]) -> None:
        """A length that no server takes by default ends the input where it stands."""
        good = encode_frame(b"a\0\0\0\1") * 2
        length = (FRAME_BYTES_MAX + 1).to_bytes(4, "big")
        chunks, fault = read(pieces_of(good + length + good, sizes), WireReader())
        assert b"".join(chunk.frames for chunk in chunks) == good
        assert fault is not None
        assert str(fault) == (
            "byte 18: a payload of 1048577 bytes, where 1048576 are accepted"
        )

    @pytest.mark.parametrize("text", [b"a 3\nb 10\n", b"# Votes\r\n", b"a\t3"])
    def test_lines_are_known_for_text(self, text: bytes) -> None:
        """Lines where frames belong are told what they need; bytes are not, nor later.

        Whatever is printable is too long for a frame, so good ones are never taken for
        text.
        """
        hint = "; it begins as text does: see --format lines"
        _, fault = read([text], WireReader())
        assert fault is not None
        assert fault.cause.endswith(hint)
        for bad in (b"\xff" + text, encode_frame(b"a\0\0\0\1") + text):
            _, fault = read([bad], WireReader())
            assert fault is not None
            assert "--format" not in fault.cause

    @pytest.mark.parametrize("at", [0, 1, 2])
    def test_every_byte_of_a_length_counts(self, at: int) -> None:
        """A length that ends like a vote's is not taken for one."""
        vote = bytearray(encode_frame(b"a\0\0\0\1"))
        vote[at] = 0x7F
        chunks, fault = read([bytes(vote)], WireReader())
        assert [chunk.votes for chunk in chunks if chunk.votes] == []
        assert fault is not None

    def test_a_vote_goes_on_at_once(self) -> None:
        """A whole vote does not wait for what comes after it."""
        reader = WireReader()
        vote = encode_frame(b"a\0\0\0\1")
        assert reader.receive(vote + vote[:3]) == Chunk(vote, 1)
        assert reader.receive(vote[3:]) == Chunk(vote, 1)

    def test_lengths_that_add_up_are_not_taken_for_votes(self) -> None:
        """Frames of 4 and 6 bytes fill 18 bytes, and are two frames all the same."""
        stream = encode_frame(b"abcd") + encode_frame(b"\0\0\0\5\0\0")
        chunks, fault = read([stream], WireReader())
        assert (chunks[0], fault) == (Chunk(stream, 2), None)


class TestLineReader:
    """Lines."""

    @given(st.lists(st.sampled_from([b"a 1", b"", b"# b 2", b"c 3\r"])), piece_sizes)
    def test_lines_become_frames(self, lines: list[bytes], sizes: list[int]) -> None:
        """Each vote is a frame; the last line may lack its end."""
        frames = {
            b"a 1": encode_frame(b"a\0\0\0\1"),
            b"c 3\r": encode_frame(b"c\0\0\0\3"),
        }
        text = b"\n".join(lines)
        chunks, fault = read(pieces_of(text, sizes), LineReader())
        assert fault is None
        expected = [frames[line] for line in lines if line in frames]
        assert b"".join(chunk.frames for chunk in chunks) == b"".join(expected)
        assert sum(chunk.votes for chunk in chunks) == len(expected)

    @given(piece_sizes)
    def test_a_bad_line_is_named(self, sizes: list[int]) -> None:
        """The votes before a bad line come out, and the fault has its number."""
        text = b"a 1\n\n# b\nc 2\nhello\nd 3\n"
        chunks, fault = read(pieces_of(text, sizes), LineReader())
        assert sum(chunk.votes for chunk in chunks) == 2
        assert str(fault) == "line 5: 'hello' is not LETTER VOTES"

    @pytest.mark.parametrize("end", [b"", b"\n"])
    def test_a_line_has_an_end(self, end: bytes) -> None:
        """A line is refused as soon as it is too long, with or without its end."""
        reader = LineReader()
        assert reader.receive(b"a 1\n#" + b"-" * LINE_BYTES_MAX + end).votes == 1
        assert str(reader.fault) == "line 2: it is longer than 4096 bytes"

    def test_a_line_goes_on_at_once(self) -> None:
        """A vote does not wait for the next line."""
        assert LineReader().receive(b"a 1\nb").votes == 1


class TestRandomVotes:
    """Votes made at random."""

    def test_a_seed_makes_the_same_votes(self) -> None:
        """Two runs with one seed are equal; another seed's is not."""
        first, again, other = (random_votes(seed) for seed in (1, 1, 2))
        for _ in range(2):
            chunk = next(first)
            assert chunk == next(again) != next(other)

    def test_they_are_votes(self) -> None:
        """They are well-formed, of letters a to z and of 1 to 10,000 votes."""
        chunk = next(random_votes(0))
        assert chunk.votes == CHUNK_VOTES
        assert read([chunk.frames], WireReader())[0][0] == chunk
        letters = Counter(chunk.frames[4::9])
        assert letters.keys() == set(b"abcdefghijklmnopqrstuvwxyz")
        counts = [
            int.from_bytes(chunk.frames[at : at + 4], "big")
            for at in range(5, len(chunk.frames), 9)
        ]
        assert (min(counts), max(counts)) == (1, 10_000)

    def test_each_seed_goes_on(self) -> None:
        """The second chunk is not the first again."""
        source = random_votes(0)
        assert next(source) != next(source)


class TestCutting:
    """Parts of an input."""

    @given(st.lists(st.integers(0, 6), max_size=6), st.integers(0, 40))
    def test_the_first_votes(self, sizes: list[int], count: int) -> None:
        """They are the first ones, or all if there are fewer."""
        everything = range(sum(sizes))
        chunks = first_votes(iter(chunks_of(*sizes)), count)
        assert numbers_in(chunks) == list(everything[:count])

    def test_the_first_votes_need_no_more(self) -> None:
        """Nothing is read once there are enough."""
        source = iter(chunks_of(2, 2))
        list(first_votes(source, 2))
        assert numbers_in(source) == [2, 3]

    @given(st.lists(st.integers(0, 6), max_size=6), st.integers(0, 40))
    def test_skipped_votes(self, sizes: list[int], count: int) -> None:
        """The rest is what is left; to skip more than there is, is an error."""
        everything = range(sum(sizes))
        found: list[Chunk] = []
        chunks = skip_votes(iter(chunks_of(*sizes)), count)
        if count > len(everything):
            with pytest.raises(VoteInputError) as caught:
                found.extend(chunks)
            assert str(caught.value) == (
                f"vote {len(everything)}: it is the last,"
                f" and {count} were to be skipped"
            )
        else:
            found.extend(chunks)
        assert numbers_in(found) == list(everything[count:])

    @given(st.lists(st.integers(0, 6), max_size=6), st.integers(1, 7))
    def test_small_chunks(self, sizes: list[int], votes_max: int) -> None:
        """No chunk is empty or above the size, and nothing is lost."""
        chunks = list(cut_votes(iter(chunks_of(*sizes)), votes_max))
        assert all(1 <= chunk.votes <= votes_max for chunk in chunks)
        assert numbers_in(chunks) == list(range(sum(sizes)))
