"""What the server says about itself, on standard error.

Entries go through a bounded queue to a thread of their own, so a slow, full or closed
standard error never blocks a commit: those that find no room are counted, and the count
is told later. The thread paces what repeats itself. `text` is for people, `json` for
machines, `auto` asks whether a terminal is there.
"""

import contextlib
import math
import queue
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TextIO

import attrs

from alphabet.journal import entries
from alphabet.journal.entries import Entry
from alphabet.journal.repeats import Repeats
from alphabet.thread import start_thread

ENTRIES_MAX = 1000
CLOSE_SECONDS_MAX = 1.0


@attrs.define(eq=False)
class Journal:
    """Says what happened, one line each."""

    _stream: TextIO
    _render: Callable[[dict[str, Any]], str]
    _clock: Callable[[], float] = time.monotonic
    _entries: queue.Queue[tuple[float, Entry] | None] = attrs.field(
        factory=lambda: queue.Queue(ENTRIES_MAX), init=False
    )
    _repeats: Repeats = attrs.field(factory=Repeats, init=False)
    _lost: int = attrs.field(default=0, init=False)
    _thread: threading.Thread = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        """Start the thread that writes."""
        self._thread = start_thread("journal", self._write_all)

    @classmethod
    def open(cls, stream: TextIO, log_format: str = "auto") -> "Journal":
        """Begin to write to a stream, as `text`, `json` or what suits it (`auto`)."""
        is_terminal = stream.isatty()
        if log_format == "text" or (log_format == "auto" and is_terminal):
            return cls(stream, _text_renderer(has_colors=is_terminal))
        return cls(stream, _json_renderer())

    def say(self, entry: Entry) -> None:
        """Queue an entry, or count it where there is no room."""
        try:
            self._entries.put_nowait((time.time(), entry))
        except queue.Full:
            self._lost += 1

    def close(self) -> None:
        """Write what is queued, for a moment at most."""
        try:
            self._entries.put(None, timeout=CLOSE_SECONDS_MAX)
        except queue.Full:
            return
        self._thread.join(CLOSE_SECONDS_MAX)

    def _write_all(self) -> None:
        is_open = True
        while is_open:
            due_at = self._repeats.due_at
            seconds = None if due_at is None else max(due_at - self._clock(), 0)
            with contextlib.suppress(queue.Empty):
                item = self._entries.get(timeout=seconds)
                is_open = item is not None
                if item is not None:
                    self._take(*item)
            for entry in self._repeats.due(self._clock() if is_open else math.inf):
                self._write(time.time(), entry)

    def _take(self, at: float, entry: Entry) -> None:
        for each in self._repeats.note(entry, self._clock()):
            self._write(at, each)

    def _write(self, at: float, entry: Entry) -> None:
        lost, self._lost = self._lost, 0
        lines = [self._line(at, entry)]
        if lost:
            lines.insert(0, self._line(at, entries.entries_lost(entries=lost)))
        try:
            self._stream.write("".join(lines))
            self._stream.flush()
        except (OSError, ValueError):
            self._lost += lost + entry.count

    def _line(self, at: float, entry: Entry) -> str:
        when = datetime.fromtimestamp(at, UTC).isoformat(timespec="microseconds")
        fields = {
            "timestamp": when.removesuffix("+00:00") + "Z",
            "level": entry.kind.level,
            "kind": entry.kind.name,
            "event": entry.text,
            "count": entry.count,
            **entry.facts,
        }
        return self._render(fields) + "\n"


def _json_renderer() -> Callable[[dict[str, Any]], str]:
    """Give what writes all of an entry as one object."""
    from structlog.processors import JSONRenderer

    render = JSONRenderer()
    return lambda fields: str(render(None, fields["level"], fields))


def _text_renderer(*, has_colors: bool) -> Callable[[dict[str, Any]], str]:
    """Give what writes an entry for people: when, how bad, and its sentence."""
    from structlog.dev import ConsoleRenderer

    render = ConsoleRenderer(colors=has_colors, pad_event_to=0)

    def write(fields: dict[str, Any]) -> str:
        shown = {name: fields[name] for name in ("timestamp", "level")}
        shown["event"] = printable(fields["event"])
        return str(render(None, fields["level"], shown))

    return write


def printable(text: str) -> str:
    """Write what is no character to look at by its number: peers send anything."""
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode()
        for each in text
    )
