"""What a document shows of a terminal, typed in again and held to what it shows.

A block of the language `console` has commands behind `$ ` and what they print. A block
with a `title` is a file of that name, written before the next command. All blocks of a
document are one session in one directory. `…` in a shown line stands for anything, and
a line of it alone for any lines.

`alphabet run` and `alphabet receive` stay, as in terminals of their own; what they
print is looked at in the end too. Ports are the system's, whatever the document says.
A `kill` is waited for, but for SIGHUP, and so is what a receiver's file gets. What is
held to the document is standard output, and of `alphabet receive` the other as well.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import attrs

from tests.process import ROOT, SECONDS_MAX, environment, wait_until

PROGRAMS = {"alphabet": "alphabet.cli", "alphabet-replay": "recovery.cli"}
STAYING = ("alphabet run", "alphabet receive")
LOOKING = "python3 examples/frames.py read"
"""Looks at a file that a receiver writes: again, until it is all there."""
READY = "Application has successfully initialized"

_FENCE = re.compile(
    r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```$', re.DOTALL | re.MULTILINE
)
_PORT = re.compile(r"(?<=127\.0\.0\.1:)\d+")


@attrs.frozen
class Written:
    """A file that the document has its reader write."""

    name: str
    text: str


@attrs.frozen
class Typed:
    """A command, and the lines shown under it."""

    command: str
    lines: list[str]


def steps(text: str) -> Iterator[Written | Typed]:
    """Give what a document has its reader do, in order."""
    for language, title, block in _FENCE.findall(text):
        if title:
            yield Written(title, block)
        elif language == "console":
            for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
                command, *lines = part.replace("\\\n", "").splitlines()
                yield Typed(command, lines)


def is_shown(lines: list[str], shown: list[str]) -> bool:
    """Say whether lines are what is shown."""
    pattern = "".join(
        r"(?:.*\n)*?" if line == "…" else _pattern(line) + r"\n" for line in shown
    )
    text = "".join(f"{line}\n" for line in lines)
    return re.fullmatch(pattern, text) is not None


def _pattern(line: str) -> str:
    return ".*".join(re.escape(part) for part in line.split("…"))


@attrs.frozen
class Staying:
    """A program that stays: its process, what it prints, and what is shown of that."""

    process: subprocess.Popen[bytes]
    file: Path
    shown: list[str]

    @property
    def printed(self) -> list[str]:
        """The lines so far."""
        return self.file.read_text().splitlines()

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return self.process.poll() is not None

    def await_shown(self) -> None:
        """Wait until it has printed what is shown, and no more."""
        wait_until(
            lambda: is_shown(self.printed, self.shown), f"{self.shown} in {self.file}"
        )


@attrs.define
class Terminal:
    """A session in a directory; leaving it ends the programs that stay.

    Attributes:
        place: The directory.
        bin: Where our programs are found.
        ports: A real port by the one that the document has.
        staying: The programs that stay.
    """

    place: Path
    bin: Path
    ports: dict[str, str] = attrs.field(factory=dict)
    staying: list[Staying] = attrs.field(factory=list)

    @classmethod
    def open(cls, directory: Path) -> Self:
        """Begin a session below a directory, with the examples and our programs."""
        place, programs = directory / "place", directory / "bin"
        place.mkdir()
        programs.mkdir()
        (place / "examples").symlink_to(ROOT / "examples")
        for name, module in PROGRAMS.items():
            file = programs / name
            file.write_text(f'#!/bin/sh\nexec "{sys.executable}" -P -m {module} "$@"\n')
            file.chmod(0o755)
        return cls(place, programs)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for each in self.staying:
            each.process.kill()
            each.process.wait()

    def follow(self, text: str) -> None:
        """Do all that a document says, and hold every line to what it shows."""
        for step in steps(text):
            if isinstance(step, Written):
                (self.place / step.name).write_text(step.text)
            elif step.command.startswith(STAYING):
                self._stay(step)
            elif step.command.startswith(LOOKING):
                self._look(step)
            else:
                self._finish(step)
        for each in self.staying:
            each.await_shown()

    def _stay(self, step: Typed) -> None:
        file = self.bin.parent / f"{len(self.staying)}.said"
        is_server = step.command.startswith("alphabet run")
        with file.open("wb") as said:
            process = subprocess.Popen(
                ["bash", "-c", f"exec {self._with_ports(step.command)}"],
                cwd=self.place,
                env=self._environment(),
                stdout=said,
                stderr=subprocess.DEVNULL if is_server else said,
            )
        shown: list[str] = []
        program = Staying(process, file, shown)
        self.staying.append(program)
        listening = [line for line in step.lines if line.startswith("listening")]
        last = READY if READY in step.lines else listening[-1].partition(":")[0]
        wait_until(
            lambda: program.is_over or last in file.read_text(),
            f"{last} of {step.command}",
        )
        assert not program.is_over, f"{step.command}: {file.read_text()}"
        for line, real in zip(listening, program.printed, strict=False):
            self.ports[line.rpartition(":")[2]] = real.rpartition(":")[2]
        shown += map(self._with_ports, step.lines)

    def _look(self, step: Typed) -> None:
        wait_until(
            lambda: is_shown(self._run(step.command).stdout.splitlines(), step.lines),
            f"{step.lines} of {step.command}",
        )

    def _run(self, command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-c", self._with_ports(command)],
            cwd=self.place,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS_MAX,
            check=False,
        )

    def _finish(self, step: Typed) -> None:
        over_count = self._over_count()
        done = self._run(step.command)
        assert done.returncode == 0, f"{step.command}: {done.stdout}{done.stderr}"
        shown = [self._with_ports(line) for line in step.lines]
        lines = done.stdout.splitlines()
        assert is_shown(lines, shown), f"{step.command}: {done.stdout}{done.stderr}"
        if step.command.startswith("kill ") and "-HUP" not in step.command:
            wait_until(lambda: self._over_count() > over_count, "an end")

    def _over_count(self) -> int:
        return sum(each.is_over for each in self.staying)

    def _with_ports(self, text: str) -> str:
        return _PORT.sub(lambda found: self.ports.get(found[0], "0"), text)

    def _environment(self) -> dict[str, str]:
        path = os.pathsep.join([str(self.bin), os.environ["PATH"]])
        return environment({"PATH": path})
