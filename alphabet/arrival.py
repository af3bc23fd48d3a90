"""What comes from the sources to the engine, in the order it came.

Pure values. A `connection` is a token: the engine hands it back and looks no further.
"""

import attrs

from alphabet.framing import Frames
from log.row import Reject


@attrs.frozen
class Received:
    """Whole frames of one connection, for one pipeline."""

    connection: object
    peer: str
    pipeline: int
    frames: Frames


@attrs.frozen
class Refusal:
    """Something that was refused before it could be decoded."""

    connection: object
    reject: Reject


@attrs.frozen
class End:
    """A sender has half-closed: it waits until all before this is durable."""

    connection: object


Arrival = Received | Refusal | End
