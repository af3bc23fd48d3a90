"""What must be true at the end of a long run, checked by numpy and by nothing of ours.

A vote is five bytes, a letter and a number; an output is thirteen, a length, a letter
and its running total. All columns are as long as the log.
"""

from collections.abc import Sequence
from pathlib import Path

import attrs
import numpy as np
from numpy.typing import NDArray

VOTE = np.dtype([("letter", "u1"), ("number", ">u4")])
FRAMED_VOTE = np.dtype([("bytes", ">u4"), ("letter", "u1"), ("number", ">u4")])
OUTPUT = np.dtype([("bytes", ">u4"), ("letter", "u1"), ("total", ">u8")])


@attrs.frozen
class Submission:
    """Votes that one plain connection sent: so many serial numbers from `first`."""

    first: int
    count: int
    has_receipt: bool


def votes_of(records: bytes) -> NDArray[np.void]:
    """Read a log's records as votes."""
    return np.frombuffer(records, VOTE)


def framed_votes_of(file: Path) -> NDArray[np.void]:
    """Read a file of votes as senders send them."""
    return np.fromfile(file, FRAMED_VOTE)


def outputs_of(votes: NDArray[np.void]) -> bytes:
    """Write the outputs that these votes must have, from nothing."""
    made = np.empty(len(votes), OUTPUT)
    made["bytes"] = 9
    made["letter"] = votes["letter"]
    for letter in np.unique(votes["letter"]):
        chosen = votes["letter"] == letter
        made["total"][chosen] = np.cumsum(votes["number"][chosen], dtype="u8")
    return made.tobytes()


def check_stream(votes: NDArray[np.void], sent: NDArray[np.void]) -> int:
    """Hold the log to a stream's framed votes: each once, in order; give how many."""
    logged = votes[np.isin(votes["letter"], np.unique(sent["letter"]))]
    assert len(logged) == len(sent), f"{len(logged)} of {len(sent)} votes"
    for column in ("letter", "number"):
        assert np.array_equal(logged[column], sent[column]), f"another {column}"
    return len(sent)


def check_submissions(
    votes: NDArray[np.void], letter: bytes, submissions: Sequence[Submission]
) -> int:
    """Hold the log to the sandwich; give how many votes without a receipt counted.

    Of each connection a beginning is there, once and in order; all, with a receipt.
    """
    numbers = votes["number"][votes["letter"] == ord(letter)].astype("i8")
    places = np.argsort(numbers)
    logged = numbers[places]
    assert len(np.unique(logged)) == len(logged), "a vote counted twice"
    uncertain = 0
    for each in submissions:
        low, high = np.searchsorted(logged, [each.first, each.first + each.count])
        beginning = np.arange(each.first, each.first + high - low)
        assert (logged[low:high] == beginning).all(), f"a hole in {each}"
        assert (np.diff(places[low:high]) > 0).all(), f"another order in {each}"
        if each.has_receipt:
            assert high - low == each.count, f"{high - low} of {each} were counted"
        else:
            uncertain += int(high - low)
    covered = sum(each.count for each in submissions)
    assert len(logged) <= covered, "votes that nobody sent"
    return uncertain


def check_connections(connections: Sequence[bytes | bytearray], expected: bytes) -> int:
    """Hold a plain receiver to the log's order; give how many outputs came again.

    Each connection begins on a whole output and goes on without a gap; together they
    leave none out.
    """
    wanted = np.frombuffer(expected, OUTPUT)
    reached = again = 0
    for number, data in enumerate(connections):
        whole = len(data) // OUTPUT.itemsize * OUTPUT.itemsize
        if not whole:
            continue
        got = np.frombuffer(data[:whole], OUTPUT)
        [first] = np.flatnonzero(
            (wanted["letter"] == got["letter"][0])
            & (wanted["total"] == got["total"][0])
        )
        assert first <= reached, f"outputs {reached} to {first - 1} were skipped"
        start = int(first) * OUTPUT.itemsize
        assert data == expected[start : start + len(data)], f"connection {number}"
        again += max(0, min(reached, int(first) + len(got)) - int(first))
        reached = max(reached, int(first) + len(got))
    assert reached == len(wanted), f"{reached} of {len(wanted)} outputs came"
    return again


def totals_of(votes: NDArray[np.void]) -> dict[str, int]:
    """Add up votes: the totals by letter."""
    return {
        chr(letter): int(votes["number"][votes["letter"] == letter].sum(dtype="u8"))
        for letter in np.unique(votes["letter"])
    }
