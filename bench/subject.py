"""Who is compared: each takes a flood of votes in its own best way.

A subject makes every vote durable, keeps the events and not only their sum, and gives
back the new total of each vote; what it gives back is checked.
"""

from pathlib import Path
from typing import Protocol

import attrs


@attrs.frozen
class Flooded:
    """A flood that went through, and what it left and wrote.

    Attributes:
        votes: How many.
        seconds: From the first sent to the last total received.
        disk_bytes: The room that all files take up afterwards.
        written_bytes: What the server's processes have had written.
    """

    votes: int
    seconds: float
    disk_bytes: int
    written_bytes: int

    @property
    def votes_per_second(self) -> float:
        """The rate."""
        return self.votes / self.seconds


class Subject(Protocol):
    """Something that counts votes."""

    @property
    def name(self) -> str:
        """What it is called in tables."""
        ...

    def flood(self, place: Path, votes: int) -> Flooded:
        """Count about so many votes, in an empty directory.

        Raises:
            MissingPeerError: It is not installed here.
            WrongOutputError: It has counted wrongly.
        """
        ...
