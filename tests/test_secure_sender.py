"""A sender over TLS: what the server says comes in pieces, as networks may have it."""

import contextlib
import fcntl
import select
import socket
import struct
import termios
import threading
from collections.abc import Iterator

import attrs
import pytest

from alphabet.network.secure_channel import SecureChannel
from alphabet.network.secure_socket import SecureSocket
from alphabet.network.tls import client_context, server_context
from alphabet.sending.sender import NoReceiptError, ServerTarget
from tests.authority import HOST, Authority
from tests.process import SECONDS_MAX, wait_until

HALF_BYTES = 5
"""A part of a record, whichever: its head."""
VOTES = bytes(4 << 20)
"""More than the kernel takes where nobody reads."""


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Give an authority."""
    return Authority.make(tmp_path_factory.mktemp("authority"))


@attrs.define
class Server:
    """The end of a server: its socket, what TLS makes of it, and whom it serves."""

    socket: socket.socket
    channel: SecureChannel
    sender: SecureSocket

    def receive(self) -> bytes:
        """Take what came."""
        return self.channel.receive(self.socket.recv(1 << 16))

    def say_half(self) -> bytes:
        """Say the first part of what is due, heard by the sender; give the rest."""
        said = bytes(self.channel.outgoing)
        self.socket.sendall(said[:HALF_BYTES])
        wait_until(lambda: not _unread_bytes(self.sender), "half a record is read")
        return said[HALF_BYTES:]


def _unread_bytes(connection: SecureSocket) -> int:
    """Say how much the kernel holds for a connection."""
    told = fcntl.ioctl(connection.fileno(), termios.FIONREAD, bytes(4))
    return int(struct.unpack("i", told)[0])


def _has_room(connection: SecureSocket) -> bool:
    """Say whether the kernel takes more of a connection."""
    return bool(select.select([], [connection], [], 0)[1])


@contextlib.contextmanager
def _served(authority: Authority) -> Iterator[Server]:
    """Give a server that has agreed on TLS with a sender."""
    files = authority.server
    ours, theirs = socket.socketpair()
    ours.settimeout(SECONDS_MAX)
    channel = SecureChannel.of_server(server_context(files.certificate, files.key))

    def shake() -> None:
        while not channel.is_agreed:
            channel.receive(ours.recv(1 << 16))
            ours.sendall(channel.outgoing)
            channel.give(len(channel.outgoing))

    thread = threading.Thread(target=shake)
    thread.start()
    context = client_context(authority.ca)
    with ours, SecureSocket.connect(theirs, context, HOST, SECONDS_MAX) as sender:
        thread.join(SECONDS_MAX)
        yield Server(ours, channel, sender)


class TestPieces:
    """A record of TLS of which the rest comes later."""

    def test_a_receipt(self, authority: Authority) -> None:
        """A receipt in two pieces is a receipt."""
        with _served(authority) as server:
            target = ServerTarget(server.sender, SECONDS_MAX)

            def give() -> None:
                while not server.channel.is_ended:
                    server.receive()
                server.channel.end()
                server.socket.sendall(server.say_half())

            thread = threading.Thread(target=give)
            thread.start()
            assert target.finish()
            thread.join(SECONDS_MAX)

    def test_half_a_receipt(self, authority: Authority) -> None:
        """A receipt whose rest never comes is silence, borne as long as any."""
        with _served(authority) as server:
            server.channel.end()
            server.socket.sendall(server.channel.outgoing[:HALF_BYTES])
            with pytest.raises(NoReceiptError, match="gave no receipt"):
                ServerTarget(server.sender, 0.1).finish()

    def test_one_that_takes_nothing_for_a_while(self, authority: Authority) -> None:
        """A part of a record makes no server that is slow one that took nothing."""
        with _served(authority) as server:
            target = ServerTarget(server.sender, SECONDS_MAX)
            faults: list[NoReceiptError] = []

            def write() -> None:
                try:
                    target.write(VOTES)
                except NoReceiptError as error:
                    faults.append(error)

            thread = threading.Thread(target=write)
            thread.start()
            wait_until(lambda: not _has_room(server.sender), "no room is left")
            server.channel.send(memoryview(b"word"))
            server.say_half()
            received_bytes = 0
            while received_bytes < len(VOTES) and not faults:
                received_bytes += len(server.receive())
            thread.join(SECONDS_MAX)
            assert faults == []
            assert target.sent_bytes == len(VOTES)
