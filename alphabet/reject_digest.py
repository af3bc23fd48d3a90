"""What is said of rejects, a line a second at most; every one is counted by reason.

Pure: a clock's seconds come in, entries go out.
"""

from collections import Counter
from collections.abc import Sequence

import attrs

from alphabet.intake import Rejection
from alphabet.journal.entries import Entry, reject_noted
from alphabet.journal.paced_lines import PacedLines


@attrs.define
class RejectDigest:
    """Counts every reject by reason, and says as much as people can read."""

    counts: Counter[str] = attrs.field(factory=Counter, init=False)
    _lines: PacedLines = attrs.field(factory=PacedLines, init=False)

    def note(self, rejections: Sequence[Rejection], now: float) -> list[Entry]:
        """Count rejects; give the entries that may be said of them now."""
        lines = []
        for rejection in rejections:
            self.counts[rejection.reject.reason] += rejection.count
            entry = reject_noted(rejection.reject)
            line = self._lines.note(entry, now, rejection.count)
            if line is not None:
                lines.append(line)
        return lines

    def summary(self, now: float) -> Entry | None:
        """Give the entry that sums up what was not said, when it is due."""
        return self._lines.due(now)
