"""A connection that was dialled or accepted, plain or with TLS. The edge: sockets."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from alphabet.network.keepalive import keep_alive

if TYPE_CHECKING:
    import ssl

    from alphabet.network.address import Address
    from alphabet.network.secure_socket import SecureSocket

CONNECT_SECONDS_MAX = 5.0
SPEAKS_TLS = "speaks TLS, and nothing else there (see --tls-ca)"
"""What a peer does that gives an alert for an answer, to end a sentence about it."""
_ALERT_BEGINS = b"\x15\x03"


def secured(
    accepted: socket.socket, context: ssl.SSLContext | None
) -> socket.socket | SecureSocket:
    """Serve a connection that was accepted, with TLS if there is a context."""
    if context is None:
        return accepted
    from alphabet.network.secure_socket import SecureSocket

    return SecureSocket.accept(accepted, context)


def connect(
    address: Address, seconds: float, context: ssl.SSLContext | None
) -> socket.socket | SecureSocket:
    """Connect, and agree on TLS if there is a context, each within so many seconds.

    Raises OSError.
    """
    connection = socket.create_connection((address.host, address.port), seconds)
    if context is None:
        return connection
    from alphabet.network.secure_socket import SecureSocket

    try:
        return SecureSocket.connect(connection, context, address.host, seconds)
    except BaseException:
        connection.close()
        raise


def is_alert(said: bytes) -> bool:
    """Say whether what came in plain TCP is how TLS complains: RFC 8446, 5.1, 6."""
    return said.startswith(_ALERT_BEGINS)


def dial(
    address: Address, context: ssl.SSLContext | None = None
) -> socket.socket | SecureSocket:
    """Connect for a sink, without blocking from then on; raises OSError."""
    connection = connect(address, CONNECT_SECONDS_MAX, context)
    connection.settimeout(0)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    keep_alive(connection)
    return connection
