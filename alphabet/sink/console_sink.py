"""`--out -`: every new total as a line on standard output.

A sink like any other, but that it has no cursor: it starts at the log's end.
"""

import os
import select
import threading
import time

import attrs

from alphabet.journal import entries
from alphabet.journal.journal import Journal
from alphabet.network.waker import Waker
from alphabet.printing import OutputFormatError, format_outputs
from alphabet.sink.subscription import Subscription
from log.errors import LogError
from log.row import Cursor
from recovery.errors import RecoveryError

NAME = "-"
IDLE_SECONDS = 1.0


@attrs.define(eq=False)
class ConsoleSink:
    """Prints what is released; `run` is for a thread of its own."""

    start: int
    subscription: Subscription
    waker: Waker
    journal: Journal
    stopping: threading.Event
    descriptor: int = 1
    name: str = NAME
    cursor: Cursor | None = None
    floor: int | None = None
    is_connected: bool = attrs.field(default=True, init=False)
    fault: Exception | None = attrs.field(default=None, init=False)
    _drain_until: float | None = attrs.field(default=None, init=False)

    def wake(self) -> None:
        """Tell the sink's thread that something was released."""
        self.waker.wake()

    offer = wake

    def drain(self, until: float) -> None:
        """Print what is left, until a monotonic time, then end the thread."""
        self._drain_until = until
        self.waker.wake()

    def run(self) -> None:
        """Print until drained, or until nobody reads any more."""
        try:
            self._print_all()
        except (OSError, LogError, RecoveryError) as error:
            self.is_connected = False
            self.fault = error
            if not self.stopping.is_set():
                self.journal.say(entries.console_stopped(cause=str(error)))
        finally:
            self.subscription.feed.detach()

    def _print_all(self) -> None:
        self.subscription.begin(self.start)
        while not self._is_drained():
            outputs = self.subscription.next()
            if outputs is None:
                select.select([self.waker], [], [], IDLE_SECONDS)
                self.waker.clear()
                continue
            text = memoryview(_format(bytes(outputs.data)).encode())
            while text:
                text = text[os.write(self.descriptor, text) :]

    def _is_drained(self) -> bool:
        until = self._drain_until
        if until is None:
            return False
        return self.subscription.is_at_end or time.monotonic() >= until


def _format(data: bytes) -> str:
    """Write totals as lines; what is none, as the bytes it is."""
    try:
        return format_outputs(data)
    except OutputFormatError:
        return f"{data!r}\n"
