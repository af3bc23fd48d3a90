"""The other side of the books: what a file adds up to, and what a receiver got."""

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphabet.sending.vote_input import VoteInputError
from alphabet.trial.vote_sum import ReceivedOutputs, differences, sum_votes, write_votes
from tests.votes import frame, make_votes, outputs, tally, wire

totals = st.dictionaries(
    st.integers(0, 255).map(chr), st.integers(1, 2**64 - 1), min_size=1, max_size=5
)


class TestSum:
    """What a file of votes adds up to."""

    def test_every_vote_is_added(self, tmp_path: Path) -> None:
        """The sum is that of the reference, whatever letters there are."""
        votes = [*make_votes(random.Random(1), 1000), (b"\xff", 7), (b"\0", 2**32 - 1)]
        file = tmp_path / "votes"
        file.write_bytes(wire(votes))
        found = sum_votes(file)
        assert (found.votes, found.totals) == (len(votes), tally(votes))

    def test_as_many_votes_are_written_as_asked_for(self, tmp_path: Path) -> None:
        """A written file holds that number of votes, and a seed makes it again."""
        first, again = tmp_path / "first", tmp_path / "again"
        write_votes(first, 30_000, seed=5)
        write_votes(again, 30_000, seed=5)
        assert sum_votes(first).votes == 30_000
        assert first.read_bytes() == again.read_bytes()

    @pytest.mark.parametrize(
        "data",
        [
            frame(b"a1234") + frame(b"b"),
            frame(b"a123") + frame(b"b12345"),
            frame(b"a1234")[:-1],
        ],
        ids=["a short payload", "two wrong lengths that make up", "a cut frame"],
    )
    def test_what_is_no_vote_is_named(self, tmp_path: Path, data: bytes) -> None:
        """A file with anything but votes in it has no sum."""
        file = tmp_path / "votes"
        file.write_bytes(data)
        with pytest.raises(VoteInputError):
            sum_votes(file)


class TestDifferences:
    """Whether other totals agree."""

    @given(totals)
    def test_equal_totals_have_none(self, expected: dict[str, int]) -> None:
        """Totals do not differ from themselves."""
        assert differences(expected, dict(expected), "it") == []

    @given(totals, st.data())
    def test_a_lost_vote_is_seen(
        self, expected: dict[str, int], data: st.DataObject
    ) -> None:
        """A total that is one too small is one difference."""
        letter = data.draw(st.sampled_from(sorted(expected)))
        found = expected | {letter: expected[letter] - 1}
        [line] = differences(expected, found, "the log's")
        assert line.endswith(
            f"total is {expected[letter]}, the log's is {expected[letter] - 1}"
        )

    def test_a_letter_too_many_is_seen(self) -> None:
        """Votes for a letter that the file does not have are a difference."""
        [line] = differences({"a": 1}, {"a": 1, "\x00": 2}, "it")
        assert line == r"\x00: the file's total is 0, it is 2"


def test_outputs_are_taken_in_whole(tmp_path: Path) -> None:
    """An output that is not whole yet is left for the next look, and counts once."""
    data = outputs([(b"a", 1), (b"b", 5), (b"a", 2)])
    received = ReceivedOutputs(tmp_path / "received")
    received.file.write_bytes(data[:30])
    assert received.read()
    assert (received.outputs, received.totals) == (2, {"a": 1, "b": 5})
    assert not received.read()
    received.file.write_bytes(data)
    assert received.read()
    assert (received.outputs, received.totals) == (3, {"a": 3, "b": 5})
