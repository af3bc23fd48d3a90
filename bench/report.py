"""What was measured, as JSON and as Markdown.

Pure. A part's JSON is whole in itself; the Markdown is made of all parts' JSON, so that
parts can be measured one at a time.
"""

import json
import statistics
from collections.abc import Sequence

import attrs

from alphabet.trial.figure import ALPHABET, Figure, format_number
from bench.goals import judge


@attrs.frozen
class Report:
    """One part's results, and on what and how they were made."""

    part: str
    machine: Sequence[str]
    command: str
    figures: Sequence[Figure]
    missing: dict[str, str]

    def to_json(self) -> str:
        """Write it."""
        return json.dumps(attrs.asdict(self), indent=1, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Report":
        """Read what `to_json` wrote."""
        found = json.loads(text)
        figures = [Figure(**each) for each in found.pop("figures")]
        return cls(figures=figures, **found)


def write_markdown(reports: Sequence[Report]) -> str:
    """Write all parts: the goals first, then each part's table and picture."""
    figures = [figure for report in reports for figure in report.figures]
    pieces = ["# Benchmarks: results\n", _goals(figures)]
    for report in reports:
        pieces += [f"## {report.part}\n", f"![{report.part}]({report.part}.svg)\n"]
        pieces += [table(report.figures), _origin(report)]
    return "\n".join(pieces)


def _goals(figures: Sequence[Figure]) -> str:
    rows = [verdict.row() for verdict in judge(figures)]
    return "\n".join(["| goal | measured | |", "|---|--:|---|", *rows, ""])


def _origin(report: Report) -> str:
    lines = [f"- not measured, {title}: {why}" for title, why in report.missing.items()]
    lines += [f"- {line}" for line in (*report.machine, f"`{report.command}`")]
    return "\n".join([*lines, ""])


def table(figures: Sequence[Figure]) -> str:
    """Write figures as a Markdown table, those of one name together.

    The last column says how many times another's median Alphabet's is, paired by runs.
    """
    head = "| figure | whose | median | lowest | highest | unit | runs | Alphabet is |"
    lines = [head, "|---|---|--:|--:|--:|---|--:|--:|"]
    for group in grouped(figures):
        ours = next((each for each in group if each.subject == ALPHABET), None)
        lines += [_row(figure, ours) for figure in group]
    return "\n".join([*lines, ""])


def grouped(figures: Sequence[Figure]) -> list[list[Figure]]:
    """Put figures of one name and unit together, in the order of their first."""
    groups: dict[tuple[str, str], list[Figure]] = {}
    for figure in figures:
        groups.setdefault((figure.name, figure.unit), []).append(figure)
    return list(groups.values())


def _row(figure: Figure, ours: Figure | None) -> str:
    numbers = map(format_number, (figure.median, figure.lowest, figure.highest))
    ratio = ""
    if ours is not None and ours is not figure:
        ratio = f"{format_number(statistics.median(ours.ratios(figure)))} times"
    cells = (figure.name, figure.subject, *numbers, figure.unit)
    return f"| {' | '.join(cells)} | {len(figure.values)} | {ratio} |"
