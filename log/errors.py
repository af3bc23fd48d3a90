"""What can go wrong with a log, sorted by whose fault it is.

```
LogError
├── DirectoryError   operator: this directory cannot be used
├── LockedError      operator: another server holds it
├── ForeignError     operator: a sound log, but not for this program
├── DamagedError     disk: what is stored is not what was written
├── DiskFullError    disk: no room; the same bytes may be committed later
└── CommitError      disk: the outcome of a commit is unknown
```

A misuse by the programmer is a ValueError. Nothing here formats for a terminal:
`str(error)` is the one line that a user sees.
"""

from pathlib import Path

import attrs


class LogError(Exception):
    """Anything that a log refuses or reports; catch this to catch them all."""


@attrs.frozen
class DirectoryError(LogError):
    """A directory that cannot hold, or does not hold, what it should."""

    path: Path
    reason: str

    def __str__(self) -> str:
        """Name the directory and the reason."""
        return f"{self.path}: {self.reason}"


@attrs.frozen
class LockedError(LogError):
    """A data directory that another server is using."""

    path: Path
    pid: int | None

    def __str__(self) -> str:
        """Name the holder, by its pid where the lock file tells it."""
        holder = "another server" if self.pid is None else f"server {self.pid}"
        return f"{self.path} is in use by {holder}; stop it or choose another directory"


@attrs.frozen
class ForeignError(LogError):
    """A log of another application, schema, newer format or other engine."""

    path: Path
    reason: str
    remedy: str

    def __str__(self) -> str:
        """Say what the log is and what to do about it."""
        return f"{self.path}: {self.reason}; {self.remedy}"


@attrs.frozen
class DamagedError(LogError):
    """Stored bytes that fail their checksum, link, sequence or structure.

    `sequence` is the first sequence of the damaged place, or None where the
    damage lies outside the blocks.
    """

    path: Path
    sequence: int | None
    reason: str

    def __str__(self) -> str:
        """Name the file and the first damaged place."""
        place = "" if self.sequence is None else f" at sequence {self.sequence}"
        return (
            f"{self.path} is damaged{place}: {self.reason}; "
            "'alphabet-replay verify' names all of it, 'alphabet-replay salvage' saves "
            "what is intact"
        )


@attrs.frozen
class DiskFullError(LogError):
    """A commit that found no room; ask `Log.holds` before repeating it."""

    path: Path
    sequence: int
    code: int

    def __str__(self) -> str:
        """Say how far the log reaches and that room must be made."""
        return (
            f"{self.path}: no space left on the disk after sequence {self.sequence} "
            f"(code {self.code}); make room and counting goes on"
        )


@attrs.frozen
class CommitError(LogError):
    """A commit that failed, with nobody knowing whether it took place."""

    path: Path
    sequence: int
    reason: str

    def __str__(self) -> str:
        """Say what failed after which sequence."""
        return (
            f"{self.path}: the commit after sequence {self.sequence} failed: "
            f"{self.reason}; check the disk, then start again: the log decides "
            "what was stored"
        )
