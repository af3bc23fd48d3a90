"""The bare recount: all totals from a log of bare blocks, in one pass and unchecked."""

from pathlib import Path

import lmdb
import numpy as np
from numpy.typing import NDArray

from alphabet.trial.vote_load import BYTE_VALUES, VOTE, Load, sum_by_letter
from bench.bare.server import MAP_BYTES

BLOCK_VOTES = 100_000


def fill(directory: Path, load: Load) -> None:
    """Write a one-sender load as bare blocks."""
    directory.mkdir()
    [frames] = load.frames()
    sequence = 0
    with lmdb.open(str(directory), map_size=MAP_BYTES, sync=False) as environment:
        for _ in range(load.turns):
            for start in range(0, len(frames), BLOCK_VOTES):
                block = frames[start : start + BLOCK_VOTES]
                with environment.begin(write=True) as transaction:
                    transaction.put(sequence.to_bytes(8), block.tobytes())
                sequence += len(block)
        environment.sync(True)  # noqa: FBT003 - the library's own signature


def recount(directory: Path) -> NDArray[np.uint64]:
    """Give each letter's total: `u8[256]`."""
    totals = np.zeros(BYTE_VALUES, np.uint64)
    with (
        lmdb.open(str(directory), map_size=MAP_BYTES, readonly=True) as environment,
        environment.begin(buffers=True) as transaction,
    ):
        for _, block in transaction.cursor():
            votes = np.frombuffer(block, VOTE)
            totals += sum_by_letter(votes["letter"], votes["votes"])
    return totals
