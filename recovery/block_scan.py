"""Blocks found in raw bytes, by their magic and their checksum, wherever they lie.

What is inside a whole block is its records: nothing in there is looked at, whatever
it spells. Inside one that is damaged everything is looked at, for nobody knows where
it ends. Of each block found a few numbers are kept, never its bytes.

Pure: it reads through what it is given.
"""

from collections.abc import Callable
from typing import Protocol

import attrs
import numpy as np
import numpy.typing as npt

from log.block import BLOCK_BYTES_MAX, HEADER_BYTES, MAGIC, Block, BlockError

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

_LENGTH = slice(36, 40)


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

    `torn` are the places where a block begins that is not whole.
    """

    blocks: Candidates
    torn: tuple[int, ...]


def scan_blocks(
    source: Source, progress: Callable[[int], None] = lambda _offset: None
) -> Scan:
    """Find every whole block; `progress` is called with the place reached."""
    found: list[npt.NDArray[np.void]] = []
    torn: list[int] = []
    start = 0
    while start < source.size:
        window = source.read(start, WINDOW_BYTES)
        rows, faults, start = _scan_window(source, start, window)
        found.append(np.array(rows, COLUMNS))
        torn += faults
        progress(start)
    blocks = np.concatenate(found) if found else np.empty(0, COLUMNS)
    return Scan(blocks, tuple(torn))


def _scan_window(
    source: Source, start: int, window: bytes
) -> tuple[list[tuple[int, ...]], list[int], int]:
    """Give the blocks that begin in a window, what is torn, and where to go on."""
    rows: list[tuple[int, ...]] = []
    torn: list[int] = []
    is_last = start + len(window) >= source.size
    place = 0
    while (place := window.find(MAGIC, place)) >= 0:
        length = window[place + _LENGTH.start : place + _LENGTH.stop]
        block_bytes = int.from_bytes(length)
        left = len(window) - place
        if place and not is_last and left < HEADER_BYTES:
            return rows, torn, start + place
        block = _decode(source, start, window, place, block_bytes)
        if block is None:
            torn.append(start + place)
            place += 1
        else:
            rows.append(_row(block, start + place))
            place += len(block.encoded)
            if place >= len(window):
                return rows, torn, start + place
    # The end of the window may be the beginning of a magic.
    overlap = 0 if is_last else len(MAGIC) - 1
    return rows, torn, start + len(window) - overlap


def _decode(
    source: Source, start: int, window: bytes, place: int, block_bytes: int
) -> Block | None:
    """Read the block at a place of a window, from the file where it goes on there."""
    is_longer = place + block_bytes > len(window)
    if is_longer and block_bytes <= min(BLOCK_BYTES_MAX, source.size - start - place):
        window, place = source.read(start + place, block_bytes), 0
    try:
        return Block.decode(window, place)
    except BlockError:
        return None


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
