"""The bounded queue between the sources and the engine.

Bounded in bytes: past the bound the sources stop reading, and TCP slows the senders.
What arrives while a commit is in flight gathers here and becomes the next batch.
"""

import threading
import time
from collections import deque
from collections.abc import Callable

import attrs

from alphabet.arrival import Arrival

ARRIVAL_BYTES = 64
"""What an arrival weighs beside its payloads, so that empty ones are bounded too."""


@attrs.define(eq=False)
class Inbox:
    """Arrivals in order, each with the bytes it weighs.

    `on_room` is called when the inbox has gone from full to not full. It is closed once
    each of so many `writers` has closed it. Of all that have `arrived`, the first so
    many as are `judged` were looked at by who took them.
    """

    bytes_max: int
    on_room: Callable[[], None] = lambda: None
    writers: int = 1
    _changed: threading.Condition = attrs.Factory(threading.Condition)
    _arrivals: deque[tuple[Arrival, int]] = attrs.field(factory=deque, init=False)
    _bytes: int = attrs.field(default=0, init=False)
    arrived: int = attrs.field(default=0, init=False)
    judged: int = attrs.field(default=0, init=False)
    _taken: int = attrs.field(default=0, init=False)
    _waiting_since: float | None = attrs.field(default=None, init=False)

    @property
    def bytes(self) -> int:
        """What all that waits weighs."""
        return self._bytes

    @property
    def waiting_since(self) -> float | None:
        """Since when something waits, in a monotonic clock's seconds; None: nothing."""
        return self._waiting_since

    @property
    def is_full(self) -> bool:
        """Say whether the sources must wait."""
        return self._bytes >= self.bytes_max

    @property
    def is_empty(self) -> bool:
        """Say whether nothing is waiting."""
        return not self._arrivals

    @property
    def is_done(self) -> bool:
        """Say whether all has been taken and nothing more will come."""
        return not self.writers and not self._arrivals

    def put(self, arrival: Arrival, payload_bytes: int) -> None:
        """Add an arrival; it is for the caller to heed `is_full`."""
        size = payload_bytes + ARRIVAL_BYTES
        with self._changed:
            if not self._arrivals:
                self._waiting_since = time.monotonic()
            self._arrivals.append((arrival, size))
            self._bytes += size
            self.arrived += 1

    def notify(self) -> None:
        """Wake the thread that waits: what was put is for it."""
        with self._changed:
            self._changed.notify()

    def wait(self, seconds: float) -> None:
        """Wait until something is there, the inbox is closed, or the time is up."""
        with self._changed:
            if not self._arrivals and self.writers:
                self._changed.wait(seconds)

    def take(self, bytes_max: int) -> list[Arrival]:
        """Take what is there, up to about `bytes_max` bytes."""
        taken: list[Arrival] = []
        size = 0
        with self._changed:
            was_full = self.is_full
            while self._arrivals and size < bytes_max:
                arrival, arrival_size = self._arrivals.popleft()
                taken.append(arrival)
                size += arrival_size
            self._bytes -= size
            self._taken += len(taken)
            # What is left came while a batch was in the making: it waits since now.
            self._waiting_since = time.monotonic() if self._arrivals else None
            has_room_again = was_full and not self.is_full
        if has_room_again:
            self.on_room()
        return taken

    def judge(self) -> None:
        """Note that what was taken so far is judged; for who takes."""
        self.judged = self._taken

    def close(self) -> None:
        """Say that nothing more will come from one of the writers."""
        with self._changed:
            self.writers = max(self.writers - 1, 0)
            self._changed.notify_all()
