"""What is left of a damaged log: its blocks, its rows, its snapshots, and its name.

Found without LMDB, in whatever state the file is. Where both meta pages and the tree
of the blocks are whole, the tree says which blocks are the log's. Else everything
that proves itself is looked at, and a block that no other leads to must lie where a
page of LMDB's says that a value begins: bytes that a record spelled do not.

Pure: it reads through what it is given.
"""

import array
from collections.abc import Callable, Sequence

import attrs
import numpy as np
import numpy.typing as npt

from log.block import HEADER_BYTES, MAGIC, Tail
from log.store import BLOCKS
from recovery.damage.block_scan import Candidates, Source, scan_blocks
from recovery.damage.chain import Chain, Marks, choose_chain
from recovery.damage.raw_pages import Pages, Walk
from recovery.damage.row_scan import Rows, find_rows
from recovery.errors import SnapshotError
from recovery.snapshot import Snapshot

_KEY_BYTES = 8
_Numbers = npt.NDArray[np.uint64]


@attrs.frozen
class Live:
    """The blocks that the tree names, in order: first sequences, places, sizes.

    `pages` are those of the tree itself. With `is_whole` it has all its pages, and is
    the last that was written.
    """

    root: int | None
    keys: _Numbers
    offsets: _Numbers
    sizes: _Numbers
    pages: frozenset[int]
    is_whole: bool

    @classmethod
    def find(cls, pages: Pages) -> "Live":
        """Walk the blocks' tree, from the meta page that leads to most of it."""
        best: Live | None = None
        for root in [head.root for head in pages.heads]:
            walk = Walk(pages)
            found = array.array("Q")
            for value in walk.table(root, BLOCKS):
                if len(value.key) == _KEY_BYTES and not value.is_table:
                    first = int.from_bytes(value.key)
                    found.extend((first, value.offset, value.value_bytes))
            keys, offsets, sizes = np.array(found, np.uint64).reshape(-1, 3).T
            # An earlier page may be another table's, whose values are no blocks.
            are_blocks = bool(np.all(sizes > HEADER_BYTES))
            is_whole = walk.is_whole and are_blocks and pages.is_newest(root)
            live = cls(root, keys, offsets, sizes, walk.seen, is_whole)
            if live.is_whole:
                return live
            if best is None or len(live.keys) > len(best.keys):
                best = live
        none = np.empty(0, np.uint64)
        return best or cls(None, none, none, none, frozenset(), is_whole=False)

    def names(self, blocks: Candidates) -> Marks:
        """Mark the blocks that lie where the tree says."""
        marks: Marks = np.isin(blocks["offset"], self.offsets)
        return marks

    def fits(self, blocks: Candidates) -> Marks:
        """Mark the blocks that could be one the tree names, from another place."""
        count = len(self.keys)
        if not count or np.any(self.keys[1:] <= self.keys[:-1]):
            return np.zeros(len(blocks), np.bool_)
        places = np.minimum(np.searchsorted(self.keys, blocks["first"]), count - 1)
        following = np.append(self.keys[1:], np.uint64(0))[places]
        is_last = places == count - 1
        marks: Marks = (
            (self.keys[places] == blocks["first"])
            & (self.sizes[places] == blocks["block_bytes"])
            & (is_last | (following - np.uint64(1) == blocks["last"]))
        )
        return marks

    def is_all(self, blocks: Candidates, pages: Pages) -> bool:
        """Say whether the tree names all there are, for those that were found.

        Where a page that is neither the tree's nor free holds another one, some page
        of the tree is an earlier version of itself.
        """
        unused = pages.unused() if self.is_whole else None
        if unused is None:
            return False
        told = np.array([*unused, *self.pages], np.uint64)
        is_told = np.isin(blocks["offset"] // np.uint64(pages.page_bytes), told)
        is_other = ~is_told & ~self.names(blocks)
        return not _vouched_for(blocks[is_other], pages).any()

    def last_sequence(self, source: Source, *, is_certain: bool) -> int:
        """Give the last event that the tree knows of, as far as its header tells.

        Unless it is certain that the tree is the blocks', a header has to be there.
        """
        if not len(self.keys):
            return 0
        first, size = int(self.keys[-1]), int(self.sizes[-1])
        header = source.read(int(self.offsets[-1]), HEADER_BYTES)
        is_header = header[:4] == MAGIC and int.from_bytes(header[8:16]) == first
        # A tree with an earlier page may lead to what is another table's now.
        if not is_header and not is_certain:
            return 0
        count = int.from_bytes(header[16:24]) if is_header else 1
        return first + count - 1 if 0 < count <= size else first

    def bytes_between(self, first: int, last: int) -> int | None:
        """Give the sizes of the named blocks that begin from `first` to `last`."""
        is_there = (self.keys >= first) & (self.keys <= last)
        return int(self.sizes[is_there].sum()) if is_there.any() else None


@attrs.frozen
class Remains:
    """All that was found of one log.

    `base` is where it began, (0, 0) where nothing tells; `base_state` is None where
    it has none, and `is_base_lost` says that it had one. `log_id` may be empty.
    `last_known` is the last sequence that anything but a snapshot names. `torn`
    counts places where a block begins and is not whole. With `is_certain` a whole tree
    tells which blocks are the log's.
    """

    chain: Chain
    rows: Rows
    live: Live
    log_id: str
    base: Tail
    base_state: Snapshot | None
    last_known: int
    torn: int
    is_certain: bool

    @property
    def is_base_lost(self) -> bool:
        """Say whether the state at the base was there and is not found."""
        return bool(self.base.sequence) and self.base_state is None


def find_remains(
    source: Source,
    snapshots: Sequence[Snapshot],
    progress: Callable[[int], None] = lambda _offset: None,
) -> Remains:
    """Look through a file; `snapshots` are those beside it that are whole.

    Raises NewerEngineError for a file of LMDB 1.0.
    """
    pages = Pages.find(source)
    live = Live.find(pages)
    rows = find_rows(pages, live.root)
    scan = scan_blocks(source, progress)
    base_state = _base_state(rows)
    base = _base(rows, base_state)
    blocks = scan.blocks
    witnesses = [(each.block_sequence, each.block_checksum) for each in snapshots]
    known = live.names(blocks) | _is_any_of(blocks, witnesses)
    trusted = known | live.fits(blocks)
    is_strict = live.is_all(blocks, pages)
    if not is_strict:
        trusted |= _vouched_for(blocks, pages)
        # Bytes that are all in other places than they were prove nothing by these.
        if not trusted.any() and not any(True for _ in pages.leaves()):
            trusted[:] = True
    is_certain = is_strict and bool(live.names(blocks).any())
    chain = choose_chain(blocks, base, known, trusted, is_strict=is_strict)
    is_base_state = base_state is not None and base_state.sequence == base.sequence
    return Remains(
        chain=chain,
        rows=rows,
        live=live,
        log_id=_log_id(rows, base_state, snapshots, blocks),
        base=base,
        base_state=base_state if is_base_state else None,
        last_known=max(
            base.sequence,
            live.last_sequence(source, is_certain=is_certain),
            *(cursor.sequence for cursor in rows.cursors.values()),
            *(written for written, _ in rows.points.values()),
        ),
        torn=scan.torn,
        is_certain=is_certain,
    )


def _base_state(rows: Rows) -> Snapshot | None:
    if rows.base_state is None:
        return None
    try:
        return Snapshot.decode(rows.base_state)
    except SnapshotError:
        return None


def _base(rows: Rows, base_state: Snapshot | None) -> Tail:
    if rows.meta is not None:
        return Tail(rows.meta.base_sequence, rows.meta.base_checksum)
    if base_state is not None:
        return Tail(base_state.sequence, base_state.block_checksum)
    return Tail(0, 0)


def _is_any_of(blocks: Candidates, ends: Sequence[tuple[int, int]]) -> Marks:
    """Mark the blocks that end with one of these sequences and checksums."""
    found = np.zeros(len(blocks), np.bool_)
    for sequence, checksum in ends:
        found |= (blocks["last"] == sequence) & (blocks["checksum"] == checksum)
    return found


def _vouched_for(blocks: Candidates, pages: Pages) -> Marks:
    places = zip(blocks["offset"].tolist(), blocks["block_bytes"].tolist(), strict=True)
    return np.fromiter(pages.vouched(places), np.bool_, len(blocks))


def _log_id(
    rows: Rows,
    base_state: Snapshot | None,
    snapshots: Sequence[Snapshot],
    blocks: Candidates,
) -> str:
    """Give the log's id as its row has it, else as a snapshot has it."""
    if rows.meta is not None:
        return rows.meta.log_id
    if base_state is not None:
        return base_state.log_id
    if not snapshots:
        return ""

    def rank(snapshot: Snapshot) -> tuple[bool, int]:
        witness = (snapshot.block_sequence, snapshot.block_checksum)
        return bool(_is_any_of(blocks, [witness]).any()), snapshot.sequence

    return max(snapshots, key=rank).log_id
