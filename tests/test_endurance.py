"""The long run, made short, and its books."""

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import endurance_books as books
from tests import votes as reference
from tests.endurance import Endurance
from tests.endurance_report import disk_in, report

LETTER = b"P"
SECONDS = 4.0

votes = st.lists(
    st.tuples(st.sampled_from([b"a", b"b", b"\xff"]), st.integers(1, 2**32 - 1)),
    min_size=1,
    max_size=30,
)


def logged(numbers: list[int]) -> "np.ndarray[tuple[int], np.dtype[np.void]]":
    """Give a log of these numbers, all of one letter."""
    return books.votes_of(reference.payloads((LETTER, number) for number in numbers))


class TestBooks:
    """What is held to what."""

    @given(votes)
    def test_outputs(self, sent: list[reference.Vote]) -> None:
        """Its outputs and totals are the reference's, and a stream is its file."""
        found = books.votes_of(reference.payloads(sent))
        assert books.outputs_of(found) == reference.outputs(sent)
        assert books.totals_of(found) == reference.tally(sent)

    @given(votes, st.data())
    def test_a_stream(self, sent: list[reference.Vote], data: st.DataObject) -> None:
        """A vote of a stream that is missing, doubled or changed is seen."""
        place = data.draw(st.integers(0, len(sent) - 1))
        letter, number = sent[place]
        wrong = data.draw(
            st.sampled_from(
                [
                    sent[:place] + sent[place + 1 :],
                    [*sent[:place], sent[place], *sent[place:]],
                    [*sent[:place], (letter, number ^ 1), *sent[place + 1 :]],
                ]
            )
        )
        framed = np.frombuffer(reference.wire(sent), books.FRAMED_VOTE)
        assert books.check_stream(books.votes_of(reference.payloads(sent)), framed)
        with pytest.raises(AssertionError):
            books.check_stream(books.votes_of(reference.payloads(wrong)), framed)

    @pytest.mark.parametrize(
        ("numbers", "receipts"),
        [
            ([1, 2, 3], [True, True]),
            ([1, 2, 2, 3, 4], [True, True]),
            ([2, 1, 3, 4], [True, True]),
            ([1, 2, 4], [True, False]),
            ([1, 2, 3, 4, 5], [True, True]),
        ],
        ids=["missing", "doubled", "another order", "a hole", "from nobody"],
    )
    def test_submissions_that_went_wrong(
        self, numbers: list[int], receipts: list[bool]
    ) -> None:
        """What plain senders were promised and did not get is seen."""
        sent = [
            books.Submission(1, 2, receipts[0]),
            books.Submission(3, 2, receipts[1]),
        ]
        with pytest.raises(AssertionError):
            books.check_submissions(logged(numbers), LETTER, sent)

    @pytest.mark.parametrize("numbers", [[1, 2], [1, 2, 3], [3, 1, 2, 4]])
    def test_submissions(self, numbers: list[int]) -> None:
        """Without a receipt any beginning is right, and connections may overtake."""
        receipts = {1: True, 3: False}
        sent = [books.Submission(first, 2, receipts[first]) for first in receipts]
        assert (
            books.check_submissions(logged(numbers), LETTER, sent) == len(numbers) - 2
        )

    @pytest.mark.parametrize(
        ("pieces", "again"),
        [
            ([(0, 9)], 0),
            ([(0, 5), (5, 9)], 0),
            ([(0, 5), (3, 9)], 2),
            ([(0, 9), (2, 4)], 2),
        ],
    )
    def test_connections(self, pieces: list[tuple[int, int]], again: int) -> None:
        """Outputs may come again, and are counted."""
        expected = reference.outputs(reference.make_votes(random.Random(1), 9))
        assert books.check_connections(cut(expected, pieces), expected) == again

    @pytest.mark.parametrize(
        ("pieces", "change"),
        [
            ([(0, 8)], bytes),
            ([(0, 3), (4, 9)], bytes),
            ([(1, 9)], bytes),
            ([(0, 9)], lambda data: data[:-1] + bytes([data[-1] ^ 1])),
            ([(0, 9)], lambda data: data[:26] + data[13:26] + data[39:]),
        ],
        ids=["short", "a gap", "a late start", "a changed byte", "a changed output"],
    )
    def test_connections_that_went_wrong(
        self, pieces: list[tuple[int, int]], change: Callable[[bytes], bytes]
    ) -> None:
        """A gap, a late start or a wrong byte is seen."""
        expected = reference.outputs(reference.make_votes(random.Random(1), 9))
        with pytest.raises(AssertionError):
            books.check_connections(cut(change(expected), pieces), expected)


def cut(data: bytes, pieces: list[tuple[int, int]]) -> list[bytes]:
    """Give pieces of outputs, from one to before another."""
    size = reference.OUTPUT_BYTES
    return [data[start * size : end * size] for start, end in pieces]


@pytest.mark.slow
def test_a_short_run(tmp_path: Path) -> None:
    """A few seconds of everything at once lose nothing, and make a report."""
    with disk_in(tmp_path) as disk:
        run = Endurance(tmp_path, disk, random.randrange(1 << 32), SECONDS)
        run.run()
    assert f"| events | {run.found.events:,} |" in report(run)
