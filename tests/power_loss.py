"""Power failures under the real log: a scene is recorded, its disk made as it may be.

The edge of `tests.lossy_disk`. `record` plays a scene under strace. `survive` has a
process of its own go through states of its disk, since LMDB may kill who opens a
damaged file; then another goes on behind that state, which is a fault. A seed and its
number decide a state. `python -m tests.power_loss SCENE STATES [SEED [FLAW]]` does it
by hand.
"""

import json
import random
import shutil
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs

from tests.lossy_disk import SHARES, Loss, LossyDisk
from tests.power_scenes import SCENES, Said
from tests.process import PYTHON, ROOT, SECONDS_MAX, environment
from tests.system_calls import OPTIONS, Mark, Operation, read_trace

CHECK_SECONDS_MAX = 3000
THOROUGH_EVERY = 10
CORNERS = (
    Loss("none", "none", is_grown=False),
    Loss("all", "all", is_grown=True),
    Loss("none", "all", is_grown=False),
    Loss("none", "all", is_grown=True),
    Loss("all", "none", is_grown=True),
    Loss("all but one", "all", is_grown=True),
    Loss("the last", "all", is_grown=True),
    Loss("all", "the last", is_grown=True),
    Loss("all", "all but one", is_grown=True),
)


@attrs.frozen
class Recording:
    """What a scene did to the directory that it was played in."""

    scene: str
    trace: Path
    root: Path

    def operations(self) -> list[Operation]:
        """Read the trace."""
        return list(read_trace(self.trace.read_text(), str(self.root)))


@attrs.frozen
class Verdict:
    """What came of one state: nothing wrong, or what was."""

    state: int
    fault: str | None


def record(scene: str, place: Path, flaw: str = "none") -> Recording:
    """Play a scene in a directory of its own, and trace it."""
    recording = Recording(scene, place / "trace", place / "played")
    recording.root.mkdir()
    player = [*PYTHON, "tests.power_scenes", scene, flaw, str(recording.root)]
    done = subprocess.run(
        ["strace", *OPTIONS, "-o", str(recording.trace), *player],
        cwd=ROOT,
        env=environment({}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return recording


def survive(recording: Recording, states: int, seed: int) -> list[Verdict]:
    """Check as many states as asked for; a state that kills its checker is a fault."""
    verdicts: list[Verdict] = []
    while len(verdicts) < states:
        words = [recording.scene, recording.trace, recording.root]
        words += [seed, states, len(verdicts)]
        done = subprocess.run(
            [*PYTHON, "tests.power_loss", "--check", *map(str, words)],
            cwd=ROOT,
            env=environment({}),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=CHECK_SECONDS_MAX,
            check=False,
        )
        verdicts += [Verdict(*json.loads(line)) for line in done.stdout.splitlines()]
        assert done.returncode <= 0, done.stderr
        if done.returncode < 0:
            fault = f"killed by signal {-done.returncode}"
            verdicts.append(Verdict(len(verdicts), fault))
    return verdicts


def plan(
    operations: Sequence[Operation], begins: str | None, states: int, seed: int
) -> list[tuple[int, Loss, int]]:
    """Give moments, each the number of operations done by then, with what is lost.

    None is before the mark that `begins` with this.
    """
    chance = random.Random(seed)
    first = next(
        index
        for index, each in enumerate(operations)
        if begins is None or (isinstance(each, Mark) and each.text.startswith(begins))
    )
    moments = sorted(chance.randint(first, len(operations)) for _ in range(states))
    return [(moment, _draw(chance), chance.randrange(2**32)) for moment in moments]


def _draw(chance: random.Random) -> Loss:
    if chance.random() < 0.5:
        return chance.choice(CORNERS)
    return Loss(
        chance.choice(SHARES), chance.choice(SHARES), is_grown=chance.random() < 0.5
    )


def check(
    recording: Recording, seed: int, states: int, first: int
) -> Iterator[Verdict]:
    """Go through the states from the `first` on (inclusive, from 0)."""
    operations = recording.operations()
    scene = SCENES[recording.scene]
    disk, said, done = LossyDisk(), Said(), 0
    planned = plan(operations, scene.begins, states, seed)
    for state, (at, loss, state_seed) in enumerate(planned):
        for operation in operations[done:at]:
            disk.take(operation)
            if isinstance(operation, Mark):
                said.hear(operation.text)
        done = at
        if state < first:
            continue
        survivors = disk.survivors(loss, random.Random(state_seed))
        with tempfile.TemporaryDirectory() as place:
            write_out(survivors, Path(place))
            try:
                is_thorough = state % THOROUGH_EVERY == 0
                scene.check(Path(place), said, is_thorough=is_thorough)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is told
                told = "".join(traceback.format_exception_only(error)).strip()
                frames = traceback.extract_tb(error.__traceback__)
                line = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}"
                yield Verdict(state, f"operation {at}, {loss}: {told} ({line})")
            else:
                yield Verdict(state, None)


def write_out(survivors: dict[str, bytes | None], place: Path) -> None:
    """Make files and directories; parents come first."""
    for path, content in survivors.items():
        if content is None:
            (place / path).mkdir()
        else:
            (place / path).write_bytes(content)


def main(words: list[str]) -> None:
    """Check states for `survive`, or record a scene and survive it by hand."""
    if words[0] == "--check":
        scene, trace, root, *numbers = words[1:]
        for verdict in check(
            Recording(scene, Path(trace), Path(root)), *map(int, numbers)
        ):
            sys.stdout.write(json.dumps(attrs.astuple(verdict)) + "\n")
            sys.stdout.flush()
        return
    scene, states, *rest = words
    seed = int(rest[0]) if rest else random.randrange(2**32)
    place = Path(tempfile.mkdtemp())
    verdicts = survive(record(scene, place, *rest[1:]), int(states), seed)
    shutil.rmtree(place)
    faults = [each for each in verdicts if each.fault]
    for each in faults:
        sys.stdout.write(f"state {each.state}: {each.fault}\n")
    sys.stdout.write(f"seed {seed}: {len(verdicts)} states, {len(faults)} faults\n")


if __name__ == "__main__":
    main(sys.argv[1:])
