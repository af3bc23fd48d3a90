"""Which sequences of a server are held, as few ranges.

A range is (first, last), both inclusive. Ranges are ordered, and neither touch nor
overlap: what follows without a gap is one range. Pure.
"""

import itertools

import attrs

Range = tuple[int, int]
Ranges = tuple[Range, ...]


@attrs.frozen
class OverlapError(ValueError):
    """Sequences `first` to `last` (both inclusive) are held already."""

    first: int
    last: int

    def __str__(self) -> str:
        return f"{self.first} to {self.last} are held already"


def add(held: Ranges, new: Range) -> Ranges:
    """Hold a further range; raises OverlapError if any of it is held."""
    first, last = new
    before: list[Range] = []
    behind: list[Range] = []
    for low, high in held:
        if high + 1 < first:
            before.append((low, high))
        elif low > last + 1:
            behind.append((low, high))
        elif high + 1 == new[0]:
            first = low
        elif low == new[1] + 1:
            last = high
        else:
            raise OverlapError(max(low, new[0]), min(high, new[1]))
    return (*before, (first, last), *behind)


def union(*parts: Ranges) -> Ranges:
    """Hold what parts hold that share nothing."""
    joined: list[Range] = []
    for first, last in sorted(itertools.chain(*parts)):
        if joined and joined[-1][1] + 1 == first:
            joined[-1] = (joined[-1][0], last)
        else:
            joined.append((first, last))
    return tuple(joined)


def first_shared(held: Ranges, others: Ranges) -> Range | None:
    """Give the first range that both have, or None where they share nothing."""
    both = (
        (max(low, first), min(high, last))
        for low, high in held
        for first, last in others
    )
    return next((each for each in both if each[0] <= each[1]), None)


def without(whole: Range, gaps: Ranges) -> Ranges:
    """Take gaps, in order and within it, out of a range."""
    left: list[Range] = []
    first = whole[0]
    for low, high in gaps:
        if first < low:
            left.append((first, low - 1))
        first = high + 1
    if first <= whole[1]:
        left.append((first, whole[1]))
    return tuple(left)


def missing(held: Ranges) -> Ranges:
    """Give what is not held, from 1 to the last that is."""
    return without((1, held[-1][1]), held) if held else ()


def count(ranges: Ranges) -> int:
    """Say how many sequences they have."""
    return sum(last - first + 1 for first, last in ranges)
