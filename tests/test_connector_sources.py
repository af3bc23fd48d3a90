"""Connector senders of a real server: acknowledged means durable, and once.

Every sender here speaks over a raw socket; what is counted is read from the log.
"""

import contextlib
import os
import random
import select
import socket
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs
import pytest

from alphabet.connector.frames import (
    NO_POINT,
    Ack,
    EndOfStream,
    Message,
    Notify,
    Ok,
    Restart,
)
from log.directory import DataDirectory
from log.log import Log
from log.store import BLOCKS, Change
from tests.connector_senders import HELLO, Sender, granted, message, refused, wire
from tests.inspection import points, records, rejects, totals, verify
from tests.machines import key
from tests.process import (
    ANY,
    READY,
    SECONDS_MAX,
    Server,
    finish,
    serving,
    submit,
    wait_until,
)
from tests.process import refused as refused_to_serve
from tests.votes import Vote, make_votes, payloads, tally
from tests.votes import wire as plain_wire

IS_SOAK = bool(os.environ.get("ALPHABET_SOAK"))
KILLS = 100 if IS_SOAK else 4
FLOOD_VOTES = 100_000
UNREAD_BYTES_MAX = 24 << 20
GOOD = struct.pack(">sI", b"g", 3)
OTHER = attrs.evolve(HELLO, instance=b"other")
OPTIONS = ("--connector-in", ANY)
FOUL = [
    (wire(Restart()), "Restart may not come here"),
    (wire(message(2000, 1)), "Message of stream 2000, which is not open"),
    (wire(HELLO), "Hello may not come here"),
    (b"\0\0\0\1\x63", "there is no frame of type 99"),
    (b"\x7f\xff\xff\xff\5", "a payload of 2147483647 bytes, where "),
    (wire(message(0, 9))[:20], "the stream ended after 20 of a frame's"),
]


def port_of(server: Server) -> int:
    """Give where a server takes connector senders."""
    start = "listening connector-in 127.0.0.1:"
    [line] = [line for line in server.lines() if line.startswith(start)]
    return int(line.removeprefix(start))


@contextlib.contextmanager
def serving_connectors(place: Path, *words: object) -> Iterator[tuple[Server, int]]:
    """Give a server for connector senders alone, and its port."""
    options = ("--data-dir", place / "data", "--http", "none", *OPTIONS, *words)
    with serving(place, *options, is_bare=True) as server:
        yield server, port_of(server)


def messages(stream_id: int, votes: Sequence[Vote], first_id: int) -> bytes:
    """Write votes as messages, whose ids rise by one."""
    pack = struct.Struct(">IBQQqHsI").pack
    return b"".join(
        pack(32, 5, stream_id, first_id + number, 0, 0, *vote)
        for number, vote in enumerate(votes)
    )


def good(stream_id: int, message_id: int) -> Message:
    """Make a message with a good vote."""
    return message(stream_id, message_id, GOOD)


def send_until_full(server: Server, sender: Sender, data: bytes) -> int:
    """Send the same again and again until the server reads no more; give how much.

    That is when nothing is taken and the server rests.
    """
    sent = 0

    def is_full() -> bool:
        nonlocal sent
        worked = ticks(server)
        try:
            while sent < UNREAD_BYTES_MAX:
                sent += sender.socket.send(data[sent % len(data) :])
        except BlockingIOError:
            is_taken = select.select([], [sender.socket], [], 0.3)[1]
            return not is_taken and ticks(server) == worked
        return True

    wait_until(is_full, "a connection that takes nothing more")
    return sent


def ticks(server: Server) -> list[str]:
    """Give the processor time that a server has used."""
    stat = Path(f"/proc/{server.pid}/stat").read_text()
    return stat.rpartition(")")[2].split()[11:13]


def rests(server: Server) -> bool:
    """Say whether a server uses no processor time for a moment."""
    worked = ticks(server)
    time.sleep(0.3)
    return ticks(server) == worked


def resumed(sender: Sender, stream_id: int) -> int:
    """Give how many messages of a stream, whose ids begin at 0, are durable."""
    return (sender.acked[stream_id] + 1) % 2**64


class TestAcknowledged:
    """What an ACK tells."""

    def test_a_lone_message(self, tmp_path: Path) -> None:
        """A lone message is acknowledged at once, and what is acknowledged is kept.

        Where connectors alone were asked for, nothing else is listened on.
        """
        with serving_connectors(tmp_path) as (server, port):
            assert server.lines() == [f"listening connector-in 127.0.0.1:{port}", READY]
            with Sender.connect(port) as sender:
                assert isinstance(sender.hear(), Ok)
                assert sender.notify(7) == granted(7, NO_POINT)
                assert sender.hear() == Ack(1)
                for message_id in (0, 10, 11):
                    sender.say(good(7, message_id))
                    assert sender.hear() == Ack(1, ((7, message_id),))
                sender.say(EndOfStream(7))
                assert sender.hear() == Ack(0, ((7, 11),))
            server.kill()
        assert totals(tmp_path) == {"g": 9}
        assert verify(tmp_path)["ok"]

    def test_both_kinds(self, tmp_path: Path) -> None:
        """Plain and connector senders feed one log, and a stop waits for both."""
        with (
            serving(tmp_path, *OPTIONS) as server,
            Sender.opened(port_of(server), 1) as sender,
        ):
            sender.say(good(1, 5))
            assert submit(server.port, plain_wire([(b"g", 4)]))
            sender.hear_until(1, 5)
            assert server.stop() == 0
        assert totals(tmp_path) == {"g": 7}

    def test_a_half_close(self, tmp_path: Path) -> None:
        """A sender that half-closes hears all its acknowledgements, then the end."""
        votes = make_votes(random.Random(3), 5000)
        with serving_connectors(tmp_path) as (_, port):
            with Sender.opened(port, 1) as sender:
                sender.socket.sendall(messages(1, votes, 0))
                sender.socket.shutdown(1)
                while sender.hear() is not None:
                    pass
                assert sender.acked[1] == len(votes) - 1
            with Sender.opened(port, 1, hello=OTHER) as sender:
                assert sender.acked[1] == len(votes) - 1
        assert records(tmp_path) == payloads(votes)

    def test_many_streams_on_many_connections(self, tmp_path: Path) -> None:
        """Each stream is counted in order, once, however they mix."""
        votes = make_votes(random.Random(4), 400)
        with serving_connectors(tmp_path) as (_, port), contextlib.ExitStack() as stack:
            senders = []
            for number in range(4):
                hello = attrs.evolve(HELLO, instance=b"%d" % number)
                streams = (2 * number, 2 * number + 1)
                opened = Sender.opened(port, *streams, hello=hello)
                senders.append(stack.enter_context(opened))
            for index in range(0, 400, 20):
                for number, sender in enumerate(senders):
                    for stream_id in (2 * number, 2 * number + 1):
                        lot = votes[index : index + 20]
                        sender.socket.sendall(messages(stream_id, lot, index))
            for number, sender in enumerate(senders):
                for stream_id in (2 * number, 2 * number + 1):
                    sender.say(EndOfStream(stream_id))
                    sender.hear_until(stream_id, 399)
        expected = {letter: 8 * count for letter, count in tally(votes).items()}
        assert totals(tmp_path) == expected
        found = {point.stream_id: point.message_id for point in points(tmp_path)}
        assert found == dict.fromkeys(range(8), 399)


class TestCrash:
    """The server dies, and its sender goes on."""

    def test_killed_in_a_flood(self, tmp_path: Path) -> None:
        """Through kills at any instant every vote counts once, in order."""
        chance = random.Random(5)
        votes = make_votes(chance, FLOOD_VOTES)
        for _ in range(KILLS):
            with serving_connectors(tmp_path) as (server, port):
                sender = Sender.opened(port, 1)
                start = resumed(sender, 1)
                # Some are sent again: the server knows better than its sender.
                again = max(start - chance.randrange(500), 0)
                flood = self.in_background(sender, messages(1, votes[again:], again))
                wanted = min(start + chance.randrange(FLOOD_VOTES // 8), len(votes) - 1)
                while (sender.acked[1] + 1) % 2**64 < wanted:
                    assert isinstance(sender.hear(), Ack)
                server.kill()
                acknowledged = resumed(sender, 1)
                flood.join()
                sender.socket.close()
            log = records(tmp_path)
            assert log == payloads(votes)[: len(log)]
            assert len(log) // 5 >= acknowledged
        with (
            serving_connectors(tmp_path) as (_, port),
            Sender.opened(port, 1) as sender,
        ):
            start = resumed(sender, 1)
            assert start == len(records(tmp_path)) // 5
            sender.socket.sendall(messages(1, votes[start:], start))
            sender.hear_until(1, len(votes) - 1)
        assert records(tmp_path) == payloads(votes)
        assert verify(tmp_path)["ok"]

    @staticmethod
    def in_background(sender: Sender, data: bytes) -> threading.Thread:
        """Send until all is sent or the server is gone."""

        def send() -> None:
            with contextlib.suppress(OSError):
                sender.socket.sendall(data)

        thread = threading.Thread(target=send, daemon=True)
        thread.start()
        return thread

    def test_stopped_in_a_flood(self, tmp_path: Path) -> None:
        """SIGTERM: the last ACK is what the log has, and the end is a plain one."""
        votes = make_votes(random.Random(6), FLOOD_VOTES)
        with serving_connectors(tmp_path) as (server, port):
            with Sender.opened(port, 1) as sender:
                flood = self.in_background(sender, messages(1, votes, 0))
                while sender.acked[1] == NO_POINT:
                    sender.hear()
                server.process.terminate()
                while (frame := sender.hear()) is not None:
                    assert isinstance(frame, Ack)
                count = resumed(sender, 1)
            flood.join()
            assert server.wait() == 0
        assert count > 0
        assert records(tmp_path) == payloads(votes[:count])

    @pytest.mark.parametrize("name", ["commit.before_flush", "commit.after_flush"])
    def test_a_failpoint(self, tmp_path: Path, name: str) -> None:
        """A commit of which nobody was told is told by the next server."""
        with serving_connectors(tmp_path):
            pass  # The log is made by commits too.
        options = ("--data-dir", tmp_path / "data", *OPTIONS)
        failpoint = {"ALPHABET_FAILPOINT": name}
        with (
            serving(tmp_path, *options, is_bare=True, variables=failpoint) as server,
            Sender.opened(port_of(server), 1) as sender,
        ):
            sender.say(good(1, 4))
            with contextlib.suppress(ConnectionResetError):
                assert sender.hear() in (Ack(1), None)
                assert sender.hear() is None
            server.wait()
        is_durable = name == "commit.after_flush"
        with (
            serving_connectors(tmp_path) as (_, port),
            Sender.opened(port, 1) as sender,
        ):
            assert sender.acked[1] == (4 if is_durable else NO_POINT)
            sender.say(good(1, 4))
            sender.hear_until(1, 4)
        assert totals(tmp_path) == {"g": 3}

    def test_a_lost_tail(self, tmp_path: Path) -> None:
        """A stream ahead of the log is refused, or goes back: it is given again."""
        votes = make_votes(random.Random(7), 300)
        with serving_connectors(tmp_path) as (server, port):
            with Sender.opened(port, 1) as sender:
                for first in range(0, 300, 100):
                    lot = messages(1, votes[first : first + 100], first)
                    sender.socket.sendall(lot)
                    sender.hear_until(1, first + 99)
            server.kill()
        directory = DataDirectory(tmp_path / "data")
        with contextlib.closing(directory.open_log()) as log:
            kept = lose_last_block(log)
        done = refused_to_serve(tmp_path, *OPTIONS)
        assert done.code == 1
        assert "stream 1 is at sequence 300" in done.stderr
        with (
            serving_connectors(tmp_path, "--accept-lost-tail") as (_, port),
            Sender.opened(port, 1) as sender,
        ):
            assert resumed(sender, 1) == kept
            sender.socket.sendall(messages(1, votes[kept:], kept))
            sender.hear_until(1, 299)
        assert records(tmp_path) == payloads(votes)

    def test_a_lost_tail_with_all_of_a_stream(self, tmp_path: Path) -> None:
        """A stream of which nothing is left begins anew, message 0 included."""
        with serving_connectors(tmp_path) as (server, port):
            with Sender.opened(port, 1) as sender:
                sender.say(good(1, 0))
                sender.hear_until(1, 0)
            server.kill()
        directory = DataDirectory(tmp_path / "data")
        with contextlib.closing(directory.open_log()) as log:
            assert lose_last_block(log) == 0
        with (
            serving_connectors(tmp_path, "--accept-lost-tail") as (_, port),
            Sender.opened(port, 1) as sender,
        ):
            assert sender.acked[1] == NO_POINT
            sender.say(good(1, 0))
            sender.hear_until(1, 0)
        assert totals(tmp_path) == {"g": 3}


def lose_last_block(log: Log) -> int:
    """Take the last block out of a log; give the sequence where it ends now."""
    *_, last = log.read(0)
    log.store.commit([Change(BLOCKS, key(last.first_sequence), None)], 0)
    return last.first_sequence - 1


class TestHolders:
    """Who holds a stream."""

    def test_takeover(self, tmp_path: Path) -> None:
        """The same instance takes its stream over; its older connection ends."""
        with serving_connectors(tmp_path) as (server, port):
            older = Sender.opened(port, 1)
            older.say(good(1, 5))
            with Sender.opened(port, 1) as newer, older:
                assert newer.acked[1] == 5
                assert older.hear_error().startswith(b"stream 1 was taken over")
                newer.say(good(1, 5), good(1, 6))
                newer.hear_until(1, 6)
            server.wait_said("stream 1 was taken over")
            assert server.stop() == 0
            assert "1 messages came again, and counted once" in server.said()
        assert totals(tmp_path) == {"g": 6}
        assert rejects(tmp_path) == []

    def test_another_instance(self, tmp_path: Path) -> None:
        """Another instance is refused until the holder is gone, and told of that."""
        with serving_connectors(tmp_path) as (_, port):
            for is_reset in (False, True):
                holder = Sender.opened(port, 1)
                with Sender.connect(port, OTHER) as other:
                    assert isinstance(other.hear(), Ok)
                    assert other.notify(1) == refused(1)
                    linger = struct.pack("ii", is_reset, 0)
                    holder.socket.setsockopt(
                        socket.SOL_SOCKET, socket.SO_LINGER, linger
                    )
                    holder.socket.close()
                    assert other.hear() == Ack(1)
                    assert other.notify(1) == granted(1, NO_POINT)


class TestCookie:
    """What senders must show."""

    def test_right_and_wrong(self, tmp_path: Path) -> None:
        """The file's content without its final newline is asked for."""
        file = tmp_path / "cookie"
        file.write_bytes(b"sesame\n")
        with serving_connectors(tmp_path, "--connector-cookie-file", file) as found:
            server, port = found
            with Sender.connect(port) as sender:
                assert sender.hear_error() == b"the cookie is not the server's"
            with Sender.connect(port, attrs.evolve(HELLO, cookie=b"sesame")) as sender:
                assert isinstance(sender.hear(), Ok)
            line = server.wait_said("the cookie")
            assert "sesame" not in line

    def test_endless(self, tmp_path: Path) -> None:
        """A file without an end is one line and exit code 3, as what is too long."""
        done = finish(
            "alphabet.cli",
            *("run", "--data-dir", tmp_path / "data", *OPTIONS),
            *("--connector-cookie-file", "/dev/zero"),
        )
        assert done.code == 3
        [line] = done.stderr.splitlines()
        assert "more than 65535 bytes" in line

    def test_unreadable(self, tmp_path: Path) -> None:
        """A cookie that cannot be read is one line and exit code 3."""
        done = finish(
            "alphabet.cli",
            *("run", "--data-dir", tmp_path / "data", *OPTIONS),
            *("--connector-cookie-file", tmp_path / "missing"),
        )
        assert done.code == 3
        assert done.stdout == ""
        [line] = done.stderr.splitlines()
        assert "missing" in line
        assert not (tmp_path / "data").exists()

    def test_a_port_in_use(self, tmp_path: Path) -> None:
        """A port that is taken is told with the option that chooses another."""
        with serving_connectors(tmp_path) as (_, port):
            done = finish(
                "alphabet.cli",
                *("run", "--data-dir", tmp_path / "other"),
                *("--connector-in", f"127.0.0.1:{port}"),
            )
        assert done.code == 3
        assert "give another address with --connector-in" in done.stderr


class TestBadInput:
    """What harms only itself."""

    def test_a_vote_that_does_not_decode(self, tmp_path: Path) -> None:
        """It is a reject with its frame's position, and its sender is not stuck."""
        with serving_connectors(tmp_path) as (server, port):
            with Sender.opened(port, 1) as sender:
                before = len(wire(HELLO, Notify(1, b"name", 0), good(1, 1)))
                sender.say(good(1, 1), message(1, 2, b"bad"))
                sender.hear_until(1, 2)
                sender.say(message(1, 3, b""))
                sender.hear_until(1, 3)
            assert server.stop() == 0
            assert server.entries()[-1]["rejected"] == 2
        first, second = rejects(tmp_path)
        assert (first.reason, first.position, first.payload) == (
            "decode",
            before,
            b"bad",
        )
        assert second.position == before + len(wire(message(1, 2, b"bad")))
        assert [point.message_id for point in points(tmp_path)] == [3]
        assert totals(tmp_path) == {"g": 3}

    def test_foul_frames(self, tmp_path: Path) -> None:
        """Each gets ERROR; what was before it counts, and nobody else is harmed."""
        position = len(wire(HELLO, Notify(1, b"name", 0), good(1, 1)))
        with (
            serving_connectors(tmp_path) as (server, port),
            Sender.opened(port, 99, hello=OTHER) as other,
        ):
            for number, (data, why) in enumerate(FOUL):
                with Sender.opened(port, number) as sender:
                    sender.say(good(number, 1))
                    sender.socket.sendall(data)
                    if "ended" in why:
                        sender.socket.shutdown(socket.SHUT_WR)
                    assert sender.hear_error().decode().startswith(why)
                other.say(good(99, number))
                other.hear_until(99, number)
            with Sender(socket.create_connection(("127.0.0.1", port))) as plain:
                plain.socket.sendall(plain_wire([(b"a", 1)] * 3))
                assert b"there is no frame of type 97" in plain.hear_error()
            # Of those behind it most are in a line that sums a second up.
            first = server.wait_said(FOUL[0][1])
            assert f"at byte {position} (frame): {FOUL[0][1]}" in first
            assert server.stop() == 0
            assert server.entries()[-1]["rejected"] == len(FOUL) + 1
        *found, last = rejects(tmp_path)
        assert last.cause == "there is no frame of type 97"
        for reject, (_, why) in zip(found, FOUL, strict=True):
            assert (reject.position, reject.reason) == (position, "frame")
            assert reject.cause.startswith(why)
        assert totals(tmp_path) == {"g": 6 * len(FOUL)}

    def test_an_error_reaches_a_flooding_sender(self, tmp_path: Path) -> None:
        """ERROR is heard by a sender that went on sending behind its foul frame."""
        votes = make_votes(random.Random(8), 50_000)
        with (
            serving_connectors(tmp_path) as (_, port),
            Sender.opened(port, 1) as sender,
        ):
            whole = wire(Restart()) + messages(1, votes, 0)
            flood = TestCrash.in_background(sender, whole)
            assert sender.hear_error() == b"Restart may not come here"
            flood.join()
        assert totals(tmp_path) == {}

    def test_a_sender_that_does_not_listen(self, tmp_path: Path) -> None:
        """Who reads no answers is not read either, and all others go on."""
        with serving_connectors(tmp_path) as (server, port):
            deaf = Sender.opened(port, 1)
            with deaf, Sender.opened(port, 2, hello=OTHER) as other:
                deaf.socket.settimeout(0)
                pair = wire(EndOfStream(1), Notify(1, b"name", 0))
                asking = pair * 1000
                sent = send_until_full(server, deaf, asking)
                assert sent < UNREAD_BYTES_MAX
                other.say(good(2, 1))
                other.hear_until(2, 1)
                # Once it listens it is read again, and the server comes to rest.
                deaf.socket.settimeout(SECONDS_MAX)
                left = asking[sent % len(asking) :]
                thread = TestCrash.in_background(deaf, left)
                answer = wire(Ack(1), Ack(0, ((1, NO_POINT),)), granted(1, NO_POINT))
                deaf.skip((sent + len(left)) // len(pair) * len(answer))
                thread.join()
                deaf.say(good(1, 1))
                deaf.hear_until(1, 1)
                wait_until(lambda: rests(server), "a server at rest")
        assert totals(tmp_path) == {"g": 6}
