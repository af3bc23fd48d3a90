"""From the start of a process to its readiness, on logs whose server was killed.

The page cache is warm: what a crash of the process leaves, not one of the power.
"""

import os
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs

from alphabet.trial.output_check import WrongOutputError
from alphabet.trial.self_bench import fill, measure_restart, without_snapshots
from alphabet.trial.vote_load import Load, load_of
from bench.bare import recount
from bench.case import Case, Value
from bench.peers import postgres, redis
from bench.plan import Plan, in_words
from bench.subjects import BARE

REPLAY_RATE = "replay from the first event"
RATE = "votes/s"
DIFFERENCE_SECONDS_MIN = 0.001
"""What two restarts differ by at least: less is noise, on logs too small to tell."""
REDIS = "Redis HINCRBY"
POSTGRES_SHARE = 50
REDIS_SHARE = 10


def ready_name(votes: int, *, has_snapshots: bool) -> str:
    """Name a figure."""
    words = "snapshots" if has_snapshots else "no snapshot"
    return f"ready after SIGKILL, {in_words(votes)}, {words}"


@contextmanager
def cases(plan: Plan) -> Iterator[list[Case]]:
    """Fill two logs, and give the restarts on them; peers fill theirs at first."""
    logs = {}
    for votes in (plan.votes // 10, plan.votes):
        place = plan.directory / f"log{votes}"
        place.mkdir()
        logs[votes] = fill(place, load_of(votes))
    bare = _Recount(plan.directory / "recount", load_of(plan.votes))
    of_redis = _RedisFile(plan.directory / "redis", plan.votes // REDIS_SHARE)
    of_postgres = _Cluster(plan.directory / "postgres", plan.votes // POSTGRES_SHARE)
    yield [
        Case("with snapshots", lambda place: _restart_all(place, logs)),
        Case("without snapshots", lambda place: _replay_all(place, logs)),
        Case(f"recount: {BARE}", bare.measure),
        Case("Redis loads its file", of_redis.measure),
        Case("PostgreSQL recovers", of_postgres.measure),
    ]


def _restart_all(place: Path, logs: dict[int, Path]) -> Iterable[Value]:
    for votes, data_dir in logs.items():
        seconds, _ = measure_restart(_inner(place, votes), data_dir)
        yield Value(ready_name(votes, has_snapshots=True), "s", seconds)


def _replay_all(place: Path, logs: dict[int, Path]) -> Iterable[Value]:
    """Replay both logs; the rate is their difference, which no start-up is part of."""
    took = {}
    for votes, data_dir in logs.items():
        with without_snapshots(data_dir):
            seconds, replayed = measure_restart(_inner(place, votes), data_dir)
        yield Value(ready_name(votes, has_snapshots=False), "s", seconds)
        took[replayed] = seconds
    (few, short), (many, long) = sorted(took.items())
    rate = (many - few) / max(long - short, DIFFERENCE_SECONDS_MIN)
    yield Value(REPLAY_RATE, RATE, rate)


def _inner(place: Path, votes: int) -> Path:
    inner = place / str(votes)
    inner.mkdir()
    return inner


@attrs.frozen
class _Recount:
    directory: Path
    load: Load

    def measure(self, place: Path) -> Iterable[Value]:
        """Count all votes of the bare log."""
        del place
        if not self.directory.exists():
            recount.fill(self.directory, self.load)
        began = time.perf_counter()
        totals = recount.recount(self.directory)
        seconds = time.perf_counter() - began
        found = {chr(code): int(total) for code, total in enumerate(totals) if total}
        if found != self.load.totals():
            raise WrongOutputError("the bare recount is wrong")
        yield Value(REPLAY_RATE, RATE, self.load.votes / seconds, BARE)


@attrs.frozen
class _RedisFile:
    directory: Path
    votes: int

    def measure(self, place: Path) -> Iterable[Value]:
        """Start on a file that has every HINCRBY."""
        del place
        load = load_of(self.votes)
        if not self.directory.exists():
            self.directory.mkdir()
            with redis.served(self.directory, flush="everysec") as server:
                redis.fill(server, load)
        with redis.served(self.directory) as server:
            redis.check_totals(server, load)
            seconds = server.start_seconds
        name = ready_name(load.votes, has_snapshots=False)
        yield Value(name, "s", seconds, REDIS)
        yield Value(REPLAY_RATE, RATE, load.votes / seconds, REDIS)


@attrs.frozen
class _Cluster:
    directory: Path
    votes: int

    def measure(self, place: Path) -> Iterable[Value]:
        """Start on a copy of a cluster that was ended at once."""
        original = self.directory / "cluster"
        if not self.directory.exists():
            self.directory.mkdir()
            self.directory.chmod(0o755)
            postgres.create(self.directory)
            with postgres.served(original) as server:
                form = postgres.Postgres(is_copy=True)
                form.flood_server(server, original, self.votes)
        copy = place / "cluster"
        # The copy must be on the disk: recovery flushes what is not.
        subprocess.run(["/bin/cp", "-a", original, copy], check=True)
        os.sync()
        with postgres.served(copy) as server:
            seconds = server.start_seconds
        name = f"ready after SIGQUIT, {in_words(self.votes)}"
        yield Value(name, "s", seconds, "PostgreSQL")
        yield Value(REPLAY_RATE, RATE, self.votes / seconds, "PostgreSQL")
