"""Fields of binary frames, read one after the other, and never past the end.

Integers are big-endian; `bytes16` is a u16 length and that many bytes. Pure.
"""

import struct

import attrs

U16 = struct.Struct(">H")
U32 = struct.Struct(">I")
U64 = struct.Struct(">Q")


class WireError(ValueError):
    """Bytes that are not the fields they should be; the message says why."""


@attrs.define
class Fields:
    """Reads fields one after the other; raises WireError past the end."""

    data: bytes
    start: int = 0

    @property
    def left_bytes(self) -> int:
        """How much is left to read."""
        return len(self.data) - self.start

    def check_count(self, count: int, bytes_min: int) -> None:
        """Raise before anything is made for a count that the bytes cannot hold."""
        if count * bytes_min > self.left_bytes:
            raise WireError(f"it claims {count} entries, for which it is too short")

    def unpack(self, form: struct.Struct) -> tuple[int, ...]:
        """Read integers."""
        try:
            found = form.unpack_from(self.data, self.start)
        except struct.error:
            raise WireError(f"it is cut short after {len(self.data)} bytes") from None
        self.start += form.size
        return found

    def take(self, size: int) -> bytes:
        """Read so many bytes."""
        if len(self.data) - self.start < size:
            raise WireError(f"it is cut short after {len(self.data)} bytes")
        self.start += size
        return self.data[self.start - size : self.start]

    def bytes16(self) -> bytes:
        """Read bytes that their length comes before."""
        return self.take(*self.unpack(U16))

    def rest(self) -> bytes:
        """Read all that is left."""
        return self.take(len(self.data) - self.start)

    def end(self) -> None:
        """Raise WireError unless all has been read."""
        if self.start != len(self.data):
            raise WireError(f"{len(self.data) - self.start} bytes too many follow")


def bytes16(data: bytes) -> bytes:
    """Write bytes behind their length; raises WireError for too many."""
    try:
        return U16.pack(len(data)) + data
    except struct.error:
        raise WireError(f"{len(data)} bytes do not fit in a u16 length") from None
