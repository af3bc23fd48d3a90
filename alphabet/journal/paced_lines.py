"""One line in a while, however much there is to say.

Pure: a clock's seconds come in, entries go out. What comes too soon behind a line is
counted, and the last of it said when the time is over, so that peers by the thousand
cannot fill a journal.
"""

import attrs

from alphabet.journal.entries import Entry

PACE_SECONDS = 1.0
"""The least time between two lines."""


@attrs.define
class PacedLines:
    """Entries that are alike.

    While they keep coming the time between two lines doubles, up to
    `pace_seconds_max`; a pause as long as the last one ends that.
    """

    pace_seconds_max: float = PACE_SECONDS
    _unsaid: int = attrs.field(default=0, init=False)
    _last: Entry | None = attrs.field(default=None, init=False)
    _pace_seconds: float = attrs.field(default=PACE_SECONDS, init=False)
    _quiet_until: float = attrs.field(default=float("-inf"), init=False)

    @property
    def due_at(self) -> float | None:
        """When there is something to say, None if nothing waits."""
        return self._quiet_until if self._unsaid else None

    def note(self, entry: Entry, now: float, count: int = 1) -> Entry | None:
        """Take an entry that stands for `count` like it; give it if it may be said."""
        is_free = not self._unsaid and now >= self._quiet_until
        self._unsaid += count - is_free
        self._last = entry
        if not is_free:
            return None
        if now >= self._quiet_until + self._pace_seconds:
            self._pace_seconds = PACE_SECONDS
        self._be_quiet(now)
        return entry

    def due(self, now: float) -> Entry | None:
        """Give the entry for all that was not said, when it is due."""
        if not self._unsaid or self._last is None or now < self._quiet_until:
            return None
        self._be_quiet(now)
        unsaid, self._unsaid = self._unsaid, 0
        return attrs.evolve(self._last, count=unsaid)

    def _be_quiet(self, now: float) -> None:
        self._quiet_until = now + self._pace_seconds
        self._pace_seconds = min(2 * self._pace_seconds, self.pace_seconds_max)
