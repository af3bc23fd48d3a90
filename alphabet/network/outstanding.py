"""How much of what was sent the peer's TCP has not acknowledged. The edge: ioctl(2)."""

from __future__ import annotations

import array
import fcntl
import socket
import termios
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from alphabet.network.secure_socket import SecureSocket


def outstanding_bytes(connection: socket.socket | SecureSocket) -> int:
    """Tell how many bytes that were sent may not have arrived; never too few."""
    if isinstance(connection, socket.socket):
        return _outstanding(connection)
    return connection.outstanding(_outstanding(connection))


def _unacknowledged(connection: socket.socket | SecureSocket) -> int:
    """Ask the kernel for the bytes sent that the peer has not acknowledged."""
    answer = array.array("i", [0])
    fcntl.ioctl(connection, termios.TIOCOUTQ, answer)
    return answer[0]


def _send_buffer(connection: socket.socket | SecureSocket) -> int:
    """Where the kernel cannot say: all that its send buffer may hold."""
    return connection.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)


_outstanding: Callable[[socket.socket | SecureSocket], int] = (
    _unacknowledged if hasattr(termios, "TIOCOUTQ") else _send_buffer
)
