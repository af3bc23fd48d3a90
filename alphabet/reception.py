"""A thread that accepts, reads and frames, for the connections of one kind.

What whole frames mean, and how a connection ends, is the `Host`'s affair. Order is kept
per connection. While the inbox is full, the disk is full or the server stops, nothing
is read and TCP slows the senders; what is said to them goes out all the same. Every
connection is set to reset from its first moment, so that the death of the process is
never taken for a plain close. Memory is bounded by the inbox, the connections' number,
and the bytes of all unfinished frames together.
"""

import contextlib
import errno
import functools
import selectors
import socket
import threading
import time
from collections.abc import Callable, Sequence

import attrs

from alphabet.connection import (
    Connection,
    Limits,
    Listener,
    explain_tls,
    format_peer,
    set_reset,
)
from alphabet.framing import FrameFault
from alphabet.host import Host
from alphabet.inbox import Inbox
from alphabet.journal import Journal
from alphabet.keepalive import keep_alive
from alphabet.waker import Waker

RECEIVE_BYTES = 1 << 20
ACCEPT_PAUSE_SECONDS = 1.0
TICK_SECONDS = 1.0
HANDSHAKE_SECONDS_MAX = 10.0
"""How long a connection may take to agree on TLS."""
FAREWELL_SECONDS = 1.0
"""How long a peer that was said goodbye to may go on sending, unheard."""

_OUT_OF_DESCRIPTORS = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


@attrs.define(eq=False)
class Reception:
    """The listeners and connections of one host, driven by `run`.

    `label` is the option that asks for such a listener, without its dashes.
    """

    host: Host
    label: str
    listeners: Sequence[Listener]
    inbox: Inbox
    limits: Limits
    journal: Journal
    waker: Waker = attrs.Factory(Waker)
    clock: Callable[[], float] = time.monotonic
    partial_frames: int = attrs.field(default=0, init=False)
    stopped: threading.Event = attrs.field(factory=threading.Event, init=False)
    _connections: set[Connection] = attrs.field(factory=set, init=False)
    _control: selectors.BaseSelector = attrs.field(
        factory=selectors.DefaultSelector, init=False
    )
    _traffic: selectors.DefaultSelector = attrs.field(
        factory=selectors.DefaultSelector, init=False
    )
    _partial_bytes: int = attrs.field(default=0, init=False)
    _farewells: set[Connection] = attrs.field(factory=set, init=False)
    _has_told_pause: bool = attrs.field(default=False, init=False)
    _is_paused: bool = attrs.field(default=False, init=False)
    _is_stopping: bool = attrs.field(default=False, init=False)
    _is_ending: bool = attrs.field(default=False, init=False)
    _accept_at: float = attrs.field(default=0.0, init=False)
    _tick_at: float = attrs.field(default=0.0, init=False)

    def pause(self, *, is_paused: bool) -> None:
        """Stop reading for a while, or go on: the disk is full, or no longer is."""
        self._is_paused = is_paused
        self.waker.wake()

    def stop(self) -> None:
        """Accept and read no more; `stopped` is set once the inbox has all."""
        self._is_stopping = True
        self.waker.wake()

    def end(self) -> None:
        """End every connection, and the thread."""
        self._is_ending = True
        self.waker.wake()

    def run(self) -> None:
        """Serve until `end`."""
        self._control.register(self.waker, selectors.EVENT_READ, self.waker.clear)
        for listener in self.listeners:
            self._listen(listener)
        # One selector inside the other: while reading pauses only wakes are heard.
        self._control.register(self._traffic, selectors.EVENT_READ, lambda: None)
        is_reading = True
        while not self._is_ending:
            may_read = not (self._is_paused or self._is_stopping or self.inbox.is_full)
            if may_read and not is_reading:
                self._control.register(
                    self._traffic, selectors.EVENT_READ, lambda: None
                )
            elif is_reading and not may_read:
                self._control.unregister(self._traffic)
            is_reading = may_read
            ready = [key for key, _ in self._control.select(TICK_SECONDS)]
            for key in ready:
                key.data()
            self.host.heed()
            if self._is_stopping and not self.stopped.is_set():
                self._stop_reading()
            has_traffic = any(key.fileobj is self._traffic for key in ready)
            if has_traffic and not self._is_stopping:
                self._read_ready()
                self.host.on_read()
                self.host.heed()
            self._tick()
        self._end()

    def watch(self, connection: Connection) -> None:
        """Read what a connection sends, whenever reading goes on."""
        if connection.socket not in self._traffic.get_map():
            on_ready = functools.partial(self._receive, connection)
            self._traffic.register(connection.socket, selectors.EVENT_READ, on_ready)

    def watch_room(self, connection: Connection) -> None:
        """Read no more; let the host write when the connection takes more."""
        self.unwatch(connection)
        on_ready = functools.partial(self._write, connection)
        self._control.register(connection.socket, selectors.EVENT_WRITE, on_ready)

    def unwatch(self, connection: Connection) -> None:
        """Read no more, and write no more."""
        for selector in (self._traffic, self._control):
            with contextlib.suppress(KeyError, ValueError):
                selector.unregister(connection.socket)

    def reset(self, connection: Connection) -> None:
        """Close a connection in such a way that its peer cannot take it for good."""
        self._forget(connection)
        connection.socket.close()

    def close(self, connection: Connection) -> None:
        """Close a connection plainly."""
        set_reset(connection.socket, is_on=False)
        with contextlib.suppress(OSError):
            connection.socket.shutdown(socket.SHUT_WR)
        self.reset(connection)

    def say_farewell(self, connection: Connection) -> None:
        """Close our side; the other's is heard out, so that it reads our last words.

        Closing with something unread would be a reset, which may overtake them.
        """
        self._hold(connection, 0)
        connection.partial_since = None
        try:
            connection.socket.shutdown(socket.SHUT_WR)
        except OSError:
            self.reset(connection)
            return
        connection.farewell_until = self.clock() + FAREWELL_SECONDS
        self._farewells.add(connection)
        self.unwatch(connection)
        on_ready = functools.partial(self._hear_out, connection)
        self._control.register(connection.socket, selectors.EVENT_READ, on_ready)

    def connections(self) -> list[Connection]:
        """Give all that are open, but for those that were said goodbye to."""
        return [each for each in self._connections if each.farewell_until is None]

    def _is_heard(self, connection: Connection) -> bool:
        return connection in self._connections and connection.farewell_until is None

    def _read_ready(self) -> None:
        for key, _ in self._traffic.select(0):
            key.data()
            if self.inbox.is_full or self._is_stopping:
                return

    def _listen(self, listener: Listener) -> None:
        on_ready = functools.partial(self._accept, listener)
        self._traffic.register(listener.socket, selectors.EVENT_READ, on_ready)

    def _accept(self, listener: Listener) -> None:
        while True:
            if len(self._connections) >= self.limits.connections_room:
                self._pause_accepting("few files are left to open (ulimit -n)")
                return
            try:
                accepted, address = listener.socket.accept()
            except BlockingIOError:
                self._has_told_pause = False
                return
            except OSError as error:
                if error.errno in _OUT_OF_DESCRIPTORS:
                    self._pause_accepting(error.strerror or str(error))
                    return
                continue
            set_reset(accepted, is_on=True)
            keep_alive(accepted)
            peer = format_peer(address)
            if len(self._connections) >= self.limits.connections_max:
                self.journal.warning(
                    f"refused {peer}: {self.limits.connections_max} connections are "
                    "open (--max-connections)"
                )
                accepted.close()
                continue
            accepted.settimeout(0)
            reader = self.host.frame_reader(listener)
            connection = Connection.open(accepted, peer, listener, reader)
            connection.agree_until = self.clock() + HANDSHAKE_SECONDS_MAX
            self._connections.add(connection)
            self.watch(connection)
            self.host.admit(connection)

    def _pause_accepting(self, cause: str) -> None:
        if not self._has_told_pause:
            self._has_told_pause = True
            self.journal.warning(
                f"new senders wait: {cause}; {len(self._connections)} are connected"
            )
        for listener in self.listeners:
            with contextlib.suppress(KeyError):
                self._traffic.unregister(listener.socket)
        self._accept_at = self.clock() + ACCEPT_PAUSE_SECONDS

    def _receive(self, connection: Connection) -> None:
        if not self._is_heard(connection):
            return  # What another one sent has ended it in this very round.
        try:
            data = connection.socket.recv(RECEIVE_BYTES)
        except BlockingIOError:
            data = b""
            if connection.secure is None:
                return
        except OSError as error:
            self._lose(connection, error)
            return
        else:
            if not data:
                self._half_closed(connection)
                return
        if connection.secure is not None:
            self._hold_sealed(connection, connection.secure.channel.held_bytes)
        self._frame(connection, data)

    def _frame(self, connection: Connection, data: bytes) -> None:
        """Hand on the whole frames; judge what is left."""
        reader = connection.reader
        frames = reader.receive(data)
        # What came in earlier pieces weighs too.
        whole_bytes = connection.partial_bytes + len(data) - reader.partial_bytes
        self._hold(connection, reader.partial_bytes)
        if not (reader.partial_bytes or connection.sealed_bytes):
            connection.partial_since = None
        elif frames.count or connection.partial_since is None:
            connection.partial_since = self.clock()
        if frames.count:
            self.host.receive(connection, frames, whole_bytes)
        if not self._is_heard(connection):
            return
        if reader.fault is not None:
            self.host.refuse(connection, explain_tls(reader.fault))
        elif self._partial_bytes > self.limits.partial_bytes_max:
            self._refuse(
                connection,
                f"unfinished frames hold {self.limits.partial_bytes_max} bytes already",
            )

    def _write(self, connection: Connection) -> None:
        if self._is_heard(connection):
            self.unwatch(connection)
            self.host.write(connection)

    def _half_closed(self, connection: Connection) -> None:
        fault = connection.reader.end()
        if fault is not None:
            self.partial_frames += 1
            self.host.refuse(connection, fault)
            return
        self.unwatch(connection)
        self.host.half_closed(connection)

    def cut(self, connection: Connection, cause: str) -> None:
        """Take note of a connection that ended without a half-close."""
        if connection.reader.partial_bytes:
            self.partial_frames += 1
            self._refuse(connection, cause)
        else:
            self.host.lost(connection)

    def _lose(self, connection: Connection, error: OSError) -> None:
        """Take note of an error; what breaks TLS is the peer's fault, a cut is none."""
        if error.errno == errno.EPROTO:
            self._refuse(connection, f"TLS failed: {error.strerror}")
        else:
            self.cut(connection, f"the connection was lost: {error.strerror}")

    def _refuse(self, connection: Connection, cause: str) -> None:
        fault = connection.reader.end() or FrameFault(0, cause, b"")
        self.host.refuse(connection, attrs.evolve(fault, cause=cause))

    def _hear_out(self, connection: Connection) -> None:
        """Throw away what comes behind our last words, until the peer closes."""
        with contextlib.suppress(BlockingIOError):
            try:
                if connection.socket.recv(RECEIVE_BYTES):
                    return
            except BlockingIOError:
                raise
            except OSError:
                pass
            self.close(connection)

    def _hold(self, connection: Connection, partial_bytes: int) -> None:
        """Keep the sum of what all unfinished frames hold."""
        self._partial_bytes += partial_bytes - connection.partial_bytes
        connection.partial_bytes = partial_bytes

    def _hold_sealed(self, connection: Connection, sealed_bytes: int) -> None:
        """Keep that sum where TLS holds a record that is not whole."""
        self._partial_bytes += sealed_bytes - connection.sealed_bytes
        connection.sealed_bytes = sealed_bytes

    def _forget(self, connection: Connection) -> None:
        self._hold(connection, 0)
        self._hold_sealed(connection, 0)
        self._connections.discard(connection)
        self._farewells.discard(connection)
        self.unwatch(connection)

    def _stop_reading(self) -> None:
        for listener in self.listeners:
            listener.socket.close()
        self.partial_frames += sum(
            bool(connection.partial_bytes) for connection in self._connections
        )
        self.inbox.close()
        self.stopped.set()

    def _end(self) -> None:
        """Let the host end its connections, and those be heard out."""
        with contextlib.suppress(KeyError):
            self._control.unregister(self._traffic)
        self.host.heed()
        self.host.end()
        until = self.clock() + FAREWELL_SECONDS
        while self._farewells and self.clock() < until:
            for key, _ in self._control.select(until - self.clock()):
                key.data()
        for connection in list(self._connections):
            self.close(connection)

    def _tick(self) -> None:
        """Do what is due once a second."""
        now = self.clock()
        if now < self._tick_at or self._is_stopping:
            return
        self._tick_at = now + TICK_SECONDS
        if self._accept_at and now >= self._accept_at:
            self._accept_at = 0.0
            for listener in self.listeners:
                self._listen(listener)
        for connection in list(self._farewells):
            if now >= (connection.farewell_until or now):
                self.close(connection)
        if self.inbox.is_full or self._is_paused:
            return
        oldest = now - self.limits.partial_frame_seconds_max
        for connection in self.connections():
            since = connection.partial_since
            if since is not None and since <= oldest:
                seconds = self.limits.partial_frame_seconds_max
                cause = f"its frame was not finished within {seconds:g} s"
                self._refuse(connection, cause)
            elif now >= connection.agree_until and not connection.is_agreed:
                seconds = HANDSHAKE_SECONDS_MAX
                self._refuse(connection, f"no TLS was agreed within {seconds:g} s")
        self.host.check(now)
