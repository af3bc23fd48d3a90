"""What comes to the engine, in the order it came.

Pure values. A `connection` or a `token` is handed back once all that came up to it is
durable; the engine looks no further.
"""

import attrs

from alphabet.framing import Frames
from log.block import Point
from log.row import Cursor, Reject


@attrs.frozen
class Received:
    """Whole frames of one connection, for one pipeline.

    `points` are the points of reference that they bring their streams to, stored in
    the same transaction; `receipt`, unless it is None, is handed back once all is
    durable.
    """

    connection: object
    peer: str
    pipeline: int
    frames: Frames
    points: tuple[Point, ...] = ()
    receipt: object | None = None


@attrs.frozen
class Refusal:
    """Something that was refused before it could be decoded."""

    connection: object
    reject: Reject


@attrs.frozen
class End:
    """A sender has half-closed: it waits until all before this is durable."""

    connection: object


@attrs.frozen
class Decision:
    """A two-phase sink commits: its row is to be durable before it says so."""

    token: object
    name: str
    cursor: Cursor


Arrival = Received | Refusal | End | Decision
