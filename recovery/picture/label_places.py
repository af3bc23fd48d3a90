"""Where labels go that would stand on each other: aside, by as little as will do.

Pure.
"""

from collections.abc import Sequence


def spread(
    wanted: Sequence[float], distance: float, low: float, high: float
) -> list[float]:
    """Give places in the order of those wanted, which must ascend.

    Neighbours are `distance` apart or more. All lie within `low` and `high`
    (inclusive) where they fit; where not, they begin at `low`. Of all such places
    these have the smallest sum of squared moves.
    """
    # Less their places in the queue, the labels need only keep their order: that is a
    # regression by pooling. A pool is (sum, count), and its labels are shoulder to
    # shoulder around their mean.
    pools: list[tuple[float, int]] = []
    for index, place in enumerate(wanted):
        pool = (place - index * distance, 1)
        while pools and pools[-1][0] * pool[1] >= pool[0] * pools[-1][1]:
            total, count = pools.pop()
            pool = (total + pool[0], count + pool[1])
        pools.append(pool)
    highest = high - (len(wanted) - 1) * distance
    means = [total / count for total, count in pools for _ in range(count)]
    return [
        max(low, min(highest, mean)) + index * distance
        for index, mean in enumerate(means)
    ]
