"""A way to wake a thread that waits for sockets.

The waiting thread registers `fileno` for reading and calls `clear` when it has woken;
any thread calls `wake`. A wake that comes before the wait is not lost.
"""

import contextlib
import signal
import socket

import attrs


@attrs.define(eq=False)
class Waker:
    """A pair of sockets of which one becomes readable."""

    _pair: tuple[socket.socket, socket.socket] = attrs.field(
        factory=socket.socketpair, init=False
    )

    def __attrs_post_init__(self) -> None:
        """Never block on the pair itself."""
        for end in self._pair:
            end.settimeout(0)

    def fileno(self) -> int:
        """The descriptor to wait for."""
        return self._pair[0].fileno()

    def wake(self) -> None:
        """Wake the thread that waits, or will."""
        # A full pair has a wake in it already; a closed one has nobody waiting.
        with contextlib.suppress(BlockingIOError, OSError):
            self._pair[1].send(b"\0")

    def wake_on_signals(self) -> None:
        """Wake at every signal that Python handles; for the main thread to call.

        The system may give a signal to any thread, and Python's handlers run in the
        main one alone: asleep, it would not hear of it.
        """
        signal.set_wakeup_fd(self._pair[1].fileno(), warn_on_full_buffer=False)

    def clear(self) -> None:
        """Take all wakes that have come."""
        with contextlib.suppress(BlockingIOError):
            while self._pair[0].recv(4096):
                pass

    def close(self) -> None:
        """Close both ends."""
        for end in self._pair:
            end.close()
