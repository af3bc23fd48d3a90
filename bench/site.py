"""A server of several, with its log and its exporter, as `export --follow` has it."""

import json
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs

from alphabet.trial.children import POLL_SECONDS, Child, ChildError, Children
from alphabet.trial.flood import SECONDS_MAX, receive
from alphabet.trial.measured_server import served_with_sink
from alphabet.trial.output_check import check_all
from alphabet.trial.self_bench import connected
from alphabet.trial.vote_load import OUTPUT_BYTES, Load
from bench.plan import Plan
from recovery.exporting.segment import Segment


@attrs.frozen
class Site:
    """A server by its name; its log is in `data_dir`, made by whoever serves it."""

    name: str
    data_dir: Path

    def totals(self, children: Children) -> dict[str, int]:
        """Ask `alphabet-replay state` for the totals of the log."""
        words = ("recovery.cli", "state", self.data_dir, "--json")
        found: dict[str, int] = json.loads(children.run("state", *words))["totals"]
        return found

    @contextmanager
    def exported(
        self, children: Children, segments: Path, votes: int, every_seconds: float
    ) -> Iterator[Child]:
        """Export to `segments` meanwhile, `votes` a segment; then end in good order."""
        child = children.start(
            "exporter",
            *("recovery.cli", "export", self.data_dir, segments, "--follow"),
            *("--server", self.name, "--file-events", votes),
            *("--every-seconds", every_seconds),
        )
        yield child
        child.signal(signal.SIGTERM)
        child.require_end(0)


def await_segments(child: Child, segments: Path, votes: int) -> list[Path]:
    """Wait until a server's segments have so many votes; raises ChildError."""
    deadline = time.monotonic() + SECONDS_MAX
    while True:
        files = sorted(segments.glob("[0-9]*.parquet"))
        newest = Segment.parse(files[-1].name) if files else None
        if newest is not None and newest.last_sequence >= votes:
            return files
        child.require_alive()
        if time.monotonic() > deadline:
            raise ChildError(f"{child.name} has not written {votes} votes")
        time.sleep(POLL_SECONDS)


def fill_in_blocks(place: Path, plan: Plan, load: Load) -> Path:
    """Make a log with a load, a turn in a block or a few; give its data directory.

    Raises:
        WrongOutputError: The server has counted wrongly.
    """
    outputs = plan.buffer.view(load.output_bytes)
    turn, turn_bytes = load.frames().tobytes(), load.votes_per_turn * OUTPUT_BYTES
    data_dir = place / "data"
    with (
        Children(place) as children,
        served_with_sink(children, data_dir) as (server, sink),
        connected(server.port) as connection,
    ):
        for number in range(load.turns):
            connection.sendall(turn)
            start = number * turn_bytes
            receive(sink, outputs[start : start + turn_bytes])
    check_all(load, outputs)
    return data_dir
