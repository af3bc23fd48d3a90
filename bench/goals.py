"""What must be reached, and whether it is.

Pure. A goal is about one figure of Alphabet's, or all whose names begin alike; it has a
fixed bound, or one that is a multiple of another figure of the same runs.
"""

import statistics
from collections.abc import Sequence

import attrs

from alphabet.trial.figure import ALPHABET, Figure, format_number
from bench.parts import (
    beside,
    disk,
    event_path,
    flood,
    latency,
    memory,
    restart,
    throughput,
    watched,
)
from bench.plan import in_words
from bench.subjects import BARE

FULL_LOG_VOTES = 100_000_000


@attrs.frozen
class Goal:
    """A bound on figures.

    Attributes:
        figure: The name of Alphabet's figure; all that begin so if it ends in `*`.
        bound: The number that must be reached, or not be passed.
        unit: Of the bound; None if it is a ratio.
        is_least: Whether the bound must be reached at least; else at most.
        than: The figure to divide by, and whose it is, run by run.
    """

    figure: str
    bound: float
    unit: str | None = None
    is_least: bool = True
    than: tuple[str, str] | None = None

    def __str__(self) -> str:
        words = "at least" if self.is_least else "at most"
        number = format_number(self.bound)
        if self.than is None:
            return f"{self.figure}: {words} {number} {self.unit}"
        name, subject = self.than
        whose = subject if name == self.figure else f"{subject}'s for {name}"
        return f"{self.figure}: {words} {number} times {whose}"


@attrs.frozen
class Verdict:
    """What was measured for a goal; nothing if it was not, and then it is not met."""

    goal: Goal
    found: float | None

    @property
    def is_met(self) -> bool:
        """Say whether it was measured and is good enough."""
        if self.found is None:
            return False
        if self.goal.is_least:
            return self.found >= self.goal.bound
        return self.found <= self.goal.bound

    def row(self) -> str:
        """Write it as a row of a table."""
        if self.found is None:
            return f"| {self.goal} | | not measured |"
        number = format_number(self.found)
        unit = "times" if self.goal.unit is None else self.goal.unit
        return (
            f"| {self.goal} | {number} {unit} | {'met' if self.is_met else 'NOT MET'} |"
        )


def _at_most_times(name: str, bound: float) -> Goal:
    figure = latency.name_of(name)
    return Goal(figure, bound, is_least=False, than=(figure, latency.LMDB))


def _ready(seconds: float, *, has_snapshots: bool) -> Goal:
    name = restart.ready_name(FULL_LOG_VOTES, has_snapshots=has_snapshots)
    return Goal(name, seconds, "s", is_least=False)


ONE = throughput.ONE_SENDER
TEN = throughput.TEN_AT_A_TIME
THOUSAND = throughput.MANY_SENDERS[1000]

GOALS = (
    Goal(ONE, 50, than=(ONE, "Redis HINCRBY")),
    Goal(ONE, 30_000_000, "votes/s"),
    Goal(THOUSAND, 0.5, than=(ONE, ALPHABET)),
    Goal(ONE, 0.7, than=(ONE, BARE)),
    Goal(TEN, 0.8, than=(TEN, BARE)),
    Goal(event_path.NAME, 300_000, "votes/s"),
    _at_most_times("p50", 1.5),
    _at_most_times("p99", 3.0),
    Goal(disk.FLOOD_DISK, 5.3, disk.UNIT, is_least=False),
    Goal(restart.REPLAY_RATE, 200_000_000, restart.RATE),
    _ready(0.7, has_snapshots=True),
    _ready(1.2, has_snapshots=False),
    Goal(
        f"{memory.OWN}, counting {in_words(FULL_LOG_VOTES)}", 150, "MB", is_least=False
    ),
    Goal(f"{memory.OWN}, *", 150, "MB", is_least=False),
    *(
        Goal(beside.rate_name(tool), 0.9, than=(beside.ALONE, ALPHABET))
        for tool in beside.GOALS_FOR
    ),
    *(
        Goal(flood.beside_name(name), 0.5, than=(flood.ALONE, ALPHABET))
        for name in (*flood.FLOODS, flood.ALL_AT_ONCE)
    ),
    Goal(watched.WATCHED, 0.97, than=(watched.ALONE, ALPHABET)),
)


def judge(figures: Sequence[Figure]) -> list[Verdict]:
    """Hold figures against all goals."""
    return [Verdict(goal, _found(goal, figures)) for goal in GOALS]


def _found(goal: Goal, figures: Sequence[Figure]) -> float | None:
    """Give the median that the goal is about; of several, the one furthest from it."""
    ours = [each for each in figures if each.subject == ALPHABET and _is(goal, each)]
    if goal.than is None:
        medians = [each.median for each in ours]
        worst = min if goal.is_least else max
        return worst(medians, default=None)
    others = [each for each in figures if (each.name, each.subject) == goal.than]
    if not ours or not others:
        return None
    return statistics.median(ours[0].ratios(others[0]))


def _is(goal: Goal, figure: Figure) -> bool:
    if goal.unit is not None and goal.unit != figure.unit:
        return False
    if goal.figure.endswith("*"):
        return figure.name.startswith(goal.figure[:-1])
    return figure.name == goal.figure
