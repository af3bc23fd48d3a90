"""Floods on a real server: they cost others little, and nothing good is lost.

Peers misbehave in a process of their own, by the thousand; good votes are sent before,
meanwhile and after, and every one counts. Rates are measured by the benchmark's part
`flood`, not here.
"""

import os
from collections.abc import Callable
from pathlib import Path

from alphabet.trial.flood import raise_file_limit
from bench.misconduct import Conduct, Crowd, Peers, misbehaving, random_bytes
from tests.inspection import rejects, totals, verify
from tests.process import Server, serving, submit, wait_until
from tests.votes import VOTE_BYTES, frame, wire

IS_SOAK = bool(os.environ.get("ALPHABET_SOAK"))
GARBAGE_BYTES = 1 << (30 if IS_SOAK else 26)
SHORT_CONNECTIONS = 100_000 if IS_SOAK else 2000
OWN_BYTES_MAX = 150_000_000
LOG_BYTES_MAX = 16 << 20
"""Ten thousand rejects' rows and a few votes are less."""
VOTES = 2000
GOOD = wire([(b"g", 1)] * VOTES)
BLOCK = 1 << 16

GARBAGE = [
    random_bytes(BLOCK),
    bytes(BLOCK),
    b"\xff" * BLOCK,
    b"GET / HTTP/1.1\r\nHost: example\r\n\r\n" * 1000,
    bytes.fromhex("16030100c8010000c40303") + random_bytes(BLOCK),
    frame(b"abcdef") * 6000,
]
SHORT_ONES = [
    Conduct(64, is_short=True, data=b"\0"),
    Conduct(64, is_short=True, data=b"\0", has_reset=True),
]
TRICKLE = Conduct(1000, bytes(4), piece_bytes=1, pause_seconds=1.0)


def drive(peers: Peers, is_enough: Callable[[], bool]) -> None:
    """Let peers do what they do until it is enough."""

    def is_done() -> bool:
        peers.step()
        return is_enough()

    wait_until(is_done, str(peers.conduct))


def submit_meanwhile(server: Server) -> None:
    """Send good votes over two connections, and have both receipts."""
    for _ in range(2):
        assert submit(server.port, GOOD)


def sent_bytes(crowd: Crowd) -> int:
    """Give how much all peers have sent."""
    return sum(each.sent_bytes for each in crowd.traffic())


def check(place: Path, server: Server, votes: int) -> None:
    """Look at a server's memory, stop it, and look at all that it has left."""
    assert server.anonymous_bytes() < OWN_BYTES_MAX
    assert server.stop() == 0
    assert totals(place) == {"g": votes}
    assert len(rejects(place)) <= 10_000
    assert (place / "data" / "log" / "data.mdb").stat().st_size < LOG_BYTES_MAX
    stamps = [
        entry["timestamp"][:19]
        for entry in server.entries()
        if "rejected" in entry["event"]
    ]
    # A line may be a little late and the next in time, but none is early.
    assert len(stamps) <= 2 * (len(set(stamps)) + 1)
    assert verify(place)["ok"]


class TestConnections:
    """Peers by the thousand."""

    def test_five_thousand_at_once(self, tmp_path: Path) -> None:
        """Five thousand send a vote each and stay, and others are served meanwhile."""
        raise_file_limit()
        conduct = Conduct(5000, wire([(b"g", 1)]))
        with serving(tmp_path) as server, Peers(server.port, conduct) as peers:
            drive(peers, lambda: peers.is_complete)
            drive(peers, lambda: peers.sent_bytes == conduct.peers * VOTE_BYTES)
            submit_meanwhile(server)
            assert peers.cut == 0
            assert server.anonymous_bytes() < OWN_BYTES_MAX
            wait_until(
                lambda: totals(tmp_path) == {"g": conduct.peers + 2 * VOTES},
                "all votes",
            )
        assert peers.connected == conduct.peers

    def test_storms(self, tmp_path: Path) -> None:
        """Peers that come and go, and trickle, take nothing from a good sender."""
        with serving(tmp_path) as server:
            with misbehaving(server.port, *SHORT_ONES, TRICKLE) as crowd:
                submit_meanwhile(server)
                wait_until(
                    lambda: all(
                        each.connected >= SHORT_CONNECTIONS
                        for each in crowd.traffic()[: len(SHORT_ONES)]
                    ),
                    "storms",
                )
                assert submit(server.port, GOOD)
                trickle = crowd.traffic()[-1]
            assert trickle.sent_bytes >= trickle.connected >= TRICKLE.peers
            check(tmp_path, server, 3 * VOTES)

    def test_slow_ones_are_ended(self, tmp_path: Path) -> None:
        """A thousand frames that never end are each ended, and each is a reject."""
        conduct = Conduct(1000, frame(bytes(200)), piece_bytes=1, pause_seconds=0.1)
        options = ("--partial-frame-seconds", 1)
        with (
            serving(tmp_path, *options) as server,
            Peers(server.port, conduct) as peers,
        ):
            drive(peers, lambda: peers.cut >= conduct.peers)
            submit_meanwhile(server)
            assert "was not finished within 1 s" in server.wait_said("finished")
            check(tmp_path, server, 2 * VOTES)
        assert {each.reason for each in rejects(tmp_path)} == {"frame"}


class TestGarbage:
    """Bytes that are no votes."""

    def test_much_of_it(self, tmp_path: Path) -> None:
        """Garbage of all kinds at once leaves memory, log and journal small."""
        conducts = [Conduct(20, data, is_repeated=True) for data in GARBAGE]
        rounds = 0
        with serving(tmp_path) as server:
            with misbehaving(server.port, *conducts) as crowd:

                def is_enough() -> bool:
                    nonlocal rounds
                    submit_meanwhile(server)
                    rounds += 1
                    return sent_bytes(crowd) >= GARBAGE_BYTES

                wait_until(is_enough, "garbage")
                traffic = crowd.traffic()
            assert submit(server.port, GOOD)
            check(tmp_path, server, (2 * rounds + 1) * VOTES)
        assert all(each.sent_bytes >= GARBAGE_BYTES >> 6 for each in traffic)
        found = rejects(tmp_path)
        assert {each.reason for each in found} == {"frame", "decode"}
        assert all(each.peer.startswith("127.0.0.1:") for each in found)
