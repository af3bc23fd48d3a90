"""What is said of rejects, a line a second at most; every one is counted by reason.

Pure: a clock's seconds come in, lines go out.
"""

from collections import Counter
from collections.abc import Sequence

import attrs

from alphabet.intake import Rejection
from alphabet.paced_lines import PacedLines
from log.row import Reject


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
    _lines: PacedLines = attrs.field(
        factory=lambda: PacedLines("rejected or failed"), init=False
    )

    def note(self, rejections: Sequence[Rejection], now: float) -> list[str]:
        """Count rejects; give the lines that may be said of them now."""
        lines = []
        for rejection in rejections:
            self.counts[rejection.reject.reason] += rejection.count
            text = describe_reject(rejection.reject)
            line = self._lines.note(text, now, rejection.count)
            if line is not None:
                lines.append(line)
        return lines

    def summary(self, now: float) -> str | None:
        """Give the line that sums up what was not said, when it is due."""
        return self._lines.due(now)
