"""Take outputs from one connection after another, whole frames only.

A server that is started again connects again, so the end of a connection is no end
here; a frame that is unfinished then is dropped, for the server sends it once more.
An end in good order says that all was taken; who sent what cannot be is reset.
"""

from __future__ import annotations

import select
from typing import TYPE_CHECKING

import attrs

from alphabet.framing import FrameReader, decode_length, encode_frame
from alphabet.network.address import Address
from alphabet.network.closing import set_reset
from alphabet.network.dialing import secured

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Callable

    from alphabet.network.secure_socket import SecureSocket

HEADER_BYTES = 4
FRAME_BYTES_MAX = 1 << 20
"""The longest payload that is taken, inclusive."""

RECEIVE_BYTES = 1 << 18
"""How much is read at once."""


@attrs.define
class Receiver:
    """Take outputs until there are enough, or until it is told to stop.

    Attributes:
        listener: Listens for servers.
        stop: Becomes readable when it is time to stop.
        put: Takes outputs: whole frames, back to back. What it raises ends `run`.
        say: Takes a line about a connection that ended badly.
        expect: How many outputs are enough; None for no end.
        context: Makes it TLS; None for plain TCP.
        outputs: How many were taken so far.
    """

    listener: socket.socket
    stop: socket.socket
    put: Callable[[bytes], None]
    say: Callable[[str], None]
    expect: int | None = None
    context: ssl.SSLContext | None = None
    outputs: int = attrs.field(default=0, init=False)

    def run(self) -> None:
        """Take outputs; return when there are enough, or when `stop` says so."""
        while not self._enough() and self._await(self.listener):
            accepted, (host, port, *_) = self.listener.accept()
            with secured(accepted, self.context) as connection:
                self._take(connection, str(Address(host, port)))

    def _enough(self) -> bool:
        """Say whether as many outputs came as are expected."""
        return self.expect is not None and self.outputs >= self.expect

    def _await(self, source: socket.socket | SecureSocket) -> bool:
        """Wait for something to read; False if it is time to stop instead."""
        poll = select.poll()
        poll.register(source, select.POLLIN)
        poll.register(self.stop, select.POLLIN)
        return self.stop.fileno() not in dict(poll.poll())

    def _take(self, connection: socket.socket | SecureSocket, peer: str) -> None:
        """Take what comes over one connection."""
        reader = FrameReader(HEADER_BYTES, decode_length, FRAME_BYTES_MAX)
        while not self._enough() and reader.fault is None and self._await(connection):
            try:
                data = connection.recv(RECEIVE_BYTES)
            except BlockingIOError:
                continue
            except OSError as error:
                self.say(f"{peer}: the connection broke ({error.strerror or error})")
                data = b""
            try:
                self._put(reader.receive(data).payloads)
            except BaseException:
                set_reset(connection, is_on=True)
                raise
            if not data:
                reader.end()
                break
        if reader.fault:
            set_reset(connection, is_on=True)
            self.say(f"{peer}: byte {reader.fault.position}: {reader.fault.cause}")

    def _put(self, payloads: list[bytes]) -> None:
        """Hand on outputs, no more than are expected."""
        if self.expect is not None:
            payloads = payloads[: self.expect - self.outputs]
        if payloads:
            self.put(b"".join(map(encode_frame, payloads)))
            self.outputs += len(payloads)
