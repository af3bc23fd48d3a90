"""A thread that lets the service manager know how the server is, while it serves.

The watchdog hears of us only while votes are counted and committed: see `pulse`. It
reads what the server measures and takes no lock that counting takes. The edge: a clock.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from alphabet.service.pulse import Pulse
from alphabet.service.service_manager import COUNTING
from alphabet.thread import start_thread

if TYPE_CHECKING:
    from alphabet.server import Server
    from alphabet.service.service_manager import ServiceManager

LOOKS_PER_TIMEOUT = 4
"""How often we look within the watchdog's time. What finds progress is told."""
STATUS_SECONDS = 1.0
LOOK_SECONDS_MIN = 0.01
"""How often we look at most, however impatient the watchdog is: votes come first."""


def supervise(server: Server, manager: ServiceManager) -> None:
    """Begin to tell; ends when the server stops. Nobody to tell, no thread."""
    if manager.is_there:
        start_thread("supervision", lambda: _supervise(server, manager))


def look_seconds(watchdog_seconds: float | None) -> float:
    """Give how long to wait between looks; None is a watchdog that waits for ever."""
    wanted = (watchdog_seconds or float("inf")) / LOOKS_PER_TIMEOUT
    return max(wanted, LOOK_SECONDS_MIN)


def _supervise(server: Server, manager: ServiceManager) -> None:
    pulse, status = Pulse(), COUNTING
    interval_seconds = look_seconds(manager.watchdog_seconds)
    look_at = time.monotonic()
    while not server.stopping.wait(min(interval_seconds, STATUS_SECONDS)):
        measures = server.measures
        new_status = measures.disk_full or COUNTING
        if new_status != status:
            status = new_status
            manager.tell(f"STATUS={status}")
        if time.monotonic() >= look_at:
            look_at = time.monotonic() + interval_seconds
            if pulse.beats(measures.turns, measures.commit_began):
                manager.tell("WATCHDOG=1")
