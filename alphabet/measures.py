"""What the server counts about its own work since it started.

The commit step writes it, whoever looks reads it: each number on its own is true, and
two of them may be a commit apart. It holds numbers only, so its memory is bounded.

Pure: seconds come in.
"""

import bisect
from collections import deque

import attrs

from alphabet.engine import Batch
from alphabet.outputs import Outputs
from log.log import Transaction

SECONDS_BOUNDS = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025),
    *(0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
"""Upper bounds of a histogram's buckets, inclusive; the last bucket has none."""
RECENT_MAX = 8192
"""How many commits' times wait for the history, at most: the newest."""


@attrs.define
class Histogram:
    """How often something took how long.

    `counts` has one number for each of `SECONDS_BOUNDS`, and one for what took longer.
    """

    counts: list[int] = attrs.field(
        factory=lambda: [0] * (len(SECONDS_BOUNDS) + 1), init=False
    )
    sum_seconds: float = attrs.field(default=0.0, init=False)

    def observe(self, seconds: float) -> None:
        """Count one."""
        self.counts[bisect.bisect_left(SECONDS_BOUNDS, seconds)] += 1
        self.sum_seconds += seconds


@attrs.define(eq=False)
class Measures:
    """Counters of one run of the server.

    `round_trips` are from the arrival of a batch's first bytes to its release;
    `disk_full` says why nothing can be committed, None when all is well. `turns` are
    those of the count thread, idle ones too; `commit_began` is when the commit began
    that is in flight, None if none is.
    """

    events: int = attrs.field(default=0, init=False)
    record_bytes: int = attrs.field(default=0, init=False)
    outputs: int = attrs.field(default=0, init=False)
    output_bytes: int = attrs.field(default=0, init=False)
    blocks: int = attrs.field(default=0, init=False)
    commits: Histogram = attrs.field(factory=Histogram, init=False)
    round_trips: Histogram = attrs.field(factory=Histogram, init=False)
    disk_full: str | None = attrs.field(default=None, init=False)
    turns: int = attrs.field(default=0, init=False)
    commit_began: float | None = attrs.field(default=None, init=False)
    recent_commits: deque[float] = attrs.field(
        factory=lambda: deque(maxlen=RECENT_MAX), init=False
    )

    def begin_commit(self, now: float) -> float:
        """Take note that a commit begins, or is tried again; gives `now`."""
        self.commit_began = now
        return now

    def note_commit(self, transaction: Transaction, seconds: float) -> None:
        """Count a commit that is flushed, and how long that took."""
        self.commit_began = None
        self.blocks += len(transaction.blocks)
        for block in transaction.blocks:
            self.events += block.records.count
            self.record_bytes += len(block.records.body)
        self.commits.observe(seconds)
        self.recent_commits.append(seconds)

    def note_released(self, batch: Batch, now: float) -> None:
        """Count what a batch has given to the sinks, and how long it took in all."""
        for outputs in batch.outputs:
            self.outputs += count_outputs(outputs)
            self.output_bytes += len(outputs.data)
        if batch.received_at is not None:
            self.round_trips.observe(now - batch.received_at)


def count_outputs(outputs: Outputs) -> int:
    """Say how many events have an output that is not empty."""
    if isinstance(outputs.ends, range):
        return len(outputs.ends)
    if len(outputs.ends) == 1:
        return int(bool(outputs.ends[0]))
    return len({*outputs.ends} - {0})
