"""The batch form of a pipeline: when there is one, and how it is used."""

from types import SimpleNamespace
from typing import Any

import attrs
import numpy as np
import pytest

from alphabet.framing import Rows
from alphabet.pipeline.batch import EVENTS_MIN, BatchMethods, find_batch_methods
from alphabet.pipeline.machine import Machine
from alphabet.wallaroo import Pipeline, StatefulStep
from log.block import Records
from tests import toy
from tests.machines import alphabet
from tests.speeds import batch_toy, batches, only, small_bounds, without_batch_methods


def rows_of(*payloads: bytes) -> Rows:
    """Put payloads of one size into rows."""
    return np.frombuffer(b"".join(payloads), np.uint8).reshape(len(payloads), -1)


def batch_pipeline() -> Pipeline:
    """Give a pipeline that has every batch method."""
    return batch_toy().definition.pipelines[0]


def found(pipeline: Pipeline) -> BatchMethods:
    """Give the batch methods that there must be."""
    methods = find_batch_methods(pipeline)
    assert methods is not None
    return methods


class TestFind:
    """What a pipeline offers."""

    def test_all_of_it_is_found(self) -> None:
        """A pipeline whose components have each their batch method has a batch form."""
        pipeline = batch_pipeline()
        methods = found(pipeline)
        [step] = pipeline.steps
        assert isinstance(step, StatefulStep)
        assert methods.state_name == "shared"
        outputs, flags = methods.compute(
            methods.decode(rows_of(b"p1", b"m2")), step.state_builder.build()
        )
        folded = toy.fold((0, b"p1"), (0, b"m2"))
        assert methods.encode(outputs).tobytes() == b"".join(folded.outputs)
        assert flags.tolist() == folded.marks

    def test_alphabets_own_has_it(self) -> None:
        """The tutorial's pipeline has a batch form, with a way of its own to replay."""
        [pipeline] = alphabet().definition.pipelines
        methods = found(pipeline)
        assert methods.replay != methods.compute

    def test_without_a_replay_of_its_own(self) -> None:
        """Where there is no `replay_batch`, `compute_batch` replays."""
        methods = found(batch_pipeline())
        assert methods.replay == methods.compute

    @pytest.mark.parametrize("missing", ["decoder", "encoder", "computation"])
    def test_a_missing_one_is_no_batch_form(self, missing: str) -> None:
        """A pipeline that lacks one of the three methods goes event by event."""
        pipeline = batch_pipeline()
        [step] = pipeline.steps
        source, sink = pipeline.source, pipeline.sink
        match missing:
            case "decoder":
                names = ("header_length", "payload_length", "decode")
                source = attrs.evolve(source, decoder=only(source.decoder, *names))
            case "encoder":
                sink = attrs.evolve(sink, encoder=only(sink.encoder, "encode"))
            case _:
                computation = only(step.computation, "name", "compute")
                step = attrs.evolve(step, computation=computation)
        less = attrs.evolve(pipeline, source=source, sink=sink, steps=(step,))
        assert find_batch_methods(less) is None

    def test_a_pipeline_of_several_steps_has_none(self) -> None:
        """Only a pipeline of one step has a batch form."""
        [one, two] = batch_toy().definition.pipelines
        assert find_batch_methods(one) is not None
        assert find_batch_methods(two) is None
        assert find_batch_methods(attrs.evolve(one, steps=())) is None


@pytest.fixture
def machine() -> Machine:
    """Give the toy with its batch methods."""
    return batch_toy()


class TestComputeRows:
    """A machine that takes rows."""

    def test_it_says_for_which_pipeline(self, machine: Machine) -> None:
        """A pipeline without a batch form is said to have none, and takes no rows."""
        assert [machine.has_batch(0), machine.has_batch(1)] == [True, False]
        assert machine.compute_rows(1, 1, rows_of(*[b"p"] * 100)) is None
        assert not without_batch_methods(machine).has_batch(0)

    @pytest.mark.parametrize("count", [EVENTS_MIN - 1, EVENTS_MIN])
    def test_a_few_go_one_by_one(self, machine: Machine, count: int) -> None:
        """Fewer events than the bound are no batch; as many as it are."""
        outputs = machine.compute_rows(0, 1, rows_of(*[b"p"] * count))
        assert (outputs is not None) == (count >= EVENTS_MIN)
        assert batches(machine) == [count] * (count >= EVENTS_MIN)

    def test_outputs_are_the_events(self, machine: Machine) -> None:
        """A batch's outputs have its first sequence, and an end for each event."""
        folded = toy.fold(*[(0, b"p%02d" % number) for number in range(100)])
        rows = rows_of(*[payload for _, payload in folded.events])
        outputs = machine.compute_rows(0, 7, rows)
        assert outputs is not None
        assert (outputs.first_sequence, outputs.last_sequence) == (7, 106)
        assert bytes(outputs.data) == b"".join(folded.outputs)
        ends = [sum(map(len, folded.outputs[: at + 1])) for at in range(100)]
        assert list(outputs.ends) == ends
        assert toy.state_bytes(machine) == folded.states_at(100)

    @pytest.mark.parametrize("last", [toy.PLAIN, toy.MARKED])
    def test_the_mark_is_the_last_events(self, machine: Machine, last: bytes) -> None:
        """Whether the state may be kept is what the last event says."""
        other = toy.MARKED if last == toy.PLAIN else toy.PLAIN
        machine.compute_rows(0, 1, rows_of(*[other] * 99, last))
        assert machine.is_marked == (last == toy.MARKED)

    @pytest.mark.parametrize("wish", [toy.REFUSED, toy.FAILING, toy.SILENT])
    def test_what_cannot_be_a_batch_changes_nothing(
        self, machine: Machine, wish: bytes
    ) -> None:
        """Where one event makes the batch raise, no event was taken."""
        before = machine.dump()
        assert machine.compute_rows(0, 1, rows_of(*[b"m"] * 99, wish)) is None
        assert machine.dump() == before
        assert not machine.is_marked


class TestReplay:
    """Records taken as batches."""

    @pytest.mark.parametrize("last", [toy.PLAIN, toy.MARKED])
    def test_the_last_event_is_asked(self, machine: Machine, last: bytes) -> None:
        """A replay in batches knows whether the last event was marked."""
        machine.replay(0, 1, Records.pack([toy.MARKED] * 99 + [last]))
        assert machine.is_marked == (last == toy.MARKED)
        assert batches(machine) == [99]

    def test_a_gap_of_any_size_is_nothing(self, machine: Machine) -> None:
        """A gap has no events, and takes no time, however many were lost in it."""
        machine.compute(0, 1, [toy.MARKED])
        before = machine.dump()
        gap = Records.gap(2**63)
        machine.replay(0, 2, gap)
        assert list(machine.derive(0, 2, gap)) == []
        assert machine.dump() == before
        assert machine.is_marked

    def test_records_of_several_sizes(self, machine: Machine) -> None:
        """Records of different sizes are replayed and derived one by one, in order."""
        payloads = [b"p" * size for size in range(1, 30)]
        folded = toy.fold(*[(0, payload) for payload in payloads])
        with small_bounds():
            machine.replay(0, 1, Records.pack(payloads))
            derived = list(machine.fresh().derive(0, 1, Records.pack(payloads)))
        assert toy.state_bytes(machine) == folded.states_at(len(payloads))
        data = b"".join(outputs.data for outputs in derived)
        assert data == b"".join(folded.outputs)

    def test_a_computation_may_have_its_own(self) -> None:
        """A `replay_batch` is what a replay calls, and live events never do."""
        seen: list[int] = []
        machine = batch_toy()
        step: Any
        [step] = machine.definition.pipelines[0].steps
        computation = SimpleNamespace(
            name=lambda: "n",
            compute=step.computation.compute,
            compute_batch=getattr(step.computation, "compute_batch"),  # noqa: B009
            replay_batch=lambda data, _state: seen.append(len(data)),
        )
        pipeline = attrs.evolve(
            machine.definition.pipelines[0],
            steps=(attrs.evolve(step, computation=computation),),
        )
        other = Machine(attrs.evolve(machine.definition, pipelines=(pipeline,)))
        other.compute_rows(0, 1, rows_of(*[b"p"] * 100))
        assert seen == []
        other.replay(0, 1, Records.pack([b"p"] * 100))
        assert seen == [99]
