"""What a reception asks of the kind of source whose connections it drives."""

from collections.abc import Callable
from typing import Protocol

from alphabet.framing import FrameFault, FrameReader, Frames
from alphabet.source.connection import Connection, Listener


class Host(Protocol):
    """What a kind of source does with its connections, in the reception's thread."""

    on_read: Callable[[], None]
    """Called after each round of reading."""

    def frame_reader(self, listener: Listener) -> FrameReader:
        """Make what cuts a new connection's stream."""

    def admit(self, connection: Connection) -> None:
        """Take note of a new connection."""

    def receive(self, connection: Connection, frames: Frames, held_bytes: int) -> None:
        """Take whole frames, which hold so many bytes with the reads they borrow."""

    def refuse(self, connection: Connection, fault: FrameFault) -> None:
        """End a connection for cause; what it sent before counts."""

    def half_closed(self, connection: Connection) -> None:
        """Take note that a connection sends no more, and ended between two frames."""

    def lost(self, connection: Connection) -> None:
        """Take note that a connection is gone, between two frames."""

    def write(self, connection: Connection) -> None:
        """Say what had to wait until the connection takes more."""

    def heed(self) -> None:
        """Act on the receipts that have come."""

    def check(self, now: float) -> None:
        """Do what is due once a second, while reading goes on."""

    def end(self) -> None:
        """End every connection: all that will ever be durable is."""
