"""The parts of the word count, without a server."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.word_count.application import (
    SHELVES,
    Count,
    Counts,
    CountsBuilder,
    Encoder,
    Shelf,
    Split,
)

words = st.text(max_size=9)


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("The cat, the dog.", ["the", "cat", "the", "dog"]),
        ("Straße STRASSE", ["strasse", "strasse"]),
        ("...", []),
        ("", []),
    ],
)
def test_a_line_has_words(line: str, found: list[str]) -> None:
    """Words are in order, in small letters; a line may have none."""
    assert Split().compute_multi(line) == found


def test_a_word_is_counted() -> None:
    """Each time one more, beside all other words."""
    state = CountsBuilder().build()
    given_out = [Count().compute(word, state)[0] for word in ("a", "b", "a")]
    assert given_out == [("a", 1), ("b", 1), ("a", 2)]


@given(words)
def test_every_word_has_a_shelf(word: str) -> None:
    """Any word that UTF-8 can write has its place in the list of keys."""
    assert Shelf().partition(word) in range(SHELVES)


def test_a_shelf_stays_the_same() -> None:
    """A word's shelf is the same in every process, for a replay depends on it."""
    assert [Shelf().partition(word) for word in ("a", "cat", "né")] == [3, 8, 9]


@given(st.dictionaries(words, st.integers(1)))
def test_a_shelf_is_stored(counts: Counts) -> None:
    """It is read as it was written; its order is no part of it."""
    builder = CountsBuilder()
    assert builder.load(builder.dump(counts)) == counts
    backwards = dict(reversed(counts.items()))
    assert builder.dump(backwards) == builder.dump(counts)


def test_an_output_is_a_frame() -> None:
    """Its header tells what follows."""
    assert Encoder().encode(("cat", 12)) == b"\x00\x00\x00\x06cat 12"
