"""The plain TCP sources: what frames, ends and receipts mean without a protocol.

A sender that half-closes is kept open until the engine's receipt: then the server
closes its side, and the sender knows that all is durable. A connection ended for cause,
or by the server's stop or death, is reset. Accepting and reading is `Reception`'s.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence

import attrs

from alphabet.arrival import End, Received, Refusal
from alphabet.framing import FrameFault, FrameReader, Frames
from alphabet.journal.journal import Journal
from alphabet.source.connection import Connection, Limits, Listener
from alphabet.source.inbox import Inbox
from alphabet.source.reception import Reception
from log.row import Reject

IN = "in"
"""The option that asks for a plain listener, without its dashes."""


@attrs.define(eq=False)
class Sources:
    """All plain listeners and connections; a `Host` whose `reception` drives it.

    `on_read` is called after each round of reading.
    """

    listeners: Sequence[Listener]
    inbox: Inbox
    limits: Limits
    journal: Journal
    on_read: Callable[[], None] = lambda: None
    wall_clock_ns: Callable[[], int] = time.time_ns
    reception: Reception = attrs.field(init=False)
    _settled: deque[Connection] = attrs.field(factory=deque, init=False)

    def __attrs_post_init__(self) -> None:
        """Have a reception of its own."""
        self.reception = Reception(
            self, IN, self.listeners, self.inbox, self.limits, self.journal
        )

    def settle(self, connections: Iterable[object]) -> None:
        """Give receipts: all that these senders sent before their end is durable."""
        for connection in connections:
            if isinstance(connection, Connection):
                self._settled.append(connection)
        self.reception.waker.wake()

    def frame_reader(self, listener: Listener) -> FrameReader:
        """Cut as the pipeline's decoder says."""
        decoder = listener.decoder
        return FrameReader(
            decoder.header_length(), decoder.payload_length, self.limits.frame_bytes_max
        )

    def admit(self, connection: Connection) -> None:
        """Wait for its first frame: there is no greeting."""

    def receive(self, connection: Connection, frames: Frames, held_bytes: int) -> None:
        """Hand votes on."""
        received = Received(connection, connection.peer, connection.pipeline, frames)
        self.inbox.put(received, held_bytes)

    def refuse(self, connection: Connection, fault: FrameFault) -> None:
        """End a connection for cause; what it sent before counts."""
        refuse(self.inbox, connection, fault, self.wall_clock_ns())
        self.reception.reset(connection)

    def half_closed(self, connection: Connection) -> None:
        """Ask for the receipt."""
        self.inbox.put(End(connection), 0)

    def lost(self, connection: Connection) -> None:
        """Let go of a connection that is gone; between two frames that is no error."""
        self.reception.reset(connection)

    def write(self, connection: Connection) -> None:
        """Say nothing: there are no answers."""

    def heed(self) -> None:
        """Close what has its receipt."""
        while self._settled:
            self.reception.close(self._settled.popleft())

    def check(self, now: float) -> None:
        """Nothing is due but what the reception knows of."""

    def end(self) -> None:
        """Reset every connection that has no receipt."""
        for connection in self.reception.connections():
            self.reception.reset(connection)


def refuse(
    inbox: Inbox, connection: Connection, fault: FrameFault, time_ns: int
) -> None:
    """Put on record what was refused before it could be decoded."""
    reject = Reject(
        time_ns=time_ns,
        reason="frame",
        cause=fault.cause,
        peer=connection.peer,
        position=fault.position,
        sequence=0,
        payload_bytes=len(fault.header),
        payload=fault.header,
    )
    inbox.put(Refusal(connection, reject), len(fault.header))
