"""Processes that stand still for a while (SIGSTOP) and go on: nothing is lost."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from tests.inspection import last_sequence, records
from tests.process import (
    ANY,
    PYTHON,
    ROOT,
    SECONDS_MAX,
    environment,
    serving,
    state_of,
    submit,
    wait_until,
)
from tests.receiving import Receiver
from tests.test_signals import VOTES, in_background
from tests.votes import outputs, payloads, wire

MANY = VOTES * 100
HALF_A_FRAME = """
import os, signal, socket, sys
sender = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
sender.sendall(bytes.fromhex(sys.argv[2]))
os.kill(os.getpid(), signal.SIGSTOP)
sys.exit(0 if sender.recv(1) else 1)
"""


@contextlib.contextmanager
def frozen(pid: int) -> Iterator[None]:
    """Stop a process, and let it go on when the block ends."""
    os.kill(pid, signal.SIGSTOP)
    try:
        wait_until(lambda: state_of(pid) == "T", "a process that stands still")
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@contextlib.contextmanager
def receiver_process(place: Path) -> Iterator[tuple[int, str]]:
    """Run `alphabet receive` into `place / "out"`; give its pid and its address."""
    said = place / "receiver.said"
    words = ["receive", "--listen", ANY, "--output", place / "out"]
    with said.open("wb") as stream:
        process = subprocess.Popen(
            [*PYTHON, "alphabet.cli", *map(str, words)],
            cwd=ROOT,
            env=environment({}),
            stderr=stream,
        )
    try:
        wait_until(lambda: "listening" in said.read_text(), "a receiver")
        address = said.read_text().split("127.0.0.1:")[1].split()[0].strip('",.;')
        yield process.pid, f"127.0.0.1:{address}"
    finally:
        process.kill()
        process.wait(SECONDS_MAX)


def test_a_server_under_load(tmp_path: Path) -> None:
    """Senders wait, one that came meanwhile too, and all outputs come in order."""
    is_over = threading.Event()
    with (
        Receiver() as receiver,
        serving(tmp_path, "--out", receiver.address) as server,
    ):
        sender = in_background(server.port, wire(MANY), is_over)
        wait_until(lambda: last_sequence(tmp_path), "the load")
        with frozen(server.pid):
            is_over.set()
            late = in_background(server.port, wire(VOTES))
            assert not sender.done()
        assert sender.result(SECONDS_MAX)
        assert late.result(SECONDS_MAX)
        receiver.wait_bytes(len(outputs(MANY + VOTES)))
        assert server.stop() == 0
    assert sorted(records(tmp_path)) == sorted(payloads(MANY + VOTES))
    assert len(receiver.connections) == 1


def test_a_receiver(tmp_path: Path) -> None:
    """Counting goes on; when the receiver does, it has every output once."""
    with (
        receiver_process(tmp_path) as (pid, address),
        serving(tmp_path, "--out", address) as server,
    ):
        with frozen(pid):
            assert submit(server.port, wire(MANY))
        expected = outputs(MANY)
        out = tmp_path / "out"
        wait_until(lambda: out.stat().st_size >= len(expected), "every output")
        assert server.stop() == 0
        assert out.read_bytes() == expected


def test_a_sender_in_mid_frame(tmp_path: Path) -> None:
    """Its connection ends when the frame's time is over; what was whole counts."""
    data = wire(VOTES)[:-1]
    with serving(tmp_path, "--partial-frame-seconds", 0.1) as server:
        command = [sys.executable, "-S", "-c", HALF_A_FRAME]
        sender = subprocess.Popen(
            [*command, str(server.port), data.hex()], stderr=subprocess.PIPE
        )
        try:
            wait_until(lambda: state_of(sender.pid) == "T", "a sender that stands")
            server.wait_said("its frame was not finished within 0.1 s")
            assert submit(server.port, wire(VOTES[-1:]))
            sender.send_signal(signal.SIGCONT)
            _, said = sender.communicate(timeout=SECONDS_MAX)
        finally:
            sender.kill()
            sender.wait()
        assert b"ConnectionResetError" in said
        assert server.stop() == 0
    assert records(tmp_path) == payloads(VOTES)
