"""Send votes at a pace, know how many went, and wait for the server's receipt.

Plain framed TCP has no acknowledgements, but it has an end: a sender that is done
half-closes its connection, and the server closes its own side only when all that came
is durable. That close is the receipt. Anything else (a reset, silence, a close before
the end) leaves open which votes are durable, and is a `NoReceiptError`.
"""

from __future__ import annotations

import select
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol

import attrs

from alphabet.network.dialing import SPEAKS_TLS, is_alert
from alphabet.sending.vote_input import (
    CHUNK_BYTES,
    CHUNK_VOTES,
    NO_VOTES,
    Chunk,
    VoteInputError,
)

if TYPE_CHECKING:
    import io
    from collections.abc import Callable, Iterator

    from alphabet.network.secure_socket import SecureSocket

_READ_BYTES = 1 << 16

CHUNKS_PER_SECOND = 20
"""At a given pace, how often votes go out, if there are that many a second."""


@attrs.frozen
class NoReceiptError(Exception):
    """What became of the votes that were sent is not known.

    Attributes:
        cause: What the other side did, as the rest of a sentence about it.
    """

    cause: str

    def __str__(self) -> str:
        return self.cause


class Target(Protocol):
    """Where votes go; each method raises `NoReceiptError` once none can go there."""

    @property
    def sent_bytes(self) -> int:
        """How much went there so far."""
        ...

    def write(self, data: bytes, /) -> None:
        """Send all of it."""
        ...

    def wait(self, seconds: float, /) -> None:
        """Let time pass, this long at most."""
        ...

    def await_input(self, fileno: int, /) -> None:
        """Wait until a file has something to read or has ended."""
        ...

    def finish(self) -> bool:
        """Say that this was all; return whether there is a receipt for it."""
        ...


@attrs.define
class ServerTarget:
    """A server's source.

    Attributes:
        connection: To the server; made non-blocking.
        silence_seconds_max: How long the server may take nothing, or owe the receipt.
        sent_bytes: What the kernel took.
    """

    connection: socket.socket | SecureSocket
    silence_seconds_max: float
    sent_bytes: int = attrs.field(default=0, init=False)

    def __attrs_post_init__(self) -> None:
        self.connection.settimeout(0)

    def write(self, data: bytes) -> None:
        """Send all of it, as fast as the server takes it."""
        view = memoryview(data)
        while view:
            self._await_room()
            try:
                sent = self.connection.send(view)
            except BlockingIOError:
                continue
            except OSError as error:
                raise self._lost(error) from error
            self.sent_bytes += sent
            view = view[sent:]

    def wait(self, seconds: float) -> None:
        """Let time pass, with an eye on the server."""
        self._poll(0, seconds)

    def await_input(self, fileno: int) -> None:
        """Wait for an input, with an eye on the server."""
        while not self._poll(0, None, fileno):
            pass

    def finish(self) -> bool:
        """Half-close, and wait for the receipt: the server closes its side."""
        self.wait(0)
        try:
            self.connection.settimeout(self.silence_seconds_max)
            self.connection.shutdown(socket.SHUT_WR)
            return self._receipt()
        except TimeoutError as error:
            raise self._silent("gave no receipt") from error
        except OSError as error:
            raise self._lost(error) from error

    def _await_room(self) -> None:
        """Wait until the server takes more; what TLS says meanwhile is no answer."""
        until = time.monotonic() + self.silence_seconds_max
        while not self._poll(select.POLLOUT, max(until - time.monotonic(), 0.0)):
            if time.monotonic() >= until:
                raise self._silent("took nothing")

    def _receipt(self) -> bool:
        """Wait for the receipt; a part of one, which only TLS can have, is none."""
        until = time.monotonic() + self.silence_seconds_max
        while True:
            try:
                return self._closed()
            except BlockingIOError:
                left = until - time.monotonic()
                if left <= 0:
                    raise TimeoutError from None
                self.connection.settimeout(left)

    def _poll(
        self, events: int, seconds: float | None, fileno: int | None = None
    ) -> bool:
        """Wait for events on the connection or an input; say whether there are any."""
        poll = select.poll()
        poll.register(self.connection, events | select.POLLIN)
        if fileno is not None:
            poll.register(fileno, select.POLLIN)
        ready = dict(poll.poll(None if seconds is None else seconds * 1000))
        heard = ready.pop(self.connection.fileno(), 0)
        try:
            if heard & ~select.POLLOUT and self._closed():
                raise NoReceiptError("closed the connection before its end")
        except BlockingIOError:
            pass
        except OSError as error:
            raise _broken(error) from error
        return bool(ready or heard & events)

    def _closed(self) -> bool:
        """Say whether the server has closed its side; else it has something to say."""
        said = self.connection.recv(_READ_BYTES)
        if is_alert(said):
            raise NoReceiptError(SPEAKS_TLS)
        if said:
            raise NoReceiptError(
                "answered as no --in does (a --connector-in needs --connector)"
            )
        return True

    def _lost(self, error: OSError) -> NoReceiptError:
        """Make the error for a connection that broke: its last words may tell why."""
        try:
            self._closed()
        except NoReceiptError as said:
            return said
        except OSError:
            pass  # It said nothing more.
        return _broken(error)

    def _silent(self, what: str) -> NoReceiptError:
        """Make the error for a server that let time pass."""
        return NoReceiptError(f"{what} for {self.silence_seconds_max:g} seconds")


@attrs.define
class StreamTarget:
    """A file or a pipe, unbuffered, such as standard output. It gives no receipt."""

    stream: io.RawIOBase | BinaryIO
    sent_bytes: int = attrs.field(default=0, init=False)

    def write(self, data: bytes) -> None:
        """Write all of it."""
        view = memoryview(data)
        while view:
            try:
                written = self.stream.write(view) or 0
            except OSError as error:
                raise _broken(error) from error
            self.sent_bytes += written
            view = view[written:]

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        time.sleep(seconds)

    def await_input(self, fileno: int) -> None:
        """Leave the waiting to whoever reads."""

    def finish(self) -> bool:
        """All is written, and that is all that can be said."""
        return False


def _broken(error: OSError) -> NoReceiptError:
    """Make the error for a connection or a pipe that broke."""
    return NoReceiptError(f"is gone ({error.strerror or error})")


@attrs.define
class Sender:
    """Send chunks of votes, each when its turn has come, and keep count.

    Attributes:
        target: Where they go.
        votes_per_second: The pace, above 0; None for as fast as they are taken.
        clock: Tells the time in seconds, never backwards.
    """

    target: Target
    votes_per_second: float | None = None
    clock: Callable[[], float] = time.monotonic
    _began: float | None = attrs.field(default=None, init=False)
    _whole_votes: int = attrs.field(default=0, init=False)
    _whole_bytes: int = attrs.field(default=0, init=False)
    _chunk: Chunk = attrs.field(default=NO_VOTES, init=False)

    @property
    def chunk_votes_max(self) -> int:
        """The size of chunks, in votes, that keeps the pace steady."""
        if self.votes_per_second is None:
            return CHUNK_VOTES
        return max(1, min(CHUNK_VOTES, int(self.votes_per_second / CHUNKS_PER_SECOND)))

    @property
    def votes_sent(self) -> int:
        """How many votes went, whole, also when a chunk's sending came to an end."""
        part_bytes = self.target.sent_bytes - self._whole_bytes
        return self._whole_votes + self._chunk.votes_within(part_bytes)

    def send(self, chunk: Chunk) -> None:
        """Send a chunk.

        Raises:
            NoReceiptError: The target is gone; `votes_sent` says how far this came.
        """
        if self.votes_per_second is not None:
            self._await_turn(self.votes_per_second)
        self._chunk = chunk
        self.target.write(chunk.frames)
        self._chunk = NO_VOTES
        self._whole_votes += chunk.votes
        self._whole_bytes += len(chunk.frames)

    def _await_turn(self, votes_per_second: float) -> None:
        """Wait until the votes before have had their time."""
        if self._began is None:
            self._began = self.clock()
        due = self._began + self._whole_votes / votes_per_second
        while (seconds := due - self.clock()) > 0:
            self.target.wait(seconds)


def read_pieces(path: str, target: Target, position: int = 0) -> Iterator[bytes]:
    """Read a file, or standard input for `-`, as it comes, with an eye on the target.

    A file that can be sought in is read from `position` on.

    Raises:
        VoteInputError: It cannot be read, or not to its end.
        NoReceiptError: The target is gone.
    """
    try:
        with _open(path) as stream:
            if position:
                stream.seek(position)
            while True:
                target.await_input(stream.fileno())
                piece = stream.read(CHUNK_BYTES)
                if piece == b"":
                    return
                position += len(piece)
                yield piece
    except OSError as error:
        cause = error.strerror or str(error)
        raise VoteInputError(f"byte {position}", cause) from error


def _open(path: str) -> io.FileIO:
    """Open a file so that a read returns what is there."""
    if path == "-":
        return open(sys.stdin.fileno(), "rb", buffering=0, closefd=False)
    return Path(path).open("rb", buffering=0)
