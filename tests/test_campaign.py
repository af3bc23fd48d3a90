"""The campaign: whatever is killed, cut or stalled, exactly once means exactly once."""

import contextlib
import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.blows import failpoints, failpoints_of, plan
from tests.campaign import ConnectorRound
from tests.plain_campaign import PlainRound

IS_SOAK = bool(os.environ.get("ALPHABET_SOAK"))
ROUNDS = 900 if IS_SOAK else 5
PLAIN_ROUNDS = 100 if IS_SOAK else 2
FIRST_SEED = random.randrange(2**32)


@contextlib.contextmanager
def told(campaign: ConnectorRound | PlainRound, seed: int) -> Iterator[None]:
    """Say of a failure how to repeat it and where its files are; else remove them."""
    try:
        yield
    except BaseException as error:
        error.add_note(f"to repeat this: ALPHABET_SEED={seed}")
        error.add_note(f"files: {campaign.place}")
        error.add_note(f"what happened: {'; '.join(campaign.told)}")
        raise
    shutil.rmtree(campaign.place)


def seed_of(turn: int) -> int:
    """Give the seed of a round; ALPHABET_SEED repeats one."""
    return int(os.environ.get("ALPHABET_SEED") or FIRST_SEED + turn)


class TestPlan:
    """What strikes."""

    def test_it_is_the_seeds(self) -> None:
        """The same seed makes the same blows."""
        armed = failpoints_of(1)
        one, other = (plan(random.Random(1), list(armed), armed, 9) for _ in range(2))
        assert one == other
        assert {name for blow in one for name in blow.armed} == armed.keys()

    def test_every_failpoint_has_its_turn(self) -> None:
        """Rounds in a row kill at each failpoint of the code."""
        everywhere = failpoints()
        turns = max(map(len, everywhere.values()))
        chosen = [failpoints_of(seed) for seed in range(5, 5 + turns)]
        for name, found in everywhere.items():
            assert {each[name] for each in chosen} == set(found) != set()


@pytest.mark.slow
class TestCampaign:
    """Senders, a server and a receiver that are struck at random, again and again."""

    @pytest.mark.parametrize("turn", range(ROUNDS))
    def test_exactly_once(self, tmp_path: Path, turn: int) -> None:
        """The receiver's file is what an undisturbed run writes, byte for byte."""
        seed = seed_of(turn)
        campaign = ConnectorRound.from_seed(seed, tmp_path, is_long=IS_SOAK)
        with told(campaign, seed):
            campaign.run()

    @pytest.mark.parametrize("turn", range(PLAIN_ROUNDS))
    def test_at_least_once(self, tmp_path: Path, turn: int) -> None:
        """The plain pair misses nothing, and repeats after a crash or a reset only."""
        seed = seed_of(turn)
        campaign = PlainRound.from_seed(seed, tmp_path, is_long=IS_SOAK)
        with told(campaign, seed):
            campaign.run()
