"""A real browser: headless Chromium, told what to do by its DevTools protocol.

It talks over two pipes (`--remote-debugging-pipe`), a JSON object and a zero byte each
way, so it listens nowhere. See https://chromedevtools.github.io/devtools-protocol/.
"""

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs

from tests.process import SECONDS_MAX

OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-pipe",
)
_REDIRECT = 'exec "$@" 3<&"$READ" 4>&"$WRITE"'
"""Chromium reads its descriptor 3 and writes 4."""
_READ_BYTES = 1 << 20

Message = dict[str, Any]


class BrowserError(Exception):
    """The browser has refused a command."""


@attrs.define(eq=False)
class Browser:
    """The process and its pipes; `told` are the events that nobody has taken yet."""

    to: int
    from_: int
    told: list[Message] = attrs.Factory(list)
    _number: int = 0
    _unread: bytes = b""

    def ask(self, method: str, parameters: Message, session: str | None = None) -> Any:  # noqa: ANN401 - whatever the protocol says
        """Send a command, for a session or for the browser; give its result.

        Raises BrowserError.
        """
        self._number += 1
        message: Message = {"id": self._number, "method": method, "params": parameters}
        if session is not None:
            message["sessionId"] = session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self.to, data) :]
        while True:
            answer = self._receive()
            if answer.get("id") != self._number:
                self.told.append(answer)
            elif "error" in answer:
                raise BrowserError(f"{method}: {answer['error']}")
            else:
                return answer["result"]

    def _receive(self) -> Message:
        deadline = time.monotonic() + SECONDS_MAX
        while b"\0" not in self._unread:
            left = max(deadline - time.monotonic(), 0.0)
            assert select.select([self.from_], [], [], left)[0], "a silent browser"
            data = os.read(self.from_, _READ_BYTES)
            assert data, "the browser has ended"
            self._unread += data
        text, _, self._unread = self._unread.partition(b"\0")
        message: Message = json.loads(text)
        return message


@contextlib.contextmanager
def browsing(profile: Path) -> Iterator[Browser]:
    """Give a browser that keeps its files in `profile`, and end it afterwards."""
    program = shutil.which("chromium")
    assert program, "no chromium: `apt-get install chromium` adds it"
    own = f"--user-data-dir={profile}"
    there, to = os.pipe()
    from_, back = os.pipe()
    with subprocess.Popen(
        ["bash", "-c", _REDIRECT, "bash", program, *OPTIONS, own],
        env={**os.environ, "READ": str(there), "WRITE": str(back), "TZ": "UTC"},
        pass_fds=(there, back),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        os.close(there)
        os.close(back)
        try:
            yield Browser(to, from_)
        finally:
            # Its helpers are in the session that was started for it.
            os.killpg(process.pid, signal.SIGKILL)
            os.close(to)
            os.close(from_)
