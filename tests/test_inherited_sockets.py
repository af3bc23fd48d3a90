"""Sockets handed over by who starts the server: a real one, and the variables."""

import contextlib
import os
import random
import signal
import socket
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphabet.network.inherited_sockets import (
    LABELS,
    InheritedName,
    InheritedSocketError,
    parse_names,
    take_inherited,
)
from tests.authority import HOST, Authority
from tests.handing_over import activated
from tests.inspection import totals
from tests.process import SECONDS_MAX, Server, finish, submit, wait_until
from tests.votes import make_votes, tally, wire

USAGE = 2
OWN_PID = 4321
VOTES = make_votes(random.Random(22), 1000)


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """Give a socket that listens."""
    with socket.create_server(("127.0.0.1", 0)) as opened:
        yield opened


@contextlib.contextmanager
def ended(server: Server) -> Iterator[Server]:
    """Give a server that is ready, and end it at once if the test did not."""
    try:
        yield server.wait_ready()
    finally:
        server.kill()


class TestServer:
    """A real server, with sockets that are not its own."""

    def test_votes_wait_for_the_next_server(
        self, tmp_path: Path, listener: socket.socket
    ) -> None:
        """Votes that come while no server runs wait, and count once one does."""
        port, descriptors = listener.getsockname()[1], [listener.fileno()]
        with ended(activated(tmp_path, "in", descriptors, "--http", "none")) as server:
            assert server.lines()[0] == f"listening in 127.0.0.1:{port}"
            assert submit(port, wire(VOTES))
            assert server.stop() == 0
        with socket.create_connection(("127.0.0.1", port), SECONDS_MAX) as sender:
            sender.sendall(wire(VOTES))
            sender.shutdown(socket.SHUT_WR)
            second = activated(tmp_path, "in", descriptors, "--http", "none")
            with ended(second) as server:
                assert sender.recv(1) == b""
                server.kill()
        third = activated(tmp_path, "in", descriptors, "--http", "none")
        with ended(third) as server:
            assert submit(port, wire(VOTES))
            assert server.stop(signal.SIGTERM) == 0
        assert totals(tmp_path) == tally(VOTES * 3)

    def test_every_kind_with_tls(self, tmp_path: Path) -> None:
        """Sources of both kinds and the page are served on them, with TLS."""
        authority = Authority.make(tmp_path)
        (tmp_path / "votes").write_bytes(wire(VOTES))
        with contextlib.ExitStack() as stack:
            sockets = [
                stack.enter_context(socket.create_server(("127.0.0.1", 0)))
                for _ in range(3)
            ]
            ports = [each.getsockname()[1] for each in sockets]
            started = activated(
                tmp_path,
                "http:connector-in:alphabet@in",
                [each.fileno() for each in sockets],
                *authority.server.words,
            )
            server = stack.enter_context(ended(started))
            assert set(server.lines()[:3]) == {
                f"listening http 127.0.0.1:{ports[0]}",
                f"listening connector-in 127.0.0.1:{ports[1]}",
                f"listening in 127.0.0.1:{ports[2]}",
            }
            for port, words in ((ports[1], ["--connector"]), (ports[2], [])):
                done = finish(
                    "alphabet.cli",
                    *("send", tmp_path / "votes", "--to", f"{HOST}:{port}"),
                    *("--tls-ca", authority.ca, *words),
                )
                assert done.code == 0, done
            assert healthy(ports[0], authority)
            assert server.stop() == 0
        assert totals(tmp_path) == tally(VOTES * 2)

    def test_no_child_has_them(self, tmp_path: Path, listener: socket.socket) -> None:
        """They are closed to whatever the server executes."""
        started = activated(tmp_path, "in", [listener.fileno()], "--http", "none")
        with ended(started) as server:
            flags = Path(f"/proc/{server.pid}/fdinfo/3").read_text().split()
            assert int(flags[flags.index("flags:") + 1], 8) & os.O_CLOEXEC

    def test_what_is_of_no_use_is_refused(
        self, tmp_path: Path, listener: socket.socket
    ) -> None:
        """Exit code 2 and one line that says what a name must be."""
        server = activated(tmp_path, "out", [listener.fileno()])
        try:
            assert server.wait() == USAGE
        finally:
            server.kill()
        [line] = server.stderr.read_text().splitlines()
        assert "'out' was handed over" in line
        assert "in, connector-in, http" in line
        assert not (tmp_path / "data").exists()


def healthy(port: int, authority: Authority) -> bool:
    """Say whether the page answers, with TLS."""
    import ssl

    context = ssl.create_default_context(cafile=str(authority.ca))
    url = f"https://{HOST}:{port}/healthz"
    codes: list[int] = []

    def answers() -> bool:
        with urllib.request.urlopen(url, context=context, timeout=10) as answer:
            codes.append(answer.status)
        return True

    wait_until(answers, "the page's answer")
    return codes == [200]


labels = st.sampled_from(["in", "connector-in"])
pipelines = st.none() | st.text(
    st.characters(exclude_characters=":", exclude_categories=["Cs"]), min_size=1
)
inherited = st.lists(st.builds(InheritedName, labels, pipelines), max_size=5)


class TestVariables:
    """What the three variables say."""

    @given(inherited, st.booleans(), st.data())
    def test_names_are_read_back(
        self, names: list[InheritedName], has_page: bool, data: st.DataObject
    ) -> None:
        """Each descriptor has its name, in order; another process's are nobody's."""
        if has_page:
            place = data.draw(st.integers(0, len(names)))
            names = [*names[:place], InheritedName("http"), *names[place:]]
        text = ":".join(
            each.label if each.pipeline is None else f"{each.pipeline}@{each.label}"
            for each in names
        )
        count = str(len(names))
        assert parse_names(str(OWN_PID), count, text, OWN_PID) == names
        assert parse_names(str(OWN_PID + 1), count, text, OWN_PID) == []
        assert parse_names("", count, text, OWN_PID) == []

    @pytest.mark.parametrize(
        ("count", "names", "said"),
        [
            ("1", "", "with 0 names"),
            ("1", "in:in", "with 2 names"),
            ("2", "http:http", "one http socket"),
            ("-1", "in", "no number"),
            ("1001", "in", "no number"),
            ("9" * 5000, "in", "no number"),
            ("1", "unknown", "'unknown'"),
            ("1", "votes@http", "'votes@http'"),
            ("1", "@in", "'@in'"),
        ],
    )
    def test_mistakes(self, count: str, names: str, said: str) -> None:
        """A mistake is told with its fact."""
        with pytest.raises(InheritedSocketError, match=said):
            parse_names(str(OWN_PID), count, names, OWN_PID)

    @given(st.text(), st.text())
    def test_any_text(self, count: str, names: str) -> None:
        """Whatever the variables hold, names come of it or the one error."""
        with contextlib.suppress(InheritedSocketError):
            for name in parse_names(str(OWN_PID), count, names, OWN_PID):
                assert name.label in LABELS

    def test_variables_are_taken(self) -> None:
        """What a child of ours would inherit says nothing of sockets."""
        environ = {"LISTEN_PID": "1", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "in"}
        assert take_inherited(environ) == []
        assert environ == {}

    @pytest.mark.parametrize("kind", ["file", "bound", "unix"])
    def test_files_that_do_not_listen(
        self, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A file, a socket that does not listen and one without TCP are refused."""
        with contextlib.ExitStack() as stack:
            if kind == "file":
                opened = stack.enter_context(tempfile.TemporaryFile())
                descriptor = opened.fileno()
            else:
                family = socket.AF_UNIX if kind == "unix" else socket.AF_INET
                made = stack.enter_context(socket.socket(family))
                made.bind(str(tmp_path / "s") if kind == "unix" else ("127.0.0.1", 0))
                if kind == "unix":
                    made.listen()
                descriptor = made.fileno()
            monkeypatch.setattr(
                "alphabet.network.inherited_sockets.FIRST_DESCRIPTOR",
                os.dup(descriptor),
            )
            environ = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"}
            with pytest.raises(InheritedSocketError, match="was handed over"):
                take_inherited(environ | {"LISTEN_FDNAMES": "in"})
