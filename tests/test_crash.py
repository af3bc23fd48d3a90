"""A real server is killed at any instant, again and again, and loses nothing.

The sandwich: what was acknowledged is in the log, what is in the log was submitted,
in order. A receipt acknowledges; so does an output that has left.
"""

import contextlib
import os
import random
import re
import signal
import socket
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs
import pytest

from log.errors import DirectoryError
from recovery.snapshot_directory import SnapshotDirectory
from tests.inspection import last_sequence, records, totals, verify
from tests.process import ROOT, SECONDS_MAX, Server, child, serving, submit, wait_until
from tests.receiving import Receiver
from tests.test_lmdb_store import SLOTS
from tests.votes import (
    OUTPUT_BYTES,
    VOTE_BYTES,
    make_votes,
    outputs,
    payloads,
    tally,
    trace,
    wire,
)

IS_SOAK = bool(os.environ.get("ALPHABET_SOAK"))
CRASHES = 500 if IS_SOAK else 10
CRASHES_PER_LOG = 5
VOTES = 150_000
STRETCHES = (1, 10, 1000, 20_000)
LOAD_SECONDS_MAX = 0.2
"""A crash comes this long after the load began, at most."""

FAILPOINTS = [
    # A log is created once, so two logs share the instants behind its renaming.
    [
        "create.before_log",
        "create.before_rename",
        "create.after_rename",
        "commit.before_flush",
        "snapshot.after_rename",
    ],
    ["create.after_flush", "commit.after_flush", "snapshot.before_rename"],
]


@attrs.define(eq=False)
class Load:
    """Sends votes from one place on until the server dies; a thread of its own.

    `stretches` are the numbers of votes that may go over one connection. `submitted`
    and `acknowledged` are sequences: the last vote of which a byte was given away, and
    the last one that a receipt covers.
    """

    chance: random.Random
    data: bytes
    port: int
    submitted: int
    stretches: Sequence[int]
    acknowledged: int = 0
    _thread: threading.Thread = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        """Begin."""
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def join(self) -> None:
        """Wait until all is sent, or the server is dead."""
        self._thread.join(SECONDS_MAX)
        assert not self._thread.is_alive(), "the server did not die"

    def _run(self) -> None:
        try:
            while self.submitted * VOTE_BYTES < len(self.data):
                self._send_stretch()
        except OSError:
            return

    def _send_stretch(self) -> None:
        """Send some votes in pieces cut anywhere, and wait for the receipt."""
        count = self.chance.choice(self.stretches)
        piece_bytes = self.chance.choice([5, 9, 1000, 65_536])
        start = self.submitted * VOTE_BYTES
        data = memoryview(self.data)[start : start + count * VOTE_BYTES]
        sender = socket.create_connection(("127.0.0.1", self.port))
        with sender:
            for place in range(0, len(data), piece_bytes):
                piece = data[place : place + piece_bytes]
                self.submitted = -(-(start + place + len(piece)) // VOTE_BYTES)
                sender.sendall(piece)
            sender.shutdown(socket.SHUT_WR)
            if sender.recv(1) == b"":
                self.acknowledged = self.submitted


@attrs.define(eq=False)
class Ordeal:
    """One log, one receiver, and the votes that must all be counted in the end."""

    chance: random.Random
    place: Path
    receiver: Receiver
    submitted: int = 0
    acknowledged: int = 0
    votes: list[tuple[bytes, int]] = attrs.field(init=False)
    data: bytes = attrs.field(init=False)
    outputs: bytes = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        """Make the votes."""
        self.votes = make_votes(self.chance, VOTES)
        self.data = wire(self.votes)
        self.outputs = outputs(self.votes)

    def crash(self, failpoint: str | None = None) -> None:
        """Start a server, load it, have it killed, and look at what is left."""
        before = last_sequence(self.place)
        variables = {} if failpoint is None else {"ALPHABET_FAILPOINT": failpoint}
        server = self._start(variables)
        try:
            wait_until(lambda: server.is_ready or not server.is_running, "a start")
            if server.is_ready:
                self._check_replayed(server, before)
                self._load_and_kill(server, before, failpoint)
            code = server.wait()
        finally:
            server.kill()
        assert code == -signal.SIGKILL, (
            f"{failpoint}: it ended with {code}: {server.said()}"
        )
        self._check_sandwich()

    def finish(self) -> None:
        """Count the rest in peace, and look at everything."""
        server = self._start({})
        try:
            server.wait_ready()
            rest = self.data[last_sequence(self.place) * VOTE_BYTES :]
            assert submit(server.port, rest)
            self.receiver.wait_bytes(len(self.outputs))
            wait_until(self._has_all, "the last output")
            assert server.stop() == 0
        finally:
            server.kill()
        self.receiver.wait_hung_up()
        brought = trace(self.receiver.connections, self.outputs)
        assert max(each.stop for each in brought) == VOTES
        assert records(self.place) == payloads(self.votes)
        assert verify(self.place)["ok"]
        assert totals(self.place) == tally(self.votes)

    def _start(self, variables: dict[str, str]) -> Server:
        every = self.chance.choice([1, 1000])
        words = ["--out", self.receiver.address, "--snapshot-every", every]
        return Server.start(self.place, *words, variables=variables)

    def _load_and_kill(
        self, server: Server, before: int, failpoint: str | None
    ) -> None:
        # What was on its way when the last server died is sent again.
        stretches = STRETCHES if failpoint is None else STRETCHES[:2]
        load = Load(self.chance, self.data, server.port, before, stretches)
        if failpoint is None:
            load_seconds = self.chance.uniform(0, LOAD_SECONDS_MAX)
            threading.Event().wait(load_seconds)
            server.kill()
        load.join()
        self.submitted = load.submitted
        self.acknowledged = max(self.acknowledged, load.acknowledged)

    def _has_all(self) -> bool:
        last = self.receiver.connections[-1]
        return last[-OUTPUT_BYTES:] == self.outputs[-OUTPUT_BYTES:]

    def _check_replayed(self, server: Server, before: int) -> None:
        """It said how many events it replayed: those after the newest snapshot."""
        found = SnapshotDirectory(self.place / "data" / "snapshots").sequences()
        replayed = [line for line in server.lines() if line.startswith("RESILIENCE")]
        if replayed:
            # It may have written a snapshot since, but none at or below its start.
            start = max((each for each in found if each <= before), default=0)
            assert replayed == [
                f"RESILIENCE: Replayed {before - start} entries from recovery log file."
            ]

    def _check_sandwich(self) -> None:
        """What was acknowledged is in the log, and what is in it was submitted."""
        self.receiver.wait_hung_up()
        brought = trace(self.receiver.connections, self.outputs)
        received = max((each.stop for each in brought), default=0)
        acknowledged = max(self.acknowledged, received)
        assert acknowledged <= last_sequence(self.place) <= self.submitted


@pytest.fixture
def ordeal(tmp_path: Path, seed: int) -> Iterator[Ordeal]:
    """Give an ordeal that its seed decides."""
    with Receiver() as receiver:
        yield Ordeal(random.Random(seed), tmp_path, receiver)


@pytest.fixture
def seed() -> int:
    """Give a seed that is shown when the test fails; ALPHABET_SEED repeats one."""
    chosen = int(os.environ.get("ALPHABET_SEED") or random.randrange(2**32))
    print(f"to repeat this: ALPHABET_SEED={chosen}")  # noqa: T201 - pytest shows it
    return chosen


@pytest.mark.slow
class TestCrash:
    """A server that is killed under load."""

    @pytest.mark.parametrize("turn", range(CRASHES // CRASHES_PER_LOG))
    def test_killed_at_any_instant(self, ordeal: Ordeal, turn: int) -> None:
        """No vote is lost, doubled or out of order, and no output is missing."""
        del turn
        for _ in range(CRASHES_PER_LOG):
            ordeal.crash()
        ordeal.finish()

    @pytest.mark.parametrize("names", FAILPOINTS)
    def test_killed_at_every_failpoint(self, ordeal: Ordeal, names: list[str]) -> None:
        """As much holds for the instants where a crash would hurt most."""
        for name in names:
            can_wait = name.startswith("commit")
            turn = ordeal.chance.randrange(1, 20) if can_wait else 1
            ordeal.crash(f"{name}:{turn}")
        ordeal.finish()


class TestFailpoints:
    """The list of instants."""

    def test_it_is_whole(self) -> None:
        """Every failpoint in the code is one where a test kills its process by name."""
        in_code = {
            name
            for package in ("log", "recovery", "alphabet")
            for file in (ROOT / package).rglob("*.py")
            for name in re.findall(r'failpoint\.reach\("(.*?)"\)', file.read_text())
        }
        tests = "".join(file.read_text() for file in (ROOT / "tests").glob("test_*.py"))
        assert {name for name in in_code if f'"{name}"' not in tests} == set()
        assert {name for names in FAILPOINTS for name in names} <= in_code


class TestReceipt:
    """What a sender sees when the server dies before its votes are durable."""

    def test_a_crash_gives_no_receipt(self, tmp_path: Path) -> None:
        """A server that is killed before the flush resets the half-closed sender."""
        # The first commit makes the log.
        variables = {"ALPHABET_FAILPOINT": "commit.before_flush:2"}
        with serving(tmp_path, variables=variables) as server:
            assert not submit(server.port, wire([(b"a", 1)]))
            assert server.wait() == -signal.SIGKILL
        assert last_sequence(tmp_path) == 0


class TestReaders:
    """Processes that read the log beside the server, and are killed."""

    def test_more_than_there_is_room_for(self, tmp_path: Path) -> None:
        """Their slots are free again: others read, and the server counts on."""
        votes = make_votes(random.Random(), 1000)
        log = tmp_path / "data" / "log"
        with serving(tmp_path) as server:
            with child("readers", log, SLOTS) as readers:
                readers.kill()
                readers.wait()
            found: list[int] = []

            def is_read() -> bool:
                with contextlib.suppress(DirectoryError):
                    found.append(last_sequence(tmp_path))
                return bool(found)

            wait_until(is_read, "a reader that finds a slot")
            assert submit(server.port, wire(votes))
            assert server.stop() == 0
        assert records(tmp_path) == payloads(votes)
