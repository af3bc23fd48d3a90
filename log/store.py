"""What a log asks of the storage under it: five ordered tables, one flush.

A store keeps rows of bytes in tables, sorted by key, and changes them in
transactions that are whole and durable when `commit` returns. It knows nothing
of blocks or sequences. `LmdbStore` keeps them on disk, `MemoryStore` is the
verified fake: both pass the same contract tests.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import attrs
from attrs import validators

BLOCKS = "blocks"
STREAMS = "streams"
CURSORS = "cursors"
REJECTS = "rejects"
META = "meta"
TABLES = (BLOCKS, STREAMS, CURSORS, REJECTS, META)


KEY_BYTES_MAX = 511
"""What LMDB takes, inclusive; no key is empty."""


@attrs.frozen
class Change:
    """One row put (`value` bytes) or deleted (`value` None) by a transaction.

    `is_append` promises that the key is above every key of its table. Raises
    ValueError for an empty key or one above KEY_BYTES_MAX.
    """

    table: str
    key: bytes = attrs.field(
        validator=[validators.min_len(1), validators.max_len(KEY_BYTES_MAX)]
    )
    value: bytes | None = attrs.field(repr=False)
    is_append: bool = False


class Store(Protocol):
    """Ordered tables with atomic, flushed transactions.

    One thread commits; any thread may read at any time and sees whole
    transactions only.
    """

    @property
    def path(self) -> Path:
        """The place, as errors name it."""

    def commit(self, changes: Sequence[Change], sequence: int) -> None:
        """Apply all changes in one transaction, durable on return.

        `sequence` is the log's last one, for errors alone. Raises DiskFullError
        or CommitError, and then nothing is known of the outcome; ValueError for
        an append that is none.
        """

    def get(self, table: str, key: bytes) -> bytes | None:
        """Give the value stored under a key."""

    def floor(self, table: str, key: bytes) -> tuple[bytes, bytes] | None:
        """Give the row with the greatest key at or below `key` (inclusive)."""

    def scan(
        self, table: str, start: bytes, bytes_max: int
    ) -> list[tuple[bytes, bytes]]:
        """Give rows from key `start` (inclusive) upward, in order.

        Stops once their values reach `bytes_max`, but never before the first.
        """

    def drop_dead_readers(self) -> int:
        """Free what readers held that were killed; give how many they were."""

    def close(self) -> None:
        """Let the storage go; the store is of no use afterwards."""
