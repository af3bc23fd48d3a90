"""SQLite in its best form: no server, a write-ahead log that is flushed per commit.

Votes come as Python tuples, thousands a transaction; totals are summed up by numpy and
stored once a transaction. Nothing goes over a socket, which favours it.
"""

import contextlib
import os
import sqlite3
import time
from pathlib import Path

import attrs
import numpy as np

from alphabet.trial.output_check import WrongOutputError
from alphabet.trial.vote_load import Load, running_totals
from bench.bare.kernel import Tally
from bench.processes import disk_bytes, written_bytes
from bench.subject import Flooded

TRANSACTION_VOTES = 10_000


@attrs.frozen
class Sqlite:
    """SQLite under a flood."""

    name: str = "SQLite (in process)"

    def flood(self, place: Path, votes: int) -> Flooded:
        """Count votes with a new database."""
        load = Load(votes)
        [letters], [counts] = load.letters(), load.counts()
        rows = list(zip(letters.tolist(), counts.tolist(), strict=True))
        file = place / "votes.sqlite"
        tally = Tally()
        answers = []
        with contextlib.closing(_open(file)) as database:
            before = written_bytes(os.getpid())
            began = time.perf_counter()
            for start in range(0, votes, TRANSACTION_VOTES):
                part = slice(start, start + TRANSACTION_VOTES)
                database.execute("BEGIN")
                database.executemany(
                    "INSERT INTO events (letter, votes) VALUES (?, ?)", rows[part]
                )
                answers.append(tally.add(letters[part], counts[part]))
                database.executemany(
                    "REPLACE INTO totals VALUES (?, ?)", rows_of(tally)
                )
                database.execute("COMMIT")
            seconds = time.perf_counter() - began
            written = written_bytes(os.getpid()) - before
            kept = dict(database.execute("SELECT letter, total FROM totals"))
            [[events]] = database.execute("SELECT count(*) FROM events")
        if (
            kept != dict(rows_of(tally))
            or events != votes
            or (np.concatenate(answers) != running_totals(letters, counts)).any()
        ):
            raise WrongOutputError("SQLite has counted wrongly")
        return Flooded(votes, seconds, disk_bytes(place), written)


def rows_of(tally: Tally) -> list[tuple[int, int]]:
    """Give the letters that are there, and their totals."""
    return [
        (int(code), int(tally.totals[code])) for code in np.flatnonzero(tally.totals)
    ]


def _open(file: Path) -> sqlite3.Connection:
    """Open a new database; transactions begin where we say."""
    database = sqlite3.connect(file, isolation_level=None)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = FULL")
    database.execute(
        "CREATE TABLE events (sequence INTEGER PRIMARY KEY, letter INTEGER NOT NULL,"
        " votes INTEGER NOT NULL)"
    )
    database.execute(
        "CREATE TABLE totals (letter INTEGER PRIMARY KEY, total INTEGER NOT NULL)"
    )
    return database
