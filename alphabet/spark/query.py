"""The one module that knows Spark: a stream of segments, summed batch by batch.

Spark reads, sums each file by letter, wherever its workers are, and notes which files
each batch has; few rows come back, and the driver adds them to the account. Sums are
decimal(38,0), which no number of votes in a batch can pass.
"""

import contextlib
import logging
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from alphabet.spark.account import Row
from alphabet.spark.counting import Counted, Counting

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql.streaming import StreamingQuery

FILES_MAX = 1000
"""How many segments a batch has at most."""
_SCHEMA = (
    "server string, sequence long, letter string, votes long, counted long, "
    "time timestamp"
)
_POLL_SECONDS = 0.1
_LOCAL = "local"


class SparkError(Exception):
    """Spark is not there, did not start, or failed; says what to do."""


def check_installed() -> None:
    """Raise SparkError where pyspark or Java is missing."""
    try:
        import pyspark  # noqa: F401 - asked for, not used
    except ImportError as error:
        raise SparkError(
            "pyspark is not installed: pip install '.[spark]' in the checkout"
        ) from error
    home = os.environ.get("JAVA_HOME")
    java = Path(home, "bin", "java") if home else "java"
    if shutil.which(java) is None:
        raise SparkError(
            f"Spark needs Java 17 or newer, and {java} is not there: install one, as "
            "in `apt-get install openjdk-17-jre-headless`, or set JAVA_HOME"
        )


@contextlib.contextmanager
def session(master: str, spark_log: Path) -> "Iterator[SparkSession]":
    """Start Spark, and stop it in the end; raises SparkError.

    What Spark itself says goes to `spark_log`: the descriptor of standard error leads
    there while Java starts, which keeps it.
    """
    from pyspark.errors import PySparkException
    from pyspark.sql import SparkSession

    builder = SparkSession.builder.master(master).appName("alphabet spark-totals")
    for name, value in _settings(master).items():
        builder = builder.config(name, value)
    try:
        with _standard_error_in(spark_log), _interrupt_kept():
            log_in(spark_log)
            found = builder.getOrCreate()
    except (PySparkException, *_java_errors()) as error:
        raise SparkError(
            f"Spark did not start with master {master}: {spark_log} says why "
            "(it needs Java 17 or newer)"
        ) from error
    try:
        yield found
    finally:
        # Java may be gone before us, by the same signal.
        with contextlib.suppress(*_java_errors()):
            found.stop()


def log_in(spark_log: Path) -> None:
    """Let Python's side of Spark log to a file, from now on until the process ends.

    It has much to say where a signal to the whole group ended Java before us.
    """
    logging.basicConfig(filename=spark_log, level=logging.ERROR)


def _settings(master: str) -> dict[str, str]:
    settings = {
        "spark.log.level": "ERROR",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.shuffle.partitions": "4",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
    }
    if master.startswith(_LOCAL):
        settings["spark.driver.host"] = "127.0.0.1"
        settings["spark.driver.bindAddress"] = "127.0.0.1"
    return settings


def _java_errors() -> tuple[type[Exception], ...]:
    """Give what is raised where Java fails, is gone, or never came."""
    from py4j.protocol import Py4JError

    return (Py4JError, OSError)


@contextlib.contextmanager
def _interrupt_kept() -> Iterator[None]:
    """Keep what SIGINT does: pyspark would have it end a batch halfway."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


@contextlib.contextmanager
def _standard_error_in(file: Path) -> Iterator[None]:
    sys.stderr.flush()
    standard_error = 2
    kept = os.dup(standard_error)
    try:
        # Java keeps this descriptor, and is not the only one that writes.
        file.write_bytes(b"")
        with file.open("ab") as stream:
            os.dup2(stream.fileno(), standard_error)
        yield
    finally:
        os.dup2(kept, standard_error)
        os.close(kept)


@attrs.define
class TotalsQuery:
    """Spark's stream of segments, into a counting; `tell` hears of each batch.

    `tell` is called with the batch's number, what it added, and the seconds it took.
    """

    spark: "SparkSession"
    counting: Counting
    tell: Callable[[int, Counted, float], None]
    _failure: BaseException | None = None
    _turn: threading.Lock = attrs.Factory(threading.Lock)
    _is_over: bool = False

    def run(self, stop: threading.Event, every_seconds: float | None) -> None:
        """Count until all is counted (None), or look again and again until told.

        Raises what `Counting.take` raises, SparkError.
        """
        query = self._start(every_seconds)
        try:
            while not stop.wait(_POLL_SECONDS) and query.isActive:
                self._renew()
            with self._turn:
                self._is_over = True
            query.stop()
            error = query.exception()
        except _java_errors() as caught:
            if stop.is_set():
                return
            raise SparkError(
                f"Spark ended by itself: {self._log} may say why"
            ) from caught
        if self._failure is not None:
            raise self._failure
        if error is not None and not stop.is_set():
            self._explain()
            raise SparkError(f"Spark failed: {_first_line(error)}; see {self._log}")

    @property
    def _log(self) -> Path:
        return self.counting.checkpoint.spark_log

    def _start(self, every_seconds: float | None) -> "StreamingQuery":
        path = str(self.counting.segments.path.resolve())
        stream = (
            self.spark.readStream.schema(_SCHEMA)
            .option("recursiveFileLookup", "true")
            .option("pathGlobFilter", "*.parquet")
            # By default, files a week older than the newest are passed over.
            .option("maxFileAge", "36500d")
            .option("maxFilesPerTrigger", FILES_MAX)
            .parquet(path)
            .select("*", "_metadata.file_path")
        )
        trigger: dict[str, Any] = (
            {"availableNow": True}
            if every_seconds is None
            else {"processingTime": f"{round(every_seconds * 1000)} milliseconds"}
        )
        return (
            stream.writeStream.foreachBatch(self._take)
            .option("checkpointLocation", str(self.counting.checkpoint.spark.resolve()))
            .trigger(**trigger)
            .start()
        )

    def _renew(self) -> None:
        """Let the sinks look after their receivers, if no batch is under way."""
        if not self._turn.acquire(blocking=False):
            return
        try:
            self.counting.renew()
        except BaseException:
            self._is_over = True
            raise
        finally:
            self._turn.release()

    def _take(self, frame: "DataFrame", batch: int) -> None:
        began = time.monotonic()
        rows = self._sums(frame)
        with self._turn:
            if self._is_over:
                raise SparkError("it was stopped")
            try:
                counted = self.counting.take(batch, rows)
            except Exception as error:
                self._failure = error
                raise
            self.tell(batch, counted, time.monotonic() - began)

    def _sums(self, frame: "DataFrame") -> list[Row]:
        from pyspark.sql import functions as sql

        sums = frame.groupBy("file_path", "server", "letter").agg(
            sql.sum(sql.col("counted").cast("decimal(38,0)")),
            sql.min("sequence"),
            sql.max("sequence"),
            sql.count("*"),
            sql.max(sql.unix_micros("time")),
        )
        file_of = self.counting.segments.file_of
        return [Row(file_of(uri), *values) for uri, *values in sums.collect()]

    def _explain(self) -> None:
        """Raise RefusedError if a segment is why Spark failed."""
        for file in self.counting.segments.files():
            self.counting.segments.label(file)


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0][:200]
