"""Decode, running totals, encode: 9 n bytes of votes become 13 n bytes of outputs.

In blocks that stay in the cache. A stable sort by letter (numpy has a radix sort for
bytes) makes each letter's votes neighbours; one cumulative sum then gives all totals
at once, for where a letter begins the sum of the one before is taken out again and the
letter's own total so far put in. Outputs are copied from a template that holds their
lengths: storing into an unaligned big-endian field costs ten times as much.
"""

from typing import TypeAlias

import attrs
import numpy as np
from numpy.typing import NDArray

from alphabet.trial.vote_load import BYTE_VALUES, OUTPUT, OUTPUT_BYTES, VOTE, VOTE_BYTES

BLOCK_VOTES = 1 << 15

Records: TypeAlias = NDArray[np.void]
Bytes: TypeAlias = NDArray[np.uint8]


class BadFrameError(ValueError):
    """A frame is no vote."""


def _zeros() -> NDArray[np.uint64]:
    return np.zeros(BYTE_VALUES, np.uint64)


def _template() -> Records:
    template = np.zeros(BLOCK_VOTES, OUTPUT)
    template["length"] = OUTPUT_BYTES - 4
    return template


@attrs.define
class Tally:
    """Each letter's total so far: `totals: u8[256]`."""

    totals: NDArray[np.uint64] = attrs.field(factory=_zeros)
    _all_letters: Bytes = attrs.field(factory=lambda: np.arange(256, dtype=np.uint8))

    def add(self, letters: Bytes, counts: NDArray[np.integer]) -> NDArray[np.uint64]:
        """Add votes; give for each its letter's total so far."""
        order = letters.argsort(kind="stable")
        running = counts.astype(np.uint64).take(order)
        here, starts = self._runs(letters.take(order))
        sums = np.add.reduceat(running, starts)
        # Unsigned numbers wrap, and wrap back in the cumulative sum.
        running[starts[1:]] -= sums[:-1] + self.totals[here[:-1]]
        running[starts] += self.totals[here]
        running.cumsum(out=running)
        self.totals[here] += sums
        totals = np.empty_like(running)
        totals[order] = running
        return totals

    def _runs(self, ordered: Bytes) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Give the letters that are there, and where the run of each begins."""
        ends = ordered.searchsorted(self._all_letters, "right")
        here = np.flatnonzero(np.diff(ends, prepend=0))
        starts = np.zeros(len(here), np.intp)
        starts[1:] = ends[here[:-1]]
        return here, starts


@attrs.define
class Kernel:
    """A tally of framed votes, and the template of their outputs."""

    tally: Tally = attrs.field(factory=Tally)
    _template: Records = attrs.field(factory=_template)

    def count(self, frames: memoryview) -> memoryview:
        """Count whole frames; give their outputs. Raises BadFrameError."""
        votes = np.frombuffer(frames, VOTE)
        outputs = np.empty(len(votes), OUTPUT)
        for start in range(0, len(votes), BLOCK_VOTES):
            block = slice(start, start + BLOCK_VOTES)
            self._count_block(votes[block], outputs[block])
        return outputs.view(np.uint8).data

    def _count_block(self, votes: Records, outputs: Records) -> None:
        if not (votes["length"] == VOTE_BYTES - 4).all():
            raise BadFrameError("a frame is no vote")
        outputs.view(np.uint8)[:] = self._template[: len(votes)].view(np.uint8)
        letters = votes["letter"].copy()
        outputs["letter"] = letters
        outputs["total"] = self.tally.add(letters, votes["votes"])
