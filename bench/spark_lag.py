"""How far totals over many servers are behind their votes, while votes come."""

import socket
import statistics
import struct
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import attrs

from alphabet.trial.children import Children
from alphabet.trial.flood import HOST, SECONDS_MAX
from alphabet.trial.measured_server import MeasuredServer
from alphabet.trial.output_check import WrongOutputError
from alphabet.trial.self_bench import LONE_VOTE, connected
from alphabet.trial.vote_load import Load
from bench.case import Value
from bench.parts.servers import COUNTS
from bench.plan import Plan
from bench.site import Site
from bench.spark_totals import Batch, SparkTotals, require_spark, votes_of

LONE = "a lone vote to its global total"
VOTES_PER_SECOND = 100_000
"""The load of all servers together."""
SEGMENT_SECONDS = 1.0
"""How old a segment's first vote gets before it is written, under that load."""
LONE_SEGMENT_SECONDS = 0.1
"""The same for lone votes: as if they need not wait for a segment's end."""

_TURN_SECONDS = 0.05
_SECONDS = 4
"""How many times as long as a flood the load lasts."""
_TRIPS_SHARE = 500
_TRIPS_MIN = 3
_SEGMENT_VOTES = 1_000_000
_OUTPUT = struct.Struct(">IsQ")
_LETTER = b"A"
_VOTE = struct.pack(">IsI", 5, _LETTER, 1)


def lag_name(servers: int, which: str) -> str:
    """Give the name of the figure of the age of the newest vote counted."""
    return f"lag of {servers} server{'s' if servers > 1 else ''}, {which}"


@attrs.frozen
class Lag:
    """Loads 1, 2 and 4 servers, then sends lone votes to one, before one Spark."""

    plan: Plan

    def measure(self, place: Path) -> Iterable[Value]:
        """Measure the lag under load, then the time of lone votes."""
        require_spark()
        with (
            Children(place) as children,
            socket.create_server((HOST, 0)) as listener,
            SparkTotals.running(
                children, place, "--sink", f"tcp:{HOST}:{listener.getsockname()[1]}"
            ) as spark,
        ):
            for count in COUNTS:
                with _Sites.running(spark, children, count, SEGMENT_SECONDS) as sites:
                    lags = [each.lag for each in self._load(sites)]
                yield Value(lag_name(count, "median"), "s", statistics.median(lags))
                yield Value(lag_name(count, "highest"), "s", max(lags))
            with _Sites.running(spark, children, 0, LONE_SEGMENT_SECONDS) as sites:
                listener.settimeout(SECONDS_MAX)
                sink, _ = listener.accept()
                sink.settimeout(SECONDS_MAX)
                seconds = self._exchange(sites, sink)
                threading.Thread(target=_hear_out, args=(sink,), daemon=True).start()
        yield Value(f"{LONE}, median", "s", statistics.median(seconds))
        yield Value(f"{LONE}, lowest", "s", min(seconds))
        yield Value(f"{LONE}, highest", "s", max(seconds))

    def _load(self, sites: "_Sites") -> list[Batch]:
        """Send the load; give the batches that have counted it."""
        wanted = self.plan.flood_votes or int(
            VOTES_PER_SECOND * self.plan.seconds * _SECONDS
        )
        turn_votes = int(VOTES_PER_SECOND * _TURN_SECONDS)
        turns = max(1, wanted // turn_votes)
        load = Load(turn_votes // len(sites.connections), turns)
        frames = load.frames().tobytes()
        before = sites.spark.batches()
        began = time.perf_counter()
        for turn in range(load.turns):
            time.sleep(max(0.0, began + turn * _TURN_SECONDS - time.perf_counter()))
            for connection in sites.connections:
                connection.sendall(frames)
        votes = votes_of(before) + len(sites.connections) * load.votes
        return sites.spark.await_votes(votes)[len(before) :]

    def _exchange(self, sites: "_Sites", sink: socket.socket) -> list[float]:
        """Send votes one by one, each once the last one's total has come."""
        [connection] = sites.connections
        trips = max(_TRIPS_MIN, self.plan.round_trips // _TRIPS_SHARE)
        samples = []
        with sink.makefile("rb") as stream:
            for total in range(1, trips + 1):
                began = time.perf_counter()
                connection.sendall(_VOTE)
                found = None
                while found is None:
                    _, letter, number = _OUTPUT.unpack(stream.read(_OUTPUT.size))
                    found = number if letter == _LETTER else None
                samples.append(time.perf_counter() - began)
                if found != total:
                    raise WrongOutputError(f"global total {found} must be {total}")
        return samples


def _hear_out(sink: socket.socket) -> None:
    """Close once the other side has, which awaits that as its receipt."""
    with sink:
        while sink.recv(_OUTPUT.size):
            pass


@attrs.frozen
class _Sites:
    """Servers with their exporters, each with a vote counted, and connections."""

    spark: SparkTotals
    connections: list[socket.socket]

    @classmethod
    @contextmanager
    def running(
        cls, spark: SparkTotals, children: Children, count: int, every_seconds: float
    ) -> Iterator["_Sites"]:
        """Run servers and exporters meanwhile; 0 is one server, for lone votes.

        Raises:
            WrongOutputError: In the end the totals are not those of the servers.
        """
        names = [f"live-{count}-{number}" for number in range(count or 1)]
        sites = [Site(name, spark.place / name) for name in names]
        counted = votes_of(spark.batches())
        with ExitStack() as stack:
            servers = [MeasuredServer.start(children, each.data_dir) for each in sites]
            connections = [
                stack.enter_context(connected(each.port)) for each in servers
            ]
            for connection in connections:
                connection.sendall(LONE_VOTE)
            for site in sites:
                segments = spark.segments / site.name
                stack.enter_context(
                    site.exported(children, segments, _SEGMENT_VOTES, every_seconds)
                )
            spark.await_votes(counted + len(sites))
            yield cls(spark, connections)
        for server in servers:
            server.stop()
        spark.check({site.name: site.totals(children) for site in sites})
