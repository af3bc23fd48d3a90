"""A flood as a case: as many votes as take about the same time for every subject."""

from collections.abc import Callable, Iterable
from pathlib import Path

import attrs

from bench.case import Case, Value
from bench.plan import Plan
from bench.subject import Flooded, Subject

ENOUGH = 0.2
"""The share of the time wanted that a flood must last to tell the rate."""
PROBES_MAX = 5


@attrs.define
class Flooding:
    """Floods a subject; `values` says what is taken of each flood.

    Where the plan has no number of votes, the first run finds out how many fill its
    time. All runs have that many: rates of different runs are comparable.
    """

    plan: Plan
    subject: Subject
    values: Callable[[Flooded], Iterable[Value]]
    _votes: int = 0

    def measure(self, place: Path) -> Iterable[Value]:
        """Flood once; a first time also to find the size, if the plan has none."""
        if not self._votes:
            self._votes = self.plan.flood_votes or self._find_size(place)
        return self.values(self._flood(place, "run", self._votes))

    def _find_size(self, place: Path) -> int:
        """Flood for longer and longer, until a flood says enough about the rate."""
        votes, seconds = self.plan.probe_votes, self.plan.seconds
        for number in range(PROBES_MAX):
            flooded = self._flood(place, f"probe{number}", votes)
            rate = flooded.votes_per_second
            if flooded.seconds >= ENOUGH * seconds:
                return max(1, int(rate * seconds))
            votes = max(votes, int(rate * seconds * 2 * ENOUGH))
        return votes

    def _flood(self, place: Path, name: str, votes: int) -> Flooded:
        inner = place / name
        inner.mkdir()
        inner.chmod(0o755)
        return self.subject.flood(inner, votes)


def flood_case(
    plan: Plan,
    subject: Subject,
    title: str,
    values: Callable[[Flooded], Iterable[Value]],
) -> Case:
    """Make a case of a subject's floods."""
    return Case(title, Flooding(plan, subject, values).measure)
