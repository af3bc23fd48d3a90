"""Whether LMDB's trees are sound: every page of every tree, and the free pages.

What holds in a file that LMDB wrote, and is checked: each page is the one that it
says it is, and of the kind that its place asks for; keys rise and stay within their
bounds; a tree is as deep, and has as many pages and entries, as its record says; no
page is used twice, or used and free. Of overflow pages only the first one's header is
read: what they hold proves itself.

A byte per page of the file is kept in memory, and nothing else grows with it.

Pure: it reads through the function it is given.
"""

import struct
from collections.abc import Callable, Mapping
from types import MappingProxyType

import attrs

from log.lmdb_file import META_PAGES, MetaPage
from log.lmdb_page import (
    APART,
    DEPTH_MAX,
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
)
from log.lmdb_tree import Read, TreeFile

NAMES = "names"
FREE_LIST = "free list"
"""What the two trees are called that are no tables."""

_NUMBERS_FLAG = 0x08
_PATH_FLAG = 0x4000
"""Says that an environment is a file and not a directory; of no consequence."""
_NUMBER_BYTES = 8
_SLICE_BYTES = 1 << 16


@attrs.frozen
class Flaw:
    """One place of the file where its structure is not sound.

    `page` is None for what is kept of a whole table, `table` the tree's name. The
    rows with keys between `bounds` cannot be reached, or not be trusted.
    """

    table: str
    page: int | None
    reason: str
    bounds: Bounds = EVERYTHING


@attrs.frozen
class Structure:
    """What was found of a file's structure.

    `lost_pages` are neither used nor free, and do no harm. It is not certain where
    pages may have changed while they were looked at.
    """

    flaws: tuple[Flaw, ...] = ()
    lost_pages: int = 0
    is_certain: bool = True


def check_structure(
    meta: MetaPage,
    read: Read,
    tables: Mapping[str, int | None],
    progress: Callable[[int], None] = lambda _pages: None,
    rows_max: Mapping[str, int] = MappingProxyType({}),
) -> Structure:
    """Walk every tree of the transaction that `meta` names.

    `tables` are those that must be there, each with the length of its keys, in bytes,
    or None where keys differ. `progress` is called with the number of
    pages accounted for, now and then. Of a table that says it has more than its
    `rows_max`, inclusive, only the way to its last row is walked; if it has none, no
    page may be lost, for then its rows may be on those.
    """
    key_bytes = {**tables, FREE_LIST: _NUMBER_BYTES}
    walk = _Walk(TreeFile(meta, read), key_bytes, progress, rows_max)
    walk.check_flags(NAMES, meta.main.flags, 0)
    walk.check_tree(NAMES, meta.main)
    for name, record in walk.tables.items():
        walk.check_flags(name, record.flags, 0)
        walk.check_tree(name, record)
    if not walk.flaws:
        for missing in sorted(set(tables) - walk.tables.keys()):
            walk.flaws.append(Flaw(missing, None, "it is missing"))
    walk.check_flags(FREE_LIST, meta.free.flags & ~_PATH_FLAG, _NUMBERS_FLAG)
    walk.check_tree(FREE_LIST, meta.free)
    walk.check_newest_freed()
    is_whole = not walk.flaws and not walk.is_cut_short
    lost = walk.claimed.count(0) if is_whole else 0
    for name in rows_max if lost else ():
        if not walk.tables[name].entries:
            reason = f"it has no row, and {lost} pages are neither used nor free"
            walk.flaws.append(Flaw(name, None, reason))
    return Structure(tuple(walk.flaws), lost)


@attrs.define
class _Count:
    """What a tree's record keeps count of, as it is found."""

    branch_pages: int = 0
    leaf_pages: int = 0
    overflow_pages: int = 0
    entries: int = 0


@attrs.define
class _Walk:
    """A walk over all trees of a file; `claimed` has a byte for each page."""

    file: TreeFile
    key_bytes: Mapping[str, int | None]
    progress: Callable[[int], None]
    rows_max: Mapping[str, int]
    is_cut_short: bool = False
    newest_freed: int = 0
    flaws: list[Flaw] = attrs.Factory(list)
    tables: dict[str, TreeRecord] = attrs.Factory(dict)
    claimed: bytearray = attrs.field(init=False)
    _claimed_pages: int = META_PAGES

    def __attrs_post_init__(self) -> None:
        """Claim the meta pages."""
        self.claimed = bytearray(self.file.meta.last_page + 1)
        self.claimed[:META_PAGES] = b"\1" * META_PAGES

    def check_flags(self, table: str, flags: int, expected: int) -> None:
        """Note flags that no tree of ours has: they change how LMDB reads it."""
        if flags != expected:
            reason = f"its flags are {flags:#06x}, not {expected:#06x}"
            self.flaws.append(Flaw(table, None, reason))

    def check_tree(self, table: str, record: TreeRecord) -> None:
        """Walk one tree, and hold what is there against its record."""
        flaws_before = len(self.flaws)
        count = _Count()
        is_empty = record.root == NO_PAGE
        if record.depth > DEPTH_MAX or is_empty != (record.depth == 0):
            reason = f"it is said to be {record.depth} pages deep"
            self.flaws.append(Flaw(table, None, reason))
            return
        if not is_empty:
            self._visit(table, record, Child(record.root, EVERYTHING), 1, count)
        # Behind a flaw the count is short, and says nothing new.
        if len(self.flaws) > flaws_before or self._is_long(table, record):
            return
        for name, found in attrs.asdict(count).items():
            if found != (said := getattr(record, name)):
                what = name.replace("_", " ")
                reason = f"it says {said} {what}, and there are {found}"
                self.flaws.append(Flaw(table, None, reason))

    def check_newest_freed(self) -> None:
        """Note a list of free pages that is not of the last transaction.

        Each of ours changes a row, so frees the page where the row was.
        """
        newest, last = self.newest_freed, self.file.meta.transaction_id
        if newest != last and self.file.meta.free.root != NO_PAGE and not self.flaws:
            reason = f"it ends with transaction {newest}, not {last}: it is an old one"
            self.flaws.append(Flaw(FREE_LIST, None, reason))

    def _is_long(self, table: str, record: TreeRecord) -> bool:
        return record.entries > self.rows_max.get(table, record.entries)

    def _visit(
        self, table: str, record: TreeRecord, child: Child, level: int, count: _Count
    ) -> None:
        number, bounds = child
        try:
            page = self.file.page(number)
            _check_level(page_kind(page, number), level, record.depth)
            if level < record.depth:
                is_native = table == FREE_LIST
                below, nodes = children(page, bounds, is_native=is_native), []
            else:
                below, nodes = [], self._entries(table, page, bounds)
            self._claim(number, 1)
        except PageError as error:
            self.flaws.append(Flaw(table, number, str(error), bounds))
            return
        if below:
            count.branch_pages += 1
            if self._is_long(table, record):
                self.is_cut_short = True
                below = below[-1:]
            for each in below:
                self._visit(table, record, each, level + 1, count)
            return
        count.leaf_pages += 1
        count.entries += len(nodes)
        for node in nodes:
            # Nearly all rows of most tables: there is nothing more to be seen.
            if node.flags or table in {NAMES, FREE_LIST}:
                self._check_node(table, number, page, node, count)
        self.progress(self._claimed_pages)

    def _entries(self, table: str, page: bytes, bounds: Bounds) -> list[Node]:
        return entries(
            page,
            bounds,
            key_bytes=self.key_bytes.get(table),
            is_native=table == FREE_LIST,
        )

    def _check_node(
        self, table: str, number: int, page: bytes, node: Node, count: _Count
    ) -> None:
        """Check what a node has beside its key; `number` is the page that it is on."""
        place = number
        try:
            if node.flags == APART:
                place = overflow_page(page, node)
                run = self.file.run(page, node)
                self._claim(run.page, run.pages)
                count.overflow_pages += run.pages
            place = number
            if table == NAMES:
                self._take_record(page, node)
            else:
                _check_flags(node)
            if table == FREE_LIST:
                self._check_free(page, node)
        except PageError as error:
            bounds = Bounds(node.key, node.key + b"\0")
            self.flaws.append(Flaw(table, place, str(error), bounds))

    def _take_record(self, page: bytes, node: Node) -> None:
        """Note a table, to be walked later."""
        if (node.flags, node.value_bytes) != (TREE, RECORD_BYTES):
            raise PageError(f"its node {node.key!r} is not a table's record")
        name = node.key.decode("utf-8", "backslashreplace")
        self.tables[name] = TreeRecord.decode(page, node.start)

    def _check_free(self, page: bytes, node: Node) -> None:
        """Check the pages that one transaction freed: a count, and numbers that fall.

        Raises PageError.
        """
        transaction = int.from_bytes(node.key)
        if not 0 < transaction <= self.file.meta.transaction_id:
            raise PageError(f"it tells of pages that transaction {transaction} freed")
        self.newest_freed = transaction
        count, rest = divmod(node.value_bytes, _NUMBER_BYTES)
        numbers = self._numbers(page, node, 0, 1) if count else ()
        if rest or numbers != (count - 1,):
            raise PageError(
                f"its list for transaction {transaction} is not as long as it says"
            )
        before = self.file.meta.last_page + 1
        for start in range(1, count, _SLICE_BYTES // _NUMBER_BYTES):
            stop = min(start + _SLICE_BYTES // _NUMBER_BYTES, count)
            for number in self._numbers(page, node, start, stop):
                if not META_PAGES <= number < before:
                    raise PageError(f"it lists page {number} after page {before}")
                if self.claimed[number]:
                    raise PageError(f"it lists page {number} as free, and it is not")
                self._claim(number, 1)
                before = number

    def _numbers(
        self, page: bytes, node: Node, start: int, stop: int
    ) -> tuple[int, ...]:
        """Give numbers `start` (inclusive) to `stop` (exclusive) of a node's value."""
        size = (stop - start) * _NUMBER_BYTES
        if node.flags == APART:
            run_start = overflow_page(page, node) * self.file.meta.page_bytes
            offset = run_start + HEADER_BYTES + start * _NUMBER_BYTES
            data = self.file.read(offset, size)
        else:
            offset = node.start + start * _NUMBER_BYTES
            data = page[offset : offset + size]
        if len(data) < size:
            raise PageError("the file ends before its list does")
        return struct.unpack(f"<{stop - start}Q", data)

    def _claim(self, first: int, pages: int) -> None:
        """Claim pages that lie in the file; raises PageError for one that is taken."""
        if (taken := self.claimed.find(1, first, first + pages)) >= 0:
            again = "it" if taken == first else f"page {taken} of its run"
            raise PageError(f"{again} is in use elsewhere")
        self.claimed[first : first + pages] = b"\1" * pages
        self._claimed_pages += pages


def _check_level(kind: int, level: int, depth: int) -> None:
    """Raise PageError unless leaves are at a tree's full depth, and nothing else."""
    if (kind == LEAF) != (level == depth):
        raise PageError(f"it is at level {level} of a tree of {depth}")


def _check_flags(node: Node) -> None:
    """Raise PageError for a node that holds no value."""
    if node.flags & ~APART:
        raise PageError(f"it has a node of kind {node.flags:#04x}")
