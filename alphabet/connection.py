"""A sender's connection, the listener it came by, and what sources take on.

Values and helpers: who drives them is `reception`.
"""

from __future__ import annotations

import contextlib
import math
import socket
import struct
from typing import TYPE_CHECKING, Self

import attrs

if TYPE_CHECKING:
    from alphabet.certificates import Certificates
    from alphabet.framing import FrameFault, FrameReader
    from alphabet.secure_socket import SecureSocket
    from alphabet.wallaroo import AnyDecoder

PARTIAL_BYTES_MAX = 64 << 20
"""What all unfinished frames together may hold."""

Socket = socket.socket
_LINGER = struct.Struct("ii")
_TLS_BEGINS = b"\x16\x03"
"""The first bytes of a TLS connection: RFC 8446, 5.1."""


@attrs.frozen
class Limits:
    """How much the sources of a kind take on; each is an option of `alphabet run`."""

    frame_bytes_max: int = 1 << 20
    connections_max: int = 10_000
    partial_frame_seconds_max: float = 60.0
    partial_bytes_max: int = PARTIAL_BYTES_MAX
    connections_room: float = math.inf
    """How many there are files for; further ones wait until one of them has gone."""


@attrs.frozen(eq=False)
class Listener:
    """A bound socket, and the pipeline that its connections feed.

    Connections speak TLS if there are certificates for it.
    """

    socket: socket.socket
    pipeline: int
    decoder: AnyDecoder
    certificates: Certificates | None = None


@attrs.define(eq=False)
class Connection:
    """One sender: its socket, its framing, and since when a frame is unfinished.

    `farewell_until` is set once nothing more is said or heard: its socket closes then,
    or when the peer closes. `secure` is the socket where it speaks TLS, which is to be
    agreed on until `agree_until`; `sealed_bytes` is what that holds.
    """

    socket: socket.socket | SecureSocket
    peer: str
    pipeline: int
    reader: FrameReader
    partial_since: float | None = None
    partial_bytes: int = 0
    farewell_until: float | None = None
    secure: SecureSocket | None = None
    agree_until: float = 0.0
    sealed_bytes: int = 0

    @classmethod
    def open(
        cls, accepted: Socket, peer: str, listener: Listener, reader: FrameReader
    ) -> Self:
        """Begin a connection, as its listener has it: plain or with TLS."""
        context = listener.certificates and listener.certificates.server
        if context is None:
            return cls(accepted, peer, listener.pipeline, reader)
        from alphabet.secure_socket import SecureSocket

        secure = SecureSocket.accept(accepted, context)
        return cls(secure, peer, listener.pipeline, reader, secure=secure)

    @property
    def is_agreed(self) -> bool:
        """Say whether votes may come: at once, or when TLS is agreed on."""
        return self.secure is None or self.secure.channel.is_agreed


def format_peer(address: tuple[str, int] | tuple[str, int, int, int]) -> str:
    """Write a peer's address as HOST:PORT, an IPv6 host in brackets."""
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def explain_tls(fault: FrameFault) -> FrameFault:
    """Say so where what is no frame is how TLS begins."""
    if fault.position or not fault.header.startswith(_TLS_BEGINS):
        return fault
    hint = "it begins as TLS does, and this port speaks plain TCP"
    return attrs.evolve(fault, cause=f"{fault.cause}; {hint}")


def set_reset(connection: socket.socket | SecureSocket, *, is_on: bool) -> None:
    """Decide what closing does: a reset, or a plain close.

    It is on from the first moment, so that the death of the process, which closes
    every socket, is no receipt either.
    """
    with contextlib.suppress(OSError):
        linger = _LINGER.pack(is_on, 0)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
