"""`alphabet health` beside a real server, and where there is none or a sick one."""

import random
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from log.lmdb_store import DATA_FILE
from tests.authority import Authority
from tests.injected import failing
from tests.process import ANY, Server, finish, free_port, serving, wait_until
from tests.test_signals import in_background
from tests.votes import make_votes, wire

UNHEALTHY, USAGE = 1, 2
WRITES = "pwrite64,pwritev,write,writev"
VOTES = make_votes(random.Random(23), 1000)


def page_port(server: Server) -> int:
    """Give where a server's page is, on 127.0.0.1."""
    [line] = [each for each in server.lines() if each.startswith("listening http ")]
    return int(line.rpartition(":")[2])


def health(port: int, *words: object, host: str = "127.0.0.1") -> tuple[int, str]:
    """Ask; give the exit code and the one line that was said."""
    done = finish("alphabet.cli", "health", "--http", f"{host}:{port}", *words)
    [line] = (done.stdout + done.stderr).splitlines()
    return done.code, line


class TestServer:
    """A real server's answers."""

    def test_one_that_is_well(self, tmp_path: Path) -> None:
        """Exit code 0 for both questions; where all are listened on, here is asked."""
        with serving(tmp_path, "--http", ANY) as server:
            port = page_port(server)
            assert health(port, host="0.0.0.0") == (0, '{"status": "alive"}')  # noqa: S104
            assert health(port, "--ready")[0] == 0

    def test_a_full_disk(self, tmp_path: Path) -> None:
        """It is alive, and not ready: exit code 1, with the reason."""
        file = tmp_path / "data" / "log" / DATA_FILE
        before = failing(WRITES, "error=ENOSPC:when=2+", file)
        with serving(tmp_path, "--http", ANY, before=before) as server:
            port = page_port(server)
            in_background(server.port, wire(VOTES))
            server.wait_said("no space left on the disk")
            assert health(port)[0] == 0
            code, line = health(port, "--ready")
        assert code == UNHEALTHY
        assert line.startswith(f"alphabet: 127.0.0.1:{port} answers 503: ")
        assert "disk" in line

    def test_tls(self, tmp_path: Path) -> None:
        """With the authority it is asked by TLS; without, the option is named."""
        authority = Authority.make(tmp_path)
        words = ["--http", ANY, *authority.server.words]
        with serving(tmp_path, *words) as server:
            port = page_port(server)
            assert health(port, "--tls-ca", authority.ca)[0] == 0
            code, line = health(port)
        assert (code, line.endswith("TLS may want --tls-ca")) == (UNHEALTHY, True), line

    def test_a_visitor_without_a_certificate(self, tmp_path: Path) -> None:
        """A page that asks for a certificate: the option is named."""
        authority = Authority.make(tmp_path)
        words = [*authority.server.words, "--tls-client-ca", authority.ca]
        with serving(tmp_path, "--http", ANY, *words) as server:
            code, line = health(page_port(server), "--tls-ca", authority.ca)
        assert code == UNHEALTHY
        assert line.endswith("TLS may want --tls-cert"), line


class TestTrouble:
    """No server, or none of ours."""

    def test_nobody_listens(self) -> None:
        """Exit code 1, and the system's reason."""
        port = free_port()
        assert health(port) == (
            UNHEALTHY,
            f"alphabet: 127.0.0.1:{port} does not answer: Connection refused",
        )

    @pytest.mark.parametrize("said", [b"", b"SSH-2.0\r\n", b"HTTP/1.1 500 No\r\n\r\n"])
    def test_something_else_listens(self, said: bytes) -> None:
        """What speaks no HTTP, or says no, is not well."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            answering = threading.Thread(target=answer(listener, said), daemon=True)
            answering.start()
            assert health(listener.getsockname()[1])[0] == UNHEALTHY
            wait_until(lambda: not answering.is_alive(), "the answer's end")

    @pytest.mark.parametrize(
        "words", [["--http", "none"], ["--tls-cert", "a", "--tls-key", "b"]]
    )
    def test_usage(self, words: list[str]) -> None:
        """What cannot be asked is wrong usage."""
        done = finish("alphabet.cli", "health", *words)
        assert done.code == USAGE
        assert len(done.stderr.splitlines()) == 1


def answer(listener: socket.socket, said: bytes) -> Callable[[], None]:
    """Give what answers one connection, whatever it asks."""

    def serve() -> None:
        accepted, _ = listener.accept()
        with accepted:
            accepted.recv(1000)
            accepted.sendall(said)

    return serve
