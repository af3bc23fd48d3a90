"""A plain TCP sink: one thread that connects, sends, and watches what arrives.

The thin shell around `Subscription` (what to send) and `Delivery` (how far it came).
It connects anew for ever, and each connection begins on a whole event. A peer that
closes has read all that its TCP acknowledged; any other end may have lost what was
unread, so the cursor is rewound.
"""

import contextlib
import enum
import errno
import select
import socket
import threading
import time
from typing import TYPE_CHECKING

import attrs

from alphabet.journal import entries
from alphabet.journal.journal import Journal
from alphabet.network.address import Address
from alphabet.network.dialing import dial
from alphabet.network.outstanding import outstanding_bytes
from alphabet.network.waker import Waker
from alphabet.outputs import Outputs
from alphabet.sink.delivery import Delivery
from alphabet.sink.subscription import Subscription
from log.errors import LogError
from log.row import Cursor
from recovery.errors import RecoveryError

if TYPE_CHECKING:
    from alphabet.network.certificates import Certificates
    from alphabet.network.secure_socket import SecureSocket

RETRY_SECONDS_MIN = 0.05
RETRY_SECONDS_MAX = 1.0
REFUSED_SECONDS = 0.5
"""How long to wait behind a TLS connection that has ended."""
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
    certificates: "Certificates | None" = None
    is_connected: bool = attrs.field(default=False, init=False)
    fault: Exception | None = attrs.field(default=None, init=False)
    """What has stopped it for good."""
    _drain_until: float | None = attrs.field(default=None, init=False)
    _at_work: threading.Lock = attrs.field(factory=threading.Lock, init=False)
    _connection: "socket.socket | SecureSocket" = attrs.field(init=False)
    _unsent: memoryview = attrs.field(default=memoryview(b""), init=False)
    _is_reset: bool = attrs.field(default=False, init=False)
    _fault: str = attrs.field(default="", init=False)
    _told: str | None = attrs.field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        """Be at work, as the thread is but when it waits with nothing to send."""
        self._at_work.acquire()

    @property
    def cursor(self) -> Cursor | None:
        """How far the receiver is known to have come."""
        return self.delivery.cursor

    @property
    def floor(self) -> int | None:
        """The lowest sequence that a snapshot must be kept for."""
        return self.delivery.floor

    def wake(self) -> None:
        """Tell the sink's thread that something was released."""
        self.waker.wake()

    def offer(self) -> None:
        """Send what was just released from the caller's thread, if the sink is idle.

        It never blocks: what the kernel does not take is for the sink's thread.
        """
        if self._at_work.acquire(blocking=False):
            try:
                # What an offer before this one has left unsent goes first.
                while not self._unsent:
                    outputs = self.subscription.next_live()
                    if outputs is None:
                        return
                    self._begin_sending(outputs)
                    self._transmit(self._connection)
            except OSError:
                # The kernel tells a reset once; the sink's thread would see a close.
                self._is_reset = True
            finally:
                self._at_work.release()
        self.waker.wake()

    def drain(self, until: float) -> None:
        """Send what is left, until a monotonic time, then end the thread."""
        self._drain_until = until
        self.waker.wake()

    def run(self) -> None:
        """Serve one connection after the other until drained or damaged."""
        while (connection := self._connect()) is not None:
            with connection:
                self.is_connected = True
                try:
                    ending = self._serve(connection)
                except (LogError, RecoveryError) as error:
                    self._give_up(error)
                    return
                finally:
                    self.is_connected = False
                self.subscription.feed.detach()
                if ending is Ending.DRAINED:
                    with contextlib.suppress(OSError):
                        connection.shutdown(socket.SHUT_WR)
                    return
                if ending is Ending.RESET:
                    self.delivery.rewind()
            self.journal.say(
                entries.sink_lost(
                    sink=self.name,
                    address=str(self.address),
                    cause=f"{ending.value}{self._fault}",
                    sequence=self.delivery.cursor.sequence,
                )
            )
            if self.certificates is not None:
                # Whom a receiver refuses in TLS 1.3, it has let connect before.
                self.stopping.wait(REFUSED_SECONDS)

    def _give_up(self, error: Exception) -> None:
        if not self.stopping.is_set():
            self.subscription.feed.detach()
            self.fault = error
            self.journal.say(entries.sink_stopped(sink=self.name, cause=str(error)))

    def _connect(self) -> "socket.socket | SecureSocket | None":
        """Connect, trying for ever; None when the server stops first."""
        wait_seconds = RETRY_SECONDS_MIN
        while self._drain_until is None or time.monotonic() < self._drain_until:
            try:
                connection = dial(
                    self.address, self.certificates and self.certificates.client
                )
            except OSError as error:
                cause = error.strerror or str(error)
                if cause != self._told:
                    self._told = cause
                    self.journal.say(
                        entries.sink_unreachable(
                            sink=self.name, address=str(self.address), cause=cause
                        )
                    )
                if self.stopping.is_set():
                    return None
                self.stopping.wait(wait_seconds)
                wait_seconds = min(2 * wait_seconds, RETRY_SECONDS_MAX)
            else:
                self._told = None
                self.journal.say(
                    entries.sink_connected(
                        sink=self.name,
                        address=str(self.address),
                        sequence=self.delivery.cursor.sequence,
                        offset=self.delivery.cursor.offset,
                        sink_offset=None,
                    )
                )
                return connection
        return None

    def _serve(self, connection: "socket.socket | SecureSocket") -> Ending:
        """Send outputs from the cursor on, until the connection ends."""
        self.delivery.open()
        self._connection = connection
        self._unsent = memoryview(b"")
        self._is_reset = False
        self._fault = ""
        self.subscription.begin(self.delivery.cursor.sequence)
        poll = select.poll()
        poll.register(self.waker.fileno(), select.POLLIN)
        while True:
            is_refilled = self._refill()
            try:
                self._transmit(connection)
                outstanding = outstanding_bytes(connection)
                self.delivery.acknowledged(outstanding)
                if self._is_drained(outstanding):
                    return Ending.DRAINED
                wait_seconds = WATCH_SECONDS if outstanding else IDLE_SECONDS
                if is_refilled and not self._unsent:
                    wait_seconds = 0.0
                ready = self._wait(poll, wait_seconds)
                if self._is_reset:
                    return Ending.RESET
                if self._has_closed(connection, ready):
                    self.delivery.acknowledged(outstanding_bytes(connection))
                    return Ending.CLOSED
            except OSError as error:
                if error.errno == errno.EPROTO:
                    self._fault = f" ({error.strerror})"
                return Ending.RESET

    def _wait(self, poll: select.poll, seconds: float) -> dict[int, int]:
        """Wait for room, news or an end; with nothing to send, `offer` may work."""
        writable = select.POLLOUT if self._unsent else 0
        poll.register(self._connection, select.POLLIN | writable)
        if self._unsent or not seconds:
            return dict(poll.poll(seconds * 1000))
        self._at_work.release()
        try:
            return dict(poll.poll(seconds * 1000))
        finally:
            self._at_work.acquire()

    def _refill(self) -> bool:
        """Fetch the next outputs once the last are sent; say whether there were any."""
        if self._unsent:
            return False
        outputs = self.subscription.next()
        if outputs is None:
            return False
        self._begin_sending(outputs)
        return True

    def _begin_sending(self, outputs: Outputs) -> None:
        self.delivery.push(outputs)
        self._unsent = memoryview(outputs.data)

    def _transmit(self, connection: "socket.socket | SecureSocket") -> None:
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

    def _has_closed(
        self, connection: "socket.socket | SecureSocket", ready: dict[int, int]
    ) -> bool:
        """Look at what woke us; what a receiver sends has no meaning here."""
        if self.waker.fileno() in ready:
            self.waker.clear()
        if not ready.get(connection.fileno(), 0) & ~select.POLLOUT:
            return False
        with contextlib.suppress(BlockingIOError):
            return not connection.recv(_DISCARD_BYTES)
        return False
