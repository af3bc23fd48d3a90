"""Certificates that are made while a test runs: an authority, and those it signs."""

import datetime as dt
from pathlib import Path
from typing import Self

import attrs
import trustme

HOST = "127.0.0.1"
_LONG_AGO = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)


@attrs.frozen
class Pair:
    """A certificate and its key, as files."""

    certificate: Path
    key: Path

    @property
    def words(self) -> list[object]:
        """Give the options that name them."""
        return ["--tls-cert", self.certificate, "--tls-key", self.key]


@attrs.frozen
class Authority:
    """An authority whose certificates are below `place`.

    Attributes:
        ca: Its own certificate, as a file.
        server: For 127.0.0.1.
        client: For nobody's host.
    """

    place: Path
    ca: Path
    server: Pair
    client: Pair
    _made: trustme.CA

    @classmethod
    def make(cls, place: Path) -> Self:
        """Make one."""
        made = trustme.CA()
        ca = place / "ca.pem"
        made.cert_pem.write_to_path(ca)
        server = _issue(made, place, "server", HOST)
        client = _issue(made, place, "client", "counter@example.org")
        return cls(place, ca, server, client, made)

    def issue(self, name: str, identity: str, *, is_expired: bool = False) -> Pair:
        """Make another certificate, for a host or an e-mail address."""
        return _issue(self._made, self.place, name, identity, is_expired=is_expired)


def _issue(
    made: trustme.CA,
    place: Path,
    name: str,
    identity: str,
    *,
    is_expired: bool = False,
) -> Pair:
    until = _LONG_AGO + dt.timedelta(days=1) if is_expired else None
    since = _LONG_AGO if is_expired else None
    issued = made.issue_cert(identity, not_before=since, not_after=until)
    pair = Pair(place / f"{name}.pem", place / f"{name}.key")
    pair.key.touch(mode=0o600)
    issued.private_key_pem.write_to_path(pair.key)
    pair.certificate.write_bytes(
        b"".join(each.bytes() for each in issued.cert_chain_pems)
    )
    return pair
