"""A sender's connection, the listener it came by, and what sources take on.

Values and two helpers: who drives them is `reception`.
"""

import contextlib
import math
import socket
import struct

import attrs

from alphabet.framing import FrameReader
from alphabet.wallaroo import AnyDecoder

PARTIAL_BYTES_MAX = 64 << 20
"""What all unfinished frames together may hold."""

_LINGER = struct.Struct("ii")


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
    """A bound socket, and the pipeline that its connections feed."""

    socket: socket.socket
    pipeline: int
    decoder: AnyDecoder


@attrs.define(eq=False)
class Connection:
    """One sender: its socket, its framing, and since when a frame is unfinished.

    `farewell_until` is set once nothing more is said or heard: its socket closes then,
    or when the peer closes.
    """

    socket: socket.socket
    peer: str
    pipeline: int
    reader: FrameReader
    partial_since: float | None = None
    partial_bytes: int = 0
    farewell_until: float | None = None


def format_peer(address: tuple[str, int] | tuple[str, int, int, int]) -> str:
    """Write a peer's address as HOST:PORT, an IPv6 host in brackets."""
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def set_reset(connection: socket.socket, *, is_on: bool) -> None:
    """Decide what closing does: a reset, or a plain close.

    It is on from the first moment, so that the death of the process, which closes
    every socket, is no receipt either.
    """
    with contextlib.suppress(OSError):
        linger = _LINGER.pack(is_on, 0)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
