"""Encoded outputs: which bytes belong to which event."""

from hypothesis import given
from hypothesis import strategies as st

from alphabet.outputs import Outputs
from log.row import Cursor
from tests import toy

pieces = st.lists(st.binary(max_size=3), max_size=8)


class TestOutputs:
    """A run of events' outputs."""

    @given(st.integers(1, 9), pieces, st.integers(0, 20))
    def test_after(self, first: int, each: list[bytes], sequence: int) -> None:
        """What is after an event is what its later events gave, and nothing else."""
        passed = min(max(sequence + 1 - first, 0), len(each))
        expected = toy.outputs(first + passed, each[passed:])
        assert toy.outputs(first, each).after(sequence) == expected

    @given(st.integers(1, 9), pieces, st.integers(0, 99))
    def test_they_end_where_the_last_event_does(
        self, first: int, each: list[bytes], offset: int
    ) -> None:
        """The end is the last event's, behind all bytes; of none, the one before."""
        outputs = toy.outputs(first, each)
        last = first + len(each) - 1
        assert outputs.last_sequence == last
        end = Cursor(last, offset + sum(map(len, each)))
        assert outputs.end_cursor(offset) == end

    def test_events_without_output_weigh_too(self) -> None:
        """Many events weigh more than few, though none of them has an output."""
        assert (
            toy.outputs(1, [b""] * 100).weight > 10 * toy.outputs(1, [b""]).weight > 0
        )
        assert toy.outputs(1, [bytes(1000)]).weight > 1000


def test_a_part_is_the_same_pipelines() -> None:
    """What is left of outputs, and what is muted, belongs to the pipeline as before."""
    whole = Outputs(1, b"abc", [1, 3], 2)
    assert whole.after(1).pipeline == whole.muted().pipeline == 2
    assert whole.muted() == Outputs(1, b"", [0, 0])
