"""Two speeds, one meaning: batches give what their events give one by one.

Everything that can be seen is compared: output bytes and where each ends, flags,
rejects with peer and place, failed events, captures, states, the log's very bytes; and
what replay and derivation make of that log. Bounds are made small, so that a few events
are batches of several slices; a few times they are as they are.
"""

import random
import struct
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphabet.application import TOTAL_MAX
from alphabet.pipeline.batch import SLICE_EVENTS_MAX
from alphabet.pipeline.machine import Machine
from recovery.snapshot import State
from tests import toy
from tests.speeds import (
    Side,
    batch_alphabet,
    batch_toy,
    batches,
    derived,
    replayed,
    small_bounds,
    without_batch_methods,
)
from tests.votes import Vote, frame, wire

Step = tuple[str, bytes]
"""A connection, and what it sends."""

Totals = dict[bytes, int]

letters = st.sampled_from([b"a", b"b", b"\0", b"\xff"])
numbers = st.sampled_from([0, 1, 2**32 - 1]) | st.integers(0, 2**32 - 1)
totals = st.dictionaries(
    letters,
    st.sampled_from([0, 1, TOTAL_MAX, TOTAL_MAX - 5, TOTAL_MAX - 2**33])
    | st.integers(0, TOTAL_MAX),
)
vote_runs = st.lists(st.tuples(letters, numbers), max_size=30).map(wire)
every_letter = st.just(wire([(bytes([code]), code) for code in range(256)]))
no_votes = st.builds(
    lambda payload, count: frame(payload) * count,
    st.sampled_from([b"", b"abcd", b"abcdef", b"ninebytes"]),
    st.integers(1, 6),
)
vote_streams = st.lists(vote_runs | vote_runs | every_letter | no_votes, max_size=4)

some_wish = st.sampled_from([*toy.EVENT_WISHES, toy.REFUSED])
good_wishes = st.lists(st.sampled_from(toy.OUTPUT_WISHES), max_size=30)
any_wishes = st.lists(some_wish, max_size=5)
endings = st.sampled_from([b"1", b"2", b"three"])


def toy_frames(wishes: list[bytes], ending: bytes) -> bytes:
    """Write the toy's events, all of one size."""
    return b"".join(bytes([1 + len(ending)]) + wish + ending for wish in wishes)


toy_streams = st.lists(
    st.builds(toy_frames, good_wishes | good_wishes | any_wishes, endings), max_size=4
)


@st.composite
def deliveries(draw: st.DrawFn, streams: st.SearchStrategy[list[bytes]]) -> list[Step]:
    """Draw what two connections send by turns, cut anywhere.

    The name of a connection ends in the number of the pipeline that it feeds.
    """
    held = {"a0": b"", "b0": b"", "c1": b""}
    steps: list[Step] = []
    for connection, stream, kept in draw(
        st.lists(
            st.tuples(st.sampled_from(sorted(held)), streams, st.integers(0, 20)),
            max_size=6,
        )
    ):
        data = held[connection] + b"".join(stream)
        size = max(len(data) - kept, 0)
        steps.append((connection, data[:size]))
        held[connection] = data[size:]
    return [*steps, *held.items()]


def feed(sides: Sequence[Side], steps: Sequence[Step], saved: Sequence[bool]) -> None:
    """Let sides take the same steps, one take for each entry of `saved`, and the rest.

    It says whether a snapshot that was begun is done by then.
    """
    size = max(len(steps) // (len(saved) + 1), 1)
    lots = [steps[start : start + size] for start in range(0, len(steps), size)]
    for side in sides:
        pipelines = len(side.machine.definition.pipelines)
        for lot, is_saved in zip(lots, [*saved, *[True] * len(lots)], strict=False):
            arrivals = [
                side.receive(connection, data, int(connection[-1]) % pipelines)
                for connection, data in lot
            ]
            side.take(arrivals, is_saved=is_saved)


def check_equal(sides: Sequence[Side], start: tuple[State, ...]) -> None:
    """Check that two sides are one, and that their log gives the same again."""
    fast, slow = sides
    assert fast.seen() == slow.seen()
    failed = []
    for side in sides:
        again = side.machine.fresh()
        again.load(start)
        failed.append(replayed(again, fast.blocks))
        assert again.dump() == slow.machine.dump()
        if fast.blocks:
            assert again.is_marked == slow.machine.is_marked
        once_more = side.machine.fresh()
        once_more.load(start)
        assert derived(once_more, fast.blocks) == (b"".join(slow.data), slow.sizes)
        assert once_more.dump() == slow.machine.dump()
        for capture in fast.captures:
            later = side.machine.fresh()
            later.load(capture.states)
            replayed(later, fast.blocks, capture.sequence)
            assert later.dump() == slow.machine.dump()
    assert failed[0] == failed[1]


def vote_sides(given_totals: Totals, snapshot_every: int = 1 << 60) -> list[Side]:
    """Give Alphabet with its batch methods, and without, with the same totals."""
    machine = batch_alphabet(given_totals)
    return Side.pair(machine, without_batch_methods(machine), snapshot_every)


def count(given_totals: Totals, votes: Sequence[Vote]) -> tuple[bytes, list[int]]:
    """Count votes by the tutorial's definition: outputs, and the votes that fail."""
    running = dict(given_totals)
    pieces: list[bytes] = []
    failed: list[int] = []
    for sequence, (letter, number) in enumerate(votes, 1):
        total = running.get(letter, 0) + number
        if total < 2**64:
            running[letter] = total
            pieces.append(struct.pack(">IsQ", 9, letter, total))
        else:
            failed.append(sequence)
    return b"".join(pieces), failed


class TestAlphabet:
    """The tutorial's application at both speeds."""

    @given(
        deliveries(vote_streams), totals, st.integers(1, 60), st.lists(st.booleans())
    )
    def test_any_input(
        self,
        steps: list[Step],
        given_totals: Totals,
        snapshot_every: int,
        saved: list[bool],
    ) -> None:
        """Whatever is sent, from whatever totals on, both speeds are one."""
        with small_bounds():
            sides = vote_sides(given_totals, snapshot_every)
            start = sides[0].machine.dump()
            feed(sides, steps, saved)
            check_equal(sides, start)

    @given(st.lists(st.tuples(letters, numbers), max_size=60), totals)
    def test_each_output_is_the_tutorials(
        self, votes: list[Vote], given_totals: Totals
    ) -> None:
        """Batches of votes give what the tutorial's definition says of them."""
        with small_bounds():
            [fast, _] = vote_sides(given_totals)
            feed([fast], [("a0", wire(votes))], [])
        output, failed = count(given_totals, votes)
        assert b"".join(fast.data) == output
        assert [reject.sequence for _, reject in fast.rejections] == failed

    @pytest.mark.parametrize("seed", [1, 2])
    def test_at_real_sizes(self, seed: int) -> None:
        """Several slices of votes at the bounds as they are, with bad ones among them.

        Some totals are near their limit, some letters new, some votes of 0.
        """
        chance = random.Random(seed)
        lots = [
            wire(
                (bytes([chance.randrange(seed * 100)]), chance.randrange(2**32))
                for _ in range(chance.randrange(2 * SLICE_EVENTS_MAX))
            )
            for _ in range(3)
        ]
        bad = [frame(b"bad" * size) for size in range(4)] * 20
        limits = {bytes([code]): TOTAL_MAX - 2**44 for code in range(0, 99, 11)}
        stream = b"".join([lots[0], *bad, lots[1], wire([(b"\xfe", 0)] * 300), lots[2]])
        sides = vote_sides(limits, 20_000)
        start = sides[0].machine.dump()
        size = (1 << 18) + seed
        steps = [("a0", stream[at : at + size]) for at in range(0, len(stream), size)]
        feed(sides, steps, [True])
        assert len(sides[0].sizes) > SLICE_EVENTS_MAX
        assert sides[0].rejections
        check_equal(sides, start)


class TestOverflow:
    """A total that would pass 2**64-1, within a batch."""

    @pytest.mark.parametrize("place", [0, 1, 50, 98, 99])
    @pytest.mark.parametrize("letter", [b"a", b"m", b"z"])
    def test_one_vote_of_a_batch(self, letter: bytes, place: int) -> None:
        """The one vote that would pass the limit fails, wherever it stands."""
        votes = [(bytes([97 + index % 26]), 1) for index in range(100)]
        votes[place] = (letter, 2**32 - 1)
        limits = {letter: TOTAL_MAX - 1000}
        sides = vote_sides(limits)
        start = sides[0].machine.dump()
        feed(sides, [("a0", wire(votes))], [])
        output, failed = count(limits, votes)
        assert failed == [place + 1]
        assert b"".join(sides[0].data) == output
        check_equal(sides, start)

    def test_several_letters(self) -> None:
        """Several letters pass their limits, each at its own vote, and go on behind."""
        votes = [(b"abc"[index % 3 : index % 3 + 1], index) for index in range(200)]
        limits = {b"a": TOTAL_MAX - 900, b"b": TOTAL_MAX, b"c": TOTAL_MAX - 10_000}
        sides = vote_sides(limits)
        start = sides[0].machine.dump()
        feed(sides, [("a0", wire(votes))], [])
        output, failed = count(limits, votes)
        assert len(failed) > 70
        assert b"".join(sides[0].data) == output
        assert [reject.sequence for _, reject in sides[0].rejections] == failed
        check_equal(sides, start)

    def test_up_to_the_limit(self) -> None:
        """A batch that reaches the limit exactly is one, with nothing refused."""
        votes = [(b"a", 2**32 - 1)] * 100
        limits = {b"a": TOTAL_MAX - 100 * (2**32 - 1)}
        [fast, slow] = vote_sides(limits)
        feed([fast, slow], [("a0", wire(votes))], [])
        assert fast.seen() == slow.seen()
        assert fast.data[-1].endswith(b"a" + b"\xff" * 8)
        assert fast.rejections == []


class TestToy:
    """An application whose flags and failures are its events' own wish."""

    @given(deliveries(toy_streams), st.integers(1, 60), st.lists(st.booleans()))
    def test_any_input(
        self, steps: list[Step], snapshot_every: int, saved: list[bool]
    ) -> None:
        """Whatever the events wish for, both speeds are one."""
        with small_bounds():
            machine = batch_toy()
            sides = Side.pair(machine, without_batch_methods(machine), snapshot_every)
            start = machine.dump()
            feed(sides, steps, saved)
            check_equal(sides, start)

    @given(
        st.lists(st.sampled_from(toy.OUTPUT_WISHES), min_size=20, max_size=40),
        st.integers(9, 40),
    )
    def test_the_capture_is_at_the_first_mark(
        self, wishes: list[bytes], snapshot_every: int
    ) -> None:
        """Within a batch too, states are captured at exactly the first mark due."""
        folded = toy.fold(*[(0, wish) for wish in wishes])
        due = [at for at, mark in enumerate(folded.marks, 1) if mark]
        due = [at for at in due if at >= snapshot_every][:1]
        with small_bounds():
            side = Side(batch_toy(), snapshot_every)
            side.take([side.receive("c", toy_frames(wishes, b""))])
            assert batches(side.machine)
        assert [capture.sequence for capture in side.captures] == due
        for capture in side.captures:
            states = {state.name: state.data for state in capture.states}
            assert states == folded.states_at(capture.sequence)
        assert b"".join(side.data) == b"".join(folded.outputs)
        assert side.machine.is_marked == folded.marks[-1]

    def test_large_batches_are_taken_as_such(self) -> None:
        """What is not due and has no failure goes in slices, through no other way."""
        count = 2 * SLICE_EVENTS_MAX + 100
        side = Side(batch_toy())
        side.take([side.receive("c", toy_frames([toy.PLAIN] * count, b""))])
        assert batches(side.machine) == [SLICE_EVENTS_MAX, SLICE_EVENTS_MAX, 100]
        assert len(side.sizes) == count

    def test_a_bad_event_costs_its_slice_alone(self) -> None:
        """Around a slice with a bad event in it the others are batches."""
        with small_bounds():
            wishes = [toy.PLAIN] * 40
            wishes[11] = toy.FAILING
            wishes[30] = toy.REFUSED
            side = Side(batch_toy())
            side.take([side.receive("c", toy_frames(wishes, b""))])
            assert batches(side.machine) == [8, 8, 8]
        [(_, failed), (peer, refused)] = side.rejections
        assert (failed.reason, failed.sequence) == ("compute", 12)
        assert (peer, refused.reason, refused.position) == ("c", "decode", 60)

    def test_rejects_come_in_the_order_of_their_payloads(self) -> None:
        """A failed event is told before what was refused behind it, at either speed."""
        wishes = [toy.FAILING, toy.REFUSED, toy.UNENCODABLE, toy.REFUSED, toy.FAILING]
        machine = batch_toy()
        with small_bounds():
            sides = Side.pair(machine, without_batch_methods(machine), 1 << 60)
            feed(sides, [("a0", toy_frames(wishes * 4, b""))], [])
            check_equal(sides, toy.machine().dump())
        found = [(each.reason, each.sequence) for _, each in sides[0].rejections[:5]]
        assert found == [
            ("compute", 1),
            ("decode", 0),
            ("encode", 2),
            ("decode", 0),
            ("compute", 3),
        ]


def broken(machine: Machine, role: str, error: BaseException) -> Machine:
    """Let one of a toy's batch methods raise, before it changed anything."""
    pipeline = machine.definition.pipelines[0]
    component, method = {
        "decode": (pipeline.source.decoder, "decode_batch"),
        "compute": (pipeline.steps[0].computation, "compute_batch"),
        "encode": (pipeline.sink.encoder, "encode_batch"),
    }[role]

    def fail(*_: object) -> object:
        raise error

    setattr(component, method, fail)
    return machine.fresh()


class TestRaising:
    """Batch methods that raise."""

    @pytest.mark.parametrize("role", ["decode", "compute"])
    def test_events_go_one_by_one_then(self, role: str) -> None:
        """Where decode or compute refuses a batch, each event is taken alone."""
        wishes = [toy.PLAIN, toy.MARKED, toy.FAILING, toy.REFUSED] * 50
        machine = broken(batch_toy(), role, ValueError("no batches today"))
        sides = Side.pair(machine, without_batch_methods(machine), 30)
        feed(sides, [("a0", toy_frames(wishes, b""))], [])
        check_equal(sides, toy.machine().dump())
        assert len(sides[0].sizes) == 150
        assert {each.cause for _, each in sides[0].rejections} == {
            "ValueError: it wished to be refused",
            "append: ValueError: it wished to fail",
        }

    @pytest.mark.parametrize("role", ["decode", "compute", "encode"])
    @pytest.mark.parametrize("fatal", [MemoryError, RecursionError, KeyboardInterrupt])
    def test_a_fatal_error_goes_up(self, role: str, fatal: type[BaseException]) -> None:
        """What says that the process is unwell goes up from any batch method."""
        side = Side(broken(batch_toy(), role, fatal()))
        arrival = side.receive("c", toy_frames([toy.PLAIN] * 100, b""))
        with pytest.raises(fatal):
            side.take([arrival])

    def test_an_encode_that_raises_goes_up(self) -> None:
        """When encode refuses a batch the state has changed: nobody goes on from it."""
        side = Side(broken(batch_toy(), "encode", ValueError("no")))
        arrival = side.receive("c", toy_frames([toy.PLAIN] * 100, b""))
        with pytest.raises(ValueError, match="no"):
            side.take([arrival])

    @pytest.mark.parametrize("count", [0, 99, 101])
    def test_outputs_are_one_for_each_event(
        self, count: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """An encode that gives more rows than events, or fewer, goes up as an error."""
        machine = batch_toy()
        encoder = machine.definition.pipelines[0].sink.encoder
        rows = np.zeros((count, 3), np.uint8)
        monkeypatch.setattr(encoder, "encode_batch", lambda _: rows)
        side = Side(machine.fresh())
        arrival = side.receive("c", toy_frames([toy.PLAIN] * 100, b""))
        with pytest.raises(ValueError, match=f"{count} outputs of 100 events"):
            side.take([arrival])
