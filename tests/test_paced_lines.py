"""One line a second."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from alphabet.paced_lines import PACE_SECONDS, PacedLines

seconds = st.sampled_from([0.0, 0.25, 0.5, 1.0, 2.0])


class TestPacedLines:
    """What is said at once, and what later."""

    def test_a_lone_line_is_said_at_once(self) -> None:
        """A line that comes a second after the last one is said as it is."""
        lines = PacedLines("turned away")
        assert lines.note("a", 0) == "a"
        assert lines.due(99) is None
        assert lines.note("b", PACE_SECONDS) == "b"

    def test_a_second_line_waits_for_its_second(self) -> None:
        """A line too soon is said later, as it is."""
        lines = PacedLines("turned away")
        lines.note("a", 0)
        assert lines.note("b", 0.5) is None
        assert lines.due(0.9) is None
        assert lines.due(1) == "b"
        assert lines.due(9) is None

    def test_more_are_one_line(self) -> None:
        """Of several that came too soon the last is said, and how many they were."""
        lines = PacedLines("turned away")
        lines.note("a", 0)
        for text in "bcd":
            lines.note(text, 0.5)
        assert lines.due(1) == "3 more turned away; the last: d"

    def test_one_that_waits_goes_first(self) -> None:
        """What waits is not passed by what comes when it is due."""
        lines = PacedLines("turned away")
        lines.note("a", 0)
        lines.note("b", 0.5)
        assert lines.note("c", 5) is None
        assert lines.due(5) == "2 more turned away; the last: c"

    @given(st.lists(st.tuples(seconds, st.integers(1, 9))))
    def test_never_two_in_a_second(self, steps: list[tuple[float, int]]) -> None:
        """Whatever comes, and whenever one looks, two lines are a second apart."""
        lines = PacedLines("turned away")
        now = 0.0
        said: list[float] = []
        for pause, count in steps:
            for line in (lines.note("x", now, count), lines.due(now)):
                said += [now] * (line is not None)
            now += pause
        assert all(b - a >= PACE_SECONDS for a, b in itertools.pairwise(said))
