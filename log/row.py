"""The values beside the blocks: cursors, points, rejects, and what a log is.

Each is stored as a *row*: the sequence it was written at (u64), a body, and a
CRC-32 over table, key, sequence and body, so that a row that was changed, cut or
moved under another key is noticed. docs/FORMAT.md has the grammar.

Pure: bytes and values only.
"""

import json
import struct
import types
import zlib
from collections.abc import Iterable
from typing import Any, Self

import attrs

from log.block import FORMAT_VERSION, Point

_SEQUENCE = struct.Struct(">Q")
_CHECKSUM = struct.Struct(">I")
_CURSOR = struct.Struct(">QQH")
_POINT = struct.Struct(">QH")

REJECT_PAYLOAD_BYTES_MAX = 256
NUMBER_BYTES = 8
REJECTS_KEPT_MAX = 10_000
ENGINE = "lmdb-0.9"
OPAQUE = "opaque"


def _first_bytes(payload: bytes) -> bytes:
    return bytes(payload[:REJECT_PAYLOAD_BYTES_MAX])


def _pairs(gaps: Iterable[Iterable[int]]) -> tuple[tuple[int, int], ...]:
    return tuple((first, count) for first, count in gaps)


def _names(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(names)


class RowError(ValueError):
    """A row that fails its checksum or does not have its table's form."""


def check_types(value: Any) -> None:  # noqa: ANN401 - any attrs class of plain fields
    """Raise TypeError unless the fields of a value read from JSON have their types.

    What is in a tuple is not looked at.
    """
    for field in attrs.fields(type(value)):
        if isinstance(field.type, types.GenericAlias):
            continue
        found = getattr(value, field.name)
        if not isinstance(found, field.type) or isinstance(found, bool):
            raise TypeError(f"its {field.name} is {found!r}")


def seal_row(table: str, key: bytes, sequence: int, body: bytes) -> bytes:
    """Wrap a body so that it proves where and when it was written."""
    content = _SEQUENCE.pack(sequence) + body
    return content + _CHECKSUM.pack(_checksum(table, key, content))


def open_row(table: str, key: bytes, value: bytes) -> tuple[int, bytes]:
    """Give back (sequence, body); raises RowError where the checksum fails."""
    if len(value) < _SEQUENCE.size + _CHECKSUM.size:
        raise RowError(f"{len(value)} bytes are too few for a row")
    content = value[: -_CHECKSUM.size]
    (checksum,) = _CHECKSUM.unpack(value[-_CHECKSUM.size :])
    if checksum != _checksum(table, key, content):
        raise RowError("its checksum does not match")
    return _SEQUENCE.unpack_from(content)[0], content[_SEQUENCE.size :]


def decode_name(key: bytes) -> str:
    """Read a row's key that is a name; raises RowError."""
    try:
        return key.decode()
    except UnicodeDecodeError as error:
        raise RowError("its key is no name") from error


def decode_number(key: bytes) -> int:
    """Read a row's key that is a number of 8 bytes; raises RowError."""
    if len(key) != NUMBER_BYTES:
        raise RowError("its key is no number")
    return int.from_bytes(key)


def _checksum(table: str, key: bytes, content: bytes) -> int:
    place = b"%s\0%s\0" % (table.encode(), key)
    return zlib.crc32(content, zlib.crc32(place))


@attrs.frozen(order=True)
class Cursor:
    """A sink's last delivered event, and the output bytes up to its end.

    `transaction_id` names the transaction that brought a two-phase sink here,
    and is empty for every other sink.
    """

    sequence: int
    offset: int
    transaction_id: bytes = b""

    def encode(self) -> bytes:
        """Give the body of this cursor's row."""
        length = len(self.transaction_id)
        return _CURSOR.pack(self.sequence, self.offset, length) + self.transaction_id

    @classmethod
    def decode(cls, body: bytes) -> Self:
        """Read a row's body; raises RowError for another form."""
        sequence, offset, transaction_id = _decode_tagged(_CURSOR, body)
        return cls(sequence, offset, transaction_id)


def encode_point(point: Point) -> bytes:
    """Give the body of a point's row; its stream id is the row's key."""
    return _POINT.pack(point.message_id, len(point.name)) + point.name


def decode_point(body: bytes) -> tuple[int, bytes]:
    """Read a row's body: (message id, name); raises RowError for another form."""
    message_id, name = _decode_tagged(_POINT, body)
    return message_id, name


def _decode_tagged(form: struct.Struct, body: bytes) -> tuple[Any, ...]:
    """Split fixed fields, of which the last is the length of the bytes after them."""
    if len(body) < form.size:
        raise RowError("it is too short for its table")
    *fields, length = form.unpack_from(body)
    if len(body) != form.size + length:
        raise RowError("it is not as long as it says")
    return (*fields, body[form.size :])


@attrs.frozen
class Reject:
    """A vote that did not count, and why.

    `sequence` is 0 for what was refused before the log, else the failed event's.
    `position` is the frame's byte offset in what its peer sent, or None where
    there is no such place. `payload` holds the first 256 bytes at most;
    `payload_bytes` is the whole length.
    """

    time_ns: int
    reason: str
    cause: str
    peer: str
    position: int | None
    sequence: int
    payload_bytes: int
    payload: bytes = attrs.field(converter=_first_bytes)

    def encode(self) -> bytes:
        """Give the body of this reject's row: JSON, the payload in hex."""
        fields = attrs.asdict(self) | {"payload": self.payload.hex()}
        return json.dumps(fields, sort_keys=True).encode()

    @classmethod
    def decode(cls, body: bytes) -> Self:
        """Read a row's body; raises RowError for another form."""
        fields = _decode_json(body)
        try:
            reject = cls(**fields | {"payload": bytes.fromhex(fields["payload"])})
            check_types(reject)
        except (KeyError, TypeError, ValueError) as error:
            raise RowError(f"it is not a reject: {error}") from error
        return reject


@attrs.frozen
class Meta:
    """What a log is: identity, application, form of its records, and its base.

    `pipelines` may only grow. `base_sequence` is the sequence before the first
    block (0 in a new log), `base_checksum` the chain checksum there. `gaps` lists
    (first sequence, count) of every gap that salvage left.
    """

    log_id: str
    application: str
    pipelines: tuple[str, ...] = attrs.field(converter=_names)
    record_schema: str = OPAQUE
    created_ns: int = 0
    format_version: int = FORMAT_VERSION
    engine: str = ENGINE
    parent_id: str = ""
    base_sequence: int = 0
    base_checksum: int = 0
    gaps: tuple[tuple[int, int], ...] = attrs.field(default=(), converter=_pairs)

    def encode(self) -> bytes:
        """Give the body of the row: JSON with sorted keys."""
        return json.dumps(attrs.asdict(self), sort_keys=True).encode()

    @classmethod
    def decode(cls, body: bytes) -> Self:
        """Read a row's body; raises RowError for another form.

        A log of a newer format may say more than this program understands:
        only its version is looked at, and the caller refuses it.
        """
        fields = _decode_json(body)
        known = {field.name for field in attrs.fields(cls)}
        try:
            if fields.get("format_version", 0) > FORMAT_VERSION:
                fields = {name: fields[name] for name in known & fields.keys()}
            meta = cls(**fields)
            if meta.format_version <= FORMAT_VERSION:
                check_types(meta)
                _check_lists(meta)
        except (TypeError, ValueError) as error:
            raise RowError(f"it does not describe a log: {error}") from error
        return meta


def _check_lists(meta: Meta) -> None:
    """Raise TypeError unless pipelines are texts, and gaps numbers."""
    numbers = [number for gap in meta.gaps for number in gap]
    if not all(isinstance(name, str) for name in meta.pipelines):
        raise TypeError("its pipelines are no texts")
    if not all(isinstance(number, int) for number in numbers):
        raise TypeError("its gaps are no numbers")


def _decode_json(body: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise RowError(f"it is not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise RowError("it is not a JSON object")
    return fields
