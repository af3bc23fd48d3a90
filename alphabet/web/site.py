"""The site: each path and what it answers, on aiohttp.

Reads a `Look` and nothing else of the server. Only GET and HEAD; every fault is a
problem of RFC 9457.
"""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

import attrs
from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from alphabet.journal import entries
from alphabet.network.closing import set_reset
from alphabet.standing import unready_reasons
from alphabet.totals_board import Totals
from alphabet.web import documents
from alphabet.web.event_frames import HEARTBEAT
from alphabet.web.event_hub import Client, EventHub
from alphabet.web.gate import (
    METHODS,
    SECURITY_HEADERS,
    is_allowed_host,
    parse_sequence,
)
from alphabet.web.look import Look
from alphabet.web.metrics import CONTENT_TYPE, exposition
from alphabet.web.past import BusyError, Past, PastError

TOTALS_SECONDS_MAX = 3.0
"""How long a request waits for totals: the server makes none while nobody looks."""
WRITE_SECONDS_MAX = 10.0
"""How long a client of events may take for what it was sent."""
HEARTBEAT_SECONDS = 5.0

STATIC = Path(__file__).parent / "static"
FILES = {
    "/": "index.html",
    "/openapi.json": "openapi.json",
    **{
        f"/static/{file.name}": file.name
        for file in sorted(STATIC.iterdir())
        if file.suffix in {".js", ".css"}
    },
}
"""What is given as it is: each path's file."""
_TYPES = {
    "html": "text/html",
    "js": "text/javascript",
    "css": "text/css",
    "json": "application/json",
}
_WAIT_SECONDS = 0.02

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@attrs.frozen
class ProblemError(Exception):
    """A request that gets a problem for an answer."""

    status: int
    title: str
    detail: str
    headers: dict[str, str] = attrs.Factory(dict)

    def response(self) -> web.Response:
        """Give the answer."""
        body = documents.problem(self.status, self.title, self.detail)
        kind = "application/problem+json"
        headers = {"Cache-Control": "no-store", **self.headers}
        return _answer(json.dumps(body), kind, self.status, headers)


@attrs.define(eq=False)
class Site:
    """Answers requests; belongs to one event loop."""

    look: Look
    hub: EventHub
    past: Past
    own_names: frozenset[str]
    unheard: set[asyncio.BaseProtocol] = attrs.Factory(set)
    """Connections that have not asked for anything yet."""

    def application(self) -> web.Application:
        """Make aiohttp's application."""
        application = web.Application(middlewares=[self._guard])
        router = application.router
        for path, handler in (
            ("/votes", self._votes),
            ("/votes/{letter}", self._letter),
            ("/status", self._status),
            ("/healthz", self._health),
            ("/readyz", self._ready),
            ("/metrics", self._metrics),
            ("/events", self._events),
            *((path, self._file) for path in FILES),
        ):
            router.add_get(path, handler)
        return application

    def hear(self, request: web.BaseRequest) -> None:
        """Let a connection that has asked for something end in good order.

        Until then its end is a reset: a sender of votes, with the page's address by
        mistake, would take any other for the receipt.
        """
        transport = request.transport
        if transport is None or transport.is_closing():
            return
        if request.protocol in self.unheard:
            set_reset(transport.get_extra_info("socket"), is_on=False)
        self.unheard.discard(request.protocol)

    @web.middleware
    async def _guard(
        self, request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        self.hear(request)
        try:
            self._check(request)
            response = await handler(request)
        except ProblemError as error:
            response = error.response()
        except Exception as error:  # noqa: BLE001 - the page answers, whatever it is
            response = self._explain(request, error)
        if not response.prepared:
            response.headers.update(SECURITY_HEADERS)
        return response

    def _explain(self, request: web.Request, error: Exception) -> web.Response:
        """Answer for what nobody has foreseen, and for a path that is not there."""
        if isinstance(error, web.HTTPNotFound):
            detail = f"there is nothing at {request.path}"
            return ProblemError(404, "Not found", detail).response()
        self.look.server.journal.say(
            entries.page_fault(path=request.path, cause=repr(error))
        )
        detail = f"{type(error).__name__}; the server's journal says more"
        return ProblemError(500, "Internal error", detail).response()

    def _check(self, request: web.Request) -> None:
        if request.method not in METHODS:
            detail = f"{request.method} is not answered here: nothing can be changed"
            allow = {"Allow": ", ".join(METHODS)}
            raise ProblemError(405, "Method not allowed", detail, allow)
        host = request.headers.get("Host", "")
        if not is_allowed_host(host, self.own_names):
            detail = (
                f"this server is not {host!r}; ask it by its address, or a --http-name"
            )
            raise ProblemError(421, "Misdirected request", detail)

    async def _votes(self, request: web.Request) -> web.StreamResponse:
        totals = await self._asked_totals(request)
        return self._tagged(request, totals, documents.votes_document(totals))

    async def _letter(self, request: web.Request) -> web.StreamResponse:
        # The path as it was sent: aiohttp decodes it as UTF-8, and a letter is a byte.
        raw = request.raw_path.partition("?")[0].rpartition("/")[2]
        letter = unquote_to_bytes(raw)
        if len(letter) != 1:
            detail = f"{raw!r} is no letter: one byte, percent-encoded"
            raise ProblemError(400, "Not a letter", detail)
        totals = await self._asked_totals(request)
        if letter not in totals.totals:
            detail = f"nobody has voted for {raw!r} by sequence {totals.sequence}"
            raise ProblemError(404, "No such letter", detail)
        return self._tagged(request, totals, documents.letter_document(totals, letter))

    async def _asked_totals(self, request: web.Request) -> Totals:
        text = request.query.get("at")
        if text is None:
            return await self._newest_totals()
        try:
            sequence = parse_sequence(text)
        except ValueError as error:
            raise ProblemError(400, "Not a sequence", str(error)) from error
        last = self.look.sequence
        if sequence > last:
            detail = f"the last durable event is {last}"
            raise ProblemError(404, "Not yet", detail)
        await self._newest_totals()
        try:
            return await self.past.totals_at(sequence)
        except BusyError as error:
            detail = "another moment of the past is being computed"
            again = {"Retry-After": "1"}
            raise ProblemError(503, "Busy", detail, again) from error
        except PastError as error:
            raise ProblemError(503, "Cannot be computed", str(error)) from error

    async def _newest_totals(self) -> Totals:
        """Wait for totals that are as new as the request, or for the time to be up."""
        wanted = self.look.sequence
        until = time.monotonic() + TOTALS_SECONDS_MAX
        while True:
            totals = self.look.totals()
            if totals is not None and totals.sequence >= wanted:
                return totals
            if time.monotonic() >= until:
                break
            await asyncio.sleep(_WAIT_SECONDS)
        if totals is not None:
            return totals
        detail = f"{self.look.server.engine.machine.application} has no totals to tell"
        raise ProblemError(404, "No totals", detail)

    def _tagged(
        self, request: web.Request, totals: Totals, body: documents.Document
    ) -> web.Response:
        """Answer with the sequence as ETag, or that nothing has changed."""
        tag = f'"{self.look.log_id}-{totals.sequence}"'
        headers = {"ETag": tag, "Cache-Control": "no-cache"}
        asked = request.headers.get("If-None-Match", "")
        known = {each.strip().removeprefix("W/") for each in asked.split(",")}
        if known & {tag, "*"}:
            return web.Response(status=304, headers=headers)
        return _answer(json.dumps(body), "application/json", 200, headers)

    async def _status(self, _request: web.Request) -> web.StreamResponse:
        return _json(documents.status_document(self.look.standing()))

    async def _health(self, _request: web.Request) -> web.StreamResponse:
        return _json({"status": "alive"})

    async def _ready(self, _request: web.Request) -> web.StreamResponse:
        reasons = unready_reasons(self.look.standing())
        return _json(documents.ready_document(reasons), 503 if reasons else 200)

    async def _metrics(self, _request: web.Request) -> web.StreamResponse:
        headers = {"Content-Type": CONTENT_TYPE, "Cache-Control": "no-store"}
        return web.Response(body=exposition(self.look.standing), headers=headers)

    async def _file(self, request: web.Request) -> web.StreamResponse:
        name = FILES[request.path]
        text = (STATIC / name).read_text(encoding="utf-8")
        kind = _TYPES[name.rpartition(".")[2]]
        return _answer(text, kind, 200, {"Cache-Control": "no-cache"})

    async def _events(self, request: web.Request) -> web.StreamResponse:
        headers = {
            "Content-Type": "text/event-stream",
            "Cache-Control": "no-store",
            **SECURITY_HEADERS,
        }
        if request.method == "HEAD":
            return web.Response(headers=headers)
        if self.hub.is_full:
            detail = f"{self.hub.clients_max} are watching already"
            raise ProblemError(503, "Too many", detail, {"Retry-After": "5"})
        response = web.StreamResponse(headers=headers)
        client = self.hub.join()
        try:
            await response.prepare(request)
            await _tell(client, response)
        except (OSError, TimeoutError):
            client.is_dropped = True
        finally:
            self.hub.leave(client)
        if client.is_dropped:
            # It is gone, or reads nothing: an end in good order would wait for it.
            response.force_close()
            if request.transport is not None:
                request.transport.abort()
        return response


class SiteProtocol(RequestHandler):
    """A connection; what is no request of HTTP gets a problem for an answer too.

    aiohttp would answer by itself, and give back the bytes that it did not take.
    """

    __slots__ = ("_site",)

    def __init__(self, server: web.Server, site: Site, **options: Any) -> None:  # noqa: ANN401
        """Begin, for aiohttp's server and our site; the options are aiohttp's."""
        super().__init__(server, **options)
        self._site = site

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin; a service manager may have taken the connection before we were."""
        super().connection_made(transport)
        set_reset(transport.get_extra_info("socket"), is_on=True)

    def eof_received(self) -> None:
        """End at once what asked for nothing, without the word by which TLS ends."""
        super().eof_received()
        if self in self._site.unheard and self.transport is not None:
            self.transport.abort()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer, and let the connection end."""
        del exc, message  # They have what the peer sent.
        self._site.hear(request)
        if request.writer.output_size > 0:
            raise ConnectionError("there was an answer already")
        if status == HTTPStatus.BAD_REQUEST:
            detail = "that is no request of HTTP/1.1, or a line of it is too long"
        else:
            detail = "it could not be answered"
        response = ProblemError(status, HTTPStatus(status).phrase, detail).response()
        response.headers.update(SECURITY_HEADERS)
        response.force_close()
        return response


async def _tell(client: Client, response: web.StreamResponse) -> None:
    """Send a client its frames, until there are no more or it is dropped.

    Raises TimeoutError, or OSError, where it takes nothing.
    """
    while not client.is_dropped:
        try:
            frame = await asyncio.wait_for(client.frames.get(), HEARTBEAT_SECONDS)
        except TimeoutError:
            frame = HEARTBEAT
        if frame is None:
            return
        await asyncio.wait_for(response.write(frame), WRITE_SECONDS_MAX)


def _json(body: documents.Document, status: int = 200) -> web.Response:
    headers = {"Cache-Control": "no-store"}
    return _answer(json.dumps(body), "application/json", status, headers)


def _answer(text: str, kind: str, status: int, headers: dict[str, str]) -> web.Response:
    charset = "utf-8" if kind.startswith("text/") else None
    return web.Response(
        body=text.encode(),
        content_type=kind,
        charset=charset,
        status=status,
        headers=headers,
    )
