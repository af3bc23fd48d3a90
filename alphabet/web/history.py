"""The past minutes for the charts: one entry a second, in a bounded ring.

Pure: seconds come in, entries go out.
"""

import math
from collections import deque
from collections.abc import Iterable, Sequence

import attrs

SECONDS_MAX = 600
"""How many seconds are kept: ten minutes."""


@attrs.frozen
class Second:
    """What happened between two looks, about a second apart.

    `time_seconds` is the wall clock's at its end. The three times of commits, in
    seconds, are None where there was no commit.
    """

    time_seconds: float
    events_per_second: float
    commits: int
    commit_p50_seconds: float | None
    commit_p99_seconds: float | None
    commit_max_seconds: float | None


@attrs.define
class History:
    """The newest `SECONDS_MAX` entries, oldest first."""

    _seconds: deque[Second] = attrs.field(
        factory=lambda: deque(maxlen=SECONDS_MAX), init=False
    )
    _before: tuple[float, int] | None = attrs.field(default=None, init=False)

    @property
    def seconds(self) -> tuple[Second, ...]:
        """All entries."""
        return tuple(self._seconds)

    def note(
        self, now: float, time_seconds: float, events: int, commits: Iterable[float]
    ) -> Second:
        """Add an entry; gives it.

        `now` is a monotonic clock's seconds, `events` are counted since the start,
        `commits` are the times of those since the last note.
        """
        took = sorted(commits)
        passed, new = 0.0, 0
        if self._before is not None:
            passed, new = now - self._before[0], events - self._before[1]
        self._before = (now, events)
        second = Second(
            time_seconds,
            new / passed if passed > 0 else 0.0,
            len(took),
            quantile(took, 0.5),
            quantile(took, 0.99),
            took[-1] if took else None,
        )
        self._seconds.append(second)
        return second


def quantile(ordered: Sequence[float], share: float) -> float | None:
    """Give the number that `share` of all, 0 to 1, do not pass, by nearest rank."""
    if not ordered:
        return None
    return ordered[max(math.ceil(share * len(ordered)) - 1, 0)]
