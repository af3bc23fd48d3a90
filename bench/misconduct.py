"""Peers that misbehave, by the thousand: one process, one thread, raw sockets.

A `Conduct` says what each of so many peers does; `Peers` are they. A peer that the
server ends, or that ends itself, is followed by a new one, so a flood lasts until its
driver stops. Nobody here ever reads.
"""

import contextlib
import errno
import multiprocessing
import random
import select
import signal
import socket
import struct
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection as Pipe
from typing import Self

import attrs

from alphabet.trial.flood import HOST, FloodError, raise_file_limit

CONNECTS_MAX = 64
"""How many peers connect at once: fewer than wait in a listener's queue."""
STEP_SECONDS = 0.05
CONNECT_SECONDS_MAX = 120.0
"""How long it may take until all are connected."""

_RESET = struct.pack("ii", 1, 0)


@attrs.frozen
class Conduct:
    """What each of `peers` does: send `data`, and then?

    Attributes:
        peers: How many there are at a time.
        data: What each sends; nothing, if it is empty.
        piece_bytes: How much of it at once.
        pause_seconds: How long each rests after a piece.
        is_repeated: Whether `data` is sent again and again; else the peer waits.
        is_short: Whether a peer ends once it has sent `data`.
        has_reset: Whether that, and the end of all, is a reset.
        greeting: What each sends first, once.
        heard_bytes: What its kernel may keep of what it is told, None for much.
    """

    peers: int
    data: bytes = attrs.field(default=b"", repr=False)
    piece_bytes: int = 1 << 16
    pause_seconds: float = 0.0
    is_repeated: bool = False
    is_short: bool = False
    has_reset: bool = False
    greeting: bytes = attrs.field(default=b"", repr=False)
    heard_bytes: int | None = None


@attrs.frozen
class Traffic:
    """What the peers of one conduct have done so far.

    Attributes:
        connected: How many connections were made.
        cut: How many of them the server has ended.
        sent_bytes: How much was sent on all of them.
    """

    connected: int
    cut: int
    sent_bytes: int


@attrs.define(eq=False)
class _Peer:
    socket: socket.socket
    rest: memoryview
    is_connected: bool = False


@attrs.define
class Peers:
    """The peers of one conduct, at 127.0.0.1 and a port; `step` drives them.

    Attributes:
        connected: How many connections were made so far.
        cut: How many of them the server has ended.
        sent_bytes: How much was sent on all of them.
    """

    port: int
    conduct: Conduct
    connected: int = attrs.field(default=0, init=False)
    cut: int = attrs.field(default=0, init=False)
    sent_bytes: int = attrs.field(default=0, init=False)
    _data: memoryview = attrs.field(init=False)
    _greeting: memoryview = attrs.field(init=False)
    _connecting: int = attrs.field(default=0, init=False)
    _peers: dict[int, _Peer] = attrs.field(factory=dict, init=False)
    _resting: deque[tuple[float, _Peer]] = attrs.field(factory=deque, init=False)
    _poll: select.epoll = attrs.field(factory=select.epoll, init=False)

    def __attrs_post_init__(self) -> None:
        """Have the data at hand."""
        self._data = memoryview(self.conduct.data)
        self._greeting = memoryview(self.conduct.greeting + self.conduct.data)

    def __enter__(self) -> Self:
        """Give the peers; none is connected yet."""
        return self

    def __exit__(self, *_: object) -> None:
        """End them all."""
        for peer in list(self._peers.values()):
            self._end(peer)
        self._poll.close()

    @property
    def is_complete(self) -> bool:
        """Say whether all are connected."""
        return len(self._peers) - self._connecting == self.conduct.peers

    def fileno(self) -> int:
        """Give what is readable when one of them can go on."""
        return self._poll.fileno()

    @property
    def traffic(self) -> Traffic:
        """What they have done so far."""
        return Traffic(self.connected, self.cut, self.sent_bytes)

    def step(self, seconds: float = STEP_SECONDS) -> None:
        """Let those that are missing come, and all do what they can; wait so long."""
        missing = self.conduct.peers - len(self._peers)
        for _ in range(min(missing, CONNECTS_MAX)):
            self._connect()
        now = time.monotonic()
        while self._resting and self._resting[0][0] <= now:
            _, peer = self._resting.popleft()
            self._watch(peer, select.EPOLLOUT)
        for number, events in self._poll.poll(0 if missing > CONNECTS_MAX else seconds):
            peer = self._peers[number]
            if events & (select.EPOLLHUP | select.EPOLLERR | select.EPOLLRDHUP):
                self.cut += peer.is_connected
                self._end(peer)
            elif events & select.EPOLLOUT:
                self._note_connected(peer)
                self._send(peer)

    def _note_connected(self, peer: _Peer) -> None:
        self.connected += not peer.is_connected
        self._connecting -= not peer.is_connected
        peer.is_connected = True

    def _connect(self) -> None:
        # Whom the listener's queue has no room for waits for a second, here alone.
        connection = socket.socket()
        connection.settimeout(0)
        heard_bytes = self.conduct.heard_bytes
        if heard_bytes is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, heard_bytes)
        if connection.connect_ex((HOST, self.port)) not in (0, errno.EINPROGRESS):
            connection.close()
            return
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connecting += 1
        peer = _Peer(connection, self._greeting)
        self._peers[connection.fileno()] = peer
        self._poll.register(connection, select.EPOLLRDHUP | select.EPOLLOUT)

    def _send(self, peer: _Peer) -> None:
        try:
            count = peer.socket.send(peer.rest[: self.conduct.piece_bytes])
        except BlockingIOError:
            return
        except OSError:
            self.cut += 1
            self._end(peer)
            return
        self.sent_bytes += count
        peer.rest = peer.rest[count:]
        if not peer.rest and self.conduct.is_repeated:
            peer.rest = self._data
        if not peer.rest and self.conduct.is_short:
            self._end(peer)
        elif not peer.rest:
            self._watch(peer, 0)
        elif self.conduct.pause_seconds:
            self._watch(peer, 0)
            due = time.monotonic() + self.conduct.pause_seconds
            self._resting.append((due, peer))

    def _watch(self, peer: _Peer, events: int) -> None:
        if self._peers.get(peer.socket.fileno()) is peer:
            self._poll.modify(peer.socket, select.EPOLLRDHUP | events)

    def _end(self, peer: _Peer) -> None:
        if self.conduct.has_reset:
            with contextlib.suppress(OSError):
                peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._connecting -= not peer.is_connected
        del self._peers[peer.socket.fileno()]
        peer.socket.close()


def random_bytes(size: int, seed: int = 0) -> bytes:
    """Make bytes at random, the same for the same seed."""
    return random.Random(seed).randbytes(size)


@attrs.frozen
class Crowd:
    """The process of peers that misbehave, seen from here."""

    _pipe: Pipe

    def traffic(self) -> list[Traffic]:
        """Ask what has come of each conduct so far."""
        self._pipe.send(None)
        told: list[Traffic] = self._pipe.recv()
        return told


@contextmanager
def misbehaving(port: int, *conducts: Conduct) -> Iterator[Crowd]:
    """Let peers misbehave in a process of their own meanwhile.

    As many as each conduct has are connected when it begins, or were.

    Raises:
        FloodError: The server does not take them.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_drive, args=(port, conducts, theirs), daemon=True)
    process.start()
    try:
        theirs.close()
        if not ours.poll(CONNECT_SECONDS_MAX):
            raise FloodError(f"no crowd is connected after {CONNECT_SECONDS_MAX:g} s")
        ours.recv()
        yield Crowd(ours)
    finally:
        process.kill()
        process.join()
        ours.close()


def _drive(port: int, conducts: tuple[Conduct, ...], pipe: Pipe) -> None:
    """Be the process of the peers, until it is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Who started it will end it.
    raise_file_limit()
    groups = [Peers(port, conduct) for conduct in conducts]
    wanted = [conduct.peers for conduct in conducts]
    is_told = False
    poll = select.epoll()
    for group in groups:
        poll.register(group, select.EPOLLIN)
    while True:
        poll.poll(STEP_SECONDS)
        for group in groups:
            group.step(0)
        if not is_told and all(
            group.connected >= count
            for group, count in zip(groups, wanted, strict=True)
        ):
            pipe.send(None)
            is_told = True
        if pipe.poll():
            pipe.recv()
            pipe.send([group.traffic for group in groups])
