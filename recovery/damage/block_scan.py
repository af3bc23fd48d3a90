"""Blocks found in raw bytes, by their magic and their checksum, wherever they lie.

What is inside a whole block is its records: nothing in there is looked at, whatever
it spells. Inside one that is damaged everything is looked at, for nobody knows where
it ends, in time that is linear in the file's size, whatever it spells. Of each block
found a few numbers are kept, never its bytes.

Pure: it reads through what it is given.
"""

import contextlib
from collections.abc import Callable
from typing import Protocol

import attrs
import numpy as np
import numpy.typing as npt

from log.block import HEADER_BYTES, MAGIC, Block, BlockError, claimed_bytes
from recovery.damage.part_checksums import PART_BYTES, PartChecksums

WINDOW_BYTES = 1 << 22
"""How much is held at once, but for a larger block."""

COLUMNS = np.dtype(
    [
        ("offset", np.uint64),
        ("block_bytes", np.uint32),
        ("first", np.uint64),
        ("last", np.uint64),
        ("time_ns", np.uint64),
        ("previous_checksum", np.uint32),
        ("checksum", np.uint32),
        ("pipeline", np.uint16),
        ("is_gap", np.bool_),
    ]
)
"""What is kept of a block: `offset` is its place in the file, in bytes; `first` and
`last` are sequences, inclusive."""

Candidates = npt.NDArray[np.void]
"""Rows of COLUMNS: blocks that prove themselves, though not yet that they belong."""

_CHECKSUM_BYTES = 4


class Source(Protocol):
    """Bytes at places."""

    @property
    def size(self) -> int:
        """How many bytes there are."""

    def read(self, start: int, length: int) -> bytes:
        """Give `length` bytes from `start` on, or what is left of them."""


@attrs.frozen
class Scan:
    """What a scan has found: blocks by their place, and magics without a block.

    `torn` counts the places where a block begins that is not whole.
    """

    blocks: Candidates
    torn: int


def scan_blocks(
    source: Source, progress: Callable[[int], None] = lambda _offset: None
) -> Scan:
    """Find every whole block; `progress` is called with the place reached."""
    found: list[npt.NDArray[np.void]] = []
    torn = 0
    start = 0
    claims = _Claims(source)
    while start < source.size:
        window = source.read(start, WINDOW_BYTES)
        rows, faults, start = _scan_window(claims, start, window)
        found.append(np.array(rows, COLUMNS))
        torn += faults
        progress(start)
    blocks = np.concatenate(found) if found else np.empty(0, COLUMNS)
    return Scan(blocks, torn)


def _scan_window(
    claims: "_Claims", start: int, window: bytes
) -> tuple[list[tuple[int, ...]], int, int]:
    """Give the blocks that begin in a window, how many are torn, and where to go on."""
    rows: list[tuple[int, ...]] = []
    torn = 0
    is_last = start + len(window) >= claims.source.size
    place = 0
    while (place := window.find(MAGIC, place)) >= 0:
        if place and not is_last and len(window) - place < HEADER_BYTES:
            return rows, torn, start + place
        block, passed = claims.check(start, window, place)
        if block is None:
            torn += 1
        else:
            rows.append(_row(block, start + place))
        place += passed
        if place >= len(window):
            return rows, torn, start + place
    # The end of the window may be the beginning of a magic.
    overlap = 0 if is_last else len(MAGIC) - 1
    return rows, torn, start + len(window) - overlap


@attrs.define
class _Claims:
    """Blocks that headers claim, checked in places that rise.

    Records can spell as many headers as they have room for, each with a claim to all
    that follows. So what overlaps a claim that failed is read only if it is small, or
    if the checksums of the file's parts have proved it; and what is larger than a
    window is not held for a mere claim.
    """

    source: Source
    _parts: PartChecksums | None = None
    _failed_end: int = 0

    def check(self, start: int, window: bytes, place: int) -> tuple[Block | None, int]:
        """Give the block at a place of a window, and how many bytes are done with."""
        offset = start + place
        block_bytes = claimed_bytes(window, place)
        if block_bytes is None or block_bytes > self.source.size - offset:
            return None, 1
        is_doubtful = offset < self._failed_end and block_bytes > PART_BYTES
        must_be_proved = is_doubtful or block_bytes > WINDOW_BYTES
        block = None
        passed = 1
        if not must_be_proved or self._is_proved(offset, block_bytes):
            if place + block_bytes > len(window):
                window, place = self.source.read(offset, block_bytes), 0
            with contextlib.suppress(BlockError):
                block = Block.decode(window, place)
            # What a checksum has proved is one thing, if no block: else as many as
            # end at one place could be read whole.
            passed = block_bytes if block or must_be_proved else 1
        if block is None:
            self._failed_end = max(self._failed_end, offset + block_bytes)
        return block, passed

    def _is_proved(self, offset: int, block_bytes: int) -> bool:
        if self._parts is None:
            self._parts = PartChecksums(self.source.read, offset)
        end = offset + block_bytes - _CHECKSUM_BYTES
        checksum = int.from_bytes(self.source.read(end, _CHECKSUM_BYTES))
        return self._parts.between(offset, end) == checksum


def _row(block: Block, offset: int) -> tuple[int, ...]:
    return (
        offset,
        len(block.encoded),
        block.first_sequence,
        block.last_sequence,
        block.time_ns,
        block.previous_checksum,
        block.checksum,
        block.pipeline,
        block.records.is_gap,
    )
