"""The plain TCP sources: one thread that accepts, reads and frames.

The thin shell around `FrameReader`. Order is kept per connection. A sender that
half-closes is kept open until the engine's receipt: then the server closes its side,
and the sender knows that all is durable. A connection ended for cause, or by the
server's stop or death, is reset. Memory is bounded by the inbox, the connections'
number, and the bytes of all unfinished frames together.
"""

import contextlib
import errno
import selectors
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence

import attrs

from alphabet.arrival import End, Received, Refusal
from alphabet.framing import FrameFault, FrameReader
from alphabet.inbox import Inbox
from alphabet.journal import Journal
from alphabet.waker import Waker
from alphabet.wallaroo import AnyDecoder
from log.row import Reject

RECEIVE_BYTES = 1 << 20
PARTIAL_BYTES_MAX = 64 << 20
"""What all unfinished frames together may hold."""
ACCEPT_PAUSE_SECONDS = 1.0
TICK_SECONDS = 1.0

_LINGER = struct.Struct("ii")
_OUT_OF_DESCRIPTORS = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


@attrs.frozen
class Limits:
    """How much the sources take on; each is an option of `alphabet run`."""

    frame_bytes_max: int = 1 << 20
    connections_max: int = 10_000
    partial_frame_seconds_max: float = 60.0
    partial_bytes_max: int = PARTIAL_BYTES_MAX


@attrs.frozen(eq=False)
class Listener:
    """A bound socket, and the pipeline that its connections feed."""

    socket: socket.socket
    pipeline: int
    decoder: AnyDecoder


@attrs.define(eq=False)
class Connection:
    """One sender: its socket, its framing, and since when a frame is unfinished."""

    socket: socket.socket
    peer: str
    pipeline: int
    reader: FrameReader
    partial_since: float | None = None
    partial_bytes: int = 0


@attrs.define(eq=False)
class Sources:
    """All listeners and connections, driven by `run` in a thread of its own.

    `on_read` is called after each round of reading.
    """

    listeners: Sequence[Listener]
    inbox: Inbox
    limits: Limits
    journal: Journal
    on_read: Callable[[], None] = lambda: None
    waker: Waker = attrs.Factory(Waker)
    clock: Callable[[], float] = time.monotonic
    wall_clock_ns: Callable[[], int] = time.time_ns
    partial_frames: int = attrs.field(default=0, init=False)
    _connections: set[Connection] = attrs.field(factory=set, init=False)
    _settled: deque[Connection] = attrs.field(factory=deque, init=False)
    _control: selectors.BaseSelector = attrs.field(
        factory=selectors.DefaultSelector, init=False
    )
    _traffic: selectors.DefaultSelector = attrs.field(
        factory=selectors.DefaultSelector, init=False
    )
    _partial_bytes: int = attrs.field(default=0, init=False)
    _is_paused: bool = attrs.field(default=False, init=False)
    _is_stopping: bool = attrs.field(default=False, init=False)
    _is_ending: bool = attrs.field(default=False, init=False)
    _accept_at: float = attrs.field(default=0.0, init=False)
    _tick_at: float = attrs.field(default=0.0, init=False)
    stopped: threading.Event = attrs.field(factory=threading.Event, init=False)

    def pause(self, *, is_paused: bool) -> None:
        """Stop reading for a while, or go on: the disk is full, or no longer is."""
        self._is_paused = is_paused
        self.waker.wake()

    def settle(self, connections: Iterable[object]) -> None:
        """Give receipts: all that these senders sent before their end is durable."""
        for connection in connections:
            if isinstance(connection, Connection):
                self._settled.append(connection)
        self.waker.wake()

    def stop(self) -> None:
        """Accept and read no more; `stopped` is set once the inbox has all."""
        self._is_stopping = True
        self.waker.wake()

    def end(self) -> None:
        """Reset every connection that has no receipt, and end the thread."""
        self._is_ending = True
        self.waker.wake()

    def run(self) -> None:
        """Serve until `end`."""
        self._control.register(self.waker, selectors.EVENT_READ)
        for listener in self.listeners:
            self._traffic.register(listener.socket, selectors.EVENT_READ, listener)
        # One selector inside the other: while reading pauses only wakes are heard.
        self._control.register(self._traffic, selectors.EVENT_READ)
        is_reading = True
        while not self._is_ending:
            may_read = not (self._is_paused or self._is_stopping or self.inbox.is_full)
            if may_read and not is_reading:
                self._control.register(self._traffic, selectors.EVENT_READ)
            elif is_reading and not may_read:
                self._control.unregister(self._traffic)
            is_reading = may_read
            ready = [key.fileobj for key, _ in self._control.select(TICK_SECONDS)]
            if self.waker in ready:
                self.waker.clear()
            self._close_settled()
            if self._is_stopping and not self.stopped.is_set():
                self._stop_reading()
            if self._traffic in ready and not self._is_stopping:
                self._read_ready()
                self.on_read()
            self._tick()
        self._close_settled()
        for connection in list(self._connections):
            self._reset(connection)

    def _read_ready(self) -> None:
        for key, _ in self._traffic.select(0):
            if isinstance(key.data, Listener):
                self._accept(key.data)
            else:
                self._receive(key.data)
            if self.inbox.is_full or self._is_stopping:
                return

    def _accept(self, listener: Listener) -> None:
        while True:
            try:
                accepted, address = listener.socket.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _OUT_OF_DESCRIPTORS:
                    self._pause_accepting(error)
                    return
                continue
            _set_reset(accepted, is_on=True)
            peer = format_peer(address)
            if len(self._connections) >= self.limits.connections_max:
                self.journal.warning(
                    f"refused {peer}: {self.limits.connections_max} connections are "
                    "open (--max-connections)"
                )
                accepted.close()
                continue
            accepted.settimeout(0)
            decoder = listener.decoder
            reader = FrameReader(
                decoder.header_length(),
                decoder.payload_length,
                self.limits.frame_bytes_max,
            )
            connection = Connection(accepted, peer, listener.pipeline, reader)
            self._connections.add(connection)
            self._traffic.register(accepted, selectors.EVENT_READ, connection)

    def _pause_accepting(self, error: OSError) -> None:
        self.journal.warning(f"cannot accept for a moment: {error.strerror}")
        for listener in self.listeners:
            with contextlib.suppress(KeyError):
                self._traffic.unregister(listener.socket)
        self._accept_at = self.clock() + ACCEPT_PAUSE_SECONDS

    def _receive(self, connection: Connection) -> None:
        try:
            data = connection.socket.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            self._cut(connection, f"the connection was lost: {error.strerror}")
            return
        if not data:
            self._half_closed(connection)
            return
        reader = connection.reader
        frames = reader.receive(data)
        # What came in earlier pieces weighs too.
        whole_bytes = connection.partial_bytes + len(data) - reader.partial_bytes
        self._hold(connection, reader.partial_bytes)
        if frames.count:
            received = Received(
                connection,
                connection.peer,
                connection.pipeline,
                frames,
            )
            self.inbox.put(received, whole_bytes)
        if reader.fault is not None:
            self._refuse(connection, reader.fault)
        elif not reader.partial_bytes:
            connection.partial_since = None
        elif frames.count or connection.partial_since is None:
            connection.partial_since = self.clock()
        if self._partial_bytes > self.limits.partial_bytes_max:
            self._refuse_partial(
                connection,
                f"unfinished frames hold {self.limits.partial_bytes_max} bytes already",
            )

    def _half_closed(self, connection: Connection) -> None:
        fault = connection.reader.end()
        if fault is not None:
            self.partial_frames += 1
            self._refuse(connection, fault)
            return
        self._traffic.unregister(connection.socket)
        self.inbox.put(End(connection), 0)

    def _cut(self, connection: Connection, cause: str) -> None:
        """Take note of a connection that ended without a half-close."""
        if connection.reader.partial_bytes:
            self.partial_frames += 1
            self._refuse_partial(connection, cause)
        else:
            self._reset(connection)

    def _refuse_partial(self, connection: Connection, cause: str) -> None:
        fault = connection.reader.end()
        if fault is not None:
            self._refuse(connection, attrs.evolve(fault, cause=cause))

    def _refuse(self, connection: Connection, fault: FrameFault) -> None:
        """End a connection for cause; what it sent before counts."""
        reject = Reject(
            time_ns=self.wall_clock_ns(),
            reason="frame",
            cause=fault.cause,
            peer=connection.peer,
            position=fault.position,
            sequence=0,
            payload_bytes=len(fault.header),
            payload=fault.header,
        )
        self.inbox.put(Refusal(connection, reject), len(fault.header))
        self._reset(connection)

    def _reset(self, connection: Connection) -> None:
        self._forget(connection)
        connection.socket.close()

    def _hold(self, connection: Connection, partial_bytes: int) -> None:
        """Keep the sum of what all unfinished frames hold."""
        self._partial_bytes += partial_bytes - connection.partial_bytes
        connection.partial_bytes = partial_bytes

    def _forget(self, connection: Connection) -> None:
        self._hold(connection, 0)
        self._connections.discard(connection)
        with contextlib.suppress(KeyError, ValueError):
            self._traffic.unregister(connection.socket)

    def _close_settled(self) -> None:
        while self._settled:
            connection = self._settled.popleft()
            self._forget(connection)
            _set_reset(connection.socket, is_on=False)
            connection.socket.close()

    def _stop_reading(self) -> None:
        for listener in self.listeners:
            listener.socket.close()
        self.partial_frames += sum(
            bool(connection.reader.partial_bytes) for connection in self._connections
        )
        self.inbox.close()
        self.stopped.set()

    def _tick(self) -> None:
        """Do what is due once a second."""
        now = self.clock()
        if now < self._tick_at or self._is_stopping:
            return
        self._tick_at = now + TICK_SECONDS
        if self._accept_at and now >= self._accept_at:
            self._accept_at = 0.0
            for listener in self.listeners:
                self._traffic.register(listener.socket, selectors.EVENT_READ, listener)
        if self.inbox.is_full or self._is_paused:
            return
        oldest = now - self.limits.partial_frame_seconds_max
        for connection in list(self._connections):
            since = connection.partial_since
            if since is not None and since <= oldest:
                seconds = self.limits.partial_frame_seconds_max
                cause = f"its frame was not finished within {seconds:g} s"
                self._refuse_partial(connection, cause)


def format_peer(address: tuple[str, int] | tuple[str, int, int, int]) -> str:
    """Write a peer's address as HOST:PORT, an IPv6 host in brackets."""
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _set_reset(connection: socket.socket, *, is_on: bool) -> None:
    """Decide what closing does: a reset, or a close that is the sender's receipt.

    It is on from the first moment, so that the death of the process, which closes
    every socket, is no receipt either.
    """
    with contextlib.suppress(OSError):
        linger = _LINGER.pack(is_on, 0)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
