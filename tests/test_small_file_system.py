"""A real file system that fills up under a server with every kind of peer at once."""

import os
import random
from pathlib import Path

from tests.inspection import last_sequence, points, records, verify
from tests.process import SECONDS_MAX, free_port, serving
from tests.receiving import Receiver
from tests.test_send_connector import ended, sending
from tests.test_signals import ON_A_SMALL_DISK, in_background
from tests.two_phase_sink import Sink
from tests.votes import OUTPUT_BYTES, Vote, make_votes, outputs, tally, wire

RECORD_BYTES = 5
SPARE_BYTES = 200_000
VOTES = make_votes(random.Random(12), 40_000)
STREAMED = make_votes(random.Random(13), 40_000)


def votes_of(data: bytes) -> list[Vote]:
    """Read records back to back as the votes that they are."""
    records_ = [
        data[at : at + RECORD_BYTES] for at in range(0, len(data), RECORD_BYTES)
    ]
    return [(each[:1], int.from_bytes(each[1:])) for each in records_]


def test_it_fills_up_and_is_given_room(tmp_path: Path) -> None:
    """Plain and connector senders, plain and two-phase sinks: each vote once."""
    (tmp_path / "data").mkdir()
    (tmp_path / "votes").write_bytes(wire(STREAMED))
    plain_port, stream_port = free_port(), free_port()
    with Receiver() as receiver, Sink() as sink:
        words = [
            *("--in", f"127.0.0.1:{plain_port}"),
            *("--connector-in", f"127.0.0.1:{stream_port}"),
            *("--out", f"plain@{receiver.address}"),
            *("--connector-out", f"two-phase@{sink.address}"),
            *("--snapshot-every", 1000, "--data-dir", tmp_path / "data"),
        ]
        before = [*ON_A_SMALL_DISK, str(tmp_path / "data")]
        with serving(tmp_path, *words, before=before, is_bare=True) as server:
            seen = Path(f"/proc/{server.pid}/root{tmp_path}")
            disk = os.statvfs(seen / "data")
            filler = seen / "data" / "filler"
            filler.write_bytes(bytes(disk.f_bavail * disk.f_frsize - SPARE_BYTES))
            receipt = in_background(plain_port, wire(VOTES))
            with sending(stream_port, tmp_path / "votes") as sender:
                server.wait_said("no space left on the disk after sequence ")
                assert not receipt.done()
                assert sender.poll() is None
                durable = last_sequence(seen)
                assert receiver.received_bytes <= durable * OUTPUT_BYTES
                assert sum(point.message_id for point in points(seen)) <= durable
                filler.unlink()
                assert receipt.result(SECONDS_MAX)
                assert ended(sender)[0] == 0
            assert verify(seen)["ok"]
            counted = votes_of(records(seen))
            receiver.wait_bytes(len(counted) * OUTPUT_BYTES)
            sink.wait_committed(len(counted) * OUTPUT_BYTES)
            assert server.stop() == 0
        assert len(counted) == len(VOTES) + len(STREAMED)
        assert tally(counted) == tally(VOTES + STREAMED)
        assert receiver.connections == [outputs(counted)]
        assert sink.memory.committed == outputs(counted)
