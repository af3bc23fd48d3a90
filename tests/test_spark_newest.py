"""The newest output of each letter, beside what is heard one output after another."""

import itertools
from collections.abc import Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from alphabet.outputs import Outputs
from alphabet.spark.newest import Newest

LETTERS = st.sampled_from([0, 65, 66, 255])
Told = tuple[int, bytes]
"""An event's letter and its output."""
SLICES = st.lists(st.tuples(LETTERS, st.binary(max_size=3)), max_size=6)
EQUAL = st.lists(st.tuples(LETTERS, st.binary(min_size=2, max_size=2)), max_size=6)


def take(newest: Newest, told: Sequence[Told]) -> None:
    """Let it take a slice, whose ends are a range where all outputs are as large."""
    letters = np.array([letter for letter, _ in told], np.uint8)
    sizes = [len(data) for _, data in told]
    ends: Sequence[int] = list(itertools.accumulate(sizes))
    if told and set(sizes) == {2}:
        ends = range(2, 2 * len(told) + 1, 2)
    newest.take(letters, Outputs(0, b"".join(data for _, data in told), ends))


@given(st.lists(st.lists(SLICES | EQUAL, max_size=3), max_size=3))
def test_they_are_the_last_of_each_letter(batches: list[list[list[Told]]]) -> None:
    """Each letter's last output is there, in order, those of earlier batches first."""
    newest = Newest()
    heard: list[tuple[int, int, bytes]] = []
    for number, batch in enumerate(batches):
        newest = Newest.of(newest.outputs)
        for slice_ in batch:
            take(newest, slice_)
            heard += [(number, letter, data) for letter, data in slice_ if data]
        last = {letter: n for n, (_, letter, _) in enumerate(heard)}
        left = [heard[n] for n in sorted(last.values())]
        assert newest.outputs == tuple((letter, data) for _, letter, data in left)
        assert newest.earlier_count == sum(each[0] < number for each in left)


def test_a_batch_that_begins() -> None:
    """What was of the batch under way is of an earlier one when the next begins."""
    newest = Newest()
    take(newest, [(65, b"x"), (66, b"y")])
    newest.begin_batch()
    take(newest, [(65, b"z")])
    assert newest.outputs == ((66, b"y"), (65, b"z"))
    assert newest.earlier_count == 1
