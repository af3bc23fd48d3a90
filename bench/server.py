"""A server under measurement: a real process on free ports, and its sink."""

import contextlib
import json
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import attrs

from alphabet.children import Child, Children

SECONDS_MAX = 600.0


@attrs.frozen
class Server:
    """A server that is ready; `start_seconds` is from its start to its last line."""

    child: Child
    port: int
    start_seconds: float

    @classmethod
    def start(cls, children: Children, data_dir: Path, *words: object) -> Self:
        """Start a server and wait until it is ready."""
        began = time.perf_counter()
        child = children.start(
            "server",
            "alphabet.cli",
            *("run", "--in", "127.0.0.1:0", "--data-dir", data_dir, *words),
        )
        child.await_line("Application has successfully", seconds=SECONDS_MAX)
        seconds = time.perf_counter() - began
        port = child.await_line("listening in ").rpartition(":")[2]
        return cls(child, int(port), seconds)

    @property
    def replayed(self) -> int:
        """How many events it replayed."""
        return int(self.child.await_line("RESILIENCE: Replayed ").split()[0])

    def anonymous_bytes(self) -> int:
        """Give its own memory, the part that is no file's (RssAnon)."""
        status = Path(f"/proc/{self.child.pid}/status").read_text()
        line = next(each for each in status.splitlines() if each.startswith("RssAnon"))
        return int(line.split()[1]) << 10

    def stop(self) -> None:
        """Stop it in good order."""
        self.child.signal(signal.SIGTERM)
        self.child.require_end(0)

    def kill(self) -> None:
        """End it at once, so that nothing is written any more."""
        self.child.signal(signal.SIGKILL)
        self.child.await_end()


@contextlib.contextmanager
def served_with_sink(
    children: Children, data_dir: Path
) -> Iterator[tuple[Server, socket.socket]]:
    """Give a server and the connection that its outputs come over; then stop it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        server = Server.start(children, data_dir, "--out", f"127.0.0.1:{port}")
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
