"""A network between two of our processes that can be as bad as networks are.

Whoever connects to a `Relay` is connected to its target, and bytes are passed both ways
until one side ends. It can cut connections with a reset, stall, deliver in small
pieces, and let no more than an allowance through. A half-close is passed on as one and
a reset as one, so that neither side takes one for the other. It keeps what was said.
"""

import contextlib
import queue
import selectors
import socket
import struct
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Self

import attrs

from alphabet.network.waker import Waker
from tests.process import SECONDS_MAX

_RESET = struct.pack("ii", 1, 0)
_LOST = (ConnectionError, TimeoutError)


@attrs.define(eq=False)
class Way:
    """One direction of a connection.

    `said` is all that was taken from `source`, `rest` what `drain` has not taken yet.
    """

    source: socket.socket
    drain: socket.socket
    is_onward: bool
    said: bytearray = attrs.field(factory=bytearray)
    rest: bytes = b""
    is_ended: bool = False

    def receive(self, size: int) -> int:
        """Take at most so many bytes, or the end; say how many there were."""
        self.rest = self.source.recv(size)
        self.said += self.rest
        if not self.rest:
            self.is_ended = True
            self.drain.shutdown(socket.SHUT_WR)
        return len(self.rest)

    def pass_on(self) -> None:
        """Give away what the other side takes."""
        self.rest = self.rest[self.drain.send(self.rest) :]


@attrs.define(eq=False)
class Link:
    """A connection through the relay: `onward` to the target, `back` from it."""

    onward: Way
    back: Way

    @property
    def sockets(self) -> tuple[socket.socket, socket.socket]:
        """Both ends."""
        return self.onward.source, self.onward.drain


@attrs.define(eq=False)
class Relay:
    """Listens on 127.0.0.1; a thread of its own does all that touches a socket.

    `target_port` is where new connections lead; without one they are reset. `allowance`
    is how many bytes may yet go onward, None for any number. `links` are all
    connections there ever were, in order.
    """

    target_port: int | None = None
    piece_bytes: int = 1 << 16
    allowance: int | None = None
    is_stalled: bool = False
    answers_left: int | None = attrs.field(default=None, init=False)
    """After how many answers of the target a connection is cut; None for never."""
    onward_bytes: int = attrs.field(default=0, init=False)
    """How many bytes have gone onward, over all connections."""
    links: list[Link] = attrs.field(factory=list, init=False)
    port: int = attrs.field(init=False)
    _open: list[Link] = attrs.field(factory=list, init=False)
    _is_ending: bool = attrs.field(default=False, init=False)
    _listener: socket.socket = attrs.field(init=False)
    _waker: Waker = attrs.field(factory=Waker, init=False)
    _asked: "queue.SimpleQueue[tuple[Callable[[], None], Future[None]]]" = attrs.field(
        factory=queue.SimpleQueue, init=False
    )
    _thread: threading.Thread = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        """Listen, and start the thread."""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(0)
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._run, name="relay", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        """Give the relay."""
        return self

    def __exit__(self, *_: object) -> None:
        """Go away for good."""
        self._ask(self._end)
        self._thread.join(SECONDS_MAX)
        self._waker.close()

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"127.0.0.1:{self.port}"

    @property
    def is_idle(self) -> bool:
        """Say whether every connection has ended."""
        return not self._open

    def lead_to(self, port: int | None) -> None:
        """Let new connections lead to another port, or nowhere."""
        self._ask(lambda: setattr(self, "target_port", port))

    def allow(self, size: int | None) -> None:
        """Let so many bytes more go onward, or any number."""

        def grant() -> None:
            left = self.allowance or 0
            self.allowance = None if size is None else left + size

        self._ask(grant)

    def stall(self) -> None:
        """Pass nothing on for the present."""
        self._ask(lambda: setattr(self, "is_stalled", True))

    def go_on(self) -> None:
        """Pass bytes on again."""
        self._ask(lambda: setattr(self, "is_stalled", False))

    def cut(self) -> None:
        """Reset every connection, both ways; what was on its way is lost."""
        self._ask(self._cut)

    def cut_at_answer(self, number: int) -> None:
        """Cut a connection as soon as the target's n-th answer from now has arrived."""
        self._ask(lambda: setattr(self, "answers_left", number))

    def forget(self) -> None:
        """Drop what was said on connections that have ended."""
        self._ask(lambda: setattr(self, "links", list(self._open)))

    def hang_up(self) -> None:
        """Half-close towards the target, and lose what was not let through.

        So it looks there as if those who connected had ended earlier than they did.
        """
        self._ask(self._hang_up)

    def _ask(self, action: Callable[[], None]) -> None:
        done: Future[None] = Future()
        self._asked.put((action, done))
        self._waker.wake()
        done.result(SECONDS_MAX)

    def _run(self) -> None:
        while not self._is_ending:
            with selectors.DefaultSelector() as selector:
                selector.register(self._waker, selectors.EVENT_READ)
                selector.register(self._listener, selectors.EVENT_READ)
                self._register_links(selector)
                ready = selector.select()
            for key, events in ready:
                if key.fileobj is self._waker:
                    self._obey()
                elif key.fileobj is self._listener:
                    self._accept()
                elif key.data in self._open:
                    self._move(key.data, key.fileobj, events)

    def _register_links(self, selector: selectors.BaseSelector) -> None:
        """Wait for the sockets from or to which bytes may move now."""
        if self.is_stalled:
            return
        for link in self._open:
            wanted = dict.fromkeys(link.sockets, 0)
            for way in (link.onward, link.back):
                if way.rest:
                    wanted[way.drain] |= selectors.EVENT_WRITE
                elif not way.is_ended and self._size_max(way):
                    wanted[way.source] |= selectors.EVENT_READ
            for end, events in wanted.items():
                if events:
                    selector.register(end, events, link)

    def _size_max(self, way: Way) -> int:
        if self.allowance is None or not way.is_onward:
            return self.piece_bytes
        return min(self.piece_bytes, self.allowance)

    def _obey(self) -> None:
        self._waker.clear()
        with contextlib.suppress(queue.Empty):
            while True:
                action, done = self._asked.get_nowait()
                action()
                done.set_result(None)

    def _accept(self) -> None:
        near, _ = self._listener.accept()
        far = socket.socket()
        try:
            if self.target_port is None:
                raise ConnectionRefusedError
            far.settimeout(SECONDS_MAX)
            far.connect(("127.0.0.1", self.target_port))
        except _LOST:
            _reset(near, far)
            return
        for end in (near, far):
            end.settimeout(0)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        link = Link(Way(near, far, is_onward=True), Way(far, near, is_onward=False))
        self.links.append(link)
        self._open.append(link)

    def _move(self, link: Link, end: object, events: int) -> None:
        """Move what the socket `end` has or takes; a reset of it ends the other too."""
        try:
            for way in (link.onward, link.back):
                if end is way.drain and events & selectors.EVENT_WRITE:
                    way.pass_on()
                elif end is way.source and events & selectors.EVENT_READ:
                    self._receive(way)
        except BlockingIOError:
            return
        except OSError:
            self._drop(link)
            return
        if all(way.is_ended and not way.rest for way in (link.onward, link.back)):
            self._open.remove(link)
            for each in link.sockets:
                each.close()

    def _receive(self, way: Way) -> None:
        size_max = self._size_max(way)
        if way.rest or not size_max:
            return
        size = way.receive(size_max)
        if way.is_onward:
            self.onward_bytes += size
        if way.is_onward and self.allowance is not None:
            self.allowance -= size
        if not way.is_onward and self.answers_left is not None:
            self.answers_left -= 1
            if not self.answers_left:
                self.answers_left = None
                way.pass_on()
                raise ConnectionResetError

    def _drop(self, link: Link) -> None:
        self._open.remove(link)
        _reset(*link.sockets)

    def _cut(self) -> None:
        for link in list(self._open):
            self._drop(link)

    def _hang_up(self) -> None:
        for link in self._open:
            link.onward.rest = b""
            link.onward.is_ended = True
            with contextlib.suppress(OSError):
                link.onward.drain.shutdown(socket.SHUT_WR)

    def _end(self) -> None:
        self._cut()
        self._listener.close()
        self._is_ending = True


def _reset(*ends: socket.socket) -> None:
    for end in ends:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        end.close()
