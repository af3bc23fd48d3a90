"""What a server has promised over the connector protocol, read off the wire.

An independent reader, written from the protocol's text with nothing of the product in
it. It is given what a server said on each connection, and says what must then be in the
server's log, whenever it is killed.
"""

import struct
from collections.abc import Iterable, Iterator

NO_POINT = 2**64 - 1
NOTIFY_ACK, MESSAGE, ACK = 4, 5, 6
PHASE1, PHASE2 = 203, 205
MESSAGE_HEAD_BYTES = 26
"""Both ids, the event time and the length of a key."""


def acknowledged(said: Iterable[bytes | bytearray]) -> dict[int, int]:
    """Give each stream's highest point that a source's server has told a sender."""
    points: dict[int, int] = {}
    for data in said:
        for stream, point in _points(data):
            if point != NO_POINT:
                points[stream] = max(point, points.get(stream, 0))
    return points


def shown(said: Iterable[bytes | bytearray]) -> int:
    """Give the end, in all outputs, of the furthest output that a sink was sent."""
    return max(
        (
            message + len(payload)
            for data in said
            for stream, message, payload in _messages(data)
            if stream == 1
        ),
        default=0,
    )


def decided(said: Iterable[bytes | bytearray]) -> int:
    """Give the end, in all outputs, of the furthest commit that a sink was told of."""
    ends: dict[bytes, int] = {}
    furthest = 0
    for data in said:
        for stream, _, payload in _messages(data):
            if stream != 0:
                continue
            tag, size = payload[0], int.from_bytes(payload[1:3])
            name, rest = payload[3 : 3 + size], payload[3 + size :]
            if tag == PHASE1:
                ends[name] = max(
                    end for _, _, end in struct.iter_unpack(">QQQ", rest[4:])
                )
            elif tag == PHASE2 and rest[0]:
                furthest = max(furthest, ends.get(name, 0))
    return furthest


def _points(data: bytes | bytearray) -> Iterator[tuple[int, int]]:
    for kind, body in _frames(data):
        if kind == NOTIFY_ACK and body[0]:
            yield struct.unpack_from(">QQ", body, 1)
        elif kind == ACK:
            yield from struct.iter_unpack(">QQ", body[8:])


def _messages(data: bytes | bytearray) -> Iterator[tuple[int, int, bytes]]:
    for kind, body in _frames(data):
        if kind == MESSAGE:
            stream, message, _, key_bytes = struct.unpack_from(">QQqH", body)
            yield stream, message, body[MESSAGE_HEAD_BYTES + key_bytes :]


def _frames(data: bytes | bytearray) -> Iterator[tuple[int, bytes]]:
    """Give the whole frames, as type and body."""
    data, place = bytes(data), 0
    while place + 5 <= len(data):
        size = int.from_bytes(data[place : place + 4])
        end = place + 4 + size
        if end > len(data):
            return
        yield data[place + 4], data[place + 5 : end]
        place = end
