"""Which of several servers each vote goes to. Pure.

Servers are told by their place in a list, from 0. The same votes, from the first on,
go to the same places of a list of the same length, however they are cut into chunks: so
a stream for each place can be begun again and goes on where it was.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Literal

import attrs
import numpy as np

from alphabet.connector.message_span import HEADER_BYTES, Span

if TYPE_CHECKING:
    from collections.abc import Sequence

    Places = np.ndarray[tuple[int], np.dtype[np.intp]]
    Rows = np.ndarray[tuple[int, int], np.dtype[np.uint8]]

Way = Literal["letter", "hash", "round-robin"]
"""By a vote's letter, by all of the vote, or by its number in the input."""

_COLUMNS_MAX = 64
"""Longer payloads are hashed one by one: as columns they would take longer."""


def place_of(way: Way, servers: int, payload: bytes, number: int) -> int:
    """Give the place of one vote.

    Args:
        way: By what it is chosen. `letter` is the payload's first byte, `hash` its
            CRC-32.
        servers: How many there are, 1 at least.
        payload: The vote, without its header.
        number: How many votes of the input come before it.
    """
    if way == "letter":
        return (payload[0] if payload else 0) % servers
    if way == "hash":
        # The upper bits decide: they depend on all of the payload.
        return zlib.crc32(payload) * servers >> 32
    return number % servers


@attrs.define
class Spread:
    """Give each server its share of an input, chunk by chunk.

    Attributes:
        way: By what a vote's server is chosen.
        servers: How many there are, 1 at least.
        passed: How many votes of the input come before the next, at first those that
            are left out.
    """

    way: Way
    servers: int
    passed: int = 0

    def shares(self, frames: bytes) -> list[bytes]:
        """Take the next whole frames; give each server's, in their order."""
        span = Span.cut(0, frames)
        numbers = range(self.passed, self.passed + span.count)
        self.passed += span.count
        if span.frame_bytes is None:
            return self._share_each(span, numbers)
        rows = np.frombuffer(frames, np.uint8).reshape(-1, span.frame_bytes)
        places = self._places(rows[:, HEADER_BYTES:], numbers)
        votes = np.frombuffer(frames, f"V{span.frame_bytes}")
        return [votes[places == place].tobytes() for place in range(self.servers)]

    def _share_each(self, span: Span, numbers: Sequence[int]) -> list[bytes]:
        """Share frames of any size out, one by one."""
        shares = [bytearray() for _ in range(self.servers)]
        start = 0
        for number, end in zip(numbers, span.ends.tolist(), strict=True):
            frame = bytes(span.frames[start:end])
            shares[self._place(frame[HEADER_BYTES:], number)] += frame
            start = end
        return [bytes(share) for share in shares]

    def _place(self, payload: bytes, number: int) -> int:
        return place_of(self.way, self.servers, payload, number)

    def _places(self, payloads: Rows, numbers: range) -> Places:
        """Give the places of votes of one size, a payload a row."""
        if self.way == "round-robin":
            return np.arange(numbers.start, numbers.stop) % self.servers
        if self.way == "letter":
            return payloads[:, 0].astype(np.intp) % self.servers
        if payloads.shape[1] > _COLUMNS_MAX:
            each = zip(payloads, numbers, strict=True)
            found = (self._place(payload.tobytes(), number) for payload, number in each)
            return np.fromiter(found, np.intp, len(payloads))
        return (_checksums(payloads) * self.servers >> 32).astype(np.intp)


def _checksums(rows: Rows) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    """Give each row's CRC-32, as `zlib.crc32` has it: `u8[n]`."""
    sums = np.full(len(rows), 0xFFFFFFFF, np.uint32)
    for column in rows.T:
        sums = _CHECKSUMS[(sums ^ column) & 0xFF] ^ (sums >> np.uint32(8))
    return (~sums).astype(np.uint64)


def _checksum_table() -> np.ndarray[tuple[int], np.dtype[np.uint32]]:
    """Make the table of CRC-32, polynomial 0xEDB88320: what each byte adds."""
    sums = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        sums = np.where(sums & 1, np.uint32(0xEDB88320), np.uint32(0)) ^ (
            sums >> np.uint32(1)
        )
    return sums


_CHECKSUMS = _checksum_table()
