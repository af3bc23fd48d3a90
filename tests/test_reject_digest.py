"""Which rejects are worth a line."""

import itertools

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphabet.intake import Rejection
from alphabet.reject_digest import SUMMARY_SECONDS, RejectDigest, describe_reject
from log.row import Reject
from tests.samples import REJECT

seconds = st.sampled_from([0.0, 0.25, 0.5, 1.0, 2.0])


@attrs.define(eq=False)
class Connection:
    """A connection, as far as a digest is concerned."""


def rejections(connection: object, *causes: str) -> list[Rejection]:
    """Make rejects of one connection, or failed events of none."""
    sequence = 0 if connection else 7
    return [
        Rejection(connection, attrs.evolve(REJECT, cause=cause, sequence=sequence))
        for cause in causes
    ]


class TestLines:
    """What is said at once, and what later."""

    def test_a_connections_first_is_a_line(self) -> None:
        """Each connection's first reject is said at once, those after it are not."""
        digest = RejectDigest()
        one, two = Connection(), Connection()
        lines = digest.note(rejections(one, "a", "b") + rejections(two, "c"), 0)
        assert [line[-1] for line in lines] == ["a", "c"]
        assert digest.note(rejections(two, "d"), 1) == []

    def test_the_first_failed_event_is_a_line(self) -> None:
        """Failed events have no connection: their first is said at once."""
        digest = RejectDigest()
        assert len(digest.note(rejections(None, "a", "b"), 0)) == 1
        assert digest.note(rejections(None, "c"), 1) == []

    def test_the_rest_is_one_line_a_second(self) -> None:
        """A second after the first that was not said comes one line for all."""
        digest = RejectDigest()
        one = Connection()
        digest.note(rejections(one, "a"), 0)
        assert digest.summary(9) is None
        digest.note(rejections(one, "b"), 10)
        digest.note(rejections(one, "c"), 10.9)
        assert digest.summary(10.9) is None
        summary = digest.summary(10 + SUMMARY_SECONDS)
        assert summary is not None
        assert summary.startswith("2 more")
        assert summary.endswith("c")
        assert digest.summary(99) is None

    @given(st.lists(st.tuples(st.integers(0, 3), seconds), max_size=40))
    def test_every_reject_is_counted(self, steps: list[tuple[int, float]]) -> None:
        """Lines and sums together tell of every reject, at most one sum a second."""
        digest = RejectDigest()
        connections = [Connection(), Connection(), Connection()]
        now = 0.0
        said = 0
        sums: list[float] = []
        for number, seconds in steps:
            connection = connections[number] if number < 3 else None
            said += len(digest.note(rejections(connection, "cause"), now))
            now += seconds
            if (summary := digest.summary(now)) is not None:
                said += int(summary.split()[0])
                sums.append(now)
        if (summary := digest.summary(float("inf"))) is not None:
            said += int(summary.split()[0])
        assert said == len(steps) == digest.counts["decode"]
        assert all(b - a >= 1 for a, b in itertools.pairwise(sums))

    def test_connections_are_forgotten(self) -> None:
        """A connection that is gone takes no memory."""
        digest = RejectDigest()
        for _ in range(1000):
            digest.note(rejections(Connection(), "a"), 0)
        assert len(digest._known) <= 1  # noqa: SLF001 - nothing else shows it


class TestDescribeReject:
    """A reject as a line."""

    @pytest.mark.parametrize(
        ("reject", "line"),
        [
            (
                REJECT,
                "rejected from 127.0.0.1:5000 at byte 18 (decode): 3 bytes are no vote",
            ),
            (
                attrs.evolve(REJECT, position=None),
                "rejected from 127.0.0.1:5000 (decode): 3 bytes are no vote",
            ),
            (
                attrs.evolve(REJECT, sequence=9, reason="compute", peer=""),
                "failed event 9 (compute): 3 bytes are no vote",
            ),
        ],
    )
    def test_it_says_who_where_and_why(self, reject: Reject, line: str) -> None:
        """The line names the peer and the place, or the event, and the cause."""
        assert describe_reject(reject) == line
