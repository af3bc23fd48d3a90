"""The driver of a measurement: sends a load from a process of its own, receives here.

Raw sockets and large buffers, so that the driver is as little of a bottleneck as it
can be. The sending process connects, makes its votes, and waits for the word.
"""

from __future__ import annotations

import multiprocessing
import resource
import select
import signal
import socket
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.connection import Connection

    from alphabet.trial.vote_load import Load

SECONDS_MAX = 900.0
"""How long a load may take before it is given up."""
WRITE_BYTES = 1 << 20
"""How much a lone sender writes at once."""
RECEIVE_BYTES = 1 << 20

HOST = "127.0.0.1"


class FloodError(Exception):
    """A load did not get through; the message says what is missing."""


@attrs.frozen
class Sending:
    """A load on its way to a port.

    Attributes:
        write_bytes: How much a lone sender writes at once; several write a turn.
        has_receipt: Whether to half-close and wait until the server closes, which says
            that all is durable; else connections stay open to the end.
    """

    load: Load
    port: int
    write_bytes: int = WRITE_BYTES
    has_receipt: bool = True


@attrs.frozen
class Sender:
    """The sending process, seen from here."""

    pid: int
    _pipe: Connection

    def go(self) -> None:
        """Let it send."""
        self._pipe.send(None)

    @property
    def is_done(self) -> bool:
        """Say whether it has sent all and has its receipts."""
        return self._pipe.poll()

    def await_end(self) -> float:
        """Wait for the receipts; give the seconds of processor time it took.

        Raises:
            FloodError: The votes are not known to be durable.
        """
        if not self._pipe.poll(SECONDS_MAX):
            raise FloodError(f"the senders were not done after {SECONDS_MAX:g} s")
        answer = self._pipe.recv()
        if isinstance(answer, str):
            raise FloodError(answer)
        return float(answer)


@contextmanager
def sender(sending: Sending) -> Iterator[Sender]:
    """Give a sending process that is connected and waits for `go`; end it at last."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_send, args=(sending, theirs), daemon=True)
    process.start()
    try:
        theirs.close()
        _await_ready(ours)
        yield Sender(process.pid or 0, ours)
    finally:
        process.kill()
        process.join()
        ours.close()


def _await_ready(pipe: Connection) -> None:
    try:
        answer = pipe.recv()
    except EOFError as error:
        raise FloodError("the sending process ended before it was ready") from error
    if answer is not None:
        raise FloodError(answer)


def _send(sending: Sending, pipe: Connection) -> None:
    """Be the sending process: None says ready, then a number or a fault ends it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Who started it will end it.
    raise_file_limit()
    try:
        turn = [memoryview(row.tobytes()) for row in sending.load.frames()]
        address = (HOST, sending.port)
        connections = [socket.create_connection(address) for _ in turn]
        for each in connections:
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        pipe.send(None)
        pipe.recv()
        before = time.process_time()
        if len(turn) == 1:
            _send_alone(connections[0], turn[0], sending)
        else:
            _send_together(connections, turn, sending.load.turns)
        if sending.has_receipt and any(_end(each) for each in connections):
            pipe.send("the server sent something to a sender")
        pipe.send(time.process_time() - before)
        pipe.recv()  # Stay: connections end with this process.
    except EOFError:
        pass
    except OSError as error:
        pipe.send(f"a sender's connection broke: {error}")


def _send_alone(connection: socket.socket, turn: memoryview, sending: Sending) -> None:
    """Write all turns, in pieces of one size."""
    size = sending.write_bytes
    pieces = [turn[start : start + size] for start in range(0, len(turn), size)]
    for _ in range(sending.load.turns):
        for piece in pieces:
            connection.sendall(piece)


def _send_together(
    connections: list[socket.socket], turn: list[memoryview], turns: int
) -> None:
    """Write to whichever connection has room, a turn's rest at most at once."""
    rests = {each.fileno(): row for each, row in zip(connections, turn, strict=True)}
    rows = dict(rests)
    left = dict.fromkeys(rests, turns)
    by_number = {each.fileno(): each for each in connections}
    poll = select.epoll()
    for number, each in by_number.items():
        each.settimeout(0)
        poll.register(number, select.EPOLLOUT)
    while by_number:
        for number, _ in poll.poll():
            rest = rests[number]
            rest = rest[by_number[number].send(rest) :]
            if not rest:
                left[number] -= 1
                rest = rows[number]
            rests[number] = rest
            if not left[number]:
                poll.unregister(number)
                by_number.pop(number).settimeout(None)
    poll.close()


def _end(connection: socket.socket) -> bytes:
    """Half-close; give what the server sends before it closes: nothing, if all is well.

    It closes once all is durable.
    """
    connection.shutdown(socket.SHUT_WR)
    connection.settimeout(SECONDS_MAX)
    return connection.recv(1)


def raise_file_limit() -> None:
    """Let this process have as many connections as the system allows it."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


@attrs.define
class OutputBuffer:
    """Room for outputs, touched once, so that no measurement pays for its pages."""

    _room: bytearray = attrs.field(factory=bytearray)

    def view(self, size: int) -> memoryview:
        """Give room for so many bytes; whatever is in it is of no meaning."""
        if len(self._room) < size:
            self._room = bytearray()
            self._room = bytearray(b"\xff") * size
        return memoryview(self._room)[:size]


def receive(
    sink: socket.socket, view: memoryview, watch: Callable[[int], None] | None = None
) -> None:
    """Fill a view from a sink; `watch` is told now and then how much has come.

    Raises:
        FloodError: The sink ended before.
    """
    size = len(view)
    have = 0
    while have < size:
        count = sink.recv_into(view[have : have + RECEIVE_BYTES])
        if not count:
            raise FloodError(f"the outputs ended {size - have} bytes too early")
        have += count
        if watch is not None:
            watch(have)
