"""Peers that do a server no good, each in a thread, for as long as a run lasts.

None of them ever sends a vote that counts: what is counted beside them is known.
"""

import contextlib
import itertools
import random
import socket
import threading
from collections.abc import Callable, Iterator, Sequence

import attrs

from alphabet.connector.frames import (
    VERSION_IN,
    Hello,
    Message,
    Notify,
    encode_frame,
)

GARBAGE_BYTES = 1 << 16
PAUSE_SECONDS = 0.1
STORM_CONNECTIONS = 50
DRIBBLERS = 20
UNREAD_MESSAGES = 200
DEAF_STREAM = 1 << 40
TRY_SECONDS = 2.0

Visit = Callable[[random.Random], Iterator[None]]
"""A pest's dealings with a server: it is resumed every `PAUSE_SECONDS`."""


@attrs.define(eq=False)
class Pests:
    """Threads that begin their visits anew until the end; `visits` counts them."""

    port: int
    connector_port: int
    seed: int
    visits: dict[str, int] = attrs.field(factory=dict, init=False)
    _ending: threading.Event = attrs.field(factory=threading.Event, init=False)
    _threads: list[threading.Thread] = attrs.field(factory=list, init=False)

    def __enter__(self) -> None:
        """Start all."""
        kinds: Sequence[Visit] = (self.storm, self.dribble, self.rave, self.deafen)
        for number, visit in enumerate(kinds):
            chance = random.Random(self.seed + number)
            thread = threading.Thread(
                target=self._come_again, args=(visit, chance), daemon=True
            )
            thread.start()
            self._threads.append(thread)

    def __exit__(self, *_: object) -> None:
        """Let all go."""
        self._ending.set()
        for thread in self._threads:
            thread.join()

    def _come_again(self, visit: Visit, chance: random.Random) -> None:
        name = visit.__name__
        while not self._ending.is_set():
            self.visits[name] = self.visits.get(name, 0) + 1
            with contextlib.suppress(OSError):
                for _ in visit(chance):
                    if self._ending.wait(PAUSE_SECONDS):
                        return
            self._ending.wait(PAUSE_SECONDS)

    def storm(self, chance: random.Random) -> Iterator[None]:
        """Connect many times, with a byte or none, and go away."""
        for _ in range(STORM_CONNECTIONS):
            with _connected(chance.choice([self.port, self.connector_port])) as each:
                each.sendall(bytes(chance.randrange(2)))
        yield

    def dribble(self, chance: random.Random) -> Iterator[None]:
        """Send frames that are never finished, a byte at a time."""
        with contextlib.ExitStack() as stack:
            connections = [
                stack.enter_context(_connected(self.port)) for _ in range(DRIBBLERS)
            ]
            frame = (1 << 10).to_bytes(4) + chance.randbytes(1 << 10)
            for byte in frame[:-1]:
                for connection in connections:
                    connection.sendall(bytes([byte]))
                yield

    def rave(self, chance: random.Random) -> Iterator[None]:
        """Send garbage of one kind until the server has had enough."""
        garbage = chance.choice(
            [
                chance.randbytes(GARBAGE_BYTES),
                bytes(GARBAGE_BYTES),
                b"\xff" * GARBAGE_BYTES,
                b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 100,
                b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 100,
                b"\x00\x00\x00\x06abcdef" * 1000,
            ]
        )
        port = chance.choice([self.port, self.connector_port])
        with _connected(port) as connection:
            for _ in range(chance.randrange(1, 20)):
                connection.sendall(garbage)
                yield

    def deafen(self, chance: random.Random) -> Iterator[None]:
        """Speak the connector protocol, send what is no vote, and read nothing."""
        number = chance.randrange(10)
        stream_id, name = DEAF_STREAM + number, b"deaf%d" % number
        hello = Hello(VERSION_IN, b"", b"pest", name)
        message = Message(stream_id, 0, 0, b"", b"no vote")
        with _connected(self.connector_port) as connection:
            connection.sendall(encode_frame(hello))
            connection.sendall(encode_frame(Notify(stream_id, name, 0)))
            for first in itertools.count(1, UNREAD_MESSAGES):
                frames = (
                    encode_frame(attrs.evolve(message, message_id=first + offset))
                    for offset in range(UNREAD_MESSAGES)
                )
                connection.sendall(b"".join(frames))
                yield


def _connected(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), TRY_SECONDS)
