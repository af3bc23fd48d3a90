"""`python -m bench.bare`: flood the bare server alone, and print its rate."""

import tempfile
from pathlib import Path

import click

from alphabet.trial.figure import Figure, format_number
from alphabet.trial.flood import OutputBuffer
from alphabet.trial.vote_load import load_of
from bench.bare.driver import flood


@click.command()
@click.option("--votes", type=click.IntRange(min=1), default=40_000_000)
@click.option("--runs", type=click.IntRange(min=1), default=5)
def bare(*, votes: int, runs: int) -> None:
    """Measure the bare server on this machine."""
    load, buffer, rates = load_of(votes), OutputBuffer(), []
    for _ in range(runs):
        with tempfile.TemporaryDirectory() as name:
            rates.append(load.votes / flood(Path(name), load, buffer))
    figure = Figure("bare", "votes/s", rates)
    numbers = (figure.median, figure.lowest, figure.highest)
    print("{} votes/s ({} to {})".format(*map(format_number, numbers)))


if __name__ == "__main__":
    bare()
