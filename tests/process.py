"""Our programs as processes of their own: a real server, and the tools beside it.

Every wait has a condition and a deadline. A process is ended by its pid, by the test
that started it, whatever happens. Processes run this checkout's code, in an
environment without ALPHABET_… variables but those that a test gives.
"""

import contextlib
import errno
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import attrs

ROOT = Path(__file__).parent.parent
SECONDS_MAX = 30.0
"""How long anything may take before a test fails."""

PYTHON = (sys.executable, "-P", "-m")
"""Runs a module; as for an installed command, no directory is put on its path."""

ANY = "127.0.0.1:0"
READY = "Application has successfully initialized"

_POLL_SECONDS = 0.003
_CUT = {errno.ECONNRESET, errno.EPIPE, errno.ENOTCONN}
"""What a connection says that was reset, by when it is asked."""


def wait_until(condition: Callable[[], object], what: str) -> None:
    """Wait for a condition; fail, naming it, when the time is up."""
    deadline = time.monotonic() + SECONDS_MAX
    while not condition():
        assert time.monotonic() < deadline, f"in vain: {what}"
        time.sleep(_POLL_SECONDS)


def state_of(pid: int) -> str:
    """Give a process's state, a letter."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def environment(variables: Mapping[str, str]) -> dict[str, str]:
    """Give the environment that our programs run in."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("ALPHABET_")
    }
    path = os.pathsep.join([str(ROOT), *filter(None, [inherited.get("PYTHONPATH")])])
    return {**inherited, "PYTHONPATH": path, **variables}


@attrs.frozen
class Finished:
    """A program that ran to its end."""

    code: int
    stdout: str
    stderr: str


def finish(
    module: str,
    *words: object,
    variables: Mapping[str, str] | None = None,
    working_directory: Path = ROOT,
) -> Finished:
    """Run a module as a program, to its end."""
    done = subprocess.run(
        [*PYTHON, module, *map(str, words)],
        cwd=working_directory,
        env=environment(variables or {}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )
    return Finished(done.returncode, done.stdout, done.stderr)


def replay(*words: object) -> Finished:
    """Run `alphabet-replay`, to its end."""
    return finish("recovery.cli", *words)


@attrs.define(eq=False)
class Server:
    """`alphabet run` as a process; what it says is kept in two files."""

    process: subprocess.Popen[bytes]
    stdout: Path
    stderr: Path

    @classmethod
    def start(
        cls,
        place: Path,
        *words: object,
        variables: Mapping[str, str] | None = None,
        before: Sequence[str] = (),
        working_directory: Path = ROOT,
        is_bare: bool = False,
        pass_fds: Sequence[int] = (),
    ) -> Self:
        """Start a server that keeps its data in `place / "data"`, not ready yet.

        `before` is a command that is given the server's own to execute, and `pass_fds`
        are files that it inherits. A bare one is given no option but those in `words`.
        """
        number = len(list(place.glob("*.stdout")))
        stdout, stderr = place / f"{number}.stdout", place / f"{number}.stderr"
        program = [*PYTHON, "alphabet.cli", "run"]
        options = [] if is_bare else ["--in", ANY, "--data-dir", place / "data"]
        if not is_bare and "--http" not in words:
            options += ["--http", "none"]
        with stdout.open("wb") as out, stderr.open("wb") as err:
            process = subprocess.Popen(
                [*before, *program, *map(str, [*options, *words])],
                cwd=working_directory,
                env=environment(variables or {}),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                pass_fds=pass_fds,
            )
        return cls(process, stdout, stderr)

    @property
    def pid(self) -> int:
        """The process."""
        return self.process.pid

    @property
    def port(self) -> int:
        """Where it takes votes, on 127.0.0.1."""
        told = [*self.lines(), *self.said()]
        [line] = [each for each in told if each.startswith("listening in ")]
        return int(line.rpartition(":")[2])

    @property
    def is_running(self) -> bool:
        """Say whether the process is there."""
        return self.process.poll() is None

    def lines(self) -> list[str]:
        """Give what it printed on standard output."""
        return self.stdout.read_text().splitlines()

    def said(self) -> list[str]:
        """Give the lines of its journal, without what is for machines."""
        return [entry["event"] for entry in self.entries()]

    def entries(self) -> list[dict[str, Any]]:
        """Give its journal; what is no entry, as the event of one."""
        entries = []
        for line in self.stderr.read_text().splitlines(keepends=True):
            if not line.endswith("\n"):
                break
            try:
                entries.append(json.loads(line))
            except ValueError:
                entries.append({"event": line.rstrip("\n")})
        return entries

    def wait_ready(self) -> Self:
        """Wait until it serves."""
        wait_until(lambda: self.is_ready or not self.is_running, "a ready server")
        assert self.is_ready, f"it ended with {self.process.returncode}: {self.said()}"
        return self

    @property
    def is_ready(self) -> bool:
        """Say whether it has said that it is ready."""
        return READY in self.lines() or READY in self.said()

    def wait_said(self, part: str) -> str:
        """Wait for a journal line that has `part` in it; give the first such line."""
        found: list[str] = []

        def is_there() -> bool:
            found[:] = [line for line in self.said() if part in line]
            return bool(found) or not self.is_running

        wait_until(is_there, f"{part!r} in {self.stderr}")
        assert found, f"{part!r} is not among {self.said()}"
        return found[0]

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Ask it to end; give its exit code."""
        self.process.send_signal(number)
        return self.wait()

    def kill(self) -> None:
        """End it at once."""
        self.process.kill()
        self.wait()

    def wait(self) -> int:
        """Wait for its end; give its exit code."""
        return self.process.wait(SECONDS_MAX)

    def anonymous_bytes(self) -> int:
        """Give its anonymous memory, the part that is not a file's (RssAnon)."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        [line] = [each for each in status.splitlines() if each.startswith("RssAnon")]
        return int(line.split()[1]) << 10


@contextlib.contextmanager
def serving(
    place: Path,
    *words: object,
    variables: Mapping[str, str] | None = None,
    before: Sequence[str] = (),
    working_directory: Path = ROOT,
    is_bare: bool = False,
) -> Iterator[Server]:
    """Give a server that is ready, and end it at once if the test did not."""
    server = Server.start(
        place,
        *words,
        variables=variables,
        before=before,
        working_directory=working_directory,
        is_bare=is_bare,
    )
    try:
        yield server.wait_ready()
    finally:
        server.kill()


def refused(
    place: Path,
    *words: object,
    before: Sequence[str] = (),
    working_directory: Path = ROOT,
) -> Finished:
    """Start a server that must refuse to serve; give its end.

    Fails unless it said so in one line, and printed nothing.
    """
    server = Server.start(
        place, *words, before=before, working_directory=working_directory
    )
    try:
        code = server.wait()
    finally:
        server.kill()
    done = Finished(code, server.stdout.read_text(), server.stderr.read_text())
    assert done.code, done
    assert not done.stdout, done
    assert len(done.stderr.splitlines()) == 1, done
    return done


def submit(port: int, data: bytes) -> bool:
    """Send bytes, half-close, and say whether the server's receipt came.

    False means that the connection was reset.
    """
    with socket.create_connection(("127.0.0.1", port), SECONDS_MAX) as sender:
        try:
            sender.sendall(data)
            sender.shutdown(socket.SHUT_WR)
            return sender.recv(1) == b""
        except OSError as error:
            if error.errno not in _CUT:
                raise
            return False


def free_port() -> int:
    """Give a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@contextlib.contextmanager
def child(*words: object) -> Iterator[subprocess.Popen[str]]:
    """Run a command of `tests.children` that holds something; end it afterwards."""
    command = [*PYTHON, "tests.children", *map(str, words)]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=environment({}),
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        try:
            yield process
        finally:
            process.kill()
