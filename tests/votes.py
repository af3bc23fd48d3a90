"""Votes, and what must become of them: an independent reference.

Written from the tutorial's definition, with nothing of the product in it: a vote is a
letter and a number, and each one's output is its letter's running total.
"""

import functools
import random
import struct
from collections.abc import Iterable, Sequence

VOTE_BYTES = 9
OUTPUT_BYTES = 13

Vote = tuple[bytes, int]


def make_votes(chance: random.Random, count: int, letters: int = 26) -> list[Vote]:
    """Make votes at random, each for one vote at least, so that no output repeats."""
    alphabet = [bytes([97 + index]) for index in range(letters)]
    return [
        (letter, chance.randrange(1, 1000))
        for letter in chance.choices(alphabet, k=count)
    ]


def frame(payload: bytes) -> bytes:
    """Put a payload's length before it."""
    return struct.pack(">I", len(payload)) + payload


def wire(votes: Iterable[Vote]) -> bytes:
    """Write votes as a sender does."""
    return b"".join(struct.pack(">IsI", 5, *vote) for vote in votes)


def payloads(votes: Iterable[Vote]) -> bytes:
    """Write votes as a log stores them."""
    return b"".join(struct.pack(">sI", *vote) for vote in votes)


def outputs(votes: Iterable[Vote]) -> bytes:
    """Write the outputs of votes that are counted in this order, from nothing."""
    running: dict[bytes, int] = {}
    pieces = []
    for letter, number in votes:
        running[letter] = running.get(letter, 0) + number
        pieces.append(struct.pack(">IsQ", 9, letter, running[letter]))
    return b"".join(pieces)


def tally(votes: Iterable[Vote]) -> dict[str, int]:
    """Add up votes: the totals by letter."""
    running: dict[str, int] = {}
    for letter, number in votes:
        name = letter.decode("latin-1")
        running[name] = running.get(name, 0) + number
    return running


def trace(connections: Sequence[bytes | bytearray], expected: bytes) -> list[range]:
    """Say which outputs each connection brought, as ranges of indices from 0.

    Every byte is compared. Fails unless each connection begins on a whole output, goes
    on without a gap, and begins no later than the outputs before it ended.
    """
    place_of = _places(expected)
    found = []
    reached = 0
    for number, data in enumerate(connections):
        if len(data) < OUTPUT_BYTES:
            continue
        first = place_of.get(bytes(data[:OUTPUT_BYTES]))
        assert first is not None, f"connection {number} begins with no output"
        assert first <= reached, f"outputs {reached} to {first - 1} were skipped"
        start = first * OUTPUT_BYTES
        assert data == expected[start : start + len(data)], (
            f"connection {number}, which begins at output {first}, went wrong"
        )
        outputs_here = range(first, first + len(data) // OUTPUT_BYTES)
        reached = max(reached, outputs_here.stop)
        found.append(outputs_here)
    return found


@functools.lru_cache(maxsize=1)
def _places(expected: bytes) -> dict[bytes, int]:
    """Give the index of each output, none of which comes twice."""
    return {
        expected[start : start + OUTPUT_BYTES]: start // OUTPUT_BYTES
        for start in range(0, len(expected), OUTPUT_BYTES)
    }
