"""Seeded runs of a whole server: two batches in flight, a crash between any two steps.

What is checked, and when, is in `tests.simulation`. A seed that fails is named.
`ALPHABET_SOAK` runs many more.
"""

import os
import random
from collections import Counter
from pathlib import Path

import attrs
import pytest

from alphabet.arrival import Arrival, End, Refusal
from tests import toy
from tests.faults import Fault
from tests.samples import REJECT
from tests.simulation import IN_FLIGHT_MAX, Simulation

SEEDS = range(20_000 if os.environ.get("ALPHABET_SOAK") else 300)
STEPS = 250


@attrs.define
class Run:
    """One run: steps at random, each as likely as its weight says.

    `counts` tells how often each came, and how often it came to what.
    """

    chance: random.Random
    simulation: Simulation
    counts: Counter[str] = attrs.Factory(Counter)

    def play(self, steps: int) -> None:
        """Take steps, and finish."""
        weights = {
            self.take: 4,
            self.seal: 5,
            self.commit: 6,
            self.flush: 6,
            self.release: 6,
            self.snapshot: 4,
            self.serve_sink: 5,
            self.trouble_sink: 1,
            self.crash: 0.5,
        }
        for step in self.chance.choices([*weights], [*weights.values()], k=steps):
            step()
            self.counts[step.__name__] += 1
            if len(self.simulation.life.sealed) == IN_FLIGHT_MAX:
                self.counts["two in flight"] += 1
        self.simulation.finish()

    def take(self) -> None:
        """Take what arrived, some time later."""
        self.simulation.wait(self.chance.choice([0.0, 0.3, 1.0]))
        count = self.chance.randrange(4)
        self.simulation.take([self.arrival() for _ in range(count)])

    def arrival(self) -> Arrival:
        """Make an arrival, mostly of good events."""
        connection = self.chance.choice("ab")
        kind = self.chance.randrange(10)
        if kind == 0:
            return Refusal(connection, attrs.evolve(REJECT, reason="frame"))
        if kind == 1:
            return End(connection)
        wishes = [*toy.OUTPUT_WISHES * 5, *toy.EVENT_WISHES, toy.REFUSED]
        payloads = [
            self.chance.choice(wishes) + self.chance.randbytes(3)
            for _ in range(self.chance.randrange(1, 6))
        ]
        pipeline = self.chance.randrange(2)
        return toy.received(*payloads, pipeline=pipeline, connection=connection)

    def seal(self) -> None:
        """Close the open batch, if another may be in flight."""
        if self.simulation.may_seal:
            self.simulation.seal()

    def commit(self) -> None:
        """Store the oldest batch; one time in twenty it fails."""
        if self.simulation.may_commit:
            is_fault = self.chance.random() < 0.05
            fault = self.chance.choice([*Fault]) if is_fault else None
            self.simulation.commit(fault)
            self.counts[f"commit {fault}"] += 1

    def flush(self) -> None:
        """Tell the engine."""
        if self.simulation.may_flush:
            self.simulation.flush()

    def release(self) -> None:
        """Let outputs leave."""
        if self.simulation.may_release:
            self.simulation.release()

    def snapshot(self) -> None:
        """Write a snapshot; one time in five the process ends within."""
        if self.simulation.may_snapshot:
            instants = ["snapshot.before_rename", "snapshot.after_rename"]
            is_crash = self.chance.random() < 0.2
            self.simulation.snapshot(self.chance.choice(instants) if is_crash else None)
            self.counts["crash in snapshot" if is_crash else "snapshot kept"] += 1

    def serve_sink(self) -> None:
        """Give the sink something, of which some arrives."""
        self.simulation.serve_sink()
        self.simulation.acknowledge_sink(self.chance.choice([0, 0, 5, 50]))

    def trouble_sink(self) -> None:
        """Reset the sink's connection, or let it go because it is slow."""
        if self.chance.random() < 0.5:
            self.simulation.reset_sink()
        else:
            self.simulation.let_go_sink()

    def crash(self) -> None:
        """End the process, and start another."""
        self.simulation.crash()


def play(seed: int, path: Path) -> Counter[str]:
    """Play one seed in a new directory; a failure names it."""
    chance = random.Random(seed)
    path.mkdir()
    run = Run(chance, Simulation(path, chance.choice([1, 5, 20])))
    try:
        run.play(STEPS)
    except BaseException as error:
        error.add_note(f"seed {seed}: play({seed}, path) plays it again")
        raise
    return run.counts


def test_nothing_is_lost_whenever_it_crashes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Acknowledged is recovered, recovered was submitted, and outputs are the fold's.

    All that can happen has happened in these runs.
    """
    # No power fails here.
    monkeypatch.setattr("os.fsync", lambda _: None)
    counts: Counter[str] = Counter()
    for seed in SEEDS:
        counts += play(seed, tmp_path / str(seed))
    assert {f"commit {fault}" for fault in [None, *Fault]} <= counts.keys()
    assert min(counts.values()) > 0
    assert counts["two in flight"] > len(SEEDS)
    assert counts["snapshot kept"] > len(SEEDS) > counts["crash in snapshot"] > 0
