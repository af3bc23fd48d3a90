"""`alphabet run`: the server on the command line.

Results, which here are the lines that tell it is ready, go to standard output;
everything else to standard error.
"""

import gc
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from alphabet.assembly import PipelineError, Settings, assembled
from alphabet.command_line import (
    AddressType,
    CannotServeError,
    DamageError,
    HostNameType,
    load_certificates,
    option,
    read_cookie,
    tls_options,
)
from alphabet.commands.ready_lines import say_ready
from alphabet.commands.wallaroo_options import adopted, notices, wallaroo_options
from alphabet.journal import entries
from alphabet.journal.journal import Journal
from alphabet.loading import ApplicationError, load_machine
from alphabet.network.address import Address, NamedAddress
from alphabet.network.address_list import AddressListType, flatten
from alphabet.network.inherited_sockets import (
    InheritedSocket,
    InheritedSocketError,
    take_inherited,
)
from alphabet.network.listening import HTTP, BindError
from alphabet.pipeline.machine import Machine
from alphabet.server import Server
from alphabet.service.renewal import hear_hangups, reload_on_hangup
from alphabet.service.service_manager import ServiceManager
from alphabet.service.supervision import supervise
from alphabet.source.connection import Limits
from alphabet.startup import Consent, SinkError
from log.errors import (
    CommitError,
    DamagedError,
    DirectoryError,
    DiskFullError,
    ForeignError,
    LockedError,
)
from recovery.errors import RecoveryError, StateError

SWITCH_SECONDS = 1e-4
"""Python's switch interval: at the default 5 ms a busy thread starves the commits."""

EXIT_COMMIT = 4
HTTP_DEFAULT = Address("127.0.0.1", 8010)

NAME_BYTES_MAX = 255
"""The longest name of a server: sinks make file names of it."""


class CommitFailedError(click.ClickException):
    """The server was stopped by a commit that failed. Exit code 4."""

    exit_code = EXIT_COMMIT


@click.command()
@option(
    "--in",
    "inputs",
    type=AddressListType(),
    multiple=True,
    callback=flatten,
    metavar="[PIPELINE@]HOST:PORT",
    help="Where votes come in; repeatable.  [default: 127.0.0.1:7010, unless there is "
    "a --connector-in]",
)
@option(
    "--connector-in",
    "connector_inputs",
    type=AddressListType(),
    multiple=True,
    callback=flatten,
    metavar="[PIPELINE@]HOST:PORT",
    help="Where votes come in exactly once, from senders that take part; repeatable.",
)
@option(
    "--connector-cookie-file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="What those senders must show; a final newline does not count.",
)
@option(
    "--out",
    "outputs",
    type=AddressListType(or_dash=True),
    multiple=True,
    callback=flatten,
    metavar="[NAME@]HOST:PORT",
    help="Where each new total goes; - prints it; repeatable, then with names.",
)
@option(
    "--connector-out",
    "connector_outputs",
    type=AddressListType(),
    multiple=True,
    callback=flatten,
    metavar="[NAME@]HOST:PORT",
    help="Where each new total goes exactly once, to a sink that takes part.",
)
@option(
    "--connector-out-cookie-file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="What to show those sinks; a final newline does not count.",
)
@tls_options("--tls-cert", "--tls-key", "--tls-client-ca", "--tls-ca")
@option(
    "--name",
    metavar="TEXT",
    help="What to call this server to those sinks.  [default: the application's name]",
)
@option(
    "--out-from",
    type=click.IntRange(min=0),
    metavar="SEQ",
    help="Start new sinks after this event, 0 for all.  [default: the log's end]",
)
@option(
    "--forget-sink",
    "forgotten_sinks",
    multiple=True,
    metavar="NAME",
    help="Drop a sink's cursor, which holds back snapshots; repeatable.",
)
@option(
    "--data-dir",
    type=click.Path(path_type=Path),
    default="alphabet-data",
    show_default=True,
    help="Where the log and the snapshots are; made if missing, its parent is not.",
)
@option(
    "--snapshot-every",
    type=click.IntRange(min=1),
    metavar="EVENTS",
    default=1_000_000,
    show_default=True,
    help="How many events lie between snapshots, at least.",
)
@option(
    "--max-frame-bytes",
    type=click.IntRange(min=0, max=1 << 30),
    metavar="BYTES",
    default=1 << 20,
    show_default=True,
    help="The longest payload taken; a longer one ends its connection.",
)
@option(
    "--max-connections",
    type=click.IntRange(min=1),
    metavar="N",
    default=10_000,
    show_default=True,
    help="How many senders may be connected at once.",
)
@option(
    "--inbox-bytes",
    type=click.IntRange(min=1),
    metavar="BYTES",
    default=16 << 20,
    show_default=True,
    help="How much may wait to be counted before senders are slowed.",
)
@option(
    "--partial-frame-seconds",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    default=60.0,
    show_default=True,
    help="How long a frame may stay unfinished.",
)
@option(
    "--drain-seconds",
    type=click.FloatRange(min=0, max=9),
    metavar="SECONDS",
    default=5.0,
    show_default=True,
    help="How long a stop waits for the sinks.",
)
@option(
    "--http",
    type=AddressType(or_none=True),
    metavar="HOST:PORT",
    help="Where the page, its JSON and the metrics are; none for nowhere.  [default: "
    "127.0.0.1:8010, or a free port if that is taken]",
)
@option(
    "--http-name",
    "http_names",
    type=HostNameType(),
    multiple=True,
    metavar="NAME",
    help="A name that the page may be asked by, as behind a proxy; repeatable.",
)
@option(
    "--log-format",
    type=click.Choice(["auto", "text", "json"]),
    default="auto",
    show_default=True,
    help="What standard error says; auto is text on a terminal, else JSON.",
)
@option(
    "--application-module",
    metavar="NAME",
    help="Run this module's application; options of its own go behind the name.  "
    "[default: Alphabet's own]",
)
@option(
    "--accept-lost-tail",
    is_flag=True,
    help="Serve a log that ends before its snapshots, sinks or streams.",
)
@option(
    "--accept-gaps",
    is_flag=True,
    help="Serve a salvaged log though events are missing.",
)
@wallaroo_options
@click.pass_context
def run(ctx: click.Context, /, **_: Any) -> None:  # noqa: ANN401 - every option, by its name
    """Count votes until a signal says stop.

    Exit code 0 after SIGTERM or SIGINT, 1 damage or something ahead of the log, 2
    usage, 3 cannot serve or open, 4 stopped by a failed commit.
    """
    sys.setswitchinterval(SWITCH_SECONDS)
    options = adopted(ctx)
    try:
        machine = load_machine(options["application_module"], _arguments(options))
    except ApplicationError as error:
        raise CannotServeError(str(error)) from error
    try:
        inherited = take_inherited(os.environ)
    except InheritedSocketError as error:
        raise click.UsageError(str(error)) from error
    settings = _settings(options, machine, inherited)
    journal = Journal.open(sys.stderr, options["log_format"])
    for notice in notices(ctx):
        journal.say(notice)
    try:
        _serve(settings, machine, journal)
    except (PipelineError, SinkError) as error:
        raise click.UsageError(str(error)) from error
    except (CommitError, DiskFullError) as error:
        raise CommitFailedError(str(error)) from error
    except StateError as error:
        raise CannotServeError(str(error)) from error
    except (DamagedError, RecoveryError) as error:
        raise DamageError(str(error)) from error
    except (BindError, DirectoryError, ForeignError, LockedError) as error:
        raise CannotServeError(str(error)) from error
    finally:
        journal.close()


def _serve(settings: Settings, machine: Machine, journal: Journal) -> None:
    """Assemble a server, say that it is ready, and run it."""
    for state in machine.pickled:
        journal.say(entries.state_pickled(state=state))
    manager = ServiceManager.find(os.environ, journal)
    certificates = settings.certificates
    # Set before a replay, which may take long: else SIGHUP would end the process.
    is_reloaded = certificates is not None or manager.is_there
    hangups = hear_hangups(is_reloaded=is_reloaded)

    def on_ready() -> None:
        say_ready(server, to_stderr=settings.has_console)
        manager.ready()
        supervise(server, manager)
        if hangups is not None:
            reload_on_hangup(hangups, certificates, journal, manager)

    with assembled(settings, machine, journal, manager.replayed) as server:
        server.wake_on_signals()
        _stop_on_signals(server)
        gc.freeze()
        server.run(on_ready, manager.stopping)


def _stop_on_signals(server: Server) -> None:
    """Let a signal begin to stop; the next one ends the process at once."""
    came: list[int] = []

    def take(number: int, _: object) -> None:
        came.append(number)
        if len(came) > 1:
            # Not before: of two at once, Python would have no handler for the second.
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        server.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, take)


def _settings(
    options: dict[str, Any], machine: Machine, inherited: Sequence[InheritedSocket]
) -> Settings:
    """Make the settings; what no option says, the application does."""
    # Who asks for connectors alone, or hands sockets over, has no port open to others.
    has_own = options["connector_inputs"] or any(
        each.name.label != HTTP for each in inherited
    )
    inputs = () if has_own else _configured_inputs(machine)
    outputs = options["outputs"] or tuple(_configured_outputs(machine))
    return Settings(
        data_dir=options["data_dir"],
        inputs=tuple(options["inputs"] or inputs),
        connector_inputs=tuple(options["connector_inputs"]),
        connector_cookie=read_cookie(options["connector_cookie_file"]),
        outputs=tuple(output for output in outputs if output != "-"),
        has_console="-" in outputs,
        connector_outputs=tuple(options["connector_outputs"]),
        connector_out_cookie=read_cookie(options["connector_out_cookie_file"]),
        certificates=load_certificates(
            *(options[f"tls_{each}"] for each in ("cert", "key", "client_ca", "ca"))
        ),
        name=_checked_name(options["name"]),
        out_from=options["out_from"],
        forgotten_sinks=options["forgotten_sinks"],
        snapshot_every=options["snapshot_every"],
        inbox_bytes=options["inbox_bytes"],
        drain_seconds=options["drain_seconds"],
        limits=Limits(
            options["max_frame_bytes"],
            options["max_connections"],
            options["partial_frame_seconds"],
        ),
        http=_page_address(options["http"]),
        is_http_given=options["http"] is not None,
        http_names=options["http_names"],
        inherited=inherited,
        consent=Consent(options["accept_lost_tail"], options["accept_gaps"]),
    )


def _page_address(given: Address | str | None) -> Address | None:
    """Give where the page is to be, None for nowhere."""
    if given is None:
        return HTTP_DEFAULT
    return given if isinstance(given, Address) else None


def _checked_name(name: str | None) -> str | None:
    """Refuse a name that sinks cannot name their files by."""
    try:
        size = NAME_BYTES_MAX if name is None else len(name.encode())
    except UnicodeEncodeError:
        size = 0
    if not 0 < size <= NAME_BYTES_MAX:
        raise click.BadParameter(
            f"a name has 1 to {NAME_BYTES_MAX} bytes, as UTF-8", param_hint="'--name'"
        )
    return name


def _configured_inputs(machine: Machine) -> Iterator[NamedAddress]:
    for pipeline in machine.definition.pipelines:
        source = pipeline.source
        yield NamedAddress(pipeline.name, Address(source.host, int(source.port)))


def _configured_outputs(machine: Machine) -> Iterator[NamedAddress]:
    """Give each sink's address once, however many pipelines go to it."""
    sinks = [pipeline.sink for pipeline in machine.definition.pipelines]
    for host, port in dict.fromkeys((sink.host, sink.port) for sink in sinks):
        if host not in {"", "-"}:
            yield NamedAddress(None, Address(host, int(port)))


def _arguments(options: dict[str, Any]) -> list[str]:
    """Write the addresses as the command line that `application_setup` reads."""
    return [
        word
        for flag, values in (("--in", options["inputs"]), ("--out", options["outputs"]))
        for value in values
        for word in (flag, str(value))
    ]
