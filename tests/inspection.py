"""What a server left in its data directory: read by the library, and by our tools."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from log.block import Point
from log.directory import DataDirectory
from log.log import Log
from log.row import Cursor, Reject
from tests.process import replay


@contextlib.contextmanager
def _opened(place: Path) -> Iterator[Log]:
    directory = DataDirectory(place / "data")
    with contextlib.closing(directory.open_log(is_read_only=True)) as log:
        yield log


def last_sequence(place: Path) -> int:
    """Give the log's last sequence, 0 where there is no log yet."""
    if not DataDirectory(place / "data").has_log():
        return 0
    with _opened(place) as log:
        return log.tail.sequence


def cursor(place: Path, name: str = "out") -> Cursor:
    """Give a sink's cursor as the log has it."""
    with _opened(place) as log:
        return log.cursors()[name]


def cursors(place: Path) -> dict[str, Cursor]:
    """Give the cursors of all sinks."""
    with _opened(place) as log:
        return dict(log.cursors())


def points(place: Path) -> list[Point]:
    """Give every stream's point of reference, none where there is no log yet."""
    if not DataDirectory(place / "data").has_log():
        return []
    with _opened(place) as log:
        return [point for _, point in log.points().values()]


def records(place: Path) -> bytes:
    """Give all records of the log, back to back."""
    with _opened(place) as log:
        return b"".join(record for block in log.read(0) for record in block.records)


def rejects(place: Path) -> list[Reject]:
    """Give the rejects that the log has kept, oldest first."""
    with _opened(place) as log:
        return [reject for _, reject in log.rejects()]


def totals(place: Path, *words: object) -> dict[str, int]:
    """Give the totals that `alphabet-replay state --json` prints."""
    done = replay("state", place / "data", "--json", *words)
    assert done.code == 0, done.stderr
    found: dict[str, int] = json.loads(done.stdout)["totals"]
    return found


def verify(place: Path) -> dict[str, Any]:
    """Let `alphabet-replay verify` check a data directory; give what it found."""
    done = replay("verify", place / "data", "--json")
    found: dict[str, Any] = json.loads(done.stdout)
    assert (done.code == 0) is found["ok"], done.stderr
    return found
