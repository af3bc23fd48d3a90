"""The best chain through candidates, against all chains there are."""

import itertools
from collections.abc import Iterator, Sequence

import attrs
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from log.block import Tail
from recovery.damage.block_scan import COLUMNS, Candidates
from recovery.damage.chain import Chain, choose_chain


@attrs.frozen
class Found:
    """One candidate, as a test thinks of it."""

    first: int
    last: int
    previous: int
    checksum: int
    time: int = 0
    is_gap: bool = False
    is_known: bool = False
    is_trusted: bool = True

    @property
    def events(self) -> int:
        """How many events it has."""
        return 0 if self.is_gap else self.last + 1 - self.first

    def follows(self, other: "Found | Tail") -> bool:
        """Say whether it is linked to another, or to a base."""
        if isinstance(other, Tail):
            return (self.first - 1, self.previous) == (other.sequence, other.checksum)
        return (
            self.first == other.last + 1
            and self.previous == other.checksum
            and self.time >= other.time
        )


def rows(found: Sequence[Found]) -> Candidates:
    """Give candidates as a scan has them."""
    return np.array(
        [
            (place, 60, f.first, f.last, f.time, f.previous, f.checksum, 0, f.is_gap)
            for place, f in enumerate(found)
        ],
        COLUMNS,
    )


def chosen(found: Sequence[Found], base: Tail, *, is_strict: bool = False) -> Chain:
    """Choose among candidates."""
    known = np.array([f.is_known for f in found], np.bool_)
    trusted = np.array([f.is_trusted or f.is_known for f in found], np.bool_)
    return choose_chain(rows(found), base, known, trusted, is_strict=is_strict)


def places(chain: Chain) -> list[int]:
    """Give the places of those that were taken."""
    offsets: list[int] = chain.blocks["offset"].tolist()
    return offsets


@st.composite
def candidates(draw: st.DrawFn) -> list[Found]:
    """Draw blocks that may or may not be of one chain; few numbers, many clashes."""
    made: list[Found] = []
    for _ in range(draw(st.integers(0, 7))):
        before = draw(st.sampled_from([None, *made])) if made else None
        first = draw(st.integers(1, 6)) if before is None else before.last + 1
        previous = draw(st.integers(0, 2)) if before is None else before.checksum
        made.append(
            Found(
                first,
                first + draw(st.integers(0, 2)),
                previous,
                draw(st.integers(0, 2)),
                draw(st.integers(0, 3)),
                draw(st.integers(0, 5)) == 0,
                draw(st.integers(0, 3)) == 0,
                draw(st.booleans()),
            )
        )
    # Candidates of one form are copies of one block.
    return list({attrs.astuple(f)[:4]: f for f in made}.values())


def all_chains(
    found: Sequence[Found], base: Tail, *, is_strict: bool
) -> Iterator[tuple[Found, ...]]:
    """Give every chain that could be chosen of those behind a base."""
    found = [each for each in found if each.first > base.sequence]

    def is_backed(one: Found) -> bool:
        if one.is_trusted or one.is_known:
            return True
        return any(other.follows(one) and is_backed(other) for other in found)

    def is_root(one: Found) -> bool:
        return is_backed(one) and not any(one.follows(other) for other in found)

    def can_begin(one: Found) -> bool:
        is_there = one.first > base.sequence + 1 or one.follows(base)
        return is_root(one) and is_there

    def can_follow(one: Found, other: Found) -> bool:
        if is_strict and not is_backed(other):
            return False
        is_behind = other.first > one.last + 1 and other.time >= one.time
        return other.follows(one) or (is_behind and is_root(other))

    waiting: list[tuple[Found, ...]] = [(f,) for f in found if can_begin(f)]
    while waiting:
        chain = waiting.pop()
        yield chain
        waiting += [(*chain, f) for f in found if can_follow(chain[-1], f)]


def value(chain: Sequence[Found]) -> tuple[int, int, int]:
    """Give what a chain is worth."""
    if not chain:
        return (0, 0, 0)
    known = sum(f.events for f in chain if f.is_known)
    return known, sum(f.events for f in chain), chain[-1].time


@given(
    found=candidates(), base=st.sampled_from([Tail(0, 0), Tail(2, 1)]), data=st.data()
)
def test_no_chain_is_better(
    found: list[Found], base: Tail, data: st.DataObject
) -> None:
    """What is chosen is a chain, and none of all chains has more to it."""
    is_strict = data.draw(st.booleans())
    possible = list(all_chains(found, base, is_strict=is_strict))
    taken = tuple(
        found[place] for place in places(chosen(found, base, is_strict=is_strict))
    )
    assert taken in [*possible, ()]
    assert value(taken) == max(map(value, possible), default=(0, 0, 0))


@given(found=candidates(), data=st.data())
def test_the_order_of_bytes_does_not_matter(
    found: list[Found], data: st.DataObject
) -> None:
    """Wherever blocks lie, the same ones are taken, or some of the same worth."""
    order = data.draw(st.permutations(found))
    base = Tail(0, 0)
    one = [found[place] for place in places(chosen(found, base))]
    other = [order[place] for place in places(chosen(order, base))]
    assert value(one) == value(other)


def line(count: int, first: int = 1, size: int = 2, branch: int = 0) -> list[Found]:
    """Give linked blocks of one size."""
    made: list[Found] = []
    for number in range(count):
        start = first + number * size
        previous = (
            made[-1].checksum if made else (start - 1 + branch if start > 1 else 0)
        )
        made.append(Found(start, start + size - 1, previous, start + size - 1 + branch))
    return made


def test_a_whole_chain_is_taken_whole() -> None:
    """Blocks that follow each other are all taken, in order, wherever they lie."""
    found = line(50)[::-1]
    chain = chosen(found, Tail(0, 0))
    assert places(chain) == list(range(50))[::-1]
    assert len(chain.others) == chain.copies == 0


def test_copies_are_taken_once() -> None:
    """Of one block in several places the one that is known is taken."""
    one, two = line(2)
    found = [one, two, one, attrs.evolve(one, is_known=True)]
    chain = chosen(found, Tail(0, 0))
    assert places(chain) == [3, 1]
    assert chain.is_known.tolist() == [True, False]
    assert (len(chain.others), chain.copies) == (0, 2)


def test_what_is_missing_is_passed_over() -> None:
    """Blocks on both sides of a missing one are taken."""
    found = line(9)
    assert places(chosen([*found[:4], *found[5:]], Tail(0, 0))) == list(range(8))


def test_the_known_branch_wins() -> None:
    """A branch that the log names is taken, though another has more events."""
    trunk = line(3)
    short = [attrs.evolve(f, is_known=True) for f in _branch(trunk, 1, 100)]
    long = _branch(trunk, 5, 200)
    found = [*trunk, *long, *short]
    assert places(chosen(found, Tail(0, 0))) == [0, 1, 2, 8]
    assert len(chosen(found, Tail(0, 0)).others) == 5


def test_else_the_branch_with_most_events_wins() -> None:
    """Where nothing is known, more events are better, whatever their time."""
    trunk = line(3)
    short = [attrs.evolve(f, time=9) for f in _branch(trunk, 1, 100)]
    found = [*trunk, *short, *_branch(trunk, 2, 200)]
    assert places(chosen(found, Tail(0, 0))) == [0, 1, 2, 4, 5]


def test_blocks_do_not_count() -> None:
    """A block of three events is better than many blocks of fewer in all."""
    large = Found(1, 3, 0, 50)
    small = [attrs.evolve(f, time=9) for f in line(2, size=1)]
    assert places(chosen([large, *small], Tail(0, 0))) == [0]


def test_neighbours_without_a_link_are_of_two_branches() -> None:
    """Of blocks that stand side by side, each naming another, no two are taken."""
    found = [attrs.evolve(f, previous=900 + n) for n, f in enumerate(line(9))]
    taken = places(chosen(found, Tail(0, 900)))
    assert len(taken) == 5
    assert all(after > before + 1 for before, after in itertools.pairwise(taken))


def test_else_the_newest_wins() -> None:
    """Of as many events, the newer ones are taken."""
    trunk = line(3)
    newer = [attrs.evolve(f, time=9) for f in _branch(trunk, 2, 100)]
    found = [*trunk, *newer, *_branch(trunk, 2, 200)]
    assert places(chosen(found, Tail(0, 0))) == [0, 1, 2, 3, 4]


def _branch(trunk: Sequence[Found], count: int, branch: int) -> list[Found]:
    end = trunk[-1]
    made = line(count, end.last + 1, branch=branch)
    return [attrs.evolve(made[0], previous=end.checksum), *made[1:]]


def test_a_stranger_behind_a_gap_is_left() -> None:
    """A block that nothing vouches for is taken where the chain does, and else not."""
    found = line(6)
    strange = [attrs.evolve(f, is_trusted=False) for f in found]
    alone = [*found[:2], strange[4]]
    assert places(chosen(alone, Tail(0, 0))) == [0, 1]
    linked = [*found[:2], strange[2]]
    assert places(chosen(linked, Tail(0, 0))) == [0, 1, 2]
    assert places(chosen(linked, Tail(0, 0), is_strict=True)) == [0, 1]
    leading = [*found[:2], strange[4], found[5]]
    for is_strict in (False, True):
        assert places(chosen(leading, Tail(0, 0), is_strict=is_strict)) == [0, 1, 2, 3]


def test_strangers_at_the_end_are_left() -> None:
    """Where every block must be trusted, a chain ends with its last trusted one."""
    found = line(6)
    strange = [attrs.evolve(f, is_trusted=False) for f in found]
    ended = [*found[:3], *strange[3:]]
    assert places(chosen(ended, Tail(0, 0), is_strict=True)) == [0, 1, 2]
    assert places(chosen(ended, Tail(0, 0))) == [0, 1, 2, 3, 4, 5]


def test_another_chain_does_not_begin_here() -> None:
    """What leads back to a block that does not follow the base is another log's."""
    found = line(3)
    assert places(chosen(found, Tail(0, 0))) == [0, 1, 2]
    assert places(chosen(found, Tail(2, 2))) == [1, 2]
    for base in (Tail(0, 77), Tail(2, 77)):
        assert places(chosen(found, base)) == []


def test_a_chain_is_left_for_what_is_known() -> None:
    """A chain ends one block earlier for a known block that begins amid its last."""
    found = line(5, size=3)
    known = Found(11, 30, 99, 99, is_known=True)
    assert places(chosen([*found, known], Tail(0, 0))) == [0, 1, 2, 5]


def test_a_branch_is_not_entered_in_the_middle() -> None:
    """What follows a block that was not taken is not taken either."""
    trunk = line(3)
    short = [attrs.evolve(f, is_known=True) for f in _branch(trunk, 1, 100)]
    long = _branch(trunk, 5, 200)
    found = [*trunk, *short, *long]
    assert places(chosen(found, Tail(0, 0))) == [0, 1, 2, 3]
    # Where it cannot be told that it is another branch, it is.
    found = [*trunk, *short, *long[2:]]
    assert places(chosen(found, Tail(0, 0))) == [0, 1, 2, 3, 4, 5, 6]


def test_what_is_older_is_not_taken_behind_a_gap() -> None:
    """Where times go back across a gap, what is behind it is of another branch."""
    new = [attrs.evolve(f, time=9) for f in line(3)]
    old = [attrs.evolve(f, time=5) for f in line(2, 9)]
    assert places(chosen([*new, *old], Tail(0, 0))) == [0, 1, 2]
    for time in (9, 10):
        younger = [attrs.evolve(f, time=time) for f in old]
        assert places(chosen([*new, *younger], Tail(0, 0))) == [0, 1, 2, 3, 4]


def test_a_gap_is_behind_the_best_that_is_not_newer() -> None:
    """The chain that is best of all is passed over for one that a gap may follow."""
    trunk = line(3)
    long = [attrs.evolve(f, time=9) for f in _branch(trunk, 3, 200)]
    short = [attrs.evolve(f, time=4) for f in _branch(trunk, 2, 100)]
    behind = [attrs.evolve(f, time=5) for f in line(4, 15)]
    found = [*trunk, *long, *short, *behind]
    assert places(chosen(found, Tail(0, 0))) == [0, 1, 2, 6, 7, 8, 9, 10, 11]


def test_what_is_newer_and_worse_is_passed_over() -> None:
    """Of two chains that a gap may follow the better one is taken, not the newer."""
    newer = Found(3, 11, 99, 98, time=4)
    behind = [attrs.evolve(f, time=5) for f in line(1, 15)]
    assert places(chosen([*line(5), newer, *behind], Tail(0, 0))) == [0, 1, 2, 3, 4, 6]


def test_a_branch_is_left_for_more_that_is_older() -> None:
    """A chain ends amid linked blocks, where what it can go on with is worth more."""
    linked = [attrs.evolve(f, time=n) for n, f in enumerate(line(6))]
    older = [attrs.evolve(f, time=2) for f in line(9, 21, branch=500)]
    assert places(chosen([*linked, *older], Tail(0, 0))) == [0, 1, 2, *range(6, 15)]


def test_what_follows_two_that_end_alike_follows_either() -> None:
    """A chain goes on from the one that is the log's, whichever lies beside it."""
    found = [Found(1, 1, 1, 0), Found(1, 1, 0, 0), Found(2, 2, 0, 5), Found(3, 3, 5, 6)]
    assert places(chosen(found, Tail(0, 0))) == [1, 2, 3]


def test_nothing_found_is_an_empty_chain() -> None:
    """Without candidates there is nothing to choose."""
    assert places(chosen([], Tail(0, 0))) == []


def test_many_overlapping_chains() -> None:
    """The longest of many interleaved chains is taken whole."""
    lines = [line(20 + size, size=size, branch=size * 1000) for size in (1, 2, 3)]
    found = list(itertools.chain(*lines))
    taken = [found[place] for place in places(chosen(found, Tail(0, 0)))]
    assert value(taken)[1] >= 69
