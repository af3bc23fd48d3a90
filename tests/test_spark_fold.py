"""An application over the events of many servers: the same as over those of one."""

import contextlib
import itertools
import os
import struct
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import attrs
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from alphabet import application
from alphabet.application import TOTAL_MAX
from alphabet.loading import load_machine
from alphabet.pipeline import batch
from alphabet.pipeline import machine as machine_module
from alphabet.pipeline.machine import Machine
from alphabet.spark.account import Account, Addition, RefusedError
from alphabet.spark.fold import Events, Fold, FoldError
from alphabet.spark.folded import Folded
from alphabet.spark.segment_rows import read_events
from alphabet.wallaroo import ApplicationBuilder, TCPSinkConfig, TCPSourceConfig
from recovery.errors import StateError
from recovery.exporting.segment import Label
from recovery.snapshot import State
from tests import thousands, toy
from tests.segments_made import TYPES, Vote, label_of, write_segment
from tests.thousands import Expected

IS_SOAK = bool(os.environ.get("ALPHABET_SOAK"))
VOTES = st.lists(
    st.tuples(
        st.sampled_from(["A", "B", "\xff", thousands.REFUSED, thousands.UNENCODABLE]),
        st.one_of(st.just(thousands.UNLUCKY), st.integers(0, 900)),
    ),
    max_size=12,
)
FRAME_BYTES = 13
few = settings(max_examples=1000 if IS_SOAK else 40, deadline=None)


def thousands_machine() -> Machine:
    """Make the application that answers at thousands."""
    return load_machine("tests.thousands", [])


def events_of(votes: Sequence[Vote], server: str = "eu", first: int = 1) -> Events:
    """Give events as a server has them, from a sequence on."""
    data = b"".join(
        letter.encode("latin-1") + number.to_bytes(4) for letter, number in votes
    )
    rows = np.frombuffer(data, np.uint8).reshape(-1, 5)
    return Events(server, np.arange(first, first + len(votes)), rows)


def outputs_of(fold: Fold, *events: Events) -> bytes:
    """Compute a batch."""
    return b"".join(bytes(piece) for piece in fold.compute(events))


def expected_of(*lots: Sequence[Vote]) -> Expected:
    """Give what must come of votes."""
    expected = Expected()
    for letter, number in itertools.chain(*lots):
        expected.add(letter, number)
    return expected


def newest_of(outputs: bytes) -> tuple[tuple[int, bytes], ...]:
    """Give each letter's last frame, in order."""
    newest: dict[int, bytes] = {}
    for start in range(0, len(outputs), FRAME_BYTES):
        frame = outputs[start : start + FRAME_BYTES]
        newest.pop(frame[4], None)
        newest[frame[4]] = frame
    return tuple(newest.items())


class TestFold:
    """Events beside what is expected of them."""

    @few
    @given(st.lists(VOTES, max_size=5))
    def test_it_goes_on_from_its_bytes(self, lots: list[list[Vote]]) -> None:
        """Outputs and states are those of all events, wherever batches are cut."""
        folded: Folded | None = None
        outputs = b""
        for lot in lots:
            fold = Fold(thousands_machine())
            fold.begin(folded)
            outputs += outputs_of(fold, events_of(lot))
            folded = Folded.of_fields(fold.folded(0, 0).fields())
        expected = expected_of(*lots)
        assert outputs == expected.outputs
        if folded is not None:
            assert folded.newest == newest_of(expected.outputs)
            earlier = expected_of(*lots[:-1]).outputs
            renewed = dict(newest_of(outputs.removeprefix(earlier)))
            assert folded.earlier_count == len(
                dict(newest_of(earlier)).keys() - renewed.keys()
            )
            [state] = folded.states
            assert thousands.Builder().load(state.data) == expected.totals

    @few
    @given(VOTES, st.integers(1, 5))
    @example([("?", 1), ("A", thousands.UNLUCKY)], 5)
    def test_what_has_no_output(self, votes: list[Vote], slice_events: int) -> None:
        """Each such event is counted, and the first one named by its own sequence."""
        fold = Fold(thousands_machine())
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("alphabet.spark.fold.SLICE_EVENTS_MAX", slice_events)
            outputs_of(fold, events_of([("?", 1)]))
            assert outputs_of(fold, events_of(votes, "us", 101)) == (
                expected_of(votes).outputs
            )
        faults = expected_of(votes).faults
        assert fold.faults_count == len(faults)
        first = fold.first_fault
        told = None if first is None else (first.sequence - 100, first.reason)
        assert told == (faults[0] if faults else None)
        assert first is None or first.server == "us"

    @few
    @given(st.lists(st.tuples(st.sampled_from("AB\xff"), st.integers(0, 2**32 - 1))))
    def test_batches_are_taken_whole(self, votes: list[Vote]) -> None:
        """Alphabet's own batch methods compute, and give each running total."""
        calls = []
        compute_batch = application.AddVotes.compute_batch

        def seen(
            self: application.AddVotes,
            data: application.VoteColumns,
            state: application.AllVotes,
        ) -> tuple[
            application.TotalColumns, np.ndarray[tuple[int], np.dtype[np.bool_]]
        ]:
            calls.append(len(data.votes))
            return compute_batch(self, data, state)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(machine_module, "EVENTS_MIN", 2)
            patch.setattr(application.AddVotes, "compute_batch", seen)
            fold = Fold(load_machine("alphabet.application", []))
            outputs = outputs_of(fold, events_of(votes))
        totals: dict[str, int] = {}
        expected = b""
        for letter, number in votes:
            totals[letter] = totals.get(letter, 0) + number
            code = letter.encode("latin-1")
            expected += struct.pack(">IsQ", 9, code, totals[letter])
        assert outputs == expected
        assert fold.folded(0, 0).newest == newest_of(expected)
        assert sum(calls) == (len(votes) if len(votes) > 1 else 0)

    def test_a_total_that_is_full(self) -> None:
        """A batch that would pass the largest total goes on one by one."""
        fold = Fold(load_machine("alphabet.application", []))
        full = State("letter state", "dump", b"A" + (TOTAL_MAX - 1).to_bytes(8))
        fold.begin(Folded("alphabet", 1, (full,), 0, 0))
        votes = [("A", 1)] * batch.EVENTS_MIN
        frames = list(struct.iter_unpack(">IsQ", outputs_of(fold, events_of(votes))))
        assert frames == [(9, b"A", TOTAL_MAX)]
        assert fold.faults_count == batch.EVENTS_MIN - 1
        assert fold.first_fault is not None
        assert attrs.astuple(fold.first_fault)[:3] == ("eu", 2, "compute")

    def test_an_encode_batch_that_fails(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """It ends the run by the application's name: states have run ahead."""
        fold = Fold(load_machine("alphabet.application", []))
        monkeypatch.setattr(application, "_OUTPUT_ROW", np.dtype("u1"))
        with pytest.raises(FoldError, match="encode_batch of application 'alphabet'"):
            outputs_of(fold, events_of([("A", 1)] * batch.EVENTS_MIN))

    def test_other_records(self) -> None:
        """An application whose records are no votes is refused by their schema."""
        builder = ApplicationBuilder("other")
        builder.new_pipeline("one", TCPSourceConfig("", "", toy.Decoder()))
        builder.to_sink(TCPSinkConfig("", "", thousands.Encoder()))
        with pytest.raises(FoldError, match=r"records of 'opaque'.* = '>sI'"):
            Fold(Machine(builder.build()))

    def test_two_pipelines(self) -> None:
        """An application of two pipelines is refused."""
        with pytest.raises(FoldError, match="'toy' has 2 pipelines"):
            Fold(toy.machine())

    def test_other_states(self) -> None:
        """States of another application, version or name are refused."""
        fold = Fold(load_machine("alphabet.application", []))
        folded = fold.folded(0, 0)
        with pytest.raises(FoldError, match=r"'x' with STATE_VERSION 1, not by 'alph"):
            fold.begin(attrs.evolve(folded, application="x"))
        with pytest.raises(FoldError, match=r"STATE_VERSION 2, not by .* with 1"):
            fold.begin(attrs.evolve(folded, state_version=2))
        with pytest.raises(StateError, match="other states"):
            fold.begin(attrs.evolve(folded, states=()))

    @few
    @given(
        st.lists(st.builds(State, st.text(), st.text(), st.binary())),
        st.lists(st.tuples(st.integers(0, 255), st.binary())),
    )
    def test_an_account_has_them(
        self, states: list[State], newest: list[tuple[int, bytes]]
    ) -> None:
        """An account comes back from its bytes with its states and newest outputs."""
        folded = Folded("x", 3, tuple(states), 5, 7, tuple(newest), len(newest))
        account = Account("/s", 4, folded=folded)
        assert Account.decode(account.encode()) == account


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Give a place with an empty directory of segments."""
    (tmp_path / "s").mkdir()
    return tmp_path


def rewrite(file: Path, label: Label, **columns: list[object]) -> None:
    """Write a segment's file anew, with some columns changed."""
    table = pq.read_table(file, schema=TYPES)
    for name, values in columns.items():
        number = table.schema.get_field_index(name)
        table = table.set_column(number, name, pa.array(values))
    with pq.ParquetWriter(file, table.schema) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({"alphabet": label.encode()})


class TestSegmentRows:
    """Segments back into records."""

    @few
    @given(
        st.lists(
            st.tuples(
                st.characters(max_codepoint=255),
                st.integers(1, 2**32 - 1),
                st.booleans(),
            ),
            min_size=1,
        ),
        st.integers(1, 50),
    )
    def test_what_was_counted(
        self, votes: list[tuple[str, int, bool]], slice_events: int
    ) -> None:
        """Rows are the votes that were counted, with their sequences, in order."""
        label = label_of(3, len(votes) + 4, gaps=[(4, 2)] if len(votes) > 1 else ())
        if len(votes) == 1:
            label = label_of(3, 3)
        counted = [number if is_counted else 0 for _, number, is_counted in votes]
        with contextlib.ExitStack() as stack:
            patch = stack.enter_context(pytest.MonkeyPatch.context())
            patch.setattr("alphabet.spark.segment_rows.SLICE_EVENTS_MAX", slice_events)
            place = Path(stack.enter_context(TemporaryDirectory()))
            plain = [(letter, number) for letter, number, _ in votes]
            file = write_segment(place, "eu", label, plain, counted=counted)
            found = list(read_events(place, Addition(file.name, "eu", label, {})))
        sequences = [3, *range(6, 5 + len(votes))]
        assert [int(n) for each in found for n in each.sequences] == [
            n
            for n, (_, _, is_counted) in zip(sequences, votes, strict=True)
            if is_counted
        ]
        expected = events_of([(a, n) for a, n, is_counted in votes if is_counted])
        assert b"".join(each.rows.tobytes() for each in found) == (
            expected.rows.tobytes()
        )

    @pytest.mark.parametrize(
        ("column", "values", "match"),
        [
            ("letter", ["A", "BC"], "no votes of a server"),
            ("letter", ["A", ""], "no votes of a server"),
            ("letter", ["A", "\u0100"], "no votes of a server"),
            ("letter", ["A", None], "no votes of a server"),
            ("votes", [1, 2**32], "that no server can take"),
            ("votes", [1, -1], "that no server can take"),
            ("sequence", [2, 1], "not in order"),
            ("sequence", [1, 1], "not in order"),
            ("sequence", [1, 3], "has 2 events up to 3, and Spark has read 2 up to 2"),
        ],
    )
    def test_what_is_no_vote(
        self, place: Path, column: str, values: list[object], match: str
    ) -> None:
        """Rows that no exporter writes are refused by the file's name."""
        label = label_of(1, 2)
        file = write_segment(place / "s", "eu", label, [("A", 1), ("B", 2)])
        rewrite(file, label, **{column: values})
        with pytest.raises(RefusedError, match=rf"^{file.name}.* {match}"):
            list(read_events(place / "s", Addition(file.name, "eu", label, {})))

    def test_gone(self, place: Path) -> None:
        """A segment that is gone is named."""
        addition = Addition("x", "eu", label_of(1, 1), {})
        with pytest.raises(RefusedError, match=r"^x is gone"):
            list(read_events(place / "s", addition))

    def test_damaged(self, place: Path) -> None:
        """A segment whose pages are damaged is named."""
        label = label_of(1, 200)
        file = write_segment(place / "s", "eu", label, [("A", n) for n in range(200)])
        data = bytearray(file.read_bytes())
        data[4:200] = bytes(196)
        file.write_bytes(data)
        with pytest.raises(RefusedError, match=rf"^{file.name}: it cannot be read"):
            list(read_events(place / "s", Addition(file.name, "eu", label, {})))
