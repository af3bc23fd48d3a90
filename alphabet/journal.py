"""What the server says about itself, on standard error.

Lines go through a bounded queue to a thread of their own, so a slow, full or closed
standard error never blocks a commit: lines that find no room are counted, and the
count is told later. `text` is for people, `json` for machines, `auto` asks whether a
terminal is there.
"""

import queue
import threading
from typing import Any, TextIO

import attrs

from alphabet.thread import start_thread

LINES_MAX = 1000
CLOSE_SECONDS_MAX = 1.0


@attrs.define(eq=False)
class _LineQueue:
    """Where structlog hands over finished lines; a `WrappedLogger` for it."""

    _stream: TextIO
    _lines: queue.Queue[str | None] = attrs.field(
        factory=lambda: queue.Queue(LINES_MAX), init=False
    )
    _dropped: int = attrs.field(default=0, init=False)
    _thread: threading.Thread = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        """Start the thread that writes."""
        self._thread = start_thread("journal", self._write)

    def msg(self, line: str) -> None:
        """Queue a line, or count it where there is no room."""
        try:
            self._lines.put_nowait(line)
        except queue.Full:
            self._dropped += 1

    debug = info = warning = error = msg

    def close(self) -> None:
        """Write what is queued, for a moment at most."""
        try:
            self._lines.put(None, timeout=CLOSE_SECONDS_MAX)
        except queue.Full:
            return
        self._thread.join(CLOSE_SECONDS_MAX)

    def _write(self) -> None:
        while (line := self._lines.get()) is not None:
            dropped, self._dropped = self._dropped, 0
            if dropped:
                line = f"{line}\n({dropped} lines before this one found no room)"
            try:
                self._stream.write(line + "\n")
                self._stream.flush()
            except (OSError, ValueError):
                self._dropped += dropped + 1


@attrs.frozen
class Journal:
    """Says what happened, one line each; `fields` are for machines."""

    _queue: _LineQueue
    _logger: Any

    @classmethod
    def open(cls, stream: TextIO, log_format: str = "auto") -> "Journal":
        """Begin to write to a stream, as `text`, `json` or what suits it (`auto`)."""
        import structlog

        is_terminal = stream.isatty()
        if log_format == "text" or (log_format == "auto" and is_terminal):
            renderer: Any = structlog.dev.ConsoleRenderer(
                colors=is_terminal, pad_event_to=0
            )
        else:
            renderer = structlog.processors.JSONRenderer()
        lines = _LineQueue(stream)
        logger = structlog.wrap_logger(
            lines,
            processors=[
                structlog.processors.add_log_level,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                renderer,
            ],
            wrapper_class=structlog.make_filtering_bound_logger(0),
        )
        return cls(lines, logger)

    def info(self, event: str, **fields: object) -> None:
        """Say something that is as it should be."""
        self._logger.info(event, **fields)

    def warning(self, event: str, **fields: object) -> None:
        """Say something that somebody should look at."""
        self._logger.warning(event, **fields)

    def error(self, event: str, **fields: object) -> None:
        """Say something that does not work any more."""
        self._logger.error(event, **fields)

    def close(self) -> None:
        """Write what is queued, for a moment at most."""
        self._queue.close()
