"""A batch of segments becomes an account, and sinks are told: no Spark in here.

A batch has a number and a set of files that Spark never changes. A batch that was
counted before a crash comes again, and then must have no file that is new to it.
"""

from collections.abc import Callable, Iterable, Sequence

import attrs

from alphabet.spark.account import Account, Addition, Row, format_missing
from alphabet.spark.checkpoint import Checkpoint, CheckpointError
from alphabet.spark.folding import Folding, check_no_application
from alphabet.spark.segment_files import SegmentFiles
from alphabet.spark.sinks import Sink
from log import failpoint


@attrs.frozen
class Counted:
    """What a batch added."""

    segments: int
    events: int
    newest_us: int | None


@attrs.define
class Counting:
    """Counts batch by batch; `say` is given lines about the totals' standing.

    `folding` is an application that computes what is counted, None for sums alone.
    """

    segments: SegmentFiles
    checkpoint: Checkpoint
    sinks: Sequence[Sink]
    say: Callable[[str], None]
    folding: Folding | None = None
    _said: set[str] = attrs.Factory(set)
    _lacking: list[str] = attrs.Factory(list)

    def begin(self) -> None:
        """Check what is there, and tell the sinks where the totals stand.

        Raises RefusedError, CheckpointError, SinkError, OSError, and of an application
        FoldError, StateError.
        """
        if self.folding is None:
            check_no_application(self.checkpoint.account)
        else:
            self.folding.begin(self.checkpoint.account)
        for _ in self.segments.files():
            pass
        self._check_newest()
        self._show()

    def take(self, batch: int, rows: Iterable[Row]) -> Counted:
        """Count a batch: its account is durable before any sink is told.

        Raises RefusedError and leaves all as it was, CheckpointError, SinkError, and
        of an application FoldError, StateError.
        """
        by_file: dict[str, list[Row]] = {}
        for row in rows:
            by_file.setdefault(row.file, []).append(row)
        before = self.checkpoint.account
        if batch == before.batch and by_file.keys() <= set(before.files):
            self._show()
            return Counted(0, 0, None)
        if batch != before.batch + 1:
            raise CheckpointError(
                f"{self.checkpoint.path}: batch {before.batch} is counted, and Spark "
                f"comes with another batch {batch}: its parts were not kept together; "
                "count all anew with another --checkpoint"
            )
        self._check_newest()
        additions = [
            Addition.of(file, found, self.segments.label(file))
            for file, found in by_file.items()
        ]
        account = self._account_of(before, batch, additions)
        self.checkpoint.store(account)
        self.segments.forget({each.newest for each in account.servers.values()})
        self._show()
        failpoint.reach("spark.after_sinks")
        times = [row.time_us for each in by_file.values() for row in each]
        return Counted(
            len(by_file),
            sum(row.events for each in by_file.values() for row in each),
            max((time for time in times if time is not None), default=None),
        )

    def _account_of(
        self, before: Account, batch: int, additions: Sequence[Addition]
    ) -> Account:
        """Count a batch, and let the application compute it once that is allowed."""
        if self.folding is None:
            return before.add(batch, additions)
        account = before.add(batch, additions, None)
        return attrs.evolve(account, folded=self.folding.take(batch, additions))

    def renew(self) -> None:
        """Let the sinks look after receivers between batches; raises SinkError."""
        for sink in self.sinks:
            sink.renew(self.checkpoint.account)

    def end(self) -> None:
        """Let the sinks know that no more comes; raises SinkError."""
        for sink in self.sinks:
            sink.close()

    def _show(self) -> None:
        account: Account = self.checkpoint.account
        for sink in self.sinks:
            sink.put(account)
        if self.folding is not None:
            self.folding.settle(account)
        lacking = format_missing(account.missing)
        for line in lacking:
            if line not in self._lacking:
                self.say(line)
        if self._lacking and not lacking:
            self.say("complete: no server lacks an event before its last")
        self._lacking = lacking

    def _check_newest(self) -> None:
        for name, server in self.checkpoint.account.servers.items():
            line = self.segments.check_newest(name, server)
            if line is not None and line not in self._said:
                self._said.add(line)
                self.say(line)
