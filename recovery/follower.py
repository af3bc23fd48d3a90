"""A machine kept at the end of a log that another process writes, look by look.

Each look opens the log anew and holds nothing in between: so a server may end, start
again, or be away, and a log that was put in another's place is noticed.
"""

from collections.abc import Callable
from pathlib import Path

import attrs

from log.block import Tail
from recovery.errors import RecoveryError
from recovery.replay import Recovered, Replayer, StateMachine


@attrs.frozen
class ReplacedError(RecoveryError):
    """A log that is not the one that was followed so far."""

    path: Path
    reason: str

    def __str__(self) -> str:
        """Name the log, and what shows that it is another."""
        return f"{self.path} was replaced: {self.reason}; start again to follow it"


@attrs.define
class Follower:
    """A machine, and how far it has come in the log that it follows."""

    machine: StateMachine
    _log_id: str = attrs.field(default="", init=False)
    _reached: Tail = attrs.field(default=Tail(0, 0), init=False)

    @property
    def sequence(self) -> int:
        """The event that the machine's states are those after."""
        return self._reached.sequence

    @property
    def time_ns(self) -> int | None:
        """The time of the last block, None where there is none yet."""
        return self._reached.time_ns or None

    def begin(
        self, replayer: Replayer, progress: Callable[[int], None] | None = None
    ) -> Recovered:
        """Bring the machine to the log's end, as it is now; see `Replayer.recover`."""
        log = replayer.log
        tail = log.tail
        recovered = replayer.recover(self.machine, tail.sequence, progress)
        self._log_id, self._reached = log.meta.log_id, tail
        return recovered

    def catch_up(self, replayer: Replayer) -> bool:
        """Apply the blocks that came since; say whether any did.

        `replayer` has the log as it was just opened. Raises ReplacedError, and what
        `Replayer.replay` raises.
        """
        log = replayer.log
        path = log.store.path
        if log.meta.log_id != self._log_id:
            reason = f"it is log {log.meta.log_id}, not {self._log_id}"
            raise ReplacedError(path, reason)
        tail, reached = log.tail, self._reached
        if tail.sequence < reached.sequence:
            reason = f"it ends at {tail.sequence}, and was at {reached.sequence}"
            raise ReplacedError(path, reason)
        if log.tail_at(reached.sequence) != reached:
            reason = f"it has another block at {reached.sequence}"
            raise ReplacedError(path, reason)
        replayer.replay(self.machine, reached.sequence, tail.sequence)
        self._reached = tail
        return tail != reached
