"""A connection to a receiver, made ready for a sink. The edge: sockets."""

import socket

from alphabet.address import Address
from alphabet.keepalive import keep_alive

CONNECT_SECONDS_MAX = 5.0


def dial(address: Address) -> socket.socket:
    """Connect, without blocking from then on; raises OSError."""
    connection = socket.create_connection(
        (address.host, address.port), CONNECT_SECONDS_MAX
    )
    connection.settimeout(0)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    keep_alive(connection)
    return connection
