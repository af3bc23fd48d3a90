"""The same fault again and again."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from alphabet.journal.entries import (
    Entry,
    disk_full,
    sink_lost,
    sink_new,
    sink_unreachable,
)
from alphabet.journal.repeats import FAULTS_MAX, REPEAT_SECONDS_MAX, Repeats

DAY_SECONDS = 24 * 3600


def fault(number: int) -> Entry:
    """Make one of a few faults that differ in what they have alike, or do not."""
    sink = f"sink{number % 2}"
    if number < 2:
        return sink_unreachable(sink=sink, address="a:1", cause="refused")
    if number < 4:
        return sink_lost(sink=sink, address="a:1", cause="reset", sequence=number)
    return disk_full(sequence=number, cause="no space")


class TestRepeats:
    """What is said, and how often."""

    def test_a_day_of_refusals_is_some_lines(self) -> None:
        """A sink that is lost each second for a day makes a few hundred lines."""
        repeats = Repeats()
        said = []
        for now in range(DAY_SECONDS):
            lost = sink_lost(sink="out", address="a:1", cause="reset", sequence=now)
            said += [*repeats.note(lost, now), *repeats.due(now)]
        said += repeats.due(float("inf"))
        assert sum(each.count for each in said) == DAY_SECONDS
        assert len(said) <= DAY_SECONDS / REPEAT_SECONDS_MAX + 12
        assert said[0].facts["sequence"] == 0
        assert said[-1].facts["sequence"] == DAY_SECONDS - 1

    def test_another_fault_is_said_at_once(self) -> None:
        """One that repeats hides no other: another sink's, nor another cause."""
        repeats = Repeats()
        for sink, cause, is_said in (
            ("a", "refused", True),
            ("a", "refused", False),
            ("b", "refused", True),
            ("a", "no route", True),
        ):
            entry = sink_unreachable(sink=sink, address="a:1", cause=cause)
            assert repeats.note(entry, 0) == [entry] * is_said

    def test_what_is_said_once_is_not_paced(self) -> None:
        """Several of a kind that is not paced are all said, at once."""
        repeats = Repeats()
        for number in range(3):
            entry = sink_new(sink=str(number), sequence=0, known="none")
            assert repeats.note(entry, 0) == [entry]
        assert repeats.due_at is None

    def test_faults_beyond_the_bound_are_told_of(self) -> None:
        """Memory is bounded, and what is let go for that is said then."""
        repeats = Repeats()
        said = []
        for number in range(2 * FAULTS_MAX):
            entry = sink_unreachable(sink="a", address="a:1", cause=str(number))
            said += [*repeats.note(entry, 0), *repeats.note(entry, 0)]
        assert len(said) == 3 * FAULTS_MAX
        rest = repeats.due(float("inf"))
        assert len(rest) == FAULTS_MAX
        assert len({str(each.facts["cause"]) for each in said}) == 2 * FAULTS_MAX

    @given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from([0.0, 0.5, 4.0]))))
    def test_each_is_told_of_once(self, steps: list[tuple[int, float]]) -> None:
        """Lines and sums tell of every entry, each under its own kind and sink."""
        repeats = Repeats()
        now = 0.0
        told: Counter[object] = Counter()
        for number, pause in steps:
            for each in (*repeats.note(fault(number), now), *repeats.due(now)):
                told[each.pace_key] += each.count
            due_at = repeats.due_at
            assert due_at is None or due_at > now
            now += pause
        for each in repeats.due(float("inf")):
            told[each.pace_key] += each.count
        assert told == Counter(fault(number).pace_key for number, _ in steps)
