"""The engine between the sources and the log, under any order of steps and crashes.

What is checked, and when, is in `tests.engine_steps`.
"""

import contextlib
import tempfile
from pathlib import Path

import attrs
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
)

from alphabet.arrival import Arrival, End, Refusal
from tests import toy
from tests.engine_steps import Simulation
from tests.faults import Fault
from tests.samples import REJECT

connections = st.sampled_from(["a", "b"])
received = st.builds(
    lambda payloads, pipeline, connection: toy.received(
        *payloads, pipeline=pipeline, connection=connection
    ),
    st.lists(toy.inputs, min_size=1, max_size=4),
    toy.pipelines,
    connections,
)
refusals = st.builds(
    Refusal, connections, st.just(attrs.evolve(REJECT, reason="frame"))
)
arrivals = st.lists(
    st.one_of(received, received, received, refusals, st.builds(End, connections)),
    max_size=4,
)


@pytest.fixture(autouse=True)
def _do_not_flush(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spare the disk: no power fails here."""
    monkeypatch.setattr("os.fsync", lambda _: None)


class EngineMachine(RuleBasedStateMachine):
    """Every step of a server, in any order in which it can be taken."""

    def __init__(self) -> None:
        super().__init__()
        self.resources = contextlib.ExitStack()

    @initialize(snapshot_every=st.integers(1, 5))
    def begin(self, snapshot_every: int) -> None:
        """Begin with an empty log."""
        path = self.resources.enter_context(tempfile.TemporaryDirectory())
        self.run = Simulation(Path(path), snapshot_every)

    def teardown(self) -> None:
        """Let everything go."""
        self.resources.close()

    @rule(arrivals=arrivals, seconds=st.sampled_from([0.0, 0.4, 1.0]))
    def take(self, arrivals: list[Arrival], seconds: float) -> None:
        """Take what arrived."""
        self.run.wait(seconds)
        self.run.take(arrivals)

    @precondition(lambda self: self.run.may_seal)
    @rule()
    def seal(self) -> None:
        """Close the open batch."""
        self.run.seal()

    @precondition(lambda self: self.run.may_commit)
    @rule()
    def commit(self) -> None:
        """Store the oldest sealed batch."""
        self.run.commit()

    @precondition(lambda self: self.run.may_commit)
    @rule(fault=st.sampled_from(Fault))
    def commit_in_vain(self, fault: Fault) -> None:
        """Fail to store it, or have it stored and not know."""
        self.run.commit(fault)

    @precondition(lambda self: self.run.may_flush)
    @rule()
    def flush(self) -> None:
        """Tell the engine of what is durable."""
        self.run.flush()

    @precondition(lambda self: self.run.may_release)
    @rule()
    def release(self) -> None:
        """Let durable outputs leave."""
        self.run.release()

    @precondition(lambda self: self.run.may_snapshot)
    @rule(
        crash_at=st.sampled_from(
            [None, None, "snapshot.before_rename", "snapshot.after_rename"]
        )
    )
    def snapshot(self, crash_at: str | None) -> None:
        """Write a snapshot, or crash while it is written."""
        self.run.snapshot(crash_at)

    @rule()
    def crash(self) -> None:
        """End the process, and start another."""
        self.run.crash()

    @rule()
    def come_to_rest(self) -> None:
        """Bring all that is under way to its end, and start again."""
        self.run.finish()

    @rule(outstanding=st.integers(0, 30))
    def serve_sink(self, outstanding: int) -> None:
        """Give the sink something, of which some arrives."""
        self.run.serve_sink()
        self.run.acknowledge_sink(outstanding)

    @rule(is_reset=st.booleans())
    def trouble_sink(self, *, is_reset: bool) -> None:
        """Reset the sink's connection, or let it go because it is slow."""
        if is_reset:
            self.run.reset_sink()
        else:
            self.run.let_go_sink()


TestEngineMachine = EngineMachine.TestCase
