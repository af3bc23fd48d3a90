"""What the server knows of the page that shows it: that it starts, and that it stops.

The page itself is `alphabet.web`, which knows the server; this way the arrow points one
way.
"""

import socket
from typing import Protocol


class Page(Protocol):
    """Whoever shows the server to people, from a thread of its own."""

    listener: socket.socket

    def start(self) -> None:
        """Begin to show it."""

    def stop(self) -> None:
        """Stop showing it."""
