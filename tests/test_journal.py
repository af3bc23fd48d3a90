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
from typing import TextIO

import attrs
import pytest

from alphabet import journal as journal_module
from alphabet.journal import LINES_MAX, Journal
from tests.process import Server, replay, wait_until

SECONDS_MAX = 20.0
PIPE_BYTES = 4096


def in_time(work: Callable[[], object]) -> None:
    """Do something in a thread, and fail if it does not come to an end."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(SECONDS_MAX)
    assert not thread.is_alive(), "it is blocked"


def say(journal: Journal, lines: int) -> None:
    """Say some lines."""
    for number in range(lines):
        journal.info("line", number=number)


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
        for number in range(50):
            journal.info("line", number=number)
        journal.close()
        lines = [json.loads(line) for line in stream.getvalue().splitlines()]
        assert [line["number"] for line in lines] == list(range(50))

    def test_json_has_level_time_event_and_fields(self) -> None:
        """For machines a line is an object."""
        stream = io.StringIO()
        journal = Journal.open(stream, "json")
        journal.info("one")
        journal.warning("two", sequence=2)
        journal.error("three", peer="\x1b")
        journal.close()
        lines = [json.loads(line) for line in stream.getvalue().splitlines()]
        assert [(line["level"], line["event"]) for line in lines] == [
            ("info", "one"),
            ("warning", "two"),
            ("error", "three"),
        ]
        assert lines[1]["sequence"] == 2
        assert all(line["timestamp"].endswith("Z") for line in lines)
        assert "\x1b" not in stream.getvalue()

    def test_text_is_for_people(self) -> None:
        """Text has the level, the event and the fields, and no colours in a file."""
        stream = io.StringIO()
        journal = Journal.open(stream, "text")
        journal.warning("something is wrong", sequence=2)
        journal.close()
        line = stream.getvalue()
        assert "warning" in line
        assert line.endswith("something is wrong sequence=2\n")
        assert "\x1b" not in line

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
        journal.info("here")
        journal.close()
        assert stream.getvalue().startswith("{") == is_json


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
        said = 3 * LINES_MAX
        in_time(lambda: say(journal, said))
        in_time(journal.close)
        monkeypatch.setattr(journal_module, "CLOSE_SECONDS_MAX", SECONDS_MAX)
        heard: list[str] = []
        reading = threading.Thread(target=lambda: heard.extend(pipe.lines()))
        reading.start()
        journal.close()
        pipe.stream.close()
        reading.join(SECONDS_MAX)
        written = [line for line in heard if line.startswith("{")]
        counts = [line.split()[0] for line in heard if line.startswith("(")]
        assert len(written) >= LINES_MAX
        assert len(written) + sum(int(count[1:]) for count in counts) == said


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
        for _ in range(4):
            journal.info("line")
        journal.close()
        written = stream.getvalue().splitlines()
        assert len(written) == 2
        assert written[1] == "(3 lines before this one found no room)"


def submit_one(address: tuple[str, int]) -> bool:
    """Send a garbled vote and a good one; say whether there was a receipt."""
    try:
        with socket.create_connection(address, SECONDS_MAX) as sender:
            sender.sendall(b"\0\0\0\x01?" + b"\0\0\0\x05a\0\0\0\x01")
            sender.shutdown(socket.SHUT_WR)
            return sender.recv(1) == b""
    except ConnectionError:
        return False


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
