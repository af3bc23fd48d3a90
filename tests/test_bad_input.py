"""Bad input on a real server: it harms only itself, is said, counted and kept.

In every test good votes come before it, after it where the connection lives on, and
meanwhile over another connection: all of them count.
"""

import contextlib
import http.client
import random
import re
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from alphabet.application import TOTAL_MAX, AllVotes, LetterStateBuilder, Votes
from alphabet.source.connection import PARTIAL_BYTES_MAX
from log.directory import DataDirectory
from log.row import Meta
from recovery.snapshot import Snapshot, State
from tests.inspection import last_sequence, rejects, totals, verify
from tests.process import ANY, SECONDS_MAX, Server, serving, submit, wait_until
from tests.receiving import Receiver
from tests.votes import VOTE_BYTES, frame, wire

GOOD = wire([(b"g", 1)] * 3)
GOOD_BYTES = len(GOOD)
SHORT = frame(b"abc")
MIB = 1 << 20
STRAY = bytes.fromhex("00 00 00 02 00 0d")


@attrs.define
class Sender:
    """A connection to the server; `peer` is the server's name for it."""

    socket: socket.socket
    peer: str
    _is_reset: bool = attrs.field(default=False, init=False)

    def send(self, data: bytes) -> None:
        """Send bytes, as far as the server takes them."""
        try:
            self.socket.sendall(data)
        except (ConnectionResetError, BrokenPipeError):
            # The kernel tells of a reset once.
            self._is_reset = True

    def half_close(self) -> bool:
        """Say that this is all; say whether the receipt comes."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)
        return self.has_receipt()

    def has_receipt(self) -> bool:
        """Wait for the connection's end; say whether it was a plain close."""
        try:
            return self.socket.recv(1) == b"" and not self._is_reset
        except ConnectionResetError:
            return False

    def reset(self) -> None:
        """Die."""
        linger = struct.pack("ii", 1, 0)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.socket.close()


@contextlib.contextmanager
def connected(server: Server) -> Iterator[Sender]:
    """Give a connection to a server."""
    address = ("127.0.0.1", server.port)
    with socket.create_connection(address, SECONDS_MAX) as connection:
        host, port = connection.getsockname()
        yield Sender(connection, f"{host}:{port}")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """Give a server."""
    with serving(tmp_path) as started:
        yield started


def stopped(server: Server) -> int:
    """Stop a server in good order; give how many it says were rejected."""
    assert server.stop() == 0
    rejected: int = server.entries()[-1]["rejected"]
    return rejected


class TestSkipped:
    """Frames that the decoder refuses: skipped, and the connection lives on."""

    @pytest.mark.parametrize(
        "bad", [frame(b""), SHORT, STRAY, frame(b"abcdef"), frame(bytes(300))]
    )
    def test_good_votes_around_it_count(
        self, server: Server, tmp_path: Path, bad: bytes
    ) -> None:
        """A frame that does not decode costs itself, a line and a row."""
        with connected(server) as sender, connected(server) as other:
            other.send(GOOD)
            sender.send(GOOD + bad + GOOD)
            assert sender.half_close()
            line = server.wait_said(sender.peer)
            other.send(GOOD)
            assert other.half_close()
        assert stopped(server) == 1
        place = f"rejected from {sender.peer} at byte {GOOD_BYTES} (decode): error: "
        assert line.startswith(place)
        [reject] = rejects(tmp_path)
        assert (reject.peer, reject.position) == (sender.peer, GOOD_BYTES)
        assert (reject.reason, reject.sequence) == ("decode", 0)
        assert reject.payload_bytes == len(bad) - 4
        assert reject.payload == bad[4:260]
        assert totals(tmp_path) == {"g": 12}

    def test_byte_by_byte(self, server: Server, tmp_path: Path) -> None:
        """The position is the stream's, however the stream was cut."""
        with connected(server) as sender:
            sender.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for byte in GOOD + SHORT + SHORT + GOOD:
                sender.send(bytes([byte]))
            assert sender.half_close()
        assert stopped(server) == 2
        positions = [reject.position for reject in rejects(tmp_path)]
        assert positions == [GOOD_BYTES, GOOD_BYTES + len(SHORT)]
        assert totals(tmp_path) == {"g": 6}

    def test_a_flood(self, server: Server, tmp_path: Path) -> None:
        """A flood of garbage is a line and some sums, and votes count meanwhile."""
        count = 100_000
        with connected(server) as sender, connected(server) as other:
            for _ in range(10):
                sender.send(SHORT * (count // 10))
                other.send(GOOD)
            assert sender.half_close()
            assert other.half_close()
        assert stopped(server) == count
        lines = [line for line in server.said() if "reject" in line]
        assert lines[0].startswith(f"rejected from {sender.peer} at byte 0 (decode)")
        assert all("more rejected or failed; the last: " in each for each in lines[1:])
        assert 1 + sum(int(each.split()[0]) for each in lines[1:]) == count
        assert len(lines) < 30
        kept = rejects(tmp_path)
        assert 100 <= len(kept) <= 10_000
        assert [reject.position for reject in kept[:100]] == [
            len(SHORT) * index for index in range(100)
        ]
        assert totals(tmp_path) == {"g": 30}


class TestEnded:
    """What ends its connection: by a reset, so that nobody takes it for a receipt."""

    def check(self, place: Path, server: Server, sender: Sender, cause: str) -> None:
        """Look at what a connection with good votes and then `cause` has left."""
        line = server.wait_said(sender.peer)
        assert submit(server.port, GOOD)
        assert stopped(server) == 1
        assert line == (
            f"rejected from {sender.peer} at byte {GOOD_BYTES} (frame): {cause}"
        )
        [reject] = rejects(place)
        assert (reject.peer, reject.position) == (sender.peer, GOOD_BYTES)
        assert (reject.reason, reject.cause) == ("frame", cause)
        assert totals(place) == {"g": 6}

    def test_too_long(self, server: Server, tmp_path: Path) -> None:
        """A frame above the cap, however much above."""
        before = server.anonymous_bytes()
        with connected(server) as sender:
            sender.send(GOOD + b"\xff\xff\xff\xff" + GOOD)
            assert not sender.has_receipt()
            assert server.anonymous_bytes() - before < 16 << 20
            cause = "a payload of 4294967295 bytes, where 1048576 are accepted"
            self.check(tmp_path, server, sender, cause)

    def test_one_byte_too_long(self, tmp_path: Path) -> None:
        """The cap is the option's, inclusive."""
        with (
            serving(tmp_path, "--max-frame-bytes", 5) as server,
            connected(server) as sender,
        ):
            sender.send(GOOD + frame(b"sixsix"))
            assert not sender.has_receipt()
            cause = "a payload of 6 bytes, where 5 are accepted"
            self.check(tmp_path, server, sender, cause)

    def test_half_closed_in_mid_frame(self, server: Server, tmp_path: Path) -> None:
        """A sender that ends in mid-frame has no receipt, and its votes count."""
        with connected(server) as sender:
            sender.send(GOOD + GOOD[:7])
            assert not sender.half_close()
            cause = "the stream ended after 7 of a frame's 9 bytes"
            self.check(tmp_path, server, sender, cause)

    def test_half_closed_in_a_header(self, server: Server, tmp_path: Path) -> None:
        """As much holds in the midst of a header."""
        with connected(server) as sender:
            sender.send(GOOD + GOOD[:3])
            assert not sender.half_close()
            cause = "the stream ended after 3 of a header's 4 bytes"
            self.check(tmp_path, server, sender, cause)

    def test_never_finished(self, tmp_path: Path) -> None:
        """A frame that stays unfinished too long, though others are in good time."""
        with (
            serving(tmp_path, "--partial-frame-seconds", 0.1) as server,
            connected(server) as sender,
            connected(server) as quiet,
        ):
            quiet.send(b"")
            sender.send(GOOD + GOOD[:7])
            assert not sender.has_receipt()
            # A connection that is between frames may be quiet for as long as it likes.
            assert quiet.half_close()
            cause = "its frame was not finished within 0.1 s"
            self.check(tmp_path, server, sender, cause)

    def test_cut_in_mid_frame(self, server: Server, tmp_path: Path) -> None:
        """A sender that dies in mid-frame: what was whole counts."""
        with connected(server) as sender:
            sender.send(GOOD + GOOD[:7])
            # A reset overtakes what is unread: first all is to be in.
            wait_until(lambda: last_sequence(tmp_path) == 3, "the votes before")
            sender.reset()
            line = server.wait_said(sender.peer)
        assert stopped(server) == 1
        cause = "the connection was lost: Connection reset by peer"
        assert (
            line == f"rejected from {sender.peer} at byte {GOOD_BYTES} (frame): {cause}"
        )
        assert totals(tmp_path) == {"g": 3}


class TestNoError:
    """Ends that are nobody's fault."""

    def test_nothing_sent(self, server: Server, tmp_path: Path) -> None:
        """A connection that ends before its first frame is no error."""
        assert submit(server.port, b"")
        assert stopped(server) == 0
        assert rejects(tmp_path) == []

    def test_dead_between_frames(self, server: Server, tmp_path: Path) -> None:
        """Nor is one that is reset between two frames."""
        with connected(server) as sender:
            sender.send(GOOD)
            wait_until(lambda: last_sequence(tmp_path) == 3, "the votes")
            sender.reset()
        assert submit(server.port, GOOD)
        assert stopped(server) == 0
        assert rejects(tmp_path) == []
        assert totals(tmp_path) == {"g": 6}


class TestRandomBytes:
    """Whatever comes in."""

    def test_they_harm_only_themselves(self, server: Server, tmp_path: Path) -> None:
        """Forty streams of random bytes, and every good vote counts."""
        chance = random.Random(5)
        for _ in range(40):
            # Small first bytes make lengths that are accepted now and then.
            size = chance.randrange(1, 2000)
            weights = [40, *[1] * 255]
            garbage = bytes(chance.choices(range(256), weights, k=size))
            with connected(server) as sender:
                sender.send(GOOD + garbage)
                sender.half_close()
            assert submit(server.port, GOOD)
        rejected = stopped(server)
        assert rejected >= len(rejects(tmp_path)) > 0
        assert totals(tmp_path)["g"] >= 240
        assert verify(tmp_path)["ok"]


class TestOverflow:
    """A vote that would take a total past 2**64-1."""

    @pytest.fixture
    def nearly_full(self, tmp_path: Path) -> Path:
        """Give a place whose log begins at event 10 with a total near the end."""
        state = AllVotes({b"h": Votes(b"h", TOTAL_MAX - 5)})
        dumped = State("letter state", "dump", LetterStateBuilder().dump(state))
        meta = Meta(
            log_id="0123456789abcdef",
            application="alphabet",
            pipelines=["alphabet"],
            record_schema=">sI",
            base_sequence=10,
        )
        base = Snapshot(meta.log_id, 10, 10, 0, "alphabet", 1, (dumped,))
        directory = DataDirectory.claim(tmp_path / "data")
        with directory.new_log(meta, base.encode()):
            pass
        directory.release()
        return tmp_path

    def test_it_keeps_its_sequence(self, nearly_full: Path) -> None:
        """It yields no output, changes nothing and is met again by every replay."""
        place = nearly_full
        votes = [(b"h", 4), (b"h", 2), (b"g", 1), (b"h", 1), (b"h", 1)]
        outputs = [(b"h", TOTAL_MAX - 1), (b"g", 1), (b"h", TOTAL_MAX)]
        expected = b"".join(struct.pack(">IsQ", 9, *output) for output in outputs)
        with Receiver() as receiver:
            with serving(place, "--out", receiver.address) as server:
                assert submit(server.port, wire(votes))
                receiver.wait_bytes(len(expected))
                line = server.wait_said(
                    "failed event 12 (compute): add votes: TotalOverflow"
                )
                assert stopped(server) == 2
            with serving(place, "--out", receiver.address) as server:
                assert submit(server.port, wire([(b"g", 1)]))
                receiver.wait_bytes(len(expected) + 13)
                assert server.stop() == 0
            assert receiver.connections[0] == expected
            assert receiver.connections[1] == struct.pack(">IsQ", 9, b"g", 2)
        assert str(TOTAL_MAX) in line
        kept = rejects(place)
        assert [(each.sequence, each.payload) for each in kept] == [
            (12, struct.pack(">sI", b"h", 2)),
            (15, struct.pack(">sI", b"h", 1)),
        ]
        assert {each.reason for each in kept} == {"compute"}
        assert last_sequence(place) == 16
        assert totals(place) == {"g": 2, "h": TOTAL_MAX}
        assert verify(place)["ok"]


def received_bytes(server: Server) -> float:
    """Give how much a server with a page has read from plain senders."""
    [line] = [each for each in server.lines() if each.startswith("listening http ")]
    page = http.client.HTTPConnection(line.split()[-1], timeout=SECONDS_MAX)
    with contextlib.closing(page):
        page.request("GET", "/metrics")
        text = page.getresponse().read().decode()
    [value] = re.findall(
        r'^alphabet_received_bytes_total{source="in"} (.*)', text, re.MULTILINE
    )
    return float(value)


class TestCaps:
    """What all senders together may take."""

    def test_connections(self, tmp_path: Path) -> None:
        """One connection too many is reset, and the others are served."""
        with (
            serving(tmp_path, "--max-connections", 2) as server,
            connected(server) as one,
            connected(server) as two,
        ):
            two.send(GOOD)
            with connected(server) as three:
                line = server.wait_said(three.peer)
                three.send(GOOD)
                assert not three.has_receipt()
            assert line.endswith("2 connections are open (--max-connections)")
            assert one.half_close()
            assert two.half_close()
            assert submit(server.port, GOOD)
            assert server.stop() == 0
        assert totals(tmp_path) == {"g": 6}

    def test_unfinished_frames(self, tmp_path: Path) -> None:
        """Unfinished frames hold 64 MiB at most: past that the costliest is ended."""
        header = struct.pack(">I", 1 << 30)
        part = bytes(40 << 20)
        with (
            serving(tmp_path, "--max-frame-bytes", 1 << 30) as server,
            connected(server) as one,
            connected(server) as two,
            connected(server) as three,
        ):
            one.send(GOOD + header + part)
            two.send(header + part)
            assert not one.has_receipt()
            line = server.wait_said(one.peer)
            assert server.anonymous_bytes() < 200 << 20
            # What the one held is not held any more: there is room for the two.
            three.send(header + part[: 20 << 20])
            two.send(GOOD)
            assert submit(server.port, GOOD)
            assert server.stop() == 0
        assert line == (
            f"rejected from {one.peer} at byte {3 * VOTE_BYTES} (frame): "
            "unfinished frames hold 67108864 bytes, and this one cost the most"
        )
        assert server.entries()[-1]["partial_frames"] == 2
        assert totals(tmp_path) == {"g": 6}

    def test_a_part_of_a_vote_beside_all_that_may_be_held(self, tmp_path: Path) -> None:
        """Who goes on with a vote is not ended for what others hold."""
        begun = struct.pack(">I", MIB) + bytes(MIB - 4)
        with contextlib.ExitStack() as stack:
            server = stack.enter_context(serving(tmp_path, "--http", ANY))
            early, late = (stack.enter_context(connected(server)) for _ in range(2))
            early.send(GOOD[:5])
            for missing in [*[0] * (PARTIAL_BYTES_MAX // MIB - 1), 8]:
                other = stack.enter_context(connected(server))
                other.send(begun[: MIB - missing])
            held_bytes = PARTIAL_BYTES_MAX - 3
            wait_until(lambda: received_bytes(server) == held_bytes, "what they hold")
            late.send(GOOD[:5])
            server.wait_said("unfinished frames hold")
            for sender in (early, late):
                sender.send(GOOD[5:])
                assert sender.half_close()
            assert submit(server.port, GOOD)
            assert server.stop() == 0
        assert totals(tmp_path) == {"g": 9}
