"""The `eventsourcing` library: aggregates whose events it keeps in SQLite.

An aggregate for each letter; a thousand votes are saved together. In process, no
socket, which favours it.
"""

import os
import time
from functools import cache
from pathlib import Path
from typing import Any

import attrs

from alphabet.trial.output_check import WrongOutputError
from alphabet.trial.vote_load import Load, running_totals
from bench.case import MissingPeerError
from bench.processes import disk_bytes, written_bytes
from bench.subject import Flooded

PERSISTENCE = "eventsourcing.sqlite"
SAVE_VOTES = 1000


@attrs.frozen
class EventLibrary:
    """The library under a flood."""

    name: str = "eventsourcing (in process)"

    def flood(self, place: Path, votes: int) -> Flooded:
        """Count votes with a new application."""
        application_class, make_letter = _classes()
        file = place / "events.sqlite"
        settings = {"PERSISTENCE_MODULE": PERSISTENCE, "SQLITE_DBNAME": str(file)}
        application = application_class(env=settings)
        load = Load(votes)
        [letters], [counts] = load.letters().tolist(), load.counts().tolist()
        aggregates = {code: make_letter(chr(code)) for code in set(letters)}
        application.save(*aggregates.values())
        before = written_bytes(os.getpid())
        began = time.perf_counter()
        answers = []
        for start in range(0, votes, SAVE_VOTES):
            changed = set()
            part = slice(start, start + SAVE_VOTES)
            for code, count in zip(letters[part], counts[part], strict=True):
                aggregate = aggregates[code]
                aggregate.vote(count)
                changed.add(code)
                answers.append(aggregate.total)
            application.save(*(aggregates[code] for code in changed))
        seconds = time.perf_counter() - began
        written = written_bytes(os.getpid()) - before
        kept = {
            c: application.repository.get(a.id).total for c, a in aggregates.items()
        }
        application.close()
        expected = running_totals(load.letters()[0], load.counts()[0]).tolist()
        if answers != expected or kept != dict(zip(letters, expected, strict=True)):
            raise WrongOutputError("eventsourcing has counted wrongly")
        return Flooded(votes, seconds, disk_bytes(place), written)


@cache
def _classes() -> tuple[Any, Any]:
    """Give the application's class and the aggregates'.

    They are made here, for the library may not be installed.
    """
    try:
        from eventsourcing.application import Application
        from eventsourcing.domain import Aggregate, event
    except ImportError as error:
        raise MissingPeerError("the library eventsourcing is not installed") from error

    class Letter(Aggregate):
        @event("Opened")
        def __init__(self, letter: str) -> None:
            self.letter = letter
            self.total = 0

        @event("Voted")
        def vote(self, votes: int) -> None:
            self.total += votes

    return Application, Letter
