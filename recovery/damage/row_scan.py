"""The rows beside the blocks, found in the raw bytes of a damaged file.

A row proves its table and key by its checksum, so it is known wherever it lies. As
long as a table's tree is whole its rows are those of the tree; else earlier versions
of a row may be found as well, and the one written last is taken.

Pure: it reads through what it is given.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import attrs

from log.block import FORMAT_VERSION, MAGIC, Point
from log.log import BASE_KEY, META_KEY
from log.row import (
    Cursor,
    Meta,
    Reject,
    RowError,
    decode_name,
    decode_number,
    decode_point,
    open_row,
)
from log.store import CURSORS, META, REJECTS, STREAMS
from recovery.damage.raw_pages import Pages, Value, Walk

T = TypeVar("T")

Found = dict[tuple[str, bytes], dict["Row", None]]
"""By table and key, each version of a row once, in the order they were found."""

ROW_TABLES = (META, STREAMS, CURSORS, REJECTS)
ROW_BYTES_MAX = 1 << 30


@attrs.frozen
class Row:
    """One row: the sequence it was written at, and its body.

    `is_live` says that a tree leads to it.
    """

    sequence: int
    body: bytes = attrs.field(repr=False)
    is_live: bool


@attrs.frozen
class Rows:
    """What was found beside the blocks.

    `points` are by stream id, each with the sequence that it was written at.
    `doubtful` names the tables whose tree is not whole: some of their rows may be
    missing, and some may be of an earlier time.
    """

    meta: Meta | None
    base_state: bytes | None
    cursors: dict[str, Cursor]
    points: dict[int, tuple[int, Point]]
    rejects: tuple[Reject, ...]
    doubtful: tuple[str, ...]


def find_rows(pages: Pages, root: int | None) -> Rows:
    """Find the rows of every table; `root` is the tree of trees, if there is one."""
    found: Found = {}
    doubtful = []
    for table in ROW_TABLES:
        is_whole = False
        if root is not None:
            walk = Walk(pages)
            live = walk.table(root, table)
            is_whole = _gather(found, pages, (table,), live, is_live=True)
            is_whole = is_whole and walk.is_whole and pages.is_newest(root)
        if not is_whole:
            doubtful.append(table)
    if doubtful:
        for values in pages.leaves():
            if values and not _is_blocks(pages, values[0]):
                _gather(found, pages, doubtful, values, is_live=False)
    return Rows(
        meta=_newest(found.get((META, META_KEY), ()), Meta.decode, _pipelines),
        base_state=_newest(found.get((META, BASE_KEY), ()), bytes, len),
        cursors=dict(_table(found, CURSORS, decode_name, Cursor.decode, _behind)),
        points=dict(_points(found)),
        rejects=tuple(
            reject
            for _, reject in sorted(
                _table(found, REJECTS, decode_number, Reject.decode, _nothing),
                key=lambda numbered: numbered[0],
            )
        ),
        doubtful=tuple(doubtful),
    )


def _is_blocks(pages: Pages, value: Value) -> bool:
    """Say whether a leaf is one of the blocks', by its first value."""
    return pages.source.read(value.offset, len(MAGIC)) == MAGIC


def _gather(
    found: Found,
    pages: Pages,
    tables: Iterable[str],
    values: Iterable[Value],
    *,
    is_live: bool,
) -> bool:
    """Add the values that are rows of these tables; say whether all of them were."""
    is_whole = True
    for value in values:
        data = b""
        if not value.is_table and value.value_bytes <= ROW_BYTES_MAX:
            data = pages.source.read(value.offset, value.value_bytes)
        for table in tables:
            try:
                row = Row(*open_row(table, value.key, data), is_live)
            except RowError:
                continue
            found.setdefault((table, value.key), {})[row] = None
            break
        else:
            is_whole = False
    return is_whole


def _newest(
    versions: Iterable[Row], decode: Callable[[bytes], T], rank: Callable[[T], Any]
) -> T | None:
    """Give the version that was written last; of several, that of the highest rank.

    Of those written at one sequence, the one that a tree leads to comes first.
    """
    decoded = []
    for row in versions:
        try:
            value = decode(row.body)
        except (RowError, ValueError):
            continue
        decoded.append(((row.sequence, row.is_live, rank(value)), value))
    return max(decoded, key=lambda pair: pair[0])[1] if decoded else None


def _table(
    found: Found,
    table: str,
    decode_key: Callable[[bytes], Any],
    decode: Callable[[bytes], T],
    rank: Callable[[T], Any],
) -> Iterator[tuple[Any, T]]:
    for (of_table, key), versions in found.items():
        if of_table == table:
            newest = _newest(versions, decode, rank)
            with contextlib.suppress(RowError):
                if newest is not None:
                    yield decode_key(key), newest


def _points(
    found: Found,
) -> Iterator[tuple[int, tuple[int, Point]]]:
    for (table, key), versions in found.items():
        if table != STREAMS:
            continue
        decoded = []
        for row in versions:
            try:
                stream_id = decode_number(key)
                message_id, name = decode_point(row.body)
            except RowError:
                continue
            point = Point(stream_id, message_id, name)
            decoded.append(((row.sequence, row.is_live, message_id, name), point))
        if decoded:
            (sequence, *_), point = max(decoded, key=lambda pair: pair[0])
            yield point.stream_id, (sequence, point)


def _pipelines(meta: Meta) -> tuple[bool, int]:
    return meta.format_version > FORMAT_VERSION, len(meta.pipelines)


def _behind(cursor: Cursor) -> tuple[int, int]:
    # A sink that goes back gets outputs twice; one that goes ahead loses some.
    return -cursor.sequence, -cursor.offset


def _nothing(_reject: Reject) -> int:
    return 0
