"""Where documents for operators are tried: their commands, on a real server.

A line of a shell block runs as it stands, but for places and ports. What is not there
is stood in for: systemd's words for a server become those of `tests.process`, and a
pattern for the journal is looked for in our own source.
"""

import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import attrs

from tests.documents import fenced
from tests.process import ROOT, SECONDS_MAX, Server, environment, free_port, wait_until

UNIT = "alphabet"
UNITS = ("alphabet.socket", "alphabet-http.socket", "alphabet.service")
"""What a stop must name: the sockets would start the server again."""
PROGRAMS = {"alphabet": "alphabet.cli", "alphabet-replay": "recovery.cli"}
ROOTS = ("/var/lib/", "/mnt/", "/etc/alphabet/")
"""What documents call the operator's places; each is a directory of the test's own."""
_RENEWED = "certificates were read again"


@attrs.define(eq=False)
class Premises:
    """A machine with one server on it, as the documents take it to be."""

    place: Path
    words: Sequence[object] = ()
    ports: dict[str, str] = attrs.field(
        factory=lambda: {name: str(free_port()) for name in ("7010", "8010", "7002")}
    )
    server: Server | None = attrs.field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        """Make the places, and the programs under their own names."""
        for root in (*ROOTS, "/mnt/backup", "/bin"):
            self.at(root).mkdir(parents=True, exist_ok=True)
        for name, module in PROGRAMS.items():
            file = self.at(f"/bin/{name}")
            file.write_text(f'#!/bin/sh\nexec {sys.executable} -P -m {module} "$@"\n')
            file.chmod(0o755)

    def at(self, path: str) -> Path:
        """Give where a path of the documents is here."""
        return self.place / path.lstrip("/")

    def address(self, port: str) -> str:
        """Give where a port of the documents is here."""
        return f"127.0.0.1:{self.ports[port]}"

    def start(self) -> None:
        """Start the server, if it is not running."""
        if self.server is not None and self.server.is_running:
            return
        self.server = Server.start(
            self.place,
            *("--data-dir", self.at("/var/lib/alphabet")),
            *("--in", self.address("7010"), "--http", self.address("8010")),
            *("--drain-seconds", 0, *self.words),
            is_bare=True,
        ).wait_ready()

    def stop(self) -> None:
        """Stop the server in good order, if it is running."""
        if self.server is not None and self.server.is_running:
            assert self.server.stop() == 0

    def kill(self) -> None:
        """End the server at once."""
        if self.server is not None:
            self.server.kill()

    def renew(self) -> None:
        """Have the certificates read again."""
        assert self.server is not None
        before = self.server.said().count(_RENEWED)
        self.server.process.send_signal(signal.SIGHUP)
        said = self.server.said
        wait_until(lambda: sum(_RENEWED in line for line in said()) > before, _RENEWED)

    def run(self, text: str) -> None:
        """Run every shell block of a document, or of a part of it."""
        for block in fenced(text, "sh"):
            for line in block.replace("\\\n", " ").splitlines():
                if line and not line.startswith("#"):
                    self._line(line)

    def _line(self, line: str) -> None:
        words = shlex.split(line, comments=True)
        if words[0] == "systemctl":
            self._systemctl(*words[1:])
        elif words[0] == "journalctl":
            _journalctl(*words[1:])
        elif words[:2] == ["alphabet", "run"]:
            self._second(line)
        else:
            done = self.shell(line)
            assert done.returncode == 0, f"{line}: {done.stdout}{done.stderr}"

    def _second(self, line: str) -> None:
        """Start another server beside the first, and end it once it is ready."""
        local = re.sub(r"(?<=127\.0\.0\.1:)\d+", "0", self._local(line))
        _, _, *words = shlex.split(local)
        other = Server.start(self.place, *words, is_bare=True)
        try:
            other.wait_ready()
        finally:
            other.kill()

    def shell(self, line: str) -> "subprocess.CompletedProcess[str]":
        """Run one line, to its end."""
        path = f"{self.at('/bin')}{os.pathsep}{os.environ['PATH']}"
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", self._local(line)],
            cwd=self.place,
            env=environment({"PATH": path}),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS_MAX,
            check=False,
        )

    def _local(self, line: str) -> str:
        """Put the places and ports of this machine for those of the documents."""
        for root in ROOTS:
            line = re.sub(rf"(?<![\w/]){root}", f"{self.at(root)}/", line)
        for port in self.ports:
            line = line.replace(f"127.0.0.1:{port}", self.address(port))
        return line

    def _systemctl(self, verb: str, *words: str) -> None:
        if verb in {"start", "stop"} and words != (UNIT,):
            assert words == UNITS, words
            words = (UNIT,)
        assert words[-1] == UNIT, words
        verbs: Mapping[str, Sequence[Callable[[], None]]] = {
            "start": [self.start],
            "stop": [self.stop],
            "restart": [self.stop, self.start],
            "status": [],
            "kill --signal=HUP": [self.renew],
        }
        for each in verbs[" ".join([verb, *words[:-1]])]:
            each()


@contextlib.contextmanager
def premises(place: Path, *words: object) -> Iterator[Premises]:
    """Give a machine whose server has been started, and end that afterwards."""
    made = Premises(place, words)
    try:
        made.start()
        yield made
    finally:
        made.kill()


def _journalctl(*words: str) -> None:
    """Fail unless the journal may have what a command looks for in it."""
    assert words[:2] == ("-u", UNIT), words
    option, value = words[2:]
    if option == "--grep":
        source = "".join(
            file.read_text()
            for name in ("alphabet", "log", "recovery")
            for file in (ROOT / name).rglob("*.py")
        )
        assert all(re.search(each, source) for each in value.split("|")), value
    else:
        assert option == "-n"
        assert value.isdigit()
