"""A two-phase sink: one thread that connects, sends rounds, and hands decisions over.

The thin shell around `ConnectorOut` (what is said to the sink) and `Subscription` (what
is to be sent). It connects anew for ever. The cursor is a decision's alone: it goes
through the inbox, and its receipt tells that it is flushed. What was handed over will
be flushed, so a connection that is lost meanwhile is followed by none before that is
known.
"""

import contextlib
import itertools
import select
import socket
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import attrs

from alphabet.arrival import Decision
from alphabet.connector.frames import FRAME_BYTES_MAX, Hello
from alphabet.connector.outbound import (
    Actions,
    ConnectorOut,
    Decide,
    Derive,
    End,
    Round,
    State,
)
from alphabet.framing import FrameReader, decode_length
from alphabet.journal import entries
from alphabet.journal.journal import Journal
from alphabet.network.address import Address
from alphabet.network.dialing import dial
from alphabet.network.waker import Waker
from alphabet.sink.subscription import Subscription
from log import failpoint
from log.errors import LogError
from log.row import Cursor
from recovery.errors import RecoveryError

if TYPE_CHECKING:
    from alphabet.network.certificates import Certificates
    from alphabet.network.secure_socket import SecureSocket

RETRY_SECONDS_MIN = 0.05
RETRY_SECONDS_MAX = 1.0
IDLE_SECONDS = 1.0
"""How often a cursor is moved over events that have no output."""
LINGER_SECONDS_MAX = 1.0
"""How long a sink may take to close once it was told all there is."""

_HEADER_BYTES = 4
_RECEIVE_BYTES = 1 << 16
_BUFFERS_MAX = 64


class _LostError(Exception):
    """The connection is over, with the reason."""


@attrs.define(eq=False)
class ConnectorSink:
    """Delivers to one two-phase sink under one name.

    `record` is what the log has of it, flushed. `decide` takes a decision whose token
    is this sink; `settle` is to be called with its receipt.
    """

    name: str
    address: Address
    record: Cursor
    hello: Hello
    subscription: Subscription
    waker: Waker
    journal: Journal
    stopping: threading.Event
    certificates: "Certificates | None" = None
    decide: Callable[[Decision], None] = lambda _: None
    cursor: None = attrs.field(default=None, init=False)
    """Nothing that may ride along with a commit: decisions alone move the row."""
    is_drained: bool = attrs.field(default=False, init=False)
    """Whether it is at its end, and decides no more."""
    is_connected: bool = attrs.field(default=False, init=False)
    fault: Exception | None = attrs.field(default=None, init=False)
    """What has stopped it for good."""
    _drain_until: float | None = attrs.field(default=None, init=False)
    _deciding: Cursor | None = attrs.field(default=None, init=False)
    _flushed: threading.Event = attrs.field(factory=threading.Event, init=False)
    _machine: ConnectorOut = attrs.field(init=False)
    _connection: "socket.socket | SecureSocket" = attrs.field(init=False)
    _reader: FrameReader = attrs.field(init=False)
    _unsent: deque[memoryview] = attrs.field(factory=deque, init=False)
    _gathered: Round | None = attrs.field(default=None, init=False)
    _failures: int = attrs.field(default=0, init=False)
    _round_at: float = attrs.field(default=0.0, init=False)
    _silence_at: float = attrs.field(default=0.0, init=False)

    @property
    def floor(self) -> int:
        """The lowest sequence that a snapshot must be kept for."""
        return self.record.sequence

    def wake(self) -> None:
        """Tell the sink's thread that something was released."""
        self.waker.wake()

    offer = wake

    def settle(self, receipts: Sequence[object]) -> None:
        """Take receipts, of which one may say that the decision is flushed."""
        if any(receipt is self for receipt in receipts):
            self._flushed.set()
            self.waker.wake()

    def drain(self, until: float) -> None:
        """Bring what is left to the sink, until a monotonic time; end the thread."""
        self._drain_until = until
        self.waker.wake()

    def run(self) -> None:
        """Serve one connection after the other until drained or damaged."""
        try:
            self._serve_all()
        finally:
            self.is_drained = True

    def _serve_all(self) -> None:
        while (connection := self._connect()) is not None:
            with connection:
                try:
                    self._serve(connection)
                except _LostError as error:
                    reason = str(error)
                except (LogError, RecoveryError) as error:
                    if not self.stopping.is_set():
                        self.fault = error
                        stopped = entries.sink_stopped(sink=self.name, cause=str(error))
                        self.journal.say(stopped)
                    return
                else:
                    return
                finally:
                    self.is_connected = False
                    self.subscription.feed.detach()
            self._failures += 1
            self._await_decision()
            self.journal.say(
                entries.sink_lost(
                    sink=self.name,
                    address=str(self.address),
                    cause=reason,
                    sequence=self.record.sequence,
                )
            )

    @property
    def _is_time_up(self) -> bool:
        return self._drain_until is not None and time.monotonic() >= self._drain_until

    def _connect(self) -> "socket.socket | SecureSocket | None":
        """Connect, trying for ever; None when the server stops first."""
        told = None
        while not self._is_time_up:
            seconds = retry_seconds(self._failures)
            if self.stopping.wait(seconds):
                if told is not None:
                    return None
                time.sleep(seconds)
            try:
                connection = dial(
                    self.address, self.certificates and self.certificates.client
                )
            except OSError as error:
                cause = error.strerror or str(error)
                if cause != told:
                    told = cause
                    self.journal.say(
                        entries.sink_unreachable(
                            sink=self.name, address=str(self.address), cause=cause
                        )
                    )
                if self.stopping.is_set():
                    return None
                self._failures += 1
            else:
                return connection
        return None

    def _serve(self, connection: "socket.socket | SecureSocket") -> None:
        """Send rounds until drained; raises _LostError for any other end."""
        self._open(connection)
        poll = select.poll()
        poll.register(self.waker.fileno(), select.POLLIN)
        while True:
            is_gathering = self._gather()
            self._take_flush()
            self._begin_round(is_gathering=is_gathering)
            self._transmit()
            if self._is_drained():
                self._linger(self._drain_until)
                return
            writable = select.POLLOUT if self._unsent else 0
            poll.register(connection, select.POLLIN | writable)
            wait_seconds = 0.0 if is_gathering else self._wait_seconds()
            ready = dict(poll.poll(1000 * wait_seconds))
            self.waker.clear()
            if ready.get(connection.fileno(), 0) & ~select.POLLOUT:
                self._receive()

    def _open(self, connection: "socket.socket | SecureSocket") -> None:
        self._connection = connection
        self._reader = FrameReader(_HEADER_BYTES, decode_length, FRAME_BYTES_MAX)
        self._unsent.clear()
        self._gathered = None
        name = self.name.encode()
        self._machine = ConnectorOut(self.hello, name, self.record, _new_id)
        self._obey(self._machine.begin())

    def _gather(self) -> bool:
        """Fetch the next outputs of the coming round; say whether there were any."""
        if self._gathered is None or self._gathered.is_full:
            return False
        outputs = self.subscription.next()
        if outputs is None:
            return False
        self._gathered.add(outputs)
        return True

    def _begin_round(self, *, is_gathering: bool) -> None:
        """Begin a round with what was gathered, once that is all there is, or enough.

        Events without output alone make none: the cursor moves over them when there
        has been nothing else for a while.
        """
        gathered = self._gathered
        if gathered is None or self._machine.state is not State.IDLE:
            return
        now = time.monotonic()
        if now < self._round_at or (is_gathering and not gathered.is_full):
            return
        if gathered.outputs_bytes:
            self._gathered = Round(gathered.last_sequence)
            self._obey(self._machine.send(gathered))
            return
        is_due = now >= self._silence_at or self._drain_until is not None
        if is_due and gathered.last_sequence > self.record.sequence:
            self._obey(self._machine.pass_over(gathered.last_sequence))

    def _take_flush(self) -> None:
        """Go on with what was decided, if that is flushed by now."""
        if self._adopt_decision():
            failpoint.reach("decision.after_flush")
            self._obey(self._machine.flushed())

    def _adopt_decision(self) -> bool:
        if self._deciding is None or not self._flushed.is_set():
            return False
        self.record, self._deciding = self._deciding, None
        self._flushed.clear()
        self._failures = 0
        self._silence_at = time.monotonic() + IDLE_SECONDS
        return True

    def _await_decision(self) -> None:
        """Wait until what was handed over is flushed, or the server is at its end."""
        while self._deciding is not None and not self._is_time_up:
            self._flushed.wait(IDLE_SECONDS)
            self._adopt_decision()

    def _obey(self, actions: Actions) -> None:
        """Do what the connection's machine asks for."""
        for action in actions:
            match action:
                case Decide():
                    failpoint.reach("decision.before_put")
                    self._deciding = action.cursor
                    self.decide(Decision(self, self.name, action.cursor))
                case Derive():
                    self._derive(action)
                case End():
                    with contextlib.suppress(_LostError):
                        self._transmit()
                        self._linger(self._drain_until)
                    raise _LostError(action.reason)
                case _:
                    self._unsent.append(memoryview(action))

    def _derive(self, action: Derive) -> None:
        self.is_connected = True
        sequence = self.record.sequence
        self.subscription.begin(sequence)
        self._gathered = Round(sequence)
        if action.refused is None:
            self.journal.say(
                entries.sink_connected(
                    sink=self.name,
                    address=str(self.address),
                    sequence=sequence,
                    offset=self.record.offset,
                    sink_offset=self._machine.sink_offset,
                )
            )
            return
        self._failures += 1
        self._round_at = time.monotonic() + retry_seconds(self._failures)
        self.journal.say(
            entries.sink_refused(
                sink=self.name,
                address=str(self.address),
                transaction=action.refused.decode(),
                sequence=sequence,
            )
        )

    def _transmit(self) -> None:
        """Give the kernel what it takes."""
        try:
            while self._unsent:
                buffers = itertools.islice(self._unsent, _BUFFERS_MAX)
                size = self._connection.sendmsg(list(buffers))
                while self._unsent and size >= len(self._unsent[0]):
                    size -= len(self._unsent.popleft())
                if size:
                    self._unsent[0] = self._unsent[0][size:]
        except BlockingIOError:
            return
        except OSError as error:
            raise _LostError(error.strerror or str(error)) from error

    def _receive(self) -> None:
        """Take what the sink has sent."""
        try:
            data = self._connection.recv(_RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            raise _LostError(error.strerror or str(error)) from error
        if not data:
            raise _LostError("closed by the sink")
        for body in self._reader.receive(data).payloads:
            self._obey(self._machine.receive(body))
        fault = self._reader.fault
        if fault is not None:
            self._obey(self._machine.refuse(fault.cause))

    def _linger(self, until: float | None) -> None:
        """Let the sink read all it was sent: a close with bytes unread would reset."""
        limit = time.monotonic() + LINGER_SECONDS_MAX
        until = limit if until is None else min(until, limit)
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_WR)
            while (left := until - time.monotonic()) > 0:
                select.select([self._connection], [], [], left)
                if not self._connection.recv(_RECEIVE_BYTES):
                    return

    def _is_drained(self) -> bool:
        """Say whether a drain is over: all is settled, or its time is up."""
        gathered = self._gathered
        if self._drain_until is None or self._is_time_up or gathered is None:
            return self._is_time_up
        is_settled = self._machine.state is State.IDLE and not self._unsent
        is_sent = gathered.last_sequence == self.record.sequence
        return is_settled and is_sent and self.subscription.is_at_end

    def _wait_seconds(self) -> float:
        """Say how long there is nothing to do, unless something wakes us."""
        wait_until = time.monotonic() + IDLE_SECONDS
        if self._drain_until is not None:
            wait_until = min(wait_until, self._drain_until)
        now = time.monotonic()
        if self._round_at > now:
            wait_until = min(wait_until, self._round_at)
        return max(wait_until - now, 0.0)


def _new_id() -> bytes:
    return uuid.uuid4().hex.encode()


def retry_seconds(failures: int) -> float:
    """Say how long to wait after so many failures in a row: longer and longer."""
    if not failures:
        return 0.0
    doublings = min(failures - 1, 10)
    return min(RETRY_SECONDS_MIN * (1 << doublings), RETRY_SECONDS_MAX)
