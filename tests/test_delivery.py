"""A sink's cursor: never too far, never in the middle, never further back than it must.

`REWIND_BYTES_MAX` and `BORDER_BYTES_MIN` are made small, so that few bytes are many.
"""

import pickle

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
)

from alphabet.outputs import Outputs
from alphabet.sink import delivery as delivery_module
from alphabet.sink.delivery import Delivery
from log.row import Cursor
from tests import toy

REWIND_BYTES = 40
BORDER_BYTES = 8
EVENT_BYTES_MAX = 9
PIECE_EVENTS_MAX = 4

START = Cursor(10, 1000)

sizes = st.lists(st.integers(0, EVENT_BYTES_MAX), max_size=PIECE_EVENTS_MAX)


@pytest.fixture(autouse=True)
def _make_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the bounds small."""
    monkeypatch.setattr(delivery_module, "REWIND_BYTES_MAX", REWIND_BYTES)
    monkeypatch.setattr(delivery_module, "BORDER_BYTES_MIN", BORDER_BYTES)


class DeliveryMachine(RuleBasedStateMachine):
    """One connection after the other, each sent what follows the cursor.

    `ends[i]` is where the output of the i-th event after START ends, in the whole
    output; `pushed`, `sent` and `reached` are the connection's.
    """

    def __init__(self) -> None:
        super().__init__()
        self.delivery = Delivery(START)
        self.ends = [START.offset]
        self.begin()

    def begin(self) -> None:
        """Note where a connection begins."""
        self.start = self.before = self.delivery.cursor
        self.pushed = self.start.sequence
        self.sent = self.reached = self.start.offset

    def end_of(self, sequence: int) -> int:
        """Give where an event's output ends."""
        return self.ends[sequence - START.sequence]

    def arrived(self, reached: int) -> int:
        """Give the last event of this connection that ends at or before an offset."""
        events = range(self.start.sequence + 1, self.pushed + 1)
        whole = [event for event in events if self.end_of(event) <= reached]
        return max(whole, default=self.start.sequence)

    @rule(sizes=sizes)
    def push(self, sizes: list[int]) -> None:
        """Push the next events: those that came before a rewind, else new ones."""
        known = self.ends[self.pushed - START.sequence :]
        for size in sizes[len(known) - 1 :]:
            self.ends.append(self.ends[-1] + size)
        until = self.pushed + len(sizes)
        each = [
            bytes(self.end_of(sequence + 1) - self.end_of(sequence))
            for sequence in range(self.pushed, until)
        ]
        self.delivery.push(toy.outputs(self.pushed + 1, each))
        self.pushed = until

    @rule(size=st.integers(1, 60))
    def send(self, size: int) -> None:
        """Let the kernel take some of it."""
        size = min(size, self.end_of(self.pushed) - self.sent)
        self.delivery.sent(size)
        self.sent += size

    @rule(outstanding=st.integers(0, 60))
    def acknowledge(self, outstanding: int) -> None:
        """Move to the last whole event that has arrived, as far as it can be known.

        Where the kernel cannot say, more is outstanding than was sent.
        """
        self.delivery.acknowledged(outstanding)
        reached = self.sent - outstanding
        self.reached = max(self.reached, reached)
        self.before = self.delivery.cursor
        at_least, at_most = self.arrived(reached), self.arrived(self.reached)
        assert at_least <= self.before.sequence <= at_most

    @precondition(lambda self: self.sent > self.start.offset)
    @rule()
    def reset(self) -> None:
        """Go back by what the connection was sent, as far as a reset may have lost."""
        floor = self.delivery.floor
        self.delivery.rewind()
        cursor = self.delivery.cursor
        back = self.before.offset - cursor.offset
        assert floor <= cursor.sequence
        assert self.start.offset <= cursor.offset
        arrived = self.before.offset - self.start.offset
        assert back >= min(arrived, REWIND_BYTES)
        piece_bytes = EVENT_BYTES_MAX * PIECE_EVENTS_MAX
        assert back <= REWIND_BYTES + BORDER_BYTES + piece_bytes
        self.open()

    @rule()
    def open(self) -> None:
        """End the connection in good order, and begin another."""
        self.delivery.open()
        self.begin()

    @invariant()
    def it_stands_between_two_events(self) -> None:
        """The cursor is an event's end, and has been acknowledged."""
        cursor = self.delivery.cursor
        assert cursor.offset == self.end_of(cursor.sequence)
        assert self.start.offset <= cursor.offset <= self.reached
        assert self.delivery.floor <= cursor.sequence

    @invariant()
    def unsent_is_what_was_pushed_and_not_sent(self) -> None:
        """The bytes that wait are those pushed less those sent."""
        waiting = self.end_of(self.pushed) - self.sent
        assert self.delivery.unsent_bytes == waiting


TestDeliveryMachine = DeliveryMachine.TestCase


class TestFloor:
    """From where a sink may have to begin."""

    def test_it_follows_at_a_distance(self) -> None:
        """The floor comes after the cursor, by what a reset may take back."""
        delivery = Delivery(START)
        for event in range(START.sequence + 1, START.sequence + 101):
            deliver(delivery, toy.outputs(event, [b"12345"]))
        reset_bytes = (delivery.cursor.sequence - delivery.floor) * 5
        assert REWIND_BYTES <= reset_bytes <= REWIND_BYTES + BORDER_BYTES + 5

    def test_events_without_output_move_it(self) -> None:
        """Where nothing was sent nothing can be lost: the floor is the cursor's."""
        delivery = Delivery(START)
        deliver(delivery, toy.outputs(START.sequence + 1, [b"", b"", b""]))
        assert delivery.floor == delivery.cursor.sequence == START.sequence + 3


class TestMemory:
    """It stays flat, whatever the outputs are like."""

    @pytest.mark.parametrize("output", [b"", b"1"])
    def test_small_outputs_that_arrive_leave_little(self, output: bytes) -> None:
        """What is kept for a rewind does not grow with the number of outputs."""
        delivery = Delivery(START)
        for event in range(START.sequence + 1, START.sequence + 5001):
            deliver(delivery, toy.outputs(event, [output]))
        assert delivery.cursor.sequence == START.sequence + 5000
        assert len(pickle.dumps(delivery)) < 2000

    def test_events_without_output_behind_one_that_does_not_arrive(self) -> None:
        """Events without output take no memory while they wait behind one that has."""
        delivery = Delivery(START)
        delivery.push(toy.outputs(START.sequence + 1, [b"1"]))
        delivery.sent(1)
        for event in range(START.sequence + 2, START.sequence + 5002, 10):
            delivery.push(toy.outputs(event, [b""] * 10))
            delivery.acknowledged(1)
        assert delivery.cursor == START
        assert len(pickle.dumps(delivery)) < 2000
        delivery.acknowledged(0)
        assert delivery.cursor == Cursor(START.sequence + 5001, START.offset + 1)


def deliver(delivery: Delivery, outputs: Outputs) -> None:
    """Push outputs, send them, and have them acknowledged."""
    delivery.push(outputs)
    delivery.sent(len(outputs.data))
    delivery.acknowledged(0)
