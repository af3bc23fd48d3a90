"""What was counted of each vote: a machine kept at the event that an export is at.

Which events failed is nowhere in the log: it is a function of all before them.
"""

from collections.abc import Iterator, Sequence

import attrs

from log.block import Block
from recovery.replay import Replayer, StateMachine, replay_block


@attrs.define
class Tally:
    """A machine, and the event that its states are those after; None: unknown."""

    machine: StateMachine
    sequence: int | None = attrs.field(default=None, init=False)

    def replay(
        self, replayer: Replayer, after: int
    ) -> Iterator[tuple[Block, Sequence[int]]]:
        """Give the blocks with the events behind `after` (exclusive), and what failed.

        That is the sequences of the events, of those behind `after`, that changed no
        state. Raises what `Replayer.recover` and `Replayer.replay` raise.
        """
        if self.sequence != after:
            self._begin_at(replayer, after)
        for block in replayer.log.read(after):
            replayer.check_gap(block)
            self.sequence = None
            failed = replay_block(self.machine, block, after, block.last_sequence)
            if block.records.is_gap:
                # A snapshot in it may count what is lost.
                self._begin_at(replayer, block.last_sequence)
            self.sequence = block.last_sequence
            yield block, failed

    def _begin_at(self, replayer: Replayer, sequence: int) -> None:
        self.sequence = None
        replayer.recover(self.machine, sequence)
        self.sequence = sequence
