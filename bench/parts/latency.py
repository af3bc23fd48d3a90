"""A lone vote's round trip: sent once the last one's output has come.

Beside the bare server, Redis that flushes before each answer, and the least that any
such program must do: one LMDB commit of a block with one vote in it.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import lmdb

from alphabet.trial.figure import ALPHABET, quantile
from alphabet.trial.output_check import WrongOutputError
from alphabet.trial.self_bench import connected, exchange, measure_round_trips
from bench.bare import driver
from bench.case import Case, Value
from bench.peers import redis
from bench.plan import Plan
from bench.subjects import BARE

LMDB = "bare LMDB commit"
BLOCK_BYTES = 65
"""About the size of a block with one vote in it."""
MICROSECONDS = 1_000_000
QUANTILES = {500: "p50", 990: "p99", 999: "p99.9"}
"""Parts in a thousand, and what they are called."""


@contextmanager
def cases(plan: Plan) -> Iterator[list[Case]]:
    """Give a case for each subject."""
    count = plan.round_trips
    yield [
        _case(ALPHABET, lambda place: measure_round_trips(place, count)),
        _case(LMDB, lambda place: _commits(place, count)),
        _case(BARE, lambda place: _bare_trips(place, count)),
        _case("Redis HINCRBY", lambda place: _redis_trips(place, count)),
    ]


def name_of(quantile_name: str) -> str:
    """Name a figure."""
    return f"a lone vote's round trip, {quantile_name}"


def _case(subject: str, samples: Callable[[Path], list[float]]) -> Case:
    def measure(place: Path) -> Iterable[Value]:
        seconds = samples(place)
        for permille, name in QUANTILES.items():
            number = MICROSECONDS * quantile(seconds, permille)
            yield Value(name_of(name), "µs", number, subject)

    return Case(f"lone votes: {subject}", measure)


def _commits(place: Path, count: int) -> list[float]:
    samples = []
    value = bytes(BLOCK_BYTES)
    with lmdb.open(str(place), map_size=1 << 30, lib_version=0) as environment:
        for number in range(count):
            began = time.perf_counter()
            with environment.begin(write=True) as transaction:
                transaction.put(number.to_bytes(8), value, append=True)
            samples.append(time.perf_counter() - began)
    return samples


def _bare_trips(place: Path, count: int) -> list[float]:
    with (
        driver.served(place, "lone") as (server, sink),
        connected(server.port) as connection,
    ):
        return exchange(connection, sink, count)


def _redis_trips(place: Path, count: int) -> list[float]:
    samples = []
    command = redis.increment("a", 1).encode()
    with redis.served(place) as server, server.connect() as connection:
        for total in range(1, count + 1):
            began = time.perf_counter()
            connection.sendall(command)
            answer = connection.recv(64)
            samples.append(time.perf_counter() - began)
            if answer != b":%d\r\n" % total:
                raise WrongOutputError("Redis has answered a wrong total")
    return samples
