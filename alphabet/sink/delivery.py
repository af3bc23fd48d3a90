"""How far a plain TCP sink has come: cursor arithmetic, without a socket.

What the peer's TCP has acknowledged is delivered, rounded down to a whole event. A
connection that ends in a reset means that its peer died with bytes unread: those may
be any that the connection was sent, as far back as the largest receive buffer.

Invariants: the cursor stands on the end of an event's output; it never passes what
was acknowledged; between two connections it moves back only by `rewind`.

Pure.
"""

import bisect
from collections import deque

import attrs

from alphabet.outputs import Outputs
from log.row import Cursor

REWIND_BYTES_MAX = 32 << 20
"""The largest receive buffer that a peer may have: what a reset may have lost."""
BORDER_BYTES_MIN = REWIND_BYTES_MAX >> 10
"""How far apart are the borders that a rewind may land on: it bounds their number."""


@attrs.define
class Delivery:
    """One sink's cursor, and what its connection has on the way.

    Offsets are in the sink's whole output, over all connections.
    """

    cursor: Cursor
    _pending: deque[tuple[int, Outputs]] = attrs.field(factory=deque, init=False)
    _borders: deque[Cursor] = attrs.field(init=False)
    _pushed: int = attrs.field(init=False)
    _sent: int = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        """Begin as a new connection does."""
        self.open()

    def open(self) -> None:
        """Begin a connection: it is sent what follows the cursor."""
        self._pending.clear()
        self._borders = deque([self.cursor])
        self._pushed = self._sent = self.cursor.offset

    @property
    def floor(self) -> int:
        """The lowest sequence that this sink may have to begin from."""
        return self._borders[0].sequence

    @property
    def unsent_bytes(self) -> int:
        """Bytes pushed and not yet sent."""
        return self._pushed - self._sent

    def push(self, outputs: Outputs) -> None:
        """Queue outputs; they follow those pushed before."""
        if not outputs.data:
            # All that waits for nothing to arrive is one, however many events it has.
            outputs = Outputs(outputs.last_sequence, b"", (0,))
            if self._pending and not self._pending[-1][1].data:
                self._pending.pop()
        self._pending.append((self._pushed, outputs))
        self._pushed += len(outputs.data)

    def sent(self, size: int) -> None:
        """Note that the kernel took `size` more bytes."""
        self._sent += size

    def acknowledged(self, outstanding: int) -> None:
        """Move the cursor: all that was sent but `outstanding` bytes has arrived."""
        reached = self._sent - outstanding
        while self._pending:
            start, outputs = self._pending[0]
            if start + len(outputs.data) > reached:
                break
            self.cursor = outputs.end_cursor(start)
            self._note_border()
            self._pending.popleft()
        if self._pending:
            self._move_within(*self._pending[0], reached)
        while len(self._borders) > 1 and self._is_far_behind(self._borders[1]):
            self._borders.popleft()

    def rewind(self) -> None:
        """Go back by what the connection was sent, as far as a reset may have lost.

        The cursor lands on a border of what was pushed, at or before that place.
        """
        lost_from = self.cursor.offset - REWIND_BYTES_MAX
        self.cursor = next(
            (
                border
                for border in reversed(self._borders)
                if border.offset <= lost_from
            ),
            self._borders[0],
        )

    def _move_within(self, start: int, outputs: Outputs, reached: int) -> None:
        passed = bisect.bisect_right(outputs.ends, reached - start)
        sequence = outputs.first_sequence + passed - 1
        if passed and sequence > self.cursor.sequence:
            self.cursor = Cursor(sequence, start + outputs.ends[passed - 1])

    def _note_border(self) -> None:
        """Keep the cursor as the newest border, instead of one that is close by."""
        borders = self._borders
        offset = self.cursor.offset
        is_close = len(borders) > 1 and offset - borders[-2].offset < BORDER_BYTES_MIN
        if is_close or offset == borders[-1].offset:
            borders[-1] = self.cursor
        else:
            borders.append(self.cursor)

    def _is_far_behind(self, border: Cursor) -> bool:
        return border.offset <= self.cursor.offset - REWIND_BYTES_MAX
