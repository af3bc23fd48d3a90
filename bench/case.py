"""Cases that take turns: in every run each is measured once, one behind the other.

So a moment's trouble of the machine hits what is compared alike, and figures of one
run can be divided by each other.
"""

import os
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import attrs

from alphabet.trial.figure import ALPHABET, Figure


class MissingPeerError(Exception):
    """A peer is not installed, or does not start; the message says what is missing."""


@attrs.define(eq=False)
class UnknownCaseError(Exception):
    """The operator has named a case that the part does not have."""

    title: str
    known: Sequence[str]

    def __str__(self) -> str:
        """Name it, and those that there are."""
        return (
            f"there is no case {self.title!r}, but {', '.join(map(repr, self.known))}"
        )


@attrs.frozen
class Value:
    """One number that one run has given."""

    name: str
    unit: str
    number: float
    subject: str = ALPHABET


@attrs.frozen
class Case:
    """One thing to measure; `measure` is one run, in an empty directory.

    It raises MissingPeerError where it cannot be measured here, and any other error
    where what it measures is wrong: that ends everything.
    """

    title: str
    measure: Callable[[Path], Iterable[Value]]


def choose(cases: Sequence[Case], titles: Sequence[str]) -> Sequence[Case]:
    """Give the cases that have these titles, in their own order; without titles, all.

    Raises:
        UnknownCaseError: No case has one of the titles.
    """
    known = [case.title for case in cases]
    for title in titles:
        if title not in known:
            raise UnknownCaseError(title, known)
    return [case for case in cases if not titles or case.title in titles]


@attrs.frozen
class Results:
    """What came of it: figures, and why some titles have none."""

    figures: Sequence[Figure]
    missing: dict[str, str]


@attrs.define
class Turns:
    """Takes turns; `say` is told what is being measured."""

    runs: int
    directory: Path
    say: Callable[[str], None]
    _values: dict[tuple[str, str, str], list[float]] = attrs.field(
        factory=dict, init=False
    )
    _missing: dict[str, str] = attrs.field(factory=dict, init=False)

    def take(self, cases: Iterable[Case]) -> Results:
        """Measure every case in every run."""
        waiting = list(cases)
        for run in range(1, self.runs + 1):
            for case in list(waiting):
                self.say(f"run {run} of {self.runs}: {case.title}")
                try:
                    self._measure(case)
                except MissingPeerError as error:
                    self.say(f"not measured: {error}")
                    self._missing[case.title] = str(error)
                    waiting.remove(case)
        return Results(
            [
                Figure(name, unit, values, subject)
                for (name, unit, subject), values in self._values.items()
                if len(values) == self.runs
            ],
            self._missing,
        )

    def _measure(self, case: Case) -> None:
        with tempfile.TemporaryDirectory(dir=self.directory) as name:
            # Peers may run as another user, who must be let in.
            place = Path(name)
            place.chmod(0o755)
            for value in case.measure(place):
                key = (value.name, value.unit, value.subject)
                self._values.setdefault(key, []).append(value.number)
        # What a case has left to the disk, deletions too, must not hit the next one.
        os.sync()
