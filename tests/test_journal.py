"""What the server says: whole lines, in order, and never at the cost of a commit."""

import contextlib
import fcntl
import io
import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

import attrs
import pytest

from alphabet.journal import journal as journal_module
from alphabet.journal.entries import (
    KINDS,
    Entry,
    messages_repeated,
    page_ended,
    sender_ended,
    sink_lost,
)
from alphabet.journal.journal import ENTRIES_MAX, Journal
from tests.process import Server, replay, serving, wait_until

SECONDS_MAX = 20.0
FLAPS = 100
LOST = "entries-lost"
PIPE_BYTES = 4096


def in_time(work: Callable[[], object]) -> None:
    """Do something in a thread, and fail if it does not come to an end."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(SECONDS_MAX)
    assert not thread.is_alive(), "it is blocked"


def say(journal: Journal, entries: int) -> None:
    """Say something, so many times."""
    for number in range(entries):
        journal.say(messages_repeated(messages=number))


@attrs.define
class Pipe:
    """A small pipe, of which the journal has one end."""

    reader: TextIO
    stream: TextIO

    def lines(self) -> list[str]:
        """Read all that comes until nobody can write any more."""
        return self.reader.read().splitlines()


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    """Give a pipe that holds a page and is not read."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    pipe = Pipe(os.fdopen(reader), os.fdopen(writer, "w", buffering=1))
    yield pipe
    # The reader goes first: whoever is still blocked is let go by that.
    pipe.reader.close()
    with contextlib.suppress(BrokenPipeError):
        pipe.stream.close()


class TestLines:
    """What is written where it can be."""

    def test_every_line_in_order(self) -> None:
        """All lines are there when the journal is closed, in the order of the calls."""
        stream = io.StringIO()
        journal = Journal.open(stream, "json")
        say(journal, 50)
        journal.close()
        assert [line["messages"] for line in read(stream)] == list(range(50))

    def test_json_has_the_kind_and_all_its_facts(self) -> None:
        """For machines a line is an object, whose keys its kind decides."""
        stream = io.StringIO()
        journal = Journal.open(stream, "json")
        journal.say(messages_repeated(messages=2))
        journal.say(sender_ended(peer="p", reason="\x1b[1m\n\udcff"))
        journal.say(page_ended(cause="\N{SNOWMAN}"))
        journal.close()
        lines = read(stream)
        assert [(line["level"], line["kind"]) for line in lines] == [
            ("info", "messages-repeated"),
            ("warning", "sender-ended"),
            ("error", "page-ended"),
        ]
        always = ["timestamp", "level", "kind", "event", "count"]
        for line in lines:
            assert [*line] == [*always, *KINDS[line["kind"]].facts]
            assert line["timestamp"].endswith("Z")
        assert lines[0]["event"] == "2 messages came again, and counted once"
        assert lines[1]["reason"] == "\x1b[1m\n\udcff"
        assert stream.getvalue().isascii()
        assert "\x1b" not in stream.getvalue()

    def test_text_is_for_people(self) -> None:
        """Text has the level and the sentence, without colours in a file.

        Whatever a peer has put there, it is a line, and says nothing to a terminal.
        """
        stream = io.StringIO()
        journal = Journal.open(stream, "text")
        journal.say(sender_ended(peer="p", reason="\x1b[1m\n\x9b\udcff \xe9"))
        journal.close()
        line = stream.getvalue()
        assert "warning" in line
        assert line.endswith("] p: \\x1b[1m\\n\\x9b\\udcff \xe9\n")
        assert line.count("\n") == 1

    @pytest.mark.parametrize(("is_terminal", "is_json"), [(True, False), (False, True)])
    def test_auto_asks_for_a_terminal(
        self,
        monkeypatch: pytest.MonkeyPatch,
        *,
        is_terminal: bool,
        is_json: bool,
    ) -> None:
        """By itself it is text on a terminal, and JSON elsewhere."""
        stream = io.StringIO()
        monkeypatch.setattr(stream, "isatty", lambda: is_terminal)
        journal = Journal.open(stream)
        say(journal, 1)
        journal.close()
        assert stream.getvalue().startswith("{") == is_json


class TestRepeats:
    """What is said again and again."""

    def test_the_first_at_once_then_a_sum(self) -> None:
        """A fault that repeats is said, and summed up while it goes on and at the end.

        Another fault meanwhile is said at once.
        """
        stream = io.StringIO()
        journal = Journal.open(stream, "json")
        for number in range(100):
            journal.say(lost("a", number))
        journal.say(lost("b", 7))
        wait_until(lambda: len(read(stream)) == 3, "a sum")
        for number in range(100, 150):
            journal.say(lost("a", number))
        journal.close()
        told = [
            (line["sink"], line["count"], line["sequence"]) for line in read(stream)
        ]
        assert told == [("a", 1, 0), ("b", 1, 7), ("a", 99, 99), ("a", 50, 149)]
        assert read(stream)[-1]["event"].startswith("50 more like it; the last: sink a")

    def test_the_pace_is_its_clocks(self) -> None:
        """A fault that goes on is summed up after 1, then 2, then 4 seconds."""
        stream, now = io.StringIO(), [0.0]
        journal = Journal(stream, json.dumps, lambda: now[0])

        def told(at: float) -> list[int]:
            now[0] = at
            journal.say(lost("a", 0))
            for _ in range(2):
                # Behind the second one all that was due at the first is written.
                say(journal, 1)
                marks[0] += 1
                wait_until(
                    lambda: stream.getvalue().count("again, and") == marks[0],
                    "an entry without a pace",
                )
            return [
                line["count"] for line in read(stream) if line["kind"] == "sink-lost"
            ]

        marks = [0]
        assert told(0) == [1]
        assert told(0.9) == [1]
        assert told(1) == [1, 2]
        assert told(2.9) == [1, 2]
        assert told(3) == [1, 2, 2]
        assert told(6.9) == [1, 2, 2]
        assert told(7) == [1, 2, 2, 2]
        journal.say(lost("a", 1))
        journal.close()
        assert sum(line["count"] for line in read(stream)) == 8 + marks[0]

    def test_a_sum_does_not_wait_for_a_pause(self) -> None:
        """What is due is said while other entries keep coming."""
        stream = Busy()
        journal = Journal.open(stream, "json")
        stream.on_write = lambda: say(journal, 1)
        journal.say(lost("a", 0))
        journal.say(lost("a", 1))
        try:
            wait_until(
                lambda: stream.getvalue().count("sink-lost") == 2,
                "a sum between other entries",
            )
        finally:
            stream.on_write = lambda: None
            journal.close()

    def test_a_sink_that_flaps_is_some_lines(self, tmp_path: Path) -> None:
        """A receiver that closes each connection at once is told of now and then.

        Each of its connections is told of, all the same.
        """
        with socket.create_server(("127.0.0.1", 0)) as listener:
            address = f"127.0.0.1:{listener.getsockname()[1]}"
            with serving(tmp_path, "--out", address) as server:
                for _ in range(FLAPS):
                    listener.accept()[0].close()
                assert server.stop() == 0
                entries = server.entries()
        for kind in ("sink-connected", "sink-lost"):
            counts = [each["count"] for each in entries if each["kind"] == kind]
            assert counts[0] == 1
            assert sum(counts) >= FLAPS
            assert len(counts) <= FLAPS // 4


class TestBlocked:
    """A standard error that nobody reads."""

    def test_it_blocks_nobody(
        self, pipe: Pipe, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """However much is said, whoever says it goes on, and so does the end.

        When somebody reads after all, what was kept comes, and the rest is counted.
        """
        monkeypatch.setattr(journal_module, "CLOSE_SECONDS_MAX", 0.01)
        journal = Journal.open(pipe.stream, "json")
        said = 3 * ENTRIES_MAX
        in_time(lambda: say(journal, said))
        in_time(journal.close)
        monkeypatch.setattr(journal_module, "CLOSE_SECONDS_MAX", SECONDS_MAX)
        heard: list[str] = []
        reading = threading.Thread(target=lambda: heard.extend(pipe.lines()))
        reading.start()
        journal.close()
        pipe.stream.close()
        reading.join(SECONDS_MAX)
        lines = [json.loads(line) for line in heard]
        lost = [line["entries"] for line in lines if line["kind"] == LOST]
        assert len(lines) - len(lost) >= ENTRIES_MAX
        assert len(lines) - len(lost) + sum(lost) == said


class TestClosed:
    """A standard error that cannot be written to any more."""

    def test_a_closed_stream_harms_nobody(self) -> None:
        """Lines for a stream that was closed are let go."""
        stream = io.StringIO()
        journal = Journal.open(stream, "json")
        stream.close()
        in_time(lambda: say(journal, 100))
        in_time(journal.close)

    def test_a_server_without_them_serves(self, tmp_path: Path) -> None:
        """A server that was given closed standard streams counts, and damages nothing.

        Else its files would get the streams' numbers, and be written to as if they
        were streams.
        """
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = free.getsockname()
        server = Server.start(
            tmp_path,
            *("--in", f"127.0.0.1:{address[1]}", "--data-dir", tmp_path / "data"),
            before=["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh"],
            is_bare=True,
        )
        try:
            wait_until(
                lambda: submit_one(address) or not server.is_running, "a receipt"
            )
            assert server.stop() == 0
        finally:
            server.kill()
        assert replay("verify", tmp_path / "data").code == 0

    def test_what_could_not_be_written_is_counted(self) -> None:
        """When a stream works again, the lines that were lost are told."""
        stream = Flaky(failures=3)
        journal = Journal.open(stream, "json")
        say(journal, 4)
        journal.close()
        lost, line = read(stream)
        assert (lost["kind"], lost["entries"]) == (LOST, 3)
        assert line["messages"] == 3


def submit_one(address: tuple[str, int]) -> bool:
    """Send a garbled vote and a good one; say whether there was a receipt."""
    try:
        with socket.create_connection(address, SECONDS_MAX) as sender:
            sender.sendall(b"\0\0\0\x01?" + b"\0\0\0\x05a\0\0\0\x01")
            sender.shutdown(socket.SHUT_WR)
            return sender.recv(1) == b""
    except ConnectionError:
        return False


def read(stream: io.StringIO) -> list[dict[str, Any]]:
    """Read whole lines of JSON."""
    whole = stream.getvalue().rpartition("\n")[0]
    return [json.loads(line) for line in whole.splitlines()]


def lost(sink: str, sequence: int) -> Entry:
    """Make a fault that repeats."""
    return sink_lost(sink=sink, address="a:1", cause="reset", sequence=sequence)


class Busy(io.StringIO):
    """A stream that makes work of each line."""

    on_write: Callable[[], None]

    def write(self, text: str) -> int:
        """Write, and do what comes of it."""
        self.on_write()
        return super().write(text)


class Flaky(io.StringIO):
    """A stream whose first writes fail."""

    def __init__(self, failures: int) -> None:
        super().__init__()
        self.failures = failures

    def write(self, text: str) -> int:
        """Fail, or write."""
        if self.failures:
            self.failures -= 1
            raise BrokenPipeError
        return super().write(text)
