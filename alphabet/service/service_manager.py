"""What the server tells the service manager that started it, such as systemd.

The protocol is that of sd_notify(3): datagrams of `NAME=value` lines to the socket that
NOTIFY_SOCKET names. Without one nothing is told, and nobody is waited for. A manager
that does not listen is named in the journal, once, and is no reason not to count. The
edge: a socket and a clock.
"""

import contextlib
import os
import socket
import time
from collections.abc import Iterator, MutableMapping
from typing import Self

import attrs

from alphabet.journal import entries
from alphabet.journal.journal import Journal

SEND_SECONDS_MAX = 0.2
"""How long a manager may leave its socket full, before it misses what we say."""
PROGRESS_SECONDS = 1.0
"""How often a long replay says how far it is."""
EXTEND_SECONDS = 60
"""How long a replay may go on from each of these words."""
COUNTING = "counting votes"

_DIGITS_MAX = 20
"""The longest number of microseconds: systemd's have 64 bits."""
_NAMES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")


def parse_notify_socket(text: str) -> bytes | None:
    """Read NOTIFY_SOCKET as an address: a path, or `@` and an abstract name.

    Gives None for what is neither, such as the address of a virtual machine's host.
    """
    address = os.fsencode(text)
    if len(address) > 1 and address[:1] in {b"/", b"@"}:
        return b"\0" + address[1:] if address[:1] == b"@" else address
    return None


def parse_watchdog(usec: str, pid: str, own_pid: int) -> float | None:
    """Read WATCHDOG_USEC: within how many seconds we must say that we are alive.

    Gives None if nobody waits for that, or it is another process that must.
    """
    if pid and pid != str(own_pid):
        return None
    is_number = usec.isascii() and usec.isdecimal() and len(usec) <= _DIGITS_MAX
    return int(usec) / 1e6 if is_number and int(usec) else None


@attrs.define(eq=False)
class ServiceManager:
    """Who waits to hear that the server is ready, busy or about to end; or nobody.

    Attributes:
        watchdog_seconds: Within which time it wants to hear from us, again and again;
            None if it does not.
    """

    journal: Journal
    watchdog_seconds: float | None = None
    _address: bytes | None = None
    _socket: socket.socket | None = attrs.field(default=None, init=False)
    _is_deaf: bool = attrs.field(default=False, init=False)
    _progress_at: float = attrs.field(default=0.0, init=False)

    @classmethod
    def find(cls, environ: MutableMapping[str, str], journal: Journal) -> Self:
        """Take from the environment who waits, so that our children tell nobody."""
        path, usec, pid = (environ.pop(name, "") for name in _NAMES)
        manager = cls(journal)
        if not path:
            return manager
        manager._address = parse_notify_socket(path)
        if manager._address is None:
            journal.say(entries.nobody_notified(path=path))
            return manager
        manager.watchdog_seconds = parse_watchdog(usec, pid, os.getpid())
        # One for good: where files have run out, there is still a way to say so.
        manager._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        manager._socket.settimeout(SEND_SECONDS_MAX)
        return manager

    @property
    def is_there(self) -> bool:
        """Say whether anybody waits."""
        return self._socket is not None

    def tell(self, *states: str) -> None:
        """Send states in one message, `NAME=value` each."""
        if self._socket is None or self._address is None:
            return
        message = "\n".join(" ".join(each.splitlines()) for each in states)
        try:
            self._socket.sendto(
                message.encode(errors="backslashreplace"), self._address
            )
        except OSError as error:
            if not self._is_deaf:
                self._is_deaf = True
                reason = error.strerror or str(error)
                self.journal.say(entries.manager_deaf(cause=reason))
        else:
            self._is_deaf = False

    def close(self) -> None:
        """Tell nothing more."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def replayed(self, sequence: int) -> None:
        """Say how far a replay is, now and then, so that it may take its time."""
        now = time.monotonic()
        if now >= self._progress_at:
            self._progress_at = now + PROGRESS_SECONDS
            self.tell(
                f"EXTEND_TIMEOUT_USEC={EXTEND_SECONDS * 1_000_000}",
                f"STATUS=replaying the log, at event {sequence}",
            )

    def ready(self) -> None:
        """Say that votes are counted."""
        self.tell("READY=1", f"STATUS={COUNTING}")

    @contextlib.contextmanager
    def reloading(self) -> Iterator[None]:
        """Say that configuration is read again, and when that is over."""
        usec = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self.tell("RELOADING=1", f"MONOTONIC_USEC={usec}")
        try:
            yield
        finally:
            self.tell("READY=1")

    def stopping(self) -> None:
        """Say that the server was told to end."""
        self.tell("STOPPING=1", "STATUS=stopping: committing what arrived")
