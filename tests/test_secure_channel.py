"""Both ends of a TLS connection against each other, cut at any byte."""

import contextlib
import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphabet.network.secure_channel import (
    RECORD_BYTES_MAX,
    ChannelError,
    SecureChannel,
)
from alphabet.network.tls import client_context, server_context
from tests.authority import HOST, Authority


@pytest.fixture(scope="module", params=["TLSv1_2", "TLSv1_3"])
def contexts(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Give a client's context and a server's, of one version."""
    authority = Authority.make(tmp_path_factory.mktemp("authority"))
    server = server_context(
        authority.server.certificate, authority.server.key, authority.ca
    )
    pair = authority.client
    client = client_context(authority.ca, pair.certificate, pair.key)
    client.maximum_version = client.minimum_version = ssl.TLSVersion[request.param]
    return client, server


def carry(source: SecureChannel, drain: SecureChannel, size: int = 1 << 30) -> bytes:
    """Give one end what the other has to say, so many bytes at a time."""
    said = b""
    while source.outgoing:
        data = bytes(source.outgoing[:size])
        source.give(len(data))
        said += drain.receive(data)
    return said


def agreed(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext], size: int = 1 << 30
) -> tuple[SecureChannel, SecureChannel]:
    """Give two ends that have shaken hands."""
    client = SecureChannel.of_client(contexts[0], HOST)
    server = SecureChannel.of_server(contexts[1])
    for _ in range(4):
        carry(client, server, size)
        carry(server, client, size)
    assert client.is_agreed
    assert server.is_agreed
    return client, server


pieces = st.lists(st.binary(min_size=1, max_size=40_000), max_size=5)


class TestPlaintext:
    """What one end says and the other hears."""

    @given(said=pieces, size=st.integers(700, 70_000))
    def test_it_arrives(
        self,
        contexts: tuple[ssl.SSLContext, ssl.SSLContext],
        said: list[bytes],
        size: int,
    ) -> None:
        """All of it arrives in order, however it is cut, and then the end."""
        client, server = agreed(contexts, size)
        heard = b""
        for piece in said:
            client.send(memoryview(piece))
            heard += carry(client, server, size)
        assert heard == b"".join(said)
        assert not server.is_ended
        client.end()
        assert carry(client, server, size) == b""
        assert server.is_ended

    def test_the_other_side_goes_on(
        self, contexts: tuple[ssl.SSLContext, ssl.SSLContext]
    ) -> None:
        """One end that has ended still hears the other, and its end."""
        client, server = agreed(contexts)
        client.end()
        carry(client, server)
        server.send(memoryview(b"answer"))
        assert carry(server, client) == b"answer"
        assert not client.is_ended
        server.end()
        carry(server, client)
        assert client.is_ended

    def test_nothing_is_left_behind(
        self, contexts: tuple[ssl.SSLContext, ssl.SSLContext]
    ) -> None:
        """One call gives all records that are whole, and holds the one that is not."""
        client, server = agreed(contexts)
        client.send(memoryview(bytes(3 * RECORD_BYTES_MAX)))
        cipher = bytes(client.outgoing)
        assert len(server.receive(cipher[:-1])) == 2 * RECORD_BYTES_MAX
        assert RECORD_BYTES_MAX <= server.held_bytes <= RECORD_BYTES_MAX + 300
        assert len(server.receive(cipher[-1:])) == RECORD_BYTES_MAX
        assert server.held_bytes == 0


class TestArrival:
    """What is known to have arrived, from what TCP has acknowledged."""

    @given(said=pieces, cut=st.floats(0, 1))
    def test_never_ahead(
        self,
        contexts: tuple[ssl.SSLContext, ssl.SSLContext],
        said: list[bytes],
        cut: float,
    ) -> None:
        """It is what a peer that got that much can read, and never more."""
        client, server = agreed(contexts)
        for piece in said:
            client.send(memoryview(piece))
        cipher = bytes(client.outgoing)
        client.give(len(cipher))
        reached = int(cut * len(cipher))
        heard = server.receive(cipher[:reached]) if reached else b""
        assert client.arrived(len(cipher) - reached) == len(heard)
        assert client.arrived(0) == sum(map(len, said))

    def test_hands_count_for_nothing(
        self, contexts: tuple[ssl.SSLContext, ssl.SSLContext]
    ) -> None:
        """What was sent to shake hands is no plaintext."""
        client, _ = agreed(contexts)
        assert client.arrived(0) == 0


class TestFaults:
    """A peer that does what it may not."""

    def test_plain(self, contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
        """The first byte of a vote is told from TLS, and the peer gets an alert."""
        server = SecureChannel.of_server(contexts[1])
        with pytest.raises(ChannelError, match="does not speak TLS"):
            server.receive(b"\0")
        client = SecureChannel.of_client(contexts[0], HOST)
        with pytest.raises(ChannelError, match="unexpected message"):
            client.receive(bytes(server.outgoing))

    @given(place=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
    def test_changed_on_the_way(
        self,
        contexts: tuple[ssl.SSLContext, ssl.SSLContext],
        place: float,
        flip: int,
    ) -> None:
        """A record that was changed is never heard."""
        client, server = agreed(contexts)
        client.send(memoryview(b"a vote"))
        cipher = bytearray(client.outgoing)
        cipher[int(place * len(cipher))] ^= flip
        heard = b""
        with contextlib.suppress(ChannelError):
            heard = server.receive(bytes(cipher))
        assert heard == b""
        assert not server.is_ended

    def test_a_name_that_cannot_be(
        self, contexts: tuple[ssl.SSLContext, ssl.SSLContext]
    ) -> None:
        """A host's name that no certificate can have is an error that says so."""
        with pytest.raises(ChannelError, match="no certificate can be for"):
            SecureChannel.of_client(contexts[0], ".example.org")
