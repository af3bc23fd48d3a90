"""A plain TCP sink: one thread that connects, sends, and watches what arrives.

The thin shell around `Subscription` (what to send) and `Delivery` (how far it came).
It connects anew for ever, and each connection begins on a whole event. A peer that
closes has read all that its TCP acknowledged; any other end may have lost what was
unread, so the cursor is rewound.
"""

import array
import contextlib
import enum
import fcntl
import select
import socket
import termios
import threading
import time
from collections.abc import Callable

import attrs

from alphabet.address import Address
from alphabet.delivery import Delivery
from alphabet.journal import Journal
from alphabet.subscription import Subscription
from alphabet.waker import Waker
from log.errors import LogError
from log.row import Cursor
from recovery.errors import RecoveryError

CONNECT_SECONDS_MAX = 5.0
RETRY_SECONDS_MIN = 0.05
RETRY_SECONDS_MAX = 1.0
WATCH_SECONDS = 0.02
"""How often acknowledgements are looked for while some are outstanding."""
IDLE_SECONDS = 1.0

_DISCARD_BYTES = 1 << 16


class Ending(enum.Enum):
    """How a connection ended."""

    CLOSED = "closed by the receiver"
    RESET = "reset"
    DRAINED = "drained"


@attrs.define(eq=False)
class TcpSink:
    """Delivers to one receiver under one name.

    `delivery` belongs to the sink's thread; `cursor` and `floor` may be read by any.
    """

    name: str
    address: Address
    delivery: Delivery
    subscription: Subscription
    waker: Waker
    journal: Journal
    stopping: threading.Event
    _drain_until: float | None = attrs.field(default=None, init=False)
    _unsent: memoryview = attrs.field(default=memoryview(b""), init=False)
    _has_failed_to_connect: bool = attrs.field(default=False, init=False)

    @property
    def cursor(self) -> Cursor | None:
        """How far the receiver is known to have come."""
        return self.delivery.cursor

    @property
    def floor(self) -> int | None:
        """The lowest sequence that a snapshot must be kept for."""
        return self.delivery.floor

    def drain(self, until: float) -> None:
        """Send what is left, until a monotonic time, then end the thread."""
        self._drain_until = until
        self.waker.wake()

    def run(self) -> None:
        """Serve one connection after the other until drained or damaged."""
        while (connection := self._connect()) is not None:
            with connection:
                try:
                    ending = self._serve(connection)
                except (LogError, RecoveryError) as error:
                    self._give_up(error)
                    return
                self.subscription.feed.detach()
                if ending is Ending.DRAINED:
                    return
                if ending is Ending.RESET:
                    self.delivery.rewind()
            self.journal.warning(
                f"sink {self.name}: connection to {self.address} {ending.value}; "
                f"goes on after sequence {self.delivery.cursor.sequence}"
            )

    def _give_up(self, error: Exception) -> None:
        if not self.stopping.is_set():
            self.subscription.feed.detach()
            self.journal.error(f"sink {self.name} has stopped: {error}")

    def _connect(self) -> socket.socket | None:
        """Connect, trying for ever; None when the server stops first."""
        wait_seconds = RETRY_SECONDS_MIN
        while self._drain_until is None or time.monotonic() < self._drain_until:
            try:
                connection = socket.create_connection(
                    (self.address.host, self.address.port), CONNECT_SECONDS_MAX
                )
            except OSError as error:
                if not self._has_failed_to_connect:
                    self._has_failed_to_connect = True
                    self.journal.warning(
                        f"sink {self.name}: cannot reach {self.address}: "
                        f"{error.strerror or error}; trying on, counting goes on"
                    )
                if self.stopping.is_set():
                    return None
                self.stopping.wait(wait_seconds)
                wait_seconds = min(2 * wait_seconds, RETRY_SECONDS_MAX)
            else:
                self._has_failed_to_connect = False
                connection.settimeout(0)
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                self.journal.info(
                    f"sink {self.name}: connected to {self.address}, goes on after "
                    f"sequence {self.delivery.cursor.sequence}"
                )
                return connection
        return None

    def _serve(self, connection: socket.socket) -> Ending:
        """Send outputs from the cursor on, until the connection ends."""
        self.delivery.open()
        self._unsent = memoryview(b"")
        self.subscription.begin(self.delivery.cursor.sequence)
        poll = select.poll()
        poll.register(self.waker.fileno(), select.POLLIN)
        while True:
            is_refilled = self._refill()
            try:
                self._transmit(connection)
                outstanding = _outstanding(connection)
                self.delivery.acknowledged(outstanding)
                if self._is_drained(outstanding):
                    return Ending.DRAINED
                wait_seconds = WATCH_SECONDS if outstanding else IDLE_SECONDS
                if is_refilled and not self._unsent:
                    wait_seconds = 0.0
                writable = select.POLLOUT if self._unsent else 0
                poll.register(connection, select.POLLIN | writable)
                ready = dict(poll.poll(wait_seconds * 1000))
                if self._has_closed(connection, ready):
                    self.delivery.acknowledged(_outstanding(connection))
                    return Ending.CLOSED
            except OSError:
                return Ending.RESET

    def _refill(self) -> bool:
        """Fetch the next outputs once the last are sent; say whether there were any."""
        if self._unsent:
            return False
        outputs = self.subscription.next()
        if outputs is None:
            return False
        self.delivery.push(outputs)
        self._unsent = memoryview(outputs.data)
        return True

    def _transmit(self, connection: socket.socket) -> None:
        """Give the kernel what it takes."""
        if self._unsent:
            with contextlib.suppress(BlockingIOError):
                size = connection.send(self._unsent)
                self.delivery.sent(size)
                self._unsent = self._unsent[size:]

    def _is_drained(self, outstanding: int) -> bool:
        """Say whether a drain is over: all is delivered, or its time is up."""
        if self._drain_until is None:
            return False
        if time.monotonic() >= self._drain_until:
            return True
        return not self._unsent and not outstanding and self.subscription.is_at_end

    def _has_closed(self, connection: socket.socket, ready: dict[int, int]) -> bool:
        """Look at what woke us; what a receiver sends has no meaning here."""
        if self.waker.fileno() in ready:
            self.waker.clear()
        if not ready.get(connection.fileno(), 0) & ~select.POLLOUT:
            return False
        with contextlib.suppress(BlockingIOError):
            return not connection.recv(_DISCARD_BYTES)
        return False


def _unacknowledged(connection: socket.socket) -> int:
    """Ask the kernel for the bytes sent that the peer has not acknowledged."""
    answer = array.array("i", [0])
    fcntl.ioctl(connection, termios.TIOCOUTQ, answer)
    return answer[0]


def _send_buffer(connection: socket.socket) -> int:
    """Where the kernel cannot say: all that its send buffer may hold."""
    return connection.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)


_outstanding: Callable[[socket.socket], int] = (
    _unacknowledged if hasattr(termios, "TIOCOUTQ") else _send_buffer
)
