"""A partitioned state: one state for each key, made when its key first comes.

The keys are a list that the application gives, and their order is part of it. Stored,
a partitioned state is

```
partition = keys_checksum:u32 (place:u32 state_bytes:u64 state)*
```
with the states that were made, by rising place of their key in the list. The checksum
is the CRC-32 of all keys as `repr` tells them, so that another list is noticed.
Integers are big-endian.

Pure.
"""

import struct
import zlib
from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import Any, Self

import attrs

from alphabet.pipeline.state_codec import StateCodec

_CHECKSUM = struct.Struct(">I")
_ROW = struct.Struct(">IQ")


@attrs.frozen
class PartitionKeyError(KeyError):
    """An event's key is not in the partition's list."""

    key: object
    kinds: tuple[str, ...]
    count: int

    def __str__(self) -> str:
        kinds = " or ".join(self.kinds)
        return (
            f"{self.key!r} ({type(self.key).__name__}) is none of the {self.count}"
            f" partition keys, which are {kinds}"
        )


@attrs.define
class Partition:
    """The states of one partition, by key; `places` has each key's place in its list.

    A state is made when its key first comes: which ones are there depends on the
    events alone.
    """

    places: Mapping[Hashable, int]
    build: Callable[[], Any]
    states: dict[Hashable, Any] = attrs.Factory(dict)

    @classmethod
    def of_keys(cls, keys: tuple[Hashable, ...], build: Callable[[], Any]) -> Self:
        """Make one with no states yet."""
        return cls({key: place for place, key in enumerate(keys)}, build)

    def state(self, key: Hashable) -> Any:  # noqa: ANN401 - a state is the application's
        """Give a key's state; raises PartitionKeyError for one that is not listed."""
        try:
            return self.states[key]
        except KeyError:
            pass
        if key not in self.places:
            kinds = dict.fromkeys(type(each).__name__ for each in self.places)
            raise PartitionKeyError(key, tuple(kinds), len(self.places))
        made = self.states[key] = self.build()
        return made

    def __iter__(self) -> Iterator[tuple[Hashable, Any]]:
        """Give the keys whose states were made, in the list's order, and the states."""
        # The list's own key stands for all that are equal to it.
        return ((key, self.states[key]) for key in self.places if key in self.states)


def partition_codec(
    inner: StateCodec, keys: tuple[Hashable, ...], build: Callable[[], Any]
) -> StateCodec:
    """Give the way between a partition and its bytes, from that of one state."""
    checksum = zlib.crc32("\0".join(map(repr, keys)).encode(errors="replace"))

    def dump(partition: Partition) -> bytes:
        pieces = [_CHECKSUM.pack(checksum)]
        for key, state in partition:
            data = bytes(memoryview(inner.dump(state)))
            pieces += [_ROW.pack(partition.places[key], len(data)), data]
        return b"".join(pieces)

    def load(data: bytes) -> Partition:
        partition = Partition.of_keys(keys, build)
        if _CHECKSUM.unpack_from(data)[0] != checksum:
            raise ValueError("it was stored with other partition keys")
        end = _CHECKSUM.size
        before = -1
        while end < len(data):
            place, size = _ROW.unpack_from(data, end)
            start = end + _ROW.size
            end = start + size
            if end > len(data) or not before < place < len(keys):
                raise ValueError("its rows are no partition's")
            partition.states[keys[place]] = inner.load(data[start:end])
            before = place
        return partition

    return StateCodec(inner.encoding, dump, load)
