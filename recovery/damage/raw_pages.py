"""LMDB's pages read out of raw bytes, for a file that LMDB itself must not open.

Two ways to a table's values: down its tree from a meta page, which gives those that
are in use, as far as the tree is whole; and from every leaf in the file, which gives
earlier ones too, since LMDB never changes a page in place. Whatever is read here is a
hint of where to look: blocks and rows prove themselves. The layout is that of LMDB
0.9's `mdb.c` (MDB_page, MDB_node, MDB_db, MDB_meta) on little-endian machines.

Pure: it reads through what it is given.
"""

import struct
from collections.abc import Iterable, Iterator

import attrs

from log.lmdb_file import (
    META_PAGES,
    PAGE_BYTES_MAX,
    LmdbFileError,
    NewerEngineError,
    check_head,
)
from recovery.damage.block_scan import Source

HEADER_BYTES = 16
PAGE_BYTES_USUAL = 4096
PAGE_SIZES = tuple(1 << bits for bits in range(9, 16))

_BRANCH, _LEAF, _OVERFLOW = 0x01, 0x02, 0x04
_APART, _TABLE = 0x01, 0x02
_PAGE = struct.Struct("<Q2xHHH")
_NODE = struct.Struct("<HHHH")
_NUMBER = struct.Struct("<Q")
_TREE = struct.Struct("<32xQQ")
_META_START = struct.Struct("<16xII16xI")
_META_END = struct.Struct("<80xQ40xQQQ")
_META_MAGIC = 0xBEEFC0DE
_NO_PAGE = 2**64 - 1
_DEPTH_MAX = 32
_SAMPLES = 256


class RawPageError(ValueError):
    """Bytes that are no page of the kind that was expected."""


@attrs.frozen
class Value:
    """Where a leaf says that the value of a key is: `offset` in the file, in bytes."""

    key: bytes
    offset: int
    value_bytes: int
    is_table: bool = False


@attrs.frozen(order=True)
class Head:
    """What a meta page says, of the tree of free pages and the tree of trees.

    `last_page` is inclusive.
    """

    transaction_id: int
    page_bytes: int
    free_root: int
    root: int
    last_page: int


@attrs.frozen
class Pages:
    """The file as pages of one size; `heads` are its meta pages, newest first.

    With `is_sound` both meta pages are as LMDB left them, so what the newest names is
    all there is.
    """

    source: Source
    page_bytes: int
    heads: tuple[Head, ...]
    is_sound: bool

    @classmethod
    def find(cls, source: Source) -> "Pages":
        """Read the meta pages as far as they are there; raises NewerEngineError."""
        head = source.read(0, META_PAGES * PAGE_BYTES_MAX)
        try:
            check_head(head, source.size)
            is_sound = True
        except NewerEngineError:
            raise
        except LmdbFileError:
            is_sound = False
        found = (_head(head, size) for size in (0, *PAGE_SIZES))
        heads = sorted((each for each in found if each is not None), reverse=True)
        page_bytes = heads[0].page_bytes if heads else _guess_page_bytes(source)
        return cls(source, page_bytes, tuple(heads), is_sound)

    def is_newest(self, root: int) -> bool:
        """Say whether a tree of trees is certainly the last that was written."""
        return self.is_sound and root == self.heads[0].root

    def unused(self) -> set[int] | None:
        """Give the pages that the newest meta page knows as free, None if it cannot.

        Those behind its last page are free as well.
        """
        walk = Walk(self)
        free: set[int] = set()
        for value in walk.values(self.heads[0].free_root):
            data = self.source.read(value.offset, value.value_bytes)
            numbers = struct.unpack(f"<{len(data) // 8}Q", data[: len(data) // 8 * 8])
            free.update(numbers[1:])
            walk.is_whole = walk.is_whole and numbers[:1] == (len(numbers) - 1,)
        behind = range(self.heads[0].last_page + 1, self.source.size // self.page_bytes)
        return free.union(behind) if walk.is_whole else None

    def children(self, number: int) -> list[int]:
        """Give the pages under a branch, none under a leaf; raises RawPageError."""
        page = self._page(number, _BRANCH, _LEAF)
        if _PAGE.unpack_from(page)[1] == _LEAF:
            return []
        return [
            low | high << 16 | flags << 32 for _, low, high, flags, _ in _nodes(page)
        ]

    def leaf(self, number: int) -> list[Value]:
        """Give the values of a leaf page; raises RawPageError for any other page."""
        page = self._page(number, _LEAF)
        return list(self._values(page, number * self.page_bytes))

    def leaves(self) -> Iterator[list[Value]]:
        """Give the values of every leaf in the file, page by page."""
        for number in range(META_PAGES, self.source.size // self.page_bytes):
            try:
                yield self.leaf(number)
            except RawPageError:
                continue

    def vouched(self, places: Iterable[tuple[int, int]]) -> Iterator[bool]:
        """Say of each place and size whether a page says that a value is there.

        Quick for places that rise.
        """
        known: tuple[int, set[tuple[int, int]]] = (-1, set())
        for offset, value_bytes in places:
            number, start = divmod(offset, self.page_bytes)
            if start == HEADER_BYTES:
                yield self._is_run(number, value_bytes)
                continue
            if known[0] != number:
                known = (number, self._places(number))
            yield (offset, value_bytes) in known[1]

    def _is_run(self, number: int, value_bytes: int) -> bool:
        """Say whether overflow pages begin here that are as many as a value needs."""
        header = self.source.read(number * self.page_bytes, HEADER_BYTES)
        said, kind, low, high = _PAGE.unpack(header)
        pages = -(-(HEADER_BYTES + value_bytes) // self.page_bytes)
        return (said, kind, low | high << 16) == (number, _OVERFLOW, pages)

    def _places(self, number: int) -> set[tuple[int, int]]:
        try:
            return {(each.offset, each.value_bytes) for each in self.leaf(number)}
        except RawPageError:
            return set()

    def _page(self, number: int, *kinds: int) -> bytes:
        page = self.source.read(number * self.page_bytes, self.page_bytes)
        if len(page) < self.page_bytes:
            raise RawPageError(f"page {number} is beyond the file's end")
        said, kind, lower, upper = _PAGE.unpack_from(page)
        if kind not in kinds or said != number:
            raise RawPageError(f"page {number} is of another kind or number")
        if lower % 2 or not HEADER_BYTES <= lower <= upper <= self.page_bytes:
            raise RawPageError(f"page {number} has bounds that cannot be")
        return page

    def _values(self, page: bytes, page_offset: int) -> Iterator[Value]:
        for place, low, high, flags, key_bytes in _nodes(page):
            start = place + _NODE.size + key_bytes
            value_bytes = low | high << 16
            stored_bytes = _NUMBER.size if flags & _APART else value_bytes
            if start + stored_bytes > len(page) or flags & ~(_APART | _TABLE):
                raise RawPageError("a value is beyond its page's end")
            key = page[place + _NODE.size : start]
            offset = page_offset + start
            if flags & _APART:
                (number,) = _NUMBER.unpack_from(page, start)
                offset = number * self.page_bytes + HEADER_BYTES
            yield Value(key, offset, value_bytes, bool(flags & _TABLE))


@attrs.define
class Walk:
    """One walk of a tree, in the order of its keys; `is_whole` once it has ended so.

    A page that is not what the tree says is passed over, with all that it leads to.
    """

    pages: Pages
    is_whole: bool = True
    _seen: set[int] = attrs.Factory(set)

    @property
    def seen(self) -> frozenset[int]:
        """Give the pages that it came by."""
        return frozenset(self._seen)

    def values(self, root: int, depth: int = 0) -> Iterator[Value]:
        """Give the values under a page."""
        if root == _NO_PAGE:
            return
        # A page that leads back to one above it would lead there for ever.
        is_strange = root in self._seen or depth > _DEPTH_MAX
        self._seen.add(root)
        try:
            children = [] if is_strange else self.pages.children(root)
            values = [] if is_strange or children else self.pages.leaf(root)
        except RawPageError:
            is_strange, children, values = True, [], []
        self.is_whole = self.is_whole and not is_strange
        yield from values
        for child in children:
            yield from self.values(child, depth + 1)

    def table(self, root: int, name: str) -> Iterator[Value]:
        """Give the values of the table that a tree of trees names."""
        for value in self.values(root):
            if value.is_table and value.key == name.encode():
                record = self.pages.source.read(value.offset, _TREE.size)
                if len(record) == _TREE.size:
                    entries, top = _TREE.unpack(record)
                    # An earlier root is a tree too, but of another size.
                    count = 0
                    for found in self.values(top):
                        count += 1
                        yield found
                    self.is_whole = self.is_whole and count == entries
                    return
        self.is_whole = False


def _nodes(page: bytes) -> Iterator[tuple[int, int, int, int, int]]:
    """Give place, both halves of the size, flags and key's length of each node."""
    (lower,) = struct.unpack_from("<12xH", page)
    for place in struct.unpack_from(f"<{(lower - HEADER_BYTES) // 2}H", page, 16):
        if place < lower or place + _NODE.size > len(page):
            raise RawPageError("a node is beyond its page's end")
        low, high, flags, key_bytes = _NODE.unpack_from(page, place)
        if place + _NODE.size + key_bytes > len(page):
            raise RawPageError("a key is beyond its page's end")
        yield place, low, high, flags, key_bytes


def _head(head: bytes, start: int) -> Head | None:
    """Read the meta page that begins at `head[start]`, if it is one."""
    page = head[start : start + PAGE_SIZES[0]]
    if len(page) < PAGE_SIZES[0]:
        return None
    magic, version, page_bytes = _META_START.unpack_from(page)
    is_place = start in {0, page_bytes} and page_bytes in PAGE_SIZES
    if (magic, version) != (_META_MAGIC, 1) or not is_place:
        return None
    free_root, root, last_page, transaction_id = _META_END.unpack_from(page)
    return Head(transaction_id, page_bytes, free_root, root, last_page)


def _guess_page_bytes(source: Source) -> int:
    """Give the page size by which most pages have the number that is theirs."""

    def matches(page_bytes: int) -> int:
        count = source.size // page_bytes
        step = max(count // _SAMPLES, 1)
        numbers = range(META_PAGES, count, step)
        return sum(
            source.read(number * page_bytes, 8) == _NUMBER.pack(number)
            for number in numbers
        )

    return max((PAGE_BYTES_USUAL, *PAGE_SIZES), key=matches)
