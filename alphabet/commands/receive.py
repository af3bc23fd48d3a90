"""`alphabet receive`: the tutorial's receiver, which prints the totals it is sent."""

from __future__ import annotations

import contextlib
import signal
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from alphabet.command_line import (
    AddressType,
    CannotServeError,
    DamageError,
    load_certificates,
    option,
    read_cookie,
    tls_options,
)
from alphabet.connector.receiver import ConnectorReceiver
from alphabet.network.address import Address
from alphabet.printing import OutputFormatError, format_outputs
from alphabet.receiving.connector_listener import ConnectorListener
from alphabet.receiving.file_sink import FileSink, SinkDamageError, SinkFileError
from alphabet.receiving.receiver import Receiver

if TYPE_CHECKING:
    import io
    import ssl
    from collections.abc import Callable, Iterator


@click.command()
@option(
    "--listen",
    type=AddressType(),
    default="127.0.0.1:7002",
    show_default=True,
    help="Where servers connect; port 0 takes a free one.",
)
@option(
    "--expect",
    metavar="N",
    type=click.IntRange(min=1),
    help="End after N outputs.  [default: go on until stopped]",
)
@option(
    "--output",
    metavar="FILE",
    type=click.Path(dir_okay=False, writable=True),
    help="Append the frames to FILE and print no totals.",
)
@option(
    "--connector",
    is_flag=True,
    help="Be the sink of --connector-out: FILE has each output exactly once.",
)
@option(
    "--connector-cookie-file",
    "cookie_file",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, readable=True, path_type=Path),
    help="Holds the cookie that servers must have; a final newline does not count.",
)
@tls_options("--tls-cert", "--tls-key", "--tls-client-ca")
def receive(
    listen: Address,
    expect: int | None,
    output: str | None,
    *,
    connector: bool,
    cookie_file: Path | None,
    tls_cert: Path | None,
    tls_key: Path | None,
    tls_client_ca: Path | None,
) -> None:
    """Print each output that a server sends, as LETTER => TOTAL.

    Servers come one after another, or one again and again. Standard output has the
    totals alone; `listening in HOST:PORT` goes to standard error. Exit code 0 after a
    signal, but 3 if the outputs that --expect asks for did not come.

    With --connector the server decides in two phases what FILE keeps, and whichever
    of the two crashes, it ends up with each output once. FILE.transactions beside it
    says how much of it is final; keep the two together.
    """
    certificates = load_certificates(tls_cert, tls_key, tls_client_ca)
    context = certificates and certificates.server
    if not connector:
        if cookie_file is not None:
            raise click.UsageError("--connector-cookie-file needs --connector")
        _receive_plainly(listen, expect, output, context)
        return
    if output is None:
        raise click.UsageError("--connector needs --output FILE")
    if expect is not None:
        raise click.UsageError("--expect counts frames, which --connector does not cut")
    cookie = read_cookie(cookie_file)
    _receive_in_transactions(listen, Path(output), cookie, context)


def _receive_plainly(
    listen: Address,
    expect: int | None,
    output: str | None,
    context: ssl.SSLContext | None,
) -> None:
    """Take outputs over plain TCP."""
    with (
        _listening(listen) as listener,
        _stop_on_signals() as stop,
        _sink(output) as put,
    ):
        _say_listening(listener)
        receiver = Receiver(listener, stop, put, _say, expect, context)
        try:
            receiver.run()
        except BrokenPipeError:
            pass  # Nobody reads the totals any more, as after `| head`.
        except OutputFormatError as error:
            raise DamageError(
                "a server sends other outputs than Alphabet's;"
                " --output FILE keeps any that are framed"
            ) from error
        except OSError as error:
            raise CannotServeError(
                f"cannot go on after {receiver.outputs} outputs ({error})"
            ) from error
    if expect is not None and receiver.outputs < expect:
        raise CannotServeError(f"{receiver.outputs} of {expect} outputs came")


def _receive_in_transactions(
    listen: Address, path: Path, cookie: bytes, context: ssl.SSLContext | None
) -> None:
    """Take outputs by the connector protocol, into a durable file."""
    with (
        _listening(listen) as listener,
        _stop_on_signals() as stop,
        _file_sink(path) as sink,
    ):
        start_bytes = sink.committed_bytes
        _say_listening(listener)
        receiver = ConnectorReceiver(sink, cookie)
        try:
            ConnectorListener(listener, stop, receiver, _say, context).run()
        except OSError as error:
            raise CannotServeError(
                f"cannot write {path} ({error.strerror or error}); nothing committed"
                " is lost: mend the cause and start again"
            ) from error
        new_bytes = sink.committed_bytes - start_bytes
        _say(
            f"committed {new_bytes} bytes in {receiver.transactions_committed}"
            f" transactions; {path} has {sink.committed_bytes} that are final"
            + (", and a transaction that is not settled" if sink.prepared else "")
        )


@contextlib.contextmanager
def _file_sink(path: Path) -> Iterator[FileSink]:
    """Hold a durable file."""
    try:
        sink = FileSink.open(path)
    except SinkDamageError as error:
        raise DamageError(str(error)) from error
    except SinkFileError as error:
        raise CannotServeError(str(error)) from error
    with contextlib.closing(sink):
        yield sink


def _say_listening(listener: socket.socket) -> None:
    """Tell where servers may connect."""
    host, port, *_ = listener.getsockname()
    _say(f"listening in {Address(host, port)}")


def _say(line: str) -> None:
    """Print a line on standard error; that nobody reads it is no reason to end."""
    with contextlib.suppress(OSError):
        click.echo(line, err=True)


def _listening(address: Address) -> socket.socket:
    """Listen at an address."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        return socket.create_server((address.host, address.port), family=family)
    except OSError as error:
        from alphabet.network.listening import BindError

        # Python adds the address, which stands in the line already.
        cause, _, _ = str(error.strerror).partition(" (while")
        raise CannotServeError(str(BindError(address, cause, "listen"))) from error


@contextlib.contextmanager
def _stop_on_signals() -> Iterator[socket.socket]:
    """Turn SIGINT and SIGTERM into something to read, in the main thread."""
    told, teller = socket.socketpair()
    with told, teller:
        teller.settimeout(0)
        before = signal.set_wakeup_fd(teller.fileno(), warn_on_full_buffer=False)
        handlers = {
            number: signal.signal(number, lambda *_: None)
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            yield told
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(before)


@contextlib.contextmanager
def _sink(path: str | None) -> Iterator[Callable[[bytes], None]]:
    """Open where the outputs go at once: a file as frames, or stdout as lines."""
    try:
        stream = _open(path)
    except OSError as error:
        raise CannotServeError(f"cannot open {path} ({error.strerror})") from error

    def put(outputs: bytes) -> None:
        view = memoryview(outputs if path else format_outputs(outputs).encode())
        while view:
            view = view[stream.write(view) :]

    with stream:
        yield put


def _open(path: str | None) -> io.FileIO:
    """Open a file's end or standard output, without a buffer."""
    if path is None:
        return open(sys.stdout.fileno(), "wb", buffering=0, closefd=False)
    return Path(path).open("ab", buffering=0)
