"""Which rejects are worth a line: a connection's first, then one sum a second.

Pure: a clock's seconds come in, lines go out.
"""

import weakref
from collections import Counter
from collections.abc import Sequence

import attrs

from alphabet.intake import Rejection
from log.row import Reject

SUMMARY_SECONDS = 1.0


def describe_reject(reject: Reject) -> str:
    """Say who sent what, where, and why it does not count."""
    if reject.sequence:
        return f"failed event {reject.sequence} ({reject.reason}): {reject.cause}"
    place = "" if reject.position is None else f" at byte {reject.position}"
    return f"rejected from {reject.peer}{place} ({reject.reason}): {reject.cause}"


@attrs.define
class RejectDigest:
    """Counts every reject by reason, and says as much as people can read."""

    counts: Counter[str] = attrs.field(factory=Counter, init=False)
    _known: weakref.WeakSet[object] = attrs.field(factory=weakref.WeakSet, init=False)
    _has_failed_event: bool = attrs.field(default=False, init=False)
    _unsaid: int = attrs.field(default=0, init=False)
    _last: Reject | None = attrs.field(default=None, init=False)
    _due: float = attrs.field(default=0.0, init=False)

    def note(self, rejections: Sequence[Rejection], now: float) -> list[str]:
        """Count rejects; give the lines for those that come first."""
        lines = []
        for rejection in rejections:
            self.counts[rejection.reject.reason] += 1
            if self._is_first(rejection.connection):
                lines.append(describe_reject(rejection.reject))
            else:
                if not self._unsaid:
                    self._due = now + SUMMARY_SECONDS
                self._unsaid += 1
                self._last = rejection.reject
        return lines

    def summary(self, now: float) -> str | None:
        """Give the line that sums up the last second, when it is due."""
        if self._last is None or now < self._due:
            return None
        unsaid, self._unsaid = self._unsaid, 0
        last, self._last = self._last, None
        return f"{unsaid} more rejected or failed; the last: {describe_reject(last)}"

    def _is_first(self, connection: object) -> bool:
        if connection is None:
            is_first = not self._has_failed_event
            self._has_failed_event = True
            return is_first
        if connection in self._known:
            return False
        self._known.add(connection)
        return True
