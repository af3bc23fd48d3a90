"""The sockets under `connector.receiver`: servers that connect, one thread for all.

A connection has to greet in time, so that none can take up room and say nothing; one
that was refused is kept a moment, so that no reset overtakes its ERROR.
"""

from __future__ import annotations

import select
import socket
import time
from typing import TYPE_CHECKING

import attrs

from alphabet.connector.frame_buffer import FrameBuffer
from alphabet.connector.frames import FRAME_BYTES_MAX
from alphabet.connector.receiver import Session, State
from alphabet.network.address import Address
from alphabet.network.dialing import secured
from alphabet.network.keepalive import keep_alive

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from alphabet.connector.receiver import ConnectorReceiver
    from alphabet.network.secure_socket import SecureSocket

CONNECTIONS_MAX = 8
"""How many connections there may be at once; more wait to be accepted."""
RECEIVE_BYTES = 1 << 20
"""How much is read at once, at least."""
UNSENT_BYTES_MAX = 1 << 16
"""A server that leaves more answers than this unread is not read from."""
GREET_SECONDS_MAX = 10.0
"""How long a connection may take for its Hello."""
LINGER_SECONDS_MAX = 1.0
"""How long one that was refused may take to read why."""


@attrs.define(eq=False)
class Connection:
    """A server's connection, and where it stands.

    `deadline` is a monotonic time in seconds: for its Hello, or for its close after the
    session has ended; None in between.
    """

    socket: socket.socket | SecureSocket
    peer: str
    session: Session
    deadline: float | None
    is_lingering: bool = attrs.field(default=False, init=False)
    unsent: bytes = attrs.field(default=b"", init=False)
    buffer: FrameBuffer = attrs.field(
        factory=lambda: FrameBuffer(FRAME_BYTES_MAX, RECEIVE_BYTES), init=False
    )

    @property
    def events(self) -> int:
        """What to wait for."""
        readable = select.POLLIN if len(self.unsent) <= UNSENT_BYTES_MAX else 0
        return readable | (select.POLLOUT if self.unsent else 0)

    def set_deadline(self) -> None:
        """See how far the session has come, by itself or through another."""
        if self.session.state is State.ENDED and not self.is_lingering:
            self.is_lingering = True
            self.deadline = time.monotonic() + LINGER_SECONDS_MAX
        elif self.session.state not in {State.NEW, State.ENDED}:
            self.deadline = None

    def is_late(self) -> bool:
        """Say whether its time is up; if so, its session has ended."""
        if self.deadline is None or time.monotonic() < self.deadline:
            return False
        self.session.end("no Hello came in time")
        return True

    def receive(self) -> bool:
        """Take what came and answer it; False if the connection is at its end.

        Raises:
            OSError: The sink's fault, never the connection's.
        """
        try:
            if self.session.state is State.ENDED:
                # What a peer still says has no meaning, but must not become a reset.
                return bool(self.socket.recv(RECEIVE_BYTES))
            size = self.socket.recv_into(self.buffer.make_room())
        except BlockingIOError:
            return True
        except OSError as error:
            self.session.end(f"the connection broke ({error.strerror or error})")
            return False
        self.unsent += self.session.receive(self.buffer.frames(size))
        return bool(size)

    def send(self) -> bool:
        """Send what there is to say; False if the connection is at its end."""
        try:
            self.unsent = self.unsent[self.socket.send(self.unsent) :]
            if self.session.state is State.ENDED and not self.unsent:
                self.socket.shutdown(socket.SHUT_WR)
        except BlockingIOError:
            pass
        except OSError as error:
            self.session.end(f"the connection broke ({error.strerror or error})")
            return False
        return True


@attrs.define(eq=False)
class ConnectorListener:
    """Serve connections until told to stop.

    Attributes:
        listener: Listens for servers.
        stop: Becomes readable when it is time to stop.
        receiver: What servers talk to.
        say: Takes a line about a connection.
        context: Makes it TLS; None for plain TCP.
    """

    listener: socket.socket
    stop: socket.socket
    receiver: ConnectorReceiver
    say: Callable[[str], None]
    context: ssl.SSLContext | None = None
    _connections: dict[int, Connection] = attrs.field(factory=dict, init=False)

    def run(self) -> None:
        """Serve until `stop` says so; raises OSError where the sink fails."""
        self.listener.settimeout(0)
        try:
            while self._serve():
                pass
        finally:
            for connection in self._connections.values():
                connection.socket.close()
        for connection in self._connections.values():
            connection.session.end("the receiver was stopped")

    def _serve(self) -> bool:
        """Wait for what comes first and do it; False if it is time to stop."""
        ready = self._wait()
        if self.stop.fileno() in ready:
            return False
        for number, connection in list(self._connections.items()):
            if not self._step(connection, ready.get(number, 0)):
                self._drop(connection)
        if self.listener.fileno() in ready:
            self._accept()
        return True

    def _wait(self) -> dict[int, int]:
        poll = select.poll()
        poll.register(self.stop, select.POLLIN)
        if len(self._connections) < CONNECTIONS_MAX:
            poll.register(self.listener, select.POLLIN)
        deadlines = []
        for connection in self._connections.values():
            connection.set_deadline()
            poll.register(connection.socket, connection.events)
            if connection.deadline is not None:
                deadlines.append(connection.deadline)
        if not deadlines:
            return dict(poll.poll())
        seconds = max(0.0, min(deadlines) - time.monotonic())
        return dict(poll.poll(seconds * 1000 + 1))

    def _accept(self) -> None:
        try:
            accepted, (host, port, *_) = self.listener.accept()
        except OSError:
            return  # It was gone before it was accepted.
        accepted.settimeout(0)
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        keep_alive(accepted)
        deadline = time.monotonic() + GREET_SECONDS_MAX
        connection = secured(accepted, self.context)
        self._connections[accepted.fileno()] = Connection(
            connection, str(Address(host, port)), Session(self.receiver), deadline
        )

    def _step(self, connection: Connection, ready: int) -> bool:
        """Do what a connection is ready for; False if it is at its end."""
        if connection.is_late():
            return False
        if ready & ~select.POLLOUT and not connection.receive():
            return False
        return not connection.unsent or connection.send()

    def _drop(self, connection: Connection) -> None:
        """Close a connection, and say why if it is no plain end."""
        connection.session.end("")
        if connection.session.reason:
            self.say(f"{connection.peer}: {connection.session.reason}")
        del self._connections[connection.socket.fileno()]
        connection.socket.close()
