"""Programs beside each other: servers, their exporters, Spark, a receiver of totals."""

import contextlib
import os
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import attrs

from tests.process import PYTHON, ROOT, environment

IS_SOAK = bool(os.environ.get("ALPHABET_SOAK"))
SECONDS_MAX = 180.0
"""How long anything of Spark may take: on a busy machine it starts slowly."""
JAVA_OPTIONS = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
"""Spark's Java lives for seconds here: compiling more costs more than it gives."""
_OUTPUT = struct.Struct(">IsQ")


def wait_until(condition: Callable[[], object], what: str) -> None:
    """Wait for a condition; fail, naming it, when the time is up."""
    deadline = time.monotonic() + SECONDS_MAX
    while not condition():
        assert time.monotonic() < deadline, f"in vain: {what}"
        time.sleep(0.02)


@attrs.define(eq=False)
class Program:
    """A process that writes what it says to a file."""

    process: subprocess.Popen[bytes]
    said: Path

    @classmethod
    def start(
        cls, said: Path, command: Sequence[object], variables: Mapping[str, str]
    ) -> "Program":
        """Start a program."""
        with said.open("wb") as stream:
            process = subprocess.Popen(
                list(map(str, command)),
                cwd=ROOT,
                env=environment(variables),
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
            )
        return cls(process, said)

    @property
    def text(self) -> str:
        """What it said so far."""
        return self.said.read_text()

    def wait(self) -> int:
        """Wait for its end; give its exit code."""
        return self.process.wait(SECONDS_MAX)

    def kill(self) -> None:
        """End it at once."""
        self.process.kill()
        self.process.wait()


@attrs.define
class Programs:
    """All programs of a test; they end with it."""

    place: Path
    started: list[Program] = attrs.Factory(list)

    def start(self, *command: object, **variables: str) -> Program:
        """Start a program."""
        said = self.place / f"{len(self.started)}.said"
        variables = {"JAVA_TOOL_OPTIONS": JAVA_OPTIONS, **variables}
        program = Program.start(said, command, variables)
        self.started.append(program)
        return program

    def spark(self, *words: object, **variables: str) -> Program:
        """Start `alphabet spark-totals` of this place."""
        return self.start(
            *(*PYTHON, "alphabet.cli", "spark-totals"),
            *("--segments", self.segments, "--checkpoint", self.place / "checkpoint"),
            *words,
            SPARK_LOCAL_IP="127.0.0.1",
            **variables,
        )

    @property
    def segments(self) -> Path:
        """Where all segments are."""
        return self.place / "segments"


@contextlib.contextmanager
def programs(place: Path) -> Iterator[Programs]:
    """Give a place for programs, and end those that are left."""
    found = Programs(place)
    found.segments.mkdir()
    try:
        yield found
    finally:
        for program in found.started:
            program.kill()


@attrs.define
class TotalsReceiver:
    """Takes totals over any number of connections; none may go back."""

    listener: socket.socket
    totals: dict[bytes, int] = attrs.Factory(dict)
    back: list[tuple[bytes, int, int]] = attrs.Factory(list)

    @property
    def address(self) -> str:
        """Where it listens."""
        host, port = self.listener.getsockname()
        return f"{host}:{port}"

    def run(self) -> None:
        """Take connections until the listener is shut down."""
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                with connection, connection.makefile("rb") as stream:
                    self._read(stream.read)

    def _read(self, read: Callable[[int], bytes]) -> None:
        with contextlib.suppress(ConnectionResetError):
            while len(frame := read(_OUTPUT.size)) == _OUTPUT.size:
                _, letter, total = _OUTPUT.unpack(frame)
                before = self.totals.get(letter, 0)
                if total < before:
                    self.back.append((letter, before, total))
                self.totals[letter] = total


@contextlib.contextmanager
def receiving() -> Iterator[TotalsReceiver]:
    """Give a receiver of totals that listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        receiver = TotalsReceiver(listener)
        thread = threading.Thread(target=receiver.run)
        thread.start()
        try:
            yield receiver
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(SECONDS_MAX)
