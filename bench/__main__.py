"""`python -m bench`: measure everything, several times, and print a table.

Nothing is left behind, and nothing is written but to `--output`.
"""

import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import click

from bench import measures
from bench.figure import Figure, percentile, table
from bench.load import Load
from bench.machine import describe_machine

FILL_VOTES_MAX = 1_000_000
"""How many different votes fill a log; more are these again."""
MEBIBYTE = 1 << 20

T = TypeVar("T")


@click.command()
@click.option(
    "--votes",
    type=click.IntRange(min=1),
    default=10_000_000,
    show_default=True,
    help="How many votes the log has that servers are restarted on.",
)
@click.option(
    "--load-votes",
    type=click.IntRange(min=1),
    default=1_000_000,
    show_default=True,
    help="How many votes a flood has.",
)
@click.option(
    "--round-trips",
    type=click.IntRange(min=1),
    default=2_000,
    show_default=True,
    help="How many lone votes are sent.",
)
@click.option(
    "--runs",
    type=click.IntRange(min=3),
    default=3,
    show_default=True,
    help="How often each is measured.",
)
@click.option(
    "--output",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    help="Write the table here too.",
)
def bench(
    *, votes: int, load_votes: int, round_trips: int, runs: int, output: Path | None
) -> None:
    """Measure this machine's Alphabet, and print medians with their spread."""
    with tempfile.TemporaryDirectory(prefix="alphabet-bench-") as name:
        directory = Path(name)
        lines = describe_machine(directory)
        figures = [
            *_flood(directory, Load(load_votes), runs),
            *_lone_votes(directory, round_trips, runs),
            *_restarts(directory, _whole_load(votes), runs),
        ]
    command = " ".join(["python -m bench", *sys.argv[1:]])
    text = "\n".join([*lines, f"- command: `{command}`", "", table(figures)])
    click.echo(text)
    if output is not None:
        output.write_text(text + "\n", encoding="utf-8")


def _whole_load(votes: int) -> Load:
    """Make a load of at least so many votes, in whole turns."""
    turns = -(-votes // FILL_VOTES_MAX)
    return Load(-(-votes // turns), repeat=turns)


def _flood(directory: Path, load: Load, runs: int) -> Iterator[Figure]:
    found = _repeat(
        directory, "flood", runs, lambda place: measures.measure_throughput(place, load)
    )
    name = "end to end, one sender, every output checked"
    yield Figure(name, "votes/s", [each.votes_per_second for each in found])
    name = f"the log after {load.votes:,} votes"
    yield Figure(name, "bytes/vote", [each.bytes_per_vote for each in found])
    idle = [each.idle_bytes / MEBIBYTE for each in found]
    yield Figure("own memory (RssAnon), idle", "MiB", idle)
    loaded = [each.loaded_bytes / MEBIBYTE for each in found]
    yield Figure("own memory (RssAnon), under load, most", "MiB", loaded)


def _lone_votes(directory: Path, count: int, runs: int) -> Iterator[Figure]:
    """Measure round trips and bare commits in turn, under the same conditions."""

    def both(place: Path) -> tuple[list[float], list[float]]:
        trips = measures.measure_round_trips(place, count)
        return trips, measures.measure_bare_commits(place, count)

    found = _repeat(directory, "lone votes", runs, both)
    for number, name in enumerate(("a lone vote's round trip", "a bare LMDB commit")):
        for percent in (50, 99):
            values = [1000 * percentile(samples[number], percent) for samples in found]
            yield Figure(f"{name}, p{percent}", "ms", values)


def _restarts(directory: Path, load: Load, runs: int) -> Iterator[Figure]:
    click.echo(f"filling a log with {load.votes * load.repeat} votes", err=True)
    data_dir = measures.fill(directory, load)
    yield _restart(directory, data_dir, "with a snapshot at its end", runs)
    measures.forget_snapshots(data_dir)
    yield _restart(directory, data_dir, "without any snapshot", runs)


def _restart(directory: Path, data_dir: Path, name: str, runs: int) -> Figure:
    found = _repeat(
        directory,
        f"restart {name}",
        runs,
        lambda place: measures.measure_restart(place, data_dir),
    )
    _, replayed = found[0]
    title = f"restart {name}, {replayed:,} events replayed"
    return Figure(title, "s", [seconds for seconds, _ in found])


def _repeat(
    directory: Path, name: str, runs: int, measure: Callable[[Path], T]
) -> list[T]:
    """Measure several times, each in an empty directory of its own."""
    found = []
    for run in range(1, runs + 1):
        click.echo(f"{name}: run {run} of {runs}", err=True)
        with _place(directory) as place:
            found.append(measure(place))
    return found


@contextmanager
def _place(directory: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=directory) as name:
        yield Path(name)


if __name__ == "__main__":
    bench(prog_name="python -m bench")
