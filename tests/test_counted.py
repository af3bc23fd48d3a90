"""A number and what it counts."""

from hypothesis import given
from hypothesis import strategies as st

from recovery.counted import counted


@given(count=st.integers(0, 2**64))
def test_only_one_is_singular(count: int) -> None:
    """One is in the singular; none, and many, are not."""
    noun = "vote is" if count == 1 else "votes are"
    assert counted(count, "vote is", "votes are") == f"{count} {noun}"


def test_votes_are_what_is_counted_most() -> None:
    """Nothing else was named, so they are votes."""
    assert (counted(1), counted(2)) == ("1 vote", "2 votes")
