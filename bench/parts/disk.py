"""Bytes on the disk for each vote, and bytes written to it.

At a flood, and at a trickle of lone votes, each of which has a commit of its own.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from alphabet.trial.children import Children
from alphabet.trial.measured_server import served_with_sink
from alphabet.trial.self_bench import connected, exchange
from bench.case import Case, Value
from bench.flooding import flood_case
from bench.peers.event_library import EventLibrary
from bench.peers.postgres import Postgres
from bench.peers.redis import Redis
from bench.peers.sqlite import Sqlite
from bench.plan import Plan
from bench.processes import disk_bytes, written_bytes
from bench.subject import Flooded, Subject
from bench.subjects import Alphabet, Bare

FLOOD_DISK = "on disk, flood"
UNIT = "bytes/vote"


@contextmanager
def cases(plan: Plan) -> Iterator[list[Case]]:
    """Give a case for each subject's flood, and one for the trickle."""
    subjects: list[Subject] = [
        Alphabet(plan.buffer),
        Bare(plan.buffer),
        Redis(),
        Redis(has_stream=True),
        Postgres(is_copy=True),
        Sqlite(),
        EventLibrary(),
    ]
    yield [
        *(_case(plan, subject) for subject in subjects),
        Case("trickle: Alphabet", lambda place: _trickle(place, plan.round_trips)),
    ]


def _case(plan: Plan, subject: Subject) -> Case:
    def values(flooded: Flooded) -> Iterable[Value]:
        disk = flooded.disk_bytes / flooded.votes
        yield Value(FLOOD_DISK, UNIT, disk, subject.name)
        if flooded.written_bytes:
            written = flooded.written_bytes / flooded.votes
            yield Value("written, flood", UNIT, written, subject.name)

    return flood_case(plan, subject, f"flood: {subject.name}", values)


def _trickle(place: Path, count: int) -> Iterable[Value]:
    data_dir = place / "data"
    with (
        Children(place) as children,
        served_with_sink(children, data_dir) as (server, sink),
        connected(server.port) as connection,
    ):
        before = written_bytes(server.child.pid)
        exchange(connection, sink, count)
        written = written_bytes(server.child.pid) - before
    yield Value("on disk, trickle", UNIT, disk_bytes(data_dir) / count)
    yield Value("written, trickle", UNIT, written / count)
