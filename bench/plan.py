"""How much is measured: sizes for an hour, for minutes, for a test."""

from pathlib import Path

import attrs

from alphabet.trial.flood import OutputBuffer


@attrs.frozen
class Plan:
    """Sizes; `directory` is where all data goes.

    Attributes:
        runs: How often each is measured.
        seconds: About how long each flood takes; the rate decides how many votes.
        votes: How many votes the longest log has; others have a tenth, a hundredth.
        round_trips: How many lone votes are sent.
        probe_votes: How many votes tell a rate at first.
        flood_votes: How many votes each flood has; None takes what fills its time.
        connections: How many senders sit idle.
        buffer: Room for outputs, for every flood in turn.
    """

    directory: Path
    runs: int
    seconds: float
    votes: int
    round_trips: int
    probe_votes: int = 20_000
    flood_votes: int | None = None
    connections: int = 1000
    buffer: OutputBuffer = attrs.field(factory=OutputBuffer)


def in_words(votes: int) -> str:
    """Write a round number of votes shortly: `100 M votes`."""
    for size, letter in ((1_000_000, " M"), (1000, " k")):
        if votes >= size and votes % size == 0:
            return f"{votes // size}{letter} votes"
    return f"{votes} votes"
