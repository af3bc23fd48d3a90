"""A server under measurement: `alphabet run` as a process on free ports, and its sink.

Only what any user sees of a server is used: its command line, files and sockets.
"""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import time
from typing import TYPE_CHECKING, Any, Self

import attrs

from alphabet.trial.flood import HOST, SECONDS_MAX

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from alphabet.trial.children import Child, Children

ANY_PORT = f"{HOST}:0"


@attrs.frozen
class MeasuredServer:
    """A server that is ready; `start_seconds` is from its start to its last line."""

    child: Child
    port: int
    start_seconds: float

    @classmethod
    def start(cls, children: Children, data_dir: Path, *words: object) -> Self:
        """Start a server and wait until it is ready."""
        began = time.perf_counter()
        return cls.ready(launch(children, data_dir, *words), began)

    @classmethod
    def ready(cls, child: Child, began: float) -> Self:
        """Wait until a server that was launched is ready."""
        child.await_line("Application has successfully", seconds=SECONDS_MAX)
        seconds = time.perf_counter() - began
        port = child.await_line("listening in ").rpartition(":")[2]
        return cls(child, int(port), seconds)

    @property
    def replayed(self) -> int:
        """How many events it replayed."""
        return int(self.child.await_line("RESILIENCE: Replayed ").split()[0])

    def stop(self) -> None:
        """Stop it in good order."""
        self.child.signal(signal.SIGTERM)
        self.child.require_end(0)

    def kill(self) -> None:
        """End it at once, so that nothing is written any more."""
        self.child.signal(signal.SIGKILL)
        self.child.await_end()


def launch(children: Children, data_dir: Path, *words: object) -> Child:
    """Start a server, and do not wait for it."""
    options = ("--in", ANY_PORT, "--http", "none", "--data-dir", data_dir, *words)
    return children.start("server", "alphabet.cli", "run", *options)


@contextlib.contextmanager
def served_with_sink(
    children: Children, data_dir: Path, *words: object
) -> Iterator[tuple[MeasuredServer, socket.socket]]:
    """Give a server and the connection that its outputs come over; then stop it."""
    with socket.create_server((HOST, 0)) as listener:
        port = listener.getsockname()[1]
        out = ("--out", f"{HOST}:{port}")
        server = MeasuredServer.start(children, data_dir, *out, *words)
        listener.settimeout(SECONDS_MAX)
        sink, _ = listener.accept()
        with sink:
            sink.settimeout(SECONDS_MAX)
            yield server, sink
            server.stop()


def describe_log(children: Children, data_dir: Path) -> dict[str, Any]:
    """Ask `alphabet-replay info` about a log."""
    words = ("recovery.cli", "info", data_dir, "--json")
    found: dict[str, Any] = json.loads(children.run("info", *words))
    return found
