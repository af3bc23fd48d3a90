"""`alphabet spark-totals` under measurement: a process, its batches and its totals.

Only what any user has of it is used: its lines, its files and its frames.
"""

import json
import re
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import attrs

from alphabet.spark.query import SparkError, check_installed
from alphabet.trial.children import POLL_SECONDS, Child, ChildError, Children
from alphabet.trial.flood import SECONDS_MAX
from alphabet.trial.output_check import WrongOutputError
from bench.case import MissingPeerError

EVERY_SECONDS = 0.1
"""How often it looks for segments: as often as it can."""

_BATCH = re.compile(
    r"batch \d+: \d+ segments, (?P<votes>\d+) votes in \S+ s \(\S+/s\), "
    r"newest (?P<lag>\S+) s old\n"
)


@attrs.frozen
class Batch:
    """What the command says of a batch; `lag` is its newest vote's age, in seconds."""

    votes: int
    lag: float


def read_batches(text: str) -> list[Batch]:
    """Read the batches that have votes in what the command has said so far."""
    return [
        Batch(int(found["votes"]), float(found["lag"]))
        for found in _BATCH.finditer(text)
    ]


def votes_of(batches: Sequence[Batch]) -> int:
    """Add up their votes."""
    return sum(each.votes for each in batches)


def require_spark() -> None:
    """Raise MissingPeerError where Spark cannot run."""
    try:
        check_installed()
    except SparkError as error:
        raise MissingPeerError(str(error)) from error


@attrs.frozen
class SparkTotals:
    """The command, at work on `segments`; its totals go to `place / "totals"`."""

    place: Path
    segments: Path
    child: Child

    @classmethod
    @contextmanager
    def running(
        cls, children: Children, place: Path, *words: object
    ) -> Iterator["SparkTotals"]:
        """Run the command meanwhile; then end it in good order.

        Raises:
            MissingPeerError: Spark is not installed here.
        """
        require_spark()
        segments = place / "segments"
        segments.mkdir()
        child = children.start(
            "spark-totals",
            *("alphabet.cli", "spark-totals", "--segments", segments),
            *("--checkpoint", place / "checkpoint"),
            *("--every-seconds", EVERY_SECONDS),
            *("--sink", f"files:{place / 'totals'}", *words),
        )
        found = cls(place, segments, child)
        yield found
        found.child.signal(signal.SIGTERM)
        code = found.child.await_end(SECONDS_MAX)
        if code:
            raise ChildError(f"spark-totals ended with exit code {code}")

    def batches(self) -> list[Batch]:
        """Give the batches so far."""
        return read_batches(self.child.errors.read_text(encoding="utf-8"))

    def await_votes(self, votes: int) -> list[Batch]:
        """Wait until so many are counted, and give all batches; raises ChildError."""
        deadline = time.monotonic() + SECONDS_MAX
        while votes_of(found := self.batches()) < votes:
            self.child.require_alive()
            if time.monotonic() > deadline:
                raise ChildError(f"spark-totals has not counted {votes} votes")
            time.sleep(POLL_SECONDS)
        return found

    def check(self, servers: dict[str, dict[str, int]]) -> None:
        """Hold the newest totals to those of these servers; raises WrongOutputError."""
        *_, newest = sorted((self.place / "totals").glob("[0-9]*.json"))
        told = json.loads(newest.read_text(encoding="utf-8"))["servers"]
        for name, totals in servers.items():
            if told.get(name) != totals:
                raise WrongOutputError(f"the totals of server {name} are not its own")
