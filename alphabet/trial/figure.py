"""Figures: what was measured in several runs, and how far the runs lie apart.

Pure.
"""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Sequence

ALPHABET = "Alphabet"
"""Whose figure it is unless another is named."""

WHOLE_FROM = 99.95
"""From here on a number is written without a fraction, which would say nothing."""
PERMILLE = 1000


@attrs.frozen
class Figure:
    """One quantity; `values` has one number from each run, in `unit`.

    Figures of one name that were taken in the same runs may be paired: the runs are
    in the same order.
    """

    name: str
    unit: str
    values: Sequence[float]
    subject: str = ALPHABET

    @property
    def median(self) -> float:
        """The middle of all runs."""
        return statistics.median(self.values)

    @property
    def lowest(self) -> float:
        """The lowest of all runs."""
        return min(self.values)

    @property
    def highest(self) -> float:
        """The highest of all runs."""
        return max(self.values)

    def ratios(self, other: Figure) -> list[float]:
        """Divide each run's value by the other figure's of the same run.

        Raises:
            ValueError: The figures have not been taken in the same runs.
        """
        pairs = zip(self.values, other.values, strict=True)
        return [ours / theirs if theirs else float("inf") for ours, theirs in pairs]


def format_number(number: float) -> str:
    """Write a number with three digits at least, and no more than it needs."""
    if number >= WHOLE_FROM:
        return f"{number:,.0f}"
    return f"{number:.3g}"


def quantile(samples: Sequence[float], permille: int) -> float:
    """Give the smallest sample that at least so many in a thousand do not exceed.

    Args:
        samples: At least one.
        permille: 1 to 1000, inclusive: 500 is the median, 999 the 99.9th percentile.
    """
    ordered = sorted(samples)
    return ordered[-(-len(ordered) * permille // PERMILLE) - 1]
