"""`alphabet health`: what a container's health check asks a server's page."""

from __future__ import annotations

import contextlib
import http.client as http_client
from http import HTTPStatus
from typing import TYPE_CHECKING

import click

from alphabet.command_line import AddressType, load_certificates, option, tls_options
from alphabet.network.address import Address

if TYPE_CHECKING:
    import ssl
    from pathlib import Path

    from alphabet.network.certificates import Certificates

SECONDS_MAX = 5.0
"""How long the page may take for each step of its answer."""
ANSWER_BYTES_MAX = 1000
"""How much of an answer is shown."""
_LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - nothing is bound here


class UnhealthyError(click.ClickException):
    """The server does not answer, or says that it is not well. Exit code 1."""

    exit_code = 1


@click.command()
@option(
    "--http",
    type=AddressType(or_none=True),
    metavar="HOST:PORT",
    default="127.0.0.1:8010",
    show_default=True,
    help="Where the page is, as the server was told; any address is this machine's.",
)
@option(
    "--ready",
    is_flag=True,
    help="Ask whether votes should be sent there, not only whether it answers.",
)
@tls_options("--tls-ca", "--tls-cert", "--tls-key")
def health(
    http: Address | str,
    *,
    ready: bool,
    tls_ca: Path | None,
    tls_cert: Path | None,
    tls_key: Path | None,
) -> None:
    """Ask a running server whether it is well.

    Exit code 0 if it is, else 1, and one line says why.
    """
    if not isinstance(http, Address):
        raise click.UsageError("--http none: a server without a page cannot be asked")
    if tls_cert is not None and tls_ca is None:
        raise click.UsageError("--tls-cert needs --tls-ca, whom the page is trusted by")
    certificates = load_certificates(tls_cert, tls_key, ca=tls_ca)
    context = None if certificates is None else certificates.client
    try:
        status, text = _ask(http, "/readyz" if ready else "/healthz", context)
    except (OSError, http_client.HTTPException) as error:
        reason = _reason(error, certificates)
        raise UnhealthyError(f"{http} does not answer: {reason}") from error
    if status != HTTPStatus.OK:
        raise UnhealthyError(f"{http} answers {status}: {text}")
    click.echo(text)


def _reason(
    error: OSError | http_client.HTTPException, certificates: Certificates | None
) -> str:
    """Say why there was no answer, and where TLS may be why, what it may want."""
    if isinstance(error, (ConnectionResetError, BrokenPipeError)):
        wanted = "--tls-ca" if certificates is None else "--tls-cert"
        return f"it closed the connection; a page with TLS may want {wanted}"
    reason = getattr(error, "strerror", None) or str(error) or repr(error)
    return " ".join(reason.split())


def _ask(
    address: Address, path: str, context: ssl.SSLContext | None
) -> tuple[int, str]:
    """Ask for a path; give the status and the beginning of the answer, as one line."""
    host = _LOOPBACK.get(address.host, address.host)
    if context is None:
        connection = http_client.HTTPConnection(host, address.port, SECONDS_MAX)
    else:
        connection = http_client.HTTPSConnection(
            host, address.port, timeout=SECONDS_MAX, context=context
        )
    with contextlib.closing(connection):
        connection.request("GET", path)
        answer = connection.getresponse()
        data = answer.read(ANSWER_BYTES_MAX)
        return answer.status, " ".join(data.decode(errors="replace").split())
