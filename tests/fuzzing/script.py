"""What a target does, told by its input's bytes: pieces of a stream, or acts.

Any bytes tell something, so no input is wasted on a fuzzer's changes.
"""

import random
from collections.abc import Iterable, Iterator

Act = tuple[int, bytes]
"""What is done, 0 to 255, and with which bytes."""

_HEAD_BYTES = 3


def pieces(stream: bytes, plan: int) -> Iterator[bytes]:
    """Cut a stream in pieces, by a plan: 0 is whole, 1 is byte by byte."""
    if plan < 2:
        step = 1 if plan else max(len(stream), 1)
        yield from (stream[at : at + step] for at in range(0, len(stream), step))
        return
    sizes = random.Random(plan)
    while stream:
        size = sizes.choice([1, 2, 3, 9, 40, 300])
        yield stream[:size]
        stream = stream[size:]


def acts(data: bytes) -> Iterator[Act]:
    """Read acts, each a byte, a u16 length and so many bytes, or what is left."""
    while data:
        end = _HEAD_BYTES + int.from_bytes(data[1:_HEAD_BYTES])
        yield data[0], data[_HEAD_BYTES:end]
        data = data[end:]


def script(told: Iterable[Act]) -> bytes:
    """Write acts."""
    return b"".join(bytes([act]) + len(data).to_bytes(2) + data for act, data in told)
