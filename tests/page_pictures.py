"""Pictures of the page, by `python -m tests.page_pictures docs/pictures`.

Two minutes of a real server that counts, seen in a real browser, light and dark.
"""

import math
import random
import socket
import sys
import tempfile
import time
from pathlib import Path

from tests.browser import browsing
from tests.process import ANY, serving
from tests.receiving import Receiver
from tests.tab import opened
from tests.test_page import port_of
from tests.votes import Vote, wire

SECONDS = 130
LOTS_PER_SECOND = 10
WEIGHTS = [
    8,
    2,
    3,
    4,
    13,
    2,
    2,
    6,
    7,
    1,
    1,
    4,
    3,
    7,
    8,
    2,
    1,
    6,
    6,
    9,
    3,
    1,
    2,
    1,
    2,
    1,
]
"""How often each letter is, as in English."""
SIZE = (1200, 900)


def lot(chance: random.Random, number: int) -> list[Vote]:
    """Make the votes of a tenth of a second: the rate swings, and is never the same."""
    swing = 1 + 0.5 * math.sin(number / 90) + 0.2 * chance.random()
    letters = chance.choices(range(26), WEIGHTS, k=int(2000 * swing))
    return [(bytes([97 + each]), chance.randrange(1, 10)) for each in letters]


def main(to: Path) -> None:
    """Write both pictures."""
    chance = random.Random(7)
    with (
        tempfile.TemporaryDirectory() as place,
        Receiver() as receiver,
        browsing(Path(place) / "browser") as browser,
        serving(Path(place), "--http", ANY, "--out", receiver.address) as server,
        opened(browser, f"http://127.0.0.1:{port_of(server)}/") as tab,
    ):
        tab.resize(*SIZE)
        tab.ask("Emulation.setScrollbarsHidden", hidden=True)
        until = time.monotonic() + SECONDS
        with socket.create_connection(("127.0.0.1", server.port)) as sender:
            for number in range(SECONDS * LOTS_PER_SECOND):
                sender.sendall(wire(lot(chance, number)))
                if time.monotonic() > until:
                    break
                time.sleep(1 / LOTS_PER_SECOND)
            for scheme in ("light", "dark"):
                tab.prefer_colours(scheme)
                tab.run("new Promise((done) => requestAnimationFrame(done))")
                tab.picture(to / f"page-{scheme}.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
