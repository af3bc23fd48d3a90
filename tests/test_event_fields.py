"""What events say: votes as letter and number, any other's values as they show."""

import csv
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphabet.application import Votes
from alphabet.printing import format_letter, parse_vote_line
from alphabet.records.event_fields import event_columns, event_fields
from log.block import Records
from recovery.errors import ReplayError
from recovery.event_text import CSV, JSON, LINES, Part
from tests import toy
from tests.machines import alphabet, pack_votes

letters = st.integers(0, 255).map(lambda code: bytes([code]))
votes = st.lists(st.tuples(letters, st.integers(0, 2**32 - 1)), min_size=1, max_size=9)

EVERY_LETTER = [(bytes([code]), 2**32 - 1 - code) for code in range(256)]


def told(format_: str, pairs: list[tuple[bytes, int]]) -> list[str]:
    """Tell votes in a format."""
    part = Part(1, 7, 0, pack_votes(pairs))
    return list(event_fields(alphabet(), format_)(part))


class TestVotes:
    """Alphabet's own events."""

    @given(votes)
    def test_lines_are_read_by_send(self, pairs: list[tuple[bytes, int]]) -> None:
        """What a line says is what `send` reads from it."""
        lines = [line.encode() for line in told(LINES, pairs)]
        found = [parse_vote_line(line, 1) for line in lines]
        assert found == [Votes(*pair) for pair in pairs]

    def test_every_letter_has_its_line(self) -> None:
        """Each of the 256 letters is read back, # and the blanks among them."""
        lines = [line.encode() for line in told(LINES, EVERY_LETTER)]
        found = [parse_vote_line(line, 1) for line in lines]
        assert found == [Votes(*pair) for pair in EVERY_LETTER]
        assert b"\n" not in b"".join(lines)

    def test_json_has_the_letter_as_a_character(self) -> None:
        """A letter is its byte's character in Latin-1, votes are exact numbers."""
        found = [json.loads(f"{{{each}}}") for each in told(JSON, EVERY_LETTER)]
        assert found == [
            {"letter": letter.decode("latin-1"), "votes": number}
            for letter, number in EVERY_LETTER
        ]

    def test_csv_has_the_letter_as_it_is_printed(self) -> None:
        """The cells are those of `state --format csv`, quoted where they must be."""
        rows = list(csv.reader(told(CSV, EVERY_LETTER)))
        assert rows == [
            [format_letter(letter), str(number)] for letter, number in EVERY_LETTER
        ]
        assert event_columns(alphabet()) == "letter,votes"

    @pytest.mark.parametrize("payloads", [[b"abcdef"], [b"a\0\0\0\1", b"b"]])
    def test_a_record_that_is_no_vote(self, payloads: list[bytes]) -> None:
        """What the decoder does not take any more is named by its sequence."""
        part = Part(4, 7, 0, Records.pack(payloads))
        with pytest.raises(ReplayError) as raised:
            list(event_fields(alphabet(), LINES)(part))
        assert raised.value.sequence == 4 + len(payloads) - 1


class TestOthers:
    """Another application's events."""

    @given(st.lists(toy.payloads, min_size=1, max_size=5))
    def test_they_are_shown_as_they_show(self, payloads: list[bytes]) -> None:
        """An event is the representation of what its decoder gives."""
        machine = toy.machine()
        part = Part(1, 7, 1, Records.pack(payloads))
        found: list[Any] = [
            json.loads(f"{{{x}}}") for x in event_fields(machine, JSON)(part)
        ]
        assert found == [{"event": repr(payload)} for payload in payloads]
        lines = list(event_fields(machine, LINES)(part))
        assert lines == [repr(payload) for payload in payloads]
        assert event_columns(machine) == "event"
