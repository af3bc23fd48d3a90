"""Whether the tests would notice: `python -m tests.mutants MODULE [COUNT [SEED]]`.

A copy of the checkout gets one mistake (`tests.mutation`), and the tests that look at
that module run there in a process of their own until one fails. A mutant survives if
none does; one that takes too long, or ends the process, is killed. COUNT mutants are
drawn by the seed; 0 is all of them. `make mutants PART=log/block.py` is the same.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import attrs

from tests.mutation import Mutant, mutants
from tests.process import ROOT, environment

COPIED = ("alphabet", "log", "recovery", "tests", "pyproject.toml", "docs", "README.md")
PYTEST = ("-qx", "-p", "no:cacheprovider", "--hypothesis-profile=unshrunk")
SECONDS_MIN = 20.0
SLOWER_MAX = 5
COUNT = 50
SEED = 1

TESTS = {
    "log/block.py": "block format_doc",
    "log/directory.py": "directory offline",
    "log/errors.py": "directory log_contract log_damage",
    "log/failpoint.py": "directory",
    "log/lmdb_check.py": "lmdb_tree lmdb_store tree_store",
    "log/lmdb_file.py": "lmdb_file lmdb_store",
    "log/lmdb_page.py": "lmdb_tree raw_pages",
    "log/lmdb_store.py": "lmdb_store store_contract tree_store",
    "log/lmdb_tree.py": "lmdb_tree store_contract",
    "log/log.py": "log_contract log_damage log_machine",
    "log/memory_store.py": "store_contract log_contract",
    "log/place.py": "file_place",
    "log/row.py": "row format_doc",
    "log/store.py": "store_contract log_contract",
    "log/tree_store.py": "tree_store",
    "recovery/archive.py": "archive compact",
    "recovery/backup.py": "backup",
    "recovery/child.py": "child replay_program",
    "recovery/cli.py": "replay_program",
    "recovery/commands/backup.py": "backup_command",
    "recovery/commands/compact.py": "compact_command",
    "recovery/commands/endless.py": "endless state_command",
    "recovery/commands/events.py": "events_command",
    "recovery/commands/export.py": "export_command follow_export",
    "recovery/commands/follow_export.py": "follow_export",
    "recovery/commands/import_.py": "import_command",
    "recovery/commands/info.py": "replay_cli",
    "recovery/commands/moment_type.py": "state_command events_command",
    "recovery/commands/place.py": "place",
    "recovery/commands/plot.py": "plot",
    "recovery/commands/progress.py": "progress",
    "recovery/commands/rejects.py": "rejects_command",
    "recovery/commands/rows.py": "rejects_command snapshots_command",
    "recovery/commands/salvage.py": "salvage_cli",
    "recovery/commands/snapshots.py": "snapshots_command",
    "recovery/commands/state.py": "state_command",
    "recovery/commands/totals.py": "state_command",
    "recovery/commands/verify.py": "replay_program replay_cli",
    "recovery/commands/watch.py": "state_command import_command",
    "recovery/compact.py": "compact",
    "recovery/copying.py": "copying",
    "recovery/counted.py": "counted",
    "recovery/damage/block_scan.py": "block_scan chain",
    "recovery/damage/chain.py": "chain",
    "recovery/damage/part_checksums.py": "part_checksums",
    "recovery/damage/raw_file.py": "raw_pages salvage",
    "recovery/damage/raw_pages.py": "raw_pages salvage",
    "recovery/damage/remains.py": "raw_pages salvage",
    "recovery/damage/row_scan.py": "raw_pages",
    "recovery/damage/salvage.py": "salvage",
    "recovery/damage/salvage_plan.py": "salvage_plan salvage",
    "recovery/description.py": "description",
    "recovery/errors.py": "replay snapshot",
    "recovery/event_reader.py": "event_reader",
    "recovery/event_text.py": "event_fields event_text",
    "recovery/exporting/continuous_export.py": "continuous_export",
    "recovery/exporting/event_columns.py": "export continuous_export",
    "recovery/exporting/export.py": "export export_command continuous_export",
    "recovery/exporting/intent.py": "continuous_export",
    "recovery/exporting/parquet_file.py": "export",
    "recovery/exporting/segment.py": "export",
    "recovery/exporting/tally.py": "continuous_export",
    "recovery/follower.py": "follower",
    "recovery/moment.py": "moment",
    "recovery/new_place.py": "compact backup",
    "recovery/picture/chart.py": "plot",
    "recovery/picture/history.py": "plot",
    "recovery/picture/label_places.py": "sampling plot",
    "recovery/picture/plot.py": "plot",
    "recovery/picture/sampling.py": "sampling",
    "recovery/picture/scales.py": "sampling",
    "recovery/picture/theme.py": "plot",
    "recovery/priority.py": "priority place",
    "recovery/replay.py": "replay recovery_machine",
    "recovery/room.py": "room",
    "recovery/snapshot.py": "snapshot snapshot_directory",
    "recovery/snapshot_directory.py": "snapshot_directory replay",
    "recovery/snapshot_list.py": "snapshots_command",
    "recovery/verify.py": "verify",
}
"""Which tests look at a module; each name is that of a file `tests/test_NAME.py`."""


@attrs.frozen
class Ground:
    """A copy of the checkout, where one module is changed and its tests run."""

    root: Path
    module: str

    @classmethod
    def make(cls, root: Path, module: str) -> "Ground":
        """Copy what the tests need."""
        for name in COPIED:
            source, target = ROOT / name, root / name
            if source.is_dir():
                ignored = shutil.ignore_patterns("__pycache__")
                shutil.copytree(source, target, ignore=ignored)
            else:
                shutil.copy(source, target)
        return cls(root, module)

    def passes(self, source: str, seconds_max: float) -> bool:
        """Say whether all tests pass with this source, in time."""
        (self.root / self.module).write_text(source, encoding="utf-8")
        tests = [f"tests/test_{name}.py" for name in TESTS[self.module].split()]
        variables = {
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONPATH": str(self.root),
            "CI": "true",
        }
        process = subprocess.Popen(
            [sys.executable, "-m", "pytest", *PYTEST, *tests],
            cwd=self.root,
            env=environment(variables),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            return process.wait(min(seconds_max, 600)) == 0
        except subprocess.TimeoutExpired:
            return False
        finally:
            _end_group(process)


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """End what the tests may have left running: all of it is in a session of ours."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    process.wait()


def survivors(module: str, count: int, seed: int) -> tuple[int, int, list[Mutant]]:
    """Give how many mutants there are, how many were tried, and which survived."""
    source = (ROOT / module).read_text(encoding="utf-8")
    made = list(mutants(source))
    chance = random.Random(seed)
    tried = chance.sample(made, min(count, len(made))) if count else made
    with tempfile.TemporaryDirectory() as place:
        ground = Ground.make(Path(place), module)
        begun = time.monotonic()
        if not ground.passes(source, float("inf")):
            raise SystemExit(f"the tests of {module} fail as it is")
        seconds_max = max(SECONDS_MIN, SLOWER_MAX * (time.monotonic() - begun))
        left = [each for each in tried if ground.passes(each.source, seconds_max)]
    return len(made), len(tried), left


def main(words: list[str]) -> None:
    """Try a module's mutants, or those of every module there are tests named for."""
    module, *numbers = words or ["all"]
    count, seed = [*map(int, numbers), *[COUNT, SEED][len(numbers) :]]
    for each in TESTS if module == "all" else [module]:
        made, tried, left = survivors(each, count, seed)
        for mutant in sorted(left, key=lambda mutant: mutant.line):
            sys.stdout.write(f"{each}:{mutant.line}: {mutant.change}\n")
        killed = tried - len(left)
        said = f"{made} mutants, {tried} tried (seed {seed}), {killed} killed"
        sys.stdout.write(f"{each}: {said}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
