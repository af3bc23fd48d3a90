"""Segments as an exporter leaves them, for tests: few rows, any server."""

import datetime as dt
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from recovery.exporting.segment import Label, Segment

TYPES = pa.schema(
    [
        pa.field("server", pa.string(), nullable=False),
        pa.field("sequence", pa.int64(), nullable=False),
        pa.field("letter", pa.string(), nullable=False),
        pa.field("votes", pa.uint32(), nullable=False),
        pa.field("counted", pa.uint32(), nullable=False),
        pa.field("time", pa.timestamp("us", "UTC"), nullable=False),
    ]
)
TIME = dt.datetime(2026, 11, 27, tzinfo=dt.UTC)

Vote = tuple[str, int]


def label_of(
    first: int,
    last: int,
    log_id: str = "log",
    checksum: int = 0,
    gaps: Sequence[tuple[int, int]] = (),
    *,
    parent_id: str | None = None,
) -> Label:
    """Label the events `first` to `last`, both inclusive."""
    return Label(
        log_id,
        "alphabet",
        ">sI",
        first,
        last,
        last,
        checksum,
        tuple(gaps),
        parent_id=parent_id,
    )


def write_segment(
    directory: Path,
    server: str,
    label: Label,
    votes: Sequence[Vote],
    *,
    time: dt.datetime = TIME,
    counted: Sequence[int] | None = None,
) -> Path:
    """Write a segment whole, as an exporter does, and give its path.

    `counted` is what was counted of each vote; None: all of it.
    """
    lost = {first + n for first, count in label.gaps for n in range(count)}
    sequences = [
        sequence
        for sequence in range(label.first_sequence, label.last_sequence + 1)
        if sequence not in lost
    ]
    numbers = [number for _, number in votes]
    columns = [
        [server] * len(votes),
        sequences,
        [letter for letter, _ in votes],
        numbers,
        numbers if counted is None else counted,
        [time] * len(votes),
    ]
    arrays = [
        pa.array(column, field.type)
        for column, field in zip(columns, TYPES, strict=True)
    ]
    table = pa.Table.from_arrays(arrays, schema=TYPES)
    directory.mkdir(exist_ok=True, parents=True)
    segment = Segment(label.first_sequence, label.last_sequence, label.log_id)
    file = directory / segment.file
    temporary = file.with_name(f".{file.name}.tmp")
    with pq.ParquetWriter(temporary, TYPES, store_schema=False) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({"alphabet": label.encode()})
    return temporary.rename(file)
