"""What closing a connection tells the peer: that all is well, or nothing at all.

To a sender an end in good order is the receipt. So whatever else it may have been given
the address of must reset a connection that it did not understand. The edge: options of
sockets.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from alphabet.network.secure_socket import SecureSocket

_LINGER = struct.Struct("ii")


def set_reset(connection: socket.socket | SecureSocket, *, is_on: bool) -> None:
    """Decide what closing does: a reset, or a plain close.

    What a listener accepts from now on has it from the listener. A source has it on
    from the first moment, so that the death of the process, which closes every socket,
    is no receipt either. See socket(7), SO_LINGER.
    """
    with contextlib.suppress(OSError):
        linger = _LINGER.pack(is_on, 0)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
