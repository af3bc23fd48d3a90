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

from alphabet.framing import FrameFault
from alphabet.journal import entries
from alphabet.journal.entries import Entry
from alphabet.journal.journal import Journal
from alphabet.journal.paced_lines import PacedLines
from alphabet.network.closing import set_reset
from alphabet.network.waker import Waker
from alphabet.source.connection import (
    RECEIVE_BYTES,
    Connection,
    Limits,
    Listener,
    explain_tls,
)
from alphabet.source.host import Host
from alphabet.source.inbox import Inbox
from alphabet.source.partial_frames import PartialFrames
from alphabet.source.rests import Rests

ACCEPTS_PER_ROUND_MAX = 16
"""How many connections one listener takes before all that is open is read again."""
ACCEPT_PAUSE_SECONDS = 1.0
TICK_SECONDS = 1.0
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
    received_bytes: int = attrs.field(default=0, init=False)
    stopped: threading.Event = attrs.field(factory=threading.Event, init=False)
    _connections: set[Connection] = attrs.field(factory=set, init=False)
    _control: selectors.DefaultSelector = attrs.Factory(selectors.DefaultSelector)
    _traffic: selectors.DefaultSelector = attrs.Factory(selectors.DefaultSelector)
    _unfinished: PartialFrames[Connection] = attrs.field(
        factory=lambda: PartialFrames(lambda connection: connection.host), init=False
    )
    _farewells: set[Connection] = attrs.field(factory=set, init=False)
    _has_told_pause: bool = attrs.field(default=False, init=False)
    _is_paused: bool = attrs.field(default=False, init=False)
    _is_stopping: bool = attrs.field(default=False, init=False)
    _is_ending: bool = attrs.field(default=False, init=False)
    _lines: PacedLines = attrs.field(factory=PacedLines, init=False)
    _rests: Rests = attrs.field(factory=Rests, init=False)
    _accept_at: float = attrs.field(default=0.0, init=False)
    _tick_at: float = attrs.field(default=0.0, init=False)
    _unread_seconds: float = attrs.field(default=0.0, init=False)

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
        self._listen()
        # The inner one reads nothing; it alone is waited for while reading pauses.
        self._traffic.register(self._control, selectors.EVENT_READ)
        while not self._is_ending:
            reads = self._wait(self._rests.seconds_left(self.clock(), TICK_SECONDS))
            if self._is_stopping and not self.stopped.is_set():
                self._stop_reading()
            if reads and not self._is_stopping:
                self._read(reads)
                self.host.on_read()
                self.host.heed()
            self._end_rests()
            self._tick()
        self._end()

    @property
    def _may_read(self) -> bool:
        return not (self._is_paused or self._is_stopping or self.inbox.is_full)

    def _wait(self, seconds: float) -> list[Callable[[], None]]:
        """Give what reads of those that are ready; else do what is asked beside."""
        if self._may_read:
            reads = [key.data for key, _ in self._traffic.select(seconds)]
            if reads and all(reads):
                return reads
            seconds = 0.0
        since = self.clock()
        for key, _ in self._control.select(seconds):
            key.data()
        self._unread_seconds += self.clock() - since
        self.host.heed()
        # Asked anew: some of it may be read no more.
        found = self._traffic.select(0) if self._may_read else ()
        return [key.data for key, _ in found if key.data]

    def _end_rests(self) -> None:
        for connection in self._rests.rested(self.clock()):
            if not self._is_heard(connection):
                continue  # It was closed meanwhile: no selector may be asked for it.
            # One whose answers wait for room is watched once they are said.
            self.watch(connection)

    def say(self, entry: Entry) -> None:
        """Say that a peer was turned away, or at least count it."""
        self._say(self._lines.note(entry, self.clock()))

    def _say(self, entry: Entry | None) -> None:
        if entry is not None:
            self.journal.say(entry)

    def watch(self, connection: Connection) -> None:
        """Read what a connection sends, whenever reading goes on."""
        if connection.watched_by is None and not connection.is_resting:
            on_ready = functools.partial(self._receive, connection)
            connection.watch(self._traffic, connection.events, on_ready)

    def watch_room(self, connection: Connection) -> None:
        """Read no more; let the host write when the connection takes more."""
        connection.unwatch()
        on_ready = functools.partial(self._write, connection)
        connection.watch(self._control, selectors.EVENT_WRITE, on_ready)

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
        self._unfinished.let_go(connection)
        connection.partial_since = None
        try:
            connection.socket.shutdown(socket.SHUT_WR)
        except OSError:
            self.reset(connection)
            return
        connection.farewell_until = self.clock() + FAREWELL_SECONDS
        self._farewells.add(connection)
        connection.unwatch()
        on_ready = functools.partial(self._hear_out, connection)
        connection.watch(self._control, selectors.EVENT_READ, on_ready)

    def connections(self) -> list[Connection]:
        """Give all that are open, but for those that were said goodbye to."""
        # Whoever looks at the page is another thread: a copy is made in one step.
        everybody = tuple(self._connections)
        return [each for each in everybody if each.farewell_until is None]

    def _is_heard(self, connection: Connection) -> bool:
        return connection in self._connections and connection.farewell_until is None

    def _read(self, reads: Sequence[Callable[[], None]]) -> None:
        for read in reads:
            read()
            if self.inbox.is_full or self._is_stopping:
                return

    def _listen(self) -> None:
        for listener in self.listeners:
            on_ready = functools.partial(self._accept, listener)
            self._traffic.register(listener.socket, selectors.EVENT_READ, on_ready)

    def _accept(self, listener: Listener) -> None:
        for _ in range(ACCEPTS_PER_ROUND_MAX):
            if len(self._connections) >= self.limits.connections_room:
                self._pause_accepting("few files are left to open (ulimit -n)")
                return
            try:
                accepted, peer = listener.accept()
            except BlockingIOError:
                self._has_told_pause = False
                return
            except OSError as error:
                if error.errno in _OUT_OF_DESCRIPTORS:
                    self._pause_accepting(error.strerror or str(error))
                    return
                continue
            if len(self._connections) >= self.limits.connections_max:
                most = self.limits.connections_max
                self.say(entries.sender_refused(peer=peer, connections_max=most))
                accepted.close()
                continue
            reader = self.host.frame_reader(listener)
            connection = Connection.open(accepted, peer, listener, reader, self.clock())
            self._connections.add(connection)
            self.watch(connection)
            self.host.admit(connection)

    def _pause_accepting(self, cause: str) -> None:
        if not self._has_told_pause:
            self._has_told_pause = True
            count = len(self._connections)
            self.journal.say(entries.senders_wait(cause=cause, connections=count))
        for listener in self.listeners:
            with contextlib.suppress(KeyError):
                self._traffic.unregister(listener.socket)
        self._accept_at = self.clock() + ACCEPT_PAUSE_SECONDS

    def _receive(self, connection: Connection) -> None:
        if not self._is_heard(connection):
            return  # What another one sent has ended it in this very round.
        now = self.clock()
        if self._rests.must_rest(connection, self.inbox.judged, now):
            if connection.watched_by is self._traffic:
                connection.unwatch()  # Else its answers wait for room, as before.
            return
        try:
            data = connection.receive()
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
        connection.receive_bytes = min(2 * connection.receive_bytes, RECEIVE_BYTES)
        self._frame(connection, data, now)
        connection.last_arrival = self.inbox.arrived
        connection.await_room(self._traffic)

    def _frame(self, connection: Connection, data: bytes, now: float) -> None:
        """Hand on the whole frames; judge what is left."""
        self.received_bytes += len(data)
        reader = connection.reader
        frames = reader.receive(data)
        # What came in earlier pieces weighs too, and a run borrows all of its read.
        earlier_bytes = max(connection.partial_bytes - reader.partial_bytes, 0)
        connection.take_stock(now, is_progress=bool(frames.count))
        since = connection.unfinished_since
        self._unfinished.hold(connection, connection.held_bytes, since)
        if frames.count:
            self.host.receive(connection, frames, earlier_bytes + len(data))
        if reader.fault is not None and self._is_heard(connection):
            self.host.refuse(connection, explain_tls(reader.fault))
        if self._unfinished.held_bytes > self.limits.partial_bytes_max:
            self._end_excess(now)

    def _end_excess(self, now: float) -> None:
        most = self.limits.partial_bytes_max
        cause = f"unfinished frames hold {most} bytes, and this one cost the most"
        for connection in self._unfinished.excess(most, now):
            if self._is_heard(connection):
                self._refuse(connection, cause)

    def _write(self, connection: Connection) -> None:
        if self._is_heard(connection):
            connection.unwatch()
            self.host.write(connection)

    def _half_closed(self, connection: Connection) -> None:
        fault = connection.reader.end()
        if fault is not None:
            self.partial_frames += 1
            self.host.refuse(connection, fault)
            return
        connection.unwatch()
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
        try:
            is_over = not connection.socket.recv(RECEIVE_BYTES)
        except OSError as error:
            is_over = not isinstance(error, BlockingIOError)
        if is_over:
            self.close(connection)

    def _forget(self, connection: Connection) -> None:
        self._unfinished.let_go(connection)
        self._connections.discard(connection)
        self._farewells.discard(connection)
        connection.unwatch()

    def _stop_reading(self) -> None:
        for listener in self.listeners:
            listener.socket.close()
        partial = [each for each in self.connections() if each.partial_bytes]
        self.partial_frames += len(partial)
        self.inbox.close()
        self.stopped.set()

    def _end(self) -> None:
        """Let the host end its connections, and those be heard out."""
        self._say(self._lines.due(float("inf")))
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
        self._say(self._lines.due(now))
        if self._accept_at and now >= self._accept_at:
            self._accept_at = 0.0
            self._listen()
        for connection in list(self._farewells):
            if now >= (connection.farewell_until or now):
                self.close(connection)
        if self.inbox.is_full or self._is_paused:
            return
        unread_seconds, self._unread_seconds = self._unread_seconds, 0.0
        for connection in self.connections():
            connection.excuse(unread_seconds, now)
            cause = connection.overdue(now, self.limits.partial_frame_seconds_max)
            if cause is not None:
                self._refuse(connection, cause)
        self.host.check(now)
