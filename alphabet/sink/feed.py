"""The live outputs of one sink, between the commit and the sink's own thread.

A bounded window. A sink that does not keep up is let go: it is given the states at a
sequence, gets the live outputs up to there, and derives the rest from the log until
it has caught up. So nobody waits for a sink longer than a moment, and memory is flat.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

import attrs

from alphabet.outputs import Outputs
from alphabet.pipeline.machine import Capture

WINDOW_BYTES_MAX = 16 << 20
ROOM_WAIT_SECONDS_MAX = 0.1


@attrs.define(eq=False)
class Feed:
    """What is released after `released` goes to a sink that is attached.

    Only outputs of `pipelines` do, if they are given: a number for each.
    """

    released: int
    window_bytes_max: int = WINDOW_BYTES_MAX
    pipelines: frozenset[int] | None = attrs.field(default=None, kw_only=True)
    clock: Callable[[], float] = time.monotonic
    _changed: threading.Condition = attrs.Factory(threading.Condition)
    _window: deque[Outputs] = attrs.field(factory=deque, init=False)
    _window_bytes: int = attrs.field(default=0, init=False)
    _is_live: bool = attrs.field(default=False, init=False)
    _after: int = attrs.field(default=0, init=False)
    _let_go: Capture | None = attrs.field(default=None, init=False)

    def push(self, outputs: Sequence[Outputs], last_sequence: int) -> None:
        """Release outputs, which end at `last_sequence`."""
        with self._changed:
            self.released = last_sequence
            if self._is_live:
                for piece in outputs:
                    self._append(self.choose(piece).after(self._after))

    def choose(self, outputs: Outputs) -> Outputs:
        """Give outputs as this sink has them: without those of other pipelines."""
        if self.pipelines is None or outputs.pipeline in self.pipelines:
            return outputs
        return outputs.muted()

    def attach(self, after: int) -> bool:
        """Go live behind `after`, unless something later was released already."""
        with self._changed:
            if after < self.released:
                return False
            self._is_live = True
            self._after = after
            self._let_go = None
            return True

    def detach(self) -> None:
        """Stop being live and drop the window: the connection is gone."""
        with self._changed:
            self._is_live = False
            self._let_go = None
            self._window.clear()
            self._window_bytes = 0
            self._changed.notify_all()

    def pop_outputs(self) -> Outputs | None:
        """Give the next outputs, or None for nothing yet."""
        with self._changed:
            if not self._window:
                return None
            outputs = self._window.popleft()
            self._window_bytes -= outputs.weight
            self._changed.notify_all()
            return outputs

    def pop(self) -> Outputs | Capture | None:
        """Give the next outputs; the capture to derive from; or None for nothing yet.

        The capture comes when the sink was let go and all before it was given.
        """
        with self._changed:
            if self._window:
                return self.pop_outputs()
            capture = self._let_go
            if capture is None or self.released < capture.sequence:
                return None
            self._is_live = False
            self._let_go = None
            return capture

    @property
    def is_empty(self) -> bool:
        """Say whether nothing waits to be given, and nothing to be derived."""
        with self._changed:
            return not self._window and self._let_go is None

    def has_room(self) -> bool:
        """Wait a moment for a full window to drain by half; say whether it did."""
        deadline = self.clock() + ROOM_WAIT_SECONDS_MAX
        with self._changed:
            wanted = self.window_bytes_max
            while self._is_live and not self._let_go and self._window_bytes > wanted:
                wanted = self.window_bytes_max // 2
                left = deadline - self.clock()
                if left <= 0 or not self._changed.wait(left):
                    return False
            return True

    def let_go(self, capture: Capture) -> None:
        """Give the sink live outputs up to the capture, and nothing live after it.

        A sink that was let go already keeps its first capture.
        """
        with self._changed:
            if self._is_live and self._let_go is None:
                self._let_go = capture

    def _append(self, outputs: Outputs) -> None:
        is_wanted = (
            self._let_go is None or outputs.last_sequence <= self._let_go.sequence
        )
        if outputs.ends and is_wanted:
            self._window.append(outputs)
            self._window_bytes += outputs.weight
