"""One file of an export: which events are in it, its name, what it says of itself.

Invariants:

- a segment ends where a block ends, unless the operator's bound or one block alone
  asks for less: so what is chosen next depends on the log and on nothing else, and
  what a crash kept from being written is chosen again;
- a segment of a day holds events of that day (UTC) alone;
- segments in order of their names have each event once.

Pure: names, JSON, and blocks that somebody else looks up.
"""

import datetime as dt
import json
import re
from collections.abc import Callable
from typing import Any, Self

import attrs

from log.block import Block
from log.row import Meta

FORMAT_VERSION = 1
SUFFIX = ".parquet"

_FILE = re.compile(
    r"(?:day=(?P<day>\d{4}-\d\d-\d\d)/)?"
    rf"(?P<first>\d{{20}})-(?P<last>\d{{20}})-(?P<log_id>[^/]+)\{SUFFIX}"
)
_NS_PER_SECOND = 1_000_000_000


class LabelError(ValueError):
    """A text that is not a label of this format; the message says why."""


@attrs.frozen
class Segment:
    """Events `first_sequence` to `last_sequence` (both inclusive) of one log.

    `day` is the one they are all of, as ISO 8601 has it, or None where an export is
    not partitioned by day.
    """

    first_sequence: int
    last_sequence: int
    log_id: str
    day: str | None = None

    @property
    def file(self) -> str:
        """The file's path below the export's directory; names sort by sequence."""
        directory = "" if self.day is None else f"day={self.day}/"
        span = f"{self.first_sequence:020}-{self.last_sequence:020}"
        return f"{directory}{span}-{self.log_id}{SUFFIX}"

    @classmethod
    def parse(cls, file: str) -> Self | None:
        """Read a path that `file` gives, or give None for any other."""
        found = _FILE.fullmatch(file)
        if found is None:
            return None
        segment = cls(
            int(found["first"]), int(found["last"]), found["log_id"], found["day"]
        )
        is_range = 0 < segment.first_sequence <= segment.last_sequence
        return segment if is_range else None


@attrs.frozen
class Label:
    """What a segment's file says of itself, beside its rows.

    The block that holds the last event ends at `block_last_sequence` with
    `block_checksum`: by this a log that went on otherwise is noticed. `gaps` are
    (first sequence, count) of events that the log has lost, and that have no rows.
    `server` stands in each row of a continuous export, and is None elsewhere.
    `parent_id` is the log that the log was made from, None for one that began empty.
    """

    log_id: str
    application: str
    record_schema: str
    first_sequence: int
    last_sequence: int
    block_last_sequence: int
    block_checksum: int
    gaps: tuple[tuple[int, int], ...] = ()
    format_version: int = FORMAT_VERSION
    server: str | None = None
    parent_id: str | None = None

    @classmethod
    def of(
        cls,
        segment: Segment,
        meta: Meta,
        end: Block,
        gaps: list[tuple[int, int]],
        server: str | None = None,
    ) -> Self:
        """Label a segment whose last event is in the block `end`."""
        return cls(
            log_id=segment.log_id,
            application=meta.application,
            record_schema=meta.record_schema,
            first_sequence=segment.first_sequence,
            last_sequence=segment.last_sequence,
            block_last_sequence=end.last_sequence,
            block_checksum=end.checksum,
            gaps=tuple(gaps),
            server=server,
            parent_id=meta.parent_id or None,
        )

    @property
    def segment(self) -> Segment:
        """The segment that it is of, not partitioned by day."""
        return Segment(self.first_sequence, self.last_sequence, self.log_id)

    def encode(self) -> str:
        """Write it as JSON with sorted keys; what is None is left out."""
        fields = attrs.asdict(self, filter=lambda _, value: value is not None)
        return json.dumps(fields, sort_keys=True)

    @classmethod
    def decode(cls, text: str | bytes) -> Self:
        """Read what `encode` gives; raises LabelError for any other text."""
        try:
            fields: dict[str, Any] = json.loads(text)
            version = fields["format_version"]
            if version == FORMAT_VERSION:
                gaps = tuple((first, count) for first, count in fields["gaps"])
                return cls(**fields | {"gaps": gaps})
        except (KeyError, TypeError, ValueError) as error:
            raise LabelError("it does not say what it holds") from error
        raise LabelError(f"its format is version {version}, not {FORMAT_VERSION}")


@attrs.frozen
class Plan:
    """How a log is cut into segments.

    `events_max` is how many events a segment may have, unless one block has more.
    `block_at` gives the block that holds a sequence.
    """

    log_id: str
    is_by_day: bool
    events_max: int
    block_at: Callable[[int], Block]

    def next_segment(self, after: int, until: int) -> Segment:
        """Choose the segment that follows `after` (exclusive).

        It goes no further than `until` (inclusive), which is above `after` and not
        beyond the log's end. Raises what `block_at` raises.
        """
        first = after + 1
        last = self._end_of_size(first, until)
        if not self.is_by_day:
            return Segment(first, last, self.log_id)
        begin, end = self.block_at(first), self.block_at(last)
        day = day_of(begin.time_ns)
        if day_of(end.time_ns) != day:
            last = self._end_of_day(day, begin.last_sequence, end.first_sequence)
        return Segment(first, last, self.log_id, day)

    def _end_of_size(self, first: int, until: int) -> int:
        reach = first + self.events_max - 1
        if reach >= until:
            return until
        block = self.block_at(reach)
        if block.last_sequence == reach or block.first_sequence <= first:
            return min(block.last_sequence, until)
        return block.first_sequence - 1

    def _end_of_day(self, day: str, low: int, high: int) -> int:
        """Give the day's last event: a block ends at `low`, one of later is at `high`.

        Blocks are never older than the one before, so a search by halves will do.
        """
        while high - low > 1:
            block = self.block_at((low + high) // 2)
            if day_of(block.time_ns) == day:
                low = block.last_sequence
            else:
                high = block.first_sequence
        return low


def day_of(time_ns: int) -> str:
    """Give the day (UTC) of a time in ns since 1970, as ISO 8601 has it."""
    moment = dt.datetime.fromtimestamp(time_ns // _NS_PER_SECOND, tz=dt.UTC)
    return moment.date().isoformat()
