"""The log under any order of commits, failures and crashes.

The sandwich, after every step: what was acknowledged is what a reader finds first,
what it finds was submitted, and both are in order. What goes along with a commit
(cursor, point, reject) is always that of the last commit found.
"""

import contextlib
import tempfile
from pathlib import Path

import attrs
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
)

from log.block import Block, Point, Records
from log.errors import CommitError, DiskFullError
from log.log import Log, Transaction
from log.row import Cursor
from tests import samples
from tests.faults import Fault, FaultyStore
from tests.places import LmdbPlace, MemoryPlace, Place

contents = st.lists(samples.payloads, max_size=3)
ending_faults = st.sampled_from([Fault.LOST, Fault.KEPT, Fault.REFUSED])


class LogOnMemory(RuleBasedStateMachine):
    """Commits and crashes on the store in memory.

    `acknowledged` holds the events whose commit returned, `commits` how many did.
    """

    def __init__(self) -> None:
        super().__init__()
        self.resources = contextlib.ExitStack()
        self.place = self.make_place()
        self.acknowledged: list[bytes] = []
        self.commits = 0

    def make_place(self) -> Place:
        """Return an empty place."""
        return MemoryPlace()

    def teardown(self) -> None:
        """Let everything go."""
        self.resources.close()

    @initialize()
    def create(self) -> None:
        """Begin a log."""
        self.store = FaultyStore(self.place.open())
        self.log = Log.create(self.store, samples.META)

    def transaction(self, contents: list[list[bytes]]) -> Transaction:
        """Return what stores these payloads as commit number `commits` + 1.

        Each payload names it, so that no two are equal.
        """
        number = self.commits + 1
        blocks: list[Block] = []
        tail = self.log.tail
        for payloads in contents:
            records = Records.pack([b"%d:%s" % (number, each) for each in payloads])
            blocks.append(Block.seal(tail, records, time_ns=number))
            tail = blocks[-1].tail
        return Transaction(
            blocks=tuple(blocks),
            cursors={"out": Cursor(tail.sequence, number)},
            points=(Point(1, number, b"stream"),),
            rejects=(attrs.evolve(samples.REJECT, position=number),),
        )

    def events(self, transaction: Transaction) -> list[bytes]:
        """Return a transaction's events."""
        return [event for block in transaction.blocks for event in block.records]

    def acknowledge(self, transaction: Transaction) -> None:
        """Count a transaction as one that must stay."""
        self.acknowledged += self.events(transaction)
        self.commits += 1

    @rule(contents=contents)
    def commit(self, contents: list[list[bytes]]) -> None:
        """Commit, and be acknowledged."""
        transaction = self.transaction(contents)
        self.log.commit(transaction)
        self.acknowledge(transaction)

    @rule()
    def crash(self) -> None:
        """End the process between two commits, and start another."""
        self.store = FaultyStore(self.place.open())
        self.log = Log.open(self.store)

    @rule(contents=contents, fault=ending_faults)
    def commit_and_crash(self, contents: list[list[bytes]], fault: Fault) -> None:
        """End the process because a commit failed; it may be stored or not."""
        transaction = self.transaction(contents)
        self.store.faults = [fault]
        with pytest.raises(CommitError):
            self.log.commit(transaction)
        self.crash()
        if fault is Fault.KEPT:
            self.acknowledge(transaction)

    @rule(contents=contents, times=st.integers(1, 3))
    def wait_for_room(self, contents: list[list[bytes]], times: int) -> None:
        """Meet a full disk, and commit the same bytes when there is room."""
        transaction = self.transaction(contents)
        self.store.faults = [Fault.FULL] * times
        for _ in range(times):
            with pytest.raises(DiskFullError):
                self.log.commit(transaction)
            assert not self.log.holds(transaction)
        self.log.commit(transaction)
        self.acknowledge(transaction)

    @rule(contents=contents, fault=st.sampled_from([Fault.LOST, Fault.KEPT]))
    def ask_and_go_on(self, contents: list[list[bytes]], fault: Fault) -> None:
        """Ask what became of a failed commit, and repeat it unless it is there."""
        transaction = self.transaction(contents)
        self.store.faults = [fault]
        with pytest.raises(CommitError):
            self.log.commit(transaction)
        is_there = self.log.holds(transaction)
        assert is_there == (fault is Fault.KEPT and bool(contents))
        if not is_there:
            self.log.commit(transaction)
        self.acknowledge(transaction)

    @rule(data=st.data())
    def read_the_rest(self, data: st.DataObject) -> None:
        """Read what follows an event, whichever."""
        last = len(self.acknowledged)
        after = data.draw(st.integers(0, last))
        blocks = list(self.log.read(after))
        events = [event for block in blocks for event in block.records]
        assert events[len(events) - (last - after) :] == self.acknowledged[after:]
        if blocks:
            assert blocks[0].first_sequence <= after + 1 <= blocks[0].last_sequence
        tail = self.log.tail_at(after)
        assert tail.sequence <= after

    @invariant()
    def everything_is_there(self) -> None:
        """The log holds what was acknowledged, and what goes along, once."""
        found = [event for block in self.log.read(0) for event in block.records]
        assert found == self.acknowledged
        assert self.log.tail.sequence == len(found)
        companions = (
            [cursor.offset for cursor in self.log.cursors().values()],
            [point.message_id for _, point in self.log.points().values()],
            [reject.position for _, reject in self.log.rejects()],
        )
        newest = [self.commits] if self.commits else []
        assert companions == (newest, newest, list(range(1, self.commits + 1)))


class LogOnLmdb(LogOnMemory):
    """The same on LMDB."""

    def make_place(self) -> Place:
        """Return an empty directory."""
        path = self.resources.enter_context(tempfile.TemporaryDirectory())
        place = LmdbPlace(Path(path))
        self.resources.callback(lambda: place.open().close())
        return place


TestLogOnMemory = LogOnMemory.TestCase
TestLogOnLmdb = LogOnLmdb.TestCase
# A share of the examples that are asked for, in the long run as in the short one.
TestLogOnMemory.settings = settings(max_examples=settings().max_examples // 3)
TestLogOnLmdb.settings = settings(max_examples=settings().max_examples // 8)
