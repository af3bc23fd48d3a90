"""One block: the records committed together, as bytes that prove themselves.

The grammar is in docs/FORMAT.md and tests hold the two to each other. Invariants:

- `Block.decode(block.encoded) == block`, and no other bytes decode to it;
- a block carries the checksum of the block before it, so blocks form a chain;
- a block can be found and checked in raw bytes, without any index.

This module is pure: bytes in, values out. It knows nothing of LMDB, of files or
of what a record means.
"""

import itertools
import struct
import zlib
from collections.abc import Iterator, Sequence
from typing import Self

import attrs

MAGIC = b"\xabBLK"
FORMAT_VERSION = 1
FLAG_GAP = 0x01
BLOCK_BYTES_MAX = 1 << 30
SEQUENCE_MAX = 2**64 - 1

_HEADER = struct.Struct(">4sBBHQQQIIII")
_POINT = struct.Struct(">QQH")
_CHECKSUM = struct.Struct(">I")
HEADER_BYTES = _HEADER.size
_BYTES_MIN = HEADER_BYTES + _CHECKSUM.size
_NAME_BYTES_MAX = 2**16 - 1


class BlockError(ValueError):
    """Bytes that are not a whole, undamaged block; the message says why."""


@attrs.frozen
class Point:
    """A point of reference: the last committed message id of one source stream."""

    stream_id: int
    message_id: int
    name: bytes


@attrs.frozen
class Tail:
    """Where a log ends: its last sequence, that block's checksum, and its time."""

    sequence: int
    checksum: int
    time_ns: int = 0


@attrs.frozen
class Records:
    """Payloads as a block stores them.

    `record_bytes` is the one size of all records, which then stand back to back
    in `body`; or 0, and `body` begins with one u32 length per record. A gap has no
    body: it stands for `count` lost events, and gives no payloads.
    """

    count: int
    record_bytes: int
    body: bytes | memoryview = attrs.field(repr=False)
    is_gap: bool = False

    @classmethod
    def pack(cls, payloads: Sequence[bytes]) -> Self:
        """Store payloads, without any overhead per record where sizes agree."""
        sizes = set(map(len, payloads))
        body = b"".join(payloads)
        if len(sizes) == 1 and (size := sizes.pop()):
            return cls(len(payloads), size, body)
        lengths = struct.pack(f">{len(payloads)}I", *map(len, payloads))
        return cls(len(payloads), 0, lengths + body)

    @classmethod
    def join(cls, parts: Sequence[Self]) -> Self:
        """Store the records of several parts as one, in order."""
        if len(parts) == 1:
            return parts[0]
        sizes = {part.record_bytes for part in parts}
        if len(sizes) == 1 and (size := sizes.pop()):
            count = sum(part.count for part in parts)
            return cls(count, size, b"".join([part.body for part in parts]))
        return cls.pack([payload for part in parts for payload in part])

    @classmethod
    def gap(cls, count: int) -> Self:
        """Stand for `count` lost events; only salvage writes this."""
        return cls(count, 0, b"", is_gap=True)

    def __iter__(self) -> Iterator[bytes]:
        """Give the payloads back in order."""
        if self.is_gap:
            return iter(())
        if self.record_bytes:
            size = self.record_bytes
            starts = range(0, len(self.body), size)
            body = bytes(self.body)
            return (body[start : start + size] for start in starts)
        lengths = struct.unpack_from(f">{self.count}I", self.body)
        ends = itertools.accumulate(lengths, initial=4 * self.count)
        return (bytes(self.body[a:b]) for a, b in itertools.pairwise(ends))

    def cut(self, start: int, stop: int) -> Self:
        """Give the records from index `start` (inclusive) to `stop` (exclusive)."""
        stop = min(stop, self.count)
        start = min(max(start, 0), stop)
        if (start, stop) == (0, self.count):
            return self
        if self.is_gap:
            return type(self)(stop - start, 0, b"", is_gap=True)
        if size := self.record_bytes:
            body = self.body[start * size : stop * size]
            return type(self)(stop - start, size, body)
        return self.pack(list(itertools.islice(self, start, stop)))

    def check(self) -> None:
        """Raise BlockError unless `count` records fill `body` exactly."""
        if self.is_gap:
            expected = 0
        elif self.record_bytes:
            expected = self.count * self.record_bytes
        elif len(self.body) < 4 * self.count:
            raise BlockError("the table of record lengths is cut short")
        else:
            lengths = struct.unpack_from(f">{self.count}I", self.body)
            expected = 4 * self.count + sum(lengths)
        if len(self.body) != expected:
            raise BlockError(f"records fill {len(self.body)} bytes, not {expected}")


@attrs.frozen
class Block:
    """Events `first_sequence` to `last_sequence` (both inclusive) of one pipeline.

    `encoded` holds the block's bytes as stored.
    """

    first_sequence: int
    time_ns: int
    pipeline: int
    previous_checksum: int
    points: tuple[Point, ...]
    records: Records
    checksum: int
    encoded: bytes = attrs.field(repr=False)

    @property
    def last_sequence(self) -> int:
        """The sequence of the last event, inclusive."""
        return self.first_sequence + self.records.count - 1

    @property
    def tail(self) -> Tail:
        """What the next block must follow."""
        return Tail(self.last_sequence, self.checksum, self.time_ns)

    @classmethod
    def seal(
        cls,
        after: Tail,
        records: Records,
        *,
        time_ns: int,
        pipeline: int = 0,
        points: Sequence[Point] = (),
    ) -> Self:
        """Make the block that follows `after`.

        `time_ns` is the wall clock; a clock that went back is overruled by the
        time of the block before. Raises ValueError for no records, too many, or a
        body that they do not fill.
        """
        if not 0 < records.count <= SEQUENCE_MAX - after.sequence:
            raise ValueError(f"a block cannot hold {records.count} events here")
        records.check()
        named = [
            _POINT.pack(point.stream_id, point.message_id, len(point.name)) + point.name
            for point in points
        ]
        block_bytes = _BYTES_MIN + sum(map(len, named)) + len(records.body)
        if block_bytes > BLOCK_BYTES_MAX:
            raise ValueError(f"a block of {block_bytes} bytes is too large")
        header = _HEADER.pack(
            MAGIC,
            FORMAT_VERSION,
            FLAG_GAP if records.is_gap else 0,
            pipeline,
            after.sequence + 1,
            records.count,
            max(time_ns, after.time_ns),
            after.checksum,
            block_bytes,
            records.record_bytes,
            len(named),
        )
        head = b"".join([header, *named])
        checksum = zlib.crc32(records.body, zlib.crc32(head))
        encoded = b"".join([head, records.body, _CHECKSUM.pack(checksum)])
        return cls(
            first_sequence=after.sequence + 1,
            time_ns=max(time_ns, after.time_ns),
            pipeline=pipeline,
            previous_checksum=after.checksum,
            points=tuple(points),
            records=records,
            checksum=checksum,
            encoded=encoded,
        )

    @classmethod
    def decode(cls, data: bytes, start: int = 0) -> Self:
        """Read the block that begins at `data[start]`; more bytes may follow it.

        Raises BlockError, with the reason, for anything but a whole block of a
        format version that this program knows.
        """
        if len(data) - start < _BYTES_MIN:
            raise BlockError(f"{len(data) - start} bytes are too few for a block")
        (
            magic,
            version,
            flags,
            pipeline,
            first_sequence,
            count,
            time_ns,
            previous_checksum,
            block_bytes,
            record_bytes,
            point_count,
        ) = _HEADER.unpack_from(data, start)
        if magic != MAGIC:
            raise BlockError("it does not begin with a block's magic")
        if not _BYTES_MIN <= block_bytes <= min(BLOCK_BYTES_MAX, len(data) - start):
            raise BlockError(f"its length says {block_bytes} bytes")
        end = start + block_bytes - _CHECKSUM.size
        (checksum,) = _CHECKSUM.unpack_from(data, end)
        if zlib.crc32(memoryview(data)[start:end]) != checksum:
            raise BlockError("its checksum does not match")
        _check_header(version, flags, first_sequence, count)
        points, body_start = _decode_points(
            data, start + HEADER_BYTES, end, point_count
        )
        records = Records(
            count,
            record_bytes,
            memoryview(data)[body_start:end],
            is_gap=bool(flags & FLAG_GAP),
        )
        records.check()
        return cls(
            first_sequence=first_sequence,
            time_ns=time_ns,
            pipeline=pipeline,
            previous_checksum=previous_checksum,
            points=points,
            records=records,
            checksum=checksum,
            # A slice of all of it is the same bytes, uncopied.
            encoded=data[start : start + block_bytes],
        )


def claimed_bytes(data: bytes, start: int = 0) -> int | None:
    """Give the length that the header at `data[start]` claims for its block.

    None where no block can have such a header, whatever its records are. It takes the
    same time for every header, which is all that it looks at.
    """
    if len(data) - start < HEADER_BYTES:
        return None
    fields = _HEADER.unpack_from(data, start)
    magic, version, flags, _, first_sequence, count, *_ = fields
    block_bytes, record_bytes, point_count = fields[-3:]
    try:
        _check_header(version, flags, first_sequence, count)
    except BlockError:
        return None
    least = _BYTES_MIN + point_count * _POINT.size
    names_bytes_max = point_count * _NAME_BYTES_MAX
    if flags & FLAG_GAP:
        most = least + names_bytes_max
    elif record_bytes:
        least += count * record_bytes
        most = least + names_bytes_max
    else:
        least += 4 * count
        most = BLOCK_BYTES_MAX
    is_possible = least <= block_bytes <= min(most, BLOCK_BYTES_MAX)
    return block_bytes if magic == MAGIC and is_possible else None


def _check_header(version: int, flags: int, first_sequence: int, count: int) -> None:
    """Raise BlockError for numbers that no block has."""
    if version != FORMAT_VERSION:
        raise BlockError(f"its format version is {version}")
    if flags & ~FLAG_GAP:
        raise BlockError(f"its flags are {flags:#04x}")
    if not first_sequence or not 0 < count <= SEQUENCE_MAX - first_sequence + 1:
        raise BlockError(f"it claims {count} events from {first_sequence}")


def _decode_points(
    data: bytes, start: int, end: int, count: int
) -> tuple[tuple[Point, ...], int]:
    """Read `count` points and say where they end; raise BlockError past `end`."""
    points = []
    for _ in range(count):
        name_start = start + _POINT.size
        if name_start > end:
            raise BlockError("its points of reference are cut short")
        stream_id, message_id, name_bytes = _POINT.unpack_from(data, start)
        start = name_start + name_bytes
        if start > end:
            raise BlockError("its points of reference are cut short")
        points.append(Point(stream_id, message_id, data[name_start:start]))
    return tuple(points), start
