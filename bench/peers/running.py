"""Foreign programs: found, started on 127.0.0.1, and ended by their ids."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from bench.case import MissingPeerError

SECONDS_MAX = 300.0
POLL_SECONDS = 0.001


def find_program(name: str, *elsewhere: str) -> str:
    """Find a program on the path, or where Debian keeps it (glob patterns)."""
    found = shutil.which(name)
    others = [str(path) for each in elsewhere for path in sorted(Path("/").glob(each))]
    programs = [*filter(None, [found]), *others[::-1]]
    if not programs:
        raise MissingPeerError(f"{name} is not installed")
    return programs[0]


def free_port() -> int:
    """Give a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@contextlib.contextmanager
def running(
    command: Sequence[str], place: Path, *, user: str | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program whose words go to a file; end it, whatever happens."""
    with (place / "said").open("ab") as said:
        process = subprocess.Popen(
            command,
            cwd=place,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            user=user,
            group=user,
            env={**os.environ, "LC_ALL": "C"},
        )
    try:
        yield process
    finally:
        end(process, signal.SIGKILL)


def end(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Send a signal to a program that still runs, and wait for its end."""
    if process.poll() is None:
        process.send_signal(number)
    process.wait(SECONDS_MAX)


def await_ready(
    process: subprocess.Popen[bytes], is_ready: Callable[[], bool], place: Path
) -> float:
    """Wait until a program is ready; give the seconds that this took.

    Raises:
        MissingPeerError: It ended instead, or took too long.
    """
    began = time.perf_counter()
    while not is_ready():
        if process.poll() is not None or time.perf_counter() - began > SECONDS_MAX:
            said = (place / "said").read_text(errors="replace").strip()
            last = said.splitlines()[-1] if said else "it said nothing"
            raise MissingPeerError(f"it does not start: {last}")
        time.sleep(POLL_SECONDS)
    return time.perf_counter() - began
