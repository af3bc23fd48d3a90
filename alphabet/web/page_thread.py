"""The thread that serves the page, with an event loop of its own.

Started once the server is ready; imports what is slow only then. Its death is told in
one line, and counting goes on. What peers can make it hold is bounded here:
connections, headers, how long a first request may take, and how long an answer.
"""

from __future__ import annotations

import contextlib
import logging
import resource
from typing import TYPE_CHECKING, Any, cast

import attrs

from alphabet.journal import entries
from alphabet.network.closing import set_reset
from alphabet.network.keepalive import end_unread
from alphabet.thread import start_thread

if TYPE_CHECKING:
    import asyncio
    import socket
    import ssl
    import threading

    from aiohttp import web
    from aiohttp.web_protocol import RequestHandler

    from alphabet.journal.journal import Journal
    from alphabet.network.certificates import Certificates
    from alphabet.server import Server
    from alphabet.web.site import Site

CONNECTIONS_MAX = 256
"""How many may be connected to the page at once; more are cut off.

Fewer where files are too few: senders and the log need them more.
Those that do not get as far as a request count for `REQUEST_SECONDS_MAX`."""
FILES_SHARE = 8
"""Of so many files that may be open the page takes one at most."""
ACCEPTS_PER_ROUND_MAX = 1
"""asyncio takes so many at once, and where that fails each makes it try once more."""
HEADER_BYTES_MAX = 8190
"""The longest line, and the longest field, of a request."""
REQUEST_SECONDS_MAX = 10.0
"""How long a connection may take for its first request."""
HANDSHAKE_SECONDS_MAX = 5.0
"""How long one may take to agree on TLS: less than for its first request."""
KEEPALIVE_SECONDS = 30.0
UNREAD_SECONDS_MAX = 30.0
"""How long one may take nothing of what it was sent, before the system ends it."""
STOP_SECONDS_MAX = 1.0
HTTP_BOUNDS: dict[str, Any] = {
    "access_log": None,
    "keepalive_timeout": KEEPALIVE_SECONDS,
    "max_line_size": HEADER_BYTES_MAX,
    "max_field_size": HEADER_BYTES_MAX,
}
"""How aiohttp is to take requests."""


@attrs.define(eq=False)
class PageThread:
    """Serves one server's page on a socket that listens already."""

    listener: socket.socket
    own_names: frozenset[str]
    journal: Journal
    certificates: Certificates | None = None
    recovery_seconds: float = attrs.field(default=0.0, init=False)
    _server: Server | None = attrs.field(default=None, init=False)
    _loop: asyncio.AbstractEventLoop | None = attrs.field(default=None, init=False)
    _stop: asyncio.Event | None = attrs.field(default=None, init=False)
    _thread: threading.Thread | None = attrs.field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        # Before anybody is told of the port, and for TLS that is not agreed on.
        set_reset(self.listener, is_on=True)

    @property
    def connections_max(self) -> int:
        """How many may be connected."""
        files_max, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if files_max == resource.RLIM_INFINITY:
            return CONNECTIONS_MAX
        return min(CONNECTIONS_MAX, files_max // FILES_SHARE)

    def show(self, server: Server, recovery_seconds: float) -> None:
        """Show this server, which starts the page once it is ready."""
        self._server, self.recovery_seconds = server, recovery_seconds
        server.page = self

    def start(self) -> None:
        """Begin to serve, in a thread."""
        self._thread = start_thread("page", self._run)

    def stop(self) -> None:
        """End the thread, waiting for a moment at most."""
        loop, stop = self._loop, self._stop
        if loop is not None and stop is not None:
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(stop.set)
        if self._thread is not None:
            self._thread.join(STOP_SECONDS_MAX)

    def _run(self) -> None:
        import asyncio

        try:
            asyncio.run(self._serve())
        except Exception as error:  # noqa: BLE001 - counting goes on without a page
            self.journal.say(entries.page_ended(cause=repr(error)))

    async def _serve(self) -> None:
        import asyncio

        from alphabet.web.event_hub import EventHub
        from alphabet.web.look import Look
        from alphabet.web.past import Past
        from alphabet.web.site import Site

        # Its faults are told by the site, through the journal.
        logging.getLogger("aiohttp").addHandler(logging.NullHandler())
        logging.getLogger("aiohttp").propagate = False
        self._stop = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._loop.set_exception_handler(self._say_trouble)
        look = Look(cast("Server", self._server), self.recovery_seconds)
        hub = EventHub(look)
        site = Site(look, hub, Past(look.data_dir), self.own_names)
        runner = page_runner(site)
        await runner.setup()
        context = self._context()
        end_unread(self.listener, UNREAD_SECONDS_MAX)
        listening = await self._loop.create_server(
            lambda: self._protocol(runner, site),
            sock=self.listener,
            backlog=ACCEPTS_PER_ROUND_MAX,
            ssl=context,
            ssl_handshake_timeout=None if context is None else HANDSHAKE_SECONDS_MAX,
        )
        # How many wait in the kernel is another matter.
        self.listener.listen()
        telling = asyncio.create_task(hub.run())
        stopped = asyncio.create_task(self._stop.wait())
        await asyncio.wait({telling, stopped}, return_when=asyncio.FIRST_COMPLETED)
        hub.close()
        telling.cancel()
        stopped.cancel()
        listening.close()
        with contextlib.suppress(asyncio.CancelledError):
            await telling
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(runner.cleanup(), STOP_SECONDS_MAX)

    def _say_trouble(self, _: object, context: dict[str, Any]) -> None:
        """Tell what asyncio would print: it has no request to answer."""
        error = context.get("exception")
        cause = context["message"] if error is None else str(error)
        self.journal.say(entries.page_trouble(cause=cause))

    def _context(self) -> ssl.SSLContext | None:
        """Give what connections are served with; new ones have what was loaded last."""
        certificates = self.certificates
        if certificates is None or certificates.server is None:
            return None

        def renew(secure: ssl.SSLObject, _: str | None, __: ssl.SSLContext) -> None:
            secure.context = certificates.server or secure.context

        context = certificates.server
        context.sni_callback = renew
        return context

    def _protocol(self, runner: web.AppRunner, site: Site) -> asyncio.Protocol:
        """Make what serves a connection; a mute one is cut off.

        Raises ConnectionRefusedError for one too many, which asyncio then drops: before
        TLS is agreed there is no transport to abort, nor does the runner know of it.
        """
        import asyncio

        from alphabet.web.site import SiteProtocol

        server = runner.server
        assert server is not None, "the runner is set up"  # noqa: S101
        if len(site.unheard.union(server.connections)) >= self.connections_max:
            raise ConnectionRefusedError
        loop = asyncio.get_running_loop()
        protocol = SiteProtocol(server, site, loop=loop, **HTTP_BOUNDS)
        site.unheard.add(protocol)
        loop.call_later(REQUEST_SECONDS_MAX, _cut_if_mute, protocol, site)
        return protocol


def page_runner(site: Site) -> web.AppRunner:
    """Give what speaks HTTP for a site, within our bounds."""
    from aiohttp import web

    return web.AppRunner(site.application(), **HTTP_BOUNDS)


def _cut_if_mute(protocol: RequestHandler, site: Site) -> None:
    """Cut a connection off that has asked for nothing."""
    if protocol in site.unheard:
        site.unheard.discard(protocol)
        if protocol.transport is not None:
            protocol.transport.abort()
