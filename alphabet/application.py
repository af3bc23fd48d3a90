"""Count votes: the application of Wallaroo's tutorial, in its order, with its names.

Start reading here. A vote is a letter and a number; the application adds the number to
the letter's running total and sends the new total on. Everything else in this project
exists so that no vote is lost on the way.

This module knows nothing of sockets, files or logs. What the tutorial leaves open:
    - A letter is any single byte.
    - A total never wraps: a vote that would take it past `TOTAL_MAX` raises before it
      changes anything.
    - A state is stored as a plain table, never as a pickle.

Every vote passes these classes one by one, so they carry no validators.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, NamedTuple

import attrs
import numpy as np

from alphabet import wallaroo

if TYPE_CHECKING:
    from numpy.typing import NDArray

STATE_VERSION = 1
"""Raised when the same votes would make another state, or a state other bytes."""

TOTAL_MAX = 2**64 - 1
"""The largest total, inclusive: what an output has room for."""

_LENGTH = struct.Struct(">I")
_VOTE = struct.Struct(">sI")
_OUTPUT = struct.Struct(">IsQ")
_TOTAL = struct.Struct(">sQ")

_VOTE_ROW = np.dtype([("letter", "u1"), ("votes", ">u4")])
_OUTPUT_ROW = np.dtype([("length", ">u4"), ("letter", "u1"), ("total", ">u8")])
_CODES = np.arange(256, dtype=np.uint8)
_LETTERS = [bytes([code]) for code in range(256)]


class AddVotes:
    """The computation: add a vote to its letter's total."""

    def name(self) -> str:
        """Name the computation."""
        return "add votes"

    def compute(self, data: Votes, state: AllVotes) -> tuple[Votes, bool]:
        """Add the votes; return the new total, and True: a state to come back to.

        Raises:
            TotalOverflowError: The total would pass `TOTAL_MAX`; nothing has changed.
        """
        state.update(data)
        return (state.get_votes(data.letter), True)

    def compute_batch(
        self, data: VoteColumns, state: AllVotes
    ) -> tuple[TotalColumns, NDArray[np.bool_]]:
        """Do what `compute` does for n votes at once: n running totals, n times True.

        The votes are sorted by letter, keeping their order; then a letter's running
        totals are one cumulative sum. Raises TotalOverflowError before anything
        changes where the sum of all votes for a letter would pass `TOTAL_MAX`.
        """
        order = data.letters.argsort(kind="stable")
        ends = data.letters.take(order).searchsorted(_CODES, "right")
        counts = _differences(ends)
        codes = np.flatnonzero(counts)
        running = data.votes.take(order).astype(np.uint64)
        np.cumsum(running, out=running)
        last = running[ends[codes] - 1]
        sums = _differences(last)
        before = state.add_sums(codes.tolist(), sums.tolist())
        # One cumulative sum runs through all letters: take the letters before away.
        shift = np.array(before, np.uint64)
        shift[1:] -= last[:-1]
        running += shift.repeat(counts[codes])
        totals = np.empty_like(running)
        totals[order] = running
        return (TotalColumns(data.letters, totals), np.ones(len(totals), np.bool_))

    def replay_batch(self, data: VoteColumns, state: AllVotes) -> None:
        """Change the state as `compute_batch` does, and give no outputs."""
        # Exact: a batch's sum stays far below 2**53, where float64 counts by ones.
        sums = np.bincount(data.letters, weights=data.votes, minlength=len(_CODES))
        # A letter with nothing but votes of 0 has its total too.
        zeros = np.bincount(data.letters[data.votes == 0], minlength=len(_CODES))
        codes = np.flatnonzero((sums > 0) | (zeros > 0))
        state.add_sums(codes.tolist(), sums[codes].astype(np.uint64).tolist())


def _differences(column: NDArray[Any]) -> NDArray[Any]:
    """Give the first number, and how much each is above the one before it."""
    differences = column.copy()
    differences[1:] -= column[:-1]
    return differences


@attrs.define
class Votes:
    """A letter and a number: a vote on the way in, the letter's total on the way out.

    Attributes:
        letter: A single byte.
        votes: 0 to 2**32-1 in a vote, 0 to `TOTAL_MAX` in a total, inclusive.
    """

    letter: bytes
    votes: int


@attrs.frozen
class TotalOverflowError(OverflowError):
    """A vote would take a letter's total past `TOTAL_MAX`."""

    letter: bytes
    total: int
    votes: int

    def __str__(self) -> str:
        return (
            f"the total of {self.letter!r} is {self.total}:"
            f" {self.votes} more would pass {TOTAL_MAX}"
        )


class VoteColumns(NamedTuple):
    """n votes as columns, for the batch methods: a letter is its byte."""

    letters: NDArray[np.uint8]
    votes: NDArray[np.uint32]


class TotalColumns(NamedTuple):
    """n totals as columns."""

    letters: NDArray[np.uint8]
    totals: NDArray[np.uint64]


@attrs.define
class AllVotes:
    """The state: the total of each letter that was voted for."""

    votes_by_letter: dict[bytes, Votes] = attrs.field(factory=dict)

    def update(self, votes: Votes) -> None:
        """Add votes to their letter's total.

        Raises:
            TotalOverflowError: The total would pass `TOTAL_MAX`; nothing has changed.
        """
        letter = votes.letter
        vote_count = votes.votes

        votes_for_letter = self.votes_by_letter.get(letter) or Votes(letter, 0)
        total = votes_for_letter.votes + vote_count
        if total > TOTAL_MAX:
            raise TotalOverflowError(letter, votes_for_letter.votes, vote_count)
        votes_for_letter.votes = total
        self.votes_by_letter[letter] = votes_for_letter

    def add_sums(self, codes: list[int], sums: list[int]) -> list[int]:
        """Add to several letters, each given once by its byte; return what they had.

        Raises TotalOverflowError before anything changes.
        """
        letters = [_LETTERS[code] for code in codes]
        before = [
            known.votes if (known := self.votes_by_letter.get(letter)) else 0
            for letter in letters
        ]
        for letter, total, votes in zip(letters, before, sums, strict=True):
            if total + votes > TOTAL_MAX:
                raise TotalOverflowError(letter, total, votes)
        for letter, total, votes in zip(letters, before, sums, strict=True):
            self.votes_by_letter[letter] = Votes(letter, total + votes)
        return before

    def get_votes(self, letter: bytes) -> Votes:
        """Return a letter's total as a new object, which later updates leave alone.

        Raises:
            KeyError: The letter was never voted for.
        """
        vbl = self.votes_by_letter[letter]
        return Votes(letter, vbl.votes)


class LetterStateBuilder:
    """Make states: the first one, and stored ones from their bytes."""

    def build(self) -> AllVotes:
        """Make the state before the first vote."""
        return AllVotes()

    def dump(self, state: AllVotes) -> bytes:
        """Write a state as rows of 9 bytes, `>sQ`: letter, total; sorted by letter."""
        rows = sorted((v.letter, v.votes) for v in state.votes_by_letter.values())
        return b"".join([_TOTAL.pack(letter, total) for letter, total in rows])

    def load(self, data: bytes) -> AllVotes:
        """Read a state that `dump` wrote.

        Raises:
            ValueError: No state was written so: it is no whole number of rows, or they
                are out of order, or a letter has two.
        """
        if len(data) % _TOTAL.size:
            raise ValueError(
                f"a stored state of {len(data)} bytes is not made of rows of"
                f" {_TOTAL.size} bytes"
            )
        state = self.build()
        before = b""
        for letter, total in _TOTAL.iter_unpack(data):
            if letter <= before:
                raise ValueError(f"a stored state has {letter!r} after {before!r}")
            state.votes_by_letter[letter] = Votes(letter, total)
            before = letter
        return state


class Encoder:
    """Make an output's bytes: a frame with a letter and its total."""

    def encode(self, data: Votes) -> bytes:
        """Write a total as `>IsQ`: the payload's length, 9; the letter; the total."""
        # data is a Votes
        return _OUTPUT.pack(9, data.letter, data.votes)

    def encode_batch(self, data: TotalColumns) -> NDArray[np.uint8]:
        """Write n totals as n rows of 13 bytes, each what `encode` gives."""
        rows = np.empty(len(data.totals), _OUTPUT_ROW)
        # A column is written six times as fast as one number.
        rows["length"] = np.full(len(rows), 9, np.uint32)
        rows["letter"] = data.letters
        rows["total"] = data.totals
        return rows.view(np.uint8).reshape(-1, _OUTPUT.size)


class Decoder:
    """Make votes of frames."""

    record_schema = ">sI"
    """A payload's layout: a log of records of another one is refused."""

    def header_length(self) -> int:
        """Say how many bytes a frame's header has."""
        return 4

    def payload_length(self, bs: bytes) -> int:
        """Read a payload's length from its header, `>I`."""
        length: int = _LENGTH.unpack(bs)[0]
        return length

    def decode(self, bs: bytes) -> Votes:
        """Read a vote from a payload of 5 bytes, `>sI`: the letter; the votes.

        Raises:
            struct.error: The payload has another length.
        """
        (letter, vote_count) = _VOTE.unpack(bs)
        return Votes(letter, vote_count)

    def decode_batch(self, rows: NDArray[np.uint8]) -> VoteColumns:
        """Read n votes from n rows of 5 bytes, each what `decode` reads.

        Raises ValueError for rows of another length.
        """
        if rows.shape[1] != _VOTE.size:
            raise ValueError(f"a vote has {_VOTE.size} bytes, not {rows.shape[1]}")
        columns = rows.view(_VOTE_ROW)[:, 0]
        return VoteColumns(columns["letter"].copy(), columns["votes"].astype(np.uint32))


def application_setup(args: list[str]) -> wallaroo.Application:
    """Put the application together.

    Args:
        args: The command line; its first `--in` and its first `--out` are read.

    Raises:
        ValueError: An address in it cannot be read.
    """
    in_host, in_port = wallaroo.tcp_parse_input_addrs(args)[0]
    out_host, out_port = wallaroo.tcp_parse_output_addrs(args)[0]

    ab = wallaroo.ApplicationBuilder("alphabet")
    ab.new_pipeline("alphabet", wallaroo.TCPSourceConfig(in_host, in_port, Decoder()))
    ab.to_stateful(AddVotes(), LetterStateBuilder(), "letter state")
    ab.to_sink(wallaroo.TCPSinkConfig(out_host, out_port, Encoder()))
    return ab.build()
