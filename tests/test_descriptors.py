"""The real server where more senders come than it may open files."""

import contextlib
import random
import socket
from collections.abc import Iterator
from pathlib import Path

from recovery.snapshot_directory import SnapshotDirectory
from tests.inspection import totals, verify
from tests.process import ANY, SECONDS_MAX, Server, serving, submit, wait_until
from tests.receiving import Receiver
from tests.test_page import ask, port_of
from tests.votes import OUTPUT_BYTES, make_votes, tally, wire

FILES_MAX = 40
FILES_FEWEST = 24
FILES_FOR_PAGE = 8
"""Hardly more than the server has open with no sender at all."""
VOTES = make_votes(random.Random(8), 1000)
WAITING = "new senders wait: "
TROUBLES_MAX = 50
"""One a second that a test may take, and fewer than one round of asyncio's own."""


def with_files(count: int) -> list[str]:
    """Give the command that lets a server have so many files open."""
    return ["sh", "-c", f'ulimit -n {count} && exec "$@"', "sh"]


@contextlib.contextmanager
def connected(port: int, count: int) -> Iterator[list[socket.socket]]:
    """Connect so many times; the kernel takes those that the server does not."""
    address = ("127.0.0.1", port)
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(socket.create_connection(address, SECONDS_MAX))
            for _ in range(count)
        ]


def has_receipt(sender: socket.socket) -> bool:
    """Send all votes and half-close; say whether the receipt came."""
    sender.sendall(wire(VOTES))
    sender.shutdown(socket.SHUT_WR)
    return sender.recv(1) == b""


class TestTooFewFiles:
    """More senders than there are files to open for them."""

    def test_those_that_are_in_go_on(self, tmp_path: Path) -> None:
        """Votes count, a snapshot is written and a sink dialled, all in one line."""
        snapshots = SnapshotDirectory(tmp_path / "data" / "snapshots")
        with (
            Receiver() as receiver,
            serving(
                tmp_path,
                *("--out", receiver.address, "--snapshot-every", 1000),
                before=with_files(FILES_MAX),
            ) as server,
            connected(server.port, FILES_MAX * 3 // 4) as senders,
        ):
            server.wait_said(WAITING)
            receiver.leave()
            assert has_receipt(senders[0])
            wait_until(snapshots.sequences, "a snapshot")
            receiver.come_back()
            receiver.wait_bytes(len(VOTES) * OUTPUT_BYTES)
            for sender in senders[:-1]:
                sender.close()
            assert has_receipt(senders[-1])
            assert submit(server.port, wire(VOTES))
            assert server.stop() == 0
            said = [line for line in server.said() if WAITING in line]
        assert said == [
            f"{WAITING}few files are left to open (ulimit -n); 20 are connected"
        ]
        assert totals(tmp_path) == tally(VOTES * 3)
        assert verify(tmp_path)["ok"]

    def test_not_one_more_can_be_opened(self, tmp_path: Path) -> None:
        """With no file left at all votes count, and the wait is told once."""
        with (
            serving(
                tmp_path, "--snapshot-every", 1000, before=with_files(FILES_FEWEST)
            ) as server,
            connected(server.port, FILES_FEWEST // 2) as senders,
        ):
            server.wait_said(WAITING)
            senders[0].sendall(wire(VOTES))
            server.wait_said("no snapshot at sequence 1000: ")
            assert has_receipt(senders[0])
            for sender in senders[:-1]:
                sender.close()
            assert has_receipt(senders[-1])
            assert server.stop() == 0
            [line] = [line for line in server.said() if WAITING in line]
        assert "Too many open files" in line
        assert SnapshotDirectory(tmp_path / "data" / "snapshots").sequences()[0] == 3000
        assert totals(tmp_path) == tally(VOTES * 3)


class TestPage:
    """More who look at the page than there are files to open for them."""

    def test_they_take_no_file_of_a_sender(self, tmp_path: Path) -> None:
        """A few are let in, the rest cut off; votes count, and nothing is said."""
        with (
            serving(tmp_path, "--http", ANY, before=with_files(FILES_MAX)) as server,
            connected(port_of(server), FILES_MAX),
        ):
            assert submit(server.port, wire(VOTES))
            assert server.stop() == 0
            assert {entry.get("kind") for entry in server.entries()} <= {"stopped"}

    def test_not_one_can_be_let_in(self, tmp_path: Path) -> None:
        """With no file left for it, the journal says so, at most once a second."""
        with (
            serving(
                tmp_path,
                *("--http", ANY),
                before=with_files(FILES_FEWEST + FILES_FOR_PAGE),
            ) as server,
            contextlib.ExitStack() as stack,
        ):
            # Once it answers, it has all the files that it needs for itself.
            assert ask(server, "/healthz").status == 200
            senders = stack.enter_context(connected(server.port, FILES_FEWEST))
            server.wait_said(WAITING)
            with connected(port_of(server), FILES_FEWEST):
                wait_until(lambda: is_told(server), "an entry for it")
            assert has_receipt(senders[0])
            for sender in senders:
                sender.close()
            assert server.stop() == 0
        assert not [each for each in server.entries() if "kind" not in each]
        troubles = [each for each in server.entries() if each["kind"] == "page-trouble"]
        assert sum(each["count"] for each in troubles) <= TROUBLES_MAX


def is_told(server: Server) -> bool:
    """Say whether the journal has an entry about the page."""
    return any(entry.get("kind") == "page-trouble" for entry in server.entries())
