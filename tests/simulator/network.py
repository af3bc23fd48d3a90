"""A simulated network: connections of two ends, and bytes that take their time.

What an end has sent is on its way, then arrived, then known to be arrived: these are
separate events, and others choose when they come. A cut resets both ends. An end that
closes with bytes unread resets the other, as TCP does.
"""

import errno
import struct
from collections import deque
from collections.abc import Callable, Iterator

import attrs

BUFFER_BYTES = 120
"""What an end may have sent that is not known to be arrived, and keep unread."""


def no_watch(_: bytes) -> None:
    """Look at nothing that is sent."""


@attrs.define(eq=False)
class End:
    """One end of a connection, as its kernel has it.

    `watch` is shown what is sent from here, `watch_close` that it was closed plainly.
    """

    name: str
    peer: "End" = attrs.field(init=False)
    flight: bytearray = attrs.Factory(bytearray)
    """What was sent from here and has not arrived."""
    unread: bytearray = attrs.Factory(bytearray)
    sent: int = 0
    arrived: int = 0
    acknowledged: int = 0
    is_finished: bool = False
    """Nothing more is sent from here; the end of it arrives behind `flight`."""
    has_finish_arrived: bool = False
    is_reset: bool = False
    is_reset_told: bool = False
    is_closed: bool = False
    is_stalled: bool = False
    resets_at_death: bool = False
    """How the kernel closes it when its process ends."""
    watch: Callable[[bytes], None] = no_watch
    watch_close: Callable[[], None] = lambda: None

    @classmethod
    def pair(cls, name: str) -> "tuple[End, End]":
        """Give the two ends of a new connection."""
        one, other = cls(name), cls(name)
        one.peer, other.peer = other, one
        return one, other

    @property
    def room(self) -> int:
        """How much may be sent now."""
        return BUFFER_BYTES - (self.sent - self.acknowledged)

    @property
    def unacknowledged(self) -> int:
        """What was sent and is not known to have arrived."""
        return self.sent - self.acknowledged

    @property
    def is_readable(self) -> bool:
        """Say whether reading gives something: bytes, the end, or an error."""
        return bool(self.unread) or self.peer.has_finish_arrived or self.is_reset

    @property
    def is_writable(self) -> bool:
        """Say whether writing does something."""
        return self.room > 0 or self.is_reset

    def send(self, data: bytes) -> int:
        """Take what there is room for; raises OSError."""
        if self.is_reset or self.is_finished:
            self.is_reset_told = True
            raise OSError(errno.EPIPE, "Broken pipe")
        taken = bytes(data[: self.room])
        if not taken:
            raise BlockingIOError
        self.watch(taken)
        self.flight += taken
        self.sent += len(taken)
        return len(taken)

    def receive(self, size: int) -> bytes:
        """Give what has arrived, nothing at the end; raises OSError."""
        if self.unread:
            data = bytes(self.unread[:size])
            del self.unread[: len(data)]
            return data
        if self.is_reset and not self.is_reset_told:
            self.is_reset_told = True
            raise ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")
        if self.is_reset or self.peer.has_finish_arrived:
            return b""
        raise BlockingIOError

    def finish(self) -> None:
        """Send no more; raises OSError where nobody is there."""
        if self.is_reset:
            raise OSError(errno.ENOTCONN, "Transport endpoint is not connected")
        self.is_finished = True

    def close(self, *, is_reset: bool = False) -> None:
        """Close: a reset if asked for, or if anything is unread."""
        if self.is_closed:
            return
        if is_reset or self.unread or self.peer.flight:
            self.reset()
        elif not self.is_reset:
            self.watch_close()
            self.is_finished = True
        self.is_closed = True

    def reset(self) -> None:
        """Reset the connection: what is on the way is lost."""
        for end in (self, self.peer):
            end.is_reset = True
            end.flight.clear()

    def deliver(self, size: int) -> bool:
        """Let some of what was sent arrive; say whether anything did."""
        if self.is_stalled or self.is_reset:
            return False
        moved = self.flight[: min(size, BUFFER_BYTES - len(self.peer.unread))]
        if moved and self.peer.is_closed:
            self.reset()
            return True
        del self.flight[: len(moved)]
        self.peer.unread += moved
        self.arrived += len(moved)
        is_end = self.is_finished and not self.flight and not self.has_finish_arrived
        self.has_finish_arrived |= is_end
        return bool(moved) or is_end

    def acknowledge(self) -> bool:
        """Let this end know what has arrived; say whether that is news."""
        is_news = self.acknowledged < self.arrived and not self.is_stalled
        if is_news:
            self.acknowledged = self.arrived
        return is_news

    @property
    def is_over(self) -> bool:
        """Say whether nothing can happen to the connection any more."""
        ends = (self, self.peer)
        return all(end.is_closed for end in ends) and not (
            not self.is_reset and any(end.flight for end in ends)
        )


@attrs.define(eq=False)
class Network:
    """All that listen, and all connections.

    `dial_hooks` has, by port, who is connected to: it takes the far end, or refuses.
    """

    backlogs: dict[int, deque[End]] = attrs.Factory(dict)
    dial_hooks: dict[int, Callable[[End], bool]] = attrs.Factory(dict)
    connections: list[End] = attrs.Factory(list)
    served: list[End] = attrs.Factory(list)
    """The ends that the server of now has had open."""
    count: int = 0

    def pair(self) -> tuple[End, End]:
        """Begin a connection: the server's end first."""
        self.count += 1
        server, other = End.pair(str(self.count))
        self.connections.append(server)
        return server, other

    def connect(self, port: int) -> End | None:
        """Connect to the server, if it listens."""
        backlog = self.backlogs.get(port)
        if backlog is None:
            return None
        server, other = self.pair()
        # Before it is accepted, nobody has said how it ends.
        server.resets_at_death = True
        backlog.append(server)
        return other

    def own(self, end: End) -> End:
        """Take note that the server has this end open."""
        self.served.append(end)
        return end

    def dial(self, port: int) -> End:
        """Connect from the server; raises OSError."""
        server, other = self.pair()
        if not self.dial_hooks[port](other):
            self.connections.remove(server)
            raise ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")
        return server

    def directions(self) -> Iterator[End]:
        """Give both ends of all connections that are not over."""
        self.connections = [end for end in self.connections if not end.is_over]
        for end in self.connections:
            yield end
            yield end.peer

    def drop_server(self) -> None:
        """Let the kernel close what a process that ended had open."""
        for backlog in self.backlogs.values():
            for end in backlog:
                end.close(is_reset=True)
        self.backlogs.clear()
        for end in self.served:
            end.close(is_reset=end.resets_at_death)
        self.served.clear()


LINGER = struct.Struct("ii")
