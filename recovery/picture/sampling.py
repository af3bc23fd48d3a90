"""A history thinned while it is read: few samples of any number of moments.

Time is cut into cells of one width, counted from 1970. Of each cell the state after
its last moment is kept, and the state before the first moment: so what is held is
bounded by the span, however many moments there are. Invariants:

- the first sample and the last are exact;
- every sample is a state that was: what only grows, grows in the samples too;
- a bin of a rate ends where a cell does, so no event is counted in the wrong bin.

Pure. Times are ns since 1970.
"""

import bisect
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Generic, TypeVar

import attrs

SAMPLES_MAX = 2_000
"""The most samples of a history, inclusive."""
BINS_MAX = 200
"""The most bins of a rate, inclusive."""
BINS_SPARSE_MAX = 20
"""The most bins where moments are few."""
MOMENTS_PER_BIN = 4
"""How many moments a bin should have on average: fewer make a rate jump."""

_CELLS_PER_BIN = 10
_SECOND = 10**9
_DAY = 86_400 * _SECOND
_SECONDS = (2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 10_800)
_HOURS_6, _HOURS_12 = 6 * 3_600 * _SECOND, 12 * 3_600 * _SECOND
WIDTHS_NS: tuple[int, ...] = (
    *(digit * 10**power for power in range(9) for digit in (1, 2, 5)),
    _SECOND,
    *(seconds * _SECOND for seconds in _SECONDS),
    _HOURS_6,
    _HOURS_12,
    *(days * _DAY for days in (1, 2, 7, 14, 28, 91, 182, 364, 1_456)),
)
"""Widths that people can name; 200 of the last are more than 64 bits of ns."""

T = TypeVar("T")


@attrs.frozen
class Moment:
    """Events that came at one time, the last of them `sequence`; `pass_` takes them."""

    time_ns: int
    sequence: int
    pass_: Callable[[], None]


@attrs.frozen
class Sample(Generic[T]):
    """What was seen of a state after event `sequence`."""

    time_ns: int
    sequence: int
    seen: T


def thin(
    after: int, moments: Iterable[Moment], look: Callable[[], T], cell_ns: int
) -> Iterator[Sample[T]]:
    """Pass moments in order and give samples of the state on the way.

    `look` is called for each sample alone. The first one is the state after event
    `after`, at the first moment's time; without a moment there is none.
    """
    last: Moment | None = None
    for moment in moments:
        if last is None:
            yield Sample(moment.time_ns, after, look())
        elif last.time_ns // cell_ns != moment.time_ns // cell_ns:
            yield Sample(last.time_ns, last.sequence, look())
        moment.pass_()
        last = moment
    if last is not None:
        yield Sample(last.time_ns, last.sequence, look())


def choose_cell(span_ns: int) -> int:
    """Give the width of cells that makes SAMPLES_MAX samples of a span, or fewer."""
    # A span may touch a bin more at either end.
    width = next(width for width in WIDTHS_NS if width * (BINS_MAX - 2) >= span_ns)
    return max(1, width // _CELLS_PER_BIN)


def choose_bin(span_ns: int, cell_ns: int, moments: int) -> int:
    """Give the width of a rate's bins: whole cells, and no more bins than moments bear.

    `moments` is how many there were in the span.
    """
    bins = min(max(moments // MOMENTS_PER_BIN, BINS_SPARSE_MAX), BINS_MAX - 2)
    whole = [width for width in WIDTHS_NS if width % cell_ns == 0]
    return next((width for width in whole if width * bins >= span_ns), whole[-1])


def cut_bins(start_ns: int, end_ns: int, bin_ns: int) -> list[int]:
    """Give the bins' edges, from start to end, each multiple of `bin_ns` between.

    A bin at either end that would be less than half as wide goes to its neighbour,
    for a rate over next to no time says nothing.
    """
    first = start_ns // bin_ns + 1
    inner = [n * bin_ns for n in range(first, -(-end_ns // bin_ns))]
    if inner and 2 * (inner[0] - start_ns) < bin_ns:
        del inner[0]
    if inner and 2 * (end_ns - inner[-1]) < bin_ns:
        del inner[-1]
    return [start_ns, *inner, end_ns]


def rate(
    times_ns: Sequence[int], counts: Sequence[int], edges_ns: Sequence[int]
) -> list[float]:
    """Give what a running count grew by in each bin, per second.

    A moment on an edge belongs to the bin that begins there; the last one to the
    last bin, and what is counted at the first moment to the first.
    """
    reached = [counts[bisect.bisect_left(times_ns, e) - 1] for e in edges_ns[1:-1]]
    bounds = [counts[0], *reached, counts[-1]]
    return [
        (after - before) * _SECOND / (end - start)
        for (before, after), (start, end) in zip(
            itertools.pairwise(bounds), itertools.pairwise(edges_ns), strict=True
        )
    ]
