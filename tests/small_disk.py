"""`alphabet-replay` on a disk that is too small: a real one, and what is left on it.

The disk is a tmpfs in a mount namespace of the process's own (`unshare
--map-root-user --mount`, from util-linux).
"""

import json
import subprocess
import sys
from pathlib import Path

import attrs

from tests.process import ROOT, SECONDS_MAX, environment

DISK_BYTES = 1 << 20

_MOUNT = f'mount -t tmpfs -o size={DISK_BYTES} none "$0" && exec "$@"'
_RUN = """
import json, pathlib, sys
import recovery.backup, recovery.commands.compact
from recovery.cli import main

place, is_blind, *words = sys.argv[1:]
if is_blind == "True":
    for module in (recovery.backup, recovery.commands.compact):
        module.check_room = lambda needed: None
codes = [main(line.split()) for line in words]
left = sorted(str(p.relative_to(place)) for p in pathlib.Path(place).rglob("*"))
print(json.dumps([codes, left]))
"""


@attrs.frozen
class Ended:
    """What came of the commands: their exit codes, and the files left on the disk."""

    codes: list[int]
    left: list[str]
    stderr: str


def on_small_disk(path: Path, *lines: str, is_blind: bool = False) -> Ended:
    """Run commands, one after the other, with a small disk mounted at `path`.

    A blind one does not look for room before it writes, as if another process took it.
    """
    mounted = ["unshare", "--map-root-user", "--mount", "sh", "-c", _MOUNT, str(path)]
    done = subprocess.run(
        [*mounted, sys.executable, "-c", _RUN, str(path), str(is_blind), *lines],
        cwd=ROOT,
        env=environment({}),
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    codes, left = json.loads(done.stdout.splitlines()[-1])
    return Ended(codes, left, done.stderr)
