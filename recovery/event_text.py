"""Events as text: plain lines, JSON lines or CSV, one line for each.

What is here goes around an event: its sequence, time and pipeline. What an event says
is told by `Fields`, which know its application; `raw_fields` know none.

Pure: blocks in, text out.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator

import attrs

from log.block import Block, Records
from recovery.moment import format_instant

LINES = "lines"
JSON = "json"
CSV = "csv"

PART_EVENTS_MAX = 1 << 15
"""How many events are written at once: it bounds the memory that their text takes."""

_NEEDS_QUOTES = re.compile(r'[,"\r\n]')


@attrs.frozen
class Part:
    """Consecutive events of one block, the first of them at `first_sequence`."""

    first_sequence: int
    time_ns: int
    pipeline: int
    records: Records

    @property
    def last_sequence(self) -> int:
        """The sequence of the last event, inclusive."""
        return self.first_sequence + self.records.count - 1


Fields = Callable[[Part], Iterable[str]]
"""Gives what each event of a part says, in the form of one format.

That is a line without its end, members of a JSON object, or cells of a CSV row.
"""


def cut_block(block: Block, after: int, until: int) -> Iterator[Part]:
    """Give a block's events between `after` (exclusive) and `until` (inclusive).

    A part has PART_EVENTS_MAX events at most, but a gap is one part.
    """
    stop = min(until, block.last_sequence) + 1
    step = block.records.count if block.records.is_gap else PART_EVENTS_MAX
    for first in range(max(block.first_sequence, after + 1), stop, step):
        start = first - block.first_sequence
        end = min(first + step, stop) - block.first_sequence
        records = block.records.cut(start, end)
        yield Part(first, block.time_ns, block.pipeline, records)


@attrs.frozen
class EventText:
    """Writes events in one format: LINES, JSON or CSV.

    `pipelines` are the names to tell pipelines by; empty where there is but one.
    """

    format: str
    fields: Fields
    pipelines: tuple[str, ...] = ()

    def header(self, columns: str) -> str:
        """Give what stands before the first event; `columns` are those of the cells."""
        if self.format != CSV:
            return ""
        pipeline = "pipeline," if self.pipelines else ""
        return f"sequence,time,time_ns,{pipeline}{columns}\n"

    def write(self, part: Part) -> str:
        """Write a part's events, each as a line with its end."""
        numbered = enumerate(self.fields(part), part.first_sequence)
        if self.format == LINES:
            return "".join([f"{fields}\n" for _, fields in numbered])
        time, time_ns = format_instant(part.time_ns), part.time_ns
        name = self.pipelines[part.pipeline] if self.pipelines else ""
        if self.format == CSV:
            pipeline = f"{csv_cell(name)}," if self.pipelines else ""
            common = f"{time},{time_ns},{pipeline}"
            return "".join(
                [f"{number},{common}{cells}\n" for number, cells in numbered]
            )
        pipeline = f'"pipeline": {json.dumps(name)}, ' if self.pipelines else ""
        common = f'"time": "{time}", "time_ns": {time_ns}, {pipeline}'
        return "".join(
            [
                f'{{"sequence": {number}, {common}{members}}}\n'
                for number, members in numbered
            ]
        )


def raw_fields(format_: str) -> Fields:
    """Tell records as they are stored, in hexadecimal digits."""
    return text_fields(format_, "record", lambda part: map(bytes.hex, part.records))


def text_fields(format_: str, name: str, texts: Fields) -> Fields:
    """Tell one text of each event, in the form that a format has for it.

    `name` is a JSON member's. A line is kept one line.
    """
    if format_ == JSON:
        key = json.dumps(name)
        return lambda part: (f"{key}: {json.dumps(text)}" for text in texts(part))
    if format_ == CSV:
        return lambda part: map(csv_cell, texts(part))
    return lambda part: (" ".join(text.splitlines()) for text in texts(part))


def csv_cell(text: str) -> str:
    """Write a cell of a CSV row, in quotes where it needs them."""
    if not _NEEDS_QUOTES.search(text):
        return text
    doubled = text.replace('"', '""')
    return f'"{doubled}"'
