"""Totals for whoever looks: after which event they are, and only durable ones.

The thread that counts pins up a copy of the totals with each batch, while somebody
looks; a reader takes the newest copy whose event is flushed. Neither waits for the
other, and there is no lock: a copy never changes once it is up.

Invariant: at most `IN_FLIGHT_MAX` of the newest copies are not durable yet, and more
than that are kept, so one that is durable is always among them once there was one.

Pure: a clock's seconds come in.
"""

from collections import deque
from collections.abc import Mapping

import attrs

from alphabet.application import AllVotes
from alphabet.pipeline.machine import Machine

KEPT_MAX = 8
IN_FLIGHT_MAX = 3
"""Batches that are sealed and not flushed: one made, one waiting, one at work."""
LOOK_SECONDS = 5.0
"""How long copies are made after somebody has looked."""


@attrs.frozen
class Totals:
    """Each letter's total after event `sequence`; `totals` never changes."""

    sequence: int
    totals: Mapping[bytes, int]


@attrs.define(eq=False)
class TotalsBoard:
    """The newest totals; `look` and `newest` may be called by any thread."""

    _copies: deque[Totals] = attrs.field(
        factory=lambda: deque(maxlen=KEPT_MAX), init=False
    )
    _wanted_until: float = attrs.field(default=float("-inf"), init=False)

    def look(self, now: float) -> None:
        """Ask for copies from now on, for a while."""
        self._wanted_until = now + LOOK_SECONDS

    def offer(self, sequence: int, machine: Machine, now: float) -> None:
        """Pin up the machine's totals, which are those after `sequence`, if wanted.

        For the thread whose turn it is to count: nobody else changes the machine.
        """
        if now > self._wanted_until:
            return
        if self._copies and self._copies[-1].sequence == sequence:
            return
        totals = totals_of(machine)
        if totals is not None:
            self._copies.append(Totals(sequence, totals))

    def newest(self, durable_sequence: int) -> Totals | None:
        """Give the newest totals at or below a sequence (inclusive), None for none."""
        copies = tuple(self._copies)
        durable = (
            each for each in reversed(copies) if each.sequence <= durable_sequence
        )
        return next(durable, None)


def totals_of(machine: Machine) -> dict[bytes, int] | None:
    """Copy the totals by letter; None for an application that has others."""
    state = _votes_state(machine)
    if state is None:
        return None
    return {
        letter: vote.votes for letter, vote in sorted(state.votes_by_letter.items())
    }


def has_totals(machine: Machine) -> bool:
    """Say whether a machine is of an application that has totals; for any thread."""
    return _votes_state(machine) is not None


def _votes_state(machine: Machine) -> AllVotes | None:
    states = [machine.state(name) for name in machine.state_names]
    if len(states) != 1 or not isinstance(states[0], AllVotes):
        return None
    return states[0]
