"""The votes of a segment, as the records that its server has in its log.

What was not counted there is left out: it failed, and has no effect anywhere. The edge:
files, by pyarrow.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from alphabet.pipeline.batch import SLICE_EVENTS_MAX
from alphabet.spark import ranges
from alphabet.spark.account import Addition, RefusedError
from alphabet.spark.fold import Events

if TYPE_CHECKING:
    import pyarrow as pa

_RECORD = np.dtype([("letter", "u1"), ("votes", ">u4")])
_COLUMNS = ["sequence", "letter", "votes", "counted"]
_LETTER_MAX = 0xFF
_VOTES_MAX = 2**32 - 1


def read_events(directory: Path, addition: Addition) -> Iterator[Events]:
    """Give a segment's counted votes, in order, in pieces of a slice's size.

    Raises RefusedError for one that is gone or damaged, or has not the events that it
    says it has.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = addition.file
    events, last_sequence = 0, 0
    try:
        with pq.ParquetFile(directory / file, read_dictionary=["letter"]) as stream:
            for batch in stream.iter_batches(SLICE_EVENTS_MAX, columns=_COLUMNS):
                sequences = batch.column("sequence").to_numpy(zero_copy_only=False)
                steps = np.diff(sequences, prepend=last_sequence)
                if not (steps > 0).all():
                    raise RefusedError(f"{file}: its events are not in order")
                events += len(sequences)
                last_sequence = int(sequences[-1])
                yield _events(file, addition.server, sequences, batch)
    except FileNotFoundError as error:
        raise RefusedError(
            f"{file} is gone before its votes were computed; bring it back"
        ) from error
    except (OSError, pa.ArrowException) as error:
        raise RefusedError(
            f"{file}: it cannot be read; take it out of the directory"
        ) from error
    told = (ranges.count(addition.held), addition.label.last_sequence)
    if (events, last_sequence) != told:
        raise RefusedError(
            f"{file} has {events} events up to {last_sequence}, and Spark has read "
            f"{told[0]} up to {told[1]}: it was changed; take it out of the directory"
        )


def _events(
    file: str,
    server: str,
    sequences: "np.ndarray[tuple[int], np.dtype[np.int64]]",
    batch: "pa.RecordBatch",
) -> Events:
    """Make records of columns; raises RefusedError for what is no vote."""
    letters = batch.column("letter")
    texts = letters.dictionary.to_pylist()
    votes, counted = (
        batch.column(name).to_numpy(zero_copy_only=False) for name in _COLUMNS[2:]
    )
    is_whole = not any(batch.column(name).null_count for name in _COLUMNS)
    if not is_whole or not all(len(x) == 1 and ord(x) <= _LETTER_MAX for x in texts):
        raise RefusedError(f"{file}: it has rows that are no votes of a server")
    if len(votes) and not 0 <= votes.min() <= votes.max() <= _VOTES_MAX:
        raise RefusedError(f"{file}: it has votes that no server can take")
    rows = np.empty(len(votes), _RECORD)
    codes = np.array([ord(x) for x in texts], np.uint8)
    rows["letter"] = codes[letters.indices.to_numpy(zero_copy_only=False)]
    rows["votes"] = votes
    is_counted = counted == votes
    if not is_counted.all():
        sequences, rows = sequences[is_counted], rows[is_counted]
    return Events(server, sequences, rows.view(np.uint8).reshape(-1, _RECORD.itemsize))
