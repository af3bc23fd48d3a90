"""What comes to the page's port: a connection's bytes, and what must come back.

The parser, its bounds, the gate and the handlers are those that serve; the network is
memory, and so is the server that is looked at.
"""

import asyncio
import logging
import re
from types import SimpleNamespace
from typing import Any, cast

import attrs

from alphabet.journal.entries import Entry
from alphabet.standing import HistogramStanding, RestartStanding, Standing
from alphabet.totals_board import Totals
from alphabet.web.event_hub import EventHub
from alphabet.web.look import Look  # noqa: TC001 - named in a string, too
from alphabet.web.page_thread import page_runner
from alphabet.web.past import BusyError, Past
from alphabet.web.site import Site
from tests.fuzzing.script import pieces

OWN_HOST = "votes.example"
STATUSES = {100, 200, 304, 400, 404, 405, 417, 421, 503}
"""What may be answered: docs/HTTP.md has ours, 100 and 417 are for `Expect`."""
BARE = {100, 400, 417}
"""What aiohttp may answer by itself, to what never gets to the site."""
TURNS = 20
"""How often the loop turns behind each piece: more than an answer takes."""

# What a peer's request is like is no news: the server is silent about it too.
logging.getLogger("aiohttp").addHandler(logging.NullHandler())
logging.getLogger("aiohttp").propagate = False

_STATUS_LINE = re.compile(rb"HTTP/\d\.\d (\d{3}) [^\r\n]*\r\n")
_OWN_NAME = re.compile(
    rb"localhost|votes\.example|\d\.\d+\.\d|:[^\r\n]*:[^\r\n]*:", re.IGNORECASE
)
"""What a request must have in it somewhere to be for us: a name, or an address."""
_NO_TIMES = HistogramStanding((0,), 0.0)
_TOTALS = Totals(4, {b"a": 8, b"/": 2**64 - 1, b"\xe9": 4})
_STANDING = Standing(
    *("boot", "version", "alphabet", 1.0, 4, 4, 20, 4, 36, 1, {}, _NO_TIMES, _NO_TIMES),
    *(0, 1, (), (), RestartStanding(None, None, 4, 0.0, None), *(4096,) * 3),
)


@attrs.define(eq=False)
class _Journal:
    """Keeps what is no affair of a peer's: faults of ours."""

    errors: list[str] = attrs.Factory(list)

    def say(self, entry: Entry) -> None:
        self.errors.append(entry.text)


@attrs.frozen
class _Look:
    """A server that stands still, as `Look` shows it."""

    server: SimpleNamespace
    sequence: int = _TOTALS.sequence
    log_id: str = "id"
    has_totals: bool = True

    def totals(self) -> Totals:
        return _TOTALS

    def standing(self) -> Standing:
        return _STANDING


class _Past:
    """Knows every second moment, and is busy with the others."""

    async def totals_at(self, sequence: int) -> Totals:
        if sequence % 2:
            raise BusyError
        return Totals(sequence, _TOTALS.totals)


class _Wire(asyncio.Transport):
    """A connection whose answers are kept."""

    def __init__(self) -> None:
        super().__init__()
        self.answered = bytearray()
        self.is_closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.answered += data

    def is_closing(self) -> bool:
        return self.is_closed

    def close(self) -> None:
        self.is_closed = True

    abort = close

    def pause_reading(self) -> None:
        """Do nothing: a peer in memory is never too fast."""

    resume_reading = pause_reading


def http(data: bytes) -> None:
    """Any bytes get answers that are described, or none; no fault is ours."""
    plan = data[0] if data else 0
    faults: list[Any] = []
    answered = asyncio.run(_talk(data[1:], plan, faults))
    assert not faults, faults
    statuses = [int(status) for status in _STATUS_LINE.findall(answered)]
    assert STATUSES.issuperset(statuses), answered[:500]
    assert answered.startswith(b"HTTP/") or not answered
    ours = sum(status not in BARE for status in statuses)
    assert _OWN_NAME.search(data) or not {200, 304}.intersection(statuses)
    assert answered.count(b"Content-Security-Policy: default-src") >= ours


async def _talk(stream: bytes, plan: int, faults: list[Any]) -> bytes:
    """Be the peer of a connection; give all that came back."""
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: faults.append(context))
    journal = _Journal(faults)
    machine = SimpleNamespace(application="alphabet")
    server = SimpleNamespace(journal=journal, engine=SimpleNamespace(machine=machine))
    look = cast("Look", _Look(server))
    site = Site(look, EventHub(look), cast("Past", _Past()), frozenset({OWN_HOST}))
    runner = page_runner(site)
    await runner.setup()
    assert runner.server is not None
    protocol, wire = runner.server(), _Wire()
    protocol.connection_made(wire)
    for piece in pieces(stream, plan):
        protocol.data_received(piece)
        if plan > 1:
            await _turn(3)
        if wire.is_closed:
            break
    await _turn(TURNS)
    protocol.connection_lost(None)
    return bytes(wire.answered)


async def _turn(times: int) -> None:
    for _ in range(times):
        await asyncio.sleep(0)
