"""Sockets that listen, and what is said of an address that cannot be listened on."""

import contextlib
import socket
from collections.abc import Iterator

import attrs

from alphabet.journal import entries
from alphabet.journal.journal import Journal
from alphabet.network.address import Address

HTTP = "http"
BACKLOG = 1024


@attrs.frozen
class BindError(Exception):
    """An address that cannot be listened on."""

    address: Address
    reason: str
    label: str

    def __str__(self) -> str:
        """Name the address, the cause and the way on."""
        return (
            f"cannot listen on {self.address}: {self.reason}; give another address "
            f"with --{self.label} HOST:PORT (port 0 takes a free one)"
        )


@contextlib.contextmanager
def bound(address: Address, label: str) -> Iterator[socket.socket]:
    """Bind a socket, not listening yet; `label` is the option that asks for it.

    Raises BindError.
    """
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as made:
        made.settimeout(0)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            made.bind((address.host, address.port))
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise BindError(address, reason, label) from error
        yield made


def listen(listener: socket.socket, label: str) -> None:
    """Let peers come; raises BindError."""
    try:
        listener.listen(BACKLOG)
    except OSError as error:
        host, port = listener.getsockname()[:2]
        reason = error.strerror or str(error)
        raise BindError(Address(host, port), reason, label) from error


@contextlib.contextmanager
def page_socket(
    address: Address, journal: Journal, *, is_given: bool
) -> Iterator[socket.socket]:
    """Listen for the page; one that was not asked for has any port that is free.

    Nobody is answered before the server is ready. Raises BindError.
    """
    with contextlib.ExitStack() as stack:
        try:
            listener = stack.enter_context(_listening(address))
        except BindError as error:
            if is_given:
                raise
            journal.say(entries.page_moved(address=str(error.address)))
            listener = stack.enter_context(_listening(Address(address.host, 0)))
        yield listener


@contextlib.contextmanager
def _listening(address: Address) -> Iterator[socket.socket]:
    with bound(address, HTTP) as listener:
        listen(listener, HTTP)
        yield listener
