"""The event path: an application that has no batch methods, end to end."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from bench.case import Case, Value
from bench.flooding import flood_case
from bench.plan import Plan
from bench.subject import Flooded
from bench.subjects import Alphabet

MODULE = "bench.plain_application"
NAME = "an application without batch methods"


@contextmanager
def cases(plan: Plan) -> Iterator[list[Case]]:
    """Give the one case."""
    words = ("--application-module", MODULE)

    def values(flooded: Flooded) -> Iterable[Value]:
        return [Value(NAME, "votes/s", flooded.votes_per_second)]

    yield [flood_case(plan, Alphabet(plan.buffer, words=words), NAME, values)]
