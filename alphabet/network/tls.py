"""Contexts for TLS, from files that an operator names.

Whatever is wrong with a file is said before anything is served with it: a context that
is given back has been through a whole handshake with itself. TLS 1.2 is the least, 1.3
what two of ours speak; nothing is renegotiated, and no session is resumed. This module
imports nothing of ours.
"""

import contextlib
import os
import ssl
import stat
from collections.abc import Iterator
from pathlib import Path

import attrs

_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_OTHERS_OF_ROOT = stat.S_IWGRP | stat.S_IXGRP | stat.S_IRWXO
_FLIGHTS_MAX = 10


@attrs.frozen
class TlsFileError(Exception):
    """A file that TLS cannot be spoken with; the operator's fault.

    Attributes:
        path: The file.
        cause: What is wrong with it, as the rest of a sentence.
    """

    path: Path
    cause: str

    def __str__(self) -> str:
        return f"{self.path} {self.cause}"


def server_context(
    certificate: Path, key: Path, client_ca: Path | None = None
) -> ssl.SSLContext:
    """Make the context of a server; with `client_ca`, clients must have certificates.

    All files are PEM; `certificate` may have its intermediates behind it.

    Raises:
        TlsFileError: A file cannot be read or used, or a certificate has expired.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _restrict(context)
    # Nobody resumes; a sender that closes with a ticket unread would send a reset.
    context.num_tickets = 0
    _load_pair(context, certificate, key)
    rehearsing = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    with _read_again(certificate):
        _trust_itself(rehearsing, certificate)
    _rehearse(context, rehearsing, certificate)
    if client_ca is not None:
        _load_authorities(context, client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_context(
    ca: Path, certificate: Path | None = None, key: Path | None = None
) -> ssl.SSLContext:
    """Make the context of a client; it checks the server's certificate, and its name.

    All files are PEM; a certificate is shown to servers that ask for one.

    Raises:
        TlsFileError: A file cannot be read or used, or a certificate has expired.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _restrict(context)
    if certificate is not None and key is not None:
        _load_pair(context, certificate, key)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        rehearsing = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with _read_again(certificate):
            rehearsing.load_cert_chain(certificate, key)
            _trust_itself(rehearsing, certificate)
        _rehearse(rehearsing, context, certificate)
        context.verify_mode = ssl.CERT_REQUIRED
        context.check_hostname = True
    _load_authorities(context, ca)
    return context


def explain(error: OSError) -> str:
    """Say in words why TLS failed."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message.rstrip(".")
    reason = error.reason if isinstance(error, ssl.SSLError) else None
    return (reason or error.strerror or str(error)).replace("_", " ").lower()


def _restrict(context: ssl.SSLContext) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= (
        ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_TICKET | ssl.OP_NO_COMPRESSION
    )


def _load_pair(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    if b"-----BEGIN CERTIFICATE-----" not in _read(certificate):
        raise TlsFileError(certificate, "is no PEM file with a certificate in it")
    _check_secrecy(key)
    if b"PRIVATE KEY-----" not in _read(key):
        raise TlsFileError(key, "is no PEM file with a private key in it")

    def refuse_to_ask() -> str:
        raise TlsFileError(key, "is encrypted, and nobody is there to ask for its word")

    try:
        context.load_cert_chain(certificate, key, refuse_to_ask)
    except OSError as error:
        if isinstance(error, ssl.SSLError) and error.reason == "KEY_VALUES_MISMATCH":
            raise TlsFileError(key, f"is not the key of {certificate}") from error
        cause = f"and {key} cannot be used: {explain(error)}"
        raise TlsFileError(certificate, cause) from error


def _load_authorities(context: ssl.SSLContext, file: Path) -> None:
    _read(file)
    try:
        context.load_verify_locations(file)
    except OSError as error:
        raise TlsFileError(
            file, "is no PEM file with an authority's certificate in it"
        ) from error


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        cause = f"cannot be read: {error.strerror or error}"
        raise TlsFileError(file, cause) from error


@contextlib.contextmanager
def _read_again(certificate: Path) -> Iterator[None]:
    """Load what was sound a moment ago: somebody may be writing it."""
    try:
        yield
    except OSError as error:
        cause = f"has changed while it was read: {explain(error)}"
        raise TlsFileError(certificate, cause) from error


def _check_secrecy(key: Path) -> None:
    """Refuse a key that others can read, by PostgreSQL's rule for `ssl_key_file`."""
    try:
        status = key.stat()
    except OSError as error:
        cause = f"cannot be read: {error.strerror or error}"
        raise TlsFileError(key, cause) from error
    if status.st_uid not in {0, os.geteuid()}:
        raise TlsFileError(key, "belongs to another user: chown it to this one or root")
    forbidden = _OTHERS_OF_ROOT if status.st_uid == 0 else _OTHERS
    if status.st_mode & forbidden:
        raise TlsFileError(
            key, f"has mode {stat.S_IMODE(status.st_mode):04o}: chmod it to 0600"
        )


def _trust_itself(context: ssl.SSLContext, certificate: Path) -> None:
    """Let a context trust this very certificate, whoever signed it."""
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.load_verify_locations(certificate)


def _rehearse(
    server: ssl.SSLContext, client: ssl.SSLContext, certificate: Path
) -> None:
    """Shake hands in memory; the side that checks finds what is wrong."""
    onward, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(back, onward),
        server.wrap_bio(onward, back, server_side=True),
    ]
    for _ in range(_FLIGHTS_MAX):
        for end in list(ends):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLError as error:
                cause = f"cannot be served with: {explain(error)}"
                raise TlsFileError(certificate, cause) from error
            ends.remove(end)
