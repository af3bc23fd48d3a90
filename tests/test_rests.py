"""Who had something refused rests, and how long."""

import socket

from hypothesis import given
from hypothesis import strategies as st

from alphabet.framing import FrameReader, decode_length
from alphabet.source.connection import Connection
from alphabet.source.rests import (
    REFUSED_PER_SECOND_MAX,
    REST_SECONDS_MAX,
    REST_SECONDS_MIN,
    Rests,
)


def connection() -> Connection:
    """Make a connection that was never made."""
    reader = FrameReader(4, decode_length, 100)
    with socket.socket() as closed:
        return Connection(closed, "peer", 0, reader)


def trusted() -> Connection:
    """Make one whose first reads were judged good."""
    found = connection()
    rests = Rests()
    assert not rests.must_rest(found, 0, 0.0)
    assert not rests.must_rest(found, 0, 0.0)
    return found


class TestRests:
    """Reading on, or a rest."""

    def test_a_new_one_waits_for_its_first_verdict(self) -> None:
        """After its first read a connection rests until that is judged."""
        rests = Rests()
        found = connection()
        assert not rests.must_rest(found, 0, 0.0)
        found.last_arrival = 7
        assert rests.must_rest(found, 6, 0.0)
        assert list(rests.rested(REST_SECONDS_MIN)) == [found]
        assert not rests.must_rest(found, 7, 1.0)
        found.last_arrival = 99
        assert not rests.must_rest(found, 7, 1.0)

    def test_a_lone_bad_frame_costs_a_moment(self) -> None:
        """One refused frame is the least rest, and after two reads it is forgotten."""
        rests = Rests()
        found = trusted()
        found.refused = 1
        assert rests.must_rest(found, 0, 0.0)
        assert found.is_resting
        assert list(rests.rested(REST_SECONDS_MIN)) == [found]
        assert not found.is_resting
        for _ in range(2):
            assert not rests.must_rest(found, 0, 1.0)
        found.last_arrival = 9
        assert not rests.must_rest(found, 0, 1.0)

    def test_what_was_begun_is_not_late(self) -> None:
        """The time of a rest is not the sender's to finish its frame in."""
        rests = Rests()
        found = trusted()
        found.partial_since = 0.0
        found.refused = 1
        rests.must_rest(found, 0, 0.0)
        assert list(rests.rested(5.0)) == [found]
        assert found.partial_since == 5.0

    @given(st.lists(st.integers(1, 1000), min_size=1, max_size=20))
    def test_all_share_one_rate(self, refused: list[int]) -> None:
        """Of those that rest together nobody goes on before its share allows it."""
        rests = Rests()
        shares: list[tuple[Connection, float]] = []
        for number, count in enumerate(refused, 1):
            found = trusted()
            found.refused = count
            assert rests.must_rest(found, 0, 0.0)
            share = max(number * count / REFUSED_PER_SECOND_MAX, REST_SECONDS_MIN)
            shares.append((found, share))
        for found, share in sorted(shares, key=lambda each: each[1]):
            list(rests.rested(share * 0.99))
            assert found.is_resting
        assert not rests.must_rest(trusted(), 0, 0.0)
        list(rests.rested(REST_SECONDS_MAX))
        assert not any(found.is_resting for found, _ in shares)
        assert rests.seconds_left(0.0, 3.0) == 3.0

    def test_the_next_end_is_told(self) -> None:
        """A wait is no longer than the first rest, and never negative."""
        rests = Rests()
        found = trusted()
        found.refused = REFUSED_PER_SECOND_MAX
        rests.must_rest(found, 0, 0.0)
        assert rests.seconds_left(0.25, 9.0) == 0.75
        assert rests.seconds_left(2.0, 9.0) == 0.0
