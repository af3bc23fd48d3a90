"""Floods over TLS: what one peer can make the server hold, and others wait for."""

import contextlib
import io
import os
import random
import select
import selectors
import socket
import ssl
import threading
from pathlib import Path

import pytest

from alphabet.application import Decoder
from alphabet.arrival import Received
from alphabet.framing import FrameReader, decode_length
from alphabet.journal.journal import Journal
from alphabet.network.certificates import Certificates, TlsFiles
from alphabet.network.secure_channel import RECORD_BYTES_MAX, SecureChannel
from alphabet.network.secure_socket import SHORT_READ_BYTES, SecureSocket
from alphabet.network.tls import client_context, server_context
from alphabet.source.connection import (
    PARTIAL_BYTES_MAX,
    RECEIVE_BYTES,
    Connection,
    Limits,
    Listener,
)
from alphabet.source.inbox import Inbox
from alphabet.source.plain import Sources
from alphabet.trial.flood import raise_file_limit
from tests.authority import HOST, Authority
from tests.inspection import last_sequence
from tests.process import SECONDS_MAX, Server, serving, wait_until
from tests.votes import VOTE_BYTES, wire

OWN_BYTES_MAX = 150_000_000
"""A server's own memory may be so much: as in the floods without TLS."""
BUSY_COUNT = 120
BUSY_VOTES = 3 * RECEIVE_BYTES // VOTE_BYTES
HELLO_BYTES = 120_000
"""Less than OpenSSL takes for a hello, much more than a record."""
HELLO_COUNT = 2 * PARTIAL_BYTES_MAX // HELLO_BYTES
KERNEL_BYTES = 1 << 18
CHAIN_COPIES = 100
"""A chain of 60 KB and more: a client takes 100 KB."""
VOTE_RECORD_BYTES_MIN = VOTE_BYTES + 5 + 16
"""A vote, with a record's head and seal: RFC 8446, 5.2."""


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Give an authority."""
    return Authority.make(tmp_path_factory.mktemp("authority"))


def dialled(server: Server, authority: Authority) -> ssl.SSLSocket:
    """Give a connection that has agreed on TLS."""
    raw = socket.create_connection((HOST, server.port), SECONDS_MAX)
    return client_context(authority.ca).wrap_socket(raw, server_hostname=HOST)


def huge_hello() -> bytes:
    """Write most of a hello that goes on for many records: RFC 8446, 4 and 5.1."""
    rest = (
        b"\x01"
        + (HELLO_BYTES + 1000).to_bytes(3)
        + b"\x03\x03"
        + os.urandom(HELLO_BYTES)
    )
    records = []
    while rest:
        piece, rest = rest[:RECORD_BYTES_MAX], rest[RECORD_BYTES_MAX:]
        records.append(b"\x16\x03\x01" + len(piece).to_bytes(2) + piece)
    return b"".join(records)


class TestMemory:
    """What the server holds for peers; OpenSSL's part of it too."""

    def test_those_that_were_busy(self, tmp_path: Path, authority: Authority) -> None:
        """Whoever has sent much holds nothing of it once it is counted."""
        votes = wire([(b"g", 1)] * BUSY_VOTES)
        with (
            serving(tmp_path, *authority.server.words) as server,
            contextlib.ExitStack() as stack,
        ):
            for _ in range(BUSY_COUNT):
                stack.enter_context(dialled(server, authority)).sendall(votes)
            wait_until(
                lambda: last_sequence(tmp_path) == BUSY_COUNT * BUSY_VOTES, "all votes"
            )
            assert server.anonymous_bytes() < OWN_BYTES_MAX

    def test_huge_hellos(self, tmp_path: Path, authority: Authority) -> None:
        """Hellos without an end count as unfinished, and others are served."""
        raise_file_limit()
        hello = huge_hello()
        with (
            serving(tmp_path, *authority.server.words) as server,
            contextlib.ExitStack() as stack,
        ):
            for _ in range(HELLO_COUNT):
                peer = socket.create_connection((HOST, server.port), SECONDS_MAX)
                stack.enter_context(peer)
                with contextlib.suppress(ConnectionError):
                    peer.sendall(hello)
            server.wait_said(f"unfinished frames hold {PARTIAL_BYTES_MAX} bytes")
            assert server.anonymous_bytes() < OWN_BYTES_MAX + PARTIAL_BYTES_MAX
            stack.close()
            with dialled(server, authority) as sender:
                sender.sendall(wire([(b"g", 1)]))
                wait_until(lambda: last_sequence(tmp_path) == 1, "a vote")


def pair(authority: Authority) -> tuple[socket.socket, SecureChannel, SecureSocket]:
    """Give a peer's socket and its end of TLS, and ours, which have agreed."""
    theirs, ours = socket.socketpair()
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, KERNEL_BYTES)
    files = authority.server
    secure = SecureSocket.accept(ours, server_context(files.certificate, files.key))
    channel = SecureChannel.of_client(client_context(authority.ca), HOST)
    ours.settimeout(0)
    for _ in range(3):
        theirs.sendall(channel.outgoing)
        channel.give(len(channel.outgoing))
        with contextlib.suppress(BlockingIOError):
            secure.recv(RECEIVE_BYTES)
        if not channel.is_agreed:
            channel.receive(theirs.recv(1 << 16))
    assert secure.channel.is_agreed
    return theirs, channel, secure


def taken(channel: SecureChannel) -> bytes:
    """Take what a channel has to say."""
    said = bytes(channel.outgoing)
    channel.give(len(said))
    return said


class TestReads:
    """How much is read of a peer at once."""

    def test_short_records_are_read_in_small_lots(self, authority: Authority) -> None:
        """A read has little of a peer whose records are short, all of it in the end.

        Once its records are long, reads are long again.
        """
        peer, channel, secure = pair(authority)
        with peer, secure:
            votes = [bytes([number % 256]) * VOTE_BYTES for number in range(5000)]
            for vote in votes:
                channel.send(memoryview(vote))
            peer.sendall(taken(channel))
            found = [secure.recv(RECEIVE_BYTES)]
            with contextlib.suppress(BlockingIOError):
                while True:
                    found.append(secure.recv(RECEIVE_BYTES))
            assert b"".join(found) == b"".join(votes)
            most = SHORT_READ_BYTES // VOTE_RECORD_BYTES_MIN * VOTE_BYTES
            assert max(map(len, found[1:])) <= most
            block = random.Random(1).randbytes(8 * RECORD_BYTES_MAX)
            longest, rest = 0, len(block) * 8
            for _ in range(8):
                channel.send(memoryview(block))
                peer.sendall(taken(channel))
                with contextlib.suppress(BlockingIOError):
                    while data := secure.recv(RECEIVE_BYTES):
                        longest, rest = max(longest, len(data)), rest - len(data)
            assert rest == 0
            assert longest > len(block) - RECORD_BYTES_MAX

    def test_what_came_before_a_fault(self, authority: Authority) -> None:
        """Records before a bad one are given first, and its fault is told then."""
        bad = b"\x17\x03\x03\x00\x20" + bytes(32)
        peer, channel, secure = pair(authority)
        with peer, secure:
            channel.send(memoryview(b"votes"))
            peer.sendall(taken(channel) + bad)
            assert secure.recv(RECEIVE_BYTES) == b"votes"
            # Whoever waits for the socket comes back at once, though nothing follows.
            assert select.select([secure], [], [], SECONDS_MAX)[0]
            for _ in range(2):
                with pytest.raises(OSError, match="decryption failed"):
                    secure.recv(RECEIVE_BYTES)


class TestOurWords:
    """What TLS itself makes us say, such as the answer to each update of a key."""

    def test_who_does_not_take_them_is_not_read(self, authority: Authority) -> None:
        """While they wait for room nothing is read, and it is once they are taken."""
        peer, channel, secure = pair(authority)
        reader = FrameReader(4, decode_length, 9)
        connection = Connection(secure, "it", 0, reader, secure=secure)
        with peer, secure:
            words = secure.channel.outgoing = memoryview(bytes(32 * KERNEL_BYTES))
            channel.send(memoryview(b"votes"))
            peer.sendall(taken(channel))
            assert connection.events == selectors.EVENT_WRITE
            with pytest.raises(BlockingIOError):
                connection.receive()
            assert select.select([secure], [], [], SECONDS_MAX)[0]
            while secure.channel.outgoing:
                with contextlib.suppress(BlockingIOError):
                    secure.flush()
                peer.recv(len(words))
            assert connection.events == selectors.EVENT_READ
            assert connection.receive() == b"votes"

    def test_what_came_before_the_end_is_read(self, authority: Authority) -> None:
        """Where nobody is there to take them, what was said before counts."""
        peer, channel, secure = pair(authority)
        reader = FrameReader(4, decode_length, 9)
        connection = Connection(secure, "it", 0, reader, secure=secure)
        with secure:
            with peer:
                channel.send(memoryview(b"votes"))
                peer.sendall(taken(channel))
            secure.channel.outgoing = memoryview(b"words")
            assert connection.receive() == b"votes"


class TestFlights:
    """What the server has to say before hands are shaken."""

    def test_a_long_chain_over_little_room(
        self, tmp_path: Path, authority: Authority
    ) -> None:
        """A chain of certificates that the network takes bit by bit arrives whole."""
        pair = authority.server
        chain = tmp_path / "chain.pem"
        chain.write_bytes(pair.certificate.read_bytes() * CHAIN_COPIES)
        certificates = Certificates.load(TlsFiles(chain, pair.key))
        inbox, journal = Inbox(RECEIVE_BYTES), Journal.open(io.StringIO())
        with socket.create_server((HOST, 0)) as listening, socket.socket() as peer:
            listening.settimeout(0)
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
            listener = Listener(listening, 0, Decoder(), certificates)
            sources = Sources([listener], inbox, Limits(), journal)
            thread = threading.Thread(target=sources.reception.run)
            thread.start()
            try:
                peer.connect(listening.getsockname())
                context = client_context(authority.ca)
                with SecureSocket.connect(peer, context, HOST, SECONDS_MAX) as sender:
                    sender.sendall(wire([(b"g", 1)]))
                    wait_until(lambda: not inbox.is_empty, "a vote")
                    [arrival] = inbox.take(RECEIVE_BYTES)
                    assert isinstance(arrival, Received)
            finally:
                sources.reception.end()
                thread.join(SECONDS_MAX)
                sources.reception.waker.close()
                journal.close()
