"""Where global totals go: the terminal, files, or the tutorial's receiver.

A sink is given each account once it is durable, and at a start the newest one again:
totals never go back. The edge: files and sockets.
"""

import contextlib
import json
import os
import select
import socket
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol

import attrs
import click

from alphabet.application import Encoder, Votes
from alphabet.network.address import Address, AddressError, parse_address
from alphabet.network.outstanding import outstanding_bytes
from alphabet.printing import format_letter
from alphabet.spark.account import Account, Totals
from alphabet.spark.checkpoint import replace

DIAL_SECONDS = 10.0
"""How long a receiver may be away before the command gives up."""
_PAUSE_SECONDS = 0.1
_WATCH_SECONDS = 0.002


class SinkError(Exception):
    """A sink that cannot be reached or written; says which and why."""


class Sink(Protocol):
    """What is told of every account."""

    def put(self, account: Account) -> None:
        """Show the totals of an account; raises SinkError."""
        ...

    def renew(self, account: Account) -> None:
        """Show all totals to a receiver that came anew; raises SinkError."""
        ...

    def close(self) -> None:
        """Say that no more come, and wait for a receipt; raises SinkError."""
        ...


def parse_sink(text: str) -> Sink:
    """Make a sink of `console`, `files:DIR` or `tcp:HOST:PORT`; raises ValueError."""
    kind, _, where = text.partition(":")
    if text == "console":
        return ConsoleSink()
    if kind == "files" and where:
        return FilesSink(Path(where))
    if kind == "tcp":
        try:
            return TcpSink(parse_address(where))
        except AddressError as error:
            raise ValueError(str(error)) from error
    raise ValueError(f"{text!r} is not console, files:DIR or tcp:HOST:PORT")


@attrs.define
class _Shown:
    """The totals that a sink has shown."""

    totals: Totals = attrs.Factory(dict)

    def changed(self, account: Account) -> list[Votes]:
        """Give the totals that are new since, in the order of letters."""
        new = [
            Votes(letter.encode("latin-1"), total)
            for letter, total in account.totals.items()
            if self.totals.get(letter) != total
        ]
        self.totals = account.totals
        return new


@attrs.define
class ConsoleSink:
    """Print the new totals as `LETTER => TOTAL`."""

    _shown: _Shown = attrs.Factory(_Shown)

    def put(self, account: Account) -> None:
        """Print what is new."""
        for vote in self._shown.changed(account):
            click.echo(f"{format_letter(vote.letter)} => {vote.votes}")

    def renew(self, account: Account) -> None:
        """Nobody comes anew."""

    def close(self) -> None:
        """Nothing is open."""


@attrs.define
class FilesSink:
    """Write a file of all totals for each batch, `DIR/BATCH.json`, exactly once."""

    path: Path

    def put(self, account: Account) -> None:
        """Write a batch's file; one that is there already is equal."""
        if account.batch < 0:
            return
        file = self.path / f"{account.batch:020}.json"
        try:
            self.path.mkdir(exist_ok=True)
            replace(file, [_as_json(account)])
        except OSError as error:
            raise SinkError(f"{file}: {error.strerror or error}") from error

    def renew(self, account: Account) -> None:
        """Nobody comes anew."""

    def close(self) -> None:
        """Nothing is open."""


def _as_json(account: Account) -> bytes:
    fields = {
        "batch": account.batch,
        "totals": account.totals,
        "missing": account.missing,
        "servers": {name: each.totals for name, each in account.servers.items()},
    }
    return json.dumps(fields, sort_keys=True).encode() + b"\n"


@attrs.define
class Receiver:
    """A connection to a receiver, dialled again when it breaks."""

    address: Address
    _socket: socket.socket | None = None

    def send(
        self, pieces: Callable[[bool], Iterable[bytes]], *, is_awaited: bool = False
    ) -> None:
        """Send what `pieces` gives; it is asked again where a connection broke.

        It is told whether the connection is new. With `is_awaited`, the receiver's TCP
        has all of it on return. Raises SinkError when nothing goes for DIAL_SECONDS.
        """
        deadline = time.monotonic() + DIAL_SECONDS
        while True:
            try:
                is_new, connection = self._dialled()
                for piece in pieces(is_new):
                    connection.sendall(piece)
                    deadline = time.monotonic() + DIAL_SECONDS
                if is_awaited:
                    _await_taken(connection)
            except OSError as error:
                self._drop()
                if time.monotonic() > deadline:
                    reason = error.strerror or error
                    raise SinkError(
                        f"{self.address} does not take totals: {reason}"
                    ) from error
                time.sleep(_PAUSE_SECONDS)
            else:
                return

    @property
    def is_lost(self) -> bool:
        """Say whether a receiver closed its connection, or it broke."""
        if self._socket is None:
            return False
        poll = select.poll()
        poll.register(self._socket, select.POLLRDHUP)
        return bool(poll.poll(0))

    def _dialled(self) -> tuple[bool, socket.socket]:
        """Give the connection, and whether it is new."""
        if self.is_lost:
            self._drop()
        if self._socket is not None:
            return False, self._socket
        place = (self.address.host, self.address.port)
        self._socket = socket.create_connection(place, timeout=DIAL_SECONDS)
        return True, self._socket

    def _drop(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def close(self) -> None:
        """Half-close, and wait until the receiver has read all and closes too."""
        if self._socket is None:
            return
        try:
            self._socket.shutdown(socket.SHUT_WR)
            while self._socket.recv(4096):
                pass
        except OSError as error:
            raise SinkError(f"{self.address} did not read all: {error}") from error
        finally:
            with contextlib.suppress(OSError):
                self._drop()


def _await_taken(connection: socket.socket) -> None:
    """Wait until the peer's TCP has all that was sent; raises OSError."""
    least = outstanding_bytes(connection)
    deadline = time.monotonic() + DIAL_SECONDS
    while left := outstanding_bytes(connection):
        if code := connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            raise OSError(code, os.strerror(code))
        if left < least:
            least, deadline = left, time.monotonic() + DIAL_SECONDS
        if time.monotonic() > deadline:
            raise TimeoutError("it reads nothing")
        time.sleep(_WATCH_SECONDS)


@attrs.define
class TcpSink:
    """Send the new totals as the tutorial's frames, and all of them on connecting."""

    address: Address
    _receiver: Receiver = attrs.Factory(
        lambda self: Receiver(self.address), takes_self=True
    )
    _shown: _Shown = attrs.Factory(_Shown)

    def put(self, account: Account) -> None:
        """Send what is new; a connection that broke is dialled again."""
        self._receiver.send(lambda is_new: self._frames(account, is_new))

    def renew(self, account: Account) -> None:
        """Dial a receiver that went away again, and send it all totals."""
        if self._receiver.is_lost:
            self.put(account)

    def _frames(self, account: Account, is_new: bool) -> list[bytes]:  # noqa: FBT001 - as `Receiver` tells it
        if is_new:
            self._shown = _Shown()
        encode = Encoder().encode
        return [b"".join(map(encode, self._shown.changed(account)))]

    def close(self) -> None:
        """Half-close, and wait until the receiver has read all and closes too."""
        self._receiver.close()
