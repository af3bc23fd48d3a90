"""TLS on real servers, senders and receivers: who is let in, and what ends mean."""

import contextlib
import gc
import io
import random
import re
import select
import signal
import socket
import ssl
import struct
import subprocess
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from alphabet.application import Decoder
from alphabet.arrival import Refusal
from alphabet.journal.journal import Journal
from alphabet.network.address import Address
from alphabet.network.certificates import Certificates, TlsFiles
from alphabet.network.secure_channel import SecureChannel
from alphabet.network.secure_socket import PIECE_BYTES_MAX, SecureSocket
from alphabet.network.tls import client_context, server_context
from alphabet.network.waker import Waker
from alphabet.outputs import Outputs
from alphabet.sink.delivery import Delivery
from alphabet.sink.feed import Feed
from alphabet.sink.subscription import Subscription
from alphabet.sink.tcp_sink import TcpSink
from alphabet.source import connection as connections
from alphabet.source.connection import Limits, Listener
from alphabet.source.inbox import Inbox
from alphabet.source.plain import Sources
from log.row import Cursor
from tests.authority import HOST, Authority, Pair
from tests.inspection import last_sequence
from tests.process import (
    PYTHON,
    ROOT,
    SECONDS_MAX,
    Server,
    environment,
    finish,
    free_port,
    refused,
    serving,
    submit,
    wait_until,
)
from tests.votes import OUTPUT_BYTES, make_votes, outputs, wire

VOTES = make_votes(random.Random(11), 4000)
OUTPUTS = outputs(VOTES)
LONE = 5
"""How many votes are sent one by one."""
LITTLE = 1500
"""How many are counted at once, and their outputs offered."""
SMALL_BUFFER = 4096
STORM_COUNT = 200
LISTENING_CONNECTOR = "listening connector-in"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Give an authority."""
    return Authority.make(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Give another authority, which nobody trusts."""
    return Authority.make(tmp_path_factory.mktemp("stranger"))


def mutual(authority: Authority) -> list[object]:
    """Give a server's options for TLS on both sides, for all it talks to."""
    ca = authority.ca
    return [*authority.server.words, "--tls-client-ca", ca, "--tls-ca", ca]


def client_words(ca: Path, pair: Pair | None) -> list[object]:
    """Give a sender's options for TLS."""
    return ["--tls-ca", ca, *(pair.words if pair else [])]


@contextlib.contextmanager
def receiving(place: Path, port: int, *words: object) -> Iterator[Path]:
    """Run `alphabet receive` into a file, to the end of the block."""
    output = place / f"{port}.bin"
    options = ["--listen", f"{HOST}:{port}", "--output", output, *words]
    with (place / f"{port}.said").open("ab") as said:
        process = subprocess.Popen(
            [*PYTHON, "alphabet.cli", "receive", *map(str, options)],
            cwd=ROOT,
            env=environment({}),
            stderr=said,
        )
    try:
        wait_until(
            lambda: "listening" in (place / f"{port}.said").read_text(), "a receiver"
        )
        yield output
    finally:
        process.terminate()
        process.wait(SECONDS_MAX)


@contextlib.contextmanager
def dialled(
    port: int, authority: Authority, pair: Pair | None = None
) -> Iterator[SecureSocket]:
    """Give a connection of a client to a server."""
    pair = pair or authority.client
    context = client_context(authority.ca, pair.certificate, pair.key)
    raw = socket.create_connection((HOST, port), SECONDS_MAX)
    with raw, SecureSocket.connect(raw, context, HOST, SECONDS_MAX) as connection:
        connection.settimeout(SECONDS_MAX)
        yield connection


def size(file: Path) -> int:
    """Give a file's size, 0 if it is not there."""
    return file.stat().st_size if file.exists() else 0


def send(file: Path, port: int, *words: object) -> tuple[int, str, str]:
    """Run `alphabet send` to its end."""
    done = finish("alphabet.cli", "send", file, "--to", f"{HOST}:{port}", *words)
    return done.code, done.stdout, done.stderr


def connector_port(server: Server) -> int:
    """Give the port of its `--connector-in`."""
    [line] = [each for each in server.lines() if each.startswith(LISTENING_CONNECTOR)]
    return int(line.rpartition(":")[2])


class TestWhole:
    """Sender, server and receiver, all with certificates."""

    def test_through_a_crash(self, tmp_path: Path, authority: Authority) -> None:
        """Plain and connector, killed under load: each output arrives, byte-equal."""
        votes = tmp_path / "votes"
        votes.write_bytes(wire(VOTES * 20))
        expected = outputs(VOTES * 20)
        receiver = [*authority.server.words, "--tls-client-ca", authority.ca]
        sender = [*client_words(authority.ca, authority.client), "--connector"]
        ports = free_port(), free_port()
        incoming = free_port()
        words = [
            *("--connector-in", f"{HOST}:{incoming}"),
            *("--out", f"plain@{HOST}:{ports[0]}"),
            *("--connector-out", f"connector@{HOST}:{ports[1]}"),
            *mutual(authority),
        ]
        with (
            receiving(tmp_path, ports[0], *receiver) as plain,
            receiving(tmp_path, ports[1], *receiver, "--connector") as connector,
        ):
            command = [*PYTHON, "alphabet.cli", "send", votes, *sender]
            to = ["--to", f"{HOST}:{incoming}", "--rate", 200_000]
            with subprocess.Popen(
                [*map(str, [*command, *to])], cwd=ROOT, env=environment({})
            ) as sending:
                with serving(tmp_path, *words) as server:
                    wait_until(lambda: size(connector) > 0, "the first outputs")
                    server.kill()
                with serving(tmp_path, *words) as server:
                    assert sending.wait(SECONDS_MAX) == 0
                    wait_until(lambda: size(connector) == len(expected), "all of it")
                    wait_until(
                        lambda: plain.read_bytes().endswith(expected[-OUTPUT_BYTES:]),
                        "all of it, in plain frames",
                    )
                    assert server.stop() == 0
            assert connector.read_bytes() == expected
        # Frames may come twice after a crash, from a place on that came before.
        assert expected in _without_repeats(plain.read_bytes(), expected)

    def test_plain_frames(self, tmp_path: Path, authority: Authority) -> None:
        """`alphabet send` has its receipt, and `receive` each output once."""
        votes = tmp_path / "votes"
        votes.write_bytes(wire(VOTES))
        port = free_port()
        receiver = [*authority.server.words, "--tls-client-ca", authority.ca]
        words = ["--out", f"{HOST}:{port}", *mutual(authority)]
        with (
            receiving(tmp_path, port, *receiver) as output,
            serving(tmp_path, *words) as server,
        ):
            sender = client_words(authority.ca, authority.client)
            code, said, _ = send(votes, server.port, *sender)
            assert (code, said) == (0, f"sent {len(VOTES)} votes, all durable\n")
            wait_until(lambda: size(output) == len(OUTPUTS), "all of it")
            assert server.stop() == 0
        assert output.read_bytes() == OUTPUTS
        assert "broke" not in (tmp_path / f"{port}.said").read_text()


def _without_repeats(received: bytes, expected: bytes) -> bytes:
    """Leave out what had come before, of outputs that differ from each other."""
    places = {
        expected[start : start + OUTPUT_BYTES]: start
        for start in range(0, len(expected), OUTPUT_BYTES)
    }
    assert len(places) * OUTPUT_BYTES == len(expected)
    kept = bytearray()
    for start in range(0, len(received), OUTPUT_BYTES):
        frame = received[start : start + OUTPUT_BYTES]
        assert places[frame] <= len(kept)
        if places[frame] == len(kept):
            kept += frame
    return bytes(kept)


class TestWhoIsLetIn:
    """Certificates that will not do."""

    def test_senders(
        self, tmp_path: Path, authority: Authority, stranger: Authority
    ) -> None:
        """Without a certificate, with another authority's or in plain: none counts."""
        votes = tmp_path / "votes"
        votes.write_bytes(wire(VOTES[:1]))
        with serving(tmp_path, *mutual(authority)) as server:
            assert send(votes, server.port, *client_words(authority.ca, None))[0] == 3
            server.wait_said("peer did not return a certificate")
            foreign = client_words(authority.ca, stranger.client)
            assert send(votes, server.port, *foreign)[0] == 3
            server.wait_said("unable to get local issuer certificate")
            old = authority.issue("old", "old@example.org", is_expired=True)
            code, _, said = send(votes, server.port, *client_words(authority.ca, old))
            assert code == 3
            assert "certificate has expired" in said
            assert not submit(server.port, wire(VOTES[:1]))
            server.wait_said("does not speak TLS")
            code, _, said = send(
                votes, server.port, *client_words(stranger.ca, stranger.client)
            )
            assert code == 3
            assert "nothing was sent" in said
            assert "certificate" in said
            assert server.stop() == 0
        assert last_sequence(tmp_path) == 0

    def test_a_sender_of_tls_where_plain_is_spoken(
        self, tmp_path: Path, authority: Authority
    ) -> None:
        """A plain port ends a TLS connection, and says which of the two is which."""
        votes = tmp_path / "votes"
        votes.write_bytes(wire(VOTES[:1]))
        with serving(tmp_path) as server:
            code, _, said = send(votes, server.port, "--tls-ca", authority.ca)
            assert code == 3
            assert "nothing was sent" in said
            server.wait_said("it begins as TLS does, and this port speaks plain TCP")

    def test_a_plain_sender_where_tls_is_spoken(
        self, tmp_path: Path, authority: Authority
    ) -> None:
        """A sender that lacks its options is told so, however it sends."""
        votes = tmp_path / "votes"
        words = ["--connector-in", f"{HOST}:0", *authority.server.words]
        with serving(tmp_path, *words) as server:
            for count in (1, len(VOTES)):
                votes.write_bytes(wire(VOTES[:count]))
                code, _, said = send(votes, server.port)
                assert code == 3
                assert "speaks TLS, and nothing else there (see --tls-ca)" in said
            code, _, said = send(votes, connector_port(server), "--connector")
            assert code == 3
            assert "speaks TLS, and nothing else there (see --tls-ca)" in said
            server.wait_said("does not speak TLS")

    def test_receivers(
        self, tmp_path: Path, authority: Authority, stranger: Authority
    ) -> None:
        """A receiver of another authority, or for another host, is sent nothing."""
        elsewhere = authority.issue("elsewhere", "elsewhere.example.org")
        reasons = {
            stranger.server: "unable to get local issuer certificate",
            elsewhere: "IP address mismatch",
        }
        with contextlib.ExitStack() as stack:
            words: list[object] = ["--tls-ca", authority.ca]
            receivers: list[tuple[str, socket.socket, Pair]] = []
            for flag in ("--out", "--connector-out"):
                for pair in reasons:
                    listening = stack.enter_context(socket.create_server((HOST, 0)))
                    listening.settimeout(SECONDS_MAX)
                    name = f"sink{len(receivers)}"
                    port = listening.getsockname()[1]
                    words += [flag, f"{name}@{HOST}:{port}"]
                    receivers.append((name, listening, pair))
            server = stack.enter_context(serving(tmp_path, *words))
            assert submit(server.port, wire(VOTES[:1]))
            for name, listening, pair in receivers:
                with pytest.raises((ssl.SSLError, ConnectionError)):
                    _accepted(listening, _receivers_context(pair)).recv(1)
                said = server.wait_said(f"sink {name}: cannot reach")
                assert reasons[pair] in said

    def test_files_that_are_no_good(self, tmp_path: Path, authority: Authority) -> None:
        """A bad file ends the server in one line before it is ready; so an option."""
        old = authority.issue("expired", HOST, is_expired=True)
        done = refused(tmp_path, *old.words)
        assert done.code == 3
        assert "expired.pem cannot be served with: certificate has exp" in done.stderr
        for words in (
            ["--tls-cert", authority.server.certificate],
            ["--tls-client-ca", authority.ca],
        ):
            done = refused(tmp_path, *words)
            assert done.code == 2
            assert "need" in done.stderr


class TestEnds:
    """What the end of a TLS connection says."""

    def test_a_receipt(self, tmp_path: Path, authority: Authority) -> None:
        """close_notify is a half-close: its answer comes when all is durable."""
        with serving(tmp_path, *mutual(authority)) as server:
            with dialled(server.port, authority) as connection:
                connection.sendall(wire(VOTES))
                connection.shutdown(socket.SHUT_WR)
                assert connection.recv(1 << 16) == b""
            assert last_sequence(tmp_path) == len(VOTES)

    @pytest.mark.parametrize("tail", [b"", b"\0\0"])
    def test_no_receipt_for_a_cut(
        self, tmp_path: Path, authority: Authority, tail: bytes
    ) -> None:
        """An end without close_notify has no receipt; whole frames before it count."""
        with serving(tmp_path, *mutual(authority)) as server:
            with dialled(server.port, authority) as connection:
                connection.sendall(wire(VOTES) + tail)
                # Below TLS: what anybody on the way can do.
                with socket.fromfd(
                    connection.fileno(), socket.AF_INET, socket.SOCK_STREAM
                ) as below:
                    below.shutdown(socket.SHUT_WR)
                with pytest.raises(OSError, match=r"reset|cut"):
                    connection.recv(1 << 16)
            wait_until(lambda: last_sequence(tmp_path) == len(VOTES), "the votes")

    def test_a_half_close_without_tcps(
        self, tmp_path: Path, authority: Authority
    ) -> None:
        """close_notify behind votes in one segment is heard, though no FIN follows."""
        with serving(tmp_path, *mutual(authority)) as server:
            with dialled(server.port, authority) as connection:
                channel = connection.channel
                channel.send(memoryview(wire(VOTES[:3])))
                channel.end()
                connection.flush()
                assert connection.recv(1 << 16) == b""
            assert last_sequence(tmp_path) == 3


def answer(connection: socket.socket, said: bytes) -> bytes:
    """Say something, and give the first byte that comes back."""
    connection.sendall(said)
    return connection.recv(1)


class TestOthers:
    """Programs that are not ours, and peers that do little."""

    def test_openssl(self, tmp_path: Path, authority: Authority) -> None:
        """`openssl s_client` sends votes, before and behind a change of its keys."""
        pair, said = authority.client, tmp_path / "said"
        files = ["-CAfile", authority.ca, "-cert", pair.certificate, "-key", pair.key]
        with serving(tmp_path, *mutual(authority)) as server, said.open("wb") as out:
            words = ["-connect", f"{HOST}:{server.port}", *map(str, files)]
            with subprocess.Popen(
                ["openssl", "s_client", *words],
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=subprocess.STDOUT,
            ) as sender:
                stdin = sender.stdin
                assert stdin is not None
                stdin.write(wire(VOTES[:1]))
                stdin.flush()
                wait_until(lambda: last_sequence(tmp_path) == 1, "a vote")
                stdin.write(b"K\n")
                stdin.flush()
                wait_until(lambda: b"KEYUPDATE" in said.read_bytes(), "new keys")
                stdin.write(wire(VOTES[:1]))
                stdin.flush()
                wait_until(lambda: last_sequence(tmp_path) == 2, "another")
                sender.kill()

    def test_one_that_is_silent_holds_up_nobody(
        self, tmp_path: Path, authority: Authority
    ) -> None:
        """While many say nothing or half a hello, another's votes count."""
        with (
            serving(tmp_path, *mutual(authority)) as server,
            contextlib.ExitStack() as stack,
        ):
            for number in range(50):
                idle = socket.create_connection((HOST, server.port), SECONDS_MAX)
                stack.enter_context(idle)
                idle.sendall(b"\x16\x03\x01\x02\x00"[: number % 6])
            with dialled(server.port, authority) as connection:
                connection.sendall(wire(VOTES))
                connection.shutdown(socket.SHUT_WR)
                assert connection.recv(1 << 16) == b""
            assert last_sequence(tmp_path) == len(VOTES)

    def test_a_storm_of_bad_handshakes(
        self, tmp_path: Path, authority: Authority
    ) -> None:
        """Each is counted and ended; a journal gets lines by the second, not each."""
        bad = [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\0\x05hello", b"\x16junk.."]
        with serving(tmp_path, *mutual(authority)) as server:
            for number in range(STORM_COUNT):
                submit(server.port, bad[number % len(bad)])
            with dialled(server.port, authority) as connection:
                connection.sendall(wire(VOTES[:3]))
                connection.shutdown(socket.SHUT_WR)
                assert connection.recv(1 << 16) == b""
            assert server.stop() == 0
            lines = [line for line in server.said() if "TLS failed" in line]
        counts = [re.match(r"(\d+) more ", line) for line in lines]
        assert sum(int(found[1]) if found else 1 for found in counts) == STORM_COUNT
        assert len(lines) < STORM_COUNT // 4
        assert last_sequence(tmp_path) == 3

    @pytest.mark.parametrize("said", [b"", b"\x16\x03\x01\x02\x00half a hello"])
    def test_one_that_is_silent_is_ended(
        self, authority: Authority, monkeypatch: pytest.MonkeyPatch, said: bytes
    ) -> None:
        """Who has not agreed on TLS in time is ended, and put on record."""
        monkeypatch.setattr(connections, "HANDSHAKE_SECONDS_MAX", 0.0)
        pair = authority.server
        certificates = Certificates.load(TlsFiles(pair.certificate, pair.key))
        inbox = Inbox(1 << 20)
        journal = Journal.open(io.StringIO())
        with socket.create_server((HOST, 0)) as listening:
            listening.settimeout(0)
            listener = Listener(listening, 0, Decoder(), certificates)
            sources = Sources([listener], inbox, Limits(), journal)
            thread = threading.Thread(target=sources.reception.run)
            thread.start()
            with socket.create_connection(listening.getsockname()) as idle:
                idle.settimeout(SECONDS_MAX)
                with pytest.raises(ConnectionResetError):
                    answer(idle, said)
            [refusal] = inbox.take(1 << 20)
            sources.reception.end()
            thread.join(SECONDS_MAX)
            sources.reception.waker.close()
        journal.close()
        assert isinstance(refusal, Refusal)
        assert refusal.reject.cause == "no TLS was agreed within 0 s"

    def test_sighup(self, tmp_path: Path, authority: Authority) -> None:
        """SIGHUP serves new connections with new files, and keeps the old for bad."""
        pair = authority.issue("renewed", HOST)
        with serving(tmp_path, *pair.words, "--tls-ca", authority.ca) as server:
            seen = [_shown(server.port, authority)]
            authority.issue("renewed", HOST)
            server.process.send_signal(signal.SIGHUP)
            server.wait_said("certificates were read again")
            seen.append(_shown(server.port, authority))
            pair.key.write_bytes(authority.client.key.read_bytes())
            server.process.send_signal(signal.SIGHUP)
            server.wait_said("is not the key of")
            seen.append(_shown(server.port, authority))
            assert server.stop() == 0
        assert seen[0] != seen[1] == seen[2]


def _shown(port: int, authority: Authority) -> bytes:
    """Give the certificate that a server shows."""
    context = ssl.create_default_context(cafile=str(authority.ca))
    with (
        socket.create_connection((HOST, port), SECONDS_MAX) as raw,
        context.wrap_socket(raw, server_hostname=HOST) as wrapped,
    ):
        return wrapped.getpeercert(binary_form=True) or b""


class TestSink:
    """A plain sink whose receiver is awkward, over TLS."""

    def test_a_receiver_that_stalls_then_dies(
        self, tmp_path: Path, authority: Authority
    ) -> None:
        """Lone outputs come at once, many once it reads on; what died unread, again."""
        votes = VOTES * 20
        expected = outputs(votes)
        pair = authority.server
        context = _receivers_context(pair)
        with socket.create_server((HOST, 0)) as listening:
            listening.settimeout(SECONDS_MAX)
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER)
            to = f"{HOST}:{listening.getsockname()[1]}"
            with serving(tmp_path, "--out", to, "--tls-ca", authority.ca) as server:
                with _accepted(listening, context) as receiver:
                    for number in range(LONE):
                        assert submit(server.port, wire(votes[number : number + 1]))
                        end = (number + 1) * OUTPUT_BYTES
                        assert (
                            _read(receiver, OUTPUT_BYTES)
                            == expected[:end][-OUTPUT_BYTES:]
                        )
                    # It stalls; all of these are offered by the thread that counts.
                    for start in range(LONE, len(votes), LITTLE):
                        assert submit(server.port, wire(votes[start : start + LITTLE]))
                    rest = expected[LONE * OUTPUT_BYTES :]
                    assert _read(receiver, len(rest) // 2) == rest[: len(rest) // 2]
                    linger = struct.pack("ii", 1, 0)
                    receiver.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                line = server.wait_said("reset")
                with _accepted(listening, context) as receiver:
                    assert _read(receiver, len(expected)) == expected
                    assert server.stop() == 0
                    assert receiver.recv(1) == b""
        assert "goes on after sequence 0" in line


def _receivers_context(pair: Pair) -> ssl.SSLContext:
    """Give a context to take connections with."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pair.certificate, pair.key)
    return context


def _accepted(listening: socket.socket, context: ssl.SSLContext) -> ssl.SSLSocket:
    """Take the server's next connection, and shake hands."""
    raw, _ = listening.accept()
    raw.settimeout(SECONDS_MAX)
    return context.wrap_socket(raw, server_side=True, suppress_ragged_eofs=False)


def _read(connection: ssl.SSLSocket, size: int) -> bytes:
    """Read so many bytes, or to the end."""
    read = bytearray()
    while len(read) < size and (piece := connection.recv(size - len(read))):
        read += piece
    return bytes(read)


class TestSocket:
    """The socket by itself, over a real one that is full."""

    def test_what_is_told_is_the_kernels(self, authority: Authority) -> None:
        """`send` tells of a piece once all of it went, and holds one piece at most."""
        pair = authority.server
        ours, theirs = socket.socketpair()
        with ours, theirs:
            server = SecureSocket.accept(
                theirs, server_context(pair.certificate, pair.key)
            )
            client = _agree(ours, server, authority)
            ours.settimeout(0)
            theirs.settimeout(0)
            data, told = memoryview(random.Random(1).randbytes(4 << 20)), 0
            with contextlib.suppress(BlockingIOError):
                while True:
                    told += client.send(data[told:])
            assert 0 < told < len(data)
            assert 0 < client.channel.held_bytes < PIECE_BYTES_MAX + 1000
            assert client.outstanding(0) == 0
            heard = bytearray()
            while len(heard) < len(data):
                with contextlib.suppress(BlockingIOError):
                    while piece := server.recv(1 << 17):
                        assert len(piece) <= 1 << 17
                        heard += piece
                with contextlib.suppress(BlockingIOError):
                    while told < len(data):
                        told += client.send(data[told:])
            assert heard == data
            assert client.outstanding(1) > 0

    def test_one_that_failed_is_freed(self, authority: Authority) -> None:
        """A peer's fault is raised each time, and keeps nothing of what it has sent."""
        pair = authority.server
        ours, theirs = socket.socketpair()
        gc.disable()
        try:
            with ours, theirs:
                server = SecureSocket.accept(
                    theirs, server_context(pair.certificate, pair.key)
                )
                ours.sendall(b"no hello")
                told = [_fault(server), _fault(server)]
                freed = weakref.ref(server)
                del server
                assert freed() is None
        finally:
            gc.enable()
        assert "does not speak TLS" in told[0]
        assert told[0] == told[1]


def _fault(secure: SecureSocket) -> str:
    """Read, and give what is wrong with the peer."""
    try:
        secure.recv(1 << 16)
    except OSError as error:
        return str(error)
    return ""


class TestOffer:
    """A plain sink's offer, over a TLS connection that is full."""

    def test_what_is_left_is_the_threads(self, authority: Authority) -> None:
        """An offer that the kernel takes in part is gone on with, no byte twice."""
        pair = authority.server
        ours, theirs = socket.socketpair()
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL_BUFFER)
        with ours, theirs:
            server = SecureSocket.accept(
                theirs, server_context(pair.certificate, pair.key)
            )
            client = _agree(ours, server, authority)
            data = random.Random(2).randbytes(3 * PIECE_BYTES_MAX)
            feed = Feed(0)
            assert feed.attach(0)
            cut = PIECE_BYTES_MAX // 2
            pieces = [data[:100], data[100:cut], data[cut:]]
            for number, piece in enumerate(pieces, 1):
                feed.push([Outputs(number, piece, [len(piece)])], number)
            sink = _idle_sink(feed, client)
            heard = bytearray()
            with contextlib.closing(sink.waker):
                for _ in range(10_000):
                    sink.offer()
                    assert sink.delivery.cursor.offset <= len(heard)
                    with contextlib.suppress(BlockingIOError):
                        heard += server.recv(1 << 17)
                    # What an offer leaves is for the sink's thread, which is woken.
                    if sink._unsent:  # noqa: SLF001 - its thread is played here
                        assert select.select([sink.waker], [], [], 0)[0]
                        sink._transmit(client)  # noqa: SLF001
                    if len(heard) >= len(data):
                        break
            assert heard == data
            assert sink.delivery.unsent_bytes == 0


def _idle_sink(feed: Feed, connection: SecureSocket) -> TcpSink:
    """Give a sink that is connected, and whose thread waits."""
    replayer: Any = None
    subscription = Subscription(feed, replayer, replayer, replayer)
    journal: Any = None
    sink = TcpSink(
        "out",
        Address(HOST, 1),
        Delivery(Cursor(0, 0)),
        subscription,
        Waker(),
        journal,
        threading.Event(),
    )
    sink._connection = connection  # noqa: SLF001 - its thread is played here
    sink._at_work.release()  # noqa: SLF001
    return sink


def _agree(
    ours: socket.socket, server: SecureSocket, authority: Authority
) -> SecureSocket:
    """Shake hands over a pair of sockets, from both sides."""
    context = client_context(authority.ca)
    client = SecureSocket(ours, SecureChannel.of_client(context, HOST))
    for each in (ours, server):
        each.settimeout(0)
    for _ in range(4):
        client.flush()
        for end in (server, client):
            with contextlib.suppress(BlockingIOError):
                end.recv(1 << 16)
    assert client.channel.is_agreed
    assert server.channel.is_agreed
    return client
