"""Which rejects are worth a line."""

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphabet.intake import Rejection
from alphabet.journal.entries import Entry, reject_noted
from alphabet.reject_digest import RejectDigest
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

    def test_the_first_is_a_line(self) -> None:
        """The first reject is said at once, and a second later one that comes then."""
        digest = RejectDigest()
        one, two = Connection(), Connection()
        lines = digest.note(rejections(one, "a", "b") + rejections(two, "c"), 0)
        assert [line.text[-1] for line in lines] == ["a"]
        summary = digest.summary(1)
        assert summary is not None
        assert summary.text.startswith("2 more rejected or failed; the last: ")
        assert [line.text[-1] for line in digest.note(rejections(None, "d"), 2)] == [
            "d"
        ]

    @given(st.lists(st.tuples(st.integers(0, 3), seconds, st.integers(1, 5))))
    def test_every_reject_is_counted(self, steps: list[tuple[int, float, int]]) -> None:
        """Lines and sums together tell of every reject, also of those not listed."""
        digest = RejectDigest()
        connections = [Connection(), Connection(), Connection()]
        now = 0.0
        lines: list[Entry | None] = []
        for number, seconds, count in steps:
            connection = connections[number] if number < 3 else None
            found = rejections(connection, "cause")
            found = [attrs.evolve(each, count=count) for each in found]
            lines += digest.note(found, now)
            now += seconds
            lines.append(digest.summary(now))
        lines.append(digest.summary(float("inf")))
        told = sum(line.count for line in lines if line is not None)
        assert told == digest.counts["decode"] == sum(count for *_, count in steps)


class TestRejectNoted:
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
        assert reject_noted(reject).text == line
