"""The CRC-32 of any stretch of a file, without reading the stretch again.

The file is read once, as far as it is asked for, and the checksum up to the end of
each of its parts is kept. Two of these give the checksum of what lies between: a
CRC-32 is a remainder of polynomials over GF(2), and that of the bytes before a place
counts, in the one of all bytes, times a power of x for each byte that follows.

Pure: it reads through what it is given.
"""

import array
import functools
import zlib
from collections.abc import Callable

import attrs

PART_BYTES = 1 << 14
"""How far apart the checksums are that are kept: four bytes are held for each part."""

_READ_BYTES = 1 << 20
_POLYNOMIAL = 0xEDB88320
_ONE = 1 << 31
"""Polynomials have their highest power in the lowest bit, as zlib has them."""


@attrs.define
class PartChecksums:
    """The checksums of a file's parts, from the place `origin` on.

    `read` gives as many bytes as it is asked for from a place on, or what is left.
    """

    read: Callable[[int, int], bytes]
    origin: int
    _sums: "array.array[int]" = attrs.Factory(lambda: array.array("I", [0]))

    def between(self, start: int, stop: int) -> int:
        """Give the CRC-32 from `start` (inclusive, at or behind `origin`) to `stop`.

        `stop` is exclusive, and not beyond the file's end. What is read for it is less
        than two parts, besides what nobody asked for before.
        """
        before, whole = self._until(start), self._until(stop)
        return whole ^ _product(before, _power(stop - start))

    def _until(self, place: int) -> int:
        """Give the checksum from the origin to a place (exclusive)."""
        part, rest = divmod(place - self.origin, PART_BYTES)
        while len(self._sums) <= part:
            self._read_on()
        return zlib.crc32(
            self.read(self.origin + part * PART_BYTES, rest), self._sums[part]
        )

    def _read_on(self) -> None:
        """Read some more parts, all of them whole."""
        start = self.origin + (len(self._sums) - 1) * PART_BYTES
        data = memoryview(self.read(start, max(_READ_BYTES, PART_BYTES)))
        for stop in range(PART_BYTES, len(data) + 1, PART_BYTES):
            part = data[stop - PART_BYTES : stop]
            self._sums.append(zlib.crc32(part, self._sums[-1]))


@functools.lru_cache
def _power(count: int) -> int:
    """Give what a polynomial is multiplied with for `count` bytes that follow."""
    power = _ONE
    for bit in range(count.bit_length()):
        if count >> bit & 1:
            power = _product(power, _doubled(bit))
    return power


@functools.cache
def _doubled(bit: int) -> int:
    """Give the power for 2**bit bytes."""
    if not bit:
        return _ONE >> 8
    return _product(_doubled(bit - 1), _doubled(bit - 1))


def _product(one: int, other: int) -> int:
    """Multiply two polynomials, modulo the CRC's."""
    product = 0
    while one:
        if one & _ONE:
            product ^= other
        one = one << 1 & 0xFFFFFFFF
        other = other >> 1 ^ (_POLYNOMIAL if other & 1 else 0)
    return product
