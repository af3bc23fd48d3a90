"""End to end through TCP, flushed, every output received and checked.

Alphabet with one sender, 100, 1,000, and one that writes ten votes at a time; beside
the bare server and what a user might pick instead.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from alphabet.trial.vote_load import VOTE_BYTES
from bench.case import Case, Value
from bench.flooding import flood_case
from bench.peers.event_library import EventLibrary
from bench.peers.postgres import Postgres
from bench.peers.redis import Redis
from bench.peers.sqlite import Sqlite
from bench.plan import Plan
from bench.subject import Flooded, Subject
from bench.subjects import Alphabet, Bare

ONE_SENDER = "one sender"
TEN_AT_A_TIME = "one sender, 10 votes a write"
MANY_SENDERS = {count: f"{count:,} senders" for count in (100, 1000)}


@contextmanager
def cases(plan: Plan) -> Iterator[list[Case]]:
    """Give a case for each subject; those that are compared stand together."""
    few = 10 * VOTE_BYTES
    yield [
        _case(plan, ONE_SENDER, Alphabet(plan.buffer)),
        _case(plan, ONE_SENDER, Bare(plan.buffer)),
        _case(plan, ONE_SENDER, Redis()),
        _case(plan, ONE_SENDER, Redis(has_stream=True)),
        _case(plan, ONE_SENDER, Postgres(is_copy=False)),
        _case(plan, ONE_SENDER, Postgres(is_copy=True)),
        _case(plan, ONE_SENDER, Sqlite()),
        _case(plan, ONE_SENDER, EventLibrary()),
        _case(plan, TEN_AT_A_TIME, Alphabet(plan.buffer, write_bytes=few)),
        _case(plan, TEN_AT_A_TIME, Bare(plan.buffer, write_bytes=few)),
        _case(plan, MANY_SENDERS[100], Alphabet(plan.buffer, senders=100)),
        _case(plan, MANY_SENDERS[100], Redis(connections=100)),
        _case(plan, MANY_SENDERS[1000], Alphabet(plan.buffer, senders=1000)),
    ]


def _case(plan: Plan, name: str, subject: Subject) -> Case:
    def values(flooded: Flooded) -> Iterable[Value]:
        rate = flooded.votes_per_second
        return [Value(name, "votes/s", rate, subject.name)]

    return flood_case(plan, subject, f"{name}: {subject.name}", values)
