"""One line a second, however much there is to say.

Pure: a clock's seconds come in, lines go out. What comes within a second of a line is
counted, and the last of it said when the second is over, so that peers by the thousand
cannot fill a journal.
"""

import attrs

PACE_SECONDS = 1.0
"""The least time between two lines."""


@attrs.define
class PacedLines:
    """Lines of one kind; `verb` is what has happened to those that are counted."""

    verb: str
    _unsaid: int = attrs.field(default=0, init=False)
    _last: str = attrs.field(default="", init=False)
    _quiet_until: float = attrs.field(default=float("-inf"), init=False)

    def note(self, line: str, now: float, count: int = 1) -> str | None:
        """Take a line that stands for `count` like it; give it if it may be said."""
        is_free = not self._unsaid and now >= self._quiet_until
        self._unsaid += count - is_free
        self._last = line
        if is_free:
            self._quiet_until = now + PACE_SECONDS
            return line
        return None

    def due(self, now: float) -> str | None:
        """Give the line for all that was not said, when it is due."""
        if not self._unsaid or now < self._quiet_until:
            return None
        self._quiet_until = now + PACE_SECONDS
        unsaid, self._unsaid = self._unsaid, 0
        if unsaid == 1:
            return self._last
        return f"{unsaid} more {self.verb}; the last: {self._last}"
