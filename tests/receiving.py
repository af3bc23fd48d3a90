"""A receiver of outputs that can be as awkward as receivers are.

It keeps every byte of every connection. A thread of its own does all that touches a
socket; the test tells it what to do and waits until that is done.
"""

import contextlib
import queue
import select
import socket
import struct
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Self

import attrs

from alphabet.network.waker import Waker
from tests.process import SECONDS_MAX, wait_until

_RECEIVE_BYTES = 1 << 20
_RESET = struct.pack("ii", 1, 0)


@attrs.define(eq=False)
class Receiver:
    """Listens on 127.0.0.1 and takes one connection after the other.

    `connections` holds the bytes of each, in order. `buffer_bytes` is the size asked
    for of the kernel's receive buffer, None for its own choice.
    """

    buffer_bytes: int | None = None
    is_stalled: bool = False
    port: int = attrs.field(default=0, init=False)
    connections: list[bytearray] = attrs.field(factory=list, init=False)
    _listener: socket.socket | None = attrs.field(default=None, init=False)
    _connection: socket.socket | None = attrs.field(default=None, init=False)
    _is_ending: bool = attrs.field(default=False, init=False)
    _waker: Waker = attrs.field(factory=Waker, init=False)
    _asked: "queue.SimpleQueue[tuple[Callable[[], None], Future[None]]]" = attrs.field(
        factory=queue.SimpleQueue, init=False
    )
    _thread: threading.Thread = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        """Listen, and start the thread."""
        self._listen()
        self._thread = threading.Thread(target=self._run, name="receiver", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        """Give the receiver."""
        return self

    def __exit__(self, *_: object) -> None:
        """Go away for good."""
        self._ask(self._end)
        self._thread.join(SECONDS_MAX)
        self._waker.close()

    @property
    def address(self) -> str:
        """Where it listens, as `--out` takes it."""
        return f"127.0.0.1:{self.port}"

    @property
    def received_bytes(self) -> int:
        """How many bytes came, over all connections."""
        return sum(map(len, self.connections))

    @property
    def is_connected(self) -> bool:
        """Say whether a server is connected."""
        return self._connection is not None

    def wait_bytes(self, size: int) -> None:
        """Wait until that many bytes have come, over all connections."""
        wait_until(lambda: self.received_bytes >= size, f"{size} bytes received")

    def wait_connections(self, count: int) -> None:
        """Wait until that many connections have been made."""
        wait_until(lambda: len(self.connections) >= count, f"{count} connections")

    def wait_hung_up(self) -> None:
        """Wait until the last server's bytes are in, to the end of its connection."""
        wait_until(lambda: not self.is_connected, "the connection's end")

    def stall(self) -> None:
        """Read no more for the present."""
        self._ask(lambda: setattr(self, "is_stalled", True))

    def go_on(self) -> None:
        """Read again."""
        self._ask(lambda: setattr(self, "is_stalled", False))

    def leave(self, *, with_reset: bool = False) -> None:
        """Close the connection and listen no more.

        A reset throws away what is unread, as a receiver does that dies.
        """
        self._ask(lambda: self._leave(with_reset=with_reset))

    def half_close(self) -> None:
        """Say that no more is wanted, and read on what is on the way."""
        self._ask(self._half_close)

    def come_back(self, *, elsewhere: bool = False) -> None:
        """Listen again, on the same port or on another one."""
        if elsewhere:
            self.port = 0
        self._ask(self._listen)

    def _ask(self, action: Callable[[], None]) -> None:
        done: Future[None] = Future()
        self._asked.put((action, done))
        self._waker.wake()
        done.result(SECONDS_MAX)

    def _run(self) -> None:
        while not self._is_ending:
            sources: list[socket.socket | Waker] = [self._waker]
            if self._connection is not None and not self.is_stalled:
                sources.append(self._connection)
            if self._connection is None and self._listener is not None:
                sources.append(self._listener)
            ready = select.select(sources, [], [])[0]
            if self._waker in ready:
                self._obey()
            elif self._connection in ready:
                self._receive()
            elif self._listener in ready:
                self._accept()

    def _obey(self) -> None:
        self._waker.clear()
        with contextlib.suppress(queue.Empty):
            while True:
                action, done = self._asked.get_nowait()
                try:
                    action()
                except OSError as error:
                    done.set_exception(error)
                else:
                    done.set_result(None)

    def _listen(self) -> None:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if self.buffer_bytes is not None:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.buffer_bytes)
        listener.bind(("127.0.0.1", self.port))
        listener.listen()
        self.port = listener.getsockname()[1]
        self._listener = listener

    def _accept(self) -> None:
        assert self._listener is not None
        self._connection, _ = self._listener.accept()
        self.connections.append(bytearray())

    def _receive(self) -> None:
        assert self._connection is not None
        try:
            data = self._connection.recv(_RECEIVE_BYTES)
        except ConnectionResetError:
            data = b""
        self.connections[-1] += data
        if not data:
            self._hang_up()

    def _half_close(self) -> None:
        assert self._connection is not None
        self._connection.shutdown(socket.SHUT_WR)

    def _leave(self, *, with_reset: bool) -> None:
        # First the listener: nobody is to come in between.
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        if with_reset and self._connection is not None:
            self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._hang_up()

    def _hang_up(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _end(self) -> None:
        self._leave(with_reset=False)
        self._is_ending = True
