"""What `alphabet bench` measures: a flood, lone votes, restarts; real processes.

Each `measure_…` function is one run in a directory of its own. All that the server
sends is compared with what it must be.
"""

from __future__ import annotations

import json
import shutil
import socket
import struct
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from alphabet.trial.children import Children
from alphabet.trial.figure import Figure, quantile
from alphabet.trial.flood import HOST, OutputBuffer, Sending, receive, sender
from alphabet.trial.measured_server import (
    MeasuredServer,
    describe_log,
    served_with_sink,
)
from alphabet.trial.output_check import WrongOutputError, check_all
from alphabet.trial.vote_load import OUTPUT_BYTES, load_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from alphabet.trial.vote_load import Load

SNAPSHOT_NEVER = 1 << 62
MILLISECONDS = 1000.0
LONE_VOTE = struct.pack(">IsI", 5, b"a", 1)


@attrs.frozen
class Plan:
    """How much is measured, and how often.

    Attributes:
        votes: How many votes a flood has, and the log that servers are restarted on.
        round_trips: How many lone votes are sent.
        runs: How often each is measured.
    """

    votes: int
    round_trips: int
    runs: int


@attrs.frozen
class Flood:
    """One flood: from the first vote sent to the last output received."""

    votes: int
    seconds: float
    bytes_per_vote: float

    @property
    def votes_per_second(self) -> float:
        """The rate, end to end."""
        return self.votes / self.seconds


def measure_flood(place: Path, load: Load, buffer: OutputBuffer) -> Flood:
    """Flood a new server; every output is received and checked, all are durable."""
    outputs = buffer.view(load.output_bytes)
    data_dir = place / "data"
    with Children(place) as children:
        with (
            served_with_sink(children, data_dir) as (server, sink),
            sender(Sending(load, server.port)) as sending,
        ):
            began = time.perf_counter()
            sending.go()
            receive(sink, outputs)
            seconds = time.perf_counter() - began
            sending.await_end()
        log = describe_log(children, data_dir)
    check_all(load, outputs)
    return Flood(load.votes, seconds, log["bytes"] / log["events"])


def measure_round_trips(place: Path, count: int) -> list[float]:
    """Send lone votes, each once the last one's output has come; give seconds."""
    with (
        Children(place) as children,
        served_with_sink(children, place / "data") as (server, sink),
        connected(server.port) as connection,
    ):
        return exchange(connection, sink, count)


@contextmanager
def connected(port: int) -> Iterator[socket.socket]:
    """Give a connection that sends each write at once."""
    with socket.create_connection((HOST, port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield connection


def exchange(connection: socket.socket, sink: socket.socket, count: int) -> list[float]:
    """Send votes for one letter, one by one; give each round trip's seconds.

    Raises:
        WrongOutputError: An output is not the next total.
    """
    samples = []
    for total in range(1, count + 1):
        began = time.perf_counter()
        connection.sendall(LONE_VOTE)
        output = sink.recv(OUTPUT_BYTES, socket.MSG_WAITALL)
        samples.append(time.perf_counter() - began)
        if output != struct.pack(">IsQ", 9, b"a", total):
            raise WrongOutputError(f"output {total} is not what it must be")
    return samples


def fill(place: Path, load: Load, *words: object) -> Path:
    """Make a log with all of a load's votes, and end its server with SIGKILL."""
    data_dir = place / "filled"
    with Children(place) as children:
        server = MeasuredServer.start(children, data_dir, *words)
        with sender(Sending(load, server.port)) as sending:
            sending.go()
            sending.await_end()
        server.kill()
        words = ("recovery.cli", "state", data_dir, "--json")
        state = json.loads(children.run("state", *words))
    if state["totals"] != load.totals():
        raise WrongOutputError(f"the totals of {data_dir} are not what they must be")
    return data_dir


def measure_restart(place: Path, data_dir: Path) -> tuple[float, int]:
    """Start a server on a log and kill it: (seconds to ready, events replayed)."""
    with Children(place) as children:
        server = MeasuredServer.start(
            children, data_dir, "--snapshot-every", SNAPSHOT_NEVER
        )
        server.kill()
        return server.start_seconds, server.replayed


@contextmanager
def without_snapshots(data_dir: Path) -> Iterator[None]:
    """Leave a server nothing but the log, for a while."""
    snapshots, aside = data_dir / "snapshots", data_dir.parent / "snapshots.aside"
    snapshots.mkdir(exist_ok=True)  # A short log has none.
    snapshots.rename(aside)
    try:
        yield
    finally:
        shutil.rmtree(snapshots, ignore_errors=True)
        aside.rename(snapshots)


@contextmanager
def place_in(directory: Path) -> Iterator[Path]:
    """Give an empty directory for one run; nothing of it is left."""
    with tempfile.TemporaryDirectory(dir=directory) as name:
        yield Path(name)


@attrs.define
class SelfBench:
    """All measurements of one server; `say` is told what is being measured."""

    plan: Plan
    directory: Path
    say: Callable[[str], None]
    _values: dict[tuple[str, str], list[float]] = attrs.field(factory=dict, init=False)

    def run(self) -> list[Figure]:
        """Measure everything in turns, so that a moment's trouble hits each alike."""
        load, buffer = load_of(self.plan.votes), OutputBuffer()
        self.say(f"filling a log with {load.votes:,} votes")
        data_dir = fill(self.directory, load)
        for run in range(1, self.plan.runs + 1):
            self.say(f"run {run} of {self.plan.runs}")
            with place_in(self.directory) as place:
                self._note_flood(measure_flood(place, load, buffer))
            with place_in(self.directory) as place:
                self._note_trips(measure_round_trips(place, self.plan.round_trips))
            self._note_restarts(data_dir)
        return [Figure(*key, values) for key, values in self._values.items()]

    def _note(self, name: str, unit: str, value: float) -> None:
        self._values.setdefault((name, unit), []).append(value)

    def _note_flood(self, flood: Flood) -> None:
        name = "one sender, every output received and checked"
        self._note(name, "votes/s", flood.votes_per_second)
        self._note("log on disk", "bytes/vote", flood.bytes_per_vote)

    def _note_trips(self, seconds: list[float]) -> None:
        for permille in (500, 990, 999):
            name = f"a lone vote's round trip, p{permille / 10:g}"
            self._note(name, "ms", MILLISECONDS * quantile(seconds, permille))

    def _note_restarts(self, data_dir: Path) -> None:
        with place_in(self.directory) as place:
            seconds, _ = measure_restart(place, data_dir)
        self._note("ready again after SIGKILL", "s", seconds)
        with place_in(self.directory) as place, without_snapshots(data_dir):
            seconds, replayed = measure_restart(place, data_dir)
        name = f"the same without a snapshot, {replayed:,} votes replayed"
        self._note(name, "s", seconds)
