"""The page over TLS: who may look, with which certificate, and what a mute one may."""

import contextlib
import http.client
import signal
import socket
import ssl
from pathlib import Path

import pytest

from alphabet.web.page_thread import CONNECTIONS_MAX
from tests.authority import HOST, Authority, Pair
from tests.process import ANY, SECONDS_MAX, Server, serving, wait_until
from tests.test_page import port_of

MUTE_COUNT = CONNECTIONS_MAX + 20
CUT = (ConnectionError, ssl.SSLError, http.client.BadStatusLine)
"""What a client is told that is turned away, by when it notices."""


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Give an authority."""
    return Authority.make(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Give another authority, which nobody trusts."""
    return Authority.make(tmp_path_factory.mktemp("stranger"))


def context(authority: Authority, pair: Pair | None) -> ssl.SSLContext:
    """Give a browser's context: whom it trusts, and the certificate that it shows."""
    made = ssl.create_default_context(cafile=authority.ca)
    if pair is not None:
        made.load_cert_chain(pair.certificate, pair.key)
    return made


def look(
    server: Server, authority: Authority, pair: Pair | None, **headers: str
) -> tuple[int, bytes | None]:
    """Ask whether it is alive; give the status and the certificate that is shown."""
    asked = http.client.HTTPSConnection(
        HOST, port_of(server), timeout=SECONDS_MAX, context=context(authority, pair)
    )
    with contextlib.closing(asked):
        asked.request("GET", "/healthz", headers=headers)
        assert isinstance(asked.sock, ssl.SSLSocket)
        shown = asked.sock.getpeercert(binary_form=True)
        return asked.getresponse().status, shown


def test_who_may_look(
    tmp_path: Path, authority: Authority, stranger: Authority
) -> None:
    """Under mutual TLS: with a certificate of the authority, and not otherwise.

    SIGHUP shows new connections the new certificate, and asks for the new authority's.
    """
    pair, ca = authority.issue("page", HOST), tmp_path / "clients.pem"
    ca.write_bytes(authority.ca.read_bytes())
    words = ["--http", ANY, *pair.words, "--tls-client-ca", ca]
    with serving(tmp_path, *words) as server:
        status, old = look(server, authority, authority.client)
        assert status == 200
        assert look(server, authority, authority.client, Host="evil.example")[0] == 421
        for other in (None, stranger.client):
            with pytest.raises(CUT):
                look(server, authority, other)
        assert not answers_in_plain(port_of(server))
        authority.issue("page", HOST)
        ca.write_bytes(stranger.ca.read_bytes())
        server.process.send_signal(signal.SIGHUP)
        server.wait_said("certificates were read again")
        status, new = look(server, authority, stranger.client)
        assert status == 200
        assert new != old
        with pytest.raises(CUT):
            look(server, authority, authority.client)
        assert server.stop() == 0
        assert not [line for line in server.said() if "Traceback" in line]


def answers_in_plain(port: int) -> bool:
    """Say whether a request without TLS is answered in HTTP."""
    with socket.create_connection((HOST, port), SECONDS_MAX) as plain:
        plain.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            return plain.recv(5) == b"HTTP/"
        return False


def test_a_crowd_without_a_handshake(tmp_path: Path, authority: Authority) -> None:
    """One too many is cut at once, though none has agreed on TLS; a few do no harm."""
    with (
        serving(tmp_path, "--http", ANY, *authority.server.words) as server,
        contextlib.ExitStack() as stack,
    ):
        mutes = []
        for _ in range(MUTE_COUNT):
            mute = socket.create_connection((HOST, port_of(server)), SECONDS_MAX)
            mutes.append(stack.enter_context(mute))
            if len(mutes) == 10:
                assert look(server, authority, None)[0] == 200
        for mute in mutes:
            mute.settimeout(0)
        wait_until(lambda: sum(map(is_cut, mutes)) > 0, "one too many is cut")
        assert sum(map(is_cut, mutes[: CONNECTIONS_MAX // 2])) == 0


def is_cut(connection: socket.socket) -> bool:
    """Say whether the server has ended a connection; it has a timeout of 0."""
    try:
        return not connection.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return False
    except ConnectionError:
        return True
