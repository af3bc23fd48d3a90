"""How long a sender of what was refused is not read, so that others are.

To refuse a frame costs a hundred times what it costs to count a vote. So all that send
bad frames share a bounded number of refusals a second: each rests in proportion to what
it had refused and to how many rest with it. Who sends one bad frame hardly notices.
A new connection, and one that had something refused, is read little by little until
what it sent is judged.

No clock and no socket is asked: seconds come in, and connections go out.
"""

import heapq
import itertools
from collections.abc import Iterator

import attrs

from alphabet.source.connection import DOUBTED_READS, RECEIVE_BYTES_DOUBTED, Connection

REFUSED_PER_SECOND_MAX = 50_000
"""How many bad frames a second are read of all together, in the long run."""
REST_SECONDS_MAX = 10.0
REST_SECONDS_MIN = 0.005


@attrs.define
class Rests:
    """Connections that are not read for a while."""

    _resting: list[tuple[float, int, Connection]] = attrs.field(
        factory=list, init=False
    )
    _numbers: Iterator[int] = attrs.field(factory=itertools.count, init=False)

    def must_rest(self, connection: Connection, judged: int, now: float) -> bool:
        """Say whether a connection is not read now; it rests then.

        `judged` is how many of all arrivals are.
        """
        refused = connection.refused - connection.known_refused
        if refused:
            connection.known_refused += refused
            connection.doubted_reads = DOUBTED_READS
            connection.receive_bytes = RECEIVE_BYTES_DOUBTED
        elif not connection.doubted_reads:
            return False
        elif judged >= connection.last_arrival:
            connection.doubted_reads -= 1
            return False
        self._add(connection, refused, now)
        return True

    def rested(self, now: float) -> Iterator[Connection]:
        """Give those whose rest is over."""
        while self._resting and self._resting[0][0] <= now:
            _, _, connection = heapq.heappop(self._resting)
            connection.is_resting = False
            if connection.partial_since is not None:
                connection.partial_since = now  # It was not for it to finish.
            yield connection

    def seconds_left(self, now: float, seconds_max: float) -> float:
        """Say how long it is until a rest is over, within 0 and `seconds_max`."""
        if not self._resting:
            return seconds_max
        return min(max(self._resting[0][0] - now, 0.0), seconds_max)

    def _add(self, connection: Connection, refused: int, now: float) -> None:
        share = refused * (len(self._resting) + 1) / REFUSED_PER_SECOND_MAX
        until = now + min(max(share, REST_SECONDS_MIN), REST_SECONDS_MAX)
        connection.is_resting = True
        heapq.heappush(self._resting, (until, next(self._numbers), connection))
