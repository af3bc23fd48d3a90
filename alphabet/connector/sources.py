"""The connector protocol's sources: machines, driven by sockets and receipts.

Each connection has a `ConnectorIn`; all share the `Streams`, and one thread drives
them. What a machine took goes to the inbox with its points of reference and a receipt;
when that comes back, the points are durable and the machine may acknowledge them.
While answers wait for a peer to read them, nothing more of that peer is read.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence

import attrs

from alphabet.arrival import Received
from alphabet.connector.inbound import (
    HELLO_SECONDS_MAX,
    ConnectorIn,
    Ending,
)
from alphabet.connector.message_run import LENGTH_BYTES, frame_bytes_max
from alphabet.connector.streams import Holder, Streams
from alphabet.framing import FrameFault, FrameReader, Frames, decode_length
from alphabet.journal import entries
from alphabet.journal.journal import Journal
from alphabet.source.connection import Connection, Limits, Listener
from alphabet.source.inbox import Inbox
from alphabet.source.plain import refuse
from alphabet.source.reception import Reception
from log.block import Point

CONNECTOR_IN = "connector-in"
"""The option that asks for a connector listener, without its dashes."""


@attrs.frozen(eq=False)
class Receipt:
    """What comes back once these points, and the events that led there, are durable."""

    machine: ConnectorIn
    points: tuple[Point, ...]


@attrs.define(eq=False)
class ConnectorSources:
    """All connector listeners and connections; a `Host` whose `reception` drives it.

    `on_read` is called after each round of reading.
    """

    listeners: Sequence[Listener]
    inbox: Inbox
    limits: Limits
    journal: Journal
    streams: Streams
    cookie: bytes = attrs.field(repr=False)
    on_read: Callable[[], None] = lambda: None
    wall_clock_ns: Callable[[], int] = time.time_ns
    reception: Reception = attrs.field(init=False)
    duplicates: int = attrs.field(default=0, init=False)
    _machines: dict[Connection, ConnectorIn] = attrs.field(factory=dict, init=False)
    _places: dict[Holder, Connection] = attrs.field(factory=dict, init=False)
    _settled: deque[Receipt] = attrs.field(factory=deque, init=False)

    def __attrs_post_init__(self) -> None:
        """Have a reception of its own."""
        self.reception = Reception(
            self, CONNECTOR_IN, self.listeners, self.inbox, self.limits, self.journal
        )

    def settle(self, tokens: Iterable[object]) -> None:
        """Give receipts: what was put into the inbox with them is durable."""
        found = [token for token in tokens if isinstance(token, Receipt)]
        if found:
            self._settled += found
            self.reception.waker.wake()

    def frame_reader(self, listener: Listener) -> FrameReader:
        """Cut as the protocol says, whatever the pipeline's decoder does."""
        del listener
        longest = frame_bytes_max(self.limits.frame_bytes_max)
        return FrameReader(LENGTH_BYTES, decode_length, longest)

    def admit(self, connection: Connection) -> None:
        """Wait for its HELLO."""
        until = self.reception.clock() + HELLO_SECONDS_MAX
        longest = self.limits.frame_bytes_max
        machine = ConnectorIn(self.streams, self.cookie, longest, until)
        self._machines[connection] = machine
        self._places[machine] = connection

    def receive(self, connection: Connection, frames: Frames, held_bytes: int) -> None:
        """Let the machine take frames, and hand on what is to be counted."""
        machine = self._machines[connection]
        known = machine.duplicates
        taken = machine.receive(frames)
        self.duplicates += machine.duplicates - known
        if taken.pieces:
            points = taken.points
            received = Received(
                connection,
                connection.peer,
                connection.pipeline,
                Frames(frames.position, taken.pieces),
                points,
                Receipt(machine, points),
            )
            self.inbox.put(received, held_bytes)
        self._act(machine)

    def refuse(self, connection: Connection, fault: FrameFault) -> None:
        """End a connection for cause; what it sent before counts."""
        machine = self._machines[connection]
        machine.foul(fault.position, fault.cause)
        self._act(machine)

    def half_closed(self, connection: Connection) -> None:
        """Free its streams, acknowledge what is in flight, and close then."""
        machine = self._machines[connection]
        machine.half_closed()
        self._act(machine)

    def lost(self, connection: Connection) -> None:
        """Let go of a connection that is gone, and of its streams at once."""
        machine = self._machines[connection]
        machine.lost()
        self._forget(connection)
        self.reception.reset(connection)
        self._act()

    def write(self, connection: Connection) -> None:
        """Say what had to wait."""
        self._say(connection)

    def heed(self) -> None:
        """Take note of what is durable, and acknowledge it."""
        settled: set[ConnectorIn] = set()
        while self._settled:
            receipt = self._settled.popleft()
            self.streams.settle(receipt.points)
            settled.add(receipt.machine)
        if settled:
            self._act(*settled)

    def check(self, now: float) -> None:
        """End those whose HELLO is overdue."""
        for machine in list(self._machines.values()):
            machine.tick(now)
            if machine.ending is not None:
                self._act(machine)

    def end(self) -> None:
        """Close plainly: what is durable was acknowledged when it became so."""
        if self.duplicates:
            count = self.duplicates
            self.journal.say(entries.messages_repeated(messages=count))
        for connection in self.reception.connections():
            self.reception.say_farewell(connection)

    def _act(self, *machines: Holder) -> None:
        """Let machines say what they may, and all others that are touched by that."""
        waiting = {*machines, *self.streams.take_touched()}
        while waiting:
            for machine in waiting:
                connection = self._places.get(machine)
                if connection is not None:
                    self._machines[connection].advance()
                    self._say(connection)
            waiting = set(self.streams.take_touched())

    def _say(self, connection: Connection) -> None:
        """Send what a machine has to say, and end with it."""
        machine = self._machines[connection]
        try:
            if machine.outgoing:
                del machine.outgoing[: connection.socket.send(machine.outgoing)]
        except BlockingIOError:
            pass
        except OSError as error:
            self._cut(connection, error)
            return
        if machine.ending is not None:
            # To a peer that has not read so much, there is nothing more to say.
            self._note(connection, machine.ending)
            self._forget(connection)
            self.reception.say_farewell(connection)
        elif machine.outgoing:
            self.reception.watch_room(connection)
        elif machine.is_done:
            self._forget(connection)
            self.reception.close(connection)
        elif machine.is_heard:
            self.reception.watch(connection)

    def _cut(self, connection: Connection, error: OSError) -> None:
        machine = self._machines[connection]
        if machine.is_heard:
            cause = f"the connection was lost: {error.strerror}"
            self.reception.cut(connection, cause)
            return
        if machine.ending is not None:
            self._note(connection, machine.ending)
        self.lost(connection)

    def _note(self, connection: Connection, ending: Ending) -> None:
        """Put on record why a connection was ended."""
        if ending.position is None:
            peer, reason = connection.peer, ending.reason
            self.reception.say(entries.sender_ended(peer=peer, reason=reason))
            return
        fault = FrameFault(ending.position, ending.reason, b"")
        refuse(self.inbox, connection, fault, self.wall_clock_ns())

    def _forget(self, connection: Connection) -> None:
        del self._places[self._machines.pop(connection)]
