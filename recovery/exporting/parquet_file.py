"""Blocks as the rows of a Parquet file, and what the file says of itself.

Memory is bounded: a row group is written as soon as it has enough events or bytes.
The same blocks give the same bytes. pyarrow is imported when called for.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import attrs

from log import failpoint
from log.block import Block
from recovery.exporting.event_columns import Form, Piece
from recovery.exporting.segment import Label, LabelError, Segment

if TYPE_CHECKING:
    import pyarrow as pa

ROW_GROUP_EVENTS = 1 << 20
"""How many events a row group has, but for the rest of a block."""
ROW_GROUP_BYTES = 1 << 26
"""How many bytes of records make a row group full, whatever their number."""
LOT_PIECES = 1 << 12
"""How many pieces of blocks are held at once, however few events they have."""
LABEL_KEY = "alphabet"
_PACKED = ["sequence", "votes", "counted"]
"""Columns of numbers that are near each other."""

Replayed = tuple[Block, Sequence[int]]
"""A block, and the sequences of its events for which `compute` raised."""


class ParquetFileError(ValueError):
    """A file that is not a whole segment; the message says why."""


class ForeignFileError(ParquetFileError):
    """A whole file, but no segment, or one of another form."""


def write_segment(
    stream: BinaryIO,
    segment: Segment,
    form: Form,
    blocks: Iterable[Replayed],
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
        form.written_types,
        compression="zstd",
        use_dictionary=["time", "time_ns", "letter", "pipeline", "server"],
        column_encoding=dict.fromkeys(_PACKED, "DELTA_BINARY_PACKED"),
        # The columns are what Parquet says of them, and not what Arrow adds.
        store_schema=False,
    )
    with writer:
        for group in _row_groups(form.table(lot) for lot in _lots(taken.pieces())):
            writer.write_table(group, row_group_size=group.num_rows)
            failpoint.reach("export.after_row_group")
            progress(group["sequence"][-1].as_py())
        label = taken.label(form)
        writer.add_key_value_metadata({LABEL_KEY: label.encode()})
    return label


def read_label(file: Path, form: Form) -> Label:
    """Read what a segment's file says of itself.

    Raises ParquetFileError for a damaged one, ForeignFileError for one that does not
    say it, or has other columns than a segment of this form.
    """
    import pyarrow.parquet as pq

    try:
        metadata = pq.read_metadata(file)
        types = metadata.schema.to_arrow_schema()
        label = Label.decode((metadata.metadata or {}).get(LABEL_KEY.encode(), b""))
    except LabelError as error:
        raise ForeignFileError(str(error)) from error
    except (OSError, ValueError) as error:
        raise ParquetFileError(f"it is no whole Parquet file: {error}") from error
    if types.remove_metadata() != form.types:
        raise ForeignFileError(f"it has other columns: {', '.join(types.names)}")
    return label


@attrs.define
class _Taken:
    """A segment's blocks on their way into it, and what is to be said of them."""

    segment: Segment
    blocks: Iterable[Replayed]
    gaps: list[tuple[int, int]] = attrs.Factory(list)
    end: Block | None = None

    def pieces(self) -> Iterator[Piece]:
        """Give the segment's events, in pieces that a row group can take."""
        first, last = self.segment.first_sequence, self.segment.last_sequence
        for block, failed in self.blocks:
            self.end = block
            start = max(first, block.first_sequence)
            stop = min(last, block.last_sequence) + 1
            if block.records.is_gap:
                self.gaps.append((start, stop - start))
            else:
                yield from _pieces_of(block, failed, start, stop)
            if block.last_sequence >= last:
                return

    def label(self, form: Form) -> Label:
        """Label the segment, once all its pieces were given."""
        last = self.segment.last_sequence
        if self.end is None or self.end.last_sequence < last:
            raise ValueError(f"the blocks end before event {last}")
        return Label.of(self.segment, form.meta, self.end, self.gaps, form.server)


def _pieces_of(
    block: Block, failed: Sequence[int], start: int, stop: int
) -> Iterator[Piece]:
    """Cut a block's events from `start` (inclusive) to `stop` (exclusive)."""
    for begin in range(start, stop, ROW_GROUP_EVENTS):
        yield Piece.of(block, begin, min(begin + ROW_GROUP_EVENTS, stop), failed)


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
