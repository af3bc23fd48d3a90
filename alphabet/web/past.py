"""Totals of the past, as `alphabet-replay state --at` gives them, in a child process.

One at a time, at a low priority, with a deadline; what was found is kept, for the past
does not change. A damaged log can kill the child, and not the server.
"""

import asyncio
import contextlib
import json
import os
import sys
from collections import OrderedDict
from pathlib import Path

import attrs

from alphabet.totals_board import Totals

KEPT_MAX = 64
"""How many moments of the past are kept."""
SECONDS_MAX = 60.0
"""How long one may take."""

_STATE = ("-P", "-m", "recovery.cli", "state")


class BusyError(Exception):
    """Another moment of the past is being computed."""


@attrs.frozen
class PastError(Exception):
    """The totals of a moment cannot be had; `cause` is one line."""

    cause: str

    def __str__(self) -> str:
        """Give the cause."""
        return self.cause


@attrs.define(eq=False)
class Past:
    """Asks for totals after an event; belongs to one event loop."""

    data_dir: Path
    seconds_max: float = SECONDS_MAX
    _kept: OrderedDict[int, Totals] = attrs.field(factory=OrderedDict, init=False)
    _is_busy: bool = attrs.field(default=False, init=False)

    async def totals_at(self, sequence: int) -> Totals:
        """Give the totals after an event; raises BusyError or PastError."""
        if sequence in self._kept:
            self._kept.move_to_end(sequence)
            return self._kept[sequence]
        if self._is_busy:
            raise BusyError
        self._is_busy = True
        try:
            totals = await self._compute(sequence)
        finally:
            self._is_busy = False
        self._kept[sequence] = totals
        if len(self._kept) > KEPT_MAX:
            self._kept.popitem(last=False)
        return totals

    async def _compute(self, sequence: int) -> Totals:
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            *(*_STATE, str(self.data_dir), "--at", str(sequence), "--format", "json"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={k: v for k, v in os.environ.items() if not k.startswith("ALPHABET_")},
        )
        try:
            found, said = await asyncio.wait_for(child.communicate(), self.seconds_max)
        except TimeoutError as error:
            raise PastError(f"it took more than {self.seconds_max:g} s") from error
        finally:
            with contextlib.suppress(ProcessLookupError):
                # Its own child ends with it.
                child.kill()
            # Else asyncio says so, where the loop ends before the child has.
            await child.wait()
        if child.returncode:
            lines = said.decode(errors="replace").splitlines()
            raise PastError(lines[-1] if lines else f"exit code {child.returncode}")
        totals = json.loads(found)["totals"]
        return Totals(
            sequence, {name.encode("latin-1"): total for name, total in totals.items()}
        )
