"""Groups become numbered events: which way each goes, and what is noted of it."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphabet.arrival import Received
from alphabet.framing import FrameReader
from alphabet.group import gather
from alphabet.intake import Intake, records_of
from alphabet.pipeline.batch import EVENTS_MIN
from alphabet.pipeline.machine import Machine
from tests import toy
from tests.speeds import (
    batch_alphabet,
    batch_toy,
    batches,
    small_bounds,
    without_batch_methods,
)


def taken(
    machine: Machine,
    *contents: list[bytes],
    next_sequence: int = 1,
    capture_from: int | None = None,
) -> Intake:
    """Take payloads, each list as one connection sent it, all at once."""
    intake = Intake(machine, 0, next_sequence, 5, capture_from)
    decoder = toy.Decoder()
    arrivals = []
    for connection, payloads in enumerate(contents):
        reader = FrameReader(1, decoder.payload_length, 100)
        frames = reader.receive(b"".join(bytes([len(p)]) + p for p in payloads))
        arrivals.append(Received(connection, "peer", 0, frames))
    for group in gather(arrivals):
        intake.take(group)
    return intake


def records(intake: Intake) -> list[bytes]:
    """Give the events' records."""
    return [record for part in intake.parts for record in part]


class TestWays:
    """Which events are batches."""

    @pytest.mark.parametrize("count", [EVENTS_MIN - 1, EVENTS_MIN, 3 * EVENTS_MIN])
    def test_enough_of_one_size(self, count: int) -> None:
        """A group is a batch from the bound on."""
        machine = batch_toy()
        taken(machine, [b"pp"] * count)
        assert batches(machine) == [count] * (count >= EVENTS_MIN)

    def test_a_little_of_many_connections(self) -> None:
        """What many connections sent, each a little, is one batch."""
        machine = batch_toy()
        intake = taken(machine, *[[b"pp"]] * 100)
        assert batches(machine) == [100]
        assert records(intake) == [b"pp"] * 100

    @pytest.mark.parametrize(
        ("make", "payloads"),
        [
            (batch_toy, [b""] * 100),
            (batch_toy, [b"p" * (1 + number % 2) for number in range(100)]),
            (lambda: without_batch_methods(batch_toy()), [b"pp"] * 100),
        ],
        ids=["empty", "mixed", "no methods"],
    )
    def test_all_others_go_one_by_one(
        self, make: Callable[[], Machine], payloads: list[bytes]
    ) -> None:
        """Empty payloads, mixed sizes and other applications are no batches."""
        machine = make()
        intake = taken(machine, payloads)
        assert records(intake) == payloads
        assert [outputs.last_sequence for outputs in intake.outputs][-1] == 100
        if machine.has_batch(0):
            assert batches(machine) == []

    def test_sizes_in_turn(self) -> None:
        """Batches of one size and of another follow each other in order."""
        machine = batch_toy()
        contents = [[b"p"] * 100, [b"pp"] * 70, [b"ppp"] * 3, [b"p"] * 80]
        intake = taken(machine, *contents)
        assert batches(machine) == [100, 70, 80]
        assert records(intake) == [each for content in contents for each in content]

    def test_what_is_due_is_cut_off(self) -> None:
        """A batch ends before the snapshot that falls due; then a few go one by one.

        Once it is captured the rest goes in batches again.
        """
        machine = batch_toy()
        intake = taken(machine, [b"m"] * 500, capture_from=201)
        assert intake.capture is not None
        assert intake.capture.sequence == 201
        assert batches(machine) == [200, 500 - 200 - (EVENTS_MIN - 1)]

    def test_a_mark_that_does_not_come(self) -> None:
        """While a snapshot is due and nothing is marked all go one by one."""
        machine = batch_toy()
        intake = taken(machine, [b"p"] * 500, capture_from=201)
        assert intake.capture is None
        assert intake.capture_from == 201
        assert batches(machine) == [200]
        assert len(records(intake)) == 500


class TestNotes:
    """What is noted of events and of what is none."""

    @given(
        st.lists(
            st.lists(
                st.sampled_from([*toy.EVENT_WISHES, toy.REFUSED]).map(
                    lambda wish: wish + b"."
                ),
                max_size=12,
            ),
            max_size=4,
        ),
        st.integers(1, 2**40),
    )
    def test_everything_is_numbered(
        self, contents: list[list[bytes]], next_sequence: int
    ) -> None:
        """Good payloads are the events from the first number on, with their outputs.

        Rejects name the connection, or the sequence, in the order of the payloads.
        """
        with small_bounds():
            intake = taken(batch_toy(), *contents, next_sequence=next_sequence)
        folded = toy.Fold()
        expected: list[tuple[object, str, int | None, int]] = []
        for connection, payloads in enumerate(contents):
            for index, payload in enumerate(payloads):
                if payload.startswith(toy.REFUSED):
                    expected.append((connection, "decode", 3 * index, 0))
                    continue
                folded.add((0, payload))
                event = len(folded.events)
                if event in folded.failures:
                    reason = folded.failures[event]
                    expected.append((None, reason, None, next_sequence + event - 1))
        assert records(intake) == [payload for _, payload in folded.events]
        assert intake.next_sequence == next_sequence + len(folded.events)
        reached = next_sequence
        for outputs, part in zip(intake.outputs, intake.parts, strict=True):
            assert outputs.first_sequence == reached
            assert len(outputs.ends) == part.count > 0
            reached += part.count
        data = b"".join(outputs.data for outputs in intake.outputs)
        assert data == b"".join(folded.outputs)
        found = [
            (
                each.connection,
                each.reject.reason,
                each.reject.position,
                each.reject.sequence,
            )
            for each in intake.rejections
        ]
        assert found == expected
        assert {each.reject.time_ns for each in intake.rejections} <= {5}

    def test_nothing_good_is_no_part(self) -> None:
        """Payloads that are all refused make no events, and no parts."""
        intake = taken(batch_toy(), [b"r"] * 100)
        assert (intake.parts, intake.outputs, intake.next_sequence) == ([], [], 1)
        assert len(intake.rejections) == 100

    def test_what_was_received_may_go(self) -> None:
        """Events and outputs are no views of the buffer that they were received in."""
        buffer = bytearray(b"\2p.") * 100
        machine = batch_toy()
        frames = FrameReader(1, toy.Decoder().payload_length, 9).receive(
            memoryview(buffer)
        )
        intake = Intake(machine, 0, 1, 0)
        for group in gather([Received("c", "peer", 0, frames)]):
            intake.take(group)
        buffer[:] = bytes(len(buffer))
        folded = toy.fold(*[(0, b"p.")] * 100)
        assert records(intake) == [b"p."] * 100
        assert bytes(intake.outputs[0].data) == b"".join(folded.outputs)


class TestManyRefused:
    """More bad payloads than are worth an object each."""

    @pytest.mark.parametrize("payload", [b"", b"ab"])
    def test_the_rest_is_one(self, payload: bytes) -> None:
        """The first hundred are listed, and the rest of what came together is one."""
        intake = taken(batch_alphabet(), [payload] * 250)
        assert [each.count for each in intake.rejections] == [1] * 100 + [150]
        positions = [each.reject.position for each in intake.rejections]
        assert positions == [(1 + len(payload)) * number for number in range(101)]
        assert records(intake) == []


class TestRecords:
    """Rows as records."""

    def test_they_are_not_copied(self) -> None:
        """Records of rows are a view of them, with each row's bytes in order."""
        [group] = gather([toy.received(b"ab", b"cd", b"ef")])
        rows = group.rows()
        made = records_of(rows[1:])
        rows[2] = 65
        assert list(made) == [b"cd", b"AA"]
        assert (made.count, made.record_bytes) == (2, 2)
