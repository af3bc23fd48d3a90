"""Reads a log's events in order, each once, look by look.

Between two looks nothing need be open: the log may be opened anew for each, and one
that is not the log of the look before is noticed. Whatever comes before a damaged or
lost event is given before that is raised.
"""

from collections.abc import Iterator

import attrs

from log.block import SEQUENCE_MAX, Tail
from log.errors import DamagedError
from log.log import Log
from recovery.event_text import Part, cut_block
from recovery.follower import ReplacedError
from recovery.replay import Replayer


@attrs.define
class EventReader:
    """How far a log has been read: all up to event `reached` (inclusive)."""

    reached: int
    _seen: tuple[str, Tail] | None = attrs.field(default=None, init=False)

    def look(self, replayer: Replayer, until: int) -> Iterator[Part]:
        """Give the events later than `reached`, up to `until` (inclusive), as parts.

        A gap that was agreed to is a part whose records are one. Raises DamagedError
        or GapError at the first event that is not there, ReplacedError for a log that
        is another than before.
        """
        log = replayer.log
        self._check_same(log)
        end = min(until, find_end(log))
        blocks = log.read(self.reached)
        # What is behind the end is not looked at: it may be damaged.
        while self.reached < end and (block := next(blocks, None)):
            replayer.check_gap(block)
            yield from cut_block(block, self.reached, end)
            self.reached = min(block.last_sequence, end)
        self._seen = (log.meta.log_id, log.tail)

    def _check_same(self, log: Log) -> None:
        if self._seen is None:
            return
        log_id, tail = self._seen
        path = log.store.path
        if log.meta.log_id != log_id:
            raise ReplacedError(path, f"it is log {log.meta.log_id}, not {log_id}")
        if log.tail_at(tail.sequence) != tail:
            raise ReplacedError(path, f"it has another block at {tail.sequence}")


def find_end(log: Log) -> int:
    """Give the log's last sequence now; SEQUENCE_MAX if its last block is damaged.

    Then whoever reads that far meets the damage.
    """
    try:
        log.refresh()
    except DamagedError:
        return SEQUENCE_MAX
    return log.tail.sequence
