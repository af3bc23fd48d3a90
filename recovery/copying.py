"""Blocks on their way into a log that is being made, and back from its disk.

Many share a commit, for a commit costs a flush. What was written is read again, from
the disk and not from memory, before anybody relies on it.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from log.block import Block, Tail
from log.errors import DamagedError
from log.lmdb_store import DATA_FILE
from log.log import Log

COMMIT_BYTES = 1 << 24
"""How many bytes of blocks go into one commit, but for a larger block."""

Progress = Callable[[int], None]
"""Is told the sequence reached, now and then."""


def unseen(_sequence: int) -> None:
    """Show nobody how far it is."""


def in_lots(blocks: Iterable[Block]) -> Iterator[tuple[Block, ...]]:
    """Gather blocks for one commit each."""
    lot: list[Block] = []
    lot_bytes = 0
    for block in blocks:
        lot.append(block)
        lot_bytes += len(block.encoded)
        if lot_bytes >= COMMIT_BYTES:
            yield tuple(lot)
            lot, lot_bytes = [], 0
    if lot:
        yield tuple(lot)


def read_back(log: Log, after: int, tail: Tail) -> None:
    """Read what was written behind an event; raises DamagedError where it is not so."""
    forget_cached(log.store.path / DATA_FILE)
    reached = log.tail_at(after)
    for block in log.read(after):
        reached = block.tail
    if (reached.sequence, reached.checksum) != (tail.sequence, tail.checksum):
        reason = f"it was written to {tail.sequence}, and reads to {reached.sequence}"
        raise DamagedError(log.store.path, reached.sequence + 1, reason)


def forget_cached(file: Path) -> None:
    """Let the kernel forget what it has of a flushed file, so that the disk is read."""
    if not hasattr(os, "posix_fadvise"):
        return
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)
