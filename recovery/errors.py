"""Why a state cannot be rebuilt, sorted by whose fault it is.

```
RecoveryError
├── AheadError    disk: something reaches beyond the log: its tail was lost
├── GapError      operator: events are missing, and nobody has agreed to that
├── ReplayError   programmer: the application no longer takes what it took
└── StateError    programmer: a state cannot be dumped, or not be loaded
SnapshotError     a file that is not a whole snapshot (a ValueError; it is set aside)
```
"""

from pathlib import Path

import attrs


class RecoveryError(Exception):
    """Anything that keeps a state from being rebuilt."""


@attrs.frozen
class AheadError(RecoveryError):
    """A snapshot, cursor or point of reference that the log does not reach.

    `subject` names it. A snapshot whose block has another checksum is ahead too:
    the log it belongs to went on otherwise.
    """

    path: Path
    subject: str
    sequence: int
    last_sequence: int
    snapshot: Path | None = None

    def __str__(self) -> str:
        """Name both sequences and the two ways on."""
        line = (
            f"{self.path}: {self.subject} is at sequence {self.sequence}, and the log "
            f"ends at {self.last_sequence} or differs there: its tail was lost. Serve "
            "what is left with --accept-lost-tail"
        )
        if self.snapshot is None:
            return line
        return (
            f"{line}, or begin a new log at the snapshot with 'alphabet-replay compact "
            f"{self.path} TO --from-snapshot {self.snapshot}'"
        )


@attrs.frozen
class GapError(RecoveryError):
    """Events that salvage could not save: `first` to `last`, both inclusive."""

    path: Path
    first: int
    last: int

    def __str__(self) -> str:
        """Name the lost events and how to go on without them."""
        return (
            f"{self.path}: events {self.first} to {self.last} are lost, and counted "
            "only in totals from a snapshot behind them; go on with --accept-gaps"
        )


@attrs.frozen
class ReplayError(RecoveryError):
    """An event that the application took once and does not take now."""

    sequence: int
    reason: str

    def __str__(self) -> str:
        """Name the event and the cause."""
        return (
            f"event {self.sequence} can no longer be replayed: {self.reason}; the "
            "application's code changed since: bring the old decoder back"
        )


@attrs.frozen
class StateError(RecoveryError):
    """A state that its own code cannot dump, or bytes that it cannot load."""

    reason: str
    state: str | None = None

    def __str__(self) -> str:
        """Name the state, where it is one of several, and the cause."""
        if self.state is None:
            return self.reason
        return f"state {self.state!r}: {self.reason}"


class SnapshotError(ValueError):
    """Bytes that are not a whole, undamaged snapshot; the message says why."""
