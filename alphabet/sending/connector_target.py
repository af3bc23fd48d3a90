"""A server's `--connector-in` as a target for votes: the socket of a `ConnectorClient`.

It connects again for as long as is allowed, tells why in a line, and never decides what
is sent: the client does. Waiting for an input and for a turn goes on serving the
connection.
"""

from __future__ import annotations

import contextlib
import select
import socket
import time
from typing import TYPE_CHECKING

import attrs

from alphabet.connector.client import ConnectorClient, ServerFaultError, State
from alphabet.network.dialing import SPEAKS_TLS, connect, is_alert
from alphabet.sending.sender import NoReceiptError

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from alphabet.network.address import Address
    from alphabet.network.secure_socket import SecureSocket

RETRY_SECONDS_MIN = 0.05
RETRY_SECONDS_MAX = 2.0
"""The first pause before trying again, and the longest; each is twice the last."""

CONNECT_SECONDS_MAX = 5.0
"""How long one try to connect may take."""
LEAVE_SECONDS_MAX = 1.0
"""How long the server may take to close a connection when all is done."""

_READ_BYTES = 1 << 16
_LEAVE_READS_MAX = 16


@attrs.define
class ConnectorTarget:
    """Where a stream goes.

    Attributes:
        address: The server's.
        client: Says what to send.
        silence_seconds_max: How long the server may be away, or owe an answer.
        tell: Takes a line for people.
        watch: Called now and then, when the client may have come further.
        clock: Tells the time in seconds, never backwards.
        context: Makes it TLS; None for plain TCP.
        sent_bytes: How much of the input was handed over.
        connection: To the server; None while there is none.
        retry_at: When to try again then, by the clock.
    """

    address: Address
    client: ConnectorClient
    silence_seconds_max: float
    tell: Callable[[str], None]
    watch: Callable[[], None]
    clock: Callable[[], float] = time.monotonic
    context: ssl.SSLContext | None = None
    sent_bytes: int = attrs.field(default=0, init=False)
    connection: socket.socket | SecureSocket | None = attrs.field(
        default=None, init=False
    )
    _output: memoryview = attrs.field(default=memoryview(b""), init=False)
    retry_at: float = attrs.field(default=0.0, init=False)
    _heard_at: float = attrs.field(init=False)
    _heard: tuple[int, int] = attrs.field(default=(0, 0), init=False)
    _told: tuple[int, bool] | None = attrs.field(default=None, init=False)
    _cause: str = attrs.field(default="", init=False)

    @_heard_at.default
    def _now(self) -> float:
        return self.clock()

    def open(self) -> int:
        """Wait until the server has opened the stream; tell what it has, as an offset.

        Raises:
            NoReceiptError: The server was away or silent for too long, or refused.
            PointError: Its point of reference does not fit.
        """
        while self.client.state is not State.STREAMING:
            self._turn(None)
        return self.client.durable

    def write(self, data: bytes) -> None:
        """Hand over whole frames, and wait until there is room for more."""
        self._check_silence(is_quiet=False)  # What was not owed until now is not late.
        self.client.offer(data)
        self.sent_bytes += len(data)
        while self._output or not self.client.has_room:
            self._turn(None)

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        until = self.clock() + seconds
        while (left := until - self.clock()) > 0:
            self._turn(left)

    def await_input(self, fileno: int) -> None:
        """Wait until a file has something to read or has ended."""
        while not self._turn(None, fileno):
            pass

    def finish(self) -> bool:
        """Say that this was all; wait until it is durable."""
        self.client.end()
        while self.client.state is not State.DONE:
            self._turn(None)
        if self.connection:
            self._take_leave(self.connection)
        self.watch()
        return True

    def _take_leave(self, connection: socket.socket | SecureSocket) -> None:
        """Say the last words, then let the server close.

        It would take a close before its own last words are read for a reset.
        """
        connection.settimeout(LEAVE_SECONDS_MAX)
        with contextlib.suppress(OSError):
            connection.sendall(self._output)
            connection.shutdown(socket.SHUT_WR)
            for _ in range(_LEAVE_READS_MAX):
                if not connection.recv(_READ_BYTES):
                    return

    def close(self) -> None:
        """Hang up."""
        if self.connection:
            self.connection.close()
            self.connection = None

    def _turn(self, seconds: float | None, fileno: int | None = None) -> bool:
        """Wait for what comes first, and serve it; say whether an input is there."""
        self.watch()
        if self.connection is None and self.clock() >= self.retry_at:
            self._connect()
        if self.connection and not self._output:
            self._output = memoryview(self.client.take())
            if self.client.state is State.DONE:
                return False
        poll = select.poll()
        if self.connection:
            wanted = select.POLLIN | (select.POLLOUT if self._output else 0)
            poll.register(self.connection, wanted)
        if fileno is not None:
            poll.register(fileno, select.POLLIN)
        ready = dict(poll.poll(self._patience_milliseconds(seconds)))
        events = 0
        if self.connection and (events := ready.pop(self.connection.fileno(), 0)):
            self._serve(self.connection, events)
        self._check_silence(is_quiet=not events)
        return bool(ready)

    def _patience_milliseconds(self, seconds: float | None) -> float | None:
        """Tell how long may be waited."""
        now = self.clock()
        limits = [] if seconds is None else [seconds]
        if self.connection is None:
            limits.append(self.retry_at - now)
        if self.client.is_owed:
            limits.append(self._heard_at + self.silence_seconds_max - now)
        # Rounded up: a wait that ends a little early would be begun again and again.
        return max(0, min(limits)) * 1000 + 1 if limits else None

    def _check_silence(self, *, is_quiet: bool) -> None:
        """Give up on a server that does not get on, once it has nothing to say."""
        now = self.clock()
        heard = (self.client.durable, self.client.refusals)
        if heard != self._heard or not self.client.is_owed:
            self._heard = heard
            self._heard_at = now
        elif is_quiet and now - self._heard_at > self.silence_seconds_max:
            raise NoReceiptError(
                f"{self._silence()} for {self.silence_seconds_max:g} seconds"
            )

    def _silence(self) -> str:
        """Say what the server did for so long."""
        if self.connection is None:
            return self._cause
        if self.client.state is State.GREETING:
            return "gave no answer (is that the port of --connector-in?)"
        return "acknowledged nothing"

    def _connect(self) -> None:
        """Try to reach the server."""
        seconds = min(self.silence_seconds_max, CONNECT_SECONDS_MAX)
        try:
            connection = connect(self.address, seconds, self.context)
        except OSError as error:
            self._lose(f"cannot be reached ({error.strerror or error})")
            return
        connection.settimeout(0)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.connection = connection
        self.client.connect()

    def _serve(self, connection: socket.socket | SecureSocket, events: int) -> None:
        """Read what is there, write what goes."""
        if events & ~select.POLLOUT:
            self._read(connection)
        if self.connection and events & select.POLLOUT:
            self._flush(connection)

    def _read(self, connection: socket.socket | SecureSocket) -> None:
        """Hand the server's words to the client."""
        try:
            data = connection.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            self._lose(f"is gone ({error.strerror or error})")
            return
        if not data:
            self._lose("is gone (it closed the connection)")
            return
        refusals = self.client.refusals
        try:
            self.client.receive(data)
        except ServerFaultError as error:
            cause = SPEAKS_TLS if is_alert(data) else error.cause
            raise NoReceiptError(cause) from error
        if self.client.refusals > refusals:
            self._lose("has another sender of this stream", is_held=True)
        elif self.client.state is State.AWAY:
            self._lose("asks to begin again")

    def _flush(self, connection: socket.socket | SecureSocket) -> None:
        """Write as much as goes."""
        try:
            self._output = self._output[connection.send(self._output) :]
        except BlockingIOError:
            return
        except OSError:
            # The read that follows meets the end, behind what the server said last.
            self._output = memoryview(b"")

    def _lose(self, cause: str, *, is_held: bool = False) -> None:
        """Hang up, and try again after a pause: each is longer than the last."""
        self.close()
        self._output = memoryview(b"")
        self._cause = cause
        self.client.lose()
        seconds = RETRY_SECONDS_MIN * 2 ** min(self.client.failures - 1, 16)
        self.retry_at = self.clock() + min(seconds, RETRY_SECONDS_MAX)
        self._tell_once(cause, is_held=is_held)

    def _tell_once(self, cause: str, *, is_held: bool) -> None:
        """Say why it is tried again, unless that was said since the server got on."""
        matter = (self.client.durable, is_held)
        if matter == self._told:
            return
        self._told = matter
        until = (
            "it ends" if is_held else f"{self.silence_seconds_max:g} seconds are over"
        )
        self.tell(f"{self.address} {cause}: trying again until {until}")
