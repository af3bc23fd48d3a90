"""What arrived, gathered for the engine: consecutive payloads of one size together.

A group is what can be taken as one batch. It remembers where each payload came from,
for those that are refused.

Pure.
"""

import bisect
from collections.abc import Iterator, Sequence

import attrs
import numpy as np

from alphabet.arrival import Received
from alphabet.framing import Piece, Rows


@attrs.frozen
class Group:
    """Consecutive pieces whose payloads have one size; or one of mixed sizes (None)."""

    payload_bytes: int | None
    pieces: Sequence[tuple[Received, Piece]]

    @property
    def count(self) -> int:
        """How many payloads there are."""
        return sum(piece.count for _, piece in self.pieces)

    def payloads(self) -> list[bytes]:
        """Give the payloads one by one."""
        return [payload for _, piece in self.pieces for payload in piece.payloads]

    def rows(self) -> Rows:
        """Give the payloads, which have one size, as rows of their own memory."""
        rows = np.empty((self.count, self.payload_bytes or 0), np.uint8)
        start = 0
        for _, piece in self.pieces:
            piece.fill(rows[start : start + piece.count])
            start += piece.count
        return rows

    def origins(
        self, indexes: Sequence[int]
    ) -> Iterator[tuple[Received, Sequence[int]]]:
        """Say for payloads, by rising index, by whom and at which bytes they came.

        One answer for all that came together, in order. A byte is an offset in all
        that the peer sent. Takes one walk through the pieces, however many payloads
        are asked for.
        """
        start = 0
        first = 0
        for received, piece in self.pieces:
            last = bisect.bisect_left(indexes, start + piece.count)
            if first < last:
                positions = piece.positions()
                here = indexes[first:last]
                yield received, [positions[index - start] for index in here]
            start += piece.count
            first = last


def gather(received: Sequence[Received]) -> Iterator[Group]:
    """Give what arrived as groups, in order."""
    size: int | None = None
    members: list[tuple[Received, Piece]] = []
    for arrival in received:
        for piece in arrival.frames.pieces:
            payload_bytes = piece.payload_bytes
            if members and (payload_bytes is None or payload_bytes != size):
                yield Group(size, members)
                members = []
            size = payload_bytes
            members.append((arrival, piece))
    if members:
        yield Group(size, members)
