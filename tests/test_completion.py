"""Completion after the Tab key, in a real bash on a terminal of its own.

bash is told to complete with what our programs print, and given keys as a user gives
them; zsh and fish are given the scripts of the same library.
"""

import contextlib
import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from alphabet.commands.completion import SHELLS
from tests.machines import write_votes
from tests.process import ROOT, SECONDS_MAX, environment, finish

MODULES = {"alphabet": "alphabet.cli", "alphabet-replay": "recovery.cli"}
PROMPT = "ready> "
TAB = "\t"
CLEAR_LINE = "\x15"


@attrs.define
class Shell:
    """An interactive bash, and what its terminal has shown."""

    terminal: int
    shown: str = ""

    def type(self, keys: str) -> None:
        """Press keys."""
        os.write(self.terminal, keys.encode())

    def await_shown(self, part: str) -> str:
        """Wait until the terminal has shown a text since the last call; give all."""
        deadline = time.monotonic() + SECONDS_MAX
        while part not in self.shown:
            assert time.monotonic() < deadline, f"no {part!r} in {self.shown!r}"
            if select.select([self.terminal], [], [], 0.1)[0]:
                data = os.read(self.terminal, 1 << 16).decode()
                self.shown += re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]|\x07", "", data)
        shown, self.shown = self.shown, ""
        return shown

    def complete(self, typed: str, becomes: str) -> None:
        """Fail unless a line and Tab become another line."""
        self.type(typed + TAB)
        self.await_shown(becomes)
        self.type(CLEAR_LINE)

    def list(self, typed: str, last: str) -> list[str]:
        """Give what a line and two Tabs offer, up to a word that must be there."""
        self.type(typed + TAB + TAB)
        shown = self.await_shown(last + "\r\n")
        self.type(CLEAR_LINE)
        offered = shown.partition(typed)[2].partition(last + "\r\n")[0]
        return [*offered.split(), last]


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """Return a directory that has both programs as commands."""
    directory = tmp_path / "bin"
    directory.mkdir()
    for name, module in MODULES.items():
        file = directory / name
        file.write_text(f'#!/bin/sh\nexec "{sys.executable}" -P -m {module} "$@"\n')
        file.chmod(0o755)
    return directory


@pytest.fixture
def shell(tmp_path: Path, programs: Path) -> Iterator[Shell]:
    """Return a bash that has been told to complete, where a data directory is."""
    write_votes(tmp_path / "alphabet-data")
    (tmp_path / "alphabet-notes.txt").touch()
    bash = shutil.which("bash")
    assert bash is not None
    variables = {
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "PS1": PROMPT,
        "TERM": "dumb",
        "HISTFILE": "",
        "INPUTRC": os.devnull,
    }
    ours, theirs = pty.openpty()
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, ours)
        process = subprocess.Popen(
            [bash, "--norc", "--noprofile", "-i"],
            cwd=tmp_path,
            env=environment(variables),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)
        stack.callback(process.wait)
        stack.callback(process.kill)
        shell = Shell(ours)
        shell.await_shown(PROMPT)
        for name in MODULES:
            shell.type(f'eval "$({name} completion bash)" && echo told-{name[-1]}x\n')
            shell.await_shown(f"told-{name[-1]}x\r\n{PROMPT}")
        yield shell


class TestBash:
    """What a user of bash gets."""

    def test_commands_options_and_directories(self, shell: Shell) -> None:
        """Commands, options, an option's choices and DATA_DIR are completed."""
        shell.complete("alphabet-replay ver", "alphabet-replay verify ")
        shell.complete("alphabet-replay verify --byt", "verify --bytes-only ")
        shell.complete("alphabet-replay verify --format js", "--format json ")
        shell.complete("alphabet-replay state alph", "state alphabet-data/")
        shell.complete("alphabet-replay compact alphabet-data alph", "a alphabet-data/")
        shell.complete("alphabet se", "alphabet send ")
        shell.complete("alphabet run --dat", "alphabet run --data-dir ")

    def test_all_that_is_possible(self, shell: Shell) -> None:
        """Two Tabs after two dashes list the command's options, and nothing else."""
        offered = shell.list("alphabet-replay verify --", "--help")
        for option in ("--bytes-only", "--format", "--json", "--offline"):
            assert option in offered
        assert all(each.startswith("--") for each in offered)


class TestScripts:
    """What the command prints."""

    @pytest.mark.parametrize("shell", SHELLS)
    @pytest.mark.parametrize("program", MODULES)
    def test_every_shell_has_one(self, program: str, shell: str) -> None:
        """A script names its own program, and asks it by a variable of its own."""
        done = finish(MODULES[program], "completion", shell)
        assert (done.code, done.stderr) == (0, "")
        variable = f"_{program.replace('-', '_').upper()}_COMPLETE"
        assert f"{variable}={shell}_complete" in done.stdout
        assert re.search(rf"(?<![\w-]){program}(?![\w-])", done.stdout)

    def test_other_shells_are_refused(self) -> None:
        """A shell that is not known is wrong usage, and so is none."""
        for words in (["tcsh"], []):
            done = finish("recovery.cli", "completion", *words)
            assert done.code == 2
            assert "bash" in done.stderr


class TestSpeed:
    """A user waits for each Tab."""

    @pytest.mark.parametrize("program", MODULES)
    def test_no_command_is_imported_to_name_it(self, program: str) -> None:
        """To complete a command's name nothing slow is imported."""
        variable = f"_{program.replace('-', '_').upper()}_COMPLETE"
        done = subprocess.run(
            [sys.executable, "-X", "importtime", "-P", "-m", MODULES[program]],
            cwd=ROOT,
            env=environment(
                {
                    variable: "bash_complete",
                    "COMP_WORDS": f"{program} ",
                    "COMP_CWORD": "1",
                }
            ),
            capture_output=True,
            text=True,
            timeout=SECONDS_MAX,
            check=True,
        )
        assert "plain,completion" in done.stdout
        imported = set(re.findall(r"\| +([\w.]+)$", done.stderr, re.MULTILINE))
        assert "click" in imported
        assert not imported & {"numpy", "lmdb", "rich", "structlog", "recovery.replay"}
