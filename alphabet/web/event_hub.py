"""Everybody who watches: one look for all of them, at most four times a second.

A frame is made once and put into each client's bounded queue. A client that does not
keep up is dropped; it connects again and begins with a snapshot. Belongs to one event
loop.
"""

import asyncio
import time
from collections.abc import Iterator, Mapping

import attrs

from alphabet.web.documents import Document, as_strings, status_document
from alphabet.web.event_frames import HEARTBEAT, changed, event_frame, retry_frame
from alphabet.web.history import History
from alphabet.web.look import Look

CLIENTS_MAX = 64
"""How many may watch at once; another is asked to come later."""
FRAMES_MAX = 32
"""How many frames wait for a client before it is dropped: some seconds' worth."""
TICK_SECONDS = 0.25
TICKS_PER_SECOND = 4


@attrs.define(eq=False)
class Client:
    """One who watches: frames that wait for it; None is the end."""

    frames: asyncio.Queue[bytes | None] = attrs.field(
        factory=lambda: asyncio.Queue(FRAMES_MAX)
    )
    is_dropped: bool = False

    def give(self, frame: bytes | None) -> bool:
        """Queue a frame; say whether there was room."""
        try:
            self.frames.put_nowait(frame)
        except asyncio.QueueFull:
            self.is_dropped = True
        return not self.is_dropped


@attrs.define(eq=False)
class EventHub:
    """Looks at the server and tells the clients."""

    look: Look
    clients_max: int = CLIENTS_MAX
    history: History = attrs.Factory(History)
    _clients: set[Client] = attrs.field(factory=set, init=False)
    _told: Mapping[bytes, int] | None = attrs.field(default=None, init=False)
    _told_sequence: int = attrs.field(default=-1, init=False)

    @property
    def is_full(self) -> bool:
        """Say whether nobody more may watch."""
        return len(self._clients) >= self.clients_max

    def join(self) -> Client:
        """Let somebody watch: it gets all there is, then what changes."""
        client = Client()
        client.give(retry_frame() + event_frame("snapshot", self._snapshot(), self._id))
        self._clients.add(client)
        return client

    def leave(self, client: Client) -> None:
        """Forget a client."""
        self._clients.discard(client)

    async def run(self) -> None:
        """Look and tell, until cancelled."""
        tick = 0
        while True:
            if self._clients:
                self._tell(self._changes())
            if tick % TICKS_PER_SECOND == 0:
                self._note_second()
            tick += 1
            await asyncio.sleep(TICK_SECONDS)

    def close(self) -> None:
        """Send everybody away."""
        for client in self._clients:
            client.give(None)

    @property
    def _id(self) -> int | None:
        return self._told_sequence if self._told is not None else None

    def _snapshot(self) -> Document:
        """Tell all; the changes that follow are from what was told to everybody."""
        if not self._clients:
            self._told = None
            for _ in self._changes():
                pass
        return {
            "sequence": max(self._told_sequence, 0),
            "totals": None if self._told is None else as_strings(self._told),
            "has_totals": self.look.has_totals,
            "status": status_document(self.look.standing()),
            "history": [attrs.asdict(second) for second in self.history.seconds],
        }

    def _changes(self) -> Iterator[bytes]:
        """Give the frame that tells what changed, if something did."""
        totals = self.look.totals()
        if totals is None:
            return
        if self._told is not None and totals.sequence == self._told_sequence:
            return
        new = changed(self._told or {}, totals.totals)
        self._told, self._told_sequence = totals.totals, totals.sequence
        document = {"sequence": totals.sequence, "totals": as_strings(new)}
        yield event_frame("totals", document, totals.sequence)

    def _note_second(self) -> None:
        measures = self.look.server.measures
        took = []
        while measures.recent_commits:
            took.append(measures.recent_commits.popleft())
        now, wall = time.monotonic(), time.time()
        second = self.history.note(now, wall, measures.events, took)
        if self._clients:
            status = status_document(self.look.standing())
            document = {"second": attrs.asdict(second), "status": status}
            self._tell([event_frame("second", document), HEARTBEAT])

    def _tell(self, frames: Iterator[bytes] | list[bytes]) -> None:
        for frame in frames:
            dropped = [each for each in self._clients if not each.give(frame)]
            self._clients.difference_update(dropped)
