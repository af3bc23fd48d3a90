"""A batch of segments through an application: states into the account, outputs kept.

Invariant: the account is the only truth. What was computed for a batch that did not
come into it is computed again, from the states before. The edge: files.
"""

import itertools
from collections.abc import Callable, Sequence

import attrs

from alphabet.spark.account import Account, Addition
from alphabet.spark.checkpoint import CheckpointError
from alphabet.spark.fold import Fold
from alphabet.spark.folded import Folded
from alphabet.spark.outputs_file import OutputsFile
from alphabet.spark.segment_files import SegmentFiles
from alphabet.spark.segment_rows import read_events


@attrs.define
class Folding:
    """An application that counts beside the account; `say` is given lines."""

    fold: Fold
    segments: SegmentFiles
    outputs: OutputsFile
    say: Callable[[str], None]

    def begin(self, account: Account) -> None:
        """Go on where an account stands.

        Raises CheckpointError for one that was counted without an application, or
        whose outputs are gone, and what `Fold.begin` raises.
        """
        if account.folded is None and account.batch >= 0:
            raise CheckpointError(
                "the checkpoint was begun without --application-module; choose "
                "another directory"
            )
        self.outputs.check(account)
        self.fold.begin(account.folded)

    def take(self, batch: int, additions: Sequence[Addition]) -> Folded:
        """Compute a batch's events: its outputs are durable on return.

        They come in the order of server, then sequence. Raises RefusedError,
        FoldError, StateError, CheckpointError.
        """
        ordered = sorted(additions, key=lambda x: (x.server, x.label.first_sequence))
        events = itertools.chain.from_iterable(
            read_events(self.segments.path, each) for each in ordered
        )
        written = self.outputs.write(batch, self.fold.compute(events))
        fault = self.fold.first_fault
        if fault is not None:
            self.say(
                f"batch {batch}: {self.fold.faults_count} events have no output; the "
                f"first is event {fault.sequence} of server {fault.server} "
                f"({fault.reason}): {fault.cause}"
            )
        return self.fold.folded(*written)

    def settle(self, account: Account) -> None:
        """Let go of what belongs to other batches than an account's."""
        self.outputs.keep(account)


def check_no_application(account: Account) -> None:
    """Raise CheckpointError for an account that an application counts in."""
    if account.folded is not None:
        raise CheckpointError(
            f"the checkpoint was counted by application "
            f"{account.folded.application!r}: name its --application-module, or choose "
            "another directory"
        )
