"""`alphabet-replay` as a program: how it ends when its child was ended by damage."""

import contextlib
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from log.directory import DataDirectory
from log.store import BLOCKS, Change
from tests.machines import flip_middle, key, write_votes
from tests.process import ROOT, SECONDS_MAX, Finished, environment, replay
from tests.replaying import replay_here

ENDED_BY = """
import os, sys
from recovery import cli
number, *sys.argv = sys.argv[1:]
cli.main = lambda: os.kill(os.getpid(), int(number)) or int(number) * -1
cli.run_program()
"""
"""A command whose work ends with a signal; 0 is none, and its exit code then."""


def ended_by(number: int, *words: str, variables: dict[str, str]) -> Finished:
    """Run a command that a signal ends."""
    done = subprocess.run(
        [sys.executable, "-c", ENDED_BY, str(number), "alphabet-replay", *words],
        cwd=ROOT,
        env=environment(variables),
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )
    return Finished(done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize(
    ("name", "words", "is_json"),
    [
        ("SIGBUS", "state data --json", False),
        ("SIGSEGV", "verify data", False),
        ("SIGABRT", "verify data --json", True),
        ("SIGBUS", "verify --format=json data", True),
    ],
)
def test_damage_that_ends_a_process_is_told(
    name: str, words: str, *, is_json: bool
) -> None:
    """One line names the signal and what to do; verify tells it as JSON if asked."""
    done = ended_by(signal.Signals[name], *words.split(), variables={})
    assert done.code == 1
    reason = f"reading the log ended the process with {name}: its file is damaged; "
    assert done.stderr.startswith(f"alphabet-replay: {reason}")
    assert done.stderr.count("\n") == 1
    assert bool(done.stdout) == is_json
    if is_json:
        result = json.loads(done.stdout)
        [finding] = result["findings"]
        assert (result["ok"], finding["place"]) == (False, "log")
        assert finding["reason"].startswith(reason)


@pytest.mark.parametrize("words", ["verify data", "state data"])
def test_json_may_be_asked_for_beside_the_words(words: str) -> None:
    """What a variable asks of verify, it does there too."""
    variables = {"ALPHABET_FORMAT": "json"}
    done = ended_by(signal.SIGBUS, *words.split(), variables=variables)
    assert done.code == 1
    assert bool(done.stdout) == words.startswith("verify")


@pytest.mark.parametrize(("number", "code"), [(0, 0), (signal.SIGKILL, 137)])
def test_another_end_is_passed_on(number: int, code: int) -> None:
    """A signal that tells of no damage is told by the exit code, as shells do."""
    done = ended_by(number, "state", "data", variables={})
    assert (done.code, done.stdout, done.stderr) == (code, "", "")


def test_the_module_is_the_program() -> None:
    """Run as a module, it does what the installed command does."""
    done = replay("--version")
    assert (done.code, done.stdout.split()[0]) == (0, "alphabet-replay")


def test_verify_counts_what_it_found(tmp_path: Path) -> None:
    """The line that ends it names the first damage, and how many there are besides."""
    data = write_votes(tmp_path / "data").path
    for first, more in ((4, ""), (6, " (1 more)")):
        damage(data, first)
        done = replay_here("verify", data)
        assert (done.code, done.stderr.count("\n")) == (1, 1)
        assert done.stderr.rstrip().endswith("more)") == bool(more)
        assert done.stderr.rstrip().endswith(more)


def test_verify_tells_what_it_could_not_open(tmp_path: Path) -> None:
    """Where damage keeps a log from being opened, that is the one finding."""
    data = write_votes(tmp_path / "data").path
    (data / "log" / "data.mdb").write_bytes(b"")
    done = replay_here("verify", data, "--json")
    assert done.code == 1
    [finding] = json.loads(done.stdout)["findings"]
    assert (finding["severity"], finding["place"]) == ("damage", "log")
    assert "too short" in finding["reason"]


def damage(path: Path, first: int) -> None:
    """Change a block as it is stored."""
    with contextlib.closing(
        DataDirectory(path).open_log(is_damage_accepted=True)
    ) as log:
        value = log.store.get(BLOCKS, key(first))
        assert value is not None
        log.store.commit([Change(BLOCKS, key(first), flip_middle(value))], 0)
