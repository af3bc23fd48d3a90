"""Figures: what was measured in several runs, and the table that shows them.

Pure.
"""

import statistics
from collections.abc import Sequence

import attrs


@attrs.frozen
class Figure:
    """One quantity; `values` has one number from each run, in `unit`."""

    name: str
    unit: str
    values: Sequence[float]

    def row(self) -> str:
        """Write it as a row: the median, and how far the runs lie apart."""
        middle = statistics.median(self.values)
        numbers = (middle, min(self.values), max(self.values))
        cells = " | ".join(map(format_number, numbers))
        return f"| {self.name} | {cells} | {self.unit} | {len(self.values)} |"


def format_number(number: float) -> str:
    """Write a number with four digits at least, and no more than it needs."""
    if number >= 1000:  # noqa: PLR2004 - from here on a fraction says nothing
        return f"{number:,.0f}"
    return f"{number:.4g}"


def percentile(samples: Sequence[float], percent: int) -> float:
    """Give the smallest sample that so many percent are not above."""
    ordered = sorted(samples)
    return ordered[-(-len(ordered) * percent // 100) - 1]


def table(figures: Sequence[Figure]) -> str:
    """Write figures as a Markdown table."""
    head = "| figure | median | lowest | highest | unit | runs |"
    line = "|---|--:|--:|--:|---|--:|"
    return "\n".join([head, line, *(figure.row() for figure in figures)])
