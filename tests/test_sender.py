"""`alphabet send`: what goes out, at what pace, and what is said about how it ended."""

import contextlib
import io
import os
import pty
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from alphabet.commands.send import send
from alphabet.framing import encode_frame
from alphabet.sending.sender import NoReceiptError, Sender, ServerTarget, StreamTarget
from alphabet.sending.vote_input import Chunk

ROOT = Path(__file__).parent.parent
COMMAND = [
    sys.executable,
    "-c",
    "from alphabet.commands.send import send; send(prog_name='alphabet send')",
]
VOTE = encode_frame(b"a\0\0\0\7")
SECONDS_MAX = 60

NOT_KNOWN = (
    "and how many are durable is not known: `alphabet-replay info DATA_DIR` tells what"
    " the log holds, and --skip leaves that out"
)


@attrs.define
class Server:
    """What a server that accepts one connection was sent."""

    address: str
    received: bytes = b""
    over: threading.Event = attrs.field(factory=threading.Event)


Behaviour = Callable[[socket.socket, Server], None]


@contextlib.contextmanager
def served(behave: Behaviour) -> Iterator[Server]:
    """Accept one connection, in a thread, and behave in some way until it is over."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = Server(f"127.0.0.1:{listener.getsockname()[1]}")

        def run() -> None:
            connection, _ = listener.accept()
            with connection:
                behave(connection, server)

        thread = threading.Thread(target=run)
        thread.start()
        yield server
        server.over.set()
        thread.join(SECONDS_MAX)
        assert not thread.is_alive()


def receive(connection: socket.socket, server: Server, size: int) -> None:
    """Take so many bytes, or all until the sender's end."""
    while len(server.received) < size and (
        data := connection.recv(min(size - len(server.received), 1 << 18))
    ):
        server.received += data


def give_receipt(connection: socket.socket, server: Server) -> None:
    """Take everything and close: all is durable."""
    receive(connection, server, 1 << 40)


def reset(connection: socket.socket, server: Server) -> None:
    """Take a vote, then break the connection."""
    receive(connection, server, 9)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def close_early(connection: socket.socket, server: Server) -> None:
    """Take a vote, then close before the sender's end."""
    receive(connection, server, 9)


def answer(connection: socket.socket, server: Server) -> None:
    """Take a vote, and speak, as no Alphabet server does."""
    receive(connection, server, 9)
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    assert server.over.wait(SECONDS_MAX)


def keep_silent(connection: socket.socket, server: Server) -> None:
    """Take everything and never close."""
    receive(connection, server, 1 << 40)
    assert server.over.wait(SECONDS_MAX)


def take_nothing(_connection: socket.socket, server: Server) -> None:
    """Neither read nor close."""
    assert server.over.wait(SECONDS_MAX)


def run_send(*args: str | Path) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(send, [str(arg) for arg in args])


def run_process(*args: str | Path, text: bytes = b"") -> tuple[int, bytes, str]:
    """Run the command in a process of its own; return exit code, stdout, stderr."""
    ran = subprocess.run(
        [*COMMAND, *args],
        input=text,
        capture_output=True,
        check=False,
        cwd=ROOT,
        timeout=SECONDS_MAX,
    )
    return ran.returncode, ran.stdout, ran.stderr.decode()


class TestReceipt:
    """What is said once all is sent."""

    def test_a_close_after_the_end_says_durable(self, tmp_path: Path) -> None:
        """The server has every byte of the file, and the command says so."""
        file = tmp_path / "votes.bin"
        file.write_bytes(VOTE * 100_000)
        with served(give_receipt) as server:
            result = run_send(file, "--to", server.address)
        assert server.received == VOTE * 100_000
        assert result.stdout == "sent 100000 votes, all durable\n"
        assert (result.exit_code, result.stderr) == (0, "")

    def test_no_votes_are_durable_too(self, tmp_path: Path) -> None:
        """An empty file is sent, and the server has nothing."""
        (tmp_path / "none").touch()
        with served(give_receipt) as server:
            result = run_send(tmp_path / "none", "--to", server.address)
        assert (result.exit_code, server.received) == (0, b"")
        assert result.stdout == "sent 0 votes, all durable\n"

    def test_one_vote_is_one(self, tmp_path: Path) -> None:
        """A single vote is told of as one."""
        (tmp_path / "one").write_bytes(VOTE)
        with served(give_receipt) as server:
            result = run_send(tmp_path / "one", "--to", server.address)
        assert (result.exit_code, server.received) == (0, VOTE)
        assert result.stdout == "sent 1 vote, durable\n"

    @pytest.mark.parametrize(
        ("behave", "cause"),
        [
            (reset, "is gone (Connection reset by peer)"),
            (close_early, "closed the connection before its end"),
            (answer, "answered as no --in does (a --connector-in needs --connector)"),
        ],
    )
    def test_anything_else_is_noticed_while_waiting(
        self, behave: Behaviour, cause: str
    ) -> None:
        """A server that ends it early is noticed before the next vote is due."""
        pace = ["--random", "--messages", "2", "--rate", "0.001"]
        with served(behave) as server:
            result = run_send(*pace, "--to", server.address)
        assert (result.exit_code, result.stdout) == (3, "")
        assert result.stderr == (
            f"Error: {server.address} {cause} after 1 vote was sent, {NOT_KNOWN}\n"
        )

    def test_a_reset_is_noticed_while_sending(self, tmp_path: Path) -> None:
        """A server that goes away under load is noticed, whatever is yet to be sent."""
        file = tmp_path / "votes.bin"
        file.write_bytes(VOTE * 1_000_000)
        with served(reset) as server:
            result = run_send(file, "--to", server.address, "--repeat", "9")
        assert (result.exit_code, result.stdout) == (3, "")
        assert result.stderr.startswith(f"Error: {server.address} is gone (")
        sent = int(result.stderr.partition(" after ")[2].partition(" votes")[0])
        assert 1 <= sent < 9_000_000

    def test_a_missing_receipt_is_not_awaited_for_ever(self) -> None:
        """A server that never closes leaves the votes' standing unknown."""
        with served(keep_silent) as server:
            result = run_send(
                *("--random", "--messages", "5"),
                *("--to", server.address, "--silence-seconds", "0.1"),
            )
        assert (result.exit_code, result.stdout, len(server.received)) == (3, "", 45)
        assert "gave no receipt for 0.1 seconds after 5 votes" in result.stderr

    def test_a_server_that_takes_nothing_is_given_up(self) -> None:
        """A server that stops reading is given up, and only whole votes are counted."""
        with served(take_nothing) as server:
            result = run_send(
                *("--random", "--messages", "3000000"),
                *("--to", server.address, "--silence-seconds", "0.1"),
            )
        assert (result.exit_code, result.stdout) == (3, "")
        assert "took nothing for 0.1 seconds after" in result.stderr

    def test_no_server_is_said_so(self) -> None:
        """A server that cannot be reached was sent nothing."""
        with socket.socket() as bound:
            bound.bind(("127.0.0.1", 0))
            to = f"127.0.0.1:{bound.getsockname()[1]}"
            result = run_send("--random", "--messages", "1", "--to", to)
        assert (result.exit_code, result.stdout) == (3, "")
        assert result.stderr == (
            f"Error: cannot reach {to} (Connection refused), nothing was sent;"
            " is `alphabet run` listening there?\n"
        )


class TestInput:
    """What is read."""

    def test_lines_are_sent_as_frames(self, tmp_path: Path) -> None:
        """A file of lines arrives as votes."""
        (tmp_path / "votes").write_text("# so far\na 7\n\\x61 7\n")
        with served(give_receipt) as server:
            result = run_send(
                tmp_path / "votes", "--format", "lines", "--to", server.address
            )
        assert (server.received, result.exit_code) == (VOTE * 2, 0)

    @pytest.mark.parametrize(
        ("format_", "text", "place"),
        [
            ("wire", VOTE * 3 + VOTE[:5], "byte 27: the stream ended after 5 of a"),
            ("wire", VOTE * 3 + b"\xff" * 9, "byte 27: a payload of 4294967295 bytes"),
            ("lines", b"a 7\na 7\na 7\nx y z\na 7", "line 4: 'x y z' is not LETTER"),
        ],
    )
    def test_a_bad_place_ends_it(
        self, tmp_path: Path, format_: str, text: bytes, place: str
    ) -> None:
        """The votes before a bad place are durable, nothing after it is sent."""
        file = tmp_path / "votes"
        file.write_bytes(text)
        to = ["--format", format_, "--skip", "1", "--to"]
        with served(give_receipt) as server:
            result = run_send(file, *to, server.address)
        assert server.received == VOTE * 2
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr.startswith(f"Error: {file}: {place}")
        assert result.stderr.endswith(
            "; what was sent before that is durable: mend it, then go on with"
            " --skip 3\n"
        )

    def test_a_bad_place_and_no_receipt(self, tmp_path: Path) -> None:
        """If the votes before a bad place may be lost, both are said, and it is a 3."""
        file = tmp_path / "votes"
        file.write_bytes(VOTE + b"\0")
        with served(keep_silent) as server:
            to = ["--to", server.address, "--silence-seconds", "0.1"]
            result = run_send(file, *to)
        assert result.exit_code == 3
        assert result.stderr.startswith(f"Error: {file}: byte 9: the stream ended")
        assert f"; {server.address} gave no receipt for 0.1 s" in result.stderr

    def test_nothing_good_is_nothing_sent(self, tmp_path: Path) -> None:
        """A file that is bad from the start leaves nothing to go on with."""
        (tmp_path / "votes").write_text("a 7\n")
        with served(give_receipt) as server:
            result = run_send(tmp_path / "votes", "--to", server.address)
        assert (result.exit_code, server.received) == (1, b"")
        assert result.stderr.endswith("see --format lines; nothing was sent\n")

    @pytest.mark.parametrize(
        ("options", "votes"),
        [
            (["--messages", "5"], slice(0, 5)),
            (["--skip", "40000"], slice(40_000, None)),
            (["--skip", "29127"], slice(29_127, None)),
            (["--skip", "39998", "--messages", "40001"], slice(39_998, 40_001)),
            (["--skip", "3", "--messages", "3"], slice(0, 0)),
        ],
    )
    def test_part_of_a_file(
        self, tmp_path: Path, options: list[str], votes: slice
    ) -> None:
        """`--messages` cuts the input, and `--skip` leaves out its beginning."""
        frames = [encode_frame(struct.pack(">sI", b"a", n)) for n in range(50_000)]
        (tmp_path / "votes").write_bytes(b"".join(frames))
        with served(give_receipt) as server:
            result = run_send(tmp_path / "votes", *options, "--to", server.address)
        assert result.exit_code == 0
        assert server.received == b"".join(frames[votes])

    def test_a_file_is_repeated_whole(self, tmp_path: Path) -> None:
        """`--skip` and `--messages` count through all the repetitions."""
        frames = [encode_frame(bytes([0, 0, 0, 0, n])) for n in range(3)]
        (tmp_path / "votes").write_bytes(b"".join(frames))
        options = ["--repeat", "3", "--skip", "2", "--messages", "8"]
        with served(give_receipt) as server:
            run_send(tmp_path / "votes", *options, "--to", server.address)
        assert server.received == b"".join((frames * 3)[2:8])

    def test_going_on_adds_up(self) -> None:
        """A command that is run again with `--skip` sends exactly what is left."""
        options = ["--random", "--seed", "7", "--messages", "40000", "--skip"]
        parts = []
        for skip in ("0", "30000"):
            with served(give_receipt) as server:
                result = run_send(*options, skip, "--to", server.address)
            assert result.exit_code == 0
            parts.append(server.received)
        assert parts[1] == parts[0][30_000 * 9 :]
        assert len(parts[1]) == 10_000 * 9

    def test_skipping_past_the_end_is_said(self, tmp_path: Path) -> None:
        """An input that has fewer votes than are to be skipped is the wrong one."""
        (tmp_path / "votes").write_bytes(VOTE)
        with served(give_receipt) as server:
            result = run_send(tmp_path / "votes", "--skip", "2", "--to", server.address)
        assert result.exit_code == 1
        assert "vote 1: it is the last, and 2 were to be skipped" in result.stderr

    @pytest.mark.parametrize(
        "args",
        [
            [],
            ["--random"],
            ["--random", "-", "--messages", "1"],
            ["no-such-file"],
            ["."],
            ["-", "--repeat", "2"],
            ["--random", "--messages", "1", "--repeat", "2"],
            ["--random", "--messages", "1", "--rate", "0"],
            ["--random", "--messages", "-1"],
            ["--random", "--messages", "1", "--to", "nowhere"],
            ["-", "--format", "json"],
        ],
    )
    def test_bad_options_are_usage(self, args: list[str]) -> None:
        """What makes no sense is refused before anything is done, with exit code 2."""
        assert run_send(*args).exit_code == 2

    def test_options_are_in_the_environment(self) -> None:
        """An option's variable has no command's name in it."""
        with served(give_receipt) as server:
            result = CliRunner().invoke(
                send,
                ["--random"],
                env={"ALPHABET_MESSAGES": "2", "ALPHABET_TO": server.address},
            )
        assert (result.exit_code, len(server.received)) == (0, 18)


@attrs.define
class ClockTarget:
    """A target that notes when it was written to; its clock moves only in waits."""

    seconds: float = 100.0
    writes: list[tuple[float, int]] = attrs.field(factory=list)
    sent_bytes: int = 0

    def clock(self) -> float:
        """Tell the time."""
        return self.seconds

    def write(self, data: bytes) -> None:
        """Note a write; it takes a millisecond."""
        self.writes.append((self.seconds - 100, len(data) // 9))
        self.sent_bytes += len(data)
        self.seconds += 0.001

    def wait(self, seconds: float) -> None:
        """Move the clock, and a wait may end early."""
        self.seconds += max(seconds / 2, 1e-6)

    def await_input(self, fileno: int) -> None:
        """Return at once."""

    def finish(self) -> bool:
        """Give no receipt."""
        return False


class TestPace:
    """How fast votes go."""

    @given(st.integers(1, 2_000_000), st.integers(1, 40))
    def test_no_vote_is_early(self, rate: int, chunks: int) -> None:
        """At any time no more votes went than the pace allows, but for one chunk."""
        target = ClockTarget()
        sender = Sender(target, rate, target.clock)
        size = sender.chunk_votes_max
        for _ in range(chunks):
            sender.send(Chunk(VOTE * size, size))
        assert len(target.writes) == chunks
        for number, (seconds, votes) in enumerate(target.writes):
            assert votes == size
            assert number * size <= seconds * rate * (1 + 1e-9) + 1e-6

    @pytest.mark.parametrize(
        ("rate", "size"), [(0.5, 1), (10, 1), (100, 5), (1e9, 29_127), (None, 29_127)]
    )
    def test_a_chunk_is_a_twentieth_of_a_second(
        self, rate: float | None, size: int
    ) -> None:
        """Chunks are small enough for a steady pace, and hold a vote at least."""
        assert Sender(ClockTarget(), rate).chunk_votes_max == size

    def test_no_pace_is_no_wait(self) -> None:
        """Without a pace nothing waits."""
        target = ClockTarget()
        sender = Sender(target, None, target.clock)
        for _ in range(3):
            sender.send(Chunk(VOTE * 1000, 1000))
        assert [round(seconds, 6) for seconds, _ in target.writes] == [0, 0.001, 0.002]
        assert sender.votes_sent == 3000


class TestStandardStreams:
    """Pipes and terminals."""

    def test_frames_go_to_standard_output(self) -> None:
        """`--to -` writes the wire format and nothing else."""
        args = ("--to", "-", "-", "--format", "lines")
        assert run_process(*args, text=b"a 7\na 7") == (0, VOTE * 2, "")

    def test_a_bad_line_is_named(self) -> None:
        """What comes from standard input is called so, and what went is written."""
        code, out, err = run_process("--to", "-", "-", text=VOTE + b"\0\0")
        assert (code, out) == (1, VOTE)
        assert err == (
            "Error: standard input: byte 9: the stream ended after 2 of a header's 4"
            " bytes; what was sent before that is written: mend it, then go on with"
            " --skip 1\n"
        )

    def test_a_closed_pipe_leaves_no_traceback(self) -> None:
        """A reader that goes away, as `head` does, is told in one line."""
        args = [*COMMAND, "--random", "--messages", "1000000", "--to", "-"]
        with subprocess.Popen(
            args, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT
        ) as process:
            assert process.stdout
            assert process.stderr
            assert len(process.stdout.read(10)) == 10
            process.stdout.close()
            err = process.stderr.read().decode()
        assert process.returncode == 3
        assert err.startswith("Error: standard output is gone (Broken pipe) after ")
        assert err.count("\n") == 1

    @pytest.mark.parametrize(
        ("behave", "said"),
        [(close_early, "closed the connection before"), (keep_silent, "was stopped")],
    )
    def test_the_server_is_watched_while_nothing_is_read(
        self, behave: Behaviour, said: str
    ) -> None:
        """With an idle standard input, a close and SIGINT are noticed all the same."""
        with (
            served(behave) as server,
            subprocess.Popen(
                [*COMMAND, "-", "--to", server.address],
                stdin=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=ROOT,
            ) as process,
        ):
            assert process.stdin
            assert process.stderr
            process.stdin.write(VOTE + VOTE[:4])
            process.stdin.flush()
            if behave is keep_silent:
                while len(server.received) < 9:
                    assert process.poll() is None
                    server.over.wait(0.01)
                process.send_signal(signal.SIGINT)
            err = process.stderr.read().decode()
        assert process.returncode == 3
        assert said in err
        assert err.endswith(f" after 1 vote was sent, {NOT_KNOWN}\n")

    def test_a_terminal_sees_progress(self) -> None:
        """A bar is drawn if standard error is a terminal, else nothing at all."""
        master, slave = pty.openpty()
        args = [*COMMAND, "--random", "--messages", "3", "--to", "-"]
        with subprocess.Popen(
            args, stdout=subprocess.PIPE, stderr=slave, cwd=ROOT
        ) as process:
            os.close(slave)
            assert process.stdout
            assert len(process.stdout.read()) == 27
        assert b"3 votes sent" in os.read(master, 1 << 16)
        os.close(master)
        assert run_process(*args[3:])[2] == ""


class TestServerTarget:
    """A connection, from both of its ends."""

    def test_a_close_before_the_end_is_no_receipt(self) -> None:
        """A close that was there before the half-close says nothing about the votes."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            connection = socket.create_connection(listener.getsockname())
            server, _ = listener.accept()
        with connection:
            server.close()
            assert select.select([connection], [], [], SECONDS_MAX)[0]
            target = ServerTarget(connection, SECONDS_MAX)
            with pytest.raises(NoReceiptError, match="closed the connection before"):
                target.finish()

    def test_whole_votes_are_counted(self) -> None:
        """When the server stops taking, the votes sent are those that went whole."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            connection = socket.create_connection(listener.getsockname())
            server, _ = listener.accept()
        with server:
            with connection:
                sender = Sender(ServerTarget(connection, 0.1))
                sender.send(Chunk(VOTE * 2, 2))
                with pytest.raises(NoReceiptError, match="took nothing"):
                    sender.send(Chunk(VOTE * 3_000_000, 3_000_000))
            received = 0
            while data := server.recv(1 << 20):
                received += len(data)
        assert sender.votes_sent == received // 9 > 2


class TestStreamTarget:
    """Writing to a file."""

    def test_short_writes_are_gone_on_with(self) -> None:
        """A stream that takes a byte at a time gets them all, in order."""

        class Narrow(io.RawIOBase):
            """Takes one byte a call."""

            taken = b""

            def write(self, data: memoryview) -> int:  # type: ignore[override]
                """Take a byte."""
                self.taken += bytes(data[:1])
                return 1

        stream = Narrow()
        target = StreamTarget(stream)
        target.write(VOTE)
        assert (stream.taken, target.sent_bytes) == (VOTE, 9)
