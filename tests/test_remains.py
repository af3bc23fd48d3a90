"""What a tree of blocks tells of blocks that are found elsewhere."""

import numpy as np

from recovery.damage.remains import Live
from tests.test_chain import Found, rows

LIVE = Live(
    root=5,
    keys=np.array([1, 4, 6], np.uint64),
    offsets=np.array([0, 60, 120], np.uint64),
    sizes=np.array([60, 60, 61], np.uint64),
    pages=frozenset(),
    is_whole=True,
)


def test_a_block_fits_where_the_next_one_follows() -> None:
    """Its first event and size are told, and but for the last, its last event too."""
    found = rows([Found(1, 3, 0, 1), Found(1, 2, 0, 2), Found(4, 5, 0, 3)])
    assert LIVE.fits(found).tolist() == [True, False, True]
    last = rows([Found(6, 6, 0, 4), Found(6, 99, 0, 5), Found(7, 7, 0, 6)])
    last["block_bytes"] = 61
    assert LIVE.fits(last).tolist() == [True, True, False]
    last["block_bytes"] = 60
    assert not LIVE.fits(last).any()


def test_the_bytes_of_blocks_are_those_that_begin_there() -> None:
    """Of events that no block begins at, nobody knows how many bytes they took."""
    assert LIVE.bytes_between(1, 4) == 120
    assert LIVE.bytes_between(2, 3) is None
    assert LIVE.bytes_between(6, 6) == 61
