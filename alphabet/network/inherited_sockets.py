"""Sockets that listen already, handed over by the service manager that started us.

The protocol is that of sd_listen_fds(3): LISTEN_FDS file descriptors from 3 on, for the
process LISTEN_PID, with names in LISTEN_FDNAMES. A name is the option that such an
address would be given with, without its dashes: `in`, `connector-in` or `http`; the
first two may say which pipeline, as in `votes@in`. Such a socket outlives the server:
who connects meanwhile waits in its backlog. The edge: file descriptors.
"""

import os
import socket
from collections.abc import MutableMapping, Sequence

import attrs

FIRST_DESCRIPTOR = 3
LABELS = ("in", "connector-in", "http")
DESCRIPTORS_MAX = 1000
"""More than anybody hands over: past it, LISTEN_FDS is a mistake."""
_DIGITS_MAX = len(str(DESCRIPTORS_MAX))

_NAMES = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")


class InheritedSocketError(ValueError):
    """Sockets handed over that we have no use for; says how it is done."""


@attrs.frozen
class InheritedName:
    """What a socket is for: an option's name, and the pipeline if one was named."""

    label: str
    pipeline: str | None = None


@attrs.frozen(eq=False)
class InheritedSocket:
    """A socket that listens, and what for."""

    name: InheritedName
    socket: socket.socket


def parse_names(pid: str, count: str, names: str, own_pid: int) -> list[InheritedName]:
    """Read the three variables: what each descriptor is for, from the first on.

    Nothing, if they are another process's. Raises InheritedSocketError.
    """
    if not count or pid != str(own_pid):
        return []
    is_number = count.isascii() and count.isdecimal() and len(count) <= _DIGITS_MAX
    if not is_number or int(count) > DESCRIPTORS_MAX:
        raise InheritedSocketError(f"LISTEN_FDS is no number of sockets: {count!r}")
    words = names.split(":") if names else []
    if len(words) != int(count):
        raise InheritedSocketError(
            f"{count} sockets were handed over, with {len(words)} names: give each a "
            f"FileDescriptorName ({', '.join(LABELS)})"
        )
    parsed = [_parse_name(word) for word in words]
    if sum(each.label == "http" for each in parsed) > 1:
        raise InheritedSocketError("the page has one place: hand over one http socket")
    return parsed


def _parse_name(word: str) -> InheritedName:
    pipeline, at, label = word.rpartition("@")
    if label not in LABELS or (at and (not pipeline or label == "http")):
        raise InheritedSocketError(
            f"a socket named {word!r} was handed over: its FileDescriptorName must be "
            f"one of {', '.join(LABELS)}"
        )
    return InheritedName(label, pipeline or None)


def take_inherited(environ: MutableMapping[str, str]) -> Sequence[InheritedSocket]:
    """Take what was handed over, and the variables, so that no child takes them too.

    Raises InheritedSocketError, also for what is no socket that listens for TCP.
    """
    pid, count, names = (environ.pop(name, "") for name in _NAMES)
    parsed = parse_names(pid, count, names, os.getpid())
    return [
        InheritedSocket(name, _open(descriptor))
        for descriptor, name in enumerate(parsed, FIRST_DESCRIPTOR)
    ]


def _open(descriptor: int) -> socket.socket:
    try:
        opened = socket.socket(fileno=descriptor)
        accepts = opened.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as error:
        raise InheritedSocketError(
            f"file {descriptor} that was handed over is no socket: {error.strerror}"
        ) from error
    if opened.family not in {socket.AF_INET, socket.AF_INET6} or not accepts:
        opened.close()
        raise InheritedSocketError(
            f"file {descriptor} that was handed over does not listen for TCP: use "
            "ListenStream=, with an IP address or a port"
        )
    opened.set_inheritable(False)
    opened.settimeout(0)
    return opened
