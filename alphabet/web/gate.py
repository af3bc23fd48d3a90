"""Who is answered at all: names a page may be asked by, and what every answer says.

A page on the loopback interface can be reached by any page that a browser has open, if
its name is made to lead here (DNS rebinding); so the Host header must be an IP address,
`localhost`, or a name that the operator has given: the host of `--http`, or one of
`--http-name`. Pure.
"""

import ipaddress
from collections.abc import Collection, Mapping

SECURITY_HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; "
        "img-src 'self' data:; connect-src 'self'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
METHODS = ("GET", "HEAD")


def is_allowed_host(header: str, own_names: Collection[str]) -> bool:
    """Say whether a Host header names this server and not somebody else's domain.

    `own_names` are in lower case.
    """
    host = host_of(header).lower()
    if host == "localhost" or host in own_names:
        return True
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def host_of(header: str) -> str:
    """Give the host of a Host header, without port and brackets."""
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return header.rpartition(":")[0] if ":" in header else header


def parse_sequence(text: str) -> int:
    """Read a sequence, 0 or more; raises ValueError."""
    if not (text.isascii() and text.isdecimal()) or len(text) > len(str(2**64)):
        raise ValueError(f"{text!r} is no sequence: digits, 0 or more")
    return int(text)
