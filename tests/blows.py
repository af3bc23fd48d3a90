"""What strikes in a round of the campaign: a plan, made by chance alone.

Pure, but for a look at the code for its failpoints.
"""

import random
import re
from collections.abc import Mapping, Sequence

import attrs

from tests.process import ROOT

SERVER, RECEIVER = "server", "receiver"
TOOLS = {"spark", "exporting", "damage"}
"""The packages that neither of them runs."""
BLOW_SECONDS_MAX = 0.15


def failpoints() -> dict[str, list[str]]:
    """Find every failpoint in the code, by whose process reaches it."""
    found: dict[str, list[str]] = {SERVER: [], RECEIVER: []}
    for package in ("log", "recovery", "alphabet"):
        for file in sorted((ROOT / package).rglob("*.py")):
            if file.parent.name in TOOLS:
                continue
            whose = RECEIVER if file.name == "file_sink.py" else SERVER
            found[whose] += re.findall(
                r'failpoint\.reach\("(.*?)"\)', file.read_text(encoding="utf-8")
            )
    return found


def failpoints_of(seed: int) -> dict[str, str]:
    """Choose a failpoint for each; seeds in a row go through all of them."""
    return {name: found[seed % len(found)] for name, found in failpoints().items()}


@attrs.frozen
class Blow:
    """What strikes at the end of one stretch.

    Attributes:
        fragile: Ways that are cut in the stretch, and at which answer from behind.
        wait_share: After how much of the stretch's bytes.
        wait_seconds: How long after that.
        stopped: Whose processes are asked to end, and must in good order.
        killed: Whose processes are killed then, at once.
        armed: At which failpoint each of them is to die when it is started again.
        ill: What happens to the network, before the killing: ways and `cut`, `stall`.
        share: How much of what is left to send is let go in this stretch.
    """

    fragile: Mapping[str, int]
    wait_share: float
    wait_seconds: float
    stopped: tuple[str, ...]
    killed: tuple[str, ...]
    armed: Mapping[str, str]
    ill: tuple[tuple[str, str], ...]
    share: float


def plan(
    chance: random.Random, names: Sequence[str], armed: Mapping[str, str], blows: int
) -> list[Blow]:
    """Make a round's blows; `armed` are the failpoints that it must have in it."""
    made = []
    arms_at = {name: chance.randrange(blows) for name in armed}
    for number in range(blows):
        arms = {name: armed[name] for name in armed if arms_at[name] == number}
        count = chance.choice([0, 1, 1, 1, 2, len(names)])
        killed = {*chance.sample(names, min(count, len(names))), *arms}
        ill = tuple(
            (way, chance.choice(["cut", "stall"]))
            for way in ("in", "out")
            if chance.random() < (0.3 if killed else 0.8)
        )
        made.append(
            Blow(
                {
                    way: chance.randrange(1, 7)
                    for way in ("in", "out")
                    if chance.random() < 0.4
                },
                chance.random(),
                chance.choice([0, 0.01, BLOW_SECONDS_MAX]) * chance.random(),
                tuple(each for each in (SERVER, RECEIVER) if chance.random() < 0.1),
                tuple(sorted(killed)),
                arms,
                ill,
                1 / (blows + 1 - number),
            )
        )
    return made
