"""Seeded runs of the whole server in one thread: any step may be its last.

What is checked is in `tests.simulator`. A seed that fails is shortened, and told turn
by turn; `python -m tests.simulate --seed N` tells it again. `ALPHABET_SOAK` goes on for
`ALPHABET_SIMULATION_SECONDS` (default 600); `ALPHABET_SEED` is the first seed.
"""

import itertools
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults import Fault
from tests.process import SECONDS_MAX
from tests.simulator import schedule, twin
from tests.simulator.ledger import BrokenPromiseError
from tests.simulator.schedule import Plan

FIRST_SEED = int(os.environ.get("ALPHABET_SEED", "0"))
SEEDS = 1000
SOAK_SECONDS = float(os.environ.get("ALPHABET_SIMULATION_SECONDS", "600"))
ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def _without_flushes() -> Iterator[None]:
    """Let snapshots be files that are never flushed."""
    with schedule.without_flushes():
        yield


def seeds() -> Iterator[int]:
    """Give the seeds: so many, or as many as there is time for."""
    if not os.environ.get("ALPHABET_SOAK"):
        yield from range(FIRST_SEED, FIRST_SEED + SEEDS)
        return
    until = time.monotonic() + SOAK_SECONDS
    for seed in itertools.count(FIRST_SEED):
        if time.monotonic() >= until:
            return
        yield seed


def test_every_promise_is_kept_whatever_happens(tmp_path: Path) -> None:
    """In no run is a promise broken, and all that can happen has happened in these."""
    seen: Counter[str] = Counter()
    for seed in seeds():
        path = tmp_path / str(seed)
        path.mkdir()
        plan = Plan.of(seed)
        try:
            world = schedule.play(plan, path)
        except Exception as error:
            error.add_note(schedule.report(schedule.shortest(plan)))
            raise
        seen.update(world.seen)
    assert {f"commit {fault.name}" for fault in Fault} <= seen.keys()
    assert {"crash", "cut", "stall", "stop", "clock"} <= seen.keys()
    assert {"refusal 0", "refusal 1", "refusal 2"} <= seen.keys()
    peers = ["PlainSender", "StreamSender", "PlainReceiver", "TwoPhaseReceiver"]
    assert {f"{peer} dies" for peer in peers} <= seen.keys()


def test_a_seed_is_the_same_run_in_every_process() -> None:
    """A seed's digest of all that happens is the same, whatever strings hash to."""
    first, count = 40, 15
    command = [sys.executable, "-m", "tests.simulate", "--digest"]
    found = [
        subprocess.run(
            [*command, "--seed", str(first), "--count", str(count)],
            cwd=ROOT,
            env=os.environ | {"PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            timeout=SECONDS_MAX,
            check=True,
        ).stdout.split()[1::2]
        for hash_seed in ("1", "2")
    ]
    assert found[0] == found[1] == schedule.digests(range(first, first + count))
    assert len(set(found[0])) == count


def connect_at_once(_: object) -> None:
    """Be `ConnectorSink._await_decision`, which waits for nothing."""


def take_half_for_whole(reception: Any, connection: Any) -> None:  # noqa: ANN401
    """Be `Reception._half_closed`, which does not look at what is left."""
    connection.unwatch()
    reception.host.half_closed(connection)


@pytest.mark.parametrize(
    ("owner", "name", "stand_in", "seen"),
    [
        ("sink.ConnectorSink", "_await_decision", connect_at_once, "aborted"),
        ("inbox.Inbox", "is_full", property(lambda _: False), "the inbox is beyond"),
        ("feed.Feed", "has_room", lambda _: True, "is not let go"),
        ("reception.Reception", "_half_closed", take_half_for_whole, "a receipt for"),
    ],
)
def test_bounds_and_orders_that_are_left_out_are_seen(
    owner: str, name: str, stand_in: object, seen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run breaks where a wait, a bound or a look is left out of the server."""
    module, of = owner.split(".")
    monkeypatch.setattr(getattr(getattr(twin.load(), module), of), name, stand_in)
    found = map(schedule.failure, map(Plan.of, range(SEEDS)))
    assert any(seen in str(each) for each in found if each is not None)


def release_too_early(server: Any, batch: Any) -> None:  # noqa: ANN401
    """Be `Server._commit_step`, with its first two steps in the wrong order."""
    for sink in server.sinks:
        sink.subscription.feed.push(batch.outputs, batch.last_sequence)
    server._store(batch)  # noqa: SLF001 - it stands in for a method
    server.engine.flushed()
    released = server.engine.release()
    for settle in server.settlers:
        settle(released.receipts)
    if released.capture is not None:
        server.snapshotter.submit(released.capture)


def test_a_planted_bug_is_found_and_told_in_few_turns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Outputs that leave before the flush break a run, which shrinks to a few turns."""
    server: Any = twin.load().server.Server
    monkeypatch.setattr(server, "_commit_step", release_too_early)
    broken = (plan for plan in map(Plan.of, range(200)) if schedule.failure(plan))
    plan = next(broken)
    short = schedule.shortest(plan)
    assert isinstance(schedule.failure(short), BrokenPromiseError)
    assert len(short.turns) <= 15 < len(plan.turns)
    told = schedule.report(short)
    assert told.startswith(f"seed {plan.seed}, {len(short.turns)} turns")
    assert "is not durable" in told.splitlines()[-1]
