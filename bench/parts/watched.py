"""What watching costs a flood: nobody at the page, and eight watchers with a scraper.

They watch from before the first vote until the last output, from a thread of the
driver: `/events` is read as it comes, `/metrics` asked for each second, as Prometheus
does at its quickest.
"""

import http.client
import select
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import attrs

from alphabet.trial.children import ChildError, Children
from alphabet.trial.flood import HOST, Sending, receive, sender
from alphabet.trial.measured_server import served_with_sink
from alphabet.trial.output_check import check_all
from alphabet.trial.vote_load import Load, load_of
from bench.case import Case, Value
from bench.plan import Plan

WATCHERS = 8
ALONE = "a flood, nobody at the page"
WATCHED = f"a flood, {WATCHERS} watchers and a scraper"
SCRAPE_SECONDS = 1.0

_READ_BYTES = 1 << 16
_OK = b"HTTP/1.1 200 "
_REQUEST = b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n"


@contextmanager
def cases(plan: Plan) -> Iterator[list[Case]]:
    """Give a case with nobody there, and one with everybody."""
    load = load_of(plan.votes)
    yield [
        Case(name, partial(_measure, plan, load, name, watchers))
        for name, watchers in ((ALONE, 0), (WATCHED, WATCHERS))
    ]


def _measure(
    plan: Plan, load: Load, name: str, watchers: int, place: Path
) -> Iterable[Value]:
    """Flood a new server while it is watched."""
    outputs = plan.buffer.view(load.output_bytes)
    with (
        Children(place) as children,
        served_with_sink(children, place / "data", "--http", f"{HOST}:0") as served,
    ):
        server, sink = served
        port = int(server.child.await_line("listening http ").rpartition(":")[2])
        with (
            _watching(port, watchers) as heard,
            sender(Sending(load, server.port)) as sending,
        ):
            began = time.perf_counter()
            sending.go()
            receive(sink, outputs)
            seconds = time.perf_counter() - began
            sending.await_end()
    check_all(load, outputs)
    yield Value(name, "votes/s", load.votes / seconds)
    if watchers:
        yield Value(
            f"{name}: heard by each", "bytes/s", heard.bytes / watchers / seconds
        )
        yield Value(f"{name}: scrapes", "scrapes", heard.scrapes)


@attrs.define
class _Heard:
    """What came while the flood went on."""

    bytes: int = 0
    scrapes: int = 0


@contextmanager
def _watching(port: int, watchers: int) -> Iterator[_Heard]:
    """Watch and scrape meanwhile, if there are to be watchers.

    Raises:
        ChildError: Somebody was cut off.
    """
    heard = _Heard()
    if not watchers:
        yield heard
        return
    is_over = threading.Event()
    failures: list[Exception] = []
    with ExitStack() as stack:
        connections = []
        for _ in range(watchers):
            connection = stack.enter_context(socket.create_connection((HOST, port)))
            connection.sendall(_REQUEST)
            if not connection.recv(_READ_BYTES).startswith(_OK):
                raise ChildError("the page does not let so many watch")
            connections.append(connection)

        def work() -> None:
            try:
                _look(port, connections, heard, is_over)
            except (OSError, ChildError, http.client.HTTPException) as error:
                failures.append(error)

        looking = threading.Thread(target=work)
        looking.start()
        try:
            yield heard
        finally:
            is_over.set()
            looking.join()
    if failures:
        raise ChildError(f"watching failed: {failures[0]!r}")


def _look(
    port: int,
    connections: list[socket.socket],
    heard: _Heard,
    is_over: threading.Event,
) -> None:
    """Read what comes, and scrape each second, until it is over."""
    scrape_at = time.monotonic()
    while not is_over.is_set():
        wait_seconds = max(min(scrape_at - time.monotonic(), 0.1), 0.0)
        for connection in select.select(connections, [], [], wait_seconds)[0]:
            data = connection.recv(_READ_BYTES)
            if not data:
                raise ChildError("a watcher was cut off")
            heard.bytes += len(data)
        if time.monotonic() >= scrape_at:
            scrape_at += SCRAPE_SECONDS
            _scrape(port)
            heard.scrapes += 1


def _scrape(port: int) -> None:
    asked = http.client.HTTPConnection(HOST, port, timeout=10)
    asked.request("GET", "/metrics")
    answer = asked.getresponse()
    if answer.status != http.client.OK or b"alphabet_events_total" not in answer.read():
        raise ChildError(f"a scrape was answered with {answer.status}")
    asked.close()
