"""What holds for every command of both programs, those to come too."""

import os
import subprocess
import sys
from pathlib import Path
from typing import IO

import click
import pytest

from alphabet.cli import COMMANDS, alphabet
from alphabet.cli import main as alphabet_main
from recovery.cli import COMMANDS as REPLAY_COMMANDS
from recovery.cli import main as replay_main
from recovery.cli import replay
from tests.process import ROOT, SECONDS_MAX, environment

MAINS = {"alphabet": alphabet_main, "alphabet-replay": replay_main}
ALL = [
    *(("alphabet", name) for name in COMMANDS),
    *(("alphabet-replay", name) for name in REPLAY_COMMANDS),
]
WIDTH = 80


def find(program: str, name: str) -> click.Command:
    """Give a command."""
    group = alphabet if program == "alphabet" else replay
    assert isinstance(group, click.Group)
    command = group.get_command(click.Context(group), name)
    assert command is not None
    return command


READERS = [
    name
    for program, name in ALL
    if "data_dir" in [each.name for each in find(program, name).params]
    and program == "alphabet-replay"
]


@pytest.mark.parametrize(("program", "name"), ALL)
def test_help_can_be_read(
    capfd: pytest.CaptureFixture[str], program: str, name: str
) -> None:
    """Help fits a terminal, and says in words which numbers an option takes."""
    assert MAINS[program]([name, "--help"]) == 0
    out, err = capfd.readouterr()
    assert err == ""
    assert out.startswith(f"Usage: {program} {name} ")
    assert max(map(len, out.splitlines())) <= WIDTH
    for jargon in ("RANGE", "x>", "<x", "<=", ">="):
        assert jargon not in out


@pytest.mark.parametrize(("program", "name"), ALL)
def test_numbers_out_of_range(
    capfd: pytest.CaptureFixture[str], program: str, name: str
) -> None:
    """A number that an option does not take is refused with those that it takes."""
    for option in find(program, name).params:
        kind = option.type
        if isinstance(kind, click.IntRange | click.FloatRange):
            assert kind.min is not None
            wrong = str(kind.min - 1)
            assert MAINS[program]([name, option.opts[0], wrong]) == 2
            said = capfd.readouterr().err
            assert f"Invalid value for '{option.opts[0]}': it must be " in said
            assert f"not {wrong}" in said


def test_a_variable_out_of_range(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A value that came from the environment is refused with its variable's name."""
    monkeypatch.setenv("ALPHABET_INBOX_BYTES", "0")
    assert alphabet_main(["run"]) == 2
    line = (
        "alphabet run: Invalid value for '--inbox-bytes' (ALPHABET_INBOX_BYTES): "
        "it must be at least 1, not 0. (see 'alphabet run --help')\n"
    )
    assert capfd.readouterr().err == line


@pytest.mark.parametrize("name", READERS)
def test_a_missing_directory(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str
) -> None:
    """Where there is no DATA_DIR, that is said in one line, and nothing is made."""
    parameters = [each.name for each in find("alphabet-replay", name).params]
    to = [str(tmp_path / "to.svg")] if "to" in parameters else []
    assert replay_main([name, str(tmp_path / "none"), *to]) == 3
    out, err = capfd.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith("alphabet-replay: ")
    assert str(tmp_path / "none") in err
    assert list(tmp_path.iterdir()) == []


UNFLUSHED = """
import sys, click
from alphabet.command_line import run_command
command = click.Command("c", callback=lambda: print("still in the buffer"))
sys.exit(run_command(command, "program", []))
"""


def run_unflushed(stdout: IO[bytes]) -> tuple[int, str]:
    """Run a command that leaves its output in a buffer; give code and what it said."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", UNFLUSHED],
        cwd=ROOT,
        env=environment({"PYTHONUNBUFFERED": ""}),
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )
    return done.returncode, done.stderr


def test_a_buffer_that_finds_no_room() -> None:
    """Output that is lost at the very end is a failure too."""
    with Path("/dev/full").open("wb") as full:
        assert run_unflushed(full) == (
            3,
            "program: cannot write to standard output: No space left on device\n",
        )


def test_a_buffer_that_finds_no_reader() -> None:
    """A reader that has gone away before the very end is none."""
    readable, writable = os.pipe()
    os.close(readable)
    with os.fdopen(writable, "wb") as pipe:
        assert run_unflushed(pipe) == (0, "")
