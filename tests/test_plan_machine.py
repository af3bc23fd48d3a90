"""Applications of any shape between the sources and the log, crashes included.

Live = replayed, and a sink's outputs, derived from the log or live, are what a reader
of plans says that they must be. What is checked, and when, is in `tests.engine_steps`.
"""

import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule

from log.block import Records
from tests import generated, toy
from tests.engine_steps import Simulation
from tests.generated import PIPELINES_MAX, Plan
from tests.test_engine_machine import EngineMachine

lots = st.lists(
    st.tuples(
        st.integers(0, PIPELINES_MAX - 1),
        st.lists(generated.inputs, min_size=1, max_size=4),
    ),
    max_size=4,
)


@pytest.fixture(autouse=True)
def _do_not_flush(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spare the disk: no power fails here."""
    monkeypatch.setattr("os.fsync", lambda _: None)


class PlanMachine(EngineMachine):
    """Every step of a server of any application, in any order."""

    @initialize(
        plan=generated.plans,
        snapshot_every=st.integers(1, 5),
        sink_pipelines=st.none() | st.frozensets(st.integers(0, PIPELINES_MAX - 1)),
    )
    def begin(
        self,
        plan: Plan,
        snapshot_every: int,
        sink_pipelines: frozenset[int] | None,
    ) -> None:
        """Begin with an empty log."""
        path = self.resources.enter_context(tempfile.TemporaryDirectory())
        self.run = Simulation(Path(path), snapshot_every, plan, sink_pipelines)

    @rule(lots=lots, seconds=st.sampled_from([0.0, 0.4, 1.0]))
    def take(self, lots: list[tuple[int, list[bytes]]], seconds: float) -> None:
        """Take what arrived, for several pipelines at once."""
        assert self.run.plan is not None
        count = len(self.run.plan.pipelines)
        arrivals = [
            toy.received(*payloads, pipeline=number % count)
            for number, payloads in lots
        ]
        self.run.wait(seconds)
        self.run.take(arrivals)


TestPlanMachine = PlanMachine.TestCase


@given(
    generated.plans,
    st.lists(st.tuples(st.integers(0, 2), generated.payloads), min_size=5),
    st.data(),
)
def test_live_is_replayed(
    plan: Plan, made: list[toy.Event], data: st.DataObject
) -> None:
    """Any application's states, marks and outputs are its plan's, live or again."""
    events = [(number % len(plan.pipelines), payload) for number, payload in made]
    folded = plan.fold(*events)
    live, derived, replayed = plan.machine(), plan.machine(), plan.machine()
    for sequence, (number, payload) in enumerate(events, 1):
        records = Records.pack([payload])
        computed = live.compute(number, sequence, [payload])
        assert computed.outputs.data == folded.outputs[sequence - 1]
        assert list(derived.derive(number, sequence, records)) == [computed.outputs]
        replayed.replay(number, sequence, records)
        if data.draw(st.booleans()):
            replayed.load(replayed.dump())
        assert {f.sequence for f in computed.failures} == folded.failures.keys() & {
            sequence
        }
        for machine in (live, derived, replayed):
            assert toy.state_bytes(machine) == folded.states_at(sequence)
            assert machine.is_marked == folded.marks[sequence - 1]
