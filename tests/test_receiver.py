"""`alphabet receive`: whole outputs only, from one connection after another."""

import contextlib
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from alphabet.application import Encoder, Votes
from alphabet.commands.receive import receive
from alphabet.receiving.receiver import FRAME_BYTES_MAX, Receiver

ROOT = Path(__file__).parent.parent
COMMAND = [
    sys.executable,
    "-c",
    "from alphabet.commands.receive import receive; receive(prog_name='alphabet')",
    "--listen",
    "127.0.0.1:0",
]
SECONDS_MAX = 60


def output(number: int) -> bytes:
    """Make an output, 13 bytes."""
    return Encoder().encode(Votes(b"a", number))


def outputs(first: int, last: int) -> bytes:
    """Make outputs from one number to another, inclusive."""
    return b"".join(map(output, range(first, last + 1)))


def lines(first: int, last: int) -> bytes:
    """Make the lines that these outputs are printed as."""
    return b"".join(b"a => %d\n" % number for number in range(first, last + 1))


@attrs.define
class Running:
    """A receiver in a thread, and what it took and said."""

    port: int
    stop: socket.socket
    thread: threading.Thread
    taken: list[bytes] = attrs.field(factory=list)
    said: list[str] = attrs.field(factory=list)

    def connect(self) -> socket.socket:
        """Connect to it, as a server does."""
        return socket.create_connection(("127.0.0.1", self.port), SECONDS_MAX)

    def ended(self) -> bytes:
        """Wait for its end and return what it took."""
        self.thread.join(SECONDS_MAX)
        assert not self.thread.is_alive()
        return b"".join(self.taken)


@contextlib.contextmanager
def running(expect: int | None = None) -> Iterator[Running]:
    """Run a receiver; stop it at the end, if it has not ended."""
    told, teller = socket.socketpair()
    with socket.create_server(("127.0.0.1", 0)) as listener, told, teller:
        taken: list[bytes] = []
        said: list[str] = []
        receiver = Receiver(listener, told, taken.append, said.append, expect)
        thread = threading.Thread(target=receiver.run)
        port = listener.getsockname()[1]
        thread.start()
        found = Running(port, teller, thread, taken, said)
        try:
            yield found
        finally:
            teller.send(b"!")
            found.ended()
        assert receiver.outputs == len(b"".join(taken)) // 13


class TestReceiver:
    """The receiver itself."""

    def test_connections_follow_one_another(self) -> None:
        """Outputs of a server that connects again come after those before."""
        with running(expect=6) as receiver:
            for first in (1, 3, 5):
                with receiver.connect() as server:
                    server.sendall(outputs(first, first + 1))
            assert receiver.ended() == outputs(1, 6)
        assert receiver.said == []

    @given(st.lists(st.integers(1, 30), max_size=6), st.integers(0, 12))
    def test_an_unfinished_output_is_dropped(self, sizes: list[int], part: int) -> None:
        """However it was cut, what is whole is taken once and the rest is not."""
        stream = outputs(1, 5)
        with running(expect=6) as receiver:
            with receiver.connect() as server:
                server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                left = stream + output(6)[:part]
                for size in [*sizes, len(left)]:
                    server.sendall(left[:size])
                    left = left[size:]
            with receiver.connect() as server:
                server.sendall(output(6))
            assert receiver.ended() == outputs(1, 6)
        assert len(receiver.said) == bool(part)
        if part:
            assert f"byte 65: the stream ended after {part} of" in receiver.said[0]

    def test_a_broken_connection_is_said(self) -> None:
        """A reset ends its connection only, with a line, and so does a bad frame."""
        with running(expect=3) as receiver:
            with receiver.connect() as server:
                reset = struct.pack("ii", 1, 0)
                server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
            with receiver.connect() as server:
                length = (FRAME_BYTES_MAX + 1).to_bytes(4, "big")
                server.sendall(output(1) + length + output(9))
                with pytest.raises(ConnectionResetError):
                    server.recv(1)
            with receiver.connect() as server:
                server.sendall(outputs(2, 3))
            assert receiver.ended() == outputs(1, 3)
        broken, bad = receiver.said
        assert broken.startswith("127.0.0.1:")
        assert broken.endswith("the connection broke (Connection reset by peer)")
        assert "byte 13: a payload of 1048577 bytes, where" in bad

    def test_it_takes_no_more_than_it_expects(self) -> None:
        """With more outputs in hand than are expected, it takes as many as are."""
        with running(expect=2) as receiver, receiver.connect() as server:
            server.sendall(outputs(1, 5))
            assert receiver.ended() == outputs(1, 2)

    @pytest.mark.parametrize("connected", [False, True])
    def test_it_can_be_stopped(self, *, connected: bool) -> None:
        """It stops when it is told to, with a connection or without."""
        with running() as receiver, contextlib.ExitStack() as stack:
            if connected:
                stack.enter_context(receiver.connect())
            receiver.stop.send(b"!")
            assert receiver.ended() == b""


@contextlib.contextmanager
def command(*args: str | Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Run the command; give the process and the port that it says it listens on."""
    with subprocess.Popen(
        [*COMMAND, *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT
    ) as process:
        try:
            assert process.stderr
            said = process.stderr.readline().decode()
            assert said.startswith("listening in 127.0.0.1:")
            yield process, int(said.rpartition(":")[2])
        finally:
            process.kill()


def send(port: int, data: bytes) -> None:
    """Send outputs over a connection of their own."""
    with socket.create_connection(("127.0.0.1", port), SECONDS_MAX) as server:
        server.sendall(data)


class TestCommand:
    """The command in a process of its own."""

    def test_totals_are_the_only_results(self) -> None:
        """Standard output has a line for each output, and after the last it ends."""
        with command("--expect", "4") as (process, port):
            send(port, outputs(1, 3) + output(4)[:5])
            send(port, output(4))
            out, err = process.communicate(timeout=SECONDS_MAX)
        assert (process.returncode, out) == (0, lines(1, 4))
        assert b"ended after 5 of a frame's 13 bytes" in err
        assert err.count(b"\n") == 1

    def test_lines_are_printed_at_once(self) -> None:
        """A line can be read while the server goes on."""
        with command() as (process, port):
            send(port, output(1))
            assert process.stdout
            assert process.stdout.readline() == b"a => 1\n"

    def test_frames_are_appended_to_a_file(self, tmp_path: Path) -> None:
        """With `--output` the file grows by whole frames and nothing is printed."""
        file = tmp_path / "outputs"
        file.write_bytes(output(1))
        with command("--expect", "2", "--output", file) as (process, port):
            send(port, output(2) + b"\0\0")
            send(port, output(3) + output(4))
            out, _ = process.communicate(timeout=SECONDS_MAX)
        assert (process.returncode, out) == (0, b"")
        assert file.read_bytes() == outputs(1, 3)

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    @pytest.mark.parametrize(("args", "code"), [([], 0), (["--expect", "2"], 3)])
    def test_a_signal_ends_it(
        self, number: signal.Signals, args: list[str], code: int
    ) -> None:
        """A signal is a clean end, but not if outputs are missing."""
        with command(*args) as (process, port):
            send(port, output(1))
            assert process.stdout
            assert process.stdout.readline() == lines(1, 1)
            process.send_signal(number)
            out, err = process.communicate(timeout=SECONDS_MAX)
        assert (process.returncode, out) == (code, b"")
        assert err == (b"Error: 1 of 2 outputs came\n" if code else b"")

    @pytest.mark.parametrize(("args", "code"), [([], 0), (["--expect", "9"], 3)])
    def test_a_closed_pipe_ends_it(self, args: list[str], code: int) -> None:
        """A reader that goes away, as `head` does, ends it without a traceback."""
        with command(*args) as (process, port):
            assert process.stdout
            process.stdout.close()
            send(port, output(1))
            assert process.stderr
            err = process.stderr.read()
            assert process.wait(SECONDS_MAX) == code
        assert err == (b"Error: 0 of 9 outputs came\n" if code else b"")

    def test_other_outputs_are_said(self) -> None:
        """Frames of another application cannot be printed, and the line says so."""
        with command() as (process, port):
            send(port, b"\0\0\0\1x")
            out, err = process.communicate(timeout=SECONDS_MAX)
        assert (process.returncode, out) == (1, b"")
        assert err.startswith(b"Error: a server sends other outputs than Alphabet's;")

    def test_a_port_in_use_is_said(self) -> None:
        """A port that is taken is an error that says so, with exit code 3."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            address = f"127.0.0.1:{taken.getsockname()[1]}"
            result = CliRunner().invoke(receive, ["--listen", address])
        assert (result.exit_code, result.stdout) == (3, "")
        assert result.stderr.startswith(
            f"Error: cannot listen on {address}: Address already in use; give another"
        )

    def test_a_file_that_cannot_be_opened_is_said(self, tmp_path: Path) -> None:
        """An output file in no directory is an error, with exit code 3."""
        file = tmp_path / "none" / "outputs"
        args = ["--listen", "127.0.0.1:0", "--output", str(file)]
        result = CliRunner().invoke(receive, args)
        assert (result.exit_code, result.stdout) == (3, "")
        assert f"cannot open {file} (No such file or directory)" in result.stderr

    @pytest.mark.parametrize("args", [["--listen", "x"], ["--expect", "0"]])
    def test_bad_options_are_usage(self, args: list[str]) -> None:
        """What makes no sense is refused, with exit code 2."""
        assert CliRunner().invoke(receive, args).exit_code == 2
