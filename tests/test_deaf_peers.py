"""Peers that never read what they are told, and frames that come in any two pieces.

All kinds at once beside peers that do as they should: these notice nothing.
"""

import os
import socket
import struct
from contextlib import ExitStack
from pathlib import Path

import attrs
import numpy as np

from alphabet.connector.frames import EndOfStream, Notify
from bench.misconduct import Conduct, misbehaving
from tests.connector_senders import HELLO, Sender, message, wire
from tests.inspection import rejects, totals
from tests.process import ANY, SECONDS_MAX, serving, submit, wait_until
from tests.receiving import Receiver
from tests.test_connector_sources import port_of, rests
from tests.two_phase_sink import Sink
from tests.votes import OUTPUT_BYTES, frame
from tests.votes import wire as plain_wire

OWN_BYTES_MAX = 150_000_000
UNREAD_BYTES_MAX = 24 << 20
"""What the kernel keeps of a connection that nobody reads, and the server of it."""
SMALL_BUFFER = 4096
LOTS, LOT = 30 if os.environ.get("ALPHABET_SOAK") else 12, 300_000
"""So many that all outputs are more than memory may take."""
DEAF = (10, 11)
GOOD = struct.pack(">sI", b"g", 1)


def asking(stream_id: int) -> Conduct:
    """Make a sender of its own name that asks again and again, and never listens."""
    hello = attrs.evolve(HELLO, instance=b"%d" % stream_id)
    opening = Notify(stream_id, b"name", 0)
    return Conduct(
        1,
        wire(EndOfStream(stream_id), opening) * 1000,
        is_repeated=True,
        greeting=wire(hello, opening),
        heard_bytes=SMALL_BUFFER,
    )


def test_nobody_waits_for_them(tmp_path: Path) -> None:
    """Sinks and senders that never read cost others nothing, and little memory."""
    with (
        Receiver(SMALL_BUFFER, is_stalled=True) as stalled,
        Sink(is_stalled=True) as hung,
        Receiver() as receiver,
        serving(
            tmp_path,
            *("--out", f"stalled@{stalled.address}"),
            *("--connector-out", f"hung@{hung.address}"),
            *("--out", f"good@{receiver.address}"),
            *("--connector-in", ANY, "--drain-seconds", 0),
        ) as server,
        misbehaving(port_of(server), *map(asking, DEAF)) as crowd,
        Sender.opened(port_of(server), 1) as sender,
    ):
        stalled.wait_connections(1)
        for number in range(LOTS):
            assert submit(server.port, plain_wire([(b"g", 1)]) * LOT)
            sender.say(message(1, number, GOOD))
            sender.hear_until(1, number)
        wait_until(lambda: rests(server), "a server at rest")
        for each in crowd.traffic():
            assert (each.connected, each.cut) == (1, 0)
            assert 0 < each.sent_bytes < UNREAD_BYTES_MAX
        count = LOTS * (LOT + 1)
        receiver.wait_bytes(count * OUTPUT_BYTES)
        assert server.anonymous_bytes() < OWN_BYTES_MAX
        assert (stalled.received_bytes, hung.committed_bytes) == (0, 0)
        assert server.stop() == 0
    expected = np.zeros(count, [("size", ">u4"), ("letter", "S1"), ("total", ">u8")])
    expected["size"], expected["letter"] = OUTPUT_BYTES - 4, b"g"
    expected["total"] = np.arange(1, count + 1)
    assert receiver.connections == [expected.tobytes()]
    assert totals(tmp_path) == {"g": count}


def first_piece(port: int, data: bytes) -> socket.socket:
    """Connect and send the beginning of something."""
    connection = socket.create_connection(("127.0.0.1", port), SECONDS_MAX)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.sendall(data)
    return connection


def story(stream_id: int) -> bytes:
    """Write all that a connector sender of one vote says, as long for every stream."""
    return wire(
        attrs.evolve(HELLO, instance=b"%03d" % stream_id),
        Notify(stream_id, b"name", 0),
        message(stream_id, 5, GOOD),
        EndOfStream(stream_id),
    )


def test_in_any_two_pieces(tmp_path: Path) -> None:
    """Frames of both kinds that come in two pieces, whichever, are what they are."""
    plain = frame(GOOD) + frame(b"bad") + frame(GOOD)
    stories = [story(stream_id) for stream_id in range(len(story(0)))]
    with serving(tmp_path, "--connector-in", ANY) as server, ExitStack() as stack:
        port = port_of(server)

        def begin(port: int, data: bytes) -> socket.socket:
            return stack.enter_context(first_piece(port, data))

        senders = [begin(server.port, plain[:end]) for end in range(len(plain))]
        told = [begin(port, each[:end]) for end, each in enumerate(stories)]
        # Who comes behind them is read no sooner than they are.
        assert submit(server.port, b"")
        with Sender.opened(port, len(stories)):
            pass
        for end, each in enumerate(senders):
            each.sendall(plain[end:])
            each.shutdown(socket.SHUT_WR)
            assert each.recv(1) == b""
        for end, each in enumerate(told):
            each.sendall(stories[end][end:])
            each.shutdown(socket.SHUT_WR)
            sender = Sender(each)
            while sender.hear() is not None:
                pass
            assert sender.acked == {end: 5}
        assert server.stop() == 0
    assert totals(tmp_path) == {"g": 2 * len(plain) + len(stories)}
    assert [each.position for each in rejects(tmp_path)] == [9] * len(plain)
