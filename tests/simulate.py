"""Repeat simulated runs: `python -m tests.simulate --seed N`.

A run that breaks a promise is shortened, and told turn by turn; exit code 1. With
`--digest`, only a digest of all that happened is printed for each seed.
"""

import argparse
import sys
from collections.abc import Sequence

from tests.simulator.schedule import (
    Plan,
    digests,
    failure,
    report,
    shortest,
    without_flushes,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Play seeds; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulate")
    parser.add_argument("--seed", type=int, required=True, help="the first seed")
    parser.add_argument("--count", type=int, default=1, help="how many from there on")
    parser.add_argument("--digest", action="store_true", help="print digests alone")
    chosen = parser.parse_args(arguments)
    with without_flushes():
        return _play(chosen)


def _play(chosen: argparse.Namespace) -> int:
    for seed in range(chosen.seed, chosen.seed + chosen.count):
        plan = Plan.of(seed)
        if chosen.digest:
            print(seed, *digests([seed]))  # noqa: T201 - its result
        elif failure(plan) is not None:
            print(report(shortest(plan)))  # noqa: T201
            return 1
        elif chosen.count == 1:
            print(report(plan))  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
