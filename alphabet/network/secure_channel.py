"""One end of a TLS connection, without the connection.

It is fed what came from the peer and gives plaintext; it is fed plaintext and gives
what the peer is to be sent.

Invariants:
    - `receive` leaves nothing behind that is decrypted, so that who waits for the
      socket waits for all there is; only an unfinished record is held.
    - The end is the peer's close_notify and nothing else.
    - `arrived` never says more than what the peer's TCP has acknowledged: a record
      counts with its last byte, and what TLS itself says counts for nothing.

Sans-IO. RFC 8446 is TLS 1.3, RFC 5246 TLS 1.2.
"""

import contextlib
import errno
import ssl
from collections import deque
from typing import Self

import attrs

from alphabet.network.tls import explain

RECORD_BYTES_MAX = 1 << 14
"""The longest plaintext of a record: RFC 8446, 5.1."""
_READ_BYTES = 1 << 14
_FEED_BYTES = 1 << 14
"""How much OpenSSL is given at once: it never gives back the room that this took."""
_HANDSHAKE_TYPE = 0x16
_UNEXPECTED_MESSAGE = b"\x15\x03\x01\x00\x02\x02\x0a"
"""The alert for what is no TLS, before a version is agreed: RFC 8446, 5.1, 6."""
_HEAD_BYTES = 5
"""A record's type, version and length: RFC 8446, 5.1."""


class ChannelError(OSError):
    """TLS failed, by the peer's fault; `strerror` says how."""


@attrs.define(eq=False)
class SecureChannel:
    """One end.

    Attributes:
        is_agreed: Whether the handshake is over on this side.
        is_ended: Whether the peer has said that it sends no more.
        fault: What is wrong with the peer, in words; nothing is read behind it.
        outgoing: What the peer is to be sent, and was not given away yet.
        records: How many records ended in what was received last.
    """

    _object: ssl.SSLObject
    _incoming: ssl.MemoryBIO
    _sealed: ssl.MemoryBIO
    is_agreed: bool = attrs.field(default=False, init=False)
    is_ended: bool = attrs.field(default=False, init=False)
    fault: str | None = attrs.field(default=None, init=False)
    outgoing: memoryview = attrs.field(default=memoryview(b""), init=False)
    records: int = attrs.field(default=0, init=False)
    _is_first: bool = attrs.field(default=True, init=False)
    _head: bytes = attrs.field(default=b"", init=False)
    _missing_bytes: int = attrs.field(default=0, init=False)
    _unfinished_bytes: int = attrs.field(default=0, init=False)
    _greeting_bytes: int = attrs.field(default=0, init=False)
    _given_bytes: int = attrs.field(default=0, init=False)
    _sealed_bytes: int = attrs.field(default=0, init=False)
    _plain_bytes: int = attrs.field(default=0, init=False)
    _arrived: int = attrs.field(default=0, init=False)
    _borders: deque[tuple[int, int]] = attrs.field(factory=deque, init=False)

    @classmethod
    def of_server(cls, context: ssl.SSLContext) -> Self:
        """Be the end that is dialled."""
        incoming, sealed = ssl.MemoryBIO(), ssl.MemoryBIO()
        return cls(
            context.wrap_bio(incoming, sealed, server_side=True), incoming, sealed
        )

    @classmethod
    def of_client(cls, context: ssl.SSLContext, host: str) -> Self:
        """Be the end that dials a host, whose certificate must be for that name.

        Raises ChannelError for a name that no certificate can have.
        """
        incoming, sealed = ssl.MemoryBIO(), ssl.MemoryBIO()
        try:
            wrapped = context.wrap_bio(incoming, sealed, server_hostname=host)
        except ValueError as error:
            text = f"no certificate can be for {host!r}"
            raise ChannelError(errno.EPROTO, text) from error
        channel = cls(wrapped, incoming, sealed)
        channel._is_first = False
        channel._advance()
        channel._collect()
        return channel

    @property
    def is_over(self) -> bool:
        """Say whether nothing more is read: the peer has ended, or is at fault."""
        return self.is_ended or self.fault is not None

    @property
    def unfinished_bytes(self) -> int:
        """How much there is of a record that is not whole."""
        return self._unfinished_bytes

    @property
    def held_bytes(self) -> int:
        """How much is held: of a record that is not whole, and not given away.

        Before hands are shaken it is all that came: a hello may be of many records.
        """
        received_bytes = max(self._greeting_bytes, self._unfinished_bytes)
        return received_bytes + len(self.outgoing)

    def receive(self, data: bytes) -> bytes:
        """Take what came from the peer; give what it says, none of it left behind.

        Raises ChannelError, unless something good came before it, which is given first;
        `fault` says what it was, and what is in `outgoing` tells the peer.
        """
        if self._is_first and data:
            self._is_first = False
            if data[0] != _HANDSHAKE_TYPE:
                self.fault = "it does not speak TLS, and nothing else is spoken here"
                self.outgoing = memoryview(_UNEXPECTED_MESSAGE)
                raise ChannelError(errno.EPROTO, self.fault)
        self._follow(data)
        self._greeting_bytes += len(data)
        plain: list[bytes] = []
        view = memoryview(data)
        try:
            while view and not self.is_ended:
                self._incoming.write(view[:_FEED_BYTES])
                view = view[_FEED_BYTES:]
                if not self.is_agreed:
                    self._advance()
                if self.is_agreed:
                    self._greeting_bytes = 0
                    self._read(plain)
        except ssl.SSLError as error:
            self.fault = explain(error)
            if not plain:
                raise ChannelError(errno.EPROTO, self.fault) from error
        finally:
            self._collect()
        return b"".join(plain)

    def send(self, data: memoryview) -> None:
        """Make records of plaintext, behind all that is in `outgoing`.

        Raises ChannelError.
        """
        try:
            while data:
                written = self._object.write(data[:RECORD_BYTES_MAX])
                data = data[written:]
                self._collect()
                self._plain_bytes += written
                self._borders.append((self._sealed_bytes, self._plain_bytes))
        except ssl.SSLError as error:
            raise ChannelError(errno.EPROTO, explain(error)) from error

    def end(self) -> None:
        """Say close_notify: we send no more. The peer may go on."""
        # It also looks for the peer's, which has not come or is known of.
        with contextlib.suppress(ssl.SSLError):
            self._object.unwrap()
        self._collect()

    def give(self, size: int) -> None:
        """Note that the network took so many bytes of `outgoing`."""
        self.outgoing = self.outgoing[size:]
        self._given_bytes += size

    def arrived(self, unacknowledged: int) -> int:
        """Tell how much plaintext has arrived, by what TCP has not acknowledged."""
        reached = self._given_bytes - unacknowledged
        while self._borders and self._borders[0][0] <= reached:
            _, self._arrived = self._borders.popleft()
        return self._arrived

    def _follow(self, data: bytes) -> None:
        """Keep how much there is of the last record: OpenSSL does not tell."""
        start = self.records = 0
        while start < len(data):
            if self._missing_bytes:
                size = min(self._missing_bytes, len(data) - start)
                self._missing_bytes -= size
            else:
                piece = data[start : start + _HEAD_BYTES - len(self._head)]
                size = len(piece)
                self._head += piece
                if len(self._head) == _HEAD_BYTES:
                    self._missing_bytes = int.from_bytes(self._head[3:], "big")
                    self._head = b""
            start += size
            self._unfinished_bytes += size
            if not (self._missing_bytes or self._head):
                self._unfinished_bytes = 0
                self.records += 1

    def _advance(self) -> None:
        with contextlib.suppress(ssl.SSLWantReadError):
            self._object.do_handshake()
            self.is_agreed = True

    def _read(self, plain: list[bytes]) -> None:
        """Put behind `plain` what is decrypted, also where that ends in an error."""
        try:
            while piece := self._object.read(_READ_BYTES):
                plain.append(piece)
            self.is_ended = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.is_ended = True

    def _collect(self) -> None:
        """Put what OpenSSL has to say behind what was there."""
        new = self._sealed.read()
        if new:
            self._sealed_bytes += len(new)
            self.outgoing = memoryview(bytes(self.outgoing) + new)
