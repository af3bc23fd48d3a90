"""What is measured: throughput, a lone vote's round trip, a bare commit, restarts.

Each function is one run, in a directory of its own.
"""

import shutil
import socket
import struct
import time
from pathlib import Path

import attrs
import lmdb

from alphabet.children import Children
from bench.load import OUTPUT_BYTES, Load, helper
from bench.server import Server, describe_log, served_with_sink

SAMPLE_SECONDS = 0.02
BARE_BLOCK_BYTES = 65
"""The size of a block with one vote in it."""

_VOTE = struct.pack(">IsI", 5, b"a", 1)


@attrs.frozen
class Throughput:
    """One flood: from the first vote sent to the last output received."""

    votes_per_second: float
    bytes_per_vote: float
    idle_bytes: int
    loaded_bytes: int


def measure_throughput(directory: Path, load: Load) -> Throughput:
    """Flood a new server over one connection; every output is compared."""
    expected = load.outputs()
    received = bytearray(len(expected))
    data_dir = directory / "data"
    with Children(directory) as children:
        with served_with_sink(children, data_dir) as (server, sink):
            idle_bytes = server.anonymous_bytes()
            with helper(load, server.port) as sender:
                began = time.perf_counter()
                sender.go()
                loaded_bytes = receive(sink, received, server)
                seconds = time.perf_counter() - began
                sender.await_receipt()
            check_outputs(received, expected)
        log = describe_log(children, data_dir)
    votes = load.votes * load.repeat
    return Throughput(
        votes / seconds, log["bytes"] / log["events"], idle_bytes, loaded_bytes
    )


def receive(sink: socket.socket, received: bytearray, server: Server) -> int:
    """Fill `received` from a sink; give the most memory that the server had."""
    view = memoryview(received)
    most_bytes = 0
    sample_at = 0.0
    while view:
        size = sink.recv_into(view)
        if not size:
            raise RuntimeError(f"the outputs ended {len(view)} bytes too early")
        view = view[size:]
        if time.perf_counter() >= sample_at:
            most_bytes = max(most_bytes, server.anonymous_bytes())
            sample_at = time.perf_counter() + SAMPLE_SECONDS
    return most_bytes


def check_outputs(received: bytes | bytearray, expected: bytes) -> None:
    """Raise unless all outputs are the expected ones."""
    if received == expected:
        return
    wrong = next(
        start
        for start in range(0, len(expected), OUTPUT_BYTES)
        if received[start : start + OUTPUT_BYTES]
        != expected[start : start + OUTPUT_BYTES]
    )
    raise RuntimeError(f"output {wrong // OUTPUT_BYTES + 1} is not what it must be")


def measure_round_trips(directory: Path, count: int) -> list[float]:
    """Send lone votes, each once the last one's output has come; give seconds."""
    samples = []
    with (
        Children(directory) as children,
        served_with_sink(children, directory / "data") as (server, sink),
        socket.create_connection(("127.0.0.1", server.port)) as sender,
    ):
        sender.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for total in range(1, count + 1):
            began = time.perf_counter()
            sender.sendall(_VOTE)
            output = sink.recv(OUTPUT_BYTES, socket.MSG_WAITALL)
            samples.append(time.perf_counter() - began)
            check_outputs(output, struct.pack(">IsQ", 9, b"a", total))
    return samples


def measure_bare_commits(directory: Path, count: int) -> list[float]:
    """Commit a row of a block's size with LMDB alone; give seconds."""
    samples = []
    value = bytes(BARE_BLOCK_BYTES)
    with lmdb.open(str(directory / "bare"), map_size=1 << 30, lib_version=0) as bare:
        for number in range(count):
            began = time.perf_counter()
            with bare.begin(write=True) as transaction:
                transaction.put(number.to_bytes(8), value, append=True)
            samples.append(time.perf_counter() - began)
    return samples


def fill(directory: Path, load: Load) -> Path:
    """Make a log with all of a load's votes; it has a snapshot at its end."""
    data_dir = directory / "filled"
    with Children(directory) as children:
        server = Server.start(children, data_dir)
        with helper(load, server.port) as sender:
            sender.go()
            sender.await_receipt()
        server.stop()
    return data_dir


def measure_restart(directory: Path, data_dir: Path) -> tuple[float, int]:
    """Start a server on a log and kill it: (seconds to ready, events replayed)."""
    with Children(directory) as children:
        server = Server.start(children, data_dir)
        server.kill()
        return server.start_seconds, server.replayed


def forget_snapshots(data_dir: Path) -> None:
    """Leave a server nothing but the log."""
    shutil.rmtree(data_dir / "snapshots")
