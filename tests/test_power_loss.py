"""The power fails under the real log, again and again, and nothing promised is lost.

Three scenes: votes are counted, with a log's creation, snapshots and a restart; a log
is compacted; it is backed up, and the copy brought up to it. `tests/power_scenes.py`
says what is promised, `tests/lossy_disk.py` what a power failure may do.
"""

import os
import random
from pathlib import Path

import pytest

from tests.power_loss import CORNERS, plan, record, survive
from tests.system_calls import Mark, Operation, Removed

IS_SOAK = bool(os.environ.get("ALPHABET_SOAK"))
STATES = {"count": 200, "compact": 15, "backup": 30}
STATES_FLAWED = 25


@pytest.fixture
def seed() -> int:
    """Give a seed that is shown when the test fails; ALPHABET_SEED repeats one."""
    chosen = int(os.environ.get("ALPHABET_SEED") or random.randrange(2**32))
    print(f"to repeat this: ALPHABET_SEED={chosen}")  # noqa: T201 - pytest shows it
    return chosen


class TestPowerLoss:
    """What is found when the power is back."""

    @pytest.mark.parametrize("scene", STATES)
    def test_nothing_promised_is_lost(
        self, tmp_path: Path, scene: str, seed: int
    ) -> None:
        """Every state of the disk has what was promised, is sound, and goes on."""
        states = STATES[scene] * (100 if IS_SOAK else 1)
        verdicts = survive(record(scene, tmp_path), states, seed)
        assert [verdict.state for verdict in verdicts] == list(range(states))
        assert [each.fault for each in verdicts if each.fault] == []

    @pytest.mark.parametrize("flaw", ["sync", "metasync", "fsync"])
    def test_a_flush_left_out_is_seen(self, tmp_path: Path, flaw: str) -> None:
        """Where LMDB flushes less, or files and names are not flushed, it is seen."""
        verdicts = survive(record("count", tmp_path, flaw), STATES_FLAWED, 1)
        assert len(verdicts) == STATES_FLAWED
        assert [each for each in verdicts if each.fault is None]
        lost = [each for each in verdicts if " was committed, and " in str(each.fault)]
        assert lost, verdicts


class TestPlan:
    """Which states are tried."""

    def test_corners_and_moments_are_all_met(self) -> None:
        """Many states meet every corner, and all moments behind the beginning."""
        marks = [Mark("other 1\n"), Mark("begin 1\n")]
        operations: list[Operation] = [*marks, *[Removed("a")] * 10]
        planned = plan(operations, "begin", 2000, seed=1)
        assert {loss for _, loss, _ in planned} >= set(CORNERS)
        moments = [moment for moment, _, _ in planned]
        assert moments == sorted(moments)
        assert set(moments) == set(range(1, len(operations) + 1))
