"""What people copy from the documents runs as it stands, but for its ports."""

import contextlib
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs

from tests.documents import DOCUMENTS, README, fenced
from tests.process import ROOT, environment, serving, wait_until

PROGRAMS = {"alphabet": "alphabet.cli", "alphabet-replay": "recovery.cli"}
DEFAULT_PORTS = {"7002", "7010"}
PAGE_PORT = "8010"


@attrs.frozen
class Shown:
    """A command of a console block, and the lines shown under it."""

    words: list[str]
    lines: list[str]


def consoles() -> Iterator[Shown]:
    """Give the README's commands, in order."""
    for block in fenced(README, "console"):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, *lines = part.splitlines()
            yield Shown(shlex.split(command), lines)


class TestExamples:
    """Console blocks of the README, and Python blocks of every document."""

    def test_sixty_seconds(self, tmp_path: Path) -> None:
        """The README's commands print what it shows, line by line."""
        (tmp_path / "examples").symlink_to(ROOT / "examples")
        ports: dict[str, str] = {}
        with contextlib.ExitStack() as stack:
            waiting = []
            for shown in consoles():
                words = [_with_ports(word, ports) for word in shown.words]
                if words[:2] in (["alphabet", "run"], ["alphabet", "receive"]):
                    said = stack.enter_context(_running(tmp_path, words))
                    port = _wait_port(said)
                    ports[_port_of(shown.lines[0])] = port
                    if words[1] == "run":
                        ports[PAGE_PORT] = _port_of(_lines(said)[1])
                    waiting.append((said, shown.lines))
                else:
                    assert _finished(tmp_path, words) == [
                        _with_ports(line, ports) for line in shown.lines
                    ]
            for said, lines in waiting:
                _wait_lines(said, [_with_ports(line, ports) for line in lines])
        assert ports.keys() == {*DEFAULT_PORTS, PAGE_PORT}

    def test_python_examples(self, tmp_path: Path) -> None:
        """Every fenced Python example runs to its end, beside a server."""
        examples = [
            (file.name, code)
            for file in DOCUMENTS
            for code in fenced(file.read_text(), "python")
        ]
        assert examples
        with serving(tmp_path) as server:
            for name, code in examples:
                text = code.replace("7010", str(server.port))
                done = subprocess.run(
                    [sys.executable, "-W", "error", "-c", text],
                    cwd=tmp_path,
                    env=environment({}),
                    capture_output=True,
                    text=True,
                    timeout=30,
                    check=False,
                )
                assert done.returncode == 0, f"{name}: {done.stderr}"


def _with_ports(text: str, ports: dict[str, str]) -> str:
    """Put free ports for those that the README has: a new one is the system's."""
    return re.sub(
        r"(?<=127\.0\.0\.1:)\d+", lambda found: ports.get(found[0], "0"), text
    )


def _port_of(line: str) -> str:
    return line.rpartition(":")[2]


def _program(words: Sequence[str]) -> list[str]:
    return [sys.executable, "-P", "-m", PROGRAMS[words[0]], *words[1:]]


@contextlib.contextmanager
def _running(place: Path, words: Sequence[str]) -> Iterator[Path]:
    """Start a program; give the file with what it says, without a server's journal."""
    file = place / f"{words[1]}.said"
    is_server = words[1] == "run"
    with (
        file.open("wb") as said,
        subprocess.Popen(
            _program(words),
            cwd=place,
            env=environment({}),
            stdout=said,
            stderr=subprocess.DEVNULL if is_server else said,
        ) as process,
    ):
        try:
            yield file
        finally:
            process.kill()


def _finished(place: Path, words: Sequence[str]) -> list[str]:
    done = subprocess.run(
        _program(words),
        cwd=place,
        env=environment({}),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def _lines(file: Path) -> list[str]:
    return file.read_text().splitlines()


def _wait_lines(file: Path, expected: list[str]) -> None:
    wait_until(lambda: _lines(file) == expected, f"{expected} in {file}")


def _wait_port(file: Path) -> str:
    """Wait for the line that tells a port, and for a server that it serves."""
    is_server = file.name == "run.said"
    count = 3 if is_server else 1
    wait_until(lambda: len(_lines(file)) >= count, f"a port in {file}")
    return _port_of(_lines(file)[0])
