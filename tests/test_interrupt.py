"""Ctrl-C: whenever it comes, a program ends as shells have it, without a word."""

import contextlib
import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from log.directory import DataDirectory
from tests.machines import write_votes
from tests.process import ROOT, SECONDS_MAX, environment, state_of, wait_until

PROGRAMS = {"alphabet": "run_alphabet", "alphabet-replay": "run_alphabet_replay"}

NEW_LINE = "\n"
"""All that is said: a terminal shows `^C`, and the prompt shall not stand behind it."""

INTERRUPT_AT = """
import builtins, os, signal, sys
name = sys.argv.pop(1)
class Finder:
    def find_spec(self, module, path=None, target=None):
        if module == name:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder())
import alphabet.program
alphabet.program.{function}()
"""
"""Begins as an installed command does, and has Ctrl-C come with an import."""

LONG_WORK = """
import sys
from recovery.replay import Replayer
from recovery.cli import run_program
recover = Replayer.recover
def recover_long(self, machine, at=None, progress=lambda _: None):
    import time
    for reached in range(2000):
        progress(reached)
        time.sleep(0.01)
    raise SystemExit("nobody interrupted it")
Replayer.recover = recover_long
run_program()
"""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Return a data directory."""
    return write_votes(tmp_path / "data").path


def run_interrupted(function: str, module: str, *words: object) -> tuple[int, str, str]:
    """Run a program that is interrupted when it imports a module; give its end."""
    done = subprocess.run(
        [
            *(sys.executable, "-P", "-c", INTERRUPT_AT.format(function=function)),
            module,
            *map(str, words),
        ],
        cwd=ROOT,
        env=environment({}),
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


class TestBeginning:
    """While a program is starting."""

    @pytest.mark.parametrize("module", ["click", "recovery.child", "alphabet.version"])
    def test_before_its_child(self, data: Path, module: str) -> None:
        """Until the command runs, the signal ends the program, as shells expect."""
        ended = run_interrupted("run_alphabet_replay", module, "state", data)
        assert ended == (-signal.SIGINT, "", "")

    @pytest.mark.parametrize(
        "module", ["recovery.commands.state", "numpy", "lmdb", "alphabet.application"]
    )
    def test_in_its_child(self, data: Path, module: str) -> None:
        """From then on it ends with 130, whatever is being imported."""
        ended = run_interrupted("run_alphabet_replay", module, "state", data)
        assert ended == (130, "", NEW_LINE)

    @pytest.mark.parametrize("module", ["click", "alphabet.lazy_group"])
    def test_alphabet(self, module: str) -> None:
        """So does the other program begin."""
        ended = run_interrupted("run_alphabet", module, "demo")
        assert ended == (-signal.SIGINT, "", "")

    def test_alphabet_and_its_command(self) -> None:
        """And so does it go on."""
        ended = run_interrupted("run_alphabet", "alphabet.commands.demo", "demo")
        assert ended == (130, "", NEW_LINE)

    def test_who_ignores_it_goes_on(self, data: Path) -> None:
        """A job in the background of a script, which ignores Ctrl-C, is not ended."""
        ignore = "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN);"
        ignore += "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
        begin = INTERRUPT_AT.format(function="run_alphabet_replay")
        for module in ("click", "numpy"):
            done = subprocess.run(
                [sys.executable, "-c", ignore, "-P", "-c", begin, module, "info", data],
                cwd=ROOT,
                env=environment({}),
                stdout=subprocess.PIPE,
                timeout=SECONDS_MAX,
                check=False,
            )
            assert (done.returncode, b"events: 10" in done.stdout) == (0, True)


def start_on_terminal(data: Path) -> tuple[int, int]:
    """Start long work on a terminal of its own; give its process and the terminal."""
    pid, terminal = pty.fork()
    if not pid:
        os.chdir(ROOT)
        command = [sys.executable, "-P", "-c", LONG_WORK, "state", str(data)]
        variables = environment({"TERM": "xterm"})
        os.execve(sys.executable, command, variables)  # noqa: S606 - our own
    return pid, terminal


def read_until(terminal: int, part: bytes) -> bytes:
    """Read what a terminal shows until it has shown a text."""
    shown = b""
    while part not in shown:
        shown += os.read(terminal, 1 << 16)
    return shown


def children_of(pid: int) -> list[int]:
    """Give a process's children."""
    file = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(word) for word in file.read_text().split()]


class TestParent:
    """The process that waits for the one that works."""

    @pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGQUIT])
    def test_nobody_works_without_it(self, data: Path, number: int) -> None:
        """When it ends, even by SIGKILL, so does a child, even one that is at rest."""
        pid, terminal = start_on_terminal(data)
        read_until(terminal, b"replay")
        [child] = children_of(pid)
        os.kill(child, signal.SIGSTOP)
        os.kill(pid, number)
        if number != signal.SIGKILL:
            os.kill(child, signal.SIGCONT)
        os.waitpid(pid, 0)
        os.close(terminal)
        wait_until(lambda: not Path(f"/proc/{child}").exists(), "the child's end")


class TestLongWork:
    """While a command works."""

    @pytest.mark.parametrize("is_served", [False, True])
    def test_on_a_terminal(self, data: Path, *, is_served: bool) -> None:
        """Ctrl-C ends child and parent with 130; the terminal is as it was.

        So it does beside a server, where the child has left the terminal's session.
        """
        server = DataDirectory.claim(data) if is_served else None
        pid, terminal = start_on_terminal(data)
        shown = read_until(terminal, b"replay")
        os.write(terminal, b"\x03")
        with contextlib.suppress(OSError):  # So Linux tells that the other side closed.
            while more := os.read(terminal, 1 << 16):
                shown += more
        os.close(terminal)
        _, status = os.waitpid(pid, 0)
        if server is not None:
            server.release()
        assert os.waitstatus_to_exitcode(status) == 130
        assert b"Traceback" not in shown
        assert shown.count(b"\x1b[?25l") == shown.count(b"\x1b[?25h") == 1, "cursor"
        text = re.sub(rb"\x1b\[[0-9;?]*[a-zA-Z]|\^C|[\r\n]", b"", shown)
        assert text.rstrip().endswith((b"left", b"%", b"/s"))

    def test_it_pauses(self, data: Path) -> None:
        """Ctrl-Z stops child and parent beside a server too, and both can go on."""
        server = DataDirectory.claim(data)
        pid, terminal = start_on_terminal(data)
        read_until(terminal, b"replay")
        both = [pid, *children_of(pid)]
        assert len(both) == 2
        assert [os.getsid(each) for each in both] == both, "a session each"
        os.write(terminal, b"\x1a")
        wait_until(lambda: [state_of(each) for each in both] == ["T", "T"], "a stop")
        os.kill(pid, signal.SIGCONT)
        wait_until(lambda: "T" not in [state_of(each) for each in both], "no stop")
        os.write(terminal, b"\x03")
        _, status = os.waitpid(pid, 0)
        os.close(terminal)
        server.release()
        assert os.waitstatus_to_exitcode(status) == 130

    def test_a_signal_alone(self, data: Path) -> None:
        """A signal to the program alone, as from a script, reaches its child once."""
        with subprocess.Popen(
            [sys.executable, "-P", "-c", LONG_WORK, "state", str(data)],
            cwd=ROOT,
            env=environment({}),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:
            wait_until(lambda: children_of(process.pid), "a child")
            for _ in range(3):
                process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=SECONDS_MAX)
            assert (process.returncode, out, err.strip()) == (130, b"", b"")
