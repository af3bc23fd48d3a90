"""The page of a real server, asked over HTTP."""

import asyncio
import contextlib
import http.client
import json
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import click
import jsonschema
import pytest
from prometheus_client.parser import text_string_to_metric_families

from alphabet.command_line import HostNameType
from alphabet.web.gate import SECURITY_HEADERS
from alphabet.web.past import Past
from tests.process import (
    ANY,
    Server,
    free_port,
    refused,
    serving,
    submit,
    wait_until,
)
from tests.test_connector_sink import QUIET
from tests.votes import tally, wire

VOTES = [(b"a", 3), (b"\xe9", 4), (b"/", 2**32 - 1), (b"a", 5)]
API = json.loads(
    Path(__file__)
    .parent.parent.joinpath("alphabet/web/static/openapi.json")
    .read_text()
)
WAIT_SECONDS = 30.0


@attrs.frozen
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def document(self) -> Any:  # noqa: ANN401 - whatever it says
        """The body, as JSON."""
        return json.loads(self.body)


def port_of(server: Server) -> int:
    """Give the page's port."""
    told = [*server.lines(), *server.said()]
    [line] = [each for each in told if each.startswith("listening http ")]
    return int(line.rpartition(":")[2])


def ask(server: Server, path: str, method: str = "GET", **headers: str) -> Answer:
    """Ask the page of a server that is a process."""
    return ask_at(port_of(server), path, method, **headers)


def ask_at(port: int, path: str, method: str = "GET", **headers: str) -> Answer:
    """Ask whatever page is at a port."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT_SECONDS)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    with contextlib.closing(connection):
        connection.request(method, path, headers=named)
        response = connection.getresponse()
        return Answer(response.status, dict(response.getheaders()), response.read())


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Give a server that has come back, counted, and taken a snapshot."""
    place = tmp_path_factory.mktemp("page")
    with serving(place) as before:
        assert before.stop() == 0
    words = ("--http", ANY, "--out", f"127.0.0.1:{free_port()}", "--snapshot-every", 4)
    with serving(place, *words) as server:
        assert submit(server.port, wire(VOTES))
        snapshots = place / "data" / "snapshots"
        wait_until(lambda: [*snapshots.glob("*.snapshot")], "a snapshot")
        yield server


def fits(path: str, answer: Answer) -> None:
    """Fail unless an answer is one that the description of its path has."""
    responses = API["paths"][path]["get"]["responses"]
    described = responses.get(str(answer.status), responses["default"])
    if "$ref" in described:
        described = API["components"]["responses"]["Problem"]
    if "content" not in described:
        assert not answer.body
        return
    kind = answer.headers["Content-Type"].partition(";")[0]
    schema = {**described["content"][kind]["schema"], "components": API["components"]}
    if "json" in kind:
        jsonschema.Draft202012Validator(schema).validate(answer.document)


ASKED = [
    ("/votes", "/votes", 200),
    ("/votes?at=2", "/votes", 200),
    ("/votes?at=99", "/votes", 404),
    ("/votes?at=-1", "/votes", 400),
    ("/votes/%E9", "/votes/{letter}", 200),
    ("/votes/%2F", "/votes/{letter}", 200),
    ("/votes/b", "/votes/{letter}", 404),
    ("/votes/ab", "/votes/{letter}", 400),
    ("/votes/a?at=x", "/votes/{letter}", 400),
    ("/status", "/status", 200),
    ("/healthz", "/healthz", 200),
    ("/readyz", "/readyz", 200),
    ("/metrics", "/metrics", 200),
    ("/openapi.json", "/openapi.json", 200),
    ("/", "/", 200),
    ("/static/page.js", "/static/{name}", 200),
    ("/static/page.css", "/static/{name}", 200),
    ("/static/page.py", "/static/{name}", 404),
]


@pytest.mark.parametrize(("asked", "path", "status"), ASKED)
def test_answers_are_those_described(
    server: Server, asked: str, path: str, status: int
) -> None:
    """Each answer has the status and form that the description says, and is safe."""
    answer = ask(server, asked)
    assert answer.status == status, answer
    fits(path, answer)
    assert SECURITY_HEADERS.items() <= answer.headers.items()
    assert "Cache-Control" in answer.headers
    head = ask(server, asked, "HEAD")
    assert (head.status, head.body) == (status, b"")


def test_totals_are_exact(server: Server) -> None:
    """The totals are those of all durable votes, and of the past at a sequence."""
    assert ask(server, "/votes").document == {"sequence": 4, "totals": tally(VOTES)}
    past = ask(server, "/votes?at=3").document
    assert past == {"sequence": 3, "totals": tally(VOTES[:3])}
    letter = {"sequence": 4, "letter": "\xe9", "total": 4}
    assert ask(server, "/votes/%e9").document == letter


def children() -> list[str]:
    """Give the processes that this one has started and not waited for."""
    lists = Path("/proc/self/task").glob("*/children")
    return [child for each in lists for child in each.read_text().split()]


def test_no_child_outlives_who_asked(tmp_path: Path) -> None:
    """Who is stopped while a child replays has waited for its end."""

    async def stop() -> None:
        asked = asyncio.create_task(Past(tmp_path).totals_at(0))
        before = children()
        for _ in range(1000):
            await asyncio.sleep(0)
        assert children() != before, "it waits for the child's answer"
        asked.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asked
        assert children() == before

    asyncio.run(asyncio.wait_for(stop(), WAIT_SECONDS))


def test_unchanged_totals_are_not_sent_again(server: Server) -> None:
    """The tag of an answer gets 304 for as long as nothing was counted."""
    tag = ask(server, "/votes").headers["ETag"]
    for path, asked in (
        ("/votes", tag),
        ("/votes", f'"other", W/{tag}'),
        ("/votes", "*"),
        ("/votes/a", tag),
    ):
        answer = ask(server, path, If_None_Match=asked)
        assert (answer.status, answer.headers["ETag"]) == (304, tag)
        fits("/votes" if path == "/votes" else "/votes/{letter}", answer)
    assert ask(server, "/votes", If_None_Match='"other"').status == 200


def test_nothing_can_be_changed(server: Server) -> None:
    """Other methods than GET and HEAD are refused, with those that are not."""
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        answer = ask(server, "/votes", method)
        assert (answer.status, answer.headers["Allow"]) == (405, "GET, HEAD")
        fits("/votes", answer)


def test_another_name_is_refused(server: Server) -> None:
    """A browser that was led here by somebody else's name is told nothing."""
    for path in ("/", "/votes", "/events", "/nothing"):
        answer = ask(server, path, Host="evil.example")
        assert answer.status == 421
        fits("/votes", answer)


def test_metrics_are_read_by_prometheus(server: Server) -> None:
    """Prometheus's own parser reads the metrics, and they are those of the server."""
    text = ask(server, "/metrics").body.decode()
    families = {each.name: each for each in text_string_to_metric_families(text)}
    assert all(name.startswith(("alphabet_", "process_")) for name in families)
    assert all(family.documentation for family in families.values())
    assert families["alphabet_events"].samples[0].value == len(VOTES)
    assert families["alphabet_sequence"].samples[0].value == len(VOTES)
    states = {
        sample.labels["state"]: sample.value
        for sample in families["alphabet_sink_state"].samples
    }
    assert (states["away"], states["connected"]) == (1, 0)
    assert families["alphabet_sink_lag_events"].samples[0].value == len(VOTES)
    assert families["alphabet_sink_delivered_bytes"].samples[0].value == 0
    counted = {s.name: s.value for s in families["alphabet_commit_seconds"].samples}
    assert counted["alphabet_commit_seconds_count"] >= 1
    rejects = {
        s.labels["reason"]: s.value for s in families["alphabet_rejects"].samples
    }
    assert rejects == dict.fromkeys(["compute", "decode", "encode", "frame"], 0)


def sampled(server: Server) -> dict[str, float]:
    """Give each sample of the metrics by its name; of several the last."""
    text = ask(server, "/metrics").body.decode()
    return {
        sample.name: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_bounds_are_told(tmp_path: Path) -> None:
    """The metrics tell the bounds on connections and room, and one start per run."""
    words = ("--http", ANY, "--max-connections", 77)
    with serving(tmp_path, *words) as server:
        first, again = sampled(server), sampled(server)
    assert first["alphabet_connections_max"] == 77
    assert 0 < first["alphabet_disk_free_bytes"] < shutil.disk_usage(tmp_path).total
    assert first["process_start_time_seconds"] == again["process_start_time_seconds"]
    with serving(tmp_path, *words) as server:
        later = sampled(server)
    assert later["process_start_time_seconds"] > first["process_start_time_seconds"]


def test_every_metric_is_documented(server: Server) -> None:
    """The table of metrics in the documents has each one, and no other."""
    text = ask(server, "/metrics").body.decode()
    names = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}
    page = Path(__file__).parent.parent.joinpath("docs/HTTP.md").read_text()
    rows = {line.split("`")[1] for line in page.splitlines() if line[:3] == "| `"}
    documented = {row for row in rows if row.startswith(("alphabet_", "process_"))}
    assert documented == names


def read_event(stream: Any, name: str) -> Any:  # noqa: ANN401 - a response, a document
    """Read on to the next event of a name; give what it tells."""
    current = ""
    for line in stream:
        text = line.decode().rstrip("\n")
        if text.startswith("event: "):
            current = text.removeprefix("event: ")
        elif text.startswith("data: ") and current == name:
            return json.loads(text.removeprefix("data: "))
    raise AssertionError(f"the stream has ended before {name!r}")


def test_events_tell_all_then_what_changes(tmp_path: Path) -> None:
    """A watcher gets a snapshot and changes that add up to the totals, as strings."""
    with serving(tmp_path, "--http", ANY) as server:
        assert submit(server.port, wire(VOTES))
        watcher = http.client.HTTPConnection(
            "127.0.0.1", port_of(server), timeout=WAIT_SECONDS
        )
        with contextlib.closing(watcher):
            watcher.request("GET", "/events")
            stream = watcher.getresponse()
            assert stream.headers["Content-Type"] == "text/event-stream"
            told = read_event(stream, "snapshot")
            jsonschema.Draft202012Validator(
                {"$ref": "#/components/schemas/Status", **API}
            ).validate(told["status"])
            assert told["has_totals"]
            totals, sequence = told["totals"] or {}, told["sequence"]
            more = [(b"z", 1), (b"a", 2**32 - 1)]
            assert submit(server.port, wire(more))
            while sequence < len(VOTES) + len(more):
                change = read_event(stream, "totals")
                totals |= change["totals"]
                sequence = change["sequence"]
            assert totals == {k: str(v) for k, v in tally([*VOTES, *more]).items()}
            assert read_event(stream, "second")["status"]["sequence"] == sequence
            assert server.stop() == 0
            with contextlib.suppress(http.client.HTTPException, OSError):
                stream.read()


def test_a_default_port_that_is_taken_is_no_fault(tmp_path: Path) -> None:
    """Two servers have a page each, of which one says that it has another port."""
    places = [tmp_path / name for name in ("one", "two")]
    with contextlib.ExitStack() as stack:
        servers = []
        for place in places:
            place.mkdir()
            words = ("--in", ANY, "--data-dir", place / "data")
            servers.append(stack.enter_context(serving(place, *words, is_bare=True)))
        assert [ask(each, "/healthz").status for each in servers] == [200, 200]
        servers[1].wait_said("is taken: the page has another port")


def test_a_given_port_must_be_had(tmp_path: Path) -> None:
    """A server whose page has no port that was asked for does not start."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        server = Server.start(tmp_path, "--http", address)
        assert server.wait() == 3
        [line] = server.said()
        assert f"cannot listen on {address}" in line
        assert "--http" in line
        assert not (tmp_path / "data").exists()


def test_another_application_has_no_totals(tmp_path: Path) -> None:
    """Where states are no letters' totals, their path is not there; the rest is."""
    (tmp_path / "quiet.py").write_text(QUIET)
    words = ("--http", ANY, "--application-module", "quiet")
    with serving(tmp_path, *words, working_directory=tmp_path) as server:
        assert ask(server, "/votes").status == 404
        assert ask(server, "/status").status == 200
        watcher = http.client.HTTPConnection("127.0.0.1", port_of(server))
        with contextlib.closing(watcher):
            watcher.request("GET", "/events")
            told = read_event(watcher.getresponse(), "snapshot")
        assert (told["has_totals"], told["totals"]) == (False, None)


def test_where_votes_are_taken_is_told(server: Server) -> None:
    """A source has the addresses where it listens, with the port it has got."""
    [source] = ask(server, "/status").document["sources"]
    assert source["addresses"] == [f"127.0.0.1:{server.port}"]


def test_a_page_that_nobody_wants(tmp_path: Path) -> None:
    """With none there is no page, and no line of one."""
    with serving(tmp_path, "--http", "none") as server:
        assert not [line for line in server.lines() if "http" in line]
        wait_until(lambda: server.is_ready, "a ready server")


def test_names_of_a_proxy(tmp_path: Path) -> None:
    """A name that was given is answered, however it is written; others are not."""
    words = ("--http", ANY, "--http-name", "Votes.example", "--http-name", "other")
    with serving(tmp_path, *words) as server:
        for host in ("votes.example", "VOTES.example:443", "other", "localhost"):
            assert ask(server, "/votes", Host=host).status == 200, host
        answer = ask(server, "/votes", Host="more.votes.example")
        assert answer.status == 421
        assert "--http-name" in answer.document["detail"]
    variables = {"ALPHABET_HTTP_NAME": "one.example two.example"}
    with serving(tmp_path, "--http", ANY, variables=variables) as server:
        assert ask(server, "/votes", Host="two.example").status == 200


def test_what_is_no_name(tmp_path: Path) -> None:
    """A name that no Host header can have is refused, in one line."""
    for name in ("", "a b", "a:80", "a/b", "*", "a..b", "é", "[::1]", 254 * "a"):
        with pytest.raises(click.BadParameter, match="no host's name, such as"):
            HostNameType().convert(name, None, None)
    ended = refused(tmp_path, "--http-name", "https://votes.example")
    assert ended.code == 2
    assert "'https://votes.example' is no host's name" in ended.stderr


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"<script>evil\r\n\r\n",
        b"GET /<script>evil\r\n\r\n",
        b"GET / HTTP/9<script>evil\r\n\r\n",
        b"<script>evil / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"EVIL / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"CONNECT evil:80 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n<script>evil\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: <script>"
        + b"evil" * 4096
        + b"\r\n\r\n",
        b"GET /" + b"evil" * 4096 + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: evil\r\n\r\n",
    ],
)
def test_what_is_no_request(server: Server, request_bytes: bytes) -> None:
    """It gets a problem as any fault does, with our headers, and no byte of it back."""
    address = ("127.0.0.1", port_of(server))
    with socket.create_connection(address, WAIT_SECONDS) as client:
        client.sendall(request_bytes)
        response = http.client.HTTPResponse(client)
        response.begin()
        headers, body = dict(response.getheaders()), response.read()
    assert response.status in {400, 405, 421}
    assert headers["Content-Type"] == "application/problem+json"
    assert headers.items() >= SECURITY_HEADERS.items()
    assert json.loads(body)["status"] == response.status
    assert b"script" not in body
    assert b"evil" not in body
