"""Ranges of sequences, and an account of segments: each sequence once, in any order."""

import contextlib
import itertools
import json
import zlib
from decimal import Decimal
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphabet.application import TOTAL_MAX
from alphabet.spark import account as module
from alphabet.spark import ranges
from alphabet.spark.account import (
    Account,
    AccountFormatError,
    Addition,
    RefusedError,
    Row,
    format_missing,
)
from alphabet.spark.ranges import OverlapError, Ranges
from recovery.exporting.segment import Label
from tests.segments_made import label_of

FEW = st.integers(1, 12)
SPANS = st.tuples(FEW, FEW).map(lambda ends: (min(ends), max(ends)))
TOTALS = st.dictionaries(
    st.characters(max_codepoint=255), st.integers(0, 2**40), min_size=1, max_size=3
)


def numbers(held: Ranges) -> list[int]:
    """Give each sequence of some ranges."""
    return [n for first, last in held for n in range(first, last + 1)]


def _ranges_of(known: set[int]) -> Ranges:
    """Hold some numbers."""
    held: Ranges = ()
    for number in known:
        held = ranges.add(held, (number, number))
    return held


def rows_of(
    label: Label, totals: dict[str, int], server: str | None = "eu"
) -> list[Row]:
    """Give rows as Spark has them of a whole segment, a letter each."""
    first, last, letters = label.first_sequence, label.last_sequence, len(totals)
    events = last - first + 1 - sum(count for _, count in label.gaps)
    return [
        Row(
            "f",
            server,
            letter,
            Decimal(total),
            first,
            last,
            events - letters + 1 if n == 0 else 1,
            0,
        )
        for n, (letter, total) in enumerate(totals.items())
    ]


def addition(
    first: int, last: int, totals: dict[str, int], server: str = "eu", name: str = ""
) -> Addition:
    """Give what a segment adds; each server has a log of its own."""
    file = name or f"{server}/{first}"
    return Addition(file, server, label_of(first, last, f"log-{server}"), totals)


class TestRanges:
    """Ranges beside a plain set of numbers."""

    @given(st.lists(SPANS, max_size=8))
    def test_they_are_a_set(self, spans: list[tuple[int, int]]) -> None:
        """A range is held unless any number of it was, and stays one of few."""
        held: Ranges = ()
        known: set[int] = set()
        for span in spans:
            new = set(range(span[0], span[1] + 1))
            if known & new:
                with pytest.raises(OverlapError) as caught:
                    ranges.add(held, span)
                assert {caught.value.first, caught.value.last} <= known & new
            else:
                held = ranges.add(held, span)
                known |= new
            assert numbers(held) == sorted(known)
            assert ranges.count(held) == len(known)
            assert all(low[1] + 1 < high[0] for low, high in itertools.pairwise(held))

    @given(st.sets(FEW), st.sets(FEW))
    def test_what_is_shared(self, some: set[int], others: set[int]) -> None:
        """The first range shared has the first number in both, and only such."""
        first, second = (_ranges_of(known) for known in (some, others))
        shared = ranges.first_shared(first, second)
        both = some & others
        assert (shared is None) == (not both)
        if shared is not None:
            assert shared[0] == min(both)
            assert set(numbers((shared,))) <= both

    @given(st.sets(FEW), st.data())
    def test_a_union(self, known: set[int], data: st.DataObject) -> None:
        """What parts hold that share nothing is what all of them held one by one."""
        few = [data.draw(st.sampled_from([0, 1, 2])) for _ in known]
        parts = [
            _ranges_of({n for n, part in zip(known, few, strict=True) if part == each})
            for each in range(3)
        ]
        assert ranges.union(*parts) == _ranges_of(known)

    @given(st.sets(FEW))
    def test_what_is_missing(self, known: set[int]) -> None:
        """All from 1 to the last that is not held is missing."""
        held = _ranges_of(known)
        whole = set(range(1, max(known, default=0) + 1))
        assert numbers(ranges.missing(held)) == sorted(whole - known)


class TestAddition:
    """A file's rows beside what it says of itself."""

    def test_rows_that_are_whole(self) -> None:
        """A file whose rows are those it names is taken, lost events left out."""
        label = label_of(4, 9, gaps=[(5, 2)])
        found = Addition.of("f", rows_of(label, {"A": 3, "B": 0}), label)
        assert found == Addition("f", "eu", label, {"A": 3, "B": 0})
        assert found.held == ((4, 4), (7, 9))

    @pytest.mark.parametrize(
        "change",
        [
            {"server": None},
            {"server": "us"},
            {"letter": None},
            {"letter": "B"},
            {"counted": None},
            {"events": 4},
            {"first_sequence": 1},
            {"last_sequence": 10},
            {"first_sequence": None},
        ],
        ids=str,
    )
    def test_rows_that_are_not(self, change: dict[str, Any]) -> None:
        """Rows of two servers, of none, without a number, or too few are refused."""
        label = label_of(2, 9)
        rows = rows_of(label, {"A": 3, "B": 0})
        with pytest.raises(RefusedError, match=r"^f "):
            Addition.of("f", [attrs.evolve(rows[0], **change), rows[1]], label)


class TestAccount:
    """What is counted after batches."""

    @given(st.lists(TOTALS, min_size=1, max_size=6), st.data())
    def test_order_makes_no_difference(
        self, totals: list[dict[str, int]], data: st.DataObject
    ) -> None:
        """Any order and any batches of the same segments give the same totals."""
        parts = [
            addition(2 * n + 1, 2 * n + 2, each, data.draw(st.sampled_from("ab")))
            for n, each in enumerate(totals)
        ]
        whole = Account("/s").add(0, parts)
        account = Account("/s")
        for batch, part in enumerate(data.draw(st.permutations(parts))):
            account = account.add(batch, [part])
        assert account.servers == whole.servers
        assert account.totals == {
            letter: sum(each.get(letter, 0) for each in totals)
            for letter in sorted({letter for each in totals for letter in each})
        }

    @given(st.lists(st.tuples(st.sampled_from("ab"), TOTALS), max_size=5))
    def test_it_is_read_as_it_was_written(
        self, parts: list[tuple[str, dict[str, int]]]
    ) -> None:
        """An account comes back from its bytes."""
        account = Account("/s").add(
            7,
            [
                addition(3 * n + 1, 3 * n + 2, totals, server)
                for n, (server, totals) in enumerate(parts)
            ],
        )
        assert Account.decode(account.encode()) == account

    @given(st.data())
    def test_a_changed_byte_is_noticed(self, data: st.DataObject) -> None:
        """An account with a byte changed is refused, or reads the same."""
        account = Account("/s").add(0, [addition(1, 2, {"A": 5})])
        encoded = bytearray(account.encode())
        encoded[data.draw(st.integers(0, len(encoded) - 1))] ^= 1 << data.draw(
            st.integers(0, 7)
        )
        with contextlib.suppress(AccountFormatError):
            assert Account.decode(bytes(encoded)) == account

    def test_another_version(self) -> None:
        """An account of another format is refused by its number."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "FORMAT_VERSION", 3)
            newer = Account("/s").encode()
        with pytest.raises(AccountFormatError, match="version 3, not 2"):
            Account.decode(newer)

    def test_a_sequence_twice(self) -> None:
        """A batch that has a sequence of a server again is refused whole."""
        account = Account("/s").add(0, [addition(1, 5, {"A": 1})])
        parts = [
            addition(1, 9, {"B": 1}, "us"),
            addition(4, 8, {"A": 1}, name="eu/restored"),
        ]
        with pytest.raises(RefusedError, match=r"eu/restored: events 4 to 5 of .*'eu'"):
            account.add(1, parts)

    def test_a_log_under_two_names(self) -> None:
        """A batch that has events of another server's log is refused whole."""
        account = Account("/s").add(0, [addition(1, 5, {"A": 1})])
        label = label_of(4, 8, "log-eu")
        copied = Addition("copy/4", "copy", label, {"A": 1})
        with pytest.raises(RefusedError, match=r"copy/4: events 4 to 5 of log .*'eu'"):
            account.add(1, [copied])
        with pytest.raises(RefusedError, match="events 4 to 5 of log"):
            Account("/s").add(0, [addition(1, 5, {"A": 1}), copied])

    def test_a_log_that_goes_on_under_another_name(self) -> None:
        """A log's later events count under another name: none of them is twice."""
        account = Account("/s").add(0, [addition(1, 5, {"A": 1})])
        renamed = Addition("new/6", "new", label_of(6, 8, "log-eu"), {"A": 1})
        assert account.add(1, [renamed]).totals == {"A": 2}

    @pytest.mark.parametrize("is_log_known", [True, False])
    def test_a_former_log_under_another_name(self, *, is_log_known: bool) -> None:
        """A server's log is known by each id it had, not by its newest alone."""
        account = Account("/s").add(0, [addition(1, 5, {"A": 1})])
        label = label_of(6, 9, "log-new", parent_id="log-eu")
        account = account.add(1, [Addition("eu/6", "eu", label, {"A": 1})])
        former = label_of(4, 7, "log-eu" if is_log_known else "log-new")
        match = r"copy/4: events [46] to [57] of log log-\w+ are counted .*'eu'"
        with pytest.raises(RefusedError, match=match) as caught:
            account.add(2, [Addition("copy/4", "copy", former, {"A": 1})])
        assert "\n" not in str(caught.value)

    def test_a_log_made_of_another(self) -> None:
        """What salvage or compact made has the same events, and so has its parent."""
        old = Addition("a/1", "a", label_of(1, 5, "old"), {"A": 1})
        new = Addition("b/4", "b", label_of(4, 9, "new", parent_id="old"), {"A": 1})
        way = r"new directory with --after 5$"
        with pytest.raises(
            RefusedError, match=rf"b/4: events 4 to 5 of log old .*{way}"
        ):
            Account("/s").add(0, [old]).add(1, [new])
        with pytest.raises(RefusedError, match=r"a/1: events 4 to 5 of log new .* 9$"):
            Account("/s").add(0, [new]).add(1, [old])
        behind = Addition("b/6", "b", label_of(6, 9, "new", parent_id="old"), {"A": 1})
        assert Account("/s").add(0, [old]).add(1, [behind]).totals == {"A": 2}

    def test_logs_made_of_the_same(self) -> None:
        """Two logs with an ancestor in common have its events, known by their links."""
        parts = [
            ("a", label_of(1, 2, "second", parent_id="first")),
            ("b", label_of(3, 6, "third", parent_id="second")),
            ("c", label_of(5, 9, "other", parent_id="first")),
        ]
        additions = [Addition(f"{s}/1", s, label, {"A": 1}) for s, label in parts]
        account = Account("/s").add(0, additions[:2])
        with pytest.raises(RefusedError, match="events 5 to 6 of log third"):
            account.add(1, additions[2:])
        strange = label_of(5, 9, "other", parent_id="other")
        assert account.add(1, [Addition("c/1", "c", strange, {"A": 1})]).batch == 1

    def test_a_parent_once_told_stays(self) -> None:
        """A segment of an older exporter, which tells no parent, changes nothing."""
        told = Addition("a/1", "a", label_of(1, 2, "new", parent_id="old"), {"A": 1})
        silent = Addition("a/3", "a", label_of(3, 5, "new"), {"A": 1})
        account = Account("/s").add(0, [told, silent])
        again = Addition("b/4", "b", label_of(4, 4, "old"), {"A": 1})
        with pytest.raises(RefusedError, match="events 4 to 4 of log new"):
            account.add(1, [again])

    def test_an_account_that_knew_the_newest_log(self) -> None:
        """An account of the first format goes on with the log that it knew."""
        account = Account("/s").add(0, [addition(1, 5, {"A": 1})])
        fields = json.loads(json.loads(account.encode())["account"])
        server = fields["servers"]["eu"]
        server["held"] = server.pop("logs")["log-eu"]["held"]
        text = json.dumps(fields | {"format_version": 1})
        outer = {"checksum": zlib.crc32(text.encode()), "account": text}
        assert Account.decode(json.dumps(outer).encode()) == account

    def test_the_largest_total(self) -> None:
        """A total over all servers goes up to what an output carries, and not above."""
        most = Account("/s").add(
            0, [addition(1, 1, {"A": TOTAL_MAX - 1}), addition(1, 1, {"A": 1}, "us")]
        )
        assert most.totals == {"A": TOTAL_MAX}
        with pytest.raises(RefusedError, match=rf"of A would be {TOTAL_MAX + 1}"):
            most.add(1, [addition(2, 2, {"A": 1})])

    def test_the_newest_segment(self) -> None:
        """A server's witness is the segment with its last event, come when it may."""
        account = Account("/s").add(0, [addition(5, 6, {"A": 1})])
        late = account.add(1, [addition(1, 2, {"A": 1})]).servers["eu"]
        assert (late.newest, late.label.last_sequence) == ("eu/5", 6)
        assert late.missing == ((3, 4),)

    def test_what_is_missing_is_named(self) -> None:
        """A line names the server and the first few ranges."""
        lacked = {"eu": ((1, 1), (3, 5)), "us": ((1, 1), (3, 3), (5, 5), (7, 9))}
        assert format_missing(lacked) == [
            "incomplete: server eu lacks 1, 3 to 5",
            "incomplete: server us lacks 1, 3, 5 … (6 events)",
        ]
