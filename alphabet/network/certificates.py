"""The certificates that a program serves and dials with, and loads again when told.

Contexts are made whole before any is put in place, so that files which are half changed
leave the old ones at work. Connections that are open keep what they began with.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self, final

import attrs

from alphabet.network.tls import client_context, server_context

if TYPE_CHECKING:
    import ssl
    from pathlib import Path


@attrs.frozen
class TlsFiles:
    """Which files, each PEM; None for those that were not named."""

    certificate: Path | None = None
    key: Path | None = None
    client_ca: Path | None = None
    ca: Path | None = None


@final
@attrs.define(eq=False)
class Certificates:
    """The files, and the contexts made of them last.

    Attributes:
        server: What new connections are served with; None to serve them plain.
        client: What is dialled with; None to dial plain.
    """

    files: TlsFiles
    server: ssl.SSLContext | None = attrs.field(default=None, init=False)
    client: ssl.SSLContext | None = attrs.field(default=None, init=False)

    @classmethod
    def load(cls, files: TlsFiles) -> Self:
        """Read the files; raises TlsFileError."""
        certificates = cls(files)
        certificates.reload()
        return certificates

    def reload(self) -> None:
        """Read the files again; raises TlsFileError, and changes nothing then."""
        files = self.files
        server = client = None
        if files.certificate is not None and files.key is not None:
            server = server_context(files.certificate, files.key, files.client_ca)
        if files.ca is not None:
            client = client_context(files.ca, files.certificate, files.key)
        self.server, self.client = server, client
