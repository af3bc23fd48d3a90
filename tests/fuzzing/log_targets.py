"""What is read from a disk that cannot be trusted, and what must hold of it.

A form that proves itself by a checksum has one way to be written: what was read is
written as it was.
"""

import json
import struct
import zlib
from collections.abc import Callable
from typing import Any

import attrs

from alphabet.application import LetterStateBuilder
from alphabet.connector.transaction_log import (
    CorruptLineError,
    Standing,
    Step,
    Transaction,
    advance,
    begin,
    read_log,
)
from log.block import (
    FORMAT_VERSION,
    MAGIC,
    SEQUENCE_MAX,
    Block,
    BlockError,
    Point,
    Records,
    Tail,
    claimed_bytes,
)
from log.row import (
    Cursor,
    Meta,
    Reject,
    RowError,
    decode_point,
    encode_point,
    open_row,
    seal_row,
)
from log.store import CURSORS, META, REJECTS, STREAMS
from recovery.damage.block_scan import scan_blocks
from recovery.errors import SnapshotError
from recovery.snapshot import Snapshot
from tests.test_block_scan import Bytes, scanned

ROW_TABLES = (CURSORS, STREAMS, REJECTS, META)
SMALL_WINDOW_BYTES = 100


def block(data: bytes) -> None:
    """A block that is read is sealed to the same bytes, and holds what it claims."""
    claimed = claimed_bytes(data)
    try:
        found = Block.decode(data)
    except BlockError:
        return
    assert claimed == len(found.encoded)
    assert found.encoded == data[: len(found.encoded)]
    assert 1 <= found.first_sequence <= found.last_sequence <= SEQUENCE_MAX
    sealed = Block.seal(
        Tail(found.first_sequence - 1, found.previous_checksum),
        found.records,
        time_ns=found.time_ns,
        pipeline=found.pipeline,
        points=found.points,
    )
    assert sealed.encoded == found.encoded
    assert sealed == found
    if not found.records.is_gap:
        _check_records(found.records)


def _check_records(records: Records) -> None:
    payloads = list(records)
    assert len(payloads) == records.count
    head_bytes = 0 if records.record_bytes else 4 * records.count
    assert b"".join(payloads) == bytes(records.body[head_bytes:])
    middle = records.count // 2
    first, rest = records.cut(0, middle), records.cut(middle, records.count)
    assert [*first, *rest] == payloads
    assert list(Records.join([records, records])) == payloads * 2


def block_scan(data: bytes) -> None:
    """A scan finds what trying every magic in turn finds, by windows of any size."""
    expected: list[tuple[int, int]] = []
    torn = 0
    place = 0
    while (place := data.find(MAGIC, place)) >= 0:
        try:
            found = Block.decode(data, place)
        except BlockError:
            torn += 1
            place += 1
            continue
        expected.append((place, found.checksum))
        place += len(found.encoded)
    scan = scan_blocks(Bytes(data))
    places = zip(scan.blocks["offset"], scan.blocks["checksum"], strict=True)
    assert [(int(a), int(b)) for a, b in places] == expected
    assert scan.torn == torn
    # What a checksum proves and is no block is passed over whole, if it is large.
    windowed = scanned(data, SMALL_WINDOW_BYTES)
    assert {int(each) for each in windowed.blocks["offset"]} <= {a for a, _ in expected}
    if not torn:
        assert windowed.blocks.tolist() == scan.blocks.tolist()


def row(data: bytes) -> None:
    """A row that is read is sealed to the same bytes, and its value lasts."""
    table, key, value = cut_row(data)
    try:
        sequence, body = open_row(table, key, value)
    except RowError:
        body = value[8:-4]
    else:
        assert seal_row(table, key, sequence, body) == value
    try:
        found, again = _ROW_FORMS[table](body)
    except RowError:
        return
    # Of a newer log nothing but its version is looked at.
    if not isinstance(found, Meta) or found.format_version <= FORMAT_VERSION:
        assert again == found
        assert _are_typed(found)


def cut_row(data: bytes) -> tuple[str, bytes, bytes]:
    """Give the table, the key and the value that a row's input tells."""
    choice, key_bytes = (*data[:2], 0, 0)[:2]
    table = ROW_TABLES[choice % len(ROW_TABLES)]
    return table, data[2 : 2 + key_bytes], data[2 + key_bytes :]


def _cursor(body: bytes) -> tuple[object, object]:
    found = Cursor.decode(body)
    assert found.encode() == body
    return found, Cursor.decode(found.encode())


def _point(body: bytes) -> tuple[object, object]:
    found = decode_point(body)
    assert encode_point(Point(0, *found)) == body
    return Point(0, *found), Point(0, *found)


def _reject(body: bytes) -> tuple[object, object]:
    found = Reject.decode(body)
    return found, Reject.decode(found.encode())


def _meta(body: bytes) -> tuple[object, object]:
    found = Meta.decode(body)
    return found, Meta.decode(found.encode())


_ROW_FORMS: dict[str, Callable[[bytes], tuple[object, object]]] = {
    CURSORS: _cursor,
    STREAMS: _point,
    REJECTS: _reject,
    META: _meta,
}


def _are_typed(value: Any) -> bool:  # noqa: ANN401 - any attrs class
    """Say whether fields that are plain numbers, words or bytes are what they say."""
    kinds = {"int": int, "str": str, "bytes": bytes, int: int, str: str, bytes: bytes}
    return all(
        isinstance(getattr(value, field.name), kinds[field.type])
        for field in attrs.fields(type(value))
        if field.type in kinds
    )


def snapshot(data: bytes) -> None:
    """A snapshot that is read lasts, and its states fill what is behind its header."""
    try:
        found = Snapshot.decode(data)
    except SnapshotError:
        return
    assert _are_typed(found)
    assert all(map(_are_typed, found.states))
    assert Snapshot.decode(found.encode()) == found
    assert data[:-4].endswith(b"".join(state.data for state in found.states))
    assert zlib.crc32(data[:-4]).to_bytes(4) == data[-4:]
    _, header_bytes = struct.unpack_from(">6sI", data)
    sizes = [size for *_, size in json.loads(data[10 : 10 + header_bytes])["states"]]
    assert sizes == [len(state.data) for state in found.states]


def state(data: bytes) -> None:
    """A state that is loaded is dumped to the same bytes."""
    builder = LetterStateBuilder()
    try:
        found = builder.load(data)
    except ValueError:
        return
    assert builder.dump(found) == data
    assert len(found.votes_by_letter) <= 256


def transaction_log(data: bytes) -> None:
    """A log that is read is written to the same bytes by the steps that it tells."""
    try:
        standing, whole_bytes = read_log(data)
    except CorruptLineError:
        return
    assert read_log(data[:whole_bytes]) == (standing, whole_bytes)
    assert 0 <= standing.committed_bytes <= standing.kept_bytes
    written = b""
    again: Standing | None = None
    for line in data[:whole_bytes].splitlines(keepends=True):
        word, start, end, name, _ = line.split(b" ")
        name = b"" if name == b"-" else bytes.fromhex(name.decode())
        if again is None:
            added, again = begin(int(end), name or None)
        else:
            told = Transaction(name, int(start), int(end))
            added, again = advance(again, Step(word.decode()), told)
        written += added
    assert written == data[:whole_bytes]
    assert again == standing
