"""The nine promises of ARCHITECTURE.md, one test each, named after it.

Each is the promise at its smallest; the tests of the parts go further.
"""

import random
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from alphabet.application import Decoder
from alphabet.arrival import Received
from alphabet.journal.journal import Journal
from alphabet.loading import load_machine
from alphabet.outputs import Outputs
from alphabet.pipeline.machine import Capture
from alphabet.sink.feed import Feed
from alphabet.source.connection import RECEIVE_BYTES, Limits, Listener
from alphabet.source.inbox import Inbox
from alphabet.source.plain import Sources
from log.directory import DataDirectory
from log.errors import DamagedError
from log.log import Log, Transaction
from log.memory_store import MemoryDisk, MemoryStore
from log.store import BLOCKS
from recovery.errors import AheadError
from recovery.replay import Replayer
from recovery.snapshot_directory import SnapshotDirectory
from tests.inspection import last_sequence, records, rejects, totals
from tests.process import Server, replay, serving, submit, wait_until
from tests.receiving import Receiver
from tests.samples import META, chain
from tests.votes import (
    OUTPUT_BYTES,
    VOTE_BYTES,
    Vote,
    frame,
    make_votes,
    outputs,
    payloads,
    tally,
    trace,
    wire,
)

VOTES = make_votes(random.Random(9), 1000)
FILE_BYTES_MAX = 1 << 17
IN_SMALL_FILES = [
    sys.executable,
    "-c",
    f"""import os, resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, ({FILE_BYTES_MAX}, -1))
os.execv(sys.argv[1], sys.argv[1:])""",
]


def lots(votes: list[Vote], size: int) -> Iterator[list[Vote]]:
    """Cut votes into lots."""
    return (votes[start : start + size] for start in range(0, len(votes), size))


def snapshots(place: Path) -> list[int]:
    """Give the sequences of a server's snapshots, newest first."""
    return SnapshotDirectory(place / "data" / "snapshots").sequences()


def submit_all(server: Server, votes: list[Vote], size: int) -> int:
    """Send votes in lots until one has no receipt; give how many have theirs."""
    acknowledged = 0
    for lot in lots(votes, size):
        try:
            is_received = submit(server.port, wire(lot))
        except ConnectionRefusedError:
            is_received = False
        if not is_received:
            break
        acknowledged += len(lot)
    return acknowledged


def send_for_long(sender: socket.socket, data: bytes) -> None:
    """Send data again and again, 256 MiB in all, as long as they are taken."""
    sent_bytes = 0
    while sent_bytes < 1 << 28:
        sent_bytes += sender.send(data)


def test_promise_1_nothing_acknowledged_is_lost(tmp_path: Path) -> None:
    """What had its receipt, or left as an output, is there after a kill."""
    killed_in_a_commit = {"ALPHABET_FAILPOINT": "commit.before_flush:7"}
    with (
        Receiver() as receiver,
        serving(
            tmp_path, "--out", receiver.address, variables=killed_in_a_commit
        ) as server,
    ):
        acknowledged = submit_all(server, VOTES, 10)
        assert server.wait() == -signal.SIGKILL
        receiver.wait_hung_up()
    assert 0 < acknowledged < len(VOTES)
    sent = receiver.received_bytes // OUTPUT_BYTES
    recovered = records(tmp_path)
    assert recovered.startswith(payloads(VOTES[: max(acknowledged, sent)]))
    assert payloads(VOTES).startswith(recovered)


def test_promise_2_state_is_a_function_of_the_log(tmp_path: Path) -> None:
    """Snapshot and rest of the log, the whole log, and the live state are equal."""
    with serving(tmp_path, "--snapshot-every", 100) as server:
        submit_all(server, VOTES[:500], 50)
        wait_until(lambda: snapshots(tmp_path), "a snapshot")
        submit_all(server, VOTES[500:], 500)
        server.kill()
    directory = DataDirectory(tmp_path / "data")
    log = directory.open_log(is_read_only=True)
    replayer = Replayer(log, SnapshotDirectory(directory.snapshots_path))
    shorter, whole = load_machine(None, []), load_machine(None, [])
    assert replayer.recover(shorter).start > 0
    replayer.begin_at_base(whole)
    replayer.replay(whole, 0, log.tail.sequence)
    log.close()
    assert shorter.dump() == whole.dump()
    assert totals(tmp_path) == tally(VOTES)


@pytest.mark.parametrize("fault", ["missing", "doubled", "swapped", "damaged"])
def test_promise_3_no_gaps(fault: str) -> None:
    """A block that is missing, doubled, swapped or damaged is named, never passed."""
    disk = MemoryDisk()
    log = Log.create(MemoryStore(disk), META)
    log.commit(Transaction(tuple(chain([b"aaaaa"], [b"bbbbb"], [b"ccccc"]))))
    blocks = disk.tables[BLOCKS]
    first, second, third = blocks
    match fault:
        case "missing":
            del blocks[second]
        case "doubled":
            blocks[second] = blocks[first]
        case "swapped":
            blocks[second], blocks[third] = blocks[third], blocks[second]
        case _:
            blocks[second] = blocks[second].replace(b"bbbbb", b"xxxxx")
    with pytest.raises(DamagedError) as raised:
        list(log.read(0))
    assert raised.value.sequence == 2


def test_promise_3_a_lost_tail_is_noticed_by_a_snapshot(tmp_path: Path) -> None:
    """A log that ends before its newest snapshot is refused, with both sequences."""
    with serving(tmp_path) as server:
        submit_all(server, VOTES[:10], 10)
        assert server.stop() == 0
    log = DataDirectory(tmp_path / "data").open_log(is_read_only=True)
    shorter = Log.create(MemoryStore(), log.meta)
    log.close()
    replayer = Replayer(shorter, SnapshotDirectory(tmp_path / "data" / "snapshots"))
    with pytest.raises(AheadError) as raised:
        replayer.recover(load_machine(None, []))
    assert (raised.value.sequence, raised.value.last_sequence) == (10, 0)


def test_promise_4_replay_is_bounded(tmp_path: Path) -> None:
    """A restart replays what follows the newest snapshot, and no more."""
    with serving(tmp_path, "--snapshot-every", 100) as server:
        submit_all(server, VOTES, 50)
        wait_until(lambda: snapshots(tmp_path), "a snapshot")
        server.kill()
    rest = last_sequence(tmp_path) - snapshots(tmp_path)[0]
    assert rest < len(VOTES)
    with serving(tmp_path) as server:
        line = f"RESILIENCE: Replayed {rest} entries from recovery log file."
        assert line in server.lines()


def test_promise_5_outputs_go_out_in_log_order_at_least_once(tmp_path: Path) -> None:
    """Across a receiver's death and a server's, no output is skipped or disordered."""
    expected = outputs(VOTES)
    half = VOTES[:500]
    with Receiver() as receiver:
        with serving(tmp_path, "--out", receiver.address) as server:
            submit_all(server, half[:250], 50)
            receiver.wait_bytes(250 * OUTPUT_BYTES)
            receiver.leave(with_reset=True)
            submit_all(server, half[250:], 50)
            receiver.come_back()
            wait_until(
                lambda: (
                    receiver.connections[-1].endswith(outputs(half)[-OUTPUT_BYTES:])
                    and len(receiver.connections) > 1
                ),
                "the first half's last output",
            )
            server.kill()
            receiver.wait_hung_up()
        with serving(tmp_path, "--out", receiver.address) as server:
            submit_all(server, VOTES[500:], 50)
            assert server.stop() == 0
            receiver.wait_hung_up()
    reached = trace(list(map(bytes, receiver.connections)), expected)
    assert reached[-1].stop == len(VOTES)


def test_promise_6_memory_is_bounded_before_the_engine() -> None:
    """Nobody takes from the inbox: the sources stop reading, and the sender waits."""
    inbox = Inbox(bytes_max=1 << 13)
    journal = Journal.open(sys.stderr, "json")
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as sender,
    ):
        listener.settimeout(0)
        sources = Sources([Listener(listener, 0, Decoder())], inbox, Limits(), journal)
        thread = threading.Thread(target=sources.reception.run)
        thread.start()
        try:
            sender.settimeout(0)
            flood = wire([(b"a", 1)] * 10_000)
            with pytest.raises(BlockingIOError):
                send_for_long(sender, flood)
            wait_until(lambda: inbox.is_full, "a full inbox")
        finally:
            sources.reception.end()
            thread.join()
            sources.reception.waker.close()
            journal.close()
    taken = inbox.take(1 << 30)
    held = sum(
        VOTE_BYTES * each.frames.count for each in taken if isinstance(each, Received)
    )
    assert held <= inbox.bytes_max + RECEIVE_BYTES


def test_promise_6_memory_is_bounded_behind_the_engine() -> None:
    """A sink that takes nothing is let go, and what comes then is not kept for it."""
    feed = Feed(0, window_bytes_max=1000)
    assert feed.attach(0)
    sequence = 0
    while feed.has_room():
        assert sequence < 20
        feed.push([Outputs(sequence + 1, bytes(100), [100])], sequence + 1)
        sequence += 1
    feed.let_go(Capture(sequence, ()))
    for later in range(sequence + 1, sequence + 1000):
        feed.push([Outputs(later, bytes(100), [100])], later)
    given = iter(feed.pop, None)
    kept = [each for each in given if isinstance(each, Outputs)]
    assert sum(len(each.data) for each in kept) <= 1000 + 100
    assert not feed.attach(sequence)


def test_promise_7_bad_input_harms_only_itself(tmp_path: Path) -> None:
    """Good votes before and after bad ones count; the bad are kept with a place."""
    good, later = VOTES[:3], VOTES[3:6]
    bad = wire(good) + frame(b"no vote") + wire(good)
    with serving(tmp_path) as server:
        assert submit(server.port, bad)
        too_long = wire(good) + b"\xff\xff\xff\xff" + wire(good)
        assert not submit(server.port, too_long)
        assert submit(server.port, wire(later))
        assert server.stop() == 0
    assert totals(tmp_path) == tally([*good, *good, *good, *later])
    found = [(each.reason, each.position) for each in rejects(tmp_path)]
    assert found == [("decode", 27), ("frame", 27)]
    assert all(each.peer.startswith("127.0.0.1:") for each in rejects(tmp_path))


def test_promise_8_a_log_is_never_rewritten(tmp_path: Path) -> None:
    """Recovery tools leave every byte, and a later server every older record."""
    with serving(tmp_path) as server:
        submit_all(server, VOTES[:500], 50)
        assert server.stop() == 0

    def files() -> dict[Path, bytes]:
        data = (tmp_path / "data").rglob("*")
        return {
            file: file.read_bytes()
            for file in data
            if file.is_file() and file.name != "lock.mdb"
        }

    before, old = files(), records(tmp_path)
    for words in (("state",), ("info",), ("verify",)):
        assert replay(*words, tmp_path / "data").code == 0
    assert replay("compact", tmp_path / "data", tmp_path / "new").code == 0
    assert files() == before
    with serving(tmp_path) as server:
        submit_all(server, VOTES[500:], 50)
        assert server.stop() == 0
    assert records(tmp_path) == old + payloads(VOTES[500:])


def test_promise_9_failure_is_loud(tmp_path: Path) -> None:
    """A commit that fails ends the server with exit code 4 and a line; none is lost."""
    votes = VOTES * 100
    with serving(tmp_path, before=IN_SMALL_FILES) as server:
        acknowledged = submit_all(server, votes, 1000)
        assert server.wait() == 4
        assert "the commit after sequence" in server.said()[-1]
    assert 0 < acknowledged < len(votes)
    with serving(tmp_path) as server:
        assert submit(server.port, b"")
    recovered = records(tmp_path)
    assert recovered.startswith(payloads(votes[:acknowledged]))
    assert payloads(votes).startswith(recovered)
