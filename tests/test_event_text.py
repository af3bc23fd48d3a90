"""Events as lines, JSON lines and CSV, whatever they are of."""

import csv
import io
import json
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from log.block import Block, Records, Tail
from recovery import event_text
from recovery.event_text import (
    CSV,
    JSON,
    LINES,
    EventText,
    Part,
    csv_cell,
    cut_block,
    raw_fields,
    text_fields,
)
from recovery.moment import Instant, parse_moment

records = st.lists(st.binary(max_size=4), min_size=1, max_size=9)
numbers = st.integers(0, 14)
times = st.integers(1, 2**62)
texts = st.text(st.characters(codec="utf-8"), max_size=8)


def seal(payloads: Sequence[bytes], first_sequence: int = 1) -> Block:
    """Make a block of payloads."""
    tail = Tail(first_sequence - 1, 0)
    return Block.seal(tail, Records.pack(payloads), time_ns=7, pipeline=3)


def rows(text: str) -> list[list[str]]:
    """Read CSV as anybody does."""
    return list(csv.reader(io.StringIO(text, newline="")))


class TestCutBlock:
    """Which events of a block are asked for."""

    @given(records, numbers, numbers, st.integers(1, 4))
    def test_they_are_those_between(
        self, payloads: list[bytes], after: int, until: int, size: int
    ) -> None:
        """The parts hold the events from after, exclusive, to until, inclusive."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(event_text, "PART_EVENTS_MAX", size)
            parts = list(cut_block(seal(payloads, 3), after, until))
        found = [
            (number, record)
            for part in parts
            for number, record in enumerate(part.records, part.first_sequence)
        ]
        numbered = enumerate(payloads, 3)
        assert found == [each for each in numbered if after < each[0] <= until]
        assert all(1 <= part.records.count <= size for part in parts)
        assert all((part.time_ns, part.pipeline) == (7, 3) for part in parts)

    @given(numbers, numbers)
    def test_a_gap_is_one_part(self, after: int, until: int) -> None:
        """Lost events stay a gap, however many, cut to those that are asked for."""
        gap = Block.seal(Tail(2, 0), Records.gap(9), time_ns=7)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(event_text, "PART_EVENTS_MAX", 2)
            parts = list(cut_block(gap, after, until))
        asked = [each for each in range(3, 12) if after < each <= until]
        spans = [(part.first_sequence, part.last_sequence) for part in parts]
        assert spans == ([(asked[0], asked[-1])] if asked else [])
        assert all(part.records.is_gap for part in parts)


class TestEnvelope:
    """What goes around an event."""

    @given(times, st.lists(texts, min_size=1, max_size=4), st.booleans())
    def test_json_tells_all(
        self, time_ns: int, said: list[str], are_many: bool
    ) -> None:
        """Each line is an object with sequence, exact time, pipeline and fields."""
        part = Part(5, time_ns, 1, Records.pack([b""] * len(said)))
        names = ("one", 'two"') if are_many else ()
        fields = text_fields(JSON, "event", lambda _part: said)
        lines = EventText(JSON, fields, names).write(part).splitlines()
        found = [json.loads(line) for line in lines]
        pipeline = {"pipeline": 'two"'} if are_many else {}
        expected = [
            {"sequence": number, "time_ns": time_ns, **pipeline, "event": text}
            for number, text in enumerate(said, 5)
        ]
        told = [each.pop("time") for each in found]
        assert found == expected
        assert {parse_moment(time) for time in told} == {Instant(time_ns)}

    @given(times, st.lists(texts, min_size=1, max_size=4), st.booleans())
    def test_csv_tells_all(self, time_ns: int, said: list[str], are_many: bool) -> None:
        """Each row has what its header names, whatever a text holds."""
        part = Part(5, time_ns, 1, Records.pack([b""] * len(said)))
        names = ("one", "two,") if are_many else ()
        text = EventText(CSV, text_fields(CSV, "event", lambda _part: said), names)
        header, *found = rows(text.header("event") + text.write(part))
        pipeline = ["pipeline"] if are_many else []
        assert header == ["sequence", "time", "time_ns", *pipeline, "event"]
        for number, row, event in zip(range(5, 99), found, said, strict=False):
            assert row[0] == str(number)
            assert parse_moment(row[1]) == Instant(time_ns)
            assert row[2:] == [str(time_ns), *(["two,"] if are_many else []), event]
        assert len(found) == len(said)

    @given(st.lists(texts, min_size=1, max_size=4))
    def test_lines_have_fields_alone(self, said: list[str]) -> None:
        """An event is one line, also if its text has several."""
        part = Part(5, 7, 0, Records.pack([b""] * len(said)))
        text = EventText(LINES, text_fields(LINES, "event", lambda _part: said))
        assert text.header("event") == ""
        lines = text.write(part).split("\n")
        assert lines == [*(" ".join(each.splitlines()) for each in said), ""]

    def test_json_has_no_header(self) -> None:
        """JSON lines begin with the first event."""
        assert EventText(JSON, raw_fields(JSON)).header("record") == ""


class TestRaw:
    """Records of an application that is not known."""

    @given(records)
    def test_they_are_read_back(self, payloads: list[bytes]) -> None:
        """In every format each record stands as its hexadecimal digits."""
        part = Part(1, 7, 0, Records.pack(payloads))
        texts = {f: EventText(f, raw_fields(f)).write(part) for f in (LINES, JSON, CSV)}
        digits = [
            texts[LINES].split("\n")[:-1],
            [json.loads(line)["record"] for line in texts[JSON].splitlines()],
            [row[3] for row in rows(texts[CSV])],
        ]
        assert [[bytes.fromhex(each) for each in told] for told in digits] == [
            payloads
        ] * 3


@given(st.lists(texts, min_size=2, max_size=4))
def test_cells_are_read_back(cells: list[str]) -> None:
    """A row of cells is read back as the same cells."""
    assert rows(",".join(map(csv_cell, cells)) + "\n") == [cells]
