"""What arrived, as groups: nothing lost, in order, and each payload's origin known."""

import itertools
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphabet.arrival import Received
from alphabet.framing import Frames, Payloads, Run
from alphabet.group import Group, gather

if TYPE_CHECKING:
    from alphabet.framing import Piece

Spec = tuple[bool, list[bytes]]
"""Whether a piece is a run, and its payloads."""

one_size = st.sampled_from(
    [[b""], [b"", b""], [b"a"], [b"b", b"c", b"d"], [b"ef", b"gh"], [b"ijk"] * 5]
)
mixed = st.sampled_from([[b"l", b""], [b"", b"m", b"no"], [b"pq", b"r", b"st"]])
pieces = st.tuples(st.booleans(), one_size) | st.tuples(st.sampled_from([False]), mixed)
arrivals = st.lists(
    st.tuples(
        st.sampled_from("abc"), st.integers(0, 1000), st.lists(pieces, max_size=5)
    ),
    max_size=4,
)


def received(peer: str, position: int, specs: list[Spec]) -> Received:
    """Make the arrival of pieces, whose first frame begins at `position`."""
    made: list[Piece] = []
    start = position
    for is_run, payloads in specs:
        if is_run:
            frames = [bytes([len(payload)]) + payload for payload in payloads]
            data = memoryview(b"".join(frames))
            made.append(Run(start, 1, len(frames[0]), data))
        else:
            made.append(Payloads(start, 1, payloads))
        start += sum(1 + len(payload) for payload in payloads)
    return Received(peer, peer, 0, Frames(position, made))


def expected(arrived: list[Received]) -> list[tuple[str, int, bytes]]:
    """Give each payload in order, with its peer and the place of its first byte."""
    found = []
    for each in arrived:
        position = each.frames.position
        for payload in each.frames.payloads:
            found.append((each.peer, position, payload))
            position += 1 + len(payload)
    return found


class TestGather:
    """How what arrived is grouped."""

    @given(arrivals)
    def test_nothing_is_lost_or_moved(
        self, specs: list[tuple[str, int, list[Spec]]]
    ) -> None:
        """All payloads come in the groups, in the order in which they arrived."""
        arrived = [received(*spec) for spec in specs]
        groups = list(gather(arrived))
        payloads = [payload for group in groups for payload in group.payloads()]
        assert payloads == [payload for _, _, payload in expected(arrived)]
        assert all(group.count == len(group.payloads()) for group in groups)

    @given(arrivals)
    def test_a_group_is_of_one_size_and_as_large_as_may_be(
        self, specs: list[tuple[str, int, list[Spec]]]
    ) -> None:
        """Payloads of one size that follow each other are one group, whoever sent them.

        Those of mixed sizes are for themselves.
        """
        groups = list(gather([received(*spec) for spec in specs]))
        sizes = [group.payload_bytes for group in groups]
        for group in groups:
            found = {len(payload) for payload in group.payloads()}
            if group.payload_bytes is None:
                assert len(found) > 1
                assert len(group.pieces) == 1
            else:
                assert found == {group.payload_bytes}
        for before, size in itertools.pairwise(sizes):
            assert size is None or size != before

    def test_several_connections_are_one_group(self) -> None:
        """What many peers sent, each a little, becomes one batch."""
        arrived = [received(peer, 0, [(False, [b"ab"])]) for peer in "abcdefgh"]
        [group] = gather(arrived)
        assert group.payloads() == [b"ab"] * 8

    def test_nothing_is_no_group(self) -> None:
        """Arrivals without frames make no group."""
        assert list(gather([])) == []
        assert list(gather([received("a", 5, [])])) == []


class TestGroup:
    """One group's payloads."""

    @given(arrivals)
    def test_rows_are_the_payloads(
        self, specs: list[tuple[str, int, list[Spec]]]
    ) -> None:
        """Each payload is a row, and the rows are memory of their own."""
        for group in gather([received(*spec) for spec in specs]):
            if group.payload_bytes:
                rows = group.rows()
                assert [row.tobytes() for row in rows] == group.payloads()
                assert rows.flags.owndata
                assert rows.flags.writeable

    @given(arrivals, st.data())
    def test_origins_are_named(
        self, specs: list[tuple[str, int, list[Spec]]], data: st.DataObject
    ) -> None:
        """Of any payloads it is told who sent them, and at which byte they begin."""
        arrived = [received(*spec) for spec in specs]
        wanted = iter(expected(arrived))
        for group in gather(arrived):
            places = [next(wanted) for _ in range(group.count)]
            indexes = sorted(data.draw(st.sets(st.integers(0, group.count - 1))))
            found = [
                (each.peer, position)
                for each, positions in group.origins(indexes)
                for position in positions
            ]
            assert found == [places[index][:2] for index in indexes]

    @pytest.mark.parametrize("indexes", [[], [0], [5, 6], [0, 9]])
    def test_a_walk_ends_where_nothing_is_asked(self, indexes: list[int]) -> None:
        """Only the pieces that hold what is asked for are looked at."""
        arrival = received("a", 0, [(False, [b"x"] * 5), (True, [b"y"] * 5)])
        group = Group(1, [(arrival, piece) for piece in arrival.frames.pieces])
        found = group.origins(indexes)
        positions = [position for _, positions in found for position in positions]
        assert positions == [2 * index for index in indexes]
