"""How soon a peer that vanished without a word, or does not listen, is noticed.

A host that lost its power, or a network that drops everything, sends no end. The edge:
options of sockets.
"""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from alphabet.network.secure_socket import SecureSocket

IDLE_SECONDS = 30
"""How long nothing may come before the system asks whether the peer is there."""
INTERVAL_SECONDS = 10
ANSWERS_MISSED_MAX = 3

_OPTIONS = {
    "TCP_KEEPIDLE": IDLE_SECONDS,
    "TCP_KEEPINTVL": INTERVAL_SECONDS,
    "TCP_KEEPCNT": ANSWERS_MISSED_MAX,
}


def keep_alive(connection: socket.socket | SecureSocket) -> None:
    """Let the system end a connection whose peer answers nothing for a minute.

    A peer that is there and silent is let alone. See tcp(7); where a system lacks one
    of the options, its own times hold.
    """
    with contextlib.suppress(OSError):  # It may have ended already.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _OPTIONS.items():
            if hasattr(socket, name):
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def end_unread(listener: socket.socket, seconds: float) -> None:
    """Let the system end a connection whose peer takes nothing it is sent for so long.

    What it accepts from now on has that from `listener`. See tcp(7); where a system
    lacks the option, such a peer is let alone.
    """
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        milliseconds = round(seconds * 1000)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)
