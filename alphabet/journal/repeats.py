"""The same fault again and again: said at once, then summed up ever more seldom.

Pure: a clock's seconds come in, entries go out. Each fault has a pace of its own, so
that a sink which flaps does not hide another's fall.
"""

from collections import OrderedDict

import attrs

from alphabet.journal.entries import Entry, Fact
from alphabet.journal.paced_lines import PacedLines

REPEAT_SECONDS_MAX = 300.0
"""The longest time between two lines of a fault that goes on."""
FAULTS_MAX = 256
"""How many different faults are paced; beyond that the oldest is let go."""


@attrs.define
class Repeats:
    """Paces entries by what they have alike."""

    _paced: OrderedDict[tuple[Fact, ...], PacedLines] = attrs.field(
        factory=OrderedDict, init=False
    )

    @property
    def due_at(self) -> float | None:
        """When there is something to say, None if nothing waits."""
        times = [each.due_at for each in self._paced.values()]
        return min((time for time in times if time is not None), default=None)

    def note(self, entry: Entry, now: float) -> list[Entry]:
        """Take an entry; give what is to be said now."""
        key = entry.pace_key
        if key is None:
            return [entry]
        said: list[Entry | None] = []
        if key not in self._paced and len(self._paced) >= FAULTS_MAX:
            _, oldest = self._paced.popitem(last=False)
            said.append(oldest.due(float("inf")))
        lines = self._paced.setdefault(key, PacedLines(REPEAT_SECONDS_MAX))
        self._paced.move_to_end(key)
        said.append(lines.note(entry, now))
        return [each for each in said if each is not None]

    def due(self, now: float) -> list[Entry]:
        """Give the entries for all that was not said, if they are due."""
        due = [each.due(now) for each in self._paced.values()]
        return [each for each in due if each is not None]
