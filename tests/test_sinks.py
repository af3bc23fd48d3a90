"""Plain TCP sinks on a real server: away, slow, dying, moving, many of them.

What a receiver got is compared byte by byte with the reference.
"""

import random
import re
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from alphabet.allocator import KEPT_BYTES_MAX
from tests.inspection import cursor, last_sequence
from tests.process import free_port, refused, serving, submit, wait_until
from tests.receiving import Receiver
from tests.votes import OUTPUT_BYTES, make_votes, outputs, trace, wire

COUNT = 3000
VOTES = make_votes(random.Random(3), 2 * COUNT)
FIRST, SECOND = VOTES[:COUNT], VOTES[COUNT:]
OUTPUTS = outputs(VOTES)
HALF = COUNT * OUTPUT_BYTES

SMALL_BUFFER = 4096


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """Give a receiver that listens."""
    with Receiver() as opened:
        yield opened


class TestAway:
    """A receiver that is not there all the time."""

    def test_down_at_the_start(self, tmp_path: Path, receiver: Receiver) -> None:
        """Votes count while nobody takes the outputs, and all of these come later."""
        receiver.leave()
        with serving(tmp_path, "--out", receiver.address) as server:
            assert submit(server.port, wire(VOTES))
            server.wait_said(f"sink out: cannot reach {receiver.address}")
            receiver.come_back()
            receiver.wait_bytes(len(OUTPUTS))
            assert server.stop() == 0
        assert receiver.connections == [OUTPUTS]

    def test_away_for_long(self, tmp_path: Path, receiver: Receiver) -> None:
        """It goes on where it was, though snapshots and a restart came in between."""
        words = ["--out", receiver.address, "--snapshot-every", 500]
        with serving(tmp_path, *words) as server:
            assert submit(server.port, wire(FIRST))
            receiver.wait_bytes(HALF)
            receiver.leave()
            for start in range(0, COUNT, 500):
                assert submit(server.port, wire(SECOND[start : start + 500]))
            assert server.stop() == 0
        with serving(tmp_path, *words) as server:
            receiver.come_back()
            receiver.wait_bytes(len(OUTPUTS))
            assert server.stop() == 0
        assert receiver.connections == [OUTPUTS[:HALF], OUTPUTS[HALF:]]

    def test_away_through_a_crash(self, tmp_path: Path, receiver: Receiver) -> None:
        """A killed server does not know who got what, and repeats rather than skips."""
        with serving(tmp_path, "--out", receiver.address) as server:
            assert submit(server.port, wire(FIRST))
            receiver.wait_bytes(HALF)
            server.kill()
        with serving(tmp_path, "--out", receiver.address) as server:
            assert submit(server.port, wire(SECOND))
            receiver.wait_connections(2)
            wait_until(
                lambda: receiver.connections[-1].endswith(OUTPUTS[-OUTPUT_BYTES:]),
                "the last output",
            )
        brought = trace(receiver.connections, OUTPUTS)
        assert brought[-1].stop == 2 * COUNT

    def test_close_and_come_back(self, tmp_path: Path, receiver: Receiver) -> None:
        """A receiver that read all and closed is followed by one that repeats none."""
        with serving(tmp_path, "--out", receiver.address) as server:
            for start in range(0, 2 * COUNT, 1000):
                assert submit(server.port, wire(VOTES[start : start + 1000]))
                receiver.wait_bytes((start + 1000) * OUTPUT_BYTES)
                receiver.leave()
                server.wait_said("connection to")
                receiver.come_back()
            assert server.stop() == 0
        pieces = [connection for connection in receiver.connections if connection]
        assert b"".join(pieces) == OUTPUTS
        assert all(len(piece) % OUTPUT_BYTES == 0 for piece in pieces)

    def test_close_in_mid_frame(self, tmp_path: Path) -> None:
        """A receiver that closes in the midst of an output is sent it whole again."""
        with (
            Receiver(SMALL_BUFFER, is_stalled=True) as receiver,
            serving(tmp_path, "--out", receiver.address) as server,
        ):
            receiver.wait_connections(1)
            # More than the receiver's kernel takes.
            votes = VOTES * 10
            assert submit(server.port, wire(votes))
            wait_until(lambda: cursor(tmp_path).sequence > 0, "something delivered")
            receiver.half_close()
            line = server.wait_said("closed by the receiver")
            receiver.go_on()
            receiver.wait_connections(2)
            expected = outputs(votes)
            wait_until(
                lambda: receiver.connections[-1].endswith(expected[-OUTPUT_BYTES:]),
                "the last output",
            )
            found = re.search(r"goes on after sequence (\d+)", line)
            assert found is not None
            passed = int(found[1])
            wait_until(
                lambda: len(receiver.connections[0]) >= passed * OUTPUT_BYTES,
                "what the first connection was given",
            )
            _, second = trace(receiver.connections, expected)
        assert second.start == passed
        assert 0 < second.start < len(votes)

    def test_reset_with_bytes_unread(self, tmp_path: Path) -> None:
        """What a dying receiver had not read is sent again."""
        with (
            Receiver(SMALL_BUFFER) as receiver,
            serving(tmp_path, "--out", receiver.address) as server,
        ):
            receiver.wait_connections(1)
            assert submit(server.port, wire(VOTES[:10]))
            receiver.wait_bytes(10 * OUTPUT_BYTES)
            receiver.stall()
            assert submit(server.port, wire(VOTES[10:]))
            # The peer's TCP has acknowledged what its receiver never reads.
            receiver.leave(with_reset=True)
            line = server.wait_said("reset")
            receiver.come_back()
            receiver.go_on()
            receiver.wait_bytes(10 * OUTPUT_BYTES + len(OUTPUTS))
            assert server.stop() == 0
        assert "goes on after sequence 0" in line
        assert trace(receiver.connections, OUTPUTS) == [range(10), range(2 * COUNT)]


class TestSlow:
    """A receiver that reads less than there is."""

    @pytest.mark.slow
    def test_nobody_waits_for_it(self, tmp_path: Path) -> None:
        """Votes count on, memory stays flat, and in the end it has every byte."""
        count, piece = 3_300_000, 300_000
        with (
            Receiver(SMALL_BUFFER, is_stalled=True) as receiver,
            serving(tmp_path, "--out", receiver.address) as server,
        ):
            memory = []
            for _ in range(0, count, piece):
                assert submit(server.port, wire([(b"a", 1)]) * piece)
                memory.append(server.anonymous_bytes())
            assert len(receiver.connections[0]) == 0
            receiver.go_on()
            receiver.wait_bytes(count * OUTPUT_BYTES)
            memory.append(server.anonymous_bytes())
            assert server.stop() == 0
        # After 2.4 million votes the window is full. Each output weighs 49 bytes, so
        # 40 MiB more would be kept. A thread may keep some of what it has freed.
        assert max(memory[7:]) - memory[7] < KEPT_BYTES_MAX
        expected = b"".join(struct.pack(">IsQ", 9, b"a", n + 1) for n in range(count))
        assert receiver.connections == [expected]


class TestNames:
    """A sink is its name, wherever it is."""

    def test_it_moves(self, tmp_path: Path, receiver: Receiver) -> None:
        """A sink with another address goes on where the name was."""
        with serving(tmp_path, "--out", f"board@{receiver.address}") as server:
            assert submit(server.port, wire(FIRST))
            receiver.wait_bytes(HALF)
            assert server.stop() == 0
        receiver.leave()
        receiver.come_back(elsewhere=True)
        with serving(tmp_path, "--out", f"board@{receiver.address}") as server:
            assert submit(server.port, wire(SECOND))
            receiver.wait_bytes(len(OUTPUTS))
            server.wait_said(f"goes on after sequence {COUNT}")
            assert server.stop() == 0
        assert receiver.connections == [OUTPUTS[:HALF], OUTPUTS[HALF:]]

    def test_several(self, tmp_path: Path, receiver: Receiver) -> None:
        """Each of several sinks gets everything, one that is away holding up none."""
        with Receiver() as other:
            other.leave()
            sinks = [
                "--out",
                f"one@{receiver.address}",
                "--out",
                f"two@{other.address}",
            ]
            with serving(tmp_path, *sinks) as server:
                assert submit(server.port, wire(VOTES))
                receiver.wait_bytes(len(OUTPUTS))
                other.come_back()
                other.wait_bytes(len(OUTPUTS))
                assert server.stop() == 0
            assert receiver.connections == other.connections == [OUTPUTS]

    def test_several_need_names(self, tmp_path: Path) -> None:
        """Two sinks of which one has no name are a usage error."""
        sinks = ["--out", "one@127.0.0.1:9", "--out", "127.0.0.1:10"]
        done = refused(tmp_path, *sinks)
        assert done.code == 2
        assert "several sinks need names of their own: --out NAME@127" in done.stderr

    def test_two_of_one_name(self, tmp_path: Path) -> None:
        """Two sinks of one name are a usage error."""
        sinks = ["--out", "one@127.0.0.1:9", "--out", "one@127.0.0.1:10"]
        done = refused(tmp_path, *sinks)
        assert done.code == 2
        assert "two sinks are named 'one'" in done.stderr


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a place whose log holds the first half, and knows no sink."""
    made = tmp_path_factory.mktemp("template")
    with serving(made) as server:
        assert submit(server.port, wire(FIRST))
        assert server.stop() == 0
    assert last_sequence(made) == COUNT
    return made


@pytest.fixture
def counted(template: Path, tmp_path: Path) -> Path:
    """Give a copy of the template."""
    shutil.copytree(template / "data", tmp_path / "data")
    return tmp_path


class TestStart:
    """Where a sink begins."""

    def test_a_new_one_at_the_end(self, counted: Path, receiver: Receiver) -> None:
        """A sink without a row begins at the log's end, and the server says so."""
        with serving(counted, "--out", receiver.address) as server:
            server.wait_said(
                f"sink out is new: starts after sequence {COUNT} (known sinks: none)"
            )
            assert submit(server.port, wire(SECOND))
            receiver.wait_bytes(len(OUTPUTS) - HALF)
            assert server.stop() == 0
        assert receiver.connections == [OUTPUTS[HALF:]]

    @pytest.mark.parametrize("start", [0, 1, COUNT - 1])
    def test_a_new_one_where_told(
        self, counted: Path, receiver: Receiver, start: int
    ) -> None:
        """`--out-from N` gives a new sink everything after event N."""
        words = ["--out", receiver.address, "--out-from", start]
        with serving(counted, *words) as server:
            assert submit(server.port, wire(SECOND))
            receiver.wait_bytes(len(OUTPUTS) - start * OUTPUT_BYTES)
            assert server.stop() == 0
        assert receiver.connections == [OUTPUTS[start * OUTPUT_BYTES :]]

    def test_not_past_the_end(self, counted: Path) -> None:
        """`--out-from` past the log's end is a usage error."""
        words = ["--out", "127.0.0.1:9", "--out-from", COUNT + 1]
        done = refused(counted, *words)
        assert done.code == 2
        assert f"which goes from 0 to {COUNT}" in done.stderr

    def test_not_for_a_known_one(self, counted: Path) -> None:
        """`--out-from` for a sink with a row is a usage error that names the way on."""
        with serving(counted, "--out", f"127.0.0.1:{free_port()}"):
            pass
        words = ["--out", "127.0.0.1:9", "--out-from", 0]
        done = refused(counted, *words)
        assert done.code == 2
        assert f"'out' is at sequence {COUNT}; forget it first" in done.stderr

    def test_forgotten(self, counted: Path, receiver: Receiver) -> None:
        """A sink that is forgotten can begin anew."""
        with serving(counted, "--out", receiver.address) as server:
            receiver.wait_connections(1)
            assert server.stop() == 0
        words = ["--out", receiver.address, "--forget-sink", "out", "--out-from", 0]
        with serving(counted, *words) as server:
            receiver.wait_bytes(HALF)
            assert server.stop() == 0
        assert receiver.connections[-1] == OUTPUTS[:HALF]

    def test_nothing_to_forget(self, counted: Path) -> None:
        """Forgetting a sink that is not known is a usage error."""
        done = refused(counted, "--forget-sink", "nobody")
        assert done.code == 2
        assert "no sink 'nobody' to forget (known sinks: none)" in done.stderr


class TestConsole:
    """`--out -`."""

    def test_it_prints(self, tmp_path: Path) -> None:
        """Standard output has each total as a line and nothing else."""
        with serving(tmp_path, "--out", "-") as server:
            assert submit(server.port, wire(VOTES))
            wait_until(lambda: len(server.lines()) == 2 * COUNT, "all lines")
            assert server.stop() == 0
        assert server.lines() == [
            f"{letter.decode()} => {total}"
            for _, letter, total in struct.iter_unpack(">IsQ", OUTPUTS)
        ]

    def test_it_starts_at_the_end(self, counted: Path) -> None:
        """After a restart only new totals are printed."""
        with serving(counted, "--out", "-") as server:
            assert submit(server.port, wire(SECOND[:1]))
            wait_until(server.lines, "a line")
            assert server.stop() == 0
        _, letter, total = struct.unpack_from(">IsQ", OUTPUTS, HALF)
        assert server.lines() == [f"{letter.decode()} => {total}"]

    def test_beside_a_receiver(self, tmp_path: Path, receiver: Receiver) -> None:
        """It may stand beside one sink that has no name."""
        with serving(tmp_path, "--out", "-", "--out", receiver.address) as server:
            assert submit(server.port, wire(VOTES))
            receiver.wait_bytes(len(OUTPUTS))
            wait_until(lambda: len(server.lines()) == 2 * COUNT, "all lines")
            assert server.stop() == 0
        assert receiver.connections == [OUTPUTS]
