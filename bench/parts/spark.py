"""The way of votes to totals over many servers: exported, summed by Spark, and lagging.

All share this machine's cores. A rate leaves starting up out: it is told by what comes
after the first segment, or after a first batch as large as the next.
"""

import importlib
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs

from alphabet.trial.children import Children
from alphabet.trial.flood import Sending, sender
from alphabet.trial.measured_server import MeasuredServer
from alphabet.trial.output_check import WrongOutputError
from alphabet.trial.vote_load import Load, load_of
from bench.case import Case, MissingPeerError, Value
from bench.parts.servers import COUNTS
from bench.plan import Plan
from bench.processes import NANOSECONDS, processor_seconds
from bench.site import (
    Site,
    await_segments,
    fill_in_blocks,
)
from bench.spark_lag import Lag
from bench.spark_totals import SparkTotals, require_spark
from recovery.exporting.segment import Segment

LARGE = "large segments"
SMALL = "small segments"
SUMS = "sums"
LIVE = "lag"
EXPORT_SECONDS = 0.1
"""How often an exporter looks, where all that it exports is there at once."""
SEGMENT_VOTES = 1_000_000
WARM_UPS = (0, 0)
"""Java compiles what it runs often: as many votes as any stage has, and again."""
BLOCKS = 10
"""About how many blocks each segment has, where its size is what is measured."""

_SHARE = 5
_SMALL_SHARE = 100
_SUMS_SHARE = 20


def export_name(size: str) -> str:
    """Give the name of the figure of votes exported."""
    return f"export, {size}"


def room_name(size: str) -> str:
    """Give the name of the figure of a vote's room in Parquet."""
    return f"room in Parquet, {size}"


def sums_name(servers: int) -> str:
    """Give the name of the figure of votes summed."""
    return f"sums, {servers} server{'s' if servers > 1 else ''}"


def core_name(servers: int) -> str:
    """Give the name of the figure of votes summed in a second of processor time."""
    return f"a core's {sums_name(servers)}"


@contextmanager
def cases(plan: Plan) -> Iterator[list[Case]]:
    """Give a case for each size of segments, one for sums and one for the lag."""
    large = _Export(plan, LARGE, plan.votes // _SHARE, 20)
    small = _Export(plan, SMALL, plan.votes // _SMALL_SHARE, 100)
    yield [
        Case(export_name(LARGE), large.measure),
        Case(export_name(SMALL), small.measure),
        Case(SUMS, _Sums(plan).measure),
        Case(LIVE, Lag(plan).measure),
    ]


def _require_parquet() -> None:
    try:
        importlib.import_module("pyarrow")
    except ImportError as error:
        raise MissingPeerError("pyarrow is not installed") from error


@attrs.define
class _Export:
    """Exports a log of so many votes to so many segments; fills it at first."""

    plan: Plan
    size: str
    votes: int
    segments: int
    _data_dir: Path | None = None

    def measure(self, place: Path) -> Iterable[Value]:
        """Export the whole log; what a start takes is in the first segment's time."""
        _require_parquet()
        segment_votes = max(1, self.votes // self.segments)
        if self._data_dir is None:
            turn = max(1, segment_votes // BLOCKS)
            load = Load(turn, self.votes // turn)
            self._data_dir = fill_in_blocks(
                _made(self.plan.directory / self.size), self.plan, load
            )
            self.votes = load.votes
        site, segments = Site("one", self._data_dir), place / "segments"
        with (
            Children(place) as children,
            site.exported(children, segments, segment_votes, EXPORT_SECONDS) as child,
        ):
            files = await_segments(child, segments, self.votes)
        first, last = files[0].stat(), files[-1].stat()
        seconds = (last.st_mtime_ns - first.st_mtime_ns) / NANOSECONDS
        told = Segment.parse(files[0].name)
        votes = self.votes - (told.last_sequence if told else 0)
        room = sum(file.stat().st_size for file in files) / self.votes
        yield Value(export_name(self.size), "votes/s", votes / seconds)
        name = f"segments written, {self.size}"
        yield Value(name, "segments/s", (len(files) - 1) / seconds)
        yield Value(room_name(self.size), "bytes/vote", room)


@attrs.frozen
class _Stage:
    """Segments of some servers, ready to be summed, and what they add up to."""

    place: Path
    votes: int
    totals: dict[str, dict[str, int]]

    def hand_to(self, spark: SparkTotals) -> None:
        """Let all segments be there at once."""
        coming = spark.segments / ".coming"
        hidden = shutil.ignore_patterns(".*")
        shutil.copytree(self.place, coming, ignore=hidden, copy_function=os.link)
        coming.rename(spark.segments / self.place.name)


@attrs.define
class _Sums:
    """Sums segments of 1, 2 and 4 servers; makes them at first."""

    plan: Plan
    _stages: list[tuple[int, _Stage]] = attrs.Factory(list)

    def measure(self, place: Path) -> Iterable[Value]:
        """Sum each servers' segments, by one Spark that has summed as many before."""
        require_spark()
        _require_parquet()
        if not self._stages:
            self._stages = list(self._make(_made(self.plan.directory / SUMS)))
        counted = 0
        with (
            Children(place) as children,
            SparkTotals.running(children, place) as spark,
        ):
            for count, stage in self._stages:
                before = processor_seconds(spark.child.pid)
                began = time.perf_counter()
                stage.hand_to(spark)
                counted += stage.votes
                spark.await_votes(counted)
                seconds = time.perf_counter() - began
                used = processor_seconds(spark.child.pid) - before
                if count:
                    yield Value(sums_name(count), "votes/s", stage.votes / seconds)
                    rate = stage.votes / used
                    yield Value(core_name(count), "votes/s a core", rate)
                spark.check(stage.totals)

    def _make(self, place: Path) -> Iterator[tuple[int, _Stage]]:
        """Make the stages, by their numbers of servers; those of 0 warm up."""
        votes = self.plan.votes // _SUMS_SHARE
        with Children(place) as children:
            for stage_number, count in enumerate((*WARM_UPS, *COUNTS)):
                servers = count or 1
                sites = [
                    Site(name, place / name)
                    for name in (f"{stage_number}-{each}" for each in range(servers))
                ]
                loads = [
                    attrs.evolve(load_of(votes // servers), seed=seed)
                    for seed in range(servers)
                ]
                stage = _made(place / f"segments-{stage_number}")
                totals = {}
                for site, load in zip(sites, loads, strict=True):
                    _flood(children, site, load)
                    totals[site.name] = _exported(children, site, load, stage)
                yield count, _Stage(stage, sum(each.votes for each in loads), totals)


def _flood(children: Children, site: Site, load: Load) -> None:
    server = MeasuredServer.start(children, site.data_dir)
    with sender(Sending(load, server.port)) as sending:
        sending.go()
        sending.await_end()
    server.stop()


def _exported(
    children: Children, site: Site, load: Load, stage: Path
) -> dict[str, int]:
    """Export a server's log; give its totals, which must be the load's."""
    segments = stage / site.name
    with site.exported(children, segments, SEGMENT_VOTES, EXPORT_SECONDS) as child:
        await_segments(child, segments, load.votes)
    totals = site.totals(children)
    if totals != load.totals():
        raise WrongOutputError(
            f"the totals of {site.data_dir} are not what they must be"
        )
    return totals


def _made(place: Path) -> Path:
    place.mkdir()
    return place
