"""Events as columns: how rows look, and how they are made of pieces of blocks.

Three forms of rows: votes, for a log whose records are a letter and a number (`>sI`)
and that has one pipeline; the same beside what was counted, for a continuous export;
and any records, as bytes. docs/REPLAY.md says which columns they have, and why of
these types.

Pure, but for pyarrow, which is imported when called for.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import attrs
import numpy as np

from log.block import Block, Records
from log.row import Meta

if TYPE_CHECKING:
    import pyarrow as pa

VOTES_SCHEMA = ">sI"

_VOTE = np.dtype([("letter", "u1"), ("votes", ">u4")])
_INT64_MAX = 2**63 - 1
_NS_PER_US = 1000


class ColumnError(ValueError):
    """Events that no column can hold; the message says which and why."""


@attrs.frozen
class Piece:
    """Records of one block, or a part of it, that go into one row group.

    `failed` are the sequences of those for which `compute` raised.
    """

    first_sequence: int
    time_ns: int
    pipeline: int
    records: Records
    failed: Sequence[int] = ()

    @classmethod
    def of(cls, block: Block, start: int, stop: int, failed: Sequence[int]) -> Self:
        """Cut a block's events from `start` (inclusive) to `stop` (exclusive).

        Raises ColumnError for what no column can number.
        """
        if max(stop - 1, block.time_ns) > _INT64_MAX:
            raise ColumnError(
                f"the block from {block.first_sequence}, at {block.time_ns} ns, is "
                "beyond 2^63, and no column can hold it"
            )
        first = block.first_sequence
        records = block.records.cut(start - first, stop - first)
        inside = [sequence for sequence in failed if start <= sequence < stop]
        return cls(start, block.time_ns, block.pipeline, records, inside)


@attrs.frozen
class Form:
    """Which columns the rows of a log have.

    With a `server`, its name stands in each row, and what was counted of a vote.
    """

    meta: Meta
    server: str | None = None

    @property
    def types(self) -> "pa.Schema":
        """The columns' names and types, as every reader sees them."""
        import pyarrow as pa

        sequence, time = ("sequence", pa.int64()), ("time", pa.timestamp("us", "UTC"))
        letter, votes = ("letter", pa.string()), ("votes", pa.uint32())
        if self.server is not None:
            # Wide enough for sums, in readers that add up in a column's own type.
            wide = [("votes", pa.int64()), ("counted", pa.int64())]
            columns = [("server", pa.string()), sequence, letter, *wide, time]
        elif self._is_of_votes:
            columns = [sequence, time, ("time_ns", pa.int64()), letter, votes]
        else:
            own = [("pipeline", pa.string()), ("record", pa.binary())]
            columns = [sequence, time, ("time_ns", pa.int64()), *own]
        return pa.schema(
            [pa.field(name, kind, nullable=False) for name, kind in columns]
        )

    @property
    def written_types(self) -> "pa.Schema":
        """The same as they are handed to a writer: few texts, by their numbers.

        In a file a dictionary is a way to store a column, and no type of its own.
        """
        import pyarrow as pa

        few = pa.dictionary(pa.int32(), pa.string())
        types = self.types
        return pa.schema(
            field.with_type(few) if field.type == pa.string() else field
            for field in types
        )

    def table(self, pieces: Sequence[Piece]) -> "pa.Table":
        """Make rows of pieces; raises ColumnError."""
        import pyarrow as pa

        columns = _common_columns(pieces)
        if self.server is not None:
            columns |= _votes_columns(pieces)
            columns["server"] = _one_text(self.server, len(columns["sequence"]))
            columns["counted"] = _counted(pieces, columns)
        elif self._is_of_votes:
            columns |= _votes_columns(pieces)
        else:
            columns |= _records_columns(pieces, self.meta)
        types = self.written_types
        arrays = [pa.array(columns[field.name], field.type) for field in types]
        return pa.Table.from_arrays(arrays, schema=types)

    @property
    def _is_of_votes(self) -> bool:
        meta = self.meta
        return meta.record_schema == VOTES_SCHEMA and len(meta.pipelines) == 1


def _counts(pieces: Sequence[Piece]) -> Any:  # noqa: ANN401 - numpy's int64[pieces]
    return np.array([piece.records.count for piece in pieces])


def _common_columns(pieces: Sequence[Piece]) -> dict[str, Any]:
    """Make the columns `sequence`, `time` and `time_ns`."""
    counts = _counts(pieces)
    firsts = np.array([piece.first_sequence for piece in pieces], np.int64)
    starts = np.cumsum(counts) - counts
    sequences = np.repeat(firsts - starts, counts) + np.arange(counts.sum())
    times_ns = np.array([piece.time_ns for piece in pieces], np.int64)
    return {
        "sequence": sequences,
        "time": np.repeat(times_ns // _NS_PER_US, counts),
        "time_ns": np.repeat(times_ns, counts),
    }


def _votes_columns(pieces: Sequence[Piece]) -> dict[str, Any]:
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
    return {"letter": letters, "votes": votes["votes"].astype(np.uint32)}


def _one_text(text: str, count: int) -> Any:  # noqa: ANN401 - a pyarrow array
    """Make a column that has one text in every row."""
    import pyarrow as pa

    return pa.DictionaryArray.from_arrays(np.zeros(count, np.int32), [text])


def _counted(pieces: Sequence[Piece], columns: dict[str, Any]) -> Any:  # noqa: ANN401 - numpy's
    """Make `counted`: the votes, or 0 where `compute` raised."""
    failed = [sequence for piece in pieces for sequence in piece.failed]
    if not failed:
        return columns["votes"]
    return np.where(np.isin(columns["sequence"], failed), 0, columns["votes"])


def _records_columns(pieces: Sequence[Piece], meta: Meta) -> dict[str, Any]:
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
    return {
        "pipeline": pa.DictionaryArray.from_arrays(
            np.repeat(numbers, _counts(pieces)), meta.pipelines
        ),
        "record": pa.Array.from_buffers(
            pa.binary(), len(lengths), [None, pa.py_buffer(offsets), payloads]
        ),
    }


def _lengths_and_payloads(records: Records) -> tuple[Any, bytes | memoryview]:
    """Give each record's length in bytes, as i4[count], and all payloads together."""
    if records.record_bytes:
        lengths = np.full(records.count, records.record_bytes, np.int32)
        return lengths, records.body
    table_bytes = 4 * records.count
    lengths = np.frombuffer(records.body, ">u4", records.count).astype(np.int32)
    return lengths, memoryview(records.body)[table_bytes:]
