"""Votes to send: read from frames or from lines, or made at random; then cut to size.

Pure: bytes go in, `Chunk`s of whole frames come out, in constant memory. A reader that
meets something bad still gives out what came before it, and then stops with the place
and the cause in its `fault`.
"""

from __future__ import annotations

import random
import re
import struct
from typing import TYPE_CHECKING, Protocol

import attrs

from alphabet.framing import FrameReader, decode_length, encode_frame
from alphabet.printing import VoteLineError, parse_vote_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from alphabet.application import Votes

HEADER_BYTES = 4
FRAME_BYTES_MAX = 1 << 20
"""The longest payload that is sent, inclusive: what a server accepts by default."""

VOTE_BYTES = 9
"""The size of one of Alphabet's votes, its header included."""

CHUNK_VOTES = 29_127
CHUNK_BYTES = CHUNK_VOTES * VOTE_BYTES
"""How much is read and sent at once: 256 KiB, in whole votes."""

LINE_BYTES_MAX = 4096
"""The longest line that is read, inclusive: one without an end fills no memory."""

_VOTE = struct.Struct(">IsI")
_TEXT = re.compile(rb"[ -~\t\r\n]+")
_RANDOM_LETTERS = [bytes([code]) for code in b"abcdefghijklmnopqrstuvwxyz"]
_RANDOM_VOTES = range(1, 10_001)


@attrs.frozen
class VoteInputError(ValueError):
    """What is read is not votes, or not as many as were to be skipped.

    Attributes:
        place: Where in the input, in words.
        cause: What is wrong there.
    """

    place: str
    cause: str

    def __str__(self) -> str:
        return f"{self.place}: {self.cause}"


@attrs.frozen
class Chunk:
    """Whole frames, back to back, and how many they are."""

    frames: bytes
    votes: int

    def split(self, votes: int) -> tuple[Chunk, Chunk]:
        """Cut off the first `votes` frames, or all if there are no more."""
        if votes >= self.votes:
            return self, NO_VOTES
        at = 0
        for _ in range(votes):
            at = self._next(at)
        rest = Chunk(self.frames[at:], self.votes - votes)
        return Chunk(self.frames[:at], votes), rest

    def votes_within(self, size: int) -> int:
        """Count the frames that end within the first `size` bytes."""
        votes = at = 0
        while votes < self.votes and (at := self._next(at)) <= size:
            votes += 1
        return votes

    def _next(self, at: int) -> int:
        """Find the end of the frame that begins at `at`."""
        body = at + HEADER_BYTES
        return body + decode_length(self.frames[at:body])


NO_VOTES = Chunk(b"", 0)


class VoteReader(Protocol):
    """Make chunks of an input's bytes, as they come."""

    fault: VoteInputError | None

    def receive(self, data: bytes, /) -> Chunk:
        """Take the next bytes and return the votes that they complete."""
        ...

    def end(self) -> Chunk:
        """Take the input's end and return the votes that it completes."""
        ...


@attrs.define
class WireReader:
    """Read frames: what goes over the wire, and what a wire file holds.

    The payloads may be anything that a server could take, but while all are Alphabet's
    votes, whole pieces are judged at once: about a hundred times as fast.

    Attributes:
        passed_bytes: How many bytes of the input were left out before, or were read.
        fault: What is wrong with it.
    """

    passed_bytes: int = 0
    fault: VoteInputError | None = attrs.field(default=None, init=False)
    _reader: FrameReader = attrs.field(init=False)
    _only_votes: bool = attrs.field(default=True, init=False)
    _part: bytes = attrs.field(default=b"", init=False)

    @_reader.default
    def _new_reader(self) -> FrameReader:
        return FrameReader(HEADER_BYTES, decode_length, FRAME_BYTES_MAX)

    def receive(self, data: bytes) -> Chunk:
        """Take the next bytes and return the frames that they complete."""
        if self._only_votes:
            data = self._part + data
            whole = len(data) - len(data) % VOTE_BYTES
            votes, self._part = data[:whole], data[whole:]
            if _are_votes(votes):
                self.passed_bytes += whole
                return Chunk(votes, whole // VOTE_BYTES)
            self._only_votes = False
        return self._cut(data)

    def end(self) -> Chunk:
        """Take the input's end; it is a fault unless it comes between two frames."""
        chunk = self._cut(self._part if self._only_votes else b"")
        self._reader.end()
        self._note_fault()
        return chunk

    def _cut(self, data: bytes) -> Chunk:
        """Read frames of any size."""
        payloads = self._reader.receive(data).payloads
        self._note_fault()
        return Chunk(b"".join(map(encode_frame, payloads)), len(payloads))

    def _note_fault(self) -> None:
        """Say where in the whole input the frames' reader met its fault."""
        if fault := self._reader.fault:
            position = self.passed_bytes + fault.position
            is_text = position == 0 and _TEXT.fullmatch(fault.header)
            hint = "; it begins as text does: see --format lines" if is_text else ""
            self.fault = VoteInputError(f"byte {position}", fault.cause + hint)


@attrs.define
class LineReader:
    """Read lines `LETTER VOTES`, as `parse_vote_line` has them."""

    fault: VoteInputError | None = attrs.field(default=None, init=False)
    _part: bytes = attrs.field(default=b"", init=False)
    _line: int = attrs.field(default=0, init=False)

    def receive(self, data: bytes) -> Chunk:
        """Take the next bytes and return the votes on the lines that they complete."""
        *lines, self._part = (self._part + data).split(b"\n")
        if len(self._part) > LINE_BYTES_MAX:
            lines.append(self._part)
        return self._parse(lines)

    def end(self) -> Chunk:
        """Take the input's end, which also ends its last line."""
        return self._parse([self._part])

    def _parse(self, lines: list[bytes]) -> Chunk:
        """Read lines, as far as they are good."""
        frames: list[bytes] = []
        for line in lines:
            self._line += 1
            try:
                vote = _parse_line(line, self._line)
            except VoteLineError as error:
                self.fault = VoteInputError(f"line {error.line}", error.cause)
                break
            if vote is not None:
                frames.append(_VOTE.pack(5, vote.letter, vote.votes))
        return Chunk(b"".join(frames), len(frames))


def _parse_line(line: bytes, number: int) -> Votes | None:
    """Read a line of bounded length."""
    if len(line) > LINE_BYTES_MAX:
        raise VoteLineError(number, f"it is longer than {LINE_BYTES_MAX} bytes")
    return parse_vote_line(line, number)


def _are_votes(data: bytes) -> bool:
    """Say whether n x 9 bytes are n frames of 5 bytes each."""
    votes = len(data) // VOTE_BYTES
    zeros = (data[at::VOTE_BYTES].count(0) for at in range(HEADER_BYTES - 1))
    fives = data[HEADER_BYTES - 1 :: VOTE_BYTES].count(5)
    return fives == votes and all(count == votes for count in zeros)


def read_votes(pieces: Iterable[bytes], reader: VoteReader) -> Iterator[Chunk]:
    """Read an input from its beginning to its end.

    Raises:
        VoteInputError: There is a fault; what came before it has been given out.
    """
    for piece in pieces:
        yield reader.receive(piece)
        if reader.fault:
            raise reader.fault
    yield reader.end()
    if reader.fault:
        raise reader.fault


def random_votes(seed: int) -> Iterator[Chunk]:
    """Make votes without end: letters a to z, 1 to 10,000 votes, both inclusive.

    One seed always makes the same votes.
    """
    source = random.Random(seed)  # noqa: S311 - these votes are no secret
    while True:
        letters = source.choices(_RANDOM_LETTERS, k=CHUNK_VOTES)
        votes = source.choices(_RANDOM_VOTES, k=CHUNK_VOTES)
        pairs = zip(letters, votes, strict=True)
        frames = b"".join([_VOTE.pack(5, letter, count) for letter, count in pairs])
        yield Chunk(frames, CHUNK_VOTES)


def first_votes(chunks: Iterator[Chunk], votes: int) -> Iterator[Chunk]:
    """Give out the first votes only, and read no further."""
    while votes > 0 and (chunk := next(chunks, None)):
        chunk, _ = chunk.split(votes)
        votes -= chunk.votes
        yield chunk


def skip_votes(chunks: Iterator[Chunk], votes: int) -> Iterator[Chunk]:
    """Leave out the first votes.

    Raises:
        VoteInputError: There are not that many.
    """
    left = votes
    for chunk in chunks:
        skipped, rest = chunk.split(left)
        left -= skipped.votes
        yield rest
    if left:
        raise VoteInputError(
            f"vote {votes - left}", f"it is the last, and {votes} were to be skipped"
        )


def cut_votes(chunks: Iterator[Chunk], votes_max: int) -> Iterator[Chunk]:
    """Give out chunks of `votes_max` votes at most, none of them empty."""
    for whole in chunks:
        chunk, rest = whole.split(votes_max)
        while chunk.votes:
            yield chunk
            chunk, rest = rest.split(votes_max)
