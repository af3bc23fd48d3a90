"""`alphabet spark-totals`: the totals of many servers, by Spark."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from alphabet.command_line import CannotServeError, DamageError, option
from alphabet.journal import entries
from alphabet.loading import ApplicationError, load_machine, offline_arguments
from alphabet.spark.account import RefusedError
from alphabet.spark.checkpoint import Checkpoint, CheckpointError
from alphabet.spark.counting import Counted, Counting
from alphabet.spark.fold import Fold, FoldError
from alphabet.spark.folding import Folding
from alphabet.spark.output_sinks import of_outputs
from alphabet.spark.outputs_file import OutputsFile
from alphabet.spark.query import SparkError, TotalsQuery, check_installed, session
from alphabet.spark.segment_files import SegmentFiles
from alphabet.spark.sinks import ConsoleSink, Sink, SinkError, parse_sink
from recovery.errors import StateError

if TYPE_CHECKING:
    from collections.abc import Iterator

_US_PER_SECOND = 1_000_000


class _SinkType(click.ParamType["Sink"]):
    """An option's value `console`, `files:DIR` or `tcp:HOST:PORT`."""

    name = "SINK"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> Sink:
        """Make a sink."""
        if not isinstance(value, str):
            return value  # type: ignore[return-value]  # made already
        try:
            return parse_sink(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


@click.command()
@option(
    "--segments",
    metavar="DIR",
    type=click.Path(path_type=Path),
    required=True,
    help="Holds the segments of all servers, a directory below it for each.",
)
@option(
    "--checkpoint",
    metavar="DIR",
    type=click.Path(path_type=Path),
    required=True,
    help="Holds what is counted; made where it is missing.",
)
@option(
    "--sink",
    "sinks",
    metavar="console|files:DIR|tcp:HOST:PORT",
    type=_SinkType(),
    multiple=True,
    help="Where new totals go; may be given again.  [default: console]",
)
@option(
    "--available-now",
    is_flag=True,
    help="End when all segments that are there are counted.",
)
@option(
    "--every-seconds",
    metavar="SECONDS",
    type=click.FloatRange(min=0.1, max=86400),
    default=1.0,
    show_default=True,
    help="How often to look for new segments, at most.",
)
@option(
    "--master",
    metavar="URL",
    default="local[*]",
    show_default=True,
    help="Spark's master: here, or spark://HOST:PORT of a cluster.",
)
@option(
    "--application-module",
    metavar="NAME",
    help="Compute with this module's application, and send its outputs instead of "
    "sums.  [default: sums]",
)
def spark_totals(  # noqa: PLR0913 - an argument for each option
    *,
    segments: Path,
    checkpoint: Path,
    sinks: tuple[Sink, ...],
    available_now: bool,
    every_seconds: float,
    master: str,
    application_module: str | None,
) -> None:
    """Add up the votes of many servers with Spark, each vote once.

    Segments are what `alphabet-replay export --follow` writes for each server. Every
    batch is a line on standard error, and so is each server that lacks events before
    its last. After any crash the same command goes on where it was. A segment that
    would count a sequence of a server again is refused.
    """
    wanted = sinks or (ConsoleSink(),)
    files = SegmentFiles(segments.resolve())
    with _told(), _stopped_by_signals() as stop:
        check_installed()
        folding = None
        if application_module is not None:
            fold = _load_fold(application_module)
            outputs = OutputsFile.of(checkpoint)
            folding = Folding(fold, files, outputs, _say)
            wanted = tuple(of_outputs(sink, outputs) for sink in wanted)
        with Checkpoint.claim(checkpoint, _readable(segments)) as claimed:
            counting = Counting(files, claimed, wanted, _say, folding)
            counting.begin()
            with session(master, claimed.spark_log) as spark:
                query = TotalsQuery(spark, counting, _tell)
                query.run(stop, None if available_now else every_seconds)
        counting.end()


def _load_fold(module_name: str) -> Fold:
    """Load an application; raises ApplicationError, FoldError."""
    fold = Fold(load_machine(module_name, offline_arguments(1)))
    for state in fold.machine.pickled:
        _say(entries.state_pickled(state=state).text)
    return fold


def _readable(segments: Path) -> Path:
    """Give the directory of segments; raises CannotServeError unless it can be read."""
    try:
        next(segments.iterdir(), None)
    except OSError as error:
        reason = error.strerror or error
        raise CannotServeError(f"{segments}: it cannot be read: {reason}") from error
    return segments


@contextlib.contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except RefusedError as error:
        raise DamageError(str(error)) from error
    except (
        ApplicationError,
        CheckpointError,
        FoldError,
        SinkError,
        SparkError,
        StateError,
    ) as error:
        raise CannotServeError(str(error)) from error


@contextlib.contextmanager
def _stopped_by_signals() -> Iterator[threading.Event]:
    """Set an event at SIGINT or SIGTERM: the batch under way is ended first."""
    stop = threading.Event()
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {n: signal.signal(n, lambda *_: stop.set()) for n in numbers}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _tell(batch: int, counted: Counted, seconds: float) -> None:
    if counted.newest_us is None:
        return _say(f"batch {batch}: nothing new")
    lag = max(0.0, time.time() - counted.newest_us / _US_PER_SECOND)
    rate = counted.events / seconds
    return _say(
        f"batch {batch}: {counted.segments} segments, {counted.events} votes in "
        f"{seconds:.2f} s ({rate:,.0f}/s), newest {lag:.1f} s old"
    )


def _say(line: str) -> None:
    click.echo(line, err=True)
