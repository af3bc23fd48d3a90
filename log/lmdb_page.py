"""One page of LMDB's trees, read in plain Python and believed in nothing.

The layout is that of LMDB 0.9's `mdb.c` on 64 bits, little-endian: MDB_page,
MDB_node, MDB_db. A page's nodes fill it from its end upward without any hole, keys
rise strictly, and all of them lie between the bounds that the page above sets: so
whatever was read from pages that passed here is a tree, and any walk of it ends.

Pure: bytes in, values out. What only a table of duplicates has is not known here,
for a log has none.
"""

import itertools
import operator
import struct
from typing import NamedTuple, Self

import attrs

from log.store import KEY_BYTES_MAX

HEADER_BYTES = 16
NO_PAGE = 2**64 - 1
"""The root of a tree without entries."""
DEPTH_MAX = 32

BRANCH, LEAF, OVERFLOW, META = 0x01, 0x02, 0x04, 0x08
"""The kinds of pages; each page on disk has exactly one."""
APART, TREE = 0x01, 0x02
"""What a leaf's node holds instead of its value: an overflow page; a table's record."""

RECORD_BYTES = 48
_RECORD = struct.Struct("<4xHHQQQQQ")
_HEADER = struct.Struct("<Q2xHHH")
_RUN = struct.Struct("<Q2xHI")
_NODE = struct.Struct("<IHH")
_NODE_BYTES = _NODE.size
_BRANCH_CHILDREN_MIN = 2
_PAGE_NUMBER = struct.Struct("<Q")
_KIND_NAMES = {
    BRANCH: "a branch",
    LEAF: "a leaf",
    OVERFLOW: "an overflow page",
    META: "a meta page",
}


class PageError(ValueError):
    """A page that is not what the page above it says; the message says why."""


class Bounds(NamedTuple):
    """The keys below one place of a tree: `low` inclusive, `high` exclusive or none."""

    low: bytes = b""
    high: bytes | None = None


EVERYTHING = Bounds()


class Node(NamedTuple):
    """One entry of a leaf: its key, and where its value is.

    The value has `value_bytes`. It begins at `start` within the page; where `flags`
    are APART, the number of its first overflow page is there instead.
    """

    key: bytes
    start: int
    value_bytes: int
    flags: int


class Child(NamedTuple):
    """One page under a branch, and the bounds of its keys."""

    page: int
    bounds: Bounds


@attrs.frozen
class TreeRecord:
    """What is kept of a tree where it is named (MDB_db)."""

    flags: int
    depth: int
    branch_pages: int
    leaf_pages: int
    overflow_pages: int
    entries: int
    root: int

    @classmethod
    def decode(cls, data: bytes, start: int = 0) -> Self:
        """Read the record that begins at `data[start]`."""
        return cls(*_RECORD.unpack_from(data, start))


def page_kind(page: bytes, number: int) -> int:
    """Give a tree page's kind, BRANCH or LEAF; raises PageError for any other."""
    said, flags, _, _ = _HEADER.unpack_from(page)
    if flags not in {BRANCH, LEAF}:
        raise PageError(_strange_kind(page, flags, "a branch or a leaf"))
    if said != number:
        raise PageError(f"it says that it is page {said}")
    return int(flags)


def run_pages(header: bytes, number: int) -> int:
    """Give how many pages an overflow page's run has, itself included.

    `header` is the page's first HEADER_BYTES. Raises PageError.
    """
    said, flags, pages = _RUN.unpack(header)
    if flags != OVERFLOW:
        raise PageError(_strange_kind(header, flags, "an overflow page"))
    if said != number:
        raise PageError(f"it says that it is page {said}")
    return int(pages)


def _strange_kind(header: bytes, flags: int, expected: str) -> str:
    if not any(header):
        return "it is zeros"
    name = _KIND_NAMES.get(flags, f"of kind {flags:#04x}")
    return f"it is {name}, not {expected}"


def children(page: bytes, bounds: Bounds, *, is_native: bool = False) -> list[Child]:
    """Give the pages under a branch, in order; raises PageError.

    The first key of a branch is never looked at: it stands for `bounds.low`. Native
    keys are turned around, as `entries` does.
    """
    offsets, heads = _heads(page)
    if len(offsets) < _BRANCH_CHILDREN_MIN:
        raise PageError("it is a branch with one page under it")
    key_sizes = [key_bytes for _, _, key_bytes in heads]
    _check_filled(page, offsets, [_NODE_BYTES + size for size in key_sizes])
    keys = [
        page[offset + _NODE_BYTES : offset + _NODE_BYTES + size]
        for offset, size in zip(offsets, key_sizes, strict=True)
    ]
    if is_native:
        keys = [key[::-1] for key in keys]
    keys[0] = bounds.low
    _check_order(keys, bounds)
    ends: list[bytes | None] = [*keys[1:], bounds.high]
    return [
        Child(low_bits | high_bits << 32, Bounds(low, high))
        for (low_bits, high_bits, _), low, high in zip(heads, keys, ends, strict=True)
    ]


def entries(
    page: bytes,
    bounds: Bounds,
    *,
    key_bytes: int | None = None,
    is_native: bool = False,
) -> list[Node]:
    """Give a leaf's nodes, in order; raises PageError.

    `key_bytes` is how long each key must be, None for any length. Native keys (the
    free list's numbers) are given most significant byte first: so they sort as all
    others do.
    """
    offsets, heads = _heads(page)
    nodes = []
    sizes = []
    for offset, (value_bytes, flags, size) in zip(offsets, heads, strict=True):
        start = offset + _NODE_BYTES + size
        key = page[offset + _NODE_BYTES : start]
        nodes.append(Node(key[::-1] if is_native else key, start, value_bytes, flags))
        stored_bytes = _PAGE_NUMBER.size if flags & APART else value_bytes
        sizes.append(_NODE_BYTES + size + stored_bytes)
    _check_filled(page, offsets, sizes)
    keys = [node.key for node in nodes]
    lengths = [len(key) for key in keys]
    shortest, longest = (key_bytes, key_bytes) if key_bytes else (1, KEY_BYTES_MAX)
    if min(lengths) < shortest or max(lengths) > longest:
        raise PageError("it has a key of an impossible length")
    _check_order(keys, bounds)
    return nodes


def overflow_page(page: bytes, node: Node) -> int:
    """Give the number of the first overflow page that an APART node names."""
    return int(_PAGE_NUMBER.unpack_from(page, node.start)[0])


def _heads(
    page: bytes,
) -> tuple[tuple[int, ...], list[tuple[int, int, int]]]:
    """Give the nodes' offsets, and what stands at each: size or page, flags, key."""
    _, _, lower, upper = _HEADER.unpack_from(page)
    count = (lower - HEADER_BYTES) // 2
    if lower % 2 or count < 1 or not lower <= upper <= len(page):
        raise PageError(f"its nodes are said to lie between {lower} and {upper}")
    offsets = struct.unpack_from(f"<{count}H", page, HEADER_BYTES)
    if max(offsets) > len(page) - _NODE_BYTES:
        raise PageError("it has a node beyond its end")
    unpack = _NODE.unpack_from
    return offsets, [unpack(page, offset) for offset in offsets]


def _check_filled(page: bytes, offsets: tuple[int, ...], sizes: list[int]) -> None:
    """Raise PageError unless the nodes fill the page from its upper bound on."""
    place = _HEADER.unpack_from(page)[3]
    # Nodes that came in order lie the other way round: that is nearly sorted.
    for offset, size in sorted(zip(offsets[::-1], sizes[::-1], strict=True)):
        if offset != place:
            raise PageError(f"its nodes overlap, or leave a hole, at {place}")
        place += size + size % 2
    if place != len(page):
        raise PageError(f"its nodes end at {place}")


def _check_order(keys: list[bytes], bounds: Bounds) -> None:
    """Raise PageError unless keys rise strictly, from low (inclusive) to below high."""
    if keys[0] < bounds.low or (bounds.high is not None and keys[-1] >= bounds.high):
        raise PageError("it has keys that belong on another page")
    if any(map(operator.ge, keys, itertools.islice(keys, 1, None))):
        raise PageError("its keys are out of order")
