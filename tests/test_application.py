"""The tutorial's application: what each of its classes does, and where it stops."""

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphabet import application, wallaroo
from alphabet.application import (
    TOTAL_MAX,
    AddVotes,
    AllVotes,
    Decoder,
    Encoder,
    LetterStateBuilder,
    TotalColumns,
    TotalOverflowError,
    VoteColumns,
    Votes,
    application_setup,
)

letters = st.binary(min_size=1, max_size=1)
counts = st.integers(0, 2**32 - 1)
votes = st.builds(Votes, letters, counts)
tables = st.dictionaries(letters, st.integers(0, TOTAL_MAX))


def state_of(totals: dict[bytes, int]) -> AllVotes:
    """Make a state with these totals, put in in this order."""
    state = LetterStateBuilder().build()
    for letter, total in totals.items():
        state.update(Votes(letter, total))
    return state


class TestAddVotes:
    """The computation."""

    def test_it_has_the_tutorials_name(self) -> None:
        """Its name is that of the tutorial."""
        assert AddVotes().name() == "add votes"

    @given(st.lists(votes))
    def test_each_output_is_the_running_total(self, events: list[Votes]) -> None:
        """Every output is the sum of the letter's votes so far, with the flag True."""
        state, totals = AllVotes(), dict[bytes, int]()
        for event in events:
            totals[event.letter] = totals.get(event.letter, 0) + event.votes
            output = AddVotes().compute(event, state)
            assert output == (Votes(event.letter, totals[event.letter]), True)

    def test_an_output_is_left_alone_by_later_votes(self) -> None:
        """An output that waits to be encoded keeps its total."""
        state = AllVotes()
        first, _ = AddVotes().compute(Votes(b"a", 1), state)
        AddVotes().compute(Votes(b"a", 1), state)
        assert first == Votes(b"a", 1)

    def test_the_event_is_left_alone(self) -> None:
        """The first vote for a letter does not become the letter's total."""
        state, event = AllVotes(), Votes(b"a", 1)
        AddVotes().compute(event, state)
        AddVotes().compute(Votes(b"a", 5), state)
        assert event == Votes(b"a", 1)


def columns(events: list[Votes]) -> VoteColumns:
    """Put votes into columns."""
    return VoteColumns(
        np.array([vote.letter[0] for vote in events], np.uint8),
        np.array([vote.votes for vote in events], np.uint32),
    )


class TestAddVotesInBatches:
    """The computation, of many votes at once."""

    @given(st.lists(votes), tables)
    def test_a_batch_is_its_votes_one_by_one(
        self, events: list[Votes], totals: dict[bytes, int]
    ) -> None:
        """Outputs, flags and state are those of the votes, or it raises untouched."""
        state, one_by_one, replayed = (state_of(totals) for _ in range(3))
        try:
            computed = [AddVotes().compute(event, one_by_one) for event in events]
        except TotalOverflowError:
            for method in (AddVotes().compute_batch, AddVotes().replay_batch):
                with pytest.raises(TotalOverflowError):
                    method(columns(events), state)
                assert state == state_of(totals)
            return
        outputs, flags = AddVotes().compute_batch(columns(events), state)
        assert outputs.letters.tolist() == [out.letter[0] for out, _ in computed]
        assert outputs.totals.tolist() == [out.votes for out, _ in computed]
        assert flags.tolist() == [flag for _, flag in computed]
        AddVotes().replay_batch(columns(events), replayed)
        assert state == replayed == one_by_one

    def test_every_letter_at_once(self) -> None:
        """All 256 letters may be in one batch, each as often as it likes."""
        events = [Votes(bytes([at * 7 % 256]), at) for at in range(2000)]
        state, one_by_one = AllVotes(), AllVotes()
        outputs, _ = AddVotes().compute_batch(columns(events), state)
        computed = [AddVotes().compute(event, one_by_one)[0].votes for event in events]
        assert outputs.totals.tolist() == computed
        assert state == one_by_one
        assert len(state.votes_by_letter) == 256

    def test_the_largest_votes_add_up_exactly(self) -> None:
        """A large batch of the largest votes is summed to the last digit."""
        count, largest = 1 << 15, 2**32 - 1
        events = VoteColumns(
            np.full(count, 97, np.uint8), np.full(count, largest, np.uint32)
        )
        for method in (AddVotes().compute_batch, AddVotes().replay_batch):
            state = state_of({b"a": 1})
            method(events, state)
            assert state.get_votes(b"a").votes == 1 + count * largest

    def test_outputs_are_left_alone_by_later_votes(self) -> None:
        """Outputs that wait to be encoded, and the events, keep what they have."""
        state, events = AllVotes(), columns([Votes(b"a", 1), Votes(b"a", 2)])
        outputs, _ = AddVotes().compute_batch(events, state)
        AddVotes().compute_batch(events, state)
        assert outputs.totals.tolist() == [1, 3]
        assert events.votes.tolist() == [1, 2]


class TestAllVotes:
    """The state."""

    @given(tables, st.dictionaries(letters, st.integers(0, TOTAL_MAX)))
    def test_sums_are_added_all_or_none(
        self, totals: dict[bytes, int], sums: dict[bytes, int]
    ) -> None:
        """Sums by letter are added, and the totals before given; or nothing changes."""
        state = state_of(totals)
        codes = [letter[0] for letter in sums]
        after = {
            letter: totals.get(letter, 0) + sums.get(letter, 0)
            for letter in totals.keys() | sums.keys()
        }
        if max(after.values(), default=0) > TOTAL_MAX:
            with pytest.raises(TotalOverflowError) as caught:
                state.add_sums(codes, list(sums.values()))
            letter = caught.value.letter
            assert caught.value.total == totals.get(letter, 0)
            assert caught.value.votes == sums[letter]
            assert state == state_of(totals)
        else:
            before = state.add_sums(codes, list(sums.values()))
            assert before == [totals.get(letter, 0) for letter in sums]
            assert state == state_of(after)

    def test_a_total_reaches_its_limit(self) -> None:
        """A total of 2**64-1 is fine."""
        state = state_of({b"a": TOTAL_MAX - 1})
        state.update(Votes(b"a", 1))
        assert state.get_votes(b"a") == Votes(b"a", 2**64 - 1)

    @pytest.mark.parametrize("totals", [{}, {b"a": TOTAL_MAX}, {b"a": 1, b"b": 2}])
    def test_a_vote_past_the_limit_changes_nothing(
        self, totals: dict[bytes, int]
    ) -> None:
        """A vote that would pass 2**64-1 raises, and the state is as before."""
        state = state_of(totals)
        with pytest.raises(TotalOverflowError):
            state.update(Votes(b"a", TOTAL_MAX - totals.get(b"a", 0) + 1))
        assert state == state_of(totals)

    def test_the_error_says_what_is_wrong(self) -> None:
        """The error is an OverflowError with the facts as fields and in one line."""
        with pytest.raises(OverflowError) as caught:
            state_of({b"\n": TOTAL_MAX}).update(Votes(b"\n", 7))
        assert isinstance(caught.value, TotalOverflowError)
        assert (caught.value.letter, caught.value.votes) == (b"\n", 7)
        assert str(caught.value) == (
            r"the total of b'\n' is 18446744073709551615:"
            " 7 more would pass 18446744073709551615"
        )

    def test_an_unknown_letter_has_no_total(self) -> None:
        """A letter that was never voted for is a KeyError and is not added."""
        state = AllVotes()
        with pytest.raises(KeyError):
            state.get_votes(b"a")
        assert state.votes_by_letter == {}

    def test_a_vote_of_zero_counts_as_voted(self) -> None:
        """No votes for a letter make a total of 0."""
        assert state_of({b"a": 0}).get_votes(b"a") == Votes(b"a", 0)


class TestLetterStateBuilder:
    """Stored states."""

    @given(tables)
    def test_a_stored_state_comes_back(self, totals: dict[bytes, int]) -> None:
        """What is dumped loads as the same state."""
        builder = LetterStateBuilder()
        assert builder.load(builder.dump(state_of(totals))) == state_of(totals)

    @given(tables)
    def test_the_bytes_do_not_know_the_order(self, totals: dict[bytes, int]) -> None:
        """Two equal states have the same bytes, in whatever order they came about."""
        backwards = dict(reversed(totals.items()))
        dump = LetterStateBuilder().dump
        assert dump(state_of(totals)) == dump(state_of(backwards))

    def test_the_layout_is_plain(self) -> None:
        """A row is the letter and eight bytes of total, big-endian; letters ascend."""
        dump = LetterStateBuilder().dump(state_of({b"b": 2, b"a": 258}))
        assert dump == b"a\0\0\0\0\0\0\1\2" + b"b\0\0\0\0\0\0\0\2"

    @pytest.mark.parametrize(
        "data",
        [
            b"a",
            b"a" * 8,
            b"a" * 10,
            struct.pack(">sQsQ", b"b", 1, b"a", 1),
            struct.pack(">sQsQ", b"a", 1, b"a", 2),
        ],
    )
    def test_other_bytes_are_refused(self, data: bytes) -> None:
        """A table that is cut, out of order or has a letter twice is a ValueError."""
        with pytest.raises(ValueError, match="stored state"):
            LetterStateBuilder().load(data)

    @given(st.binary(max_size=40))
    def test_what_loads_is_what_would_be_dumped(self, data: bytes) -> None:
        """Any bytes are a state's only bytes, or a ValueError."""
        try:
            state = LetterStateBuilder().load(data)
        except ValueError:
            return
        assert LetterStateBuilder().dump(state) == data

    def test_the_layout_has_a_version(self) -> None:
        """The module says which version of its states this is."""
        assert application.STATE_VERSION == 1


class TestCodecs:
    """Bytes to votes and back."""

    @given(votes)
    def test_a_vote_is_five_bytes(self, vote: Votes) -> None:
        """A payload is the letter and the votes, big-endian."""
        payload = vote.letter + vote.votes.to_bytes(4, "big")
        assert Decoder().decode(payload) == vote

    @given(st.lists(votes, min_size=1))
    def test_many_votes_are_rows_of_five_bytes(self, events: list[Votes]) -> None:
        """Rows decode to what their payloads decode to, in any memory, even read-only.

        The columns are no views of the rows.
        """
        data = b"".join(vote.letter + vote.votes.to_bytes(4, "big") for vote in events)
        memory = bytearray(data)
        for buffer in (data, memory):
            rows = np.frombuffer(buffer, np.uint8).reshape(-1, 5)
            decoded = Decoder().decode_batch(rows)
            memory[:] = bytes(len(memory))
            assert decoded.letters.dtype == np.uint8
            assert decoded.votes.dtype == np.uint32
            assert decoded.letters.tolist() == [vote.letter[0] for vote in events]
            assert decoded.votes.tolist() == [vote.votes for vote in events]
            memory[:] = data

    @pytest.mark.parametrize("size", [1, 4, 6])
    def test_rows_of_another_size_are_no_votes(self, size: int) -> None:
        """Rows that have not five bytes are a ValueError that says so."""
        with pytest.raises(ValueError, match=f"a vote has 5 bytes, not {size}"):
            Decoder().decode_batch(np.zeros((3, size), np.uint8))

    @given(st.lists(st.builds(Votes, letters, st.integers(0, TOTAL_MAX))))
    def test_many_totals_are_rows_of_thirteen_bytes(self, totals: list[Votes]) -> None:
        """Encoded at once, totals are the bytes that each is encoded to, one a row."""
        encoded = Encoder().encode_batch(
            TotalColumns(
                np.array([total.letter[0] for total in totals], np.uint8),
                np.array([total.votes for total in totals], np.uint64),
            )
        )
        assert encoded.dtype == np.uint8
        assert [row.tobytes() for row in encoded] == [
            Encoder().encode(total) for total in totals
        ]

    @pytest.mark.parametrize("size", [0, 4, 6])
    def test_another_size_is_no_vote(self, size: int) -> None:
        """A payload that has not five bytes raises."""
        with pytest.raises(struct.error):
            Decoder().decode(bytes(size))

    def test_a_header_is_four_bytes(self) -> None:
        """The header is a big-endian length of four bytes."""
        decoder = Decoder()
        assert decoder.header_length() == 4
        assert decoder.payload_length(b"\0\0\1\2") == 258

    def test_the_log_knows_the_layout(self) -> None:
        """The decoder names its payload's layout, without being made."""
        assert Decoder.record_schema == ">sI"

    @given(letters, st.integers(0, TOTAL_MAX))
    def test_a_total_is_thirteen_bytes(self, letter: bytes, total: int) -> None:
        """An output is the length 9, the letter and the total, big-endian."""
        output = Encoder().encode(Votes(letter, total))
        assert output == b"\0\0\0\x09" + letter + total.to_bytes(8, "big")


class TestSetup:
    """The application as a whole."""

    def test_it_is_the_tutorials(self) -> None:
        """It has one pipeline with one step, fed and drained where the args say."""
        args = ["run", "--in", "10.0.0.1:1,10.0.0.2:2", "--out", "far@[::1]:3"]
        app = application_setup(args)
        (pipeline,) = app.pipelines
        (step,) = pipeline.steps
        assert (app.name, pipeline.name) == ("alphabet", "alphabet")
        assert (pipeline.source.host, pipeline.source.port) == ("10.0.0.1", "1")
        assert (pipeline.sink.host, pipeline.sink.port) == ("::1", "3")
        assert isinstance(step, wallaroo.StatefulStep)
        assert step.state_name == "letter state"
        assert isinstance(step.computation, AddVotes)
        assert isinstance(step.state_builder, LetterStateBuilder)

    def test_it_needs_no_arguments(self) -> None:
        """Without arguments it listens at the default and connects nowhere."""
        (pipeline,) = application_setup([]).pipelines
        assert (pipeline.source.host, pipeline.source.port) == wallaroo.DEFAULT_INPUT
        assert (pipeline.sink.host, pipeline.sink.port) == ("", "")
