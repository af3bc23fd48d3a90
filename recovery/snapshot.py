"""One snapshot: every state of an application at one sequence, as bytes.

```
snapshot  = magic version:u8 header_bytes:u32 header states checksum:u32
header    = JSON: log id, sequence, the tail it was taken on, application, …
states    = the states' bytes, back to back, in the header's order
checksum  = CRC-32 of all before it
```
Integers are big-endian. The same bytes are the base state of a compacted log.

Pure: bytes in, values out. What a state's bytes mean is the application's affair.
"""

import itertools
import json
import struct
import zlib
from collections.abc import Iterable
from typing import Any, Self

import attrs

from log.row import check_types
from recovery.errors import SnapshotError

MAGIC = b"\xabSNAP"
FORMAT_VERSION = 1
HEAD_BYTES = 1 << 24
"""Within how many bytes a header ends: it names the states, and has none of them."""

_START = struct.Struct(">5sBI")
_CHECKSUM = struct.Struct(">I")


@attrs.frozen
class State:
    """One state's bytes, and the way they were made.

    `encoding` is `dump` (the state builder's own), `module` (the application
    module's `serialize`) or `pickle`.
    """

    name: str
    encoding: str
    data: bytes = attrs.field(repr=False)


@attrs.frozen
class Snapshot:
    """The states after event `sequence`, of the log `log_id`.

    `block_sequence` and `block_checksum` are the tail of the last whole block at
    or below `sequence`: the witness that the log still is the one it was.
    """

    log_id: str
    sequence: int
    block_sequence: int
    block_checksum: int
    application: str
    state_version: int
    states: tuple[State, ...]

    def encode(self) -> bytes:
        """Give the snapshot's bytes."""
        fields = attrs.asdict(self, recurse=False)
        fields["states"] = [
            [state.name, state.encoding, len(state.data)] for state in self.states
        ]
        header = json.dumps(fields, sort_keys=True).encode()
        start = _START.pack(MAGIC, FORMAT_VERSION, len(header))
        content = b"".join([start, header, *(state.data for state in self.states)])
        return content + _CHECKSUM.pack(zlib.crc32(content))

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Read a snapshot; raises SnapshotError for anything but a whole one."""
        if len(data) < _START.size + _CHECKSUM.size:
            raise SnapshotError(f"{len(data)} bytes are too few for a snapshot")
        magic, version, header_bytes = _START.unpack_from(data)
        if magic != MAGIC:
            raise SnapshotError("it does not begin with a snapshot's magic")
        end = len(data) - _CHECKSUM.size
        (checksum,) = _CHECKSUM.unpack_from(data, end)
        if zlib.crc32(memoryview(data)[:end]) != checksum:
            raise SnapshotError("its checksum does not match")
        if version != FORMAT_VERSION:
            raise SnapshotError(f"its format version is {version}")
        states_start = _START.size + header_bytes
        try:
            fields: dict[str, Any] = json.loads(data[_START.size : states_start])
            states = _cut_states(fields["states"], data[states_start:end])
            snapshot = cls(**fields | {"states": states})
            for each in (snapshot, *states):
                check_types(each)
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise SnapshotError(f"its header is not a snapshot's: {error}") from error
        return snapshot


def announced_bytes(head: bytes) -> int:
    """Give how many bytes a snapshot says that it has; 0 where it does not tell.

    `head` are its first `HEAD_BYTES`, or all it has. What it says may be wrong: only
    `Snapshot.decode` knows.
    """
    if len(head) < _START.size or not head.startswith(MAGIC):
        return 0
    states_start: int = _START.size + _START.unpack_from(head)[2]
    try:
        listed = json.loads(head[_START.size : states_start])["states"]
        sizes = [max(int(size), 0) for *_, size in listed]
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError):
        return 0
    return states_start + sum(sizes) + _CHECKSUM.size


def has_checksum(pieces: Iterable[bytes]) -> bool:
    """Say whether bytes, piece by piece, end with the checksum of all before it."""
    checksum, rest = 0, b""
    for piece in pieces:
        rest += piece
        checksum = zlib.crc32(memoryview(rest)[: -_CHECKSUM.size], checksum)
        rest = rest[-_CHECKSUM.size :]
    return rest == _CHECKSUM.pack(checksum)


def _cut_states(listed: list[tuple[str, str, int]], data: bytes) -> tuple[State, ...]:
    """Cut the states' bytes apart; raises ValueError unless they fill `data`."""
    if any(size < 0 for *_, size in listed):
        raise ValueError("a state has a negative size")
    ends = list(itertools.accumulate((size for *_, size in listed), initial=0))
    if ends[-1] != len(data):
        message = f"its states fill {len(data)} bytes, not {ends[-1]}"
        raise ValueError(message)
    return tuple(
        State(name, encoding, data[start:end])
        for (name, encoding, _), (start, end) in zip(
            listed, itertools.pairwise(ends), strict=True
        )
    )
