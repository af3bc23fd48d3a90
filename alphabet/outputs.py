"""Encoded outputs of consecutive events: what travels from the engine to the sinks.

Invariant: `ends` has one entry per event, never falls, and its last is the length
of `data`. An event without output repeats the end before it.

Pure.
"""

from collections.abc import Sequence
from typing import Self

import attrs

from log.row import Cursor

END_BYTES = 40
"""What an event takes beside its output: a number, and its place in a list."""


@attrs.frozen
class Outputs:
    """The outputs of events `first_sequence` onward, which are one pipeline's.

    `ends[i]` is where, in `data`, the output of event `first_sequence + i` ends.
    """

    first_sequence: int
    data: bytes | memoryview = attrs.field(repr=False)
    ends: Sequence[int] = attrs.field(repr=False)
    pipeline: int = attrs.field(default=0, eq=False)

    @property
    def last_sequence(self) -> int:
        """The last event's sequence, inclusive; the one before the first if empty."""
        return self.first_sequence + len(self.ends) - 1

    @property
    def weight(self) -> int:
        """About how many bytes of memory they take, also where no event has output."""
        if isinstance(self.ends, range):
            return len(self.data)
        return len(self.data) + END_BYTES * len(self.ends)

    def after(self, sequence: int) -> Self:
        """Give what belongs to events later than `sequence` (exclusive)."""
        passed = min(sequence + 1 - self.first_sequence, len(self.ends))
        if passed <= 0:
            return self
        start = self.ends[passed - 1]
        ends = [end - start for end in self.ends[passed:]]
        first = self.first_sequence + passed
        return type(self)(first, self.data[start:], ends, self.pipeline)

    def muted(self) -> Self:
        """Give the same events without output, as a sink of other pipelines has it."""
        return type(self)(self.first_sequence, b"", [0] * len(self.ends), self.pipeline)

    def end_cursor(self, offset: int) -> Cursor:
        """Give the cursor behind these outputs, when they begin at output `offset`."""
        return Cursor(self.last_sequence, offset + len(self.data))
