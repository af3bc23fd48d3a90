"""Whether a disk has room for what is to be written: told before it is begun.

An estimate, from blocks here and there in the log: a log's file may hold many times
what is in use. The edge: it asks the file system.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from log.block import Block
from log.errors import DirectoryError
from log.log import Log

SAMPLES_MAX = 64
SPARE_BYTES = 1 << 16
"""What a new log takes without blocks: LMDB's own pages and its table of readers."""

_PAGE_BYTES = 4096
_PAGE_HEADER_BYTES = 16
_SHARED_BYTES_MAX = 2022
"""The longest block that shares a page with others: docs/FORMAT.md."""


def stored_bytes(block: Block) -> int:
    """Give what a block takes in LMDB's file."""
    size = len(block.encoded)
    if size <= _SHARED_BYTES_MAX:
        return size + _PAGE_HEADER_BYTES
    pages = -(-(size + _PAGE_HEADER_BYTES) // _PAGE_BYTES)
    return pages * _PAGE_BYTES


def estimate_bytes(
    log: Log, after: int, until: int, size: Callable[[Block], int] = stored_bytes
) -> int:
    """Estimate the sum of `size` over the blocks of events `after` to `until`.

    `after` is exclusive, `until` inclusive. Raises DamagedError.
    """
    count = until - after
    if count <= 0:
        return 0
    samples = min(count, SAMPLES_MAX)
    rates = []
    for number in range(samples):
        block = log.block_at(after + 1 + count * number // samples)
        # An event is met as often as its block is long, so this is not biased.
        if block is not None:
            rates.append(size(block) / block.records.count)
    return round(count * sum(rates) / max(len(rates), 1))


def check_room(needed: Mapping[Path, int]) -> None:
    """Raise DirectoryError unless there is room for so many bytes at each place.

    A place need not be there yet, if its parent is.
    """
    wanted: dict[int, int] = {}
    for path, size in needed.items():
        place = path if path.exists() else path.absolute().parent
        # Who is not there is told of that later, by whoever wants to write there.
        if not place.exists():
            continue
        device = place.stat().st_dev
        wanted[device] = wanted.get(device, 0) + size
        disk = os.statvfs(place)
        free = disk.f_bavail * disk.f_frsize
        if wanted[device] > free:
            reason = (
                f"it takes about {wanted[device]:,} bytes, and its disk has {free:,} "
                "left; make room, or choose another disk"
            )
            raise DirectoryError(path, reason)
