"""What unfinished frames hold, and whose end makes room.

All of them together hold a bounded number of bytes. Past that, those end first that
have cost the most: the bytes that they hold, times how long their frame is unfinished.
The sum of a host's comes before each one's, so thousands that hold little each are no
better off. Who fills the bound has to hold much for long, so it ends itself; whoever
comes then with a part of a frame, and goes on, costs next to nothing. *Given up:* of
one host, thousands outlast a sender whose frames are large and slow.

Pure: who holds is any value that can be a key, and seconds come in.
"""

from collections import defaultdict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

import attrs

Holder = TypeVar("Holder", bound=Hashable)
ROOM_SHARE = 8
"""One part in so many is free again after each time that the bound was passed."""

_NOTHING = (0, 0.0)


@attrs.define
class PartialFrames(Generic[Holder]):
    """Who holds how much of an unfinished frame, and since when.

    `host` tells where a holder is; all that are there answer for each other.
    """

    host: Callable[[Holder], Hashable]
    held_bytes: int = attrs.field(default=0, init=False)
    _held: dict[Holder, tuple[int, float]] = attrs.field(factory=dict, init=False)

    def hold(self, holder: Holder, held_bytes: int, since: float) -> None:
        """Take note of what a holder has now, 0 for nothing, and since when."""
        self.let_go(holder)
        if held_bytes:
            self.held_bytes += held_bytes
            self._held[holder] = held_bytes, since

    def let_go(self, holder: Holder) -> None:
        """Take note that somebody holds nothing any more, if it did."""
        self.held_bytes -= self._held.pop(holder, _NOTHING)[0]

    def excess(self, bytes_max: int, now: float) -> list[Holder]:
        """Give those that are to end now, the costliest first.

        None, if all hold `bytes_max` at most (inclusive). Else room is made for more
        than the next piece, so that a flood of small ones is looked through seldom.
        """
        if self.held_bytes <= bytes_max:
            return []
        costs: dict[Holder, float] = {}
        costs_of_hosts: dict[Hashable, float] = defaultdict(float)
        for holder, (held_bytes, since) in self._held.items():
            costs[holder] = held_bytes * max(now - since, 0.0)
            costs_of_hosts[self.host(holder)] += costs[holder]

        def cost(holder: Holder) -> tuple[float, float, int]:
            of_host = costs_of_hosts[self.host(holder)]
            return of_host, costs[holder], self._held[holder][0]

        too_many = self.held_bytes - (bytes_max - bytes_max // ROOM_SHARE)
        found: list[Holder] = []
        for holder in sorted(self._held, key=cost, reverse=True):
            if too_many <= 0:
                break
            found.append(holder)
            too_many -= self._held[holder][0]
        return found
