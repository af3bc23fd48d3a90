"""The real server under a wall clock that jumps, as libfaketime has it.

Monotonic time goes on as ever: what waits, pings or gives up goes by that.
"""

import contextlib
import http.client
import json
import math
import random
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from log.directory import DataDirectory
from tests.inspection import last_sequence, records, totals, verify
from tests.process import ANY, SECONDS_MAX, Server, replay, serving, submit
from tests.receiving import Receiver
from tests.votes import OUTPUT_BYTES, make_votes, outputs, payloads, tally, wire

VOTES = make_votes(random.Random(11), 1000)
NOW, LONG_AGO, FAR_AHEAD, BEFORE_ALL_TIME = "+0", "-3650d", "+36500d", "-36500d"
YESTERDAY, IN_TEN_YEARS = "-1d", "+3650d"
BETWEEN = "2100-01-01"
"""A moment that lies behind now, and before what is far ahead."""

Clock = Callable[[str], None]


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    """Give what sets the servers' clock, so far from the real one."""
    file = tmp_path / "clock"

    def put(offset: str) -> None:
        fresh = file.with_suffix(".new")
        fresh.write_text(offset)
        fresh.rename(file)

    put(NOW)
    return put


def clocked(place: Path) -> dict[str, str]:
    """Give the variables by which a server looks at the clock in `place`."""
    [library] = Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")
    return {
        "LD_PRELOAD": str(library),
        "FAKETIME_TIMESTAMP_FILE": str(place / "clock"),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }


def block_times(place: Path) -> list[int]:
    """Give the time of each block, in ns since 1970."""
    with closing(DataDirectory(place / "data").open_log(is_read_only=True)) as log:
        return [block.time_ns for block in log.read(0)]


def test_it_jumps(tmp_path: Path, clock: Clock) -> None:
    """Times never go back, nothing else takes note, and the past can be asked for."""
    with (
        Receiver() as receiver,
        serving(
            tmp_path,
            *("--out", receiver.address, "--snapshot-every", 500),
            variables=clocked(tmp_path),
        ) as server,
    ):
        for offset in (NOW, LONG_AGO, FAR_AHEAD, NOW):
            clock(offset)
            assert submit(server.port, wire(VOTES))
        receiver.wait_bytes(4 * len(VOTES) * OUTPUT_BYTES)
        assert receiver.connections == [outputs(VOTES * 4)]
        assert server.stop() == 0
    times = block_times(tmp_path)
    assert times == sorted(times)
    assert times[-1] - times[0] > 0
    assert records(tmp_path) == payloads(VOTES * 4)
    assert verify(tmp_path)["ok"]
    assert totals(tmp_path, "--at", BETWEEN) == tally(VOTES * 2)
    assert totals(tmp_path) == tally(VOTES * 4)


def odd(found: object) -> list[object]:
    """Give the numbers within a document that are negative or no numbers."""
    if isinstance(found, dict | list):
        parts = found.values() if isinstance(found, dict) else found
        return [each for part in parts for each in odd(part)]
    is_odd = isinstance(found, float | int) and not 0 <= found < math.inf
    return [found] if is_odd else []


def test_the_page_while_it_jumps(tmp_path: Path, clock: Clock) -> None:
    """No rate, age or time on the page is negative or no number, and all goes on."""
    variables = clocked(tmp_path)
    words = ("--http", ANY, "--snapshot-every", 500)
    with (
        serving(tmp_path, *words, variables=variables) as server,
        contextlib.closing(page_of(server)) as asking,
        contextlib.closing(page_of(server)) as watching,
    ):
        watching.request("GET", "/events")
        events = watching.getresponse()
        for offset in (YESTERDAY, IN_TEN_YEARS):
            clock(offset)
            assert submit(server.port, wire(VOTES))
            assert odd(next_second(events)) == []
            asking.request("GET", "/status")
            status = json.load(asking.getresponse())
            assert odd(status) == []
            asking.request("GET", "/metrics")
            metrics = asking.getresponse().read().decode().splitlines()
            samples = [line for line in metrics if not line.startswith("#")]
            assert odd([float(line.split()[-1]) for line in samples]) == []


def page_of(server: Server) -> http.client.HTTPConnection:
    """Give a connection to a server's page."""
    [line] = [each for each in server.lines() if each.startswith("listening http ")]
    return http.client.HTTPConnection(line.split()[-1], timeout=SECONDS_MAX)


def next_second(events: http.client.HTTPResponse) -> object:
    """Give the next event that tells of a second."""
    until = time.monotonic() + SECONDS_MAX
    while events.readline() != b"event: second\n":
        assert time.monotonic() < until, "in vain: a second's event"
    data = events.readline().removeprefix(b"data: ")
    return json.loads(data)


def test_it_jumps_while_the_server_is_away(tmp_path: Path, clock: Clock) -> None:
    """A restart under another time replays the same and goes on after it."""
    for number, each in enumerate((FAR_AHEAD, LONG_AGO)):
        clock(each)
        with serving(tmp_path, variables=clocked(tmp_path)) as server:
            assert last_sequence(tmp_path) == number * len(VOTES)
            assert submit(server.port, wire(VOTES))
            server.kill()
    times = block_times(tmp_path)
    assert times == sorted(times)
    assert totals(tmp_path) == tally(VOTES * 2)


def test_a_clock_that_was_never_set(tmp_path: Path, clock: Clock) -> None:
    """A log begun before 1970 has its first time there, and is as sound as any."""
    clock(BEFORE_ALL_TIME)
    with serving(tmp_path, variables=clocked(tmp_path)) as server:
        assert submit(server.port, wire(VOTES + VOTES[:1]) + b"\0\0\0\3abc")
        assert server.stop() == 0
    assert set(block_times(tmp_path)) == {0}
    assert verify(tmp_path)["ok"]
    done = replay("info", tmp_path / "data", "--json")
    assert done.code == 0, done.stderr
    assert json.loads(done.stdout)["events"]
