"""A look at LMDB's file in plain Python, before LMDB maps it.

LMDB trusts its two meta pages and the file's size; a cut or foreign file costs
the process its life (SIGBUS) or an error that says nothing. So both are checked
first. The layout is that of LMDB 0.9's `mdb.c` (MDB_page, MDB_meta); version 1.0
has a larger page header, which is how its files are told apart.

Pure: it reads the bytes it is given.
"""

import struct

import attrs

from log.lmdb_page import RECORD_BYTES, TreeRecord

META_PAGES = 2
PAGE_BYTES_MIN = 1 << 8
PAGE_BYTES_MAX = 1 << 15

_MAGIC = 0xBEEFC0DE
_DATA_VERSION = 1
_META_FLAG = 0x08
_PAGE_HEADER_BYTES = 16
_NEWER_PAGE_HEADER_BYTES = 24
_HEADER = struct.Struct("<10xH4x")
_START = struct.Struct("<II16xI")
_FREE_OFFSET = 24
_MAIN_OFFSET = _FREE_OFFSET + RECORD_BYTES
_END = struct.Struct("<QQ")
_END_OFFSET = _MAIN_OFFSET + RECORD_BYTES


class LmdbFileError(ValueError):
    """The file is not one that LMDB 0.9 could open safely; the message says why."""


class NewerEngineError(LmdbFileError):
    """The file was written by LMDB 1.0, whose format 0.9 cannot read."""


@attrs.frozen
class MetaPage:
    """What one meta page says of the file.

    `free` is the tree of the free pages, `main` that of the tables' names.
    """

    page_bytes: int
    last_page: int
    transaction_id: int
    free: TreeRecord
    main: TreeRecord


def check_head(head: bytes, file_bytes: int) -> tuple[MetaPage, MetaPage]:
    """Check both meta pages and the file's size; give the meta pages, the older first.

    `head` is the file's first META_PAGES * PAGE_BYTES_MAX bytes, or all of it. Raises
    LmdbFileError.
    """
    first = _meta_page(head, 0)
    second = _meta_page(head, first.page_bytes)
    if second.page_bytes != first.page_bytes:
        raise LmdbFileError("its two meta pages disagree on the page size")
    if not _are_turns(first, second):
        raise LmdbFileError("its two meta pages are not of two transactions in a row")
    older, newest = sorted((first, second), key=lambda page: page.transaction_id)
    expected = (newest.last_page + 1) * newest.page_bytes
    if file_bytes < expected:
        raise LmdbFileError(
            f"it is cut short: {file_bytes} bytes of at least {expected}"
        )
    return older, newest


def _are_turns(even: MetaPage, odd: MetaPage) -> bool:
    """Say whether the two meta pages can be those of the last two transactions.

    LMDB writes them in turn and never gives pages of the file back, so a damaged
    number shows, which would let the transaction before the last win.
    """
    ahead = odd.transaction_id - even.transaction_id
    if even.transaction_id % 2 or ahead not in (-1, 1):
        return even.transaction_id == odd.transaction_id == 0
    return (odd.last_page - even.last_page) * ahead >= 0


def _meta_page(head: bytes, start: int) -> MetaPage:
    number = 0 if start == 0 else 1
    page = head[start : start + PAGE_BYTES_MIN]
    if len(page) < _PAGE_HEADER_BYTES + _END_OFFSET + _END.size:
        raise LmdbFileError(f"it is too short to hold meta page {number}")
    newer = struct.unpack_from("<I", page, _NEWER_PAGE_HEADER_BYTES)[0]
    magic, version, page_bytes = _START.unpack_from(page, _PAGE_HEADER_BYTES)
    if newer == _MAGIC and magic != _MAGIC:
        raise NewerEngineError("it was written with LMDB 1.0, not LMDB 0.9")
    (flags,) = _HEADER.unpack_from(page)
    if magic != _MAGIC or version != _DATA_VERSION or not flags & _META_FLAG:
        raise LmdbFileError(f"its meta page {number} is not one of LMDB 0.9")
    if not PAGE_BYTES_MIN <= page_bytes <= PAGE_BYTES_MAX or page_bytes & (
        page_bytes - 1
    ):
        raise LmdbFileError(f"its meta page {number} says pages of {page_bytes} bytes")
    last_page, transaction_id = _END.unpack_from(page, _PAGE_HEADER_BYTES + _END_OFFSET)
    free, main = (
        TreeRecord.decode(page, _PAGE_HEADER_BYTES + offset)
        for offset in (_FREE_OFFSET, _MAIN_OFFSET)
    )
    return MetaPage(page_bytes, last_page, transaction_id, free, main)
