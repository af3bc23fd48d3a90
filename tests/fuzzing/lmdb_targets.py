"""A log's file that LMDB must not open yet, read in plain Python in two ways.

Each is the other's oracle: where the strict one finds no flaw, both give the same rows.
"""

import contextlib
import itertools
from collections.abc import Iterator

from log.lmdb_check import Structure, check_structure
from log.lmdb_file import META_PAGES, PAGE_BYTES_MAX, LmdbFileError, check_head
from log.lmdb_tree import TreeFile
from log.store import BLOCKS, CURSORS, META, REJECTS, STREAMS
from recovery.damage.raw_pages import Pages, Value, Walk
from recovery.damage.row_scan import find_rows
from tests.test_block_scan import Bytes

KEY_BYTES: dict[str, int | None] = {
    BLOCKS: 8,
    STREAMS: 8,
    CURSORS: None,
    REJECTS: 8,
    META: None,
}
VALUES_MAX = 100_000


def lmdb_tree(data: bytes) -> None:
    """Trees of any file are walked to an end; sound ones read alike in both ways."""
    source = Bytes(data)
    try:
        _, meta = check_head(data[: META_PAGES * PAGE_BYTES_MAX], len(data))
    except LmdbFileError:
        return
    structure = check_structure(meta, source.read, KEY_BYTES)
    file = TreeFile(meta, source.read)
    raw = Pages.find(source)
    tables = file.tables()
    for name in KEY_BYTES:
        record = tables.get(name.encode())
        if record is None:
            assert structure.flaws
            continue
        rows = list(itertools.islice(file.rows(record, b""), VALUES_MAX))
        keys = [key for key, _ in rows]
        assert keys == sorted(set(keys))
        for key, value in rows[:: max(len(rows) // 3, 1)]:
            assert file.floor(record, key) == (key, value)
            assert next(file.rows(record, key)) == (key, value)
        if not structure.flaws:
            assert len(rows) == record.entries
            # The salvager's reader knows no page smaller than the usual ones.
            if raw.heads and raw.heads[0].page_bytes == meta.page_bytes:
                _check_raw(raw, name, rows)
    _check_flaws(structure, meta.last_page)


def _check_raw(raw: Pages, name: str, rows: list[tuple[bytes, bytes]]) -> None:
    walk = Walk(raw)
    found = list(walk.table(raw.heads[0].root, name))
    assert walk.is_whole
    assert [
        (each.key, raw.source.read(each.offset, each.value_bytes)) for each in found
    ] == rows
    places = sorted((each.offset, each.value_bytes) for each in found)
    assert all(raw.vouched(places))


def _check_flaws(structure: Structure, last_page: int) -> None:
    assert structure.lost_pages <= last_page + 1
    for flaw in structure.flaws:
        assert flaw.reason
        assert flaw.page is None or flaw.page >= 0


def raw_pages(data: bytes) -> None:
    """Whatever is salvaged from a file's pages lies in it, and the work has an end."""
    source = Bytes(data)
    try:
        pages = Pages.find(source)
    except LmdbFileError:
        return
    count = 0
    for values in pages.leaves():
        count += len(values)
        assert len(values) <= pages.page_bytes
    assert count <= len(data)
    if pages.heads:
        free = pages.unused()
        assert free is None or len(free) <= len(data)
    for root in (None, *(head.root for head in pages.heads)):
        assert len(list(_walked(pages, root))) <= len(data)
        rows = find_rows(pages, root)
        assert all(0 <= each < 2**64 for each in rows.points)
        assert len(rows.cursors) + len(rows.rejects) <= len(data)
    assert source.total_bytes < (1 << 22) + 5_000 * len(data)


def _walked(pages: Pages, root: int | None) -> Iterator[Value]:
    if root is not None:
        yield from Walk(pages).values(root)
    with contextlib.suppress(IndexError):
        yield from Walk(pages).table(pages.heads[0].root, BLOCKS)
