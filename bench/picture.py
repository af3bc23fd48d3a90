"""Figures as a picture: bars with the runs' spread, in SVG, a few lines of our own.

Pure. Figures of one name share a panel and its scale, and so do those of one subject
whose names begin alike. A scale is logarithmic where they lie far apart, and then says
so. Numbers stand beside the bars, so nothing must be read off an axis.
"""

import math
from collections.abc import Sequence
from html import escape

import attrs

from alphabet.trial.figure import ALPHABET, Figure, format_number
from bench.report import grouped

WIDTH = 880
LABEL_WIDTH = 260
BAR_WIDTH = 400
ROW_HEIGHT = 22
HEAD_HEIGHT = 30
BAR_HEIGHT = 13
MARGIN = 14
FAR_APART = 20.0
"""From which ratio on the scale is logarithmic."""
DECADES_BELOW = 0.5
"""Where a logarithmic scale begins: so many powers of ten below the lowest."""

STYLE = """
text { font: 13px system-ui, sans-serif; fill: #1f2933 }
.head { font-weight: 600 } .note { fill: #66727f; font-size: 12px }
.ours { fill: #1f6feb } .other { fill: #b4bfca } .spread { stroke: #1f2933 }
.back { fill: #ffffff }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .note { fill: #9aa7b4 } .back { fill: #0d1117 }
  .other { fill: #56616d } .spread { stroke: #e6edf3 }
}
"""


@attrs.frozen
class Scale:
    """From numbers to widths, 0 to `BAR_WIDTH`, inclusive."""

    lowest: float
    highest: float
    is_logarithmic: bool

    @classmethod
    def over(cls, figures: Sequence[Figure]) -> "Scale":
        """Choose a scale that has room for all values."""
        highest = max(figure.highest for figure in figures)
        lowest = min(figure.lowest for figure in figures)
        is_far = lowest > 0 and highest / lowest > FAR_APART
        return cls(lowest, highest, is_far)

    def width(self, number: float) -> float:
        """Say how wide a number's bar is."""
        if self.highest <= 0:
            return 0.0
        if not self.is_logarithmic:
            return BAR_WIDTH * max(number, 0.0) / self.highest
        start = math.log10(self.lowest) - DECADES_BELOW
        length = math.log10(self.highest) - start
        return BAR_WIDTH * (math.log10(number) - start) / length


@attrs.frozen
class Panel:
    """Bars under one title, each with its label."""

    title: str
    unit: str
    bars: list[tuple[str, Figure]] = attrs.field(factory=list)


def panels(figures: Sequence[Figure]) -> list[Panel]:
    """Share figures out among panels, in the order of their first."""
    found: dict[tuple[str, str], Panel] = {}
    for group in grouped(figures):
        first = group[0]
        if len(group) > 1:
            bars = [(figure.subject, figure) for figure in group]
            found[first.name, first.unit] = Panel(first.name, first.unit, bars)
            continue
        title, _, rest = first.name.partition(", ")
        # A colon keeps such a panel's key apart from that of a figure's own name.
        key = (f"{title}:", first.unit)
        panel = found.setdefault(key, Panel(title, first.unit))
        whose = "" if first.subject == ALPHABET and rest else first.subject
        panel.bars.append((", ".join(filter(None, [rest, whose])), first))
    return list(found.values())


def draw(title: str, figures: Sequence[Figure]) -> str:
    """Draw figures as an SVG document."""
    pieces = []
    y = 2 * MARGIN + HEAD_HEIGHT // 2
    for panel in panels(figures):
        scale = Scale.over([figure for _, figure in panel.bars])
        pieces.append(_head(panel, scale, y))
        y += HEAD_HEIGHT
        for label, figure in panel.bars:
            pieces.append(_bar(label, figure, scale, y))
            y += ROW_HEIGHT
        y += MARGIN
    body = "\n".join(pieces)
    return f"""\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" role="img">
<title>{escape(title)}</title>
<style>{STYLE}</style>
<rect class="back" width="{WIDTH}" height="{y}"/>
{body}
</svg>
"""


def _head(panel: Panel, scale: Scale, y: int) -> str:
    note = f"{panel.unit}{', logarithmic' if scale.is_logarithmic else ''}"
    tail = f'<tspan class="note">{escape(note)}</tspan>'
    title = escape(panel.title)
    return f'<text class="head" x="{MARGIN}" y="{y}">{title} {tail}</text>'


def _bar(label: str, figure: Figure, scale: Scale, y: int) -> str:
    left = MARGIN + LABEL_WIDTH
    top = y - BAR_HEIGHT + 2
    width, low, high = map(scale.width, (figure.median, figure.lowest, figure.highest))
    kind = "ours" if figure.subject == ALPHABET else "other"
    middle, end = top + BAR_HEIGHT / 2, left + max(high, 0.0)
    size = f'width="{width:.1f}" height="{BAR_HEIGHT}"'
    spread = f'x1="{left + low:.1f}" x2="{end:.1f}" y1="{middle}" y2="{middle}"'
    number = format_number(figure.median)
    return f"""\
<text x="{MARGIN}" y="{y}">{escape(label)}</text>
<rect class="{kind}" x="{left}" y="{top}" {size}/>
<line class="spread" {spread}/>
<text x="{end + MARGIN / 2:.1f}" y="{y}">{number}</text>"""
