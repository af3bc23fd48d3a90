"""Runs from seeds: a schedule is a list of numbers, and each number is one turn.

A number means the same whatever stands before it is left out, as far as that can be: so
a schedule that fails is shortened by leaving turns out.
"""

import bisect
import contextlib
import itertools
import random
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from unittest import mock

import attrs

from tests import toy
from tests.simulator import twin
from tests.simulator.peers import (
    FOUL_FRAME,
    HALF_FRAME,
    PlainSender,
    StreamSender,
)
from tests.simulator.world import Draw, World

TURNS_MIN, TURNS_MAX = 50, 130
TRIES_MAX = 400

WEIGHTS: dict[Callable[[World, Draw], None], int] = {
    World.run_task: 300,
    World.deliver: 120,
    World.step_peer: 150,
    World.flow: 250,
    World.pass_time: 40,
}
TROUBLES: dict[Callable[[World, Draw], None], int] = {
    World.crash: 6,
    World.fail_commit: 4,
    World.cut: 6,
    World.kill_peer: 8,
    World.refuse: 3,
    World.press: 1,
    World.set_clock: 1,
    World.stop: 2,
}


@attrs.frozen
class Plan:
    """All that a run is: the same plan is the same run."""

    seed: int
    turns: tuple[int, ...]

    @classmethod
    def of(cls, seed: int) -> "Plan":
        """Make the plan of a seed."""
        chance = random.Random(seed)
        count = chance.randrange(TURNS_MIN, TURNS_MAX)
        return cls(seed, tuple(chance.getrandbits(60) for _ in range(count)))

    def begin(self, path: Path, told: list[str] | None = None) -> World:
        """Make the world that it begins with."""
        chance = random.Random(self.seed ^ 0x5EED)
        world = World(path, chance.choice([1, 3, 10]), told)
        for number in range(chance.randrange(1, 4)):
            payloads = _payloads(chance, b"p%d" % number)
            tail = chance.choice([b""] * 6 + [FOUL_FRAME, HALF_FRAME])
            world.plain_senders.append(
                PlainSender(
                    world.network, world.ledger, b"p%d" % number, payloads, tail
                )
            )
        for number in range(chance.randrange(1, 3)):
            payloads = _payloads(chance, b"s%d" % number)
            world.stream_senders.append(
                StreamSender(
                    world.network,
                    world.ledger,
                    number,
                    b"s%d" % number,
                    payloads,
                    chance.random() < 0.3,
                )
            )
        return world

    def kinds(self) -> tuple[list[Callable[[World, Draw], None]], list[int]]:
        """Give what may happen, and the sums of how likely each is.

        Each seed has troubles of its own: some none at all, some many of few kinds.
        """
        chance = random.Random(self.seed ^ 0xC405)
        factor = chance.choice([0, 3, 6, 12])
        weights = WEIGHTS | {
            kind: weight * factor * chance.randrange(3)
            for kind, weight in TROUBLES.items()
        }
        return [*weights], [*itertools.accumulate(weights.values())]


def _payloads(chance: random.Random, source: bytes) -> list[bytes]:
    wishes = [*toy.OUTPUT_WISHES * 3, *toy.EVENT_WISHES, toy.REFUSED]
    return [
        chance.choice(wishes) + source + bytes([number]) + chance.randbytes(3)
        for number in range(chance.randrange(1, 12))
    ]


def play(plan: Plan, path: Path, told: list[str] | None = None) -> World:
    """Play a plan in a directory that is there and empty; raises what breaks it."""
    twin.begin()
    world = plan.begin(path, told)
    kinds, limits = plan.kinds()
    try:
        for turn in plan.turns:
            draw = Draw(turn)
            kind = kinds[bisect.bisect_right(limits, draw.below(limits[-1]))]
            kind(world, draw)
            world.check()
        world.finish()
    finally:
        world.close()
    return world


@contextlib.contextmanager
def without_flushes() -> Iterator[None]:
    """Let files be written without a flush: no power fails here."""
    with mock.patch("os.fsync"):
        yield


def failure(plan: Plan) -> BaseException | None:
    """Play a plan in a directory of its own; give what broke it."""
    with tempfile.TemporaryDirectory() as path:
        try:
            play(plan, Path(path))
        except Exception as error:  # noqa: BLE001 - whatever breaks a run
            return error
    return None


def shortest(plan: Plan, tries: int = TRIES_MAX) -> Plan:
    """Leave out turns as long as the plan still fails in the same way.

    Halves first, then ever smaller pieces, down to single turns; `tries` bounds the
    runs that it takes.
    """
    wanted = type(failure(plan))
    size = len(plan.turns) // 2
    while size and tries:
        at, before = 0, len(plan.turns)
        while at < len(plan.turns) and tries:
            tries -= 1
            shorter = _without(plan, at, size)
            if type(failure(shorter)) is wanted:
                plan = shorter
            else:
                at += size
        # Single turns are tried until none can be left out.
        size = size // 2 if size > 1 or len(plan.turns) == before else 1
    return plan


def _without(plan: Plan, at: int, size: int) -> Plan:
    return attrs.evolve(plan, turns=plan.turns[:at] + plan.turns[at + size :])


def report(plan: Plan) -> str:
    """Tell what a plan does, turn by turn, and how it ends."""
    told: list[str] = []
    with tempfile.TemporaryDirectory() as path:
        try:
            world = play(plan, Path(path), told)
        except Exception as error:  # noqa: BLE001 - whatever breaks a run
            ending = f"{type(error).__name__}: {error}"
        else:
            ending = f"it ends well, digest {world.digest.hexdigest()}"
    return "\n".join([f"seed {plan.seed}, {len(plan.turns)} turns", *told, ending])


def digests(seeds: Sequence[int]) -> list[str]:
    """Give the digests of the runs of seeds."""
    found: list[str] = []
    for seed in seeds:
        with tempfile.TemporaryDirectory() as path:
            found.append(play(Plan.of(seed), Path(path)).digest.hexdigest())
    return found
