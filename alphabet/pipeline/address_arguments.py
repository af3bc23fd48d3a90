"""The addresses on an application's command line, as Wallaroo's API reads them.

Pure.
"""

from collections.abc import Sequence

from alphabet.network.address import parse_named_address
from alphabet.pipeline.topology import WallarooParameterError

DEFAULT_INPUT = ("127.0.0.1", "7010")
"""Where a server listens if the command line does not say: host, port."""


def tcp_parse_input_addrs(args: Sequence[str]) -> list[tuple[str, str]]:
    """Read every `--in` (`-i`) of a command line.

    A value is `[PIPELINE@]HOST:PORT`, or several with commas between them.

    Returns:
        Hosts and ports, as text, in order, without the pipelines' names; the default
        if there is no `--in`.

    Raises:
        WallarooParameterError: The last word is `--in`, without a value.
        AddressError: A value is no address.
    """
    values = _values_of(args, "-i", "--in")
    return [_host_and_port(value) for value in values] or [DEFAULT_INPUT]


def tcp_parse_output_addrs(args: Sequence[str]) -> list[tuple[str, str]]:
    """Read every `--out` (`-o`) of a command line.

    A value is `[NAME@]HOST:PORT`, or `-` for standard output, or several with commas
    between them.

    Returns:
        Hosts and ports, as text, in order, without the sinks' names; `("-", "")` for
        `-`; nothing but `("", "")` if there is no `--out`.

    Raises:
        WallarooParameterError: The last word is `--out`, without a value.
        AddressError: A value is no address.
    """
    values = _values_of(args, "-o", "--out")
    addresses = [("-", "") if v == "-" else _host_and_port(v) for v in values]
    return addresses or [("", "")]


def _values_of(args: Sequence[str], short: str, long: str) -> list[str]:
    """Collect one option's values, cut at commas; other words are others' business."""
    values: list[str] = []
    words = iter(args)
    for word in words:
        if word in {short, long}:
            value = next(words, None)
            if value is None:
                raise WallarooParameterError(f"{word} needs a value")
        elif word.startswith(f"{long}="):
            value = word.removeprefix(f"{long}=")
        elif word.startswith(short):
            value = word.removeprefix(short)
        else:
            continue
        values += value.split(",")
    return values


def _host_and_port(text: str) -> tuple[str, str]:
    """Read an address as Wallaroo's API gives it."""
    address = parse_named_address(text).address
    return address.host, str(address.port)
