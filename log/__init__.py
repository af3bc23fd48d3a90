"""An append-only log of opaque records on LMDB, and its twin in memory.

Imports lmdb and attrs, and nothing else of this project.
"""

from log.block import Block, BlockError, Point, Records, Tail
from log.directory import DataDirectory
from log.errors import (
    CommitError,
    DamagedError,
    DirectoryError,
    DiskFullError,
    ForeignError,
    LockedError,
    LogError,
)
from log.log import Log, Transaction
from log.row import Cursor, Meta, Reject

__all__ = [
    "Block",
    "BlockError",
    "CommitError",
    "Cursor",
    "DamagedError",
    "DataDirectory",
    "DirectoryError",
    "DiskFullError",
    "ForeignError",
    "LockedError",
    "Log",
    "LogError",
    "Meta",
    "Point",
    "Records",
    "Reject",
    "Tail",
    "Transaction",
]
