"""What is on the disk, and what may be said because of it.

Written from the promises alone: it is shown each transaction that the disk took, and
each byte that left the server, and breaks the run where one is not as it must be.
"""

from collections.abc import Sequence

import attrs

from log.block import Block
from log.log import Log
from log.memory_store import MemoryDisk, MemoryStore
from log.row import Cursor, open_row
from log.store import BLOCKS, CURSORS, REJECTS, Change
from tests import toy
from tests.faults import Fault, FaultyStore
from tests.simulator.processor import Process

SOURCE = slice(1, 3)
"""Where a payload names its source."""


class BrokenPromiseError(AssertionError):
    """The server did what it must never do."""


def require(fact: object, promise: str) -> None:
    """Break the run unless something is so."""
    if not fact:
        raise BrokenPromiseError(promise)


@attrs.define(eq=False)
class Ledger:
    """The log as it must be: each source's good payloads, in order, each once.

    `submitted` has, by source, all that it will ever send; `output` is what receivers
    may be sent by now.
    """

    disk: MemoryDisk = attrs.Factory(MemoryDisk)
    fold: toy.Fold = attrs.Factory(toy.Fold)
    output: bytearray = attrs.Factory(bytearray)
    submitted: dict[bytes, list[bytes]] = attrs.Factory(dict)
    stored: dict[bytes, int] = attrs.Factory(dict)
    aborted: set[bytes] = attrs.Factory(set)
    """Transactions that a two-phase sink was told to forget."""
    commits: int = 0

    def submit(self, source: bytes, payloads: Sequence[bytes]) -> None:
        """Take note of what a source will send."""
        self.submitted[source] = [each for each in payloads if is_good(each)]
        self.stored[source] = 0

    def note(self, changes: Sequence[Change]) -> None:
        """Take note of a transaction that the disk took."""
        self.commits += 1
        failed = len(self.fold.failures)
        rejects = 0
        for change in changes:
            if change.table == BLOCKS and change.value is not None:
                self._note_block(Block.decode(change.value))
            rejects += change.table == REJECTS and change.value is not None
            if change.table == CURSORS and change.value is not None:
                _, body = open_row(CURSORS, change.key, change.value)
                decided = Cursor.decode(body).transaction_id
                require(decided not in self.aborted, "a decision for what was aborted")
        failed = len(self.fold.failures) - failed
        require(rejects >= failed, "a failed event is stored without its reject")

    def _note_block(self, block: Block) -> None:
        count = len(self.fold.events)
        require(block.first_sequence == count + 1, "a block does not follow the last")
        for record in block.records:
            payload = bytes(record)
            source = payload[SOURCE]
            number = self.stored.get(source, -1)
            expected = self.submitted.get(source, [])[number : number + 1]
            require(
                number >= 0 and expected == [payload], f"{payload!r} is out of order"
            )
            self.stored[source] += 1
            self.fold.add((block.pipeline, payload))
            self.output += self.fold.outputs[-1]

    def check_sent(self, offset: int, data: bytes) -> None:
        """Check that outputs that leave are durable, and at their place."""
        require(
            self.output[offset : offset + len(data)] == data,
            f"what was sent at output byte {offset} is not durable, or is another's",
        )

    def cursors(self) -> dict[str, Cursor]:
        """Give the sinks' rows."""
        return Log.open(MemoryStore(self.disk)).cursors()

    def rejects(self) -> set[bytes]:
        """Give the payloads that were put on record."""
        return {each.payload for _, each in Log.open(MemoryStore(self.disk)).rejects()}


def is_good(payload: bytes) -> bool:
    """Say whether a payload becomes an event."""
    return not payload.startswith(toy.REFUSED)


@attrs.define
class LedgerStore(MemoryStore):
    """A store whose ledger is shown what it takes."""

    ledger: Ledger = attrs.field(kw_only=True)

    def commit(self, changes: Sequence[Change], sequence: int) -> None:
        """Apply all changes."""
        super().commit(changes, sequence)
        self.ledger.note(changes)


@attrs.define(eq=False)
class Disk(FaultyStore):
    """The store of one process: it ends between two operations, and fails as asked."""

    process: Process = attrs.field(kw_only=True)
    fired: list[Fault] = attrs.Factory(list)
    is_slow: bool = False
    """A commit takes as long as this is so."""
    is_unknown: bool = False
    """A commit has failed, and nobody can know whether it was stored."""

    def commit(self, changes: Sequence[Change], sequence: int) -> None:
        """Commit, unless the process ends before, or a fault is due."""
        self.process.wait(lambda: not self.is_slow, None)
        require(not self.is_unknown, "a commit follows one whose outcome is unknown")
        fault = self.faults[0] if self.faults else None
        if fault is not None:
            self.fired.append(fault)
            self.is_unknown = fault is not Fault.FULL
        super().commit(changes, sequence)
        self.process.step()
