"""Who ends where unfinished frames hold too much."""

from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st

from alphabet.source.partial_frames import ROOM_SHARE, PartialFrames

NOW = 100.0
HELD = st.dictionaries(
    st.integers(0, 99),
    st.tuples(st.integers(1, 50), st.floats(0.0, NOW)),
    max_size=30,
)
"""What each one holds, and since when."""


def host(holder: int) -> int:
    """Tell where a holder is: ten at each."""
    return holder // 10


def holding(held: dict[int, tuple[int, float]]) -> PartialFrames[int]:
    """Give what is held."""
    frames = PartialFrames(host)
    for holder, (held_bytes, since) in held.items():
        frames.hold(holder, held_bytes, since)
    return frames


class TestExcess:
    """Who makes room."""

    @given(HELD, st.integers(0, 500))
    def test_room_is_made_by_the_costliest(
        self, held: dict[int, tuple[int, float]], bytes_max: int
    ) -> None:
        """The fewest of the costliest end that leave room, and nobody within bounds."""
        total = sum(held_bytes for held_bytes, _ in held.values())
        ended = holding(held).excess(bytes_max, NOW)
        if total <= bytes_max:
            assert ended == []
            return
        cost = {each: size * (NOW - since) for each, (size, since) in held.items()}
        of_host: dict[int, float] = defaultdict(float)
        for each in held:
            of_host[host(each)] += cost[each]
        costs = [(of_host[host(each)], cost[each]) for each in ended]
        assert costs == sorted(costs, reverse=True)
        spared = [(of_host[host(each)], cost[each]) for each in held.keys() - ended]
        assert min(costs) >= max(spared, default=(0, 0))
        left = total - sum(held[each][0] for each in ended)
        room = bytes_max - bytes_max // ROOM_SHARE
        assert left <= room < left + held[ended[-1]][0]

    def test_a_moment_of_much_costs_less_than_long_holding(self) -> None:
        """Bytes weigh as much as time; where no time has passed, bytes decide."""
        frames = holding({1: (5, 0.0), 2: (100, 90.0), 3: (110, 99.0), 4: (20, 60.0)})
        assert frames.excess(120, NOW) == [2, 4, 1, 3]
        assert frames.excess(120, 0.0) == [3, 2]

    def test_who_came_first_ends_first(self) -> None:
        """Of those that cost the same the order is that of their arrival."""
        frames = holding(dict.fromkeys([7, 3, 9], (10, 1.0)))
        assert frames.excess(22, NOW) == [7]
        assert frames.excess(21, NOW) == [7, 3]

    def test_many_small_ones_of_a_host_cost_as_much(self) -> None:
        """Who holds little over many connections ends before who holds much on one."""
        frames = holding({50: (40, 0.0)} | dict.fromkeys(range(9), (10, 0.0)))
        assert frames.excess(120, NOW) == [0, 1, 2]

    def test_a_clock_that_stands_behind(self) -> None:
        """What is begun later than now has cost nothing yet."""
        frames = holding({1: (9, NOW + 5.0), 2: (1, 0.0)})
        assert frames.excess(9, NOW) == [2, 1]


class TestHeld:
    """What all hold."""

    @given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 50), st.booleans())))
    def test_the_sum_is_kept(self, steps: list[tuple[int, int, bool]]) -> None:
        """It is the sum of what each one held last, and nothing for who let go."""
        frames = PartialFrames(host)
        last: dict[int, int] = {}
        for holder, held_bytes, goes in steps:
            if goes:
                frames.let_go(holder)
            else:
                frames.hold(holder, held_bytes, 0.0)
            last[holder] = 0 if goes else held_bytes
            assert frames.held_bytes == sum(last.values())
        assert set(frames.excess(-1, NOW)) == {each for each, n in last.items() if n}
