"""The rows of LMDB's tables, read without LMDB: what a damaged file still gives.

Each page is checked as it is reached (`log/lmdb_page.py`); one that is not sound is
passed over with all below it, so a row is given as it stands or not at all; a strict
file raises instead. Which pages those were, `log/lmdb_check.py` says.

Pure: it reads through the function it is given.
"""

import struct
from collections.abc import Callable, Iterator

import attrs

from log.lmdb_file import META_PAGES, MetaPage
from log.lmdb_page import (
    APART,
    EVERYTHING,
    HEADER_BYTES,
    LEAF,
    NO_PAGE,
    RECORD_BYTES,
    TREE,
    Bounds,
    Child,
    Node,
    PageError,
    TreeRecord,
    children,
    entries,
    overflow_page,
    page_kind,
    run_pages,
)

_NUMBER = struct.Struct("<Q")

Read = Callable[[int, int], bytes]
"""Gives the file's bytes from an offset: as many as asked for, fewer at its end."""


@attrs.frozen
class Run:
    """The overflow pages of one value: the first one's number, and how many."""

    page: int
    pages: int


class TreeError(Exception):
    """A page in the way of a strict read: it says which, of which keys, and why."""

    def __init__(self, page: int, bounds: Bounds, reason: str) -> None:
        """Keep the place: the page's number, and the bounds of the keys below it."""
        super().__init__(f"page {page}: {reason}")
        self.bounds = bounds


@attrs.frozen
class TreeFile:
    """The trees of one transaction, which `meta` names.

    Where it is strict, its reads raise TreeError at the first page that is not sound.
    """

    meta: MetaPage
    read: Read
    is_strict: bool = False

    def page(self, number: int) -> bytes:
        """Read a page; raises PageError for one that no tree can have."""
        self._check_range(number, 1)
        size = self.meta.page_bytes
        page = self.read(number * size, size)
        if len(page) < size:
            raise PageError("the file ends before it")
        return page

    def run(self, page: bytes, node: Node) -> Run:
        """Find an APART node's overflow pages; raises PageError.

        LMDB leaves more of them than a value fills only where it was put twice in one
        transaction, which a log never does.
        """
        size = self.meta.page_bytes
        first = overflow_page(page, node)
        self._check_range(first, 1)
        header = self.read(first * size, HEADER_BYTES)
        if len(header) < HEADER_BYTES:
            raise PageError("the file ends before it")
        pages = run_pages(header, first)
        if pages != -(-(HEADER_BYTES + node.value_bytes) // size):
            raise PageError(f"its {pages} pages are not for {node.value_bytes} bytes")
        self._check_range(first, pages)
        return Run(first, pages)

    def value(self, page: bytes, node: Node) -> bytes:
        """Give a node's value; raises PageError."""
        if node.flags & ~APART:
            raise PageError("it holds a table's record where a value should be")
        if not node.flags:
            return page[node.start : node.start + node.value_bytes]
        start = self.run(page, node).page * self.meta.page_bytes + HEADER_BYTES
        value = self.read(start, node.value_bytes)
        if len(value) < node.value_bytes:
            raise PageError("the file ends before its value does")
        return value

    def tables(self) -> dict[bytes, TreeRecord]:
        """Give the tables that can be found, by name."""
        return {
            node.key: TreeRecord.decode(page, node.start)
            for page, nodes in self._leaves(self.meta.main, lambda _: True)
            for node in nodes
            if (node.flags, node.value_bytes) == (TREE, RECORD_BYTES)
        }

    def rows(self, table: TreeRecord, start: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Give a table's rows from key `start` (inclusive) upward, in order."""
        for page, nodes in self._leaves(
            table, lambda bounds: bounds.high is None or bounds.high > start
        ):
            for node in nodes:
                if node.key >= start:
                    yield from self._row(page, node)

    def rows_of(
        self, table: TreeRecord, start: bytes, bytes_max: int
    ) -> list[tuple[bytes, bytes]]:
        """Give rows from key `start` (inclusive) upward; see `Store.scan`."""
        found: list[tuple[bytes, bytes]] = []
        size = 0
        for row in self.rows(table, start):
            found.append(row)
            size += len(row[1])
            if size >= bytes_max:
                break
        return found

    def floor(self, table: TreeRecord, key: bytes) -> tuple[bytes, bytes] | None:
        """Give the row with the greatest key at or below `key` (inclusive)."""
        for page, nodes in self._leaves(
            table, lambda bounds: bounds.low <= key, is_downward=True
        ):
            for node in reversed(nodes):
                if node.key <= key:
                    for row in self._row(page, node):
                        return row
        return None

    def _row(self, page: bytes, node: Node) -> Iterator[tuple[bytes, bytes]]:
        try:
            value = self.value(page, node)
        except PageError as error:
            place = overflow_page(page, node) if node.flags == APART else _number(page)
            self._pass_over(place, Bounds(node.key, node.key + b"\0"), error)
            return
        yield node.key, value

    def _leaves(
        self,
        record: TreeRecord,
        is_wanted: Callable[[Bounds], bool],
        *,
        is_downward: bool = False,
    ) -> Iterator[tuple[bytes, list[Node]]]:
        """Give the leaves whose bounds are wanted. No page is met twice.

        For the pages below a page have narrower bounds than it, strictly.
        """
        waiting = [] if record.root == NO_PAGE else [Child(record.root, EVERYTHING)]
        while waiting:
            number, bounds = waiting.pop()
            try:
                page = self.page(number)
                if page_kind(page, number) == LEAF:
                    yield page, entries(page, bounds)
                    continue
                below = [c for c in children(page, bounds) if is_wanted(c.bounds)]
            except PageError as error:
                self._pass_over(number, bounds, error)
                continue
            waiting += below if is_downward else reversed(below)

    def _pass_over(self, page: int, bounds: Bounds, error: PageError) -> None:
        if self.is_strict:
            raise TreeError(page, bounds, str(error)) from error

    def _check_range(self, first: int, pages: int) -> None:
        last = self.meta.last_page
        if not META_PAGES <= first <= last or first + pages - 1 > last:
            raise PageError(f"it is none of the pages {META_PAGES} to {last}")


def _number(page: bytes) -> int:
    """Give the number that a page was found to have."""
    return int(_NUMBER.unpack_from(page)[0])
