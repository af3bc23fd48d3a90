"""A sender's connection, the listener it came by, and what sources take on.

Values and helpers: who drives them is `reception`.
"""

from __future__ import annotations

import math
import selectors
import socket
from typing import TYPE_CHECKING, Self

import attrs

from alphabet.network.closing import set_reset
from alphabet.network.keepalive import keep_alive

if TYPE_CHECKING:
    from collections.abc import Callable

    from alphabet.framing import FrameFault, FrameReader
    from alphabet.network.certificates import Certificates
    from alphabet.network.secure_socket import SecureSocket
    from alphabet.pipeline.components import AnyDecoder

RECEIVE_BYTES = 1 << 20
"""How much is read of a connection at once, at most."""
RECEIVE_BYTES_FIRST = 1 << 14
"""How much is read of a new one, before it is known what it sends."""
RECEIVE_BYTES_DOUBTED = 1 << 12
"""How much is read of one that had something refused."""
RECEIVE_BYTES_SECURE = 1 << 15
"""How much is read at least of one that speaks TLS: a record must fit."""
DOUBTED_READS = 2
"""How often a new or doubted one is read only once all before it is judged."""
HANDSHAKE_SECONDS_MAX = 10.0
"""How long a connection may take to agree on TLS."""
PARTIAL_BYTES_MAX = 64 << 20
"""What all unfinished frames together may hold."""

Socket = socket.socket
_TLS_BEGINS = b"\x16\x03"
"""The first bytes of a TLS connection: RFC 8446, 5.1."""


@attrs.frozen
class Limits:
    """How much the sources of a kind take on; each is an option of `alphabet run`."""

    frame_bytes_max: int = 1 << 20
    connections_max: int = 10_000
    partial_frame_seconds_max: float = 60.0
    partial_bytes_max: int = PARTIAL_BYTES_MAX
    connections_room: float = math.inf
    """How many there are files for; further ones wait until one of them has gone."""


@attrs.frozen(eq=False)
class Listener:
    """A bound socket, and the pipeline that its connections feed.

    Connections speak TLS if there are certificates for it.
    """

    socket: socket.socket
    pipeline: int
    decoder: AnyDecoder
    certificates: Certificates | None = None

    def accept(self) -> tuple[Socket, str]:
        """Accept a connection, which any end resets from now on, and name its peer.

        Raises OSError.
        """
        accepted, address = self.socket.accept()
        set_reset(accepted, is_on=True)
        keep_alive(accepted)
        accepted.settimeout(0)
        return accepted, format_peer(address)


@attrs.define(eq=False)
class Connection:
    """One sender: its socket, its framing, and since when a frame is unfinished.

    `watched_by` waits for its socket, at most one at a time: a selector that is asked
    for a socket it does not know costs a formatted error, two system calls among it.
    `farewell_until` is set once nothing more is said or heard: its socket closes then,
    or when the peer closes. `secure` is the socket where it speaks TLS, which is to be
    agreed on until `agree_until`; `sealed_bytes` is what that holds. `refused` counts
    its bad frames, and is written by who judges them; what follows is `rests`' affair.
    """

    socket: socket.socket | SecureSocket
    peer: str
    pipeline: int
    reader: FrameReader
    partial_since: float | None = None
    partial_bytes: int = 0
    farewell_until: float | None = None
    secure: SecureSocket | None = None
    agree_until: float = 0.0
    sealed_bytes: int = 0
    receive_bytes: int = RECEIVE_BYTES_FIRST
    refused: int = 0
    known_refused: int = 0
    doubted_reads: int = DOUBTED_READS
    last_arrival: int = 0
    is_resting: bool = False
    watched_by: selectors.BaseSelector | None = None

    @classmethod
    def open(
        cls,
        accepted: Socket,
        peer: str,
        listener: Listener,
        reader: FrameReader,
        now: float,
    ) -> Self:
        """Begin a connection, as its listener has it: plain or with TLS."""
        context = listener.certificates and listener.certificates.server
        if context is None:
            return cls(accepted, peer, listener.pipeline, reader)
        from alphabet.network.secure_socket import SecureSocket

        secure = SecureSocket.accept(accepted, context)
        until = now + HANDSHAKE_SECONDS_MAX
        return cls(
            secure, peer, listener.pipeline, reader, secure=secure, agree_until=until
        )

    @property
    def is_agreed(self) -> bool:
        """Say whether votes may come: at once, or when TLS is agreed on."""
        return self.secure is None or self.secure.channel.is_agreed

    @property
    def channel_bytes(self) -> int:
        """How much TLS holds of a record that is not whole."""
        return 0 if self.secure is None else self.secure.channel.held_bytes

    @property
    def host(self) -> str:
        """Where its peer is."""
        return self.peer.rpartition(":")[0]

    @property
    def held_bytes(self) -> int:
        """How much it holds of what is unfinished, in TLS too."""
        return self.partial_bytes + self.sealed_bytes

    @property
    def unfinished_since(self) -> float:
        """Since when it has not finished a frame or, before that, agreed on TLS."""
        if self.partial_since is not None:
            return self.partial_since
        return self.agree_until - HANDSHAKE_SECONDS_MAX

    def take_stock(self, now: float, *, is_progress: bool) -> None:
        """Take note of what is unfinished now; after progress that is something new."""
        self.partial_bytes = self.reader.partial_bytes
        self.sealed_bytes = self.channel_bytes
        if not self.held_bytes or not self.is_agreed:
            self.partial_since = None
        elif is_progress or self.partial_since is None:
            self.partial_since = now

    @property
    def events(self) -> int:
        """What its socket is watched for: what TLS has to say may wait for room."""
        waits = self.secure is not None and bool(self.secure.channel.outgoing)
        return selectors.EVENT_WRITE if waits else selectors.EVENT_READ

    def receive(self) -> bytes:
        """Read, once what TLS has to say is said: else a peer could make it pile up.

        Raises BlockingIOError where nothing is read yet, and OSError.
        """
        if self.secure is not None:
            try:
                self.secure.flush()
            except BlockingIOError:
                raise
            except OSError:
                pass  # What came before is read, and then this is met again.
        return self.socket.recv(self.read_bytes)

    def watch(
        self,
        selector: selectors.BaseSelector,
        events: int,
        on_ready: Callable[[], None],
    ) -> None:
        """Be waited for by a selector; nobody does yet."""
        selector.register(self.socket, events, on_ready)
        self.watched_by = selector

    def unwatch(self) -> None:
        """Be neither read nor written any more, if it was."""
        if self.watched_by is not None:
            self.watched_by.unregister(self.socket)
            self.watched_by = None

    def await_room(self, traffic: selectors.BaseSelector) -> None:
        """Be watched in `traffic`, if it is, for room while TLS has words to say."""
        if self.secure is None or self.watched_by is not traffic:
            return
        key = traffic.get_key(self.secure)
        if key.events != self.events:
            traffic.modify(self.secure, self.events, key.data)

    def excuse(self, seconds: float, now: float) -> None:
        """Count no time in which nobody was read: it was not for it to finish then."""
        if self.partial_since is not None:
            self.partial_since = min(self.partial_since + seconds, now)

    def overdue(self, now: float, partial_frame_seconds_max: float) -> str | None:
        """Say why it ends now, if it took too long over something."""
        since, seconds = self.partial_since, partial_frame_seconds_max
        if since is not None and now - since >= seconds and not self.is_resting:
            return f"its frame was not finished within {seconds:g} s"
        if now >= self.agree_until and not self.is_agreed:
            return f"no TLS was agreed within {HANDSHAKE_SECONDS_MAX:g} s"
        return None

    @property
    def read_bytes(self) -> int:
        """How much is read of it at once, at most."""
        if self.secure is None:
            return self.receive_bytes
        return max(self.receive_bytes, RECEIVE_BYTES_SECURE)


def format_peer(address: tuple[str, int] | tuple[str, int, int, int]) -> str:
    """Write a peer's address as HOST:PORT, an IPv6 host in brackets."""
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def explain_tls(fault: FrameFault) -> FrameFault:
    """Say so where what is no frame is how TLS begins."""
    if fault.position or not fault.header.startswith(_TLS_BEGINS):
        return fault
    hint = "it begins as TLS does, and this port speaks plain TCP"
    return attrs.evolve(fault, cause=f"{fault.cause}; {hint}")
