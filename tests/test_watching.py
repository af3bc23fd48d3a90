"""Watching a server while something goes wrong: with it, with the page, with who looks.

Most of it is asked of a server in this process, whose page has other bounds than usual.
"""

import contextlib
import functools
import http.client
import io
import itertools
import json
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import attrs
import pytest
from aiohttp import web

from alphabet.assembly import Settings, assembled
from alphabet.journal.journal import Journal
from alphabet.network.address import Address, NamedAddress
from alphabet.server import Server
from alphabet.web import event_hub, page_thread, past, site
from alphabet.web.event_hub import CLIENTS_MAX, Client, EventHub
from alphabet.web.look import Look
from alphabet.web.page_thread import page_runner
from alphabet.web.site import Site
from tests.machines import alphabet
from tests.process import ANY, SECONDS_MAX, replay, serving, submit, wait_until
from tests.test_page import API, ASKED, Answer, ask, ask_at, fits, read_event
from tests.test_signals import ON_A_SMALL_DISK, in_background
from tests.votes import tally, wire

VOTES = [(bytes([letter]), 2**31 + letter) for letter in range(97, 105)]
HERE = NamedAddress(None, Address("127.0.0.1", 0))
SMALL_BYTES = 4096
UNREAD_COUNT = 100
OK = b"HTTP/1.1 200"
CHANGES = 3000
WAIT_AND_FAIL = (
    "import socket; socket.create_connection(('127.0.0.1', {port})).recv(1); "
    "raise SystemExit('no')"
)


@attrs.define(eq=False)
class Watched:
    """A server in a thread of this process, and its page."""

    server: Server
    place: Path
    said: io.StringIO

    @property
    def port(self) -> int:
        """Where votes come in."""
        port: int = self.server.receptions[0].listeners[0].socket.getsockname()[1]
        return port

    @functools.cached_property
    def page_port(self) -> int:
        """Where the page is."""
        assert self.server.page is not None
        port: int = self.server.page.listener.getsockname()[1]
        return port

    def ask(self, path: str, method: str = "GET", **headers: str) -> Answer:
        """Ask the page."""
        return ask_at(self.page_port, path, method, **headers)

    @contextlib.contextmanager
    def watching(self) -> Iterator[http.client.HTTPResponse]:
        """Watch; gives the answer to that, of which nothing was read yet."""
        watcher = http.client.HTTPConnection(
            "127.0.0.1", self.page_port, timeout=SECONDS_MAX
        )
        with contextlib.closing(watcher):
            watcher.request("GET", "/events")
            yield watcher.getresponse()

    def entries(self) -> list[dict[str, Any]]:
        """Give what was said."""
        whole = self.said.getvalue().rpartition("\n")[0]
        return [json.loads(line) for line in whole.splitlines()]


@contextlib.contextmanager
def watched(place: Path, **settings: Any) -> Iterator[Watched]:  # noqa: ANN401 - as Settings has them
    """Run a server that has a page."""
    said = io.StringIO()
    with contextlib.closing(Journal.open(said, "json")) as journal:
        asked = Settings(place / "data", (HERE,), http=HERE.address, **settings)
        with assembled(asked, alphabet(), journal) as server:
            thread = threading.Thread(target=server.run)
            thread.start()
            try:
                yield Watched(server, place, said)
            finally:
                server.stop()
                thread.join(SECONDS_MAX)
                attention = server._attention  # noqa: SLF001 - as a process's end does
                readers = [each.waker for each in server.receptions]
                for waker in (attention, *readers, *_wakers(server)):
                    waker.close()
        assert not thread.is_alive()


def _wakers(server: Server) -> list[Any]:
    return [sink.waker for sink in server.sinks]


@pytest.fixture(scope="module")
def counted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """Give a server that has counted some votes."""
    with watched(tmp_path_factory.mktemp("watching")) as server:
        assert submit(server.port, wire(VOTES))
        yield server


class TestReady:
    """Whether votes should be sent here; a damaged log is in test_page_damage."""

    def test_not_while_it_stops(self, tmp_path: Path) -> None:
        """While a stop waits for its sinks it says so, and that it is alive."""
        with contextlib.ExitStack() as stack:
            mute = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            sinks = (NamedAddress("mute", Address(*mute.getsockname())),)
            server = stack.enter_context(
                watched(tmp_path, connector_outputs=sinks, drain_seconds=9.0)
            )
            connection, _ = mute.accept()
            mute.close()
            with connection:
                assert server.ask("/readyz").document == READY
                server.server.stop()
                wait_until(lambda: server.ask("/readyz").status == 503, "it stops")
                answer = server.ask("/readyz")
                fits("/readyz", answer)
                assert answer.document["reasons"] == ["the server is stopping"]
                assert server.ask("/healthz").document == {"status": "alive"}
                assert b"\nalphabet_ready 0.0\n" in server.ask("/metrics").body

    def test_not_while_the_disk_is_full(self, tmp_path: Path) -> None:
        """A full disk is told of, and when there is room again it is ready again."""
        data = tmp_path / "data"
        data.mkdir()
        before = [*ON_A_SMALL_DISK, str(data)]
        with serving(tmp_path, "--http", ANY, before=before) as server:
            filler = Path(f"/proc/{server.pid}/root{data}") / "filler"
            with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
                while True:
                    file.write(bytes(SMALL_BYTES))
            receipt = in_background(server.port, wire(VOTES * 1000))
            wait_until(lambda: ask(server, "/readyz").status == 503, "a full disk")
            [reason] = ask(server, "/readyz").document["reasons"]
            assert "no space left on the disk after sequence " in reason
            assert ask(server, "/healthz").status == 200
            assert ask(server, "/status").document["disk_full"] == reason
            assert b"\nalphabet_disk_full 1.0\n" in ask(server, "/metrics").body
            assert not receipt.done()
            filler.unlink()
            wait_until(lambda: ask(server, "/readyz").status == 200, "room")
            assert receipt.result(SECONDS_MAX)
            assert b"\nalphabet_disk_full 0.0\n" in ask(server, "/metrics").body


class TestPast:
    """Totals after an event of the past."""

    def test_it_is_what_our_tool_says(self, counted: Watched) -> None:
        """A moment has the totals that `alphabet-replay state --at` has."""
        answer = counted.ask("/votes?at=4")
        fits("/votes", answer)
        words = ("state", counted.place / "data", "--at", 4, "--format", "json")
        said = json.loads(replay(*words).stdout)
        assert answer.document == {"sequence": 4, "totals": said["totals"]}
        assert answer.document["totals"] == tally(VOTES[:4])

    @pytest.mark.parametrize(
        ("at", "status"),
        [
            *[(each, 400) for each in ("", " ", "-1", "+1", "1.0", "0x1", "1e3", "x")],
            *[(each, 400) for each in ("\u0663", "\xb2", "1 2", "9" * 21)],
            *[(str(each), 404) for each in (len(VOTES) + 1, 2**63, 2**64)],
        ],
    )
    def test_what_is_no_moment(self, counted: Watched, at: str, status: int) -> None:
        """What is no sequence is 400, one that is not there yet 404."""
        for path, described in (("/votes", "/votes"), ("/votes/a", "/votes/{letter}")):
            answer = counted.ask(f"{path}?at={quote(at)}")
            assert answer.status == status
            fits(described, answer)

    def test_one_at_a_time(
        self, counted: Watched, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """While one is computed another has to come again; what is known is given.

        One that cannot be computed says why, and does not stand in the way.
        """
        assert counted.ask("/votes?at=3").status == 200
        with socket.create_server(("127.0.0.1", 0)) as gate:
            port = gate.getsockname()[1]
            words = ("-c", WAIT_AND_FAIL.format(port=port))
            monkeypatch.setattr(past, "_STATE", words)
            asked: list[Answer] = []
            first = threading.Thread(
                target=lambda: asked.append(counted.ask("/votes/a?at=1"))
            )
            first.start()
            gate.settimeout(SECONDS_MAX)
            child, _ = gate.accept()
            with child:
                for path, described in (
                    ("/votes?at=2", "/votes"),
                    ("/votes/a?at=2", "/votes/{letter}"),
                ):
                    busy = counted.ask(path)
                    assert (busy.status, busy.headers["Retry-After"]) == (503, "1")
                    fits(described, busy)
                assert counted.ask("/votes?at=3").status == 200
                assert counted.ask("/votes").status == 200
            first.join(SECONDS_MAX)
        [failed] = asked
        assert (failed.status, failed.document["detail"]) == (503, "no")
        fits("/votes/{letter}", failed)
        monkeypatch.undo()
        assert counted.ask("/votes?at=2").document["totals"] == tally(VOTES[:2])


class TestWatchers:
    """Those who have the events sent."""

    def test_so_many_and_no_more(
        self, counted: Watched, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """One too many is asked to come again, and may once another has gone."""
        # None of them is dropped for what it has not read.
        monkeypatch.setattr(event_hub, "FRAMES_MAX", 0)
        with contextlib.ExitStack() as stack:
            for _ in range(CLIENTS_MAX - 1):
                assert stack.enter_context(counted.watching()).status == 200
            with counted.watching() as last:
                assert last.status == 200
                with counted.watching() as full:
                    assert (full.status, full.headers["Retry-After"]) == (503, "5")
                    headers = dict(full.getheaders())
                    fits("/events", Answer(full.status, headers, full.read()))
                assert counted.ask("/votes").status == 200
            wait_until(lambda: _may_watch(counted), "a place")
        head = counted.ask("/events", "HEAD")
        assert (head.status, head.body) == (200, b"")
        assert head.headers["Content-Type"] == "text/event-stream"

    def test_one_that_does_not_read_is_dropped(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It is cut off; who reads misses nothing, and votes are counted."""
        monkeypatch.setattr(event_hub, "TICK_SECONDS", 0.001)
        monkeypatch.setattr(site, "WRITE_SECONDS_MAX", 0.1)
        hub = functools.partial(EventHub, clients_max=2)
        monkeypatch.setattr(event_hub, "EventHub", hub)
        runners: list[web.AppRunner] = []

        def keep(site: Site) -> web.AppRunner:
            runners.append(page_runner(site))
            return runners[-1]

        monkeypatch.setattr(page_thread, "page_runner", keep)
        with watched(tmp_path) as server, server.watching() as reader:
            read_event(reader, "snapshot")
            assert server.server.page is not None
            listener = server.server.page.listener
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL_BYTES)
            with socket.socket() as mute:
                mute.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BYTES)
                mute.connect(("127.0.0.1", server.page_port))
                mute.sendall(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
                assert mute.recv(len(OK), socket.MSG_PEEK) == OK
                assert not _may_watch(server)
                drops = threading.Thread(
                    target=lambda: wait_until(lambda: _may_watch(server), "a drop")
                )
                drops.start()
                while drops.is_alive():
                    read_event(reader, "second")
                drops.join()
                [runner] = runners
                http_server = runner.server
                assert http_server is not None
                wait_until(lambda: len(http_server.connections) == 1, "its end")
                mute.settimeout(SECONDS_MAX)
                with contextlib.suppress(ConnectionResetError):
                    while mute.recv(SMALL_BYTES):
                        pass
            assert submit(server.port, wire(VOTES))
            sequence = 0
            totals: dict[str, str] = {}
            while sequence < len(VOTES):
                told = read_event(reader, "totals")
                sequence = told["sequence"]
                totals |= told["totals"]
            assert totals == {k: str(v) for k, v in tally(VOTES).items()}
            assert [x for x in server.entries() if x["level"] != "info"] == []

    def test_one_that_asks_and_does_not_read_is_cut(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its place is free soon, whatever it asked for; one that is idle keeps its."""
        monkeypatch.setattr(page_thread, "UNREAD_SECONDS_MAX", 0.3)
        runners: list[web.AppRunner] = []

        def keep(site: Site) -> web.AppRunner:
            runners.append(page_runner(site))
            return runners[-1]

        monkeypatch.setattr(page_thread, "page_runner", keep)
        with watched(tmp_path) as server:
            idle = http.client.HTTPConnection("127.0.0.1", server.page_port)
            with contextlib.closing(idle), socket.socket() as mute:
                idle.request("GET", "/healthz")
                assert idle.getresponse().read()
                [runner] = runners
                http_server = runner.server
                assert http_server is not None
                mute.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BYTES)
                mute.connect(("127.0.0.1", server.page_port))
                asking = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n"
                mute.sendall(asking * UNREAD_COUNT)
                assert mute.recv(len(OK), socket.MSG_PEEK) == OK
                assert len(http_server.connections) == 2
                wait_until(lambda: len(http_server.connections) == 1, "its end")
                assert server.ask("/healthz").status == 200
                idle.request("GET", "/healthz")
                assert idle.getresponse().status == 200
            assert [x for x in server.entries() if x["level"] != "info"] == []

    def test_one_that_was_dropped_is_cut(
        self, counted: Watched, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Nobody waits for it to read the end of an answer: its connection is reset."""
        join = EventHub.join

        def drop(hub: EventHub) -> Client:
            client = join(hub)
            client.is_dropped = True
            return client

        monkeypatch.setattr(EventHub, "join", drop)
        with socket.create_connection(("127.0.0.1", counted.page_port)) as dropped:
            dropped.settimeout(SECONDS_MAX)
            dropped.sendall(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
            heard = b""
            with contextlib.suppress(ConnectionResetError):
                while data := dropped.recv(SMALL_BYTES):
                    heard += data
            assert not heard.endswith(b"0\r\n\r\n")


def _may_watch(server: Watched) -> bool:
    with server.watching() as answer:
        return answer.status == 200


class TestFaults:
    """What is the page's own fault."""

    def test_its_end_stops_nothing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A page that has died is one line; its watchers are sent away, votes count."""
        is_wrong = threading.Event()
        note = EventHub._note_second  # noqa: SLF001 - what goes on in its loop

        def fail(hub: EventHub) -> None:
            if is_wrong.is_set():
                raise ZeroDivisionError("of its own")
            note(hub)

        monkeypatch.setattr(EventHub, "_note_second", fail)
        with watched(tmp_path) as server:
            with server.watching() as reader:
                read_event(reader, "second")
                is_wrong.set()
                with contextlib.suppress(http.client.IncompleteRead):
                    reader.read()
            wait_until(lambda: not _listens(server.page_port), "the page's end")
            assert submit(server.port, wire(VOTES))
        kinds = [each["kind"] for each in server.entries()]
        assert kinds == ["page-ended", "stopped"]
        cause = server.entries()[0]["cause"]
        assert cause == "ZeroDivisionError('of its own')"
        assert server.entries()[1]["sequence"] == len(VOTES)

    def test_an_answer_that_fails(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It is a problem of status 500, the journal says why, and others are given."""

        def fail(_look: Look) -> None:
            raise ZeroDivisionError("of its own")

        with watched(tmp_path) as server:
            monkeypatch.setattr(Look, "standing", fail)
            for _ in range(3):
                answer = server.ask("/status")
                assert answer.status == 500
                fits("/status", answer)
                assert "of its own" not in answer.document["detail"]
            assert server.ask("/healthz").status == 200
            monkeypatch.undo()
            assert server.ask("/status").status == 200
        said = [each for each in server.entries() if each["kind"] == "page-fault"]
        assert [(each["count"], each["path"]) for each in said] == [
            (1, "/status"),
            (2, "/status"),
        ]

    def test_connections_are_counted_while_they_come_and_go(
        self, counted: Watched
    ) -> None:
        """Another thread may count them, whatever their own thread is about."""
        reception = counted.server.receptions[0]
        connections: set[Any] = set()
        other = attrs.evolve(reception)
        other._connections = connections  # noqa: SLF001 - as its own thread does
        changes = itertools.count()
        is_over = threading.Event()

        def come_and_go() -> None:
            while not is_over.is_set() and next(changes) < CHANGES:
                for number in range(10):
                    connections.symmetric_difference_update({Gone(number)})

        switch_seconds = sys.getswitchinterval()
        sys.setswitchinterval(1e-6)
        thread = threading.Thread(target=come_and_go)
        thread.start()
        try:
            while thread.is_alive():
                assert len(other.connections()) <= 10
        finally:
            is_over.set()
            thread.join()
            sys.setswitchinterval(switch_seconds)
            other.waker.close()


@attrs.frozen
class Gone:
    """A connection, as far as it is counted."""

    number: int
    farewell_until: float | None = None


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), SECONDS_MAX).close()
    except ConnectionError:
        return False
    return True


READY = {"status": "ready", "reasons": []}
SEEN_ELSEWHERE = {
    ("/votes", 304): "test_page: unchanged totals",
    ("/votes/{letter}", 304): "test_page: unchanged totals",
    ("/votes", 503): "one at a time",
    ("/votes/{letter}", 503): "one at a time",
    ("/readyz", 503): "not while it stops",
    ("/events", 200): "so many and no more",
    ("/events", 503): "so many and no more",
}


def test_every_answer_described_is_seen() -> None:
    """A test has the server give each answer that is described."""
    described = {
        (path, int(status))
        for path, item in API["paths"].items()
        for status in item["get"]["responses"]
        if status != "default"
    }
    seen = {(path, status) for _, path, status in ASKED}
    assert described == seen | SEEN_ELSEWHERE.keys()
    assert seen.isdisjoint(SEEN_ELSEWHERE)
