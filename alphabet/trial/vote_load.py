"""A load of votes: which votes a measurement sends, and what they add up to.

Pure, and independent of the server: nothing here has passed a log or a state. Votes
are numpy columns, `letters: u1[n]` and `counts: u4[n]`; a load of many senders has a
row of n for each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Letters = NDArray[np.uint8]
    Counts = NDArray[np.uint32]
    Totals = NDArray[np.uint64]
    Records = NDArray[np.void]

VOTE = np.dtype([("length", ">u4"), ("letter", "u1"), ("votes", ">u4")])
OUTPUT = np.dtype([("length", ">u4"), ("letter", "u1"), ("total", ">u8")])
VOTE_BYTES = VOTE.itemsize
OUTPUT_BYTES = OUTPUT.itemsize

SENDERS_MAX = 1000
"""The most senders that a load can have, inclusive."""
TURN_VOTES_MAX = 1_000_000
"""About how many votes one turn of a load has at most, all senders together."""
SENDER_TURN_VOTES = 4000
"""How many votes a sender has in a turn, even if that makes the turn longer."""
POSITION_BITS = 22
"""How many bits of a tagged vote tell its position in the turn."""
BYTE_VALUES = 256

_VOTES_MAX = 10_000
_LETTER_FIRST, _LETTER_LAST = b"az"


@attrs.frozen
class Load:
    """Random votes for the letters a to z: `turns` times the same from each sender.

    A lone sender's votes are 1 to 10,000 (inclusive). Of several senders each vote
    says whose it is and which: `(sender + 1) << 22 | position`, sender and position in
    the turn from 0. So the order in which a server has taken them can be read from its
    outputs.
    """

    votes_per_turn: int
    turns: int = 1
    senders: int = 1
    seed: int = 0

    @property
    def votes(self) -> int:
        """How many votes all senders send."""
        return self.senders * self.votes_per_turn * self.turns

    @property
    def output_bytes(self) -> int:
        """How many bytes of outputs must come of them."""
        return OUTPUT_BYTES * self.votes

    def letters(self) -> Letters:
        """Make the letters of a turn: `u1[senders, votes_per_turn]`."""
        chance = np.random.default_rng(self.seed)
        shape = (self.senders, self.votes_per_turn)
        return chance.integers(
            _LETTER_FIRST, _LETTER_LAST, shape, np.uint8, endpoint=True
        )

    def counts(self) -> Counts:
        """Make the votes of a turn: `u4[senders, votes_per_turn]`."""
        shape = (self.senders, self.votes_per_turn)
        if self.senders == 1:
            chance = np.random.default_rng(self.seed + 1)
            return chance.integers(1, _VOTES_MAX, shape, np.uint32, endpoint=True)
        senders = np.arange(1, self.senders + 1, dtype=np.uint32)
        positions = np.arange(self.votes_per_turn, dtype=np.uint32)
        return (senders[:, np.newaxis] << np.uint32(POSITION_BITS)) | positions

    def frames(self) -> Records:
        """Make the frames of a turn: `VOTE[senders, votes_per_turn]`."""
        frames = np.empty((self.senders, self.votes_per_turn), VOTE)
        frames["length"] = VOTE_BYTES - 4
        frames["letter"] = self.letters()
        frames["votes"] = self.counts()
        return frames

    def totals(self) -> dict[str, int]:
        """Give what all votes of all turns add up to, by letter."""
        sums = sum_by_letter(self.letters().ravel(), self.counts().ravel())
        return {
            chr(code): int(sums[code]) * self.turns for code in np.flatnonzero(sums)
        }


def load_of(votes: int, senders: int = 1) -> Load:
    """Choose a load of about so many votes, in turns that stay near a cache's size."""
    turn_votes_max = max(TURN_VOTES_MAX // senders, SENDER_TURN_VOTES)
    turn_votes = max(1, min(votes // senders, turn_votes_max))
    return Load(turn_votes, max(1, round(votes / (senders * turn_votes))), senders)


def running_totals(letters: Letters, counts: Counts) -> Totals:
    """Give each vote's output, its letter's total so far, by the definition."""
    totals = np.zeros(len(letters), np.uint64)
    for code in np.unique(letters):
        is_here = letters == code
        totals[is_here] = np.cumsum(counts[is_here], dtype=np.uint64)
    return totals


def sum_by_letter(letters: Letters, counts: Counts) -> Totals:
    """Add up votes by letter: `u8[256]`, exact below 2**53."""
    return np.bincount(letters, counts, minlength=BYTE_VALUES).astype(np.uint64)
