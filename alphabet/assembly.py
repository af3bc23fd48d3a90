"""Builds a server from what the command line says: the one place that wires parts.

It binds before it touches the data directory, so that a port in use costs nothing;
it listens only when the state is rebuilt and every sink's row is committed.
"""

import contextlib
import math
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from alphabet.connector.frames import VERSION_OUT, Hello
from alphabet.connector.sink import ConnectorSink
from alphabet.connector.sources import CONNECTOR_IN, ConnectorSources
from alphabet.connector.streams import Streams
from alphabet.engine import Engine
from alphabet.journal.journal import Journal
from alphabet.network.address import Address, NamedAddress
from alphabet.network.inherited_sockets import InheritedSocket
from alphabet.network.listening import HTTP, bound, listen, page_socket
from alphabet.network.waker import Waker
from alphabet.pipeline.machine import Machine
from alphabet.pipeline.routing import CONSOLE, name_inputs, name_outputs, pipelines_of
from alphabet.server import Server, Sink
from alphabet.sink.console_sink import ConsoleSink
from alphabet.sink.delivery import Delivery
from alphabet.sink.feed import Feed
from alphabet.sink.subscription import Pace, Subscription
from alphabet.sink.tcp_sink import TcpSink
from alphabet.snapshotter import Snapshotter
from alphabet.source.connection import Limits, Listener
from alphabet.source.inbox import Inbox
from alphabet.source.plain import IN, Sources
from alphabet.startup import Consent, Opened, SinkError
from alphabet.web.page_thread import CONNECTIONS_MAX, PageThread
from log.row import Cursor

if TYPE_CHECKING:
    from alphabet.network.certificates import Certificates

Source = Sources | ConnectorSources

SINK = "out"
"""The name of a sink that is the only one."""
PROGRAM = b"alphabet"
"""What we call ourselves to two-phase sinks, whatever instance we are."""
_SPARE_DESCRIPTORS = 100 + CONNECTIONS_MAX


class PipelineError(ValueError):
    """A pipeline that the operator named and the application has not got."""


@attrs.frozen
class Settings:
    """What `alphabet run` is asked for; each field is an option."""

    data_dir: Path
    inputs: tuple[NamedAddress, ...]
    connector_inputs: tuple[NamedAddress, ...] = ()
    connector_cookie: bytes = attrs.field(default=b"", repr=False)
    outputs: tuple[NamedAddress, ...] = ()
    connector_outputs: tuple[NamedAddress, ...] = ()
    connector_out_cookie: bytes = attrs.field(default=b"", repr=False)
    certificates: "Certificates | None" = None
    name: str | None = None
    has_console: bool = False
    out_from: int | None = None
    forgotten_sinks: tuple[str, ...] = ()
    snapshot_every: int = 1_000_000
    inbox_bytes: int = 16 << 20
    drain_seconds: float = 5.0
    limits: Limits = attrs.Factory(Limits)
    consent: Consent = attrs.Factory(Consent)
    http: Address | None = None
    is_http_given: bool = False
    """Whether that very port must be had; else a free one will do."""
    http_names: tuple[str, ...] = ()
    inherited: Sequence[InheritedSocket] = ()
    """Sockets that listen already: sources beside the inputs, the page for `http`."""

    def inherited_for(self, label: str) -> list[InheritedSocket]:
        """Give the sockets that were handed over for one purpose."""
        return [each for each in self.inherited if each.name.label == label]


@contextlib.contextmanager
def assembled(
    settings: Settings,
    machine: Machine,
    journal: Journal,
    progress: Callable[[int], None] | None = None,
) -> Iterator[Server]:
    """Give a server that is ready to run; its directory and sockets end with it.

    They stay open when the server failed, or left a thread behind: its end closes them.
    Raises SinkError, PipelineError, BindError, or an error of `log` or `recovery`.
    """
    addresses = _sink_addresses(settings, machine)
    settings = _with_room_for_files(settings)
    with contextlib.ExitStack() as stack:
        listeners, connector_listeners = (
            _listeners(label, settings, machine, stack) for label in (IN, CONNECTOR_IN)
        )
        page = stack.enter_context(_page(settings, journal))
        began = time.monotonic()
        opened = Opened.open(
            settings.data_dir, machine, settings.consent, journal, progress
        )
        recovery_seconds = time.monotonic() - began
        stack.callback(opened.close)
        cursors = opened.settle_sinks(
            list(addresses),
            settings.out_from,
            settings.forgotten_sinks,
            journal,
            two_phase=list(addresses)[len(settings.outputs) :],
        )
        engine = _engine(machine, opened, settings.snapshot_every)
        stopping, inbox = threading.Event(), Inbox(settings.inbox_bytes)
        wiring = _Wiring(opened, machine, inbox, journal, stopping)
        sources = list(wiring.sources(listeners, connector_listeners, settings))
        sinks = list(wiring.sinks(addresses, cursors, settings))
        server = Server(
            opened,
            engine,
            inbox,
            [source.reception for source in sources],
            sinks,
            wiring.snapshotter(sinks, engine),
            journal,
            stopping,
            [source.settle for source in sources] + _settlers(sinks),
            settings.drain_seconds,
        )
        _let_decide(sinks, server)
        _let_in(sources, server)
        if page is not None:
            page.show(server, recovery_seconds)
        try:
            yield server
        finally:
            if not server.is_quiet:
                # A thread that is left may be inside the log.
                stack.pop_all()


@attrs.frozen
class _Wiring:
    """What every source and sink is built on."""

    opened: Opened
    machine: Machine
    inbox: Inbox
    journal: Journal
    stopping: threading.Event

    def sources(
        self,
        listeners: Sequence[Listener],
        connector_listeners: Sequence[Listener],
        settings: Settings,
    ) -> Iterator[Source]:
        """Give what reads, a kind at a time: the inbox is full for all of them."""
        limits = settings.limits
        if listeners:
            yield Sources(listeners, self.inbox, limits, self.journal)
        if connector_listeners:
            points = [point for _, point in self.opened.log.points().values()]
            yield ConnectorSources(
                connector_listeners,
                self.inbox,
                limits,
                self.journal,
                Streams.begin(points),
                settings.connector_cookie,
            )

    def sinks(
        self,
        addresses: Mapping[str, Address],
        cursors: Mapping[str, Cursor],
        settings: Settings,
    ) -> Iterator[Sink]:
        for name, address in addresses.items():
            cursor = cursors[name]
            if cursor.transaction_id:
                yield self._connector_sink(name, address, cursor, settings)
            else:
                yield self._tcp_sink(name, address, cursor, settings.certificates)
        if settings.has_console:
            yield self._console_sink(self.opened.log.tail.sequence)

    def snapshotter(self, sinks: Sequence[Sink], engine: Engine) -> Snapshotter:
        """Give the snapshotter, which keeps what the sinks may begin from."""
        return Snapshotter(
            self.opened.log,
            self.opened.snapshots,
            self.machine,
            floors=lambda: [sink.floor for sink in sinks if sink.floor is not None],
            on_done=engine.snapshot_done,
            journal=self.journal,
        )

    def _tcp_sink(
        self,
        name: str,
        address: Address,
        cursor: Cursor,
        certificates: "Certificates | None",
    ) -> TcpSink:
        waker = Waker()
        return TcpSink(
            name,
            address,
            Delivery(cursor),
            self._subscription(address),
            waker,
            self.journal,
            self.stopping,
            certificates,
        )

    def _connector_sink(
        self, name: str, address: Address, record: Cursor, settings: Settings
    ) -> ConnectorSink:
        instance = settings.name or self.machine.application
        hello = Hello(
            VERSION_OUT, settings.connector_out_cookie, PROGRAM, instance.encode()
        )
        return ConnectorSink(
            name,
            address,
            record,
            hello,
            self._subscription(address),
            Waker(),
            self.journal,
            self.stopping,
            settings.certificates,
        )

    def _console_sink(self, start: int) -> ConsoleSink:
        waker = Waker()
        subscription = self._subscription(CONSOLE)
        return ConsoleSink(start, subscription, waker, self.journal, self.stopping)

    def _subscription(self, place: Address | tuple[str, str]) -> Subscription:
        pipelines = pipelines_of(place, self.machine.definition)
        feed = Feed(self.opened.log.tail.sequence, pipelines=pipelines)
        pace = Pace(lambda: not self.inbox.is_empty, self.stopping.wait)
        return Subscription(feed, self.opened.replayer, self.machine.fresh(), pace)


def name_sinks(
    outputs: Sequence[NamedAddress], connector_outputs: Sequence[NamedAddress] = ()
) -> dict[str, Address]:
    """Give every sink its name, in this order: `out` to a single one.

    Raises SinkError for a name that is missing, or is there twice.
    """
    everyone = [*outputs, *connector_outputs]
    if len(everyone) == 1:
        return {everyone[0].name or SINK: everyone[0].address}
    named: dict[str, Address] = {}
    for number, output in enumerate(everyone):
        if output.name is None:
            flag = "--out" if number < len(outputs) else "--connector-out"
            raise SinkError(
                f"several sinks need names of their own: {flag} NAME@{output.address}"
            )
        if output.name in named:
            raise SinkError(f"two sinks are named {output.name!r}")
        named[output.name] = output.address
    return named


def _sink_addresses(settings: Settings, machine: Machine) -> dict[str, Address]:
    """Give every sink's address by its name; raises SinkError."""
    outputs = name_outputs(settings.outputs, machine.definition)
    return name_sinks(outputs, settings.connector_outputs)


def _engine(machine: Machine, opened: Opened, snapshot_every: int) -> Engine:
    return Engine(
        machine,
        opened.log.tail,
        snapshot_every,
        snapshot_sequence=opened.snapshot_sequence,
    )


def _settlers(sinks: Sequence[Sink]) -> list[Callable[[Sequence[object]], None]]:
    return [sink.settle for sink in sinks if isinstance(sink, ConnectorSink)]


def _let_decide(sinks: Sequence[Sink], server: Server) -> None:
    for sink in sinks:
        if isinstance(sink, ConnectorSink):
            sink.decide = server.decide


def _let_in(sources: Sequence[Source], server: Server) -> None:
    """Let senders in, and their votes to the server."""
    inbox = server.inbox
    inbox.writers = len(sources)
    inbox.on_room = server.wake_readers
    for source in sources:
        source.on_read = server.take_read
        for listener in source.reception.listeners:
            listen(listener.socket, source.reception.label)


@contextlib.contextmanager
def _page(settings: Settings, journal: Journal) -> Iterator[PageThread | None]:
    """Listen for the page, if one is wanted: it begins with the server."""
    address, is_given = settings.http, settings.is_http_given
    inherited = settings.inherited_for(HTTP)
    if inherited:
        opened: AbstractContextManager[socket.socket] = inherited[0].socket
    elif address is not None:
        opened = page_socket(address, journal, is_given=is_given)
    else:
        yield None
        return
    with opened as listener:
        host = listener.getsockname()[0] if address is None else address.host
        names = frozenset(name.lower() for name in (host, *settings.http_names))
        yield PageThread(listener, names, journal, certificates=settings.certificates)


def _listeners(
    label: str, settings: Settings, machine: Machine, stack: contextlib.ExitStack
) -> list[Listener]:
    """Give the listeners of a kind: sockets bound here, and those handed over."""
    places = settings.inputs if label == IN else settings.connector_inputs
    asked = name_inputs(places, machine.definition)
    sockets: list[tuple[str | None, AbstractContextManager[socket.socket]]] = [
        *((each.name, bound(each.address, label)) for each in asked),
        *((one.name.pipeline, one.socket) for one in settings.inherited_for(label)),
    ]
    return [
        _listener(stack.enter_context(opened), name, machine, settings.certificates)
        for name, opened in sockets
    ]


def _listener(
    listening: socket.socket,
    pipeline: str | None,
    machine: Machine,
    certificates: "Certificates | None",
) -> Listener:
    """Let a socket feed a pipeline, the first if none is named."""
    names = machine.pipeline_names
    name = names[0] if pipeline is None else pipeline
    if name not in names:
        known = ", ".join(names)
        raise PipelineError(f"there is no pipeline {name!r} (known pipelines: {known})")
    number = names.index(name)
    decoder = machine.definition.pipelines[number].source.decoder
    return Listener(listening, number, decoder, certificates)


def _with_room_for_files(settings: Settings) -> Settings:
    """Let in no more connections than there may be files for."""
    kinds = bool(settings.inputs or settings.inherited_for(IN)) + bool(
        settings.connector_inputs or settings.inherited_for(CONNECTOR_IN)
    )
    room = _raise_file_limit(kinds * settings.limits.connections_max) / max(kinds, 1)
    limits = attrs.evolve(settings.limits, connections_room=room)
    return attrs.evolve(settings, limits=limits)


def _raise_file_limit(connections_max: int) -> float:
    """Let the process have as many files as its connections need, where it may.

    Gives how many connections may be held: log, snapshots and sinks need files too.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections_max + _SPARE_DESCRIPTORS
    if soft != resource.RLIM_INFINITY and soft < wanted:
        allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return math.inf
    return soft - min(_SPARE_DESCRIPTORS, soft // 2)
