"""Child processes: our own programs, watched with a deadline, never left behind.

What a child says goes into files, so that no pipe can fill and block it. Whatever ends
a `Children` block, every child that it started has ended then.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

import attrs

if TYPE_CHECKING:
    import signal
    from collections.abc import Callable
    from types import TracebackType

POLL_SECONDS = 0.005
"""How often a child is looked at while something is awaited."""
WAIT_SECONDS_MAX = 30.0
"""How long a child may take to start or to end."""

_ROOT = Path(__file__).parent.parent


class ChildError(Exception):
    """A child did not do what it was started for; the message names it and why."""


@attrs.frozen(eq=False)
class Child:
    """One process; `output` and `errors` are the files that it writes to."""

    name: str
    process: subprocess.Popen[bytes]
    output: Path
    errors: Path

    @property
    def pid(self) -> int:
        """The process's id."""
        return self.process.pid

    @property
    def is_alive(self) -> bool:
        """Say whether it has not ended."""
        return self.process.poll() is None

    def await_line(
        self,
        start: str,
        *,
        is_error: bool = False,
        seconds: float = WAIT_SECONDS_MAX,
    ) -> str:
        """Give the rest of the first line that begins so, once the child has said it.

        Raises ChildError where it ended before, or took too long.
        """
        file = self.errors if is_error else self.output
        found: list[str] = []

        def is_there() -> bool:
            text = file.read_text(encoding="utf-8", errors="replace")
            whole_lines = text[: text.rfind("\n") + 1].splitlines()
            found.extend(line for line in whole_lines if line.startswith(start))
            return bool(found)

        self._await(is_there, f"has not said {start!r}", seconds)
        return found[0].removeprefix(start)

    def await_end(self, seconds: float = WAIT_SECONDS_MAX) -> int:
        """Give the exit code once the child has ended; raises ChildError."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired as error:
            raise ChildError(
                f"{self.name} has not ended after {seconds:g} s"
            ) from error

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, if the child is still there."""
        self.process.send_signal(number)

    def require_end(self, *codes: int) -> None:
        """Wait for the child's end; raises ChildError for another exit code."""
        code = self.await_end()
        if code not in codes:
            raise ChildError(f"{self.name} ended with exit code {code}{self._reason()}")

    def require_alive(self) -> None:
        """Raise ChildError if the child has ended."""
        if not self.is_alive:
            code = self.process.returncode
            raise ChildError(f"{self.name} ended ({code}){self._reason()}")

    def _await(
        self, condition: Callable[[], bool], failure: str, seconds: float
    ) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if not self.is_alive:
                # What it said at last may have come after the look.
                if condition():
                    return
                self.require_alive()
            if time.monotonic() >= deadline:
                raise ChildError(f"{self.name} {failure} after {seconds:g} s")
            time.sleep(POLL_SECONDS)

    def _reason(self) -> str:
        """Give the child's last line on standard error."""
        text = self.errors.read_text(encoding="utf-8", errors="replace").strip()
        return f": {text.splitlines()[-1]}" if text else ""


@attrs.define
class Children:
    """All processes started for one purpose; `directory` takes what they say."""

    directory: Path
    _all: list[Child] = attrs.field(factory=list, init=False)

    def start(self, name: str, module: str, *words: object) -> Child:
        """Start `python -m MODULE WORDS`, with this very code of ours.

        No setting of ours in the environment reaches it: it obeys its words alone.
        """
        number = len(self._all) + 1
        output = self.directory / f"{number}-{name}.out"
        errors = self.directory / f"{number}-{name}.err"
        command = [sys.executable, "-P", "-m", module, *map(str, words)]
        with output.open("wb") as said, errors.open("wb") as complained:
            process = subprocess.Popen(  # noqa: S603 - our own program
                command,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=complained,
                env=_environment(),
            )
        child = Child(name, process, output, errors)
        self._all.append(child)
        return child

    def run(self, name: str, module: str, *words: object) -> str:
        """Run a program to its end; give its standard output. Raises ChildError."""
        child = self.start(name, module, *words)
        child.require_end(0)
        return child.output.read_text(encoding="utf-8")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Kill whoever is left, and wait for their end."""
        for child in self._all:
            if child.is_alive:
                child.process.kill()
        for child in self._all:
            child.process.wait()


def _environment() -> dict[str, str]:
    """Give the environment without our settings, and with our packages first."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("ALPHABET_")
    }
    paths = [str(_ROOT), *filter(None, [environment.get("PYTHONPATH")])]
    return environment | {"PYTHONPATH": os.pathsep.join(paths)}
