"""Files whose names are no text: any bytes will do for a name, as they do for Linux."""

import os
import random
import shutil
from pathlib import Path

import pytest

from tests.faults import cut
from tests.inspection import totals
from tests.process import ANY, finish, serving, submit
from tests.test_page import ask
from tests.votes import make_votes, tally, wire

STRICT = {"PYTHONIOENCODING": "utf-8:strict"}
"""As where the locale is no C locale: what is no UTF-8 must not be printed as it is."""
VOTES = make_votes(random.Random(22), 100)
ODD = os.fsdecode(b"\xff")
SHOWN = "\\udcff"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a place of an odd name, where a server has counted and made a snapshot."""
    made = tmp_path_factory.mktemp("template") / f"place-{ODD}"
    made.mkdir()
    with serving(made, variables=STRICT) as server:
        assert submit(server.port, wire(VOTES))
        assert server.stop() == 0
    return made


def test_a_server(place: Path, tmp_path: Path) -> None:
    """It serves such a directory, though the snapshot is broken; the page tells."""
    copy = tmp_path / ODD
    shutil.copytree(place / "data", copy / "data")
    [snapshot] = (copy / "data" / "snapshots").iterdir()
    cut(snapshot, 100)
    with serving(copy, "--http", ANY, variables=STRICT) as server:
        server.wait_said("set aside")
        for path in ("/status", f"/votes?at={len(VOTES)}"):
            answer = ask(server, path)
            assert answer.document["sequence"] == len(VOTES)
        assert server.stop() == 0


@pytest.mark.parametrize("command", ["backup", "compact", "salvage", "export", "plot"])
def test_a_tool(place: Path, tmp_path: Path, command: str) -> None:
    """A tool reads such a directory, makes another, and prints its name."""
    to = tmp_path / f"{command}-{ODD}.png"
    words = ("--json",) if command == "export" else ()
    done = finish("recovery.cli", command, place / "data", to, *words, variables=STRICT)
    assert done.code == 0, done.stderr
    assert to.exists()
    if command in {"backup", "compact", "salvage", "plot"}:
        assert f"{command}-{SHOWN}.png" in done.stdout


def test_what_is_counted(place: Path) -> None:
    """All votes count."""
    assert totals(place) == tally(VOTES)


@pytest.mark.parametrize(
    "words",
    [
        ["run", "--http", "127.0.0.1:0", "--data-dir"],
        ["run", "--connector-cookie-file"],
        ["run", "--tls-ca"],
        ["send", "-", "--tls-ca"],
        ["send"],
        ["receive", "--listen", "127.0.0.1:0", "--output"],
        ["receive", "--listen", "127.0.0.1:0", "--connector", "--output"],
    ],
)
def test_one_that_is_not_there(tmp_path: Path, words: list[str]) -> None:
    """What is not there is named in one line."""
    missing = tmp_path / ODD / "missing"
    done = finish("alphabet.cli", *words, missing, variables=STRICT)
    assert done.code
    [line] = done.stderr.splitlines()
    assert "/missing" in line
