"""What is left of a history when it is thinned, and the scales that it is drawn on."""

import itertools
import math
from collections.abc import Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from recovery.picture.label_places import spread
from recovery.picture.sampling import (
    BINS_MAX,
    SAMPLES_MAX,
    WIDTHS_NS,
    Moment,
    Sample,
    choose_bin,
    choose_cell,
    cut_bins,
    rate,
    thin,
)
from recovery.picture.scales import (
    Tick,
    format_moment,
    format_si,
    format_span,
    time_ticks,
)

SECOND = 10**9
DAY = 86_400 * SECOND
NOON = 1_700_000_000 * SECOND
"""2023-11-14 22:13:20."""

TIME_MAX = 2**64 - 1
times = st.integers(0, TIME_MAX)
# Spans of every order of magnitude.
spans = st.integers(0, 63).flatmap(lambda bits: st.integers(0, 2**bits))
steps = st.lists(
    st.tuples(spans.map(lambda span: span % (10 * DAY)), st.integers(1, 1_000)),
    min_size=1,
    max_size=50,
)


class Counting:
    """A running count that is passed through moments, and every state that it had."""

    def __init__(self, start_ns: int, steps: Sequence[tuple[int, int]]) -> None:
        """Begin at 0; each step is (ns since the one before, events)."""
        self.count = 0
        self.moments = []
        self.states = {0: 0}
        self.looks = 0
        time_ns, sequence = start_ns, 0
        for wait_ns, events in steps:
            time_ns += wait_ns
            sequence += events
            self.states[sequence] = self.states[sequence - events] + events * 3
            self.moments.append(Moment(time_ns, sequence, self._adder(events * 3)))

    def _adder(self, votes: int):  # type: ignore[no-untyped-def]  # noqa: ANN202
        def add() -> None:
            self.count += votes

        return add

    def look(self) -> int:
        """See the state."""
        self.looks += 1
        return self.count

    def thin(self, cell_ns: int) -> list[Sample[int]]:
        """Pass all moments."""
        return list(thin(0, self.moments, self.look, cell_ns))


class TestThin:
    """A stream of moments becomes few samples."""

    @given(steps, st.integers(1, DAY))
    def test_samples_are_states(self, made: list[tuple[int, int]], cell: int) -> None:
        """The first and the last are exact, and each is the state after its event."""
        counting = Counting(NOON, made)
        samples = counting.thin(cell)
        first, last = counting.moments[0], counting.moments[-1]
        assert samples[0] == Sample(first.time_ns, 0, 0)
        assert samples[-1] == Sample(last.time_ns, last.sequence, counting.count)
        assert all(counting.states[each.sequence] == each.seen for each in samples)

    @given(steps, st.integers(1, DAY))
    def test_growth_stays_growth(self, made: list[tuple[int, int]], cell: int) -> None:
        """Times and what only grows never go back, and each cell has one sample."""
        samples = Counting(NOON, made).thin(cell)
        for before, after in itertools.pairwise(samples):
            assert before.time_ns <= after.time_ns
            assert before.sequence < after.sequence
            assert before.seen <= after.seen
        cells = [each.time_ns // cell for each in samples[1:]]
        assert len(cells) == len(set(cells))

    @given(steps, st.integers(1, DAY))
    def test_the_state_is_seen_no_more_than_needed(
        self, made: list[tuple[int, int]], cell: int
    ) -> None:
        """The state is looked at once a sample, however many moments there are."""
        counting = Counting(NOON, made)
        assert len(counting.thin(cell)) == counting.looks

    def test_nothing_gives_nothing(self) -> None:
        """Without a moment there is no sample."""
        assert Counting(NOON, []).thin(1) == []

    @given(times, spans)
    def test_never_more_than_the_bound(self, start: int, span: int) -> None:
        """The cells of a span, at either end a part of one, make few samples enough."""
        cell = choose_cell(span)
        cells = (start + span) // cell - start // cell + 1
        assert cells + 1 <= SAMPLES_MAX
        assert span < SAMPLES_MAX or cells > SAMPLES_MAX // 5

    @pytest.mark.parametrize("span", [1_999, SECOND, 400 * DAY])
    def test_a_dense_stream(self, span: int) -> None:
        """Many moments at every place give no more samples than the bound."""
        step = max(1, span // 20_000)
        counting = Counting(NOON, [(step, 1)] * (span // step))
        assert SAMPLES_MAX // 5 < len(counting.thin(choose_cell(span))) <= SAMPLES_MAX


def test_widths_fit_into_a_day() -> None:
    """A width divides the day, or is a number of days; each is above the one before."""
    assert all(DAY % width == 0 or width % DAY == 0 for width in WIDTHS_NS)
    assert list(WIDTHS_NS) == sorted(set(WIDTHS_NS))


class TestRate:
    """Bins of time, and what was counted in them."""

    @given(times, spans.filter(bool), st.integers(0, 10**6))
    def test_bins_cover_the_span(self, start: int, span: int, moments: int) -> None:
        """From end to end, multiples between, none much too narrow or too wide."""
        cell = choose_cell(span)
        width = choose_bin(span, cell, moments)
        edges = cut_bins(start, start + span, width)
        assert (edges[0], edges[-1]) == (start, start + span)
        assert len(edges) - 1 <= BINS_MAX
        assert all(edge % width == 0 == edge % cell for edge in edges[1:-1])
        for before, after in itertools.pairwise(edges):
            assert before < after
            assert len(edges) == 2 or width <= 2 * (after - before) < 3 * width

    def test_bins_are_fewer_where_moments_are(self) -> None:
        """A rate has about four moments a bin, and twenty bins at least."""
        cell = choose_cell(1_000 * SECOND)
        found = [choose_bin(1_000 * SECOND, cell, n) for n in (5, 200, 100_000)]
        assert found == [60 * SECOND, 30 * SECOND, 10 * SECOND]

    @pytest.mark.parametrize("width", WIDTHS_NS)
    def test_bins_are_whole_cells(self, width: int) -> None:
        """Whatever the span and the moments, a bin ends where a cell does."""
        span = width * (BINS_MAX - 2)
        cell = choose_cell(span)
        for moments in range(0, 4 * BINS_MAX, 10):
            assert choose_bin(span, cell, moments) % cell == 0

    @given(steps.filter(lambda made: sum(wait for wait, _ in made[1:])))
    def test_thinning_changes_no_rate(self, made: list[tuple[int, int]]) -> None:
        """The rates of the samples are those of all moments."""
        counting = Counting(NOON, made)
        moments = counting.moments
        span = moments[-1].time_ns - moments[0].time_ns
        cell = choose_cell(span)
        edges = cut_bins(
            moments[0].time_ns,
            moments[-1].time_ns,
            choose_bin(span, cell, len(moments)),
        )
        samples = counting.thin(cell)
        every_time = [moments[0].time_ns, *(each.time_ns for each in moments)]
        every_count = [0, *(counting.states[each.sequence] for each in moments)]
        thinned = rate(
            [each.time_ns for each in samples], [each.seen for each in samples], edges
        )
        assert thinned == rate(every_time, every_count, edges)
        widths = [after - before for before, after in itertools.pairwise(edges)]
        summed = sum(r * width for r, width in zip(thinned, widths, strict=True))
        assert math.isclose(summed / SECOND, counting.count)

    def test_an_edge_belongs_to_the_bin_behind_it(self) -> None:
        """An event on an edge is counted after it, the last one before the end."""
        seconds = [n * SECOND for n in (0, 0, 1, 2)]
        assert rate(seconds, [0, 5, 7, 10], [0, SECOND, 2 * SECOND]) == [5.0, 5.0]


class TestSpread:
    """Places of labels."""

    @given(
        st.lists(st.floats(-100, 400), max_size=30).map(sorted),
        st.floats(1, 20),
        st.floats(-50, 50),
    )
    def test_none_upon_another(
        self, wanted: list[float], distance: float, low: float
    ) -> None:
        """They keep their order and their distance, and lie inside where they fit."""
        high = low + 300.0
        places = spread(wanted, distance, low, high)
        assert len(places) == len(wanted)
        for before, after in itertools.pairwise(places):
            assert after - before >= distance - 1e-9
        if distance * (len(wanted) - 1) <= high - low:
            assert all(low - 1e-9 <= place <= high + 1e-9 for place in places)
        else:
            assert places[0] == low

    @given(st.data())
    def test_moved_as_little_as_possible(self, data: st.DataObject) -> None:
        """No other places that would do are nearer to those wanted."""
        near = st.lists(st.floats(0, 100), min_size=1, max_size=8).map(sorted)
        wanted = data.draw(near)
        other = [
            place + 5 * index
            for index, place in enumerate(
                data.draw(
                    st.lists(
                        st.floats(0, 100 - 5 * (len(wanted) - 1)),
                        min_size=len(wanted),
                        max_size=len(wanted),
                    ).map(sorted)
                )
            )
        ]

        def moved(places: list[float]) -> float:
            return sum((a - b) ** 2 for a, b in zip(places, wanted, strict=True))

        assert moved(spread(wanted, 5.0, 0.0, 100.0)) <= moved(other) + 1e-6

    def test_what_fits_stays(self) -> None:
        """Labels that are apart are where they were wanted."""
        assert spread([1.0, 13.0, 30.0], 12.0, 0.0, 100.0) == [1.0, 13.0, 30.0]
        assert spread([50.0, 50.0], 12.0, 0.0, 100.0) == [44.0, 56.0]
        assert spread([10.0, 22.5], 12.0, 0.0, 100.0) == [10.0, 22.5]
        assert spread([99.0, 99.0], 12.0, 0.0, 100.0) == [88.0, 100.0]


class TestNumbers:
    """Numbers and spans as they are written."""

    @pytest.mark.parametrize(
        ("number", "text"),
        [
            (0, "0"),
            (7, "7"),
            (0.25, "0.25"),
            (999, "999"),
            (999.6, "1 k"),
            (1_000, "1 k"),
            (12_345, "12.3 k"),
            (2_500_000, "2.5 M"),
            (999_999_999, "1 G"),
            (2**64 - 1, "18.4 E"),
        ],
    )
    def test_si(self, number: float, text: str) -> None:
        """A number has three digits at most, and a prefix."""
        assert format_si(number) == text

    @given(st.floats(0.1, 1e30))
    def test_si_is_near(self, number: float) -> None:
        """What is written is the number, to half a per cent."""
        digits, _, prefix = format_si(number).partition(" ")
        power = " kMGTPEZYRQ".index(prefix or " ")
        assert math.isclose(float(digits) * 1_000.0**power, number, rel_tol=0.0051)

    @pytest.mark.parametrize(
        ("span", "text"),
        [
            (0, "0 s"),
            (7, "7 ns"),
            (2_500, "2 µs 500 ns"),
            (10 * SECOND, "10 s"),
            (150 * SECOND, "2 min 30 s"),
            (3_600 * SECOND + 5 * SECOND, "1 h"),
            (86_399 * SECOND, "23 h 59 min"),
            (9 * DAY + 1, "9 d"),
        ],
    )
    def test_span(self, span: int, text: str) -> None:
        """A span has its two largest units; what follows is dropped."""
        assert format_span(span) == text


class TestTicks:
    """A time axis."""

    @given(times, spans, st.integers(5, 10))
    @example(0, 912 * DAY, 5)
    def test_ticks(self, start: int, span: int, count_max: int) -> None:
        """Few, in order and in range, and no two of them read alike."""
        end = min(start + span, TIME_MAX)
        ticks = time_ticks(start, end, count_max)
        assert 1 <= len(ticks) <= count_max
        assert start <= ticks[0].time_ns
        assert ticks[-1].time_ns <= end
        for before, after in itertools.pairwise(ticks):
            assert before.time_ns < after.time_ns
        contexts = [""]  # A year needs none.
        for tick in ticks:
            contexts.append(tick.context or contexts[-1])
        read = set(zip(contexts[1:], [tick.label for tick in ticks], strict=True))
        assert len(read) == len(ticks)

    @pytest.mark.parametrize(
        ("span", "labels"),
        [
            (800, ["0", "+200 ns", "+400 ns", "+600 ns", "+800 ns"]),
            (SECOND, ["20.000 s", "20.200 s", "20.400 s", "20.600 s", "20.800 s"]),
            (60 * SECOND, ["22:13:20", "22:13:30", "22:13:40", "22:13:50"]),
            (7_200 * SECOND, ["22:30", "23:00", "23:30", "00:00"]),
            (600 * SECOND, ["22:14", "22:16", "22:18", "22:20", "22:22"]),
            (10 * DAY, ["15 Nov", "17 Nov", "19 Nov", "21 Nov", "23 Nov"]),
            (500 * DAY, ["Jan", "Apr", "Jul", "Oct", "Jan"]),
            (4 * DAY, ["15 Nov", "16 Nov", "17 Nov", "18 Nov"]),
            (100 * DAY, ["Dec", "Jan", "Feb"]),
            (2_000 * DAY, ["2024", "2025", "2026", "2027", "2028", "2029"]),
        ],
    )
    def test_labels(self, span: int, labels: list[str]) -> None:
        """Times are round and in UTC, as fine as the span asks for."""
        found = [tick.label for tick in time_ticks(NOON, NOON + span, 8)]
        assert found[: len(labels)] == labels

    def test_contexts(self) -> None:
        """The date stands under the first time, and under the first of each day."""
        contexts = [
            (tick.label, tick.context)
            for tick in time_ticks(NOON, NOON + 9_000 * SECOND, 8)
        ]
        assert contexts == [
            ("22:30", "14 Nov 2023"),
            ("23:00", ""),
            ("23:30", ""),
            ("00:00", "15 Nov 2023"),
            ("00:30", ""),
        ]
        [first, *_] = time_ticks(NOON + 5, NOON + 805, 8)
        assert first == Tick(NOON + 5, "0", "22:13:20.000000005, 14 Nov 2023")

    def test_moment(self) -> None:
        """A moment is read to the second."""
        assert format_moment(NOON + 999_999_999) == "2023-11-14 22:13:20"
