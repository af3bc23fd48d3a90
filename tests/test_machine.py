"""An application at work: what comes of each event, live, in replay and derived."""

import itertools
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphabet import application
from alphabet.cause import CAUSE_CHARS_MAX, describe
from alphabet.loading import load_machine
from alphabet.pipeline.machine import Computed, Failure, Machine
from alphabet.wallaroo import ApplicationBuilder, TCPSinkConfig, TCPSourceConfig
from log.block import Records
from log.row import OPAQUE
from recovery.errors import ReplayError, StateError
from recovery.snapshot import State
from tests import toy
from tests.toy import Fold

FATAL = [MemoryError, RecursionError, KeyboardInterrupt, SystemExit]


def raiser(error: BaseException) -> Callable[..., Any]:
    """Make a function that raises."""

    def fail(*_: object) -> object:
        raise error

    return fail


def giver(value: object) -> Callable[..., Any]:
    """Make a function that gives one value, whatever it is asked."""
    return lambda *_: value


@attrs.define
class Parts:
    """An application with one pipeline, of which every part can be replaced.

    Each event is taken as it is, noted in the state (a list), given out and marked.
    """

    decode: Callable[..., Any] = lambda payload: payload
    computes: Sequence[Callable[..., Any]] = (
        lambda data, state: (state.append(data), (data, True))[1],
    )
    encode: Callable[..., Any] = lambda data: data

    def machine(self, module: object = None) -> Machine:
        """Put the parts together."""
        decoder = SimpleNamespace(
            header_length=giver(1), payload_length=giver(1), decode=self.decode
        )
        builder = ApplicationBuilder("parts")
        builder.new_pipeline("parts", TCPSourceConfig("", "0", decoder))
        for compute in self.computes:
            computation = SimpleNamespace(name=giver("part"), compute=compute)
            state_builder = SimpleNamespace(build=list)
            builder.to_stateful(computation, state_builder, "list")
        encoder = SimpleNamespace(encode=self.encode)
        builder.to_sink(TCPSinkConfig("", "", encoder))
        return Machine(builder.build(), module)


def run(machine: Machine, folded: Fold, cuts: Sequence[int] = ()) -> list[Computed]:
    """Compute a fold's events live, from cut to cut."""
    computed = []
    borders = sorted({0, *cuts, len(folded.events)})
    for start, end in itertools.pairwise(borders):
        for pipeline, first, payloads in stretches(folded, start, end):
            values = machine.decode(pipeline, payloads).values
            computed.append(machine.compute(pipeline, first, values))
    return computed


def stretches(folded: Fold, start: int, end: int) -> list[tuple[int, int, list[bytes]]]:
    """Cut events where the pipeline changes: (pipeline, first sequence, payloads)."""
    found: list[tuple[int, int, list[bytes]]] = []
    for index in range(start, end):
        pipeline, payload = folded.events[index]
        if not found or found[-1][0] != pipeline:
            found.append((pipeline, index + 1, []))
        found[-1][2].append(payload)
    return found


def replay(machine: Machine, folded: Fold, start: int, end: int) -> list[int]:
    """Replay a fold's events after `start` (exclusive) to `end` (inclusive).

    Gives the sequences of those that failed.
    """
    return [
        sequence
        for pipeline, first, payloads in stretches(folded, start, end)
        for sequence in machine.replay(pipeline, first, Records.pack(payloads))
    ]


folds = st.lists(toy.events, max_size=12).map(lambda events: toy.fold(*events))


class TestDecode:
    """Payloads become values, or are refused."""

    @given(st.lists(toy.inputs))
    def test_refused_payloads_are_sorted_out(self, payloads: list[bytes]) -> None:
        """What decodes is kept in order; what raises is named by index and cause."""
        decoded = toy.machine().decode(0, payloads)
        is_refused = [payload.startswith(toy.REFUSED) for payload in payloads]
        kept = [p for p, bad in zip(payloads, is_refused, strict=True) if not bad]
        assert decoded.payloads == decoded.values == kept
        assert decoded.refused == [
            (index, "ValueError: it wished to be refused")
            for index, bad in enumerate(is_refused)
            if bad
        ]

    @pytest.mark.parametrize("fatal", FATAL)
    def test_a_fatal_error_is_no_refusal(self, fatal: type[BaseException]) -> None:
        """What says that the process is unwell goes up from decode."""
        with pytest.raises(fatal):
            Parts(decode=raiser(fatal())).machine().decode(0, [b"a"])


class TestCompute:
    """Events become outputs, failures and captures."""

    @given(folds, st.lists(st.integers(0, 12)))
    def test_what_comes_of_each_event(self, folded: Fold, cuts: list[int]) -> None:
        """Outputs, failures, states and marks are the fold's, however it is cut."""
        machine = toy.machine()
        cuts = [cut for cut in cuts if cut < len(folded.events)]
        computed = run(machine, folded, cuts)
        outputs = [each.outputs for each in computed]
        assert b"".join(each.data for each in outputs) == b"".join(folded.outputs)
        sizes = [
            end - start
            for each in outputs
            for start, end in itertools.pairwise([0, *each.ends])
        ]
        assert sizes == [len(output) for output in folded.outputs]
        failures = [failure for each in computed for failure in each.failures]
        assert {f.sequence: f.reason for f in failures} == folded.failures
        assert toy.state_bytes(machine) == folded.states_at(len(folded.events))
        assert machine.is_marked == (folded.marks or [False])[-1]

    @given(folds, st.integers(0, 14))
    def test_the_capture_is_at_the_first_mark(self, folded: Fold, due: int) -> None:
        """States are captured at the first marked event at or after the one due."""
        machine = toy.machine()
        captures = []
        capture_from: int | None = due
        for pipeline, first, payloads in stretches(folded, 0, len(folded.events)):
            computed = machine.compute(pipeline, first, payloads, capture_from)
            if computed.capture is not None:
                captures.append(computed.capture)
                capture_from = None
        marked = [at for at, mark in enumerate(folded.marks, 1) if mark and at >= due]
        assert [capture.sequence for capture in captures] == marked[:1]
        for capture in captures:
            states = {state.name: state.data for state in capture.states}
            assert states == folded.states_at(capture.sequence)

    def test_no_capture_unless_one_is_due(self) -> None:
        """Marked events alone make no capture."""
        computed = toy.machine().compute(0, 1, [toy.MARKED, toy.MARKED])
        assert computed.capture is None

    @pytest.mark.parametrize("wrong", [None, 5, (), (b"a",), (b"a", True, 1), b"abc"])
    @pytest.mark.parametrize("is_last", [True, False])
    def test_a_wrong_return_fails_the_event(
        self, wrong: object, *, is_last: bool
    ) -> None:
        """A compute that returns no pair fails its event, in any of its steps."""
        right = giver((b"a", True))
        computes = (right, giver(wrong)) if is_last else (giver(wrong), right)
        machine = Parts(computes=computes).machine()
        computed = machine.compute(0, 7, [b"", b""], capture_from=0)
        assert [(f.sequence, f.reason) for f in computed.failures] == [
            (7, "compute"),
            (8, "compute"),
        ]
        assert (computed.outputs.data, computed.outputs.ends) == (b"", [0, 0])
        assert computed.capture is None
        assert not machine.is_marked

    def test_a_flag_that_is_no_flag_fails_the_event(self) -> None:
        """A flag that is neither true nor false fails its event, in replay too."""

        class Flag:
            def __bool__(self) -> bool:
                raise ValueError("neither")

        machine = Parts(computes=(giver((b"a", Flag())),)).machine()
        computed = machine.compute(0, 1, [b"a"], capture_from=1)
        assert computed.failures == [Failure(1, "compute", "part: ValueError: neither")]
        assert computed.outputs.data == b""
        machine.replay(0, 2, Records.pack([b"a"]))
        assert not machine.is_marked

    @pytest.mark.parametrize("wrong", [None, 3, [1, 2]])
    def test_an_output_that_is_no_bytes_fails_the_event(self, wrong: object) -> None:
        """What encode returns is bytes, or its event fails."""
        machine = Parts(encode=giver(wrong)).machine()
        computed = machine.compute(0, 1, [b"a"])
        assert [failure.reason for failure in computed.failures] == ["encode"]
        assert computed.outputs.data == b""

    @pytest.mark.parametrize("like", [bytearray(b"ab"), memoryview(b"ab")])
    def test_what_is_like_bytes_is_an_output(self, like: object) -> None:
        """Whatever has bytes in it may be an output."""
        computed = Parts(encode=giver(like)).machine().compute(0, 1, [b"a"])
        assert computed.outputs.data == b"ab"
        assert type(computed.outputs.data) is bytes

    def test_a_failed_event_leaves_what_compute_did(self) -> None:
        """A compute that changes the state and then raises has changed it."""

        def fail_late(data: bytes, state: list[bytes]) -> tuple[bytes, bool]:
            state.append(data)
            raise ValueError

        machine = Parts(computes=(fail_late,)).machine()
        machine.compute(0, 1, [b"a"])
        assert machine.state("list") == [b"a"]

    def test_an_event_that_does_not_encode_is_a_mark(self) -> None:
        """A mark is compute's: it counts though encode raises, as it will in replay."""
        parts = Parts(encode=raiser(ValueError("no")))
        live, replayed = parts.machine(), parts.machine()
        computed = live.compute(0, 1, [b"a"], capture_from=1)
        replayed.replay(0, 1, Records.pack([b"a"]))
        assert computed.failures == [
            Failure(1, "encode", "SimpleNamespace: ValueError: no")
        ]
        assert computed.capture is not None
        assert live.is_marked
        assert replayed.is_marked

    def test_no_output_ends_an_events_way(self) -> None:
        """A step that gives None is the event's last, and may mark it."""
        seen: list[object] = []

        def see(data: object, _state: object) -> tuple[object, bool]:
            seen.append(data)
            return None, False

        machine = Parts(computes=(giver((None, True)), see)).machine()
        computed = machine.compute(0, 1, [b"a"], capture_from=1)
        assert seen == []
        assert computed.outputs.ends == [0]
        assert computed.capture is not None

    @pytest.mark.parametrize("flags", [(True, False), (False, True)])
    def test_any_step_may_mark(self, flags: tuple[bool, bool]) -> None:
        """An event is marked if any of its steps returned True."""
        computes = [giver((b"a", flag)) for flag in flags]
        machine = Parts(computes=computes).machine()
        machine.compute(0, 1, [b"a"])
        assert machine.is_marked

    def test_no_steps_give_the_value_itself(self) -> None:
        """A pipeline without steps encodes what was decoded, and marks nothing."""
        machine = Parts(computes=()).machine()
        assert machine.compute(0, 1, [b"ab"]).outputs.data == b"ab"
        assert not machine.is_marked

    @pytest.mark.parametrize("fatal", FATAL)
    def test_a_fatal_error_is_no_failed_event(self, fatal: type[BaseException]) -> None:
        """What says that the process is unwell goes up from compute and encode."""
        fail = raiser(fatal())
        for parts in (Parts(computes=(fail,)), Parts(encode=fail)):
            with pytest.raises(fatal):
                parts.machine().compute(0, 1, [b"a"])

    def test_a_total_that_would_wrap_is_a_failed_event(self) -> None:
        """A vote past 2**64-1 fails with its sequence; those around it count."""
        machine = load_machine(None, [])
        full = State("letter state", "dump", b"a" + bytes([255] * 8))
        machine.load([full])
        votes = machine.decode(0, [b"b\0\0\0\1", b"a\0\0\0\1", b"b\0\0\0\2"]).values
        computed = machine.compute(0, 1, votes)
        assert [(f.sequence, f.reason) for f in computed.failures] == [(2, "compute")]
        assert computed.outputs.data == b"".join(
            b"\0\0\0\x09b" + total.to_bytes(8) for total in (1, 3)
        )


class TestReplay:
    """Logged events again."""

    @given(folds, st.data())
    def test_replayed_is_live(self, folded: Fold, data: st.DataObject) -> None:
        """Snapshot + rest replayed = all replayed = live: states and mark alike."""
        count = len(folded.events)
        live, replayed, resumed = toy.machine(), toy.machine(), toy.machine()
        run(live, folded)
        replay(replayed, folded, 0, count)
        middle = data.draw(st.integers(0, count))
        replay(resumed, folded, 0, middle)
        later = resumed.fresh()
        later.load(resumed.dump())
        replay(later, folded, middle, count)
        assert live.dump() == replayed.dump() == later.dump()
        assert live.is_marked == replayed.is_marked

    @given(folds)
    def test_replay_names_what_failed(self, folded: Fold) -> None:
        """A replay gives the sequences for which compute raised, and no other."""
        failed = replay(toy.machine(), folded, 0, len(folded.events))
        computed = [at for at, why in folded.failures.items() if why == "compute"]
        assert failed == computed

    @given(folds)
    def test_derived_outputs_are_live_outputs(self, folded: Fold) -> None:
        """A machine that derives gives the very outputs of the one that was live."""
        live, deriving = toy.machine(), toy.machine()
        for pipeline, first, payloads in stretches(folded, 0, len(folded.events)):
            computed = live.compute(pipeline, first, payloads)
            derived = deriving.derive(pipeline, first, Records.pack(payloads))
            assert list(derived) == [computed.outputs]

    @pytest.mark.parametrize(
        "way",
        [
            lambda machine, records: machine.replay(0, 5, records),
            lambda machine, records: list(machine.derive(0, 5, records)),
        ],
        ids=["replay", "derive"],
    )
    def test_an_event_that_no_longer_decodes_is_named(
        self, way: Callable[[Machine, Records], object]
    ) -> None:
        """A logged event that decode refuses now stops the replay, by its sequence."""
        with pytest.raises(ReplayError) as caught:
            way(toy.machine(), Records.pack([b"p", b"r"]))
        assert caught.value.sequence == 6

    @pytest.mark.parametrize("fatal", FATAL)
    def test_a_fatal_error_ends_a_replay(self, fatal: type[BaseException]) -> None:
        """What says that the process is unwell goes up from a replay too."""
        one = Records.pack([b"a"])
        with pytest.raises(fatal):
            Parts(computes=(raiser(fatal()),)).machine().replay(0, 1, one)


class TestStates:
    """States as bytes."""

    def test_states_shared_by_pipelines_are_one(self) -> None:
        """A state that two pipelines name sees the events of both."""
        machine = toy.machine()
        folded = toy.fold((0, b"p1"), (1, b"p2"), (0, b"p3"))
        run(machine, folded)
        assert machine.state_names == ("shared", "own")
        assert machine.state("shared").count == 3
        assert machine.state("own").count == 1

    def test_a_fresh_machine_is_another(self) -> None:
        """A fresh machine begins before the first event, and shares nothing."""
        machine = toy.machine()
        before = machine.dump()
        machine.compute(0, 1, [b"p"])
        assert machine.fresh().dump() == before != machine.dump()
        machine.reset()
        assert machine.dump() == before

    @pytest.mark.parametrize(
        "states",
        [
            [],
            [State("shared", "dump", bytes(12))],
            [State(name, "dump", bytes(12)) for name in ("shared", "own", "more")],
            [State("shared", "dump", bytes(12)), State("own", "pickle", bytes(12))],
            [State("shared", "dump", bytes(12)), State("own", "dump", bytes(11))],
        ],
    )
    def test_states_that_cannot_be_loaded_change_nothing(
        self, states: list[State]
    ) -> None:
        """Missing, unknown, damaged or otherwise stored states are a StateError."""
        machine = toy.machine()
        machine.compute(0, 1, [b"p"])
        before = machine.dump()
        with pytest.raises(StateError):
            machine.load(states)
        assert machine.dump() == before

    def test_a_state_that_cannot_be_dumped_is_named(self) -> None:
        """A dump that raises is a StateError with the state's name and the cause."""
        machine = Parts().machine(
            SimpleNamespace(serialize=raiser(ValueError("no")), deserialize=list)
        )
        with pytest.raises(StateError, match=r"state 'list'.*ValueError: no"):
            machine.dump()

    @pytest.mark.parametrize("fatal", FATAL)
    def test_a_fatal_error_is_no_state_error(self, fatal: type[BaseException]) -> None:
        """What says that the process is unwell goes up from dump and load."""
        fail = raiser(fatal())
        machine = Parts().machine(SimpleNamespace(serialize=fail, deserialize=fail))
        with pytest.raises(fatal):
            machine.dump()
        with pytest.raises(fatal):
            machine.load([State("list", "module", b"")])

    def test_what_goes_through_pickle_is_said(self) -> None:
        """States without a way of their own are named; others are not."""
        assert Parts().machine().pickled == ["list"]
        assert toy.machine().pickled == []


class TestFacts:
    """What an application says of itself."""

    def test_alphabets_own(self) -> None:
        """Alphabet has its name, its schema, its version and one pipeline."""
        machine = load_machine(None, [])
        assert machine.application == "alphabet"
        assert machine.record_schema == ">sI"
        assert machine.state_version == application.STATE_VERSION
        assert machine.pipeline_names == ("alphabet",)

    def test_what_is_not_said(self) -> None:
        """Records are opaque and the version is 1 where nothing is said."""
        machine = Parts().machine()
        assert (machine.record_schema, machine.state_version) == (OPAQUE, 1)
        assert Parts().machine(SimpleNamespace(STATE_VERSION=7)).state_version == 7


class TestDescribe:
    """An error as a cause."""

    @pytest.mark.parametrize(
        ("error", "text"),
        [
            (ValueError(), "ValueError"),
            (ValueError("a\n  b\tc"), "ValueError: a b c"),
            (KeyError("k"), "KeyError: 'k'"),
            (ValueError("\x1b[2J\ud800"), "ValueError: \ufffd[2J\ufffd"),
        ],
    )
    def test_it_is_one_line(self, error: Exception, text: str) -> None:
        """A cause is the error's name and its text, on one line, safe to print."""
        assert describe(error) == text

    def test_it_is_short(self) -> None:
        """A cause is bounded, whatever the error quotes."""
        text = describe(ValueError("x" * 1_000_000))
        assert len(text) == CAUSE_CHARS_MAX
        assert text.startswith("ValueError: xxx")

    def test_an_error_that_cannot_be_written_has_its_name(self) -> None:
        """An error whose own text raises is still a cause."""

        class MuteError(Exception):
            def __str__(self) -> str:
                raise ValueError

        assert describe(MuteError()) == "MuteError"
