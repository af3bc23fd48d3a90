"""Tables in documents: made from cells, and put in the place of older ones."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.markdown_table import renew, write_table

cells = st.text("abc 019,.+-%", min_size=1, max_size=5).map(lambda text: f"x{text}")
rows = st.lists(st.tuples(cells, cells), min_size=1, max_size=4)
prose = st.lists(st.sampled_from(["", "words", "- a | b", "| other |"]), max_size=4)


def table(head: str, body: list[tuple[str, str]]) -> str:
    """Make a table of two columns."""
    return write_table(f"| {head} | (b) |", body)


@given(prose, rows, prose, rows, rows)
def test_only_the_table_is_renewed(
    before: list[str],
    old: list[tuple[str, str]],
    after: list[str],
    new: list[tuple[str, str]],
    second: list[tuple[str, str]],
) -> None:
    """A table, whatever its length, is replaced whole, and nothing else is touched."""

    def document(first: str, other: str) -> str:
        return "\n".join([*before, "", first, "", *after, "", other, "the end\n"])

    found = renew(
        document(table("a", old), table("c", second)),
        [table("c", old), table("a", new)],
    )
    assert found == document(table("a", new), table("c", old))
    assert renew(found, [table("a", new)]) == found


@pytest.mark.parametrize("count", [0, 2])
def test_a_table_must_be_there_once(count: int) -> None:
    """A document without the table, or with two, is refused by the table's head."""
    one = table("a", [("x", "1")])
    with pytest.raises(ValueError, match=r"begins with \| a \| \(b\) \|"):
        renew("\n\n".join([one] * count + [table("ab", [("x", "1")])]), [one])


def test_numbers_are_set_to_the_right() -> None:
    """A column whose first cell is a number, or an error with its sign, is right."""
    found = write_table("| a | b | c |", [["x", "1,000", "-3%"], ["y", "2", "+1%"]])
    assert found.splitlines() == [
        "| a | b | c |",
        "|---|--:|--:|",
        "| x | 1,000 | -3% |",
        "| y | 2 | +1% |",
    ]
