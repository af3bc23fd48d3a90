"""Who is answered at all: names a page may be asked by, and what every answer says.

A page on the loopback interface can be reached by any page that a browser has open, if
its name is made to lead here (DNS rebinding); so the Host header must be an IP address,
`localhost`, or a name that the operator has given: the host of `--http`, or one of
`--http-name`. Pure.
"""

import ipaddress
import re
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

_HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+))(?::[0-9]*)?")
"""RFC 9110, 7.2: an address of version 6 in brackets, or a name or one of version 4;
then perhaps a port."""


def is_allowed_host(header: str, own_names: Collection[str]) -> bool:
    """Say whether a Host header names this server and not somebody else's domain.

    `own_names` are in lower case.
    """
    found = _HOST.fullmatch(header)
    if found is None:
        return False
    in_brackets, plain = found.groups()
    host = (in_brackets or plain).lower()
    if in_brackets is None and (host == "localhost" or host in own_names):
        return True
    kind = ipaddress.IPv4Address if in_brackets is None else ipaddress.IPv6Address
    try:
        kind(host)
    except ValueError:
        return False
    return True


def parse_sequence(text: str) -> int:
    """Read a sequence, 0 or more; raises ValueError."""
    if not (text.isascii() and text.isdecimal()) or len(text) > len(str(2**64)):
        raise ValueError(f"{text!r} is no sequence: digits, 0 or more")
    return int(text)
