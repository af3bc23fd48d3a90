"""What an export holds, as DuckDB reads it, beside what a log says of itself."""

import re
from pathlib import Path
from types import ModuleType

import duckdb

from log.log import Log
from recovery.exporting import export, intent, parquet_file


def _failpoints_of(*modules: ModuleType) -> list[str]:
    texts = [Path(str(each.__file__)).read_text(encoding="utf-8") for each in modules]
    return re.findall(r'failpoint\.reach\("([^"]+)"\)', "".join(texts))


FAILPOINTS = _failpoints_of(parquet_file, export)
"""The instants that an export passes through."""
INTENT_FAILPOINTS = _failpoints_of(intent)
"""Those that a continuous one passes through before that."""

VoteRow = tuple[int, int, str, int]
"""Sequence, time in ns, letter, votes."""
RecordRow = tuple[int, int, str, bytes]
"""Sequence, time in ns, pipeline, record."""


def rows(to: Path, *columns: str) -> list[tuple[object, ...]]:
    """Give these columns of all rows, by sequence; none where there is no file."""
    if not any(to.rglob("*.parquet")):
        return []
    with duckdb.connect() as database:
        found = database.read_parquet(f"{to}/**/*.parquet", hive_partitioning=False)
        return found.order("sequence").project(", ".join(columns)).fetchall()


def summed(to: Path) -> dict[str, int]:
    """Give the sum of an export's votes by letter; it has a file."""
    with duckdb.connect() as database:
        found = database.read_parquet(f"{to}/**/*.parquet", hive_partitioning=False)
        by_letter = found.aggregate("letter, sum(votes)::UBIGINT", "letter")
        return dict(by_letter.fetchall())


def vote_rows(to: Path) -> list[tuple[object, ...]]:
    """Give the rows of an export of votes, by sequence."""
    return rows(to, "sequence", "time_ns", "letter", "votes")


def votes_of(log: Log, after: int, until: int) -> list[VoteRow]:
    """Give the votes of a log after `after` (exclusive) until `until` (inclusive)."""
    return [
        (sequence, block.time_ns, chr(record[0]), int.from_bytes(record[1:]))
        for block in log.read(log.base.sequence)
        for sequence, record in enumerate(block.records, block.first_sequence)
        if after < sequence <= until
    ]


def records_of(log: Log) -> list[RecordRow]:
    """Give the records of a log."""
    return [
        (sequence, block.time_ns, log.meta.pipelines[block.pipeline], record)
        for block in log.read(log.base.sequence)
        for sequence, record in enumerate(block.records, block.first_sequence)
    ]


def names(to: Path) -> list[str]:
    """Give every file of an export, hidden ones too, as paths below it."""
    return sorted(
        file.relative_to(to).as_posix() for file in to.rglob("*") if file.is_file()
    )
