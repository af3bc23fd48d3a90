"""Spark as far as a count may rely on it: batches of files that stay what they are.

A batch is planned, then given to be counted, then noted as done. What was planned and
not noted comes again after a crash, with the same files, less those that are gone.
"""

from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from pathlib import Path

import attrs
import pyarrow.parquet as pq

from alphabet.pipeline.machine import Machine
from alphabet.spark.account import Account, Row
from alphabet.spark.checkpoint import Checkpoint
from alphabet.spark.counting import Counting
from alphabet.spark.fold import Fold
from alphabet.spark.folding import Folding
from alphabet.spark.outputs_file import OutputsFile
from alphabet.spark.segment_files import SegmentFiles
from alphabet.spark.sinks import Sink
from tests.segments_made import TIME


def rows_of(path: Path, file: str) -> Iterator[Row]:
    """Give a file's rows as Spark sums them."""
    found = pq.read_table(path / file).to_pylist()
    for letter in sorted({each["letter"] for each in found}):
        own = [each for each in found if each["letter"] == letter]
        yield Row(
            file,
            own[0]["server"],
            letter,
            Decimal(sum(each["counted"] for each in own)),
            min(each["sequence"] for each in own),
            max(each["sequence"] for each in own),
            len(own),
            int(TIME.timestamp() * 1_000_000),
        )


@attrs.define
class SparkModel:
    """What Spark's own checkpoint knows.

    `machine` makes the application that each run computes with; None: sums alone.
    """

    segments: Path
    checkpoint: Path
    files_max: int = 2
    batches: list[list[str]] = attrs.Factory(list)
    done: int = 0
    said: list[str] = attrs.Factory(list)
    machine: Callable[[], Machine] | None = None

    def run(self, sinks: Sequence[Sink]) -> Account:
        """Count all that is there, as one run of the command does."""
        files = SegmentFiles(self.segments)
        with Checkpoint.claim(self.checkpoint, self.segments) as checkpoint:
            say = self.said.append
            counting = Counting(files, checkpoint, sinks, say, self._folding(files))
            counting.begin()
            while self._plan(files):
                batch = self.batches[self.done]
                rows = [
                    row
                    for file in batch
                    if (self.segments / file).exists()
                    for row in rows_of(self.segments, file)
                ]
                counting.take(self.done, rows)
                self.done += 1
            counting.end()
            return checkpoint.account

    @property
    def outputs(self) -> OutputsFile:
        """Where the newest batch's outputs are."""
        return OutputsFile.of(self.checkpoint)

    def _folding(self, files: SegmentFiles) -> Folding | None:
        if self.machine is None:
            return None
        return Folding(Fold(self.machine()), files, self.outputs, self.said.append)

    def _plan(self, files: SegmentFiles) -> bool:
        if self.done < len(self.batches):
            return True
        known = {file for batch in self.batches for file in batch}
        new = sorted(set(files.files()) - known)[: self.files_max]
        if new:
            self.batches.append(new)
        return bool(new)
