"""Totals for whoever looks: never one that is not durable."""

from hypothesis import given
from hypothesis import strategies as st

from alphabet.application import Votes
from alphabet.loading import load_machine
from alphabet.pipeline.machine import Machine
from alphabet.totals_board import IN_FLIGHT_MAX, KEPT_MAX, LOOK_SECONDS, TotalsBoard


def count(machine: Machine, letter: bytes, votes: int) -> None:
    """Count one vote."""
    machine.compute(0, 1, [Votes(letter, votes)])


@given(st.lists(st.integers(0, IN_FLIGHT_MAX), max_size=40))
def test_the_newest_durable_totals(in_flight: list[int]) -> None:
    """However far the state runs ahead, a look gives the totals of a durable event."""
    board, machine = TotalsBoard(), load_machine(None, [])
    board.look(0.0)
    durable = 0
    for sequence, behind in enumerate(in_flight, 1):
        count(machine, b"a", 1)
        board.offer(sequence, machine, 0.0)
        durable = max(durable, sequence - behind)
        found = board.newest(durable)
        if durable:
            assert found is not None
            assert (found.sequence, found.totals) == (durable, {b"a": durable})
        else:
            assert found is None


def test_nothing_is_copied_while_nobody_looks() -> None:
    """A copy is made only within some seconds of a look, and once for an event."""
    board, machine = TotalsBoard(), load_machine(None, [])
    board.offer(1, machine, 0.0)
    assert board.newest(1) is None
    board.look(1.0)
    board.offer(1, machine, 1.0 + LOOK_SECONDS)
    first = board.newest(1)
    assert first is not None
    count(machine, b"a", 1)
    board.offer(2, machine, 2.0 + LOOK_SECONDS)
    assert board.newest(2) is first


def test_a_copy_never_changes() -> None:
    """What the machine counts later is not in a copy made before."""
    board, machine = TotalsBoard(), load_machine(None, [])
    board.look(0.0)
    count(machine, b"a", 1)
    board.offer(1, machine, 0.0)
    count(machine, b"a", 1)
    found = board.newest(1)
    assert found is not None
    assert found.totals == {b"a": 1}


def test_more_are_kept_than_can_be_in_flight() -> None:
    """A durable copy is never pushed out by those that are not."""
    assert KEPT_MAX > IN_FLIGHT_MAX
