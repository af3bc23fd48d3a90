"""Checksums mended in inputs that were changed; what has none stays as it is."""

import struct
import zlib

from log.block import HEADER_BYTES, MAGIC
from log.lmdb_file import LmdbFileError
from log.log import BASE_KEY, META_KEY
from log.row import seal_row
from log.store import CURSORS, META, REJECTS, STREAMS
from recovery.damage.raw_pages import Pages
from tests.fuzzing.log_targets import cut_row
from tests.test_block_scan import Bytes

_BLOCK_BYTES_AT = 36
_BLOCK_BYTES_MIN = HEADER_BYTES + 4
_ROW_BYTES_MIN = 12


def _with_checksum(content: bytes) -> bytes:
    return content + zlib.crc32(content).to_bytes(4)


def seal_block(data: bytes) -> bytes:
    """Make a block's length and checksum right."""
    if len(data) < _BLOCK_BYTES_MIN:
        return data
    size = len(data).to_bytes(4)
    head = data[:_BLOCK_BYTES_AT] + size + data[_BLOCK_BYTES_AT + 4 : -4]
    return _with_checksum(head)


def seal_blocks(data: bytes) -> bytes:
    """Make the checksums right of all blocks that lie in the data by their lengths."""
    place = -1
    while (place := data.find(MAGIC, place + 1)) >= 0:
        at = place + _BLOCK_BYTES_AT
        end = place + int.from_bytes(data[at : at + 4])
        if place + _BLOCK_BYTES_MIN <= end <= len(data):
            data = data[:place] + _with_checksum(data[place : end - 4]) + data[end:]
            place = end - 1
    return data


def seal_row_value(data: bytes) -> bytes:
    """Make a row's checksum right."""
    table, key, value = cut_row(data)
    if len(value) < _ROW_BYTES_MIN:
        return data
    sequence = int.from_bytes(value[:8])
    return data[: -len(value)] + seal_row(table, key, sequence, value[8:-4])


def seal_snapshot(data: bytes) -> bytes:
    """Make a snapshot's checksum right, and its header as long as its JSON."""
    if len(data) < _ROW_BYTES_MIN:
        return data
    end = data.rfind(b"}") + 1
    size = max(end - 10, 0).to_bytes(4)
    return _with_checksum(data[:6] + size + data[10:-4])


def seal_lines(data: bytes) -> bytes:
    """Make the checksums of a transaction log's lines right."""
    lines = []
    before = 0
    for line in data.splitlines(keepends=True):
        text, space, _ = line.rpartition(b" ")
        if not space or not line.endswith(b"\n"):
            lines.append(line)
            continue
        before = zlib.crc32(text, before)
        lines.append(b"%s %08x\n" % (text, before))
    return b"".join(lines)


def seal_rows(data: bytes) -> bytes:
    """Make the checksums of the rows right that a file's leaves have in themselves."""
    try:
        pages = Pages.find(Bytes(data))
    except LmdbFileError:
        return data
    sealed = bytearray(data)
    for values in pages.leaves():
        for value in values:
            size, start = value.value_bytes, value.offset
            if value.is_table or not _ROW_BYTES_MIN <= size <= len(data) - start:
                continue
            content = data[start : start + size]
            # Numbers of transactions, lowest byte first, are the free pages' keys.
            is_free_list = len(value.key) == 8 and value.key[-1] < value.key[0]
            if content.startswith(MAGIC) or is_free_list:
                continue
            (sequence,) = struct.unpack_from(">Q", content)
            table = _table_of(value.key, content)
            new = seal_row(table, value.key, sequence, content[8:-4])
            sealed[start : start + size] = new
    return bytes(sealed)


def _table_of(key: bytes, content: bytes) -> str:
    """Guess which table a row is of."""
    if key in {META_KEY, BASE_KEY}:
        return META
    if content[8:9] == b"{":
        return REJECTS
    is_number = key[:1] == b"\0" or (len(key) == 8 and not key.isascii())
    return STREAMS if is_number else CURSORS
