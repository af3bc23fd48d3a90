"""The real server's life: what it says at its start, how it stops, what it outlives."""

import contextlib
import os
import random
import signal
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest

from recovery.snapshot_directory import SnapshotDirectory
from tests.inspection import last_sequence, records, totals, verify
from tests.process import (
    ANY,
    READY,
    SECONDS_MAX,
    Server,
    free_port,
    refused,
    serving,
    submit,
    wait_until,
)
from tests.receiving import Receiver
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

STOP_SECONDS_MAX = 10
VOTES = make_votes(random.Random(4), 1000)
RECEIVED = outputs(VOTES)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """Give a receiver that listens."""
    with Receiver() as opened:
        yield opened


HELD_BYTES = 100 * VOTE_BYTES


def in_background(
    port: int, data: bytes, is_over: threading.Event | None = None
) -> "Future[bool]":
    """Send in a thread; the future tells whether the receipt came.

    The last votes are held back until `is_over`: till then no server can have all.
    """
    done: Future[bool] = Future()

    def send() -> None:
        try:
            with socket.create_connection(("127.0.0.1", port)) as sender:
                sender.sendall(data[:-HELD_BYTES])
                if is_over is not None:
                    is_over.wait(STOP_SECONDS_MAX)
                sender.sendall(data[-HELD_BYTES:])
                sender.shutdown(socket.SHUT_WR)
                done.set_result(not sender.recv(1))
        except OSError:
            done.set_result(False)

    threading.Thread(target=send, daemon=True).start()
    return done


def thread_id(server: Server, name: str) -> int:
    """Give the id that the system knows one of a server's threads by."""
    tasks = Path(f"/proc/{server.pid}/task")
    found: list[int] = []

    def is_there() -> bool:
        comms = list(tasks.glob("*/comm"))
        found[:] = [int(c.parent.name) for c in comms if c.read_text() == f"{name}\n"]
        return bool(found)

    wait_until(is_there, f"a thread {name}")
    return found[0]


def replayed(count: int) -> str:
    """Give the line that tells how much was replayed."""
    return f"RESILIENCE: Replayed {count} entries from recovery log file."


class TestStart:
    """What it prints before it is ready."""

    def test_order(self, tmp_path: Path) -> None:
        """Listeners come first, then the replay if there was a log, then that it is."""
        with serving(tmp_path, "--in", ANY) as server:
            one, two, *rest = server.lines()
            assert rest == [READY]
            assert server.stop() == 0
        for line in (one, two):
            assert line.startswith("listening in 127.0.0.1:")
            assert int(line.rpartition(":")[2]) > 0
        with serving(tmp_path) as server:
            assert server.lines()[1:] == [replayed(0), READY]

    def test_after_a_kill(self, tmp_path: Path) -> None:
        """A killed server's whole log is replayed where there was no snapshot."""
        with serving(tmp_path) as server:
            assert submit(server.port, wire(VOTES))
            server.kill()
        with serving(tmp_path) as server:
            assert server.lines()[1:] == [replayed(len(VOTES)), READY]

    def test_after_a_snapshot(self, tmp_path: Path) -> None:
        """What the newest snapshot has is not replayed."""
        with serving(tmp_path, "--snapshot-every", 600) as server:
            assert submit(server.port, wire(VOTES[:700]))
            directory = SnapshotDirectory(tmp_path / "data" / "snapshots")
            wait_until(directory.sequences, "a snapshot")
            assert submit(server.port, wire(VOTES[700:]))
            assert directory.sequences() == [600]
            server.kill()
        with serving(tmp_path) as server:
            assert server.lines()[1:] == [replayed(400), READY]

    def test_threads_have_names(self, tmp_path: Path) -> None:
        """The system knows each stage's thread by its name, as `top -H` shows it."""
        with serving(tmp_path, "--out", f"127.0.0.1:{free_port()}") as server:
            tasks = Path(f"/proc/{server.pid}/task")
            wanted = {"source in", "count", "commit", "snapshotter", "sink out"}

            def are_named() -> bool:
                return wanted <= {f.read_text()[:-1] for f in tasks.glob("*/comm")}

            wait_until(are_named, "every stage's thread has its name")

    def test_console(self, tmp_path: Path) -> None:
        """With `--out -` these lines go to standard error."""
        with serving(tmp_path, "--out", "-") as server:
            told = [line for line in server.said() if "listening" in line]
            assert told == [f"listening in 127.0.0.1:{server.port}"]
            assert READY in server.said()
            assert server.lines() == []


class TestStop:
    """SIGTERM and SIGINT."""

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_under_load(
        self, tmp_path: Path, receiver: Receiver, number: signal.Signals
    ) -> None:
        """What was acknowledged is kept, every output leaves once, exit code 0."""
        votes = make_votes(random.Random(6), 400_000)
        with serving(tmp_path, "--out", receiver.address) as server:
            assert submit(server.port, wire(votes[:1000]))
            is_over = threading.Event()
            rest = in_background(server.port, wire(votes[1000:]), is_over)
            receiver.wait_bytes(2000 * OUTPUT_BYTES)
            server.process.send_signal(number)
            assert server.process.wait(STOP_SECONDS_MAX) == 0
            is_over.set()
            assert not rest.result()
        receiver.wait_hung_up()
        count = last_sequence(tmp_path)
        assert 1000 < count < len(votes)
        assert records(tmp_path) == payloads(votes[:count])
        assert receiver.connections == [outputs(votes[:count])]
        with serving(tmp_path, "--out", receiver.address) as server:
            assert server.lines()[1:] == [replayed(0), READY]
            assert submit(server.port, wire(votes[count : count + 10]))
            receiver.wait_bytes((count + 10) * OUTPUT_BYTES)
            assert server.stop() == 0
        brought = trace(receiver.connections, outputs(votes[: count + 10]))
        assert brought == [range(count), range(count, count + 10)]

    def test_whichever_thread_the_signal_reaches(self, tmp_path: Path) -> None:
        """A signal that the system gives to another thread stops it as well.

        So it may be after a stop and a continue, or beside a debugger.
        """
        with serving(tmp_path) as server:
            assert submit(server.port, wire(VOTES))
            os.kill(thread_id(server, "commit"), signal.SIGTERM)
            assert server.wait() == 0

    def test_partial_frames(self, tmp_path: Path) -> None:
        """Whole frames count, unfinished ones are told, and nobody has a receipt."""
        with serving(tmp_path) as server:
            address = ("127.0.0.1", server.port)
            with socket.create_connection(address) as sender:
                sender.sendall(wire(VOTES) + wire(VOTES)[: VOTE_BYTES - 1])
                wait_until(lambda: last_sequence(tmp_path) == len(VOTES), "all votes")
                assert server.stop() == 0
                with pytest.raises(ConnectionResetError):
                    sender.recv(1)
        entry = server.entries()[-1]
        assert (entry["kind"], entry["sequence"]) == ("stopped", len(VOTES))
        assert (entry["partial_frames"], entry["rejected"]) == (1, 0)

    def test_snapshot(self, tmp_path: Path) -> None:
        """The last event's state is kept, so that the next start replays nothing."""
        with serving(tmp_path) as server:
            assert submit(server.port, wire(VOTES))
            assert server.stop() == 0
        directory = SnapshotDirectory(tmp_path / "data" / "snapshots")
        assert directory.sequences() == [len(VOTES)]
        assert verify(tmp_path)["ok"]
        assert totals(tmp_path) == tally(VOTES)

    def test_nobody_takes_the_outputs(self, tmp_path: Path) -> None:
        """A sink that cannot be reached does not hold it up."""
        with serving(
            tmp_path, "--out", f"127.0.0.1:{free_port()}", "--drain-seconds", 9
        ) as server:
            assert submit(server.port, wire(VOTES))
            server.process.send_signal(signal.SIGTERM)
            assert server.process.wait(STOP_SECONDS_MAX / 2) == 0

    def test_a_sink_that_does_not_drain(self, tmp_path: Path) -> None:
        """It is waited for as long as told, and loses nothing."""
        votes = VOTES * 200
        expected = outputs(votes)
        with Receiver(buffer_bytes=4096, is_stalled=True) as receiver:
            words = ["--out", receiver.address, "--drain-seconds", 0.3]
            with serving(tmp_path, *words) as server:
                receiver.wait_connections(1)
                assert submit(server.port, wire(votes))
                assert server.stop() == 0
            receiver.go_on()
            with serving(tmp_path, *words):
                wait_until(
                    lambda: receiver.connections[-1].endswith(expected[-OUTPUT_BYTES:]),
                    "the last output",
                )
            brought = trace(receiver.connections, expected)
            assert max(each.stop for each in brought) == len(votes)

    def test_two_at_once(self, tmp_path: Path) -> None:
        """Both at the same time end it in good order or at once: no traceback."""
        with serving(tmp_path) as server:
            assert submit(server.port, wire(VOTES))
            for number in (signal.SIGSTOP, signal.SIGTERM, signal.SIGINT):
                server.process.send_signal(number)
            ends = {0, -signal.SIGTERM, -signal.SIGINT}
            assert server.stop(signal.SIGCONT) in ends
            assert all("kind" in entry for entry in server.entries())
        assert totals(tmp_path) == tally(VOTES)

    def test_a_second_signal(self, tmp_path: Path) -> None:
        """A second signal ends it at once, as SIGKILL would."""
        votes = VOTES * 200
        with Receiver(buffer_bytes=4096, is_stalled=True) as receiver:
            words = ["--out", receiver.address, "--drain-seconds", 9]
            with serving(tmp_path, *words) as server:
                receiver.wait_connections(1)
                assert submit(server.port, wire(votes))
                server.process.send_signal(signal.SIGTERM)
                # The snapshot is what a stop does before it drains.
                directory = SnapshotDirectory(tmp_path / "data" / "snapshots")
                wait_until(directory.sequences, "the last snapshot")
                assert server.stop(signal.SIGTERM) == -signal.SIGTERM
        assert last_sequence(tmp_path) == len(votes)


class TestOptions:
    """Options in the environment."""

    def test_environment(self, tmp_path: Path, receiver: Receiver) -> None:
        """Each option may be set there, and the command line wins."""
        variables = {
            "ALPHABET_IN": ANY,
            "ALPHABET_OUT": f"board@{receiver.address}",
            "ALPHABET_DATA_DIR": str(tmp_path / "data"),
            "ALPHABET_SNAPSHOT_EVERY": "1",
            "ALPHABET_LOG_FORMAT": "nonsense",
        }
        words = ["--log-format", "json", "--snapshot-every", 600]
        with serving(tmp_path, *words, variables=variables, is_bare=True) as server:
            server.wait_said("sink board is new")
            for start in (0, 500):
                assert submit(server.port, wire(VOTES[start : start + 500]))
            directory = SnapshotDirectory(tmp_path / "data" / "snapshots")
            wait_until(directory.sequences, "a snapshot")
            receiver.wait_bytes(len(RECEIVED))
            assert directory.sequences() == [600]
            assert server.stop() == 0

    def test_defaults(self, tmp_path: Path) -> None:
        """Without a word it keeps its data in the working directory's alphabet-data."""
        variables = {"ALPHABET_IN": ANY}
        with serving(
            tmp_path, variables=variables, is_bare=True, working_directory=tmp_path
        ) as server:
            assert server.stop() == 0
        assert (tmp_path / "alphabet-data" / "log" / "data.mdb").exists()


class TestStreams:
    """Standard output and standard error that nobody reads."""

    @pytest.mark.parametrize(
        "closed",
        ["<&-", ">&-", "2>&-", ">&- 2>&- <&-", ">/dev/full 2>/dev/full"],
    )
    def test_closed(self, tmp_path: Path, closed: str) -> None:
        """It serves and stops all the same."""
        port = free_port()
        before = ["sh", "-c", f'exec "$@" {closed}', "sh"]
        words = ["--in", f"127.0.0.1:{port}", "--out", f"127.0.0.1:{free_port()}"]
        data = ["--data-dir", tmp_path / "data"]
        server = Server.start(tmp_path, *words, *data, before=before, is_bare=True)
        try:
            wait_until(lambda: can_connect(port) or not server.is_running, "a server")
            assert submit(port, wire(VOTES) + b"\0\0\0\3abc")
            assert server.stop() == 0
        finally:
            server.kill()
        assert totals(tmp_path) == tally(VOTES)

    def test_a_full_standard_error(self, tmp_path: Path) -> None:
        """A pipe that nobody empties blocks no commit."""
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(writer, bytes(4096))
        os.set_blocking(writer, True)
        before = ["sh", "-c", f'exec "$@" 2>/proc/{os.getpid()}/fd/{writer}', "sh"]
        try:
            with serving(tmp_path, before=before) as server:
                for _ in range(20):
                    assert submit(server.port, wire(VOTES) + b"\0\0\0\3abc")
                assert server.stop() == 0
        finally:
            os.close(reader)
            os.close(writer)
        assert last_sequence(tmp_path) == 20 * len(VOTES)

    def test_a_full_standard_output(self, tmp_path: Path) -> None:
        """A pipe that nobody empties keeps no server from counting, or stopping."""
        port = free_port()
        reader, writer = os.pipe()
        with os.fdopen(writer, "wb", buffering=0) as pipe, os.fdopen(reader, "rb"):
            os.set_blocking(writer, False)
            while pipe.write(bytes(4096)):
                pass
            os.set_blocking(writer, True)
            before = ["sh", "-c", f'exec "$@" >/proc/{os.getpid()}/fd/{writer}', "sh"]
            words = ["--in", f"127.0.0.1:{port}", "--data-dir", tmp_path / "data"]
            server = Server.start(tmp_path, *words, before=before, is_bare=True)
            try:
                wait_until(lambda: can_connect(port), "a server")
                assert submit(port, wire(VOTES))
                assert server.stop() == 0
            finally:
                server.kill()
        assert totals(tmp_path) == tally(VOTES)

    def test_a_console_that_went_away(self, tmp_path: Path) -> None:
        """When nobody reads `--out -` any more, that is said, and votes count on."""
        fifo = tmp_path / "console"
        os.mkfifo(fifo)
        reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
        before = ["sh", "-c", f'exec "$@" >{fifo}', "sh"]
        with serving(tmp_path, "--out", "-", before=before) as server:
            os.close(reader)
            assert submit(server.port, wire(VOTES))
            server.wait_said("--out - has stopped: ")
            assert submit(server.port, wire(VOTES))
            assert server.stop() == 0
        assert last_sequence(tmp_path) == 2 * len(VOTES)


def can_connect(port: int) -> bool:
    """Say whether somebody listens."""
    with contextlib.suppress(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port)).close()
        return True
    return False


ON_A_SMALL_DISK = [
    *("unshare", "--map-root-user", "--mount", "sh", "-c"),
    'mount -t tmpfs -o size=4m disk "$0" && exec "$@"',
]
SPARE_BYTES = 300_000


class TestDiskFull:
    """A real file system with no room left.

    Only the server and its children see it mounted; we look at it through /proc.
    """

    @pytest.fixture
    def server(self, tmp_path: Path, receiver: Receiver) -> Iterator[Server]:
        """Give a server whose data directory is a file system of 4 MiB."""
        data = tmp_path / "data"
        data.mkdir()
        before = [*ON_A_SMALL_DISK, str(data)]
        words = ["--out", receiver.address, "--snapshot-every", 1000]
        with serving(tmp_path, *words, before=before) as started:
            yield started

    @pytest.fixture
    def seen(self, server: Server, tmp_path: Path) -> Path:
        """Give our own view of the server's place."""
        return Path(f"/proc/{server.pid}/root{tmp_path}")

    @pytest.fixture
    def filler(self, seen: Path) -> Path:
        """Give a file that leaves hardly any room."""
        disk = os.statvfs(seen / "data")
        file = seen / "data" / "filler"
        file.write_bytes(bytes(disk.f_bavail * disk.f_frsize - SPARE_BYTES))
        return file

    def test_it_waits_for_room(
        self, server: Server, seen: Path, filler: Path, receiver: Receiver
    ) -> None:
        """It pauses and says so; with room nothing is lost and nothing doubled."""
        votes = VOTES * 150
        expected = outputs(votes)
        receipt = in_background(server.port, wire(votes))
        line = server.wait_said("no space left on the disk after sequence ")
        assert "make room and counting goes on" in line
        durable = int(line.partition("after sequence ")[2].split()[0])
        receiver.wait_bytes(durable * OUTPUT_BYTES)
        assert totals(seen) == tally(votes[:durable])
        assert server.is_running
        assert not receipt.done()
        assert receiver.connections == [expected[: durable * OUTPUT_BYTES]]
        filler.unlink()
        server.wait_said("there is room on the disk again: counting goes on")
        assert receipt.result(SECONDS_MAX)
        receiver.wait_bytes(len(expected))
        assert receiver.connections == [expected]
        assert records(seen) == payloads(votes)
        assert verify(seen)["ok"]
        assert server.stop() == 0

    def test_a_stop_before_there_is_room(
        self, server: Server, filler: Path, receiver: Receiver
    ) -> None:
        """A stop ends it with exit code 4, and nobody is told what is not stored."""
        assert filler.exists()
        receipt = in_background(server.port, wire(VOTES * 150))
        line = server.wait_said("no space left on the disk after sequence ")
        durable = int(line.partition("after sequence ")[2].split()[0])
        assert server.stop() == 4
        assert not receipt.result(SECONDS_MAX)
        receiver.wait_hung_up()
        assert receiver.received_bytes <= durable * OUTPUT_BYTES

    def test_no_room_for_a_log(self, tmp_path: Path) -> None:
        """A new log that finds no room is refused, and needs no repair later."""
        data = tmp_path / "data"
        data.mkdir()
        script = (
            'mount -t tmpfs -o size=1m disk "$0" && mkdir "$0/data" '
            '&& dd if=/dev/zero of="$0/filler" bs=1M 2>&1 | grep -q full; exec "$@"'
        )
        before = [
            "unshare",
            "--map-root-user",
            "--mount",
            "sh",
            "-c",
            script,
            str(data),
        ]
        done = refused(tmp_path, "--data-dir", data / "data", before=before)
        assert done.code == 3
        assert "No space left on device" in done.stderr
