"""A socket that speaks TLS, with the methods of a plain one that we use.

The edge: it moves bytes between a socket and a `SecureChannel`.

Invariants:
    - After `recv` the socket itself says whether there is more: nothing that was
      decrypted is left inside, and behind the peer's end it stays readable.
    - `send` tells of bytes once all of their ciphertext is the kernel's. Until then it
      raises BlockingIOError, and is to be given the same bytes again: no more than one
      piece is ever held.
    - An end without close_notify is an error, never an end.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import time
from typing import TYPE_CHECKING, Self

import attrs

from alphabet.network.secure_channel import ChannelError, SecureChannel

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterable

PIECE_BYTES_MAX = 1 << 16
"""How much plaintext is made ciphertext at once."""
HANDSHAKE_READ_BYTES = 1 << 16
"""How much is read at once before the handshake is over, at most."""
SHORT_RECORD_BYTES = 1 << 9
SHORT_READ_BYTES = 1 << 14
"""How much is read at once of a peer whose last records were shorter than that.

A record costs the same, however short: a MiB of the shortest would hold up all others.
"""


@attrs.define(eq=False)
class SecureSocket:
    """A TLS connection over a socket that is its own from now on."""

    _socket: socket.socket
    channel: SecureChannel
    _claimed: int = attrs.field(default=0, init=False)
    _told: int = attrs.field(default=0, init=False)
    _read_bytes: int = attrs.field(default=HANDSHAKE_READ_BYTES, init=False)

    @classmethod
    def accept(cls, accepted: socket.socket, context: ssl.SSLContext) -> Self:
        """Be the server of a connection; `recv` shakes hands."""
        return cls(accepted, SecureChannel.of_server(context))

    @classmethod
    def connect(
        cls,
        connection: socket.socket,
        context: ssl.SSLContext,
        host: str,
        seconds: float,
    ) -> Self:
        """Be the client of a connection, and shake hands within so many seconds.

        Raises OSError. The socket is blocking again behind it.
        """
        until = time.monotonic() + seconds
        secure = cls(connection, SecureChannel.of_client(context, host))
        while not secure.channel.is_agreed:
            left = until - time.monotonic()
            if left <= 0:
                text = "no TLS was agreed in time (does it speak TLS?)"
                raise ChannelError(errno.ETIMEDOUT, text)
            connection.settimeout(left)
            secure._shake()
        connection.settimeout(None)
        secure.flush()
        return secure

    def __enter__(self) -> Self:
        """Give it."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def fileno(self) -> int:
        """The descriptor to wait for."""
        return self._socket.fileno()

    def settimeout(self, seconds: float | None) -> None:
        """Say how long anything may block."""
        self._socket.settimeout(seconds)

    def setsockopt(self, level: int, name: int, value: int | bytes) -> None:
        """Set an option of the socket."""
        self._socket.setsockopt(level, name, value)

    def getsockopt(self, level: int, name: int) -> int:
        """Get an option of the socket."""
        return self._socket.getsockopt(level, name)

    def recv(self, size: int) -> bytes:
        """Give plaintext, `size` bytes at most, or none at the peer's end.

        `size` must have room for a record. Raises BlockingIOError when what came makes
        no plaintext yet, ChannelError for a fault of the peer's, and OSError.
        """
        channel = self.channel
        if channel.fault is not None:
            # Kept as words: an error holds this socket, and all that was read.
            raise ChannelError(errno.EPROTO, channel.fault)
        if channel.is_ended:
            return b""
        if channel.outgoing:
            with contextlib.suppress(OSError):
                self.flush()
        # Plaintext is shorter than its ciphertext.
        room = max(1, size - channel.unfinished_bytes)
        data = self._socket.recv(min(room, self._read_bytes))
        if not data:
            raise ChannelError(errno.ECONNABORTED, "it was cut: no TLS end came before")
        try:
            plain = channel.receive(data)
        finally:
            with contextlib.suppress(OSError):
                self.flush()
        if len(data) < channel.records * SHORT_RECORD_BYTES:
            self._read_bytes = SHORT_READ_BYTES
        elif channel.is_agreed:
            self._read_bytes = min(2 * self._read_bytes, size)
        if channel.is_over:
            # Nothing is read behind it, and the kernel is to call this readable.
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RD)
            return plain
        if not plain:
            raise BlockingIOError(errno.EAGAIN, "no whole record came")
        return plain

    def recv_into(self, buffer: memoryview) -> int:
        """Give plaintext as `recv` does, into a buffer; say how much."""
        plain = self.recv(len(buffer))
        buffer[: len(plain)] = plain
        return len(plain)

    def send(self, data: bytes | bytearray | memoryview) -> int:
        """Send plaintext; say how much of it is the kernel's."""
        if not self.channel.is_agreed:
            raise BlockingIOError(errno.EAGAIN, "hands are not shaken")
        self.flush()
        if not self._claimed:
            piece = memoryview(data)[:PIECE_BYTES_MAX]
            self._claimed = len(piece)
            self.channel.send(piece)
            piece.release()
            self.flush()
        size, self._claimed = self._claimed, 0
        self._told += size
        return size

    def sendmsg(self, buffers: Iterable[bytes | memoryview]) -> int:
        """Send the first of these buffers, as `send` does."""
        pieces, room = [], PIECE_BYTES_MAX
        for buffer in buffers:
            pieces.append(buffer[:room])
            room -= len(pieces[-1])
            if not room:
                break
        return self.send(b"".join(pieces))

    def sendall(self, data: bytes | memoryview) -> None:
        """Send all of it, blocking as the socket does."""
        view = memoryview(data)
        while view:
            view = view[self.send(view) :]

    def shutdown(self, how: int) -> None:
        """Say that we send no more: close_notify, then TCP's end."""
        self.channel.end()
        self.flush()
        self._socket.shutdown(how)

    def close(self) -> None:
        """Close the socket; unless `shutdown` came before, the peer sees a cut."""
        self._socket.close()

    def outstanding(self, unacknowledged: int) -> int:
        """Tell how much that `send` told of may not have arrived.

        `unacknowledged` is what the peer's TCP has not acknowledged, ciphertext.
        """
        return max(0, self._told - self.channel.arrived(unacknowledged))

    def _shake(self) -> None:
        """Send what is due and take what comes, once, before hands are shaken."""
        self.flush()
        try:
            self.recv(HANDSHAKE_READ_BYTES)
        except BlockingIOError:
            pass
        except TimeoutError as error:
            text = "no TLS was agreed in time (does it speak TLS?)"
            raise ChannelError(errno.ETIMEDOUT, text) from error

    def flush(self) -> None:
        """Give the kernel all that the peer is to be sent; raises OSError."""
        channel = self.channel
        while channel.outgoing:
            channel.give(self._socket.send(channel.outgoing))
