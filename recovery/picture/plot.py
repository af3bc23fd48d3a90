"""A chart as a picture, PNG or SVG, drawn by matplotlib.

The same chart gives the same bytes under one version of matplotlib: no date, no random
ids, no settings of the user's, no display. In an SVG text is text, and the chart's
title and description are there for screen readers. Lengths are points, 72 an inch.

matplotlib is imported in here alone, and only when it is called for.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib.util
import io
import logging
import os
import shutil
import warnings
from typing import TYPE_CHECKING, Any, cast
from xml.sax.saxutils import escape

import attrs

from recovery.picture.label_places import spread
from recovery.picture.scales import format_si

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from recovery.picture.chart import Chart, Line, Rate
    from recovery.picture.theme import Theme

FORMATS = ("png", "svg")
WIDTH, HEIGHT = 720.0, 504.0
PIXELS_PER_POINT = 2.0
"""So a PNG has 1440 x 1008 pixels."""

_LEFT, _TOP, _BOTTOM, _MARGIN = 52.0, 84.0, 46.0, 14.0
_LEADER = 16.0
_COLUMN_GAP = 8.0
_PANEL_GAP = 40.0
_LABEL_DISTANCE = 12.0
_BAND_LABEL_DISTANCE = 9.0
_TOTALS_WEIGHT = 4.5
_HEADROOM = 1.03
_OTHERS_FEW = 40

_TITLE, _TEXT, _SMALL = 13.0, 8.5, 7.5
_SANS = ["DejaVu Sans", "Verdana", "Segoe UI", "sans-serif"]
_MONO = ["DejaVu Sans Mono", "Consolas", "Menlo", "monospace"]
_CACHE = "MPLCONFIGDIR"
_DASHES = ("solid", (0, (4.0, 1.4)), (0, (1.2, 1.2)))


class MissingLibraryError(Exception):
    """matplotlib is not installed."""

    def __str__(self) -> str:
        """Say how to get it."""
        return "drawing needs matplotlib: pip install '.[plot]' in the checkout"


def check_library() -> None:
    """Raise MissingLibraryError unless matplotlib is there; takes no time."""
    if importlib.util.find_spec("matplotlib") is None:
        raise MissingLibraryError


def draw(chart: Chart, format_: str, theme: Theme) -> bytes:
    """Draw a chart as the bytes of a file; raises MissingLibraryError.

    `format_` is one of FORMATS.
    """
    check_library()
    no_date = {"Date": None, "Creator": None}
    metadata: dict[str, Any] = no_date if format_ == "svg" else {"Title": chart.title}
    stream = io.BytesIO()
    with _library(theme):
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure((WIDTH / 72, HEIGHT / 72), facecolor=theme.back)
        FigureCanvasAgg(figure)
        _Drawing(figure, chart, theme).draw()
        figure.savefig(
            stream, format=format_, dpi=72 * PIXELS_PER_POINT, metadata=metadata
        )
    data = stream.getvalue()
    return _with_words(data, chart) if format_ == "svg" else data


@contextlib.contextmanager
def _library(theme: Theme) -> Iterator[None]:
    """Have matplotlib silent, with our settings alone."""
    # Where it cannot keep its list of fonts it says so at length, and works all the
    # same, in a directory that it removes at an exit which a child does not have.
    logging.getLogger("matplotlib").setLevel(logging.CRITICAL)
    kept = os.environ.get(_CACHE)
    # Whatever the user's is: one that does not exist would fail the import.
    os.environ["MPLBACKEND"] = "agg"
    import matplotlib as mpl

    settings: dict[str, Any] = {
        "font.family": _SANS,
        "font.size": _TEXT,
        "svg.fonttype": "none",
        "svg.hashsalt": "alphabet",
        "text.parse_math": False,
        "text.color": theme.text,
        "axes.edgecolor": theme.grid,
    }
    try:
        with mpl.rc_context(), warnings.catch_warnings():
            # A name in a script that our font lacks is drawn as boxes.
            warnings.simplefilter("ignore")
            mpl.rcdefaults()
            mpl.rcParams.update(cast("Any", settings))
            yield
    finally:
        if (made := os.environ.get(_CACHE, "")) != (kept or ""):
            atexit.unregister(shutil.rmtree)
            shutil.rmtree(made, ignore_errors=True)


def _with_words(svg: bytes, chart: Chart) -> bytes:
    """Tell a screen reader what an SVG shows."""
    head, mark, rest = svg.partition(b"<svg ")
    attributes, end, body = rest.partition(b">")
    words = (
        f"\n <title>{escape(chart.title)}</title>"
        f"\n <desc>{escape(chart.description)}</desc>"
    )
    return b"".join([head, mark, b'role="img" ', attributes, end, words.encode(), body])


@attrs.define
class _Drawing:
    """A chart on its way onto a figure."""

    figure: Figure
    chart: Chart
    theme: Theme
    _name_width: float = 0.0
    _right: float = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        """Leave as much room at the right as what stands there needs."""
        chart = self.chart
        names = [_width(line.name, _MONO, "bold") for line in chart.lines]
        numbers = [_width(f"{line.total:,}") for line in chart.lines]
        name, number = chart.others_name
        words = max(names, default=0.0) + max(numbers, default=0.0)
        others = _width(name) + _width(number)
        notes = [_width(note) for rate in chart.rates for note in rate.notes]
        columns = max([words + _COLUMN_GAP, others + _COLUMN_GAP, *notes])
        self._right = WIDTH - _MARGIN - columns

    def draw(self) -> None:
        """Draw all of it."""
        self._write(_MARGIN, HEIGHT - 26, self.chart.title, size=_TITLE, weight="bold")
        for index, fact in enumerate(self.chart.facts.split("\n")):
            self._write(_MARGIN, HEIGHT - 43 - 12 * index, fact)
        has_totals = bool(self.chart.moments)
        weights = [_TOTALS_WEIGHT] * has_totals + [1.0] * len(self.chart.rates)
        panels = self._make_panels(weights)
        if has_totals:
            self._draw_totals(panels[0])
        for panel, rate in zip(panels[has_totals:], self.chart.rates, strict=True):
            self._draw_rate(panel, rate)
        for panel in panels:
            self._draw_bands(panel)
        self._name_bands(panels[0])
        self._draw_time(panels)

    def _make_panels(self, weights: Sequence[float]) -> list[Axes]:
        """Stack panels with these weights, and make them bare."""
        room = HEIGHT - _TOP - _BOTTOM - _PANEL_GAP * (len(weights) - 1)
        top = HEIGHT - _TOP
        panels = []
        for weight in weights:
            height = room * weight / sum(weights)
            place = (_LEFT, top - height, self._right - _LEADER - _LEFT, height)
            axes = self.figure.add_axes(_fractions(place), facecolor="none")
            axes.set_xlim(0.0, self.chart.end)
            axes.spines[["top", "right", "left"]].set_visible(False)
            axes.tick_params(length=0, labelsize=_SMALL, labelcolor=self.theme.faint)
            axes.grid(axis="y", color=self.theme.grid, linewidth=0.7)
            axes.set_axisbelow(True)
            axes.set_xticks([])
            panels.append(axes)
            top -= height + _PANEL_GAP
        return panels

    def _draw_totals(self, axes: Axes) -> None:
        chart, moments = self.chart, self.chart.moments
        shown = [*chart.others, *chart.lines]
        self._scale(axes, max((line.total for line in shown), default=0), 5)
        self._head(axes, "total votes per letter", "")
        # Many thin lines show how they lie; thick ones would be one patch.
        width = 0.6 if len(chart.others) <= _OTHERS_FEW else 0.3
        for line in reversed(chart.others):
            axes.plot(
                moments,
                _floats(line),
                color=self.theme.other,
                linewidth=width,
                clip_on=False,
            )
        for rank, line in reversed(list(enumerate(chart.lines))):
            style = self._style(rank)
            axes.plot(moments, _floats(line), linewidth=1.6, clip_on=False, **style)
        self._name_lines(axes)

    def _name_lines(self, axes: Axes) -> None:
        """Write each line's name and total beside its end, none upon another."""
        _, bottom, _, height = _points(axes)
        highest = axes.get_ylim()[1]
        named = [
            (line.total, (line.name, f"{line.total:,}"), self._style(rank))
            for rank, line in enumerate(self.chart.lines)
        ]
        if self.chart.others:
            middle = self.chart.others[len(self.chart.others) // 2]
            style = {"color": self.theme.other}
            named.append((middle.total, self.chart.others_name, style))
        named = sorted(named, key=lambda each: each[0])
        ends = [bottom + height * total / highest for total, _, _ in named]
        places = spread(ends, _LABEL_DISTANCE, bottom, bottom + height)
        for (_, words, style), end, place in zip(named, ends, places, strict=True):
            self._name_line(words, style, end, place)

    def _name_line(
        self, words: tuple[str, str], style: dict[str, Any], end: float, place: float
    ) -> None:
        is_other = words == self.chart.others_name
        x = (self._right - _LEADER + 2, self._right - 5, self._right - 3)
        self._line(x, (end, place, place), color=style["color"], linewidth=0.8)
        color = self.theme.faint if is_other else style["color"]
        family = {} if is_other else {"family": _MONO, "weight": "bold"}
        self._write(
            self._right, place, words[0], va="center_baseline", color=color, **family
        )
        self._write(
            WIDTH - _MARGIN,
            place,
            words[1],
            va="center_baseline",
            ha="right",
            color=self.theme.faint if is_other else self.theme.text,
        )

    def _draw_rate(self, axes: Axes, rate: Rate) -> None:
        self._scale(axes, max(rate.values), 3)
        self._head(axes, rate.name, self.chart.rate_note)
        color = self.theme.lines[0]
        axes.stairs(rate.values, rate.edges, fill=True, color=color, alpha=0.28)
        axes.stairs(rate.values, rate.edges, color=color, linewidth=0.8, baseline=None)
        _, bottom, _, height = _points(axes)
        for index, note in enumerate(rate.notes):
            self._write(self._right, bottom + height - 8 - 11 * index, note)

    def _scale(self, axes: Axes, highest: float, ticks: int) -> None:
        """Let the vertical axis go from 0 to a little above the highest value."""
        from matplotlib.ticker import FuncFormatter, MaxNLocator

        axes.set_ylim(0.0, float(highest or 1) * _HEADROOM)
        axes.yaxis.set_major_locator(MaxNLocator(ticks, steps=[1, 2, 5, 10]))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: format_si(y)))

    def _head(self, axes: Axes, name: str, note: str) -> None:
        left, bottom, _, height = _points(axes)
        y = bottom + height + 8
        self._write(left, y, name, weight="bold")
        left += _width(name, weight="bold") + _COLUMN_GAP
        self._write(left, y, note, color=self.theme.faint)

    def _draw_bands(self, axes: Axes) -> None:
        for band in self.chart.bands:
            axes.axvspan(
                band.start,
                band.end,
                facecolor=(self.theme.gap, 0.14),
                # Seen even where no time passed.
                edgecolor=(self.theme.gap, 0.5),
                linewidth=0.8,
                zorder=0.5,
            )

    def _name_bands(self, axes: Axes) -> None:
        """Write upwards what was lost, at the top of the bands."""
        left, bottom, width, height = _points(axes)
        named = [band for band in self.chart.bands if band.name]
        scale = width / self.chart.end
        wanted = []
        for band in named:
            middle = left + scale * (band.start + band.end) / 2
            is_narrow = scale * (band.end - band.start) < _BAND_LABEL_DISTANCE
            # Beside a band that is no wider than a line.
            wanted.append(middle + is_narrow * _BAND_LABEL_DISTANCE * 0.6)
        places = spread(wanted, _BAND_LABEL_DISTANCE, left + 5, left + width - 5)
        for band, place in zip(named, places, strict=True):
            self._write(
                place,
                bottom + height - 3,
                band.name,
                size=_SMALL,
                rotation=90,
                ha="center",
                va="top",
                color=self.theme.gap,
                # Lines shine through, and leave it legible.
                bbox={"facecolor": (self.theme.back, 0.8), "linewidth": 0, "pad": 0.4},
            )

    def _draw_time(self, panels: Sequence[Axes]) -> None:
        """Write the times below the lowest panel; the others have their lines."""
        left, bottom, width, _ = _points(panels[-1])
        style = {"size": _SMALL, "color": self.theme.faint}
        for axes in panels:
            axes.set_xticks([place for place, _ in self.chart.ticks])
            axes.set_xticklabels([])
            axes.grid(axis="x", color=self.theme.grid, linewidth=0.7)
        self._write(_MARGIN, bottom - 10, "UTC", **style)
        for place, tick in self.chart.ticks:
            x = left + width * place / self.chart.end
            self._write(x, bottom - 10, tick.label, ha="center", **style)
            half = _width(tick.context, size=_SMALL) / 2
            x = max(_MARGIN + half, min(WIDTH - _MARGIN - half, x))
            self._write(x, bottom - 20, tick.context, ha="center", **style)
        if not self.chart.rates:
            note = self.chart.rate_note
            self._write(WIDTH - _MARGIN, 10, note, ha="right", **style)

    def _style(self, rank: int) -> dict[str, Any]:
        """Give the look of the line of a rank: neighbours differ in colour."""
        turn, index = divmod(rank, len(self.theme.lines))
        return {"color": self.theme.lines[index], "linestyle": _DASHES[turn]}

    def _write(self, x: float, y: float, text: str, **style: Any) -> None:  # noqa: ANN401 - as matplotlib has it
        if text:
            self.figure.text(x / WIDTH, y / HEIGHT, text, **style)

    def _line(self, x: Sequence[float], y: Sequence[float], **style: Any) -> None:  # noqa: ANN401 - as matplotlib has it
        from matplotlib.lines import Line2D

        xs, ys = [each / WIDTH for each in x], [each / HEIGHT for each in y]
        self.figure.add_artist(Line2D(xs, ys, **style))


def _floats(line: Line) -> list[float]:
    # Integers past 64 bits would be objects to numpy.
    return [float(total) for total in line.totals]


def _fractions(
    place: tuple[float, float, float, float],
) -> tuple[float, float, float, float]:
    left, bottom, width, height = place
    return (left / WIDTH, bottom / HEIGHT, width / WIDTH, height / HEIGHT)


def _points(axes: Axes) -> tuple[float, float, float, float]:
    """Say where a panel is: left, bottom, width, height."""
    box = axes.get_position()
    left, bottom = box.x0 * WIDTH, box.y0 * HEIGHT
    return left, bottom, box.width * WIDTH, box.height * HEIGHT


def _width(
    text: str,
    family: Sequence[str] = _SANS,
    weight: str = "normal",
    size: float = _TEXT,
) -> float:
    """Measure a text."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextPath

    if not text:
        return 0.0
    # The families behind the first are for viewers of an SVG.
    font = FontProperties(family=family[:1], weight=weight)
    path = TextPath((0.0, 0.0), text, size=size, prop=font)
    return float(path.get_extents().x1)
