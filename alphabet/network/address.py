"""Addresses as people write them: `HOST:PORT`, `[IPV6]:PORT`, `NAME@` before either.

Pure text: no name is resolved and nothing is connected here. What `str` writes, the
parsers read back as the same value.
"""

from __future__ import annotations

import ipaddress

import attrs

PORT_MAX = 65535
"""The largest port, inclusive. Port 0 asks the system for a free one."""

_NOT_IN_HOSTS = frozenset("[]@/:")


@attrs.frozen
class AddressError(ValueError):
    """An address cannot be read.

    Attributes:
        text: What was given.
        cause: What is wrong with it, and how it is written.
    """

    text: str
    cause: str

    def __str__(self) -> str:
        return f"{self.text!r} is no address: {self.cause}"


@attrs.frozen
class Address:
    """Where to listen or to connect.

    Attributes:
        host: A name or an IP address; IPv6 without brackets.
        port: 0 to `PORT_MAX`, inclusive.
    """

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


@attrs.frozen
class NamedAddress:
    """An address that may say whose it is.

    Attributes:
        name: A source's pipeline or a sink's own name; None if there is none.
        address: Where that is.
    """

    name: str | None
    address: Address

    def __str__(self) -> str:
        return str(self.address) if self.name is None else f"{self.name}@{self.address}"


def parse_address(text: str) -> Address:
    """Read `HOST:PORT` or `[IPV6]:PORT`.

    Raises:
        AddressError: It is neither.
    """
    host, colon, port = text.rpartition(":")
    if not colon:
        raise AddressError(text, "it has no port; write HOST:PORT")
    if not _is_port(port):
        raise AddressError(text, f"its port is no number from 0 to {PORT_MAX}")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        if not _is_ipv6(host):
            raise AddressError(text, "what is in brackets is no IPv6 address")
    elif ":" in host:
        raise AddressError(text, "an IPv6 address goes in brackets: [HOST]:PORT")
    elif not _is_word(host) or not _NOT_IN_HOSTS.isdisjoint(host):
        raise AddressError(text, "it has no host; write HOST:PORT")
    return Address(host, int(port))


def parse_named_address(text: str) -> NamedAddress:
    """Read an address that may have a `NAME@` before it.

    Raises:
        AddressError: The name is empty, not printable or holds a comma or another
            `@`, or the rest is no address.
    """
    name, at, address = text.rpartition("@")
    if not at:
        return NamedAddress(None, parse_address(address))
    if not _is_word(name) or "@" in name:
        raise AddressError(text, "that is no name; write NAME@HOST:PORT")
    return NamedAddress(name, parse_address(address))


def _is_port(text: str) -> bool:
    """Say whether a text is a port's number in plain digits."""
    digits_max = len(str(PORT_MAX))
    plain = text.isascii() and text.isdecimal() and len(text) <= digits_max
    return plain and int(text) <= PORT_MAX


def _is_word(text: str) -> bool:
    """Say whether a text is there, printable and survives a list with commas."""
    return (
        bool(text) and text.isprintable() and text == text.strip() and "," not in text
    )


def _is_ipv6(text: str) -> bool:
    """Say whether a text is an IPv6 address, with or without a zone."""
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return _is_word(text) and (_NOT_IN_HOSTS - {":"}).isdisjoint(text)
