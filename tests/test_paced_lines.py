"""One line in a while."""

import itertools

import attrs
from hypothesis import given
from hypothesis import strategies as st

from alphabet.journal.entries import Entry, sender_ended
from alphabet.journal.paced_lines import PACE_SECONDS, PacedLines

seconds = st.sampled_from([0.0, 0.25, 0.5, 1.0, 2.0, 60.0])
LONGEST = 8.0


def entry(reason: str) -> Entry:
    """Make an entry."""
    return sender_ended(peer="p", reason=reason)


A, B, C, D = map(entry, "abcd")


class TestPacedLines:
    """What is said at once, and what later."""

    def test_a_lone_line_is_said_at_once(self) -> None:
        """A line that comes a second after the last one is said as it is."""
        lines = PacedLines()
        assert lines.note(A, 0) == A
        assert lines.due_at is None
        assert lines.due(99) is None
        assert lines.note(B, PACE_SECONDS) == B

    def test_a_second_line_waits_for_its_second(self) -> None:
        """A line too soon is said later, as it is."""
        lines = PacedLines()
        lines.note(A, 0)
        assert lines.note(B, 0.5) is None
        assert lines.due(0.9) is None
        assert lines.due_at == 1
        assert lines.due(1) == B
        assert lines.due(9) is None

    def test_more_are_one_line(self) -> None:
        """Of several that came too soon the last is said, and how many they were."""
        lines = PacedLines()
        lines.note(A, 0)
        for each in (B, C, D):
            lines.note(each, 0.5)
        due = lines.due(1)
        assert due == attrs.evolve(D, count=3)
        assert due.text == "3 more turned away; the last: p: d"

    def test_one_that_waits_goes_first(self) -> None:
        """What waits is not passed by what comes when it is due."""
        lines = PacedLines()
        lines.note(A, 0)
        lines.note(B, 0.5)
        assert lines.note(C, 5) is None
        assert lines.due(5) == attrs.evolve(C, count=2)

    def test_it_grows_slower_and_recovers(self) -> None:
        """What goes on is said at doubling intervals; a long pause ends that."""
        lines = PacedLines(LONGEST)
        said = [
            now / 2
            for now in range(100)
            for line in (lines.note(A, now / 2), lines.due(now / 2))
            if line is not None
        ]
        assert said == [0, 1, 3, 7, 15, 23, 31, 39, 47]
        assert lines.due(55) is not None
        assert lines.note(A, 63 + LONGEST) == A
        assert lines.note(A, 63 + LONGEST + PACE_SECONDS) == A

    @given(
        st.sampled_from([PACE_SECONDS, LONGEST]),
        st.lists(st.tuples(seconds, st.integers(1, 9))),
    )
    def test_never_two_in_a_second(
        self, longest: float, steps: list[tuple[float, int]]
    ) -> None:
        """Two lines are a second apart at least, and tell of every entry in the end."""
        lines = PacedLines(longest)
        now, given = 0.0, 0
        said: list[float] = []
        told = 0
        for pause, count in steps:
            given += count
            for line in (lines.note(A, now, count), lines.due(now)):
                if line is not None:
                    said.append(now)
                    told += line.count
            now += pause
        assert all(b - a >= PACE_SECONDS for a, b in itertools.pairwise(said))
        last = lines.due(now + longest)
        assert told + (last.count if last is not None else 0) == given
