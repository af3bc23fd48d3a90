"""What a picture of a history shows: which lines and rates, and every word on it.

Pure, and without a pixel: `plot` draws it. Times are ns since 1970; on the chart they
are seconds after its left end, since floats are too coarse for the former.
"""

import itertools
from collections.abc import Mapping, Sequence

import attrs

from recovery.picture.history import Gap, History
from recovery.picture.sampling import choose_bin, cut_bins, rate
from recovery.picture.scales import (
    Tick,
    format_moment,
    format_si,
    format_span,
    time_ticks,
)

LINES_MAX = 12
"""The most lines that are told apart by name and colour, inclusive."""
GAPS_NAMED_MAX = 8
"""The most gaps that are named, the largest of them."""

Totals = Mapping[str, int]

_SECOND = 10**9
_ALONE_NS = 5 * _SECOND
_TICKS_MAX = 8
_TITLE_CHARS_MAX = 48
_ID_CHARS = 8


@attrs.frozen
class Line:
    """A letter's totals, one for each of the chart's moments; the last is exact."""

    name: str
    totals: Sequence[int]

    @property
    def total(self) -> int:
        """Where it ends."""
        return self.totals[-1]


@attrs.frozen
class Rate:
    """What was counted per second: a value for each bin between two of `edges`."""

    name: str
    edges: Sequence[float]
    values: Sequence[float]
    notes: tuple[str, ...]


@attrs.frozen
class Band:
    """Lost events, between two places; named unless there are too many."""

    start: float
    end: float
    name: str


@attrs.frozen
class Chart:
    """Everything on the picture.

    `lines` are those with names, the highest first; `others` have `others_name`, which
    tells their number and, apart, their sum. Without `moments` there are no totals.
    """

    title: str
    facts: str
    end: float
    ticks: Sequence[tuple[float, Tick]]
    moments: Sequence[float] = ()
    lines: Sequence[Line] = ()
    others: Sequence[Line] = ()
    others_name: tuple[str, str] = ("", "")
    rates: Sequence[Rate] = ()
    rate_note: str = ""
    bands: Sequence[Band] = ()

    @property
    def description(self) -> str:
        """The chart in words, for those who cannot see it."""
        named = [f"{line.name} {line.total:,}" for line in self.lines]
        if self.others:
            named.append(" ".join(self.others_name))
        totals = f" Totals at the end: {'; '.join(named)}." if named else ""
        rates = "".join(f" {r.name}: {', '.join(r.notes)}." for r in self.rates)
        gaps = "".join(f" {band.name}." for band in self.bands if band.name)
        return f"{self.facts}.{totals}{rates}{gaps}"


@attrs.frozen
class Scale:
    """The way from times to places: the left end, and the right one."""

    start_ns: int
    end_ns: int

    @classmethod
    def over(cls, start_ns: int, end_ns: int) -> "Scale":
        """Make room around a moment that is alone."""
        if start_ns == end_ns:
            return cls(start_ns - min(_ALONE_NS, start_ns), end_ns + _ALONE_NS)
        return cls(start_ns, end_ns)

    def place(self, time_ns: int) -> float:
        """Say where a time is, in seconds."""
        return (time_ns - self.start_ns) / _SECOND


def make_chart(
    history: "History[Totals | None]",
    application: str,
    log_id: str,
    chosen: Sequence[str] = (),
) -> Chart:
    """Choose what is shown of a history.

    The lines with names are those `chosen`, else the highest; LINES_MAX at most.
    Without totals there is only the rate of events.
    """
    samples = history.samples
    times_ns = [sample.time_ns for sample in samples]
    scale = Scale.over(times_ns[0], times_ns[-1])
    chart = Chart(
        title=f"{_shortened(application)} · log {log_id[:_ID_CHARS]}",
        facts=_facts(history),
        end=scale.place(scale.end_ns),
        ticks=[
            (scale.place(tick.time_ns), tick)
            for tick in time_ticks(scale.start_ns, scale.end_ns, _TICKS_MAX)
        ],
        bands=_bands(history.gaps, scale),
    )
    counts = {"events": history.counted}
    if samples[-1].seen is not None:
        totals = [sample.seen or {} for sample in samples]
        votes = {"votes": [sum(each.values()) for each in totals]}
        counts = votes | counts
        chart = _with_totals(chart, totals, _held(history, scale), chosen)
    return _with_rates(chart, history, counts, scale)


def _with_totals(
    chart: Chart,
    totals: Sequence[Totals],
    held: Sequence[tuple[float, int]],
    chosen: Sequence[str],
) -> Chart:
    last = totals[-1]
    ranked = sorted(last, key=lambda name: (-last[name], name))
    # One line too many gets its name: that takes no more room than "1 more".
    is_all = len(ranked) <= LINES_MAX + 1
    named = list(chosen) or (ranked if is_all else ranked[:LINES_MAX])
    named.sort(key=lambda name: -last.get(name, 0))
    others = [name for name in ranked if name not in named]

    def lines(names: Sequence[str]) -> list[Line]:
        return [
            Line(name, [totals[index].get(name, 0) for _, index in held])
            for name in names
        ]

    together = sum(last[name] for name in others)
    return attrs.evolve(
        chart,
        facts=f"{chart.facts}\n{_sum_up(totals)}",
        moments=[place for place, _ in held],
        lines=lines(named),
        others=lines(others),
        others_name=(f"{len(others)} more", f"Σ {together:,}") if others else ("", ""),
    )


def _held(history: "History[Totals | None]", scale: Scale) -> list[tuple[float, int]]:
    """Give the places to draw at, each with the index of the sample that is seen there.

    Between neighbouring cells a line may slope; over an empty one the state stayed
    what it was. It also stayed so on both sides of a moment that is alone.
    """
    cell_ns, samples = history.cell_ns, history.samples
    places = [(samples[0].time_ns, 0)]
    for index, (before, sample) in enumerate(itertools.pairwise(samples), 1):
        cell = sample.time_ns // cell_ns
        if cell > before.time_ns // cell_ns + 1:
            places.append((cell * cell_ns, index - 1))
        places.append((sample.time_ns, index))
    ends = [(scale.start_ns, 0), *places, (scale.end_ns, len(samples) - 1)]
    return [(scale.place(time_ns), index) for time_ns, index in ends]


def _with_rates(
    chart: Chart,
    history: "History[Totals | None]",
    counts: Mapping[str, Sequence[int]],
    scale: Scale,
) -> Chart:
    times_ns = [sample.time_ns for sample in history.samples]
    span_ns = times_ns[-1] - times_ns[0]
    if not span_ns:
        note = "all of it was committed at one moment: there is no rate"
        return attrs.evolve(chart, rate_note=note)
    bin_ns = choose_bin(span_ns, history.cell_ns, history.blocks)
    edges_ns = cut_bins(times_ns[0], times_ns[-1], bin_ns)
    edges = [scale.place(edge) for edge in edges_ns]
    rates = []
    for name, count in counts.items():
        values = rate(times_ns, count, edges_ns)
        mean = (count[-1] - count[0]) * _SECOND / span_ns
        notes = (f"mean {format_si(mean)}", f"peak {format_si(max(values))}")
        rates.append(Rate(f"{name} per second", edges, values, notes))
    bins = len(edges) - 1
    note = f"mean of each {format_span(bin_ns)}" if bins > 1 else ""
    return attrs.evolve(chart, rates=rates, rate_note=note)


def _facts(history: "History[Totals | None]") -> str:
    """Say what stretch of the log this is."""
    start_ns, end_ns = history.samples[0].time_ns, history.samples[-1].time_ns
    count = history.last - history.first + 1
    events = f"events {history.first:,} to {history.last:,}"
    if count == 1:
        events = f"event {history.first:,}"
    start, end = format_moment(start_ns), format_moment(end_ns)
    if start[:10] == end[:10]:
        end = end[11:]
    span_ns = end_ns - start_ns
    # Ends that are not to be told apart by seconds are one.
    time = start if start.endswith(end) else f"{start} to {end}"
    span = f", {format_span(span_ns)}" if span_ns else ""
    lost = sum(gap.lost for gap in history.gaps)
    return f"{events} · {time} UTC{span}" + (f" · {lost:,} lost" if lost else "")


def _sum_up(totals: Sequence[Totals]) -> str:
    before, after = sum(totals[0].values()), sum(totals[-1].values())
    letters = len(totals[-1])
    said = f"{after:,} votes for {letters} letter{'' if letters == 1 else 's'}"
    return f"{said}, {before:,} of them from before" if before else said


def _bands(gaps: Sequence[Gap], scale: Scale) -> list[Band]:
    """Place the gaps, and name the largest."""
    largest = sorted(gaps, key=lambda gap: -gap.lost)[:GAPS_NAMED_MAX]
    return [
        Band(
            scale.place(gap.from_ns),
            scale.place(gap.to_ns),
            _name_gap(gap) if gap in largest else "",
        )
        for gap in gaps
    ]


def _name_gap(gap: Gap) -> str:
    if gap.first == gap.last:
        return f"event {gap.first:,} lost"
    span = f"{gap.first:,} to {gap.last:,}"
    if gap.lost == gap.last - gap.first + 1:
        return f"events {span} lost"
    return f"{gap.lost:,} events of {span} lost"


def _shortened(name: str) -> str:
    """Make a name safe to print, and short."""
    text = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in name)
    return text if len(text) <= _TITLE_CHARS_MAX else f"{text[: _TITLE_CHARS_MAX - 1]}…"
