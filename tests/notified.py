"""A service manager's end of the notify socket."""

import contextlib
import socket
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

import attrs

from tests.process import wait_until

MESSAGE_BYTES_MAX = 4096


@attrs.define
class Notified:
    """A socket that a server notifies, and each message so far, line by line."""

    path: Path
    messages: list[list[str]] = attrs.Factory(list)
    _socket: socket.socket = attrs.field(init=False)

    def __enter__(self) -> Self:
        """Listen."""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(self.path).replace("@", "\0", 1))
        self._socket.settimeout(0)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Listen no more."""
        self._socket.close()

    @property
    def variables(self) -> dict[str, str]:
        """Give the variable that a server finds us by."""
        return {"NOTIFY_SOCKET": str(self.path)}

    def take(self) -> list[list[str]]:
        """Take the messages that have come; give all so far."""
        with contextlib.suppress(BlockingIOError):
            while True:
                message = self._socket.recv(MESSAGE_BYTES_MAX)
                self.messages.append(message.decode().split("\n"))
        return self.messages

    def wait(self, state: str) -> list[str]:
        """Wait for a message with a state that begins so; give the newest one."""

        def with_it() -> list[list[str]]:
            return [each for each in self.take() if any(map(_begins(state), each))]

        wait_until(with_it, f"{state} of the server")
        return with_it()[-1]

    def forget(self) -> None:
        """Take what has come, and let it go."""
        self.take()
        self.messages.clear()

    def count(self, state: str) -> int:
        """Count the messages so far that are this one state."""
        return self.take().count([state])


def _begins(state: str) -> Callable[[str], bool]:
    return lambda line: line.startswith(state)
