"""What taking part costs: our own commands end to end, plain or by the connector.

A file of votes goes from `alphabet send` through a server to the file of
`alphabet receive`, each end plain or with `--connector`. The rate is that at which the
last file grows, so no process's start is part of it.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs

from alphabet.trial.children import Child, Children
from alphabet.trial.flood import HOST
from alphabet.trial.measured_server import MeasuredServer, launch
from alphabet.trial.output_check import WrongOutputError, check_of
from alphabet.trial.vote_load import OUTPUT_BYTES, Load, load_of
from bench.case import Case, Value
from bench.plan import Plan

PLAIN = "plain in, plain out"
IN = "connector in, plain out"
OUT = "plain in, connector out"
BOTH = "connector in, connector out"
RESTART = "from a killed server's restart to the next output, connector both ways"

VOTES_SHARE = 10
RESTART_VOTES_MAX = 1_000_000
SECONDS_MAX = 300.0
POLL_SECONDS = 0.001
SETTLE_SECONDS = 0.2
CHUNK_BYTES = 1 << 20


@attrs.frozen
class Ends:
    """Which ends take part in the connector protocol."""

    has_in: bool
    has_out: bool


@contextmanager
def cases(plan: Plan) -> Iterator[list[Case]]:
    """Give a case for each pairing, on one file of votes."""
    load = load_of(max(plan.votes // VOTES_SHARE, 1))
    file = _write(plan.directory / "votes", load)
    short = load_of(min(load.votes, RESTART_VOTES_MAX))
    short_file = _write(plan.directory / "few-votes", short)
    pairings = {
        PLAIN: Ends(has_in=False, has_out=False),
        IN: Ends(has_in=True, has_out=False),
        OUT: Ends(has_in=False, has_out=True),
        BOTH: Ends(has_in=True, has_out=True),
    }
    flows = [
        Case(name, _flow_case(name, ends, load, file))
        for name, ends in pairings.items()
    ]
    yield [*flows, Case(RESTART, lambda place: _restart(place, short, short_file))]


def _write(file: Path, load: Load) -> Path:
    turn = load.frames().tobytes()
    with file.open("wb") as stream:
        for _ in range(load.turns):
            stream.write(turn)
    return file


def _flow_case(
    name: str, ends: Ends, load: Load, file: Path
) -> Callable[[Path], Iterable[Value]]:
    def measure(place: Path) -> Iterable[Value]:
        with Children(place) as children:
            outputs, out = _receive(children, place, ends)
            server = _serve(children, place, ends, out)
            sender = _send(children, server.child, file, ends)
            rate = _rate(outputs, load)
            sender.require_end(0)
            server.stop()
        _check(outputs, load)
        yield Value(name, "votes/s", rate)

    return measure


def _restart(place: Path, load: Load, file: Path) -> Iterable[Value]:
    """Kill a server in the midst of a flow, and start it again at the same port."""
    ends = Ends(has_in=True, has_out=True)
    with Children(place) as children:
        outputs, out = _receive(children, place, ends)
        server = _serve(children, place, ends, out)
        port = _port(server.child, ends)
        sender = _send(children, server.child, file, ends)
        _await(lambda: outputs.stat().st_size > 0)
        server.kill()
        before = _settled_bytes(outputs)
        began = time.perf_counter()
        words = ("--connector-in", f"{HOST}:{port}", "--connector-out", out)
        child = launch(children, place / "data", *words)
        if before < load.output_bytes:
            _await(lambda: outputs.stat().st_size > before)
            yield Value(RESTART, "s", time.perf_counter() - began)
        sender.require_end(0)
        _await(lambda: outputs.stat().st_size == load.output_bytes)
        MeasuredServer.ready(child, began).stop()
    _check(outputs, load)


def _receive(children: Children, place: Path, ends: Ends) -> tuple[Path, str]:
    """Start a receiver; give its file, and the address where it listens."""
    outputs = place / "outputs"
    flags = ["--connector"] if ends.has_out else []
    words = ["receive", "--listen", f"{HOST}:0", "--output", outputs, *flags]
    child = children.start("receiver", "alphabet.cli", *words)
    return outputs, child.await_line("listening in ", is_error=True)


def _serve(children: Children, place: Path, ends: Ends, out: str) -> MeasuredServer:
    words = ["--connector-out" if ends.has_out else "--out", out]
    if ends.has_in:
        words += ["--connector-in", f"{HOST}:0"]
    return MeasuredServer.start(children, place / "data", *words)


def _port(server: Child, ends: Ends) -> int:
    part = "connector-in" if ends.has_in else "in"
    return int(server.await_line(f"listening {part} ").rpartition(":")[2])


def _send(children: Children, server: Child, file: Path, ends: Ends) -> Child:
    flags = ["--connector"] if ends.has_in else []
    to = f"{HOST}:{_port(server, ends)}"
    return children.start("sender", "alphabet.cli", "send", file, "--to", to, *flags)


def _rate(outputs: Path, load: Load) -> float:
    """Watch a file grow to its end; give the votes a second since its first byte."""
    _await(lambda: outputs.exists() and outputs.stat().st_size > 0)
    began, first_bytes = time.perf_counter(), outputs.stat().st_size
    _await(lambda: outputs.stat().st_size >= load.output_bytes)
    seconds = max(time.perf_counter() - began, POLL_SECONDS)
    grown_bytes = max(load.output_bytes - first_bytes, OUTPUT_BYTES)
    return grown_bytes / OUTPUT_BYTES / seconds


def _settled_bytes(outputs: Path) -> int:
    """Give a file's length once its receiver has taken back what was not final."""
    while True:
        size = outputs.stat().st_size
        time.sleep(SETTLE_SECONDS)
        if outputs.stat().st_size == size:
            return size


def _await(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS_MAX
    while not condition():
        if time.monotonic() >= deadline:
            raise WrongOutputError(f"outputs are missing after {SECONDS_MAX:g} s")
        time.sleep(POLL_SECONDS)


def _check(outputs: Path, load: Load) -> None:
    check = check_of(load)
    with outputs.open("rb") as stream:
        while data := stream.read(CHUNK_BYTES):
            check.feed(memoryview(data))
    check.finish()
