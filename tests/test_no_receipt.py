"""What is no `--in` gives no receipt, whatever a sender has by mistake for its address.

A receipt is an end in good order behind a half-close, and any server ends so by nature:
ours must not.
"""

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from alphabet.network.address import Address
from alphabet.network.dialing import connect
from alphabet.receiving.receiver import Receiver
from alphabet.sending.sender import NoReceiptError, ServerTarget
from tests.authority import HOST, Authority
from tests.handing_over import activated
from tests.process import ANY, SECONDS_MAX, serving
from tests.test_inherited_sockets import ended
from tests.test_page import port_of
from tests.votes import wire

COUNTS = (1, 2, 6, 9, 10, 11, 1000)
"""How many votes are sent; every other is for ten, the byte that ends a line."""


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Give an authority."""
    return Authority.make(tmp_path_factory.mktemp("authority"))


def send(port: int, count: int, context: ssl.SSLContext | None) -> bool:
    """Send votes as `alphabet send` does; say whether there is a receipt."""
    with connect(Address(HOST, port), SECONDS_MAX, context) as connection:
        target = ServerTarget(connection, SECONDS_MAX)
        target.write(wire([(b"a", 3), (b"b", 10)] * count)[: 9 * count])
        return target.finish()


def assert_no_receipt(port: int, context: ssl.SSLContext | None = None) -> None:
    """However many votes are sent, none is said to be durable."""
    for count in COUNTS:
        for _ in range(3):
            with pytest.raises((NoReceiptError, OSError)):
                send(port, count, context)


def trusting(authority: Authority) -> ssl.SSLContext:
    """Give a sender's context."""
    return ssl.create_default_context(cafile=authority.ca)


def test_the_page_gives_none(tmp_path: Path) -> None:
    """Votes sent to the page are not durable, and nobody says that they are."""
    with serving(tmp_path, "--http", ANY) as server:
        assert_no_receipt(port_of(server))
        assert server.stop() == 0


def test_the_page_gives_none_with_tls(tmp_path: Path, authority: Authority) -> None:
    """Nor over TLS, whether the sender speaks it or not."""
    with serving(tmp_path, "--http", ANY, *authority.server.words) as server:
        assert_no_receipt(port_of(server), trusting(authority))
        assert_no_receipt(port_of(server))
        assert server.stop() == 0


def test_a_page_that_a_service_manager_listens_for_gives_none(tmp_path: Path) -> None:
    """Nor to a sender that was there before the server was."""
    with socket.create_server((HOST, 0), backlog=10) as listener:
        address = Address(HOST, listener.getsockname()[1])
        early = [connect(address, SECONDS_MAX, None) for _ in range(5)]
        handed = activated(tmp_path, "http", [listener.fileno()], "--in", ANY)
        with ended(handed) as server:
            for connection in early:
                with connection, pytest.raises(NoReceiptError):
                    ServerTarget(connection, SECONDS_MAX).finish()
            assert server.stop() == 0


def test_who_is_answered_has_a_good_end(tmp_path: Path) -> None:
    """A request's answer, or a complaint, is followed by no reset."""
    with serving(tmp_path, "--http", ANY) as server:
        for asked in (b"GET /healthz HTTP/1.0\r\n\r\n", b"no request\r\n\r\n"):
            with connect(Address(HOST, port_of(server)), SECONDS_MAX, None) as client:
                client.sendall(asked)
                answer = b""
                while said := client.recv(1 << 16):
                    answer += said
            assert answer.startswith(b"HTTP/1."), asked
        assert server.stop() == 0


@contextlib.contextmanager
def receiving(
    put: Callable[[bytes], None], context: ssl.SSLContext | None = None
) -> Iterator[int]:
    """Run a receiver, again whenever it fails; give its port."""
    told, teller = socket.socketpair()
    with socket.create_server((HOST, 0)) as listener, told, teller:
        receiver = Receiver(listener, told, put, lambda _: None, context=context)

        def run() -> None:
            is_over = False
            while not is_over:
                with contextlib.suppress(ValueError):
                    receiver.run()
                    is_over = True

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            teller.send(b"!")
            thread.join(SECONDS_MAX)


def refuse(_: bytes) -> None:
    """Be a receiver that knows the outputs for none of Alphabet's."""
    raise ValueError


def test_a_receiver_of_frames_gives_none_for_others() -> None:
    """Nor one that takes any frame, to whom sends what is no frame, or half of one."""
    with receiving(lambda _: None) as port:
        for sent in (b"\xff" * 8, b"\0\0\0\4ab"):
            with connect(Address(HOST, port), SECONDS_MAX, None) as connection:
                connection.sendall(sent)
                with pytest.raises(NoReceiptError):
                    ServerTarget(connection, SECONDS_MAX).finish()


@pytest.mark.parametrize("is_secure", [False, True])
def test_a_receiver_that_refuses_gives_none(
    authority: Authority, *, is_secure: bool
) -> None:
    """Nor does a receiver to whom votes are no outputs of Alphabet's."""
    if not is_secure:
        with receiving(refuse) as port:
            assert_no_receipt(port)
        return
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority.server.certificate, authority.server.key)
    with receiving(refuse, context) as port:
        assert_no_receipt(port, trusting(authority))
