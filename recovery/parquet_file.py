"""Blocks as the rows of a Parquet file.

Two forms of rows: votes, for a log whose records are a letter and a number (`>sI`)
and that has one pipeline; and any records, as bytes. docs/REPLAY.md says which
columns they have, and why of these types.

Memory is bounded: a row group is written as soon as it has enough events or bytes.
The same blocks give the same bytes. pyarrow is imported in here alone, when called for.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import attrs
import numpy as np

from log import failpoint
from log.block import Block, Records
from log.row import Meta
from recovery.segment import Label, LabelError, Segment

if TYPE_CHECKING:
    import pyarrow as pa

VOTES_SCHEMA = ">sI"
ROW_GROUP_EVENTS = 1 << 20
"""How many events a row group has, but for the rest of a block."""
ROW_GROUP_BYTES = 1 << 26
"""How many bytes of records make a row group full, whatever their number."""
LOT_PIECES = 1 << 12
"""How many pieces of blocks are held at once, however few events they have."""
LABEL_KEY = "alphabet"

_VOTE = np.dtype([("letter", "u1"), ("votes", ">u4")])
_INT64_MAX = 2**63 - 1
_NS_PER_US = 1000


class ColumnError(ValueError):
    """Events that no column can hold; the message says which and why."""


class ParquetFileError(ValueError):
    """A file that is not a whole segment; the message says why."""


@attrs.frozen
class Piece:
    """Records of one block, or a part of it, that go into one row group."""

    first_sequence: int
    time_ns: int
    pipeline: int
    records: Records


def is_of_votes(meta: Meta) -> bool:
    """Say whether a log's rows are votes, or any records."""
    return meta.record_schema == VOTES_SCHEMA and len(meta.pipelines) == 1


def column_types(meta: Meta) -> "pa.Schema":
    """Give the names and types of a log's columns."""
    import pyarrow as pa

    common = [
        ("sequence", pa.int64()),
        ("time", pa.timestamp("us", "UTC")),
        ("time_ns", pa.int64()),
    ]
    if is_of_votes(meta):
        own = [("letter", pa.string()), ("votes", pa.uint32())]
    else:
        own = [("pipeline", pa.string()), ("record", pa.binary())]
    fields = [pa.field(name, kind, nullable=False) for name, kind in common + own]
    return pa.schema(fields)


def _written_types(meta: Meta) -> "pa.Schema":
    """Give the columns as they are handed to the writer: few texts, by their numbers.

    In the file a dictionary is a way to store a column, and no type of its own.
    """
    import pyarrow as pa

    few = pa.dictionary(pa.int32(), pa.string())
    types = column_types(meta)
    return pa.schema(
        field.with_type(few) if field.type == pa.string() else field for field in types
    )


def write_segment(
    stream: BinaryIO,
    segment: Segment,
    meta: Meta,
    blocks: Iterable[Block],
    progress: Callable[[int], None],
) -> Label:
    """Write the segment of these blocks, which begin where it does, or before.

    `progress` is called with the sequence reached. Raises ColumnError for what no
    column can hold, OSError for a disk that cannot, and what `blocks` raises.
    """
    import pyarrow.parquet as pq

    taken = _Taken(segment, blocks)
    writer = pq.ParquetWriter(
        stream,
        _written_types(meta),
        compression="zstd",
        use_dictionary=["time", "time_ns", "letter", "pipeline"],
        column_encoding=dict.fromkeys(["sequence", "votes"], "DELTA_BINARY_PACKED"),
        # The columns are what Parquet says of them, and not what Arrow adds.
        store_schema=False,
    )
    with writer:
        for group in _row_groups(_table(lot, meta) for lot in _lots(taken.pieces())):
            writer.write_table(group, row_group_size=group.num_rows)
            failpoint.reach("export.after_row_group")
            progress(group["sequence"][-1].as_py())
        label = taken.label(meta)
        writer.add_key_value_metadata({LABEL_KEY: label.encode()})
    return label


def read_label(file: Path, meta: Meta) -> Label:
    """Read what a segment's file says of itself.

    Raises ParquetFileError for a damaged or foreign one, or one with other columns
    than a segment of this log has.
    """
    import pyarrow.parquet as pq

    try:
        metadata = pq.read_metadata(file)
        types = metadata.schema.to_arrow_schema()
        label = Label.decode((metadata.metadata or {}).get(LABEL_KEY.encode(), b""))
    except LabelError as error:
        raise ParquetFileError(str(error)) from error
    except (OSError, ValueError) as error:
        raise ParquetFileError(f"it is no whole Parquet file: {error}") from error
    if types.remove_metadata() != column_types(meta):
        raise ParquetFileError(f"it has other columns: {', '.join(types.names)}")
    return label


@attrs.define
class _Taken:
    """A segment's blocks on their way into it, and what is to be said of them."""

    segment: Segment
    blocks: Iterable[Block]
    gaps: list[tuple[int, int]] = attrs.Factory(list)
    end: Block | None = None

    def pieces(self) -> Iterator[Piece]:
        """Give the segment's events, in pieces that a row group can take."""
        first, last = self.segment.first_sequence, self.segment.last_sequence
        for block in self.blocks:
            self.end = block
            start = max(first, block.first_sequence)
            stop = min(last, block.last_sequence) + 1
            if block.records.is_gap:
                self.gaps.append((start, stop - start))
            else:
                yield from _pieces_of(block, start, stop)
            if block.last_sequence >= last:
                return

    def label(self, meta: Meta) -> Label:
        """Label the segment, once all its pieces were given."""
        last = self.segment.last_sequence
        if self.end is None or self.end.last_sequence < last:
            raise ValueError(f"the blocks end before event {last}")
        return Label.of(self.segment, meta, self.end, self.gaps)


def _pieces_of(block: Block, start: int, stop: int) -> Iterator[Piece]:
    """Cut a block's events from `start` (inclusive) to `stop` (exclusive)."""
    if max(stop - 1, block.time_ns) > _INT64_MAX:
        raise ColumnError(
            f"the block from {block.first_sequence}, at {block.time_ns} ns, is beyond "
            "2^63, and no column can hold it"
        )
    for begin in range(start, stop, ROW_GROUP_EVENTS):
        end = min(begin + ROW_GROUP_EVENTS, stop)
        records = block.records.cut(
            begin - block.first_sequence, end - block.first_sequence
        )
        yield Piece(begin, block.time_ns, block.pipeline, records)


def _lots(pieces: Iterable[Piece]) -> Iterator[list[Piece]]:
    """Gather pieces that become columns together: many at once are quick."""
    lot: list[Piece] = []
    events = body_bytes = 0
    for piece in pieces:
        lot.append(piece)
        events += piece.records.count
        body_bytes += len(piece.records.body)
        is_large = events >= ROW_GROUP_EVENTS or body_bytes >= ROW_GROUP_BYTES
        if is_large or len(lot) == LOT_PIECES:
            yield lot
            lot, events, body_bytes = [], 0, 0
    if lot:
        yield lot


def _row_groups(tables: "Iterable[pa.Table]") -> "Iterator[pa.Table]":
    """Join tables that are written together."""
    import pyarrow as pa

    group: list[pa.Table] = []
    for table in tables:
        group.append(table)
        rows = sum(each.num_rows for each in group)
        table_bytes = sum(each.nbytes for each in group)
        if rows >= ROW_GROUP_EVENTS or table_bytes >= ROW_GROUP_BYTES:
            yield pa.concat_tables(group)
            group = []
    if group:
        yield pa.concat_tables(group)


def _table(lot: Sequence[Piece], meta: Meta) -> "pa.Table":
    """Make rows of pieces."""
    import pyarrow as pa

    types = _written_types(meta)
    own = _votes_columns(lot) if is_of_votes(meta) else _records_columns(lot, meta)
    columns = [
        pa.array(column, field.type)
        for column, field in zip(_common_columns(lot) + own, types, strict=True)
    ]
    return pa.Table.from_arrays(columns, schema=types)


def _counts(pieces: Sequence[Piece]) -> Any:  # noqa: ANN401 - numpy's int64[pieces]
    return np.array([piece.records.count for piece in pieces])


def _common_columns(pieces: Sequence[Piece]) -> list[Any]:
    """Make the columns `sequence`, `time` and `time_ns`."""
    counts = _counts(pieces)
    firsts = np.array([piece.first_sequence for piece in pieces], np.int64)
    starts = np.cumsum(counts) - counts
    sequences = np.repeat(firsts - starts, counts) + np.arange(counts.sum())
    times_ns = np.array([piece.time_ns for piece in pieces], np.int64)
    return [
        sequences,
        np.repeat(times_ns // _NS_PER_US, counts),
        np.repeat(times_ns, counts),
    ]


def _votes_columns(pieces: Sequence[Piece]) -> list[Any]:
    """Make `letter` and `votes`; every letter is the Latin-1 character of its byte."""
    import pyarrow as pa

    for piece in pieces:
        if piece.records.record_bytes != _VOTE.itemsize:
            raise ColumnError(
                f"the records from {piece.first_sequence} are no votes of "
                f"{_VOTE.itemsize} bytes"
            )
    votes = np.frombuffer(b"".join([piece.records.body for piece in pieces]), _VOTE)
    characters = pa.array([chr(byte) for byte in range(256)])
    letters = pa.DictionaryArray.from_arrays(
        votes["letter"].astype(np.int32), characters
    )
    return [
        letters,
        votes["votes"].astype(np.uint32),
    ]


def _records_columns(pieces: Sequence[Piece], meta: Meta) -> list[Any]:
    """Make `pipeline`, by its name, and `record`."""
    import pyarrow as pa

    for piece in pieces:
        if piece.pipeline >= len(meta.pipelines):
            raise ColumnError(
                f"the pipeline of event {piece.first_sequence} has no name in the log"
            )
    numbers = np.array([piece.pipeline for piece in pieces], np.int32)
    bodies = [_lengths_and_payloads(piece.records) for piece in pieces]
    lengths = np.concatenate([lengths for lengths, _ in bodies])
    offsets = np.zeros(len(lengths) + 1, np.int32)
    np.cumsum(lengths, out=offsets[1:])
    payloads = pa.py_buffer(b"".join([payloads for _, payloads in bodies]))
    return [
        pa.DictionaryArray.from_arrays(
            np.repeat(numbers, _counts(pieces)), meta.pipelines
        ),
        pa.Array.from_buffers(
            pa.binary(), len(lengths), [None, pa.py_buffer(offsets), payloads]
        ),
    ]


def _lengths_and_payloads(records: Records) -> tuple[Any, bytes | memoryview]:
    """Give each record's length in bytes, as i4[count], and all payloads together."""
    if records.record_bytes:
        lengths = np.full(records.count, records.record_bytes, np.int32)
        return lengths, records.body
    table_bytes = 4 * records.count
    lengths = np.frombuffer(records.body, ">u4", records.count).astype(np.int32)
    return lengths, memoryview(records.body)[table_bytes:]
