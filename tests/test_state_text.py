"""States as text."""

import ast

from hypothesis import given
from hypothesis import strategies as st

from alphabet.pipeline.partition import Partition
from alphabet.pipeline.state_text import state_rows, state_text

plain = st.recursive(
    st.none() | st.integers() | st.binary(max_size=3) | st.text(max_size=3),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.tuples(inner),
        st.tuples(inner, inner),
        st.dictionaries(st.text(max_size=2), inner, max_size=3),
    ),
    max_leaves=6,
)


class Mute:
    """An object that does not tell itself."""

    def __init__(self, **attributes: object) -> None:
        self.__dict__.update(attributes)


class Slotted:
    """One that has no attributes of its own either."""

    __slots__ = ()


@given(plain)
def test_plain_values_can_be_read_back(value: object) -> None:
    """What Python's own containers hold is told as `repr` tells it."""
    assert ast.literal_eval(state_text(value, 100)) == value


def test_objects_are_told_by_their_attributes() -> None:
    """A class without `repr` is told, wherever it stands."""
    state = Mute(votes={b"a": [Mute(n=1), (Mute(n=2),)]})
    assert state_text(state) == "Mute(votes={b'a': [Mute(n=1), (Mute(n=2),)]})"


def test_sets_are_told_in_order() -> None:
    """A set's text does not depend on how it was filled."""
    assert state_text({"b", "a"}) == state_text({"a", "b"}) == "set(['a', 'b'])"
    assert state_text(frozenset()) == "frozenset([])"


def test_what_refers_to_itself_is_cut_short() -> None:
    """A text has an end."""
    state = Mute()
    state.own = state  # type: ignore[attr-defined]
    assert state_text(state, 2) == "Mute(own=Mute(own=...))"


def test_what_cannot_be_told_is_its_repr() -> None:
    """An object without attributes is left to Python."""
    assert state_text(Slotted()).startswith("<tests.test_state_text.Slotted object")


def test_rows() -> None:
    """A partition has a row for each key that came, any other state has one."""
    partition = Partition.of_keys(("a", "b", 1), list)
    partition.state(1).append(2)
    partition.state("a")
    assert state_rows("sum", partition) == [("sum['a']", "[]"), ("sum[1]", "[2]")]
    assert state_rows("sum", 5) == [("sum", "5")]
