"""`alphabet receive --connector` as users meet it, with a model server over sockets.

The model server has a record that survives, as a log does; the receiver is a process
that is killed wherever it hurts. In the end its file has the whole output, once.
"""

import contextlib
import random
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Self

import attrs
import pytest
from click.testing import CliRunner

from alphabet.commands.receive import receive
from alphabet.connector.frames import (
    Error,
    Frame,
    Hello,
    Message,
    Notify,
    NotifyAck,
    Ok,
    decode_frame,
    encode_frame,
)
from alphabet.connector.phases import (
    ListUncommitted,
    Phase,
    Phase1,
    Phase2,
    Reply,
    ReplyUncommitted,
    decode_phase,
    encode_phase,
)
from alphabet.connector.receiver import ConnectorReceiver
from alphabet.receiving import connector_listener
from alphabet.receiving.connector_listener import CONNECTIONS_MAX, ConnectorListener
from alphabet.receiving.file_sink import log_path
from tests.model_sink import ModelSink
from tests.process import (
    ANY,
    PYTHON,
    ROOT,
    SECONDS_MAX,
    environment,
    finish,
    wait_until,
)

WHOLE = random.Random(2).randbytes(300_000)
MESSAGE_BYTES = 7_000


@attrs.define(eq=False)
class Receiver:
    """`alphabet receive --connector` as a process."""

    process: subprocess.Popen[bytes]
    stderr: Path

    @classmethod
    def start(
        cls,
        place: Path,
        *words: object,
        variables: Mapping[str, str] | None = None,
        before: Sequence[str] = (),
    ) -> Self:
        """Start one whose file is `place / "out"`."""
        stderr = place / f"{len(list(place.glob('*.stderr')))}.stderr"
        program = [*PYTHON, "alphabet.cli", *options(place), *map(str, words)]
        with stderr.open("wb") as err:
            process = subprocess.Popen(
                [*before, *program],
                cwd=ROOT,
                env=environment(variables or {}),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=err,
            )
        return cls(process, stderr)

    def said(self) -> list[str]:
        """Give the lines of its standard error."""
        return self.stderr.read_text().splitlines()

    def wait_port(self) -> int | None:
        """Wait until it listens; None if it has ended before."""

        def port() -> list[int]:
            told = [line for line in self.said() if line.startswith("listening in ")]
            return [int(line.rpartition(":")[2]) for line in told]

        wait_until(lambda: port() or not self.is_running, "a port to connect to")
        return port()[0] if port() else None

    @property
    def is_running(self) -> bool:
        """Say whether the process is there."""
        return self.process.poll() is None

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Ask it to end; give its exit code."""
        self.process.send_signal(number)
        return self.process.wait(SECONDS_MAX)

    def kill(self) -> None:
        """End it at once."""
        self.process.kill()
        self.process.wait(SECONDS_MAX)


def options(place: Path) -> list[str]:
    """Give the command's words for a file in a directory."""
    return ["receive", "--connector", "--listen", ANY, "--output", str(place / "out")]


@contextlib.contextmanager
def receiving(
    place: Path,
    *words: object,
    variables: Mapping[str, str] | None = None,
    before: Sequence[str] = (),
) -> Iterator[Receiver]:
    """Give a receiver, and end it at once if the test did not."""
    receiver = Receiver.start(place, *words, variables=variables, before=before)
    try:
        yield receiver
    finally:
        receiver.kill()


@attrs.define(eq=False)
class Wire:
    """A server's side of one connection."""

    socket: socket.socket

    @classmethod
    @contextlib.contextmanager
    def connected(cls, port: int | None) -> Iterator[Self]:
        """Connect."""
        assert port is not None
        with socket.create_connection(("127.0.0.1", port), SECONDS_MAX) as connection:
            yield cls(connection)

    def send(self, *frames: Frame | Phase) -> None:
        """Send frames at once."""
        self.socket.sendall(
            b"".join(
                encode_phase(each) if isinstance(each, Phase) else encode_frame(each)
                for each in frames
            )
        )

    def receive(self) -> Frame | Phase | None:
        """Wait for a frame; None where the connection ends."""
        header = self._read(4)
        body = self._read(int.from_bytes(header, "big"))
        if not body:
            return None
        frame = decode_frame(body)
        if isinstance(frame, Message):
            return decode_phase(bytes(frame.payload))
        return frame

    def _read(self, size: int) -> bytes:
        data = b""
        while len(data) < size and (piece := self.socket.recv(size - len(data))):
            data += piece
        return data if len(data) == size else b""


class LostError(Exception):
    """A connection ended."""


@attrs.define(eq=False)
class ModelServer:
    """Sends the whole output in rounds, over as many connections as it takes.

    `offset` and `record` survive: cursor and decision in one.
    """

    round_bytes: int = 50_000
    aborts: frozenset[int] = frozenset()
    instance: bytes = b"model"
    offset: int = 0
    record: bytes = b"none"
    number: int = 0

    def serve(self, port: int | None) -> bool:
        """Send what is left; False if the connection was lost before the end."""
        try:
            with Wire.connected(port) as wire:
                self.open(wire)
                while self.offset < len(WHOLE):
                    self.round(wire)
                # What a receiver answers has come after the last decision.
                wire.send(ListUncommitted(2))
                return self._await(wire) == ReplyUncommitted(2, ())
        except (LostError, OSError):
            return False

    def open(self, wire: Wire) -> None:
        """Greet, settle what is named."""
        wire.send(hello(self.instance), Notify(1, b"out", 0), ListUncommitted(1))
        assert isinstance(self._await(wire), Ok)
        assert isinstance(self._await(wire), NotifyAck)
        named = self._await(wire)
        assert isinstance(named, ReplyUncommitted)
        for name in named.transactions:
            wire.send(Phase2(name, name == self.record))

    def round(self, wire: Wire) -> None:
        """Send one round's outputs and settle it."""
        self.number += 1
        name = b"round %d" % self.number
        end = min(self.offset + self.round_bytes, len(WHOLE))
        for start in range(self.offset, end, MESSAGE_BYTES):
            part = WHOLE[start : min(start + MESSAGE_BYTES, end)]
            wire.send(Message(1, start, 0, b"", part))
        wire.send(Phase1(name, ((1, self.offset, end),)))
        assert self._await(wire) == Reply(name, is_commit=True)
        is_commit = self.number not in self.aborts
        if is_commit:
            self.offset, self.record = end, name
        wire.send(Phase2(name, is_commit))

    def _await(self, wire: Wire) -> Frame | Phase:
        frame = wire.receive()
        if frame is None:
            raise LostError
        return frame


def hello(instance: bytes = b"model", cookie: bytes = b"") -> Hello:
    """Greet as a server does."""
    return Hello(b"v0.0.1", cookie, b"alphabet", instance)


def check_whole(place: Path) -> None:
    """The file is the whole output, and its log says that it is final."""
    assert (place / "out").read_bytes() == WHOLE
    line = log_path(place / "out").read_text().splitlines()[-1]
    assert line.startswith("committed ")
    assert line.split()[2] == str(len(WHOLE))


FAILPOINTS = (
    "sink.before_log_rename",
    "sink.after_log_rename",
    "sink.before_prepare",
    "sink.after_file_flush",
    "sink.after_prepare",
    "sink.before_commit",
    "sink.after_commit",
    "sink.before_abort",
    "sink.after_abort",
)


class TestCrashes:
    """The receiver is killed, and starts again."""

    def test_at_each_failpoint(self, tmp_path: Path) -> None:
        """Killed at one failpoint after the other, it ends up with the whole output."""
        server = ModelServer(round_bytes=20_000, aborts=frozenset(range(1, 1000, 2)))
        for name in FAILPOINTS:
            failpoint = {"ALPHABET_FAILPOINT": name}
            with receiving(tmp_path, variables=failpoint) as receiver:
                port = receiver.wait_port()
                assert port is None or not server.serve(port), name
                assert receiver.process.wait(SECONDS_MAX) == -signal.SIGKILL
        with receiving(tmp_path) as receiver:
            assert server.serve(receiver.wait_port())
            assert receiver.stop() == 0
        check_whole(tmp_path)

    def test_at_random(self, tmp_path: Path) -> None:
        """Killed at any time, again and again, it ends up with the whole output."""
        choose = random.Random(3)
        server = ModelServer(round_bytes=7_000, aborts=frozenset(range(3, 1000, 7)))
        is_done = False
        for _ in range(4):
            with receiving(tmp_path) as receiver:
                port = receiver.wait_port()
                timer = threading.Timer(choose.uniform(0.0, 0.1), receiver.kill)
                timer.start()
                is_done = server.serve(port)
                timer.cancel()
                timer.join()
        with receiving(tmp_path) as receiver:
            assert is_done or server.serve(receiver.wait_port())
            assert receiver.stop() == 0
        check_whole(tmp_path)

    def test_of_the_server(self, tmp_path: Path) -> None:
        """A server that dies between its steps finds what it had decided, or not."""
        server = ModelServer()
        with receiving(tmp_path) as receiver:
            port = receiver.wait_port()
            with Wire.connected(port) as wire:
                server.open(wire)
                server.round(wire)
                wire.send(Message(1, 50_000, 0, b"", WHOLE[50_000:50_010]))
                wire.send(Phase1(b"undecided", ((1, 50_000, 50_010),)))
                assert wire.receive() == Reply(b"undecided", is_commit=True)
            with Wire.connected(port) as wire:
                server.open(wire)
                wire.send(Message(1, 50_000, 0, b"", WHOLE[50_000:50_020]))
                wire.send(Phase1(b"decided", ((1, 50_000, 50_020),)))
                assert wire.receive() == Reply(b"decided", is_commit=True)
                server.offset, server.record = 50_020, b"decided"
            assert server.serve(port)
            assert receiver.stop() == 0
        check_whole(tmp_path)


class TestConnections:
    """Whoever connects."""

    def test_a_hanging_connection_is_taken_over(self, tmp_path: Path) -> None:
        """A server that connects anew does not wait for its older connection."""
        with receiving(tmp_path) as receiver:
            port = receiver.wait_port()
            with Wire.connected(port) as older:
                older.send(hello(), Notify(1, b"out", 0))
                older.send(Message(1, 0, 0, b"", b"not the outputs"))
                assert isinstance(older.receive(), Ok)
                assert ModelServer().serve(port)
                assert isinstance(older.receive(), NotifyAck)
                assert older.receive() is None
            assert receiver.stop() == 0
            assert any("has connected anew" in line for line in receiver.said())
        check_whole(tmp_path)

    def test_others_harm_nobody(self, tmp_path: Path) -> None:
        """Another instance, a stranger and noise are refused with a reason each."""
        cookie_file = tmp_path / "cookie"
        cookie_file.write_bytes(b"secret\n")
        with receiving(tmp_path, "--connector-cookie-file", cookie_file) as receiver:
            port = receiver.wait_port()
            with Wire.connected(port) as held:
                held.send(hello(cookie=b"secret"), Notify(1, b"out", 0))
                assert isinstance(held.receive(), Ok)
                for reason, data in {
                    b"instance 'model' is connected": encode_frame(
                        hello(b"other", b"secret")
                    ),
                    b"the cookie is another": encode_frame(hello()) * 90_000,
                    b"a frame of 1195725856 bytes": b"GET / HTTP/1.1\r\n\r\n",
                    b"there is no frame of type 77": b"\0\0\0\1M",
                }.items():
                    with Wire.connected(port) as other:
                        with contextlib.suppress(OSError):
                            other.socket.sendall(data)
                        error = other.receive()
                        assert isinstance(error, Error)
                        assert reason in error.reason
                assert isinstance(held.receive(), NotifyAck)
                held.send(
                    Message(1, 0, 0, b"", WHOLE[:10]), Phase1(b"t", ((1, 0, 10),))
                )
                assert held.receive() == Reply(b"t", is_commit=True)
            assert receiver.stop() == 0
            assert len([line for line in receiver.said() if "127.0.0.1" in line]) == 5

    def test_silence_is_not_waited_for(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Connections that never greet end in time, and make room for a server."""
        monkeypatch.setattr(connector_listener, "GREET_SECONDS_MAX", 0.2)
        said: list[str] = []
        sink = ModelSink()
        with listening(sink, said) as port, contextlib.ExitStack() as silent:
            for _ in range(CONNECTIONS_MAX):
                silent.enter_context(Wire.connected(port))
            assert ModelServer().serve(port)
        assert sink.committed == WHOLE
        assert len(said) == CONNECTIONS_MAX
        assert all(line.endswith(": no Hello came in time") for line in said)

    def test_the_refused_are_no_reset(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A refused server reads why, then the end; what it sends still is lost."""
        monkeypatch.setattr(connector_listener, "LINGER_SECONDS_MAX", 2 * SECONDS_MAX)
        with listening(ModelSink(), []) as port, Wire.connected(port) as wire:
            wire.send(hello(cookie=b"wrong"))
            assert isinstance(wire.receive(), Error)
            assert wire.receive() is None
            wire.socket.sendall(bytes(16 << 20))


@contextlib.contextmanager
def listening(sink: ModelSink, said: list[str]) -> Iterator[int]:
    """Run a listener in a thread; give its port."""
    told, teller = socket.socketpair()
    with socket.create_server(("127.0.0.1", 0)) as listener, told, teller:
        receiver = ConnectorReceiver(sink, b"")
        served = ConnectorListener(listener, told, receiver, said.append)
        thread = threading.Thread(target=served.run)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            teller.send(b"!")
            thread.join(SECONDS_MAX)
            assert not thread.is_alive()


class TestCommand:
    """What is printed, and the exit codes."""

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_a_stop_is_in_good_order(self, tmp_path: Path, number: int) -> None:
        """A signal cuts off the unfinished round, and the end is told in a line."""
        server = ModelServer()
        with receiving(tmp_path) as receiver:
            with Wire.connected(receiver.wait_port()) as wire:
                server.open(wire)
                server.round(wire)
                wire.send(Message(1, 50_000, 0, b"", b"unfinished"))
                out = tmp_path / "out"
                wait_until(lambda: out.stat().st_size == 50_010, "the outputs")
                assert receiver.stop(number) == 0
            [told] = receiver.said()[1:]
            assert told.startswith("committed 50000 bytes in 1 transactions; ")
            assert told.endswith(f"; {out} has 50000 that are final")
        assert out.read_bytes() == WHOLE[:50_000]

    def test_a_transaction_that_waits_is_told(self, tmp_path: Path) -> None:
        """A stop leaves a prepared transaction as it is, and says so."""
        with receiving(tmp_path) as receiver:
            with Wire.connected(receiver.wait_port()) as wire:
                wire.send(hello(), Notify(1, b"out", 0))
                wire.send(Message(1, 0, 0, b"", b"abc"), Phase1(b"t", ((1, 0, 3),)))
                while not isinstance(wire.receive(), Reply):
                    pass
                assert receiver.stop() == 0
            assert receiver.said()[-1].endswith(
                " has 0 that are final, and a transaction that is not settled"
            )
        assert (tmp_path / "out").read_bytes() == b"abc"

    def test_a_second_receiver_is_refused(self, tmp_path: Path) -> None:
        """One file has one receiver; another says so and ends with 3."""
        with receiving(tmp_path) as receiver:
            receiver.wait_port()
            done = finish("alphabet.cli", *options(tmp_path))
        assert (done.code, done.stdout) == (3, "")
        assert "another receiver writes" in done.stderr
        assert len(done.stderr.splitlines()) == 1

    def test_nobody_need_listen(self, tmp_path: Path) -> None:
        """When nobody reads its standard error any more, it goes on."""
        server = ModelServer()
        with subprocess.Popen(
            [*PYTHON, "alphabet.cli", *options(tmp_path)],
            cwd=ROOT,
            env=environment({}),
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                assert process.stderr is not None
                port = int(process.stderr.readline().rpartition(":")[2])
                process.stderr.close()
                with Wire.connected(port) as stranger:
                    stranger.send(hello(cookie=b"wrong"))
                    assert isinstance(stranger.receive(), Error)
                assert server.serve(port)
                process.terminate()
                assert process.wait(SECONDS_MAX) == 0
            finally:
                process.kill()
        check_whole(tmp_path)

    def test_a_full_disk_ends_it(self, tmp_path: Path) -> None:
        """A write that fails ends the receiver with 3, and nothing final is lost."""
        server = ModelServer()
        limit = ("prlimit", "--fsize=120000")
        with receiving(tmp_path, before=limit) as receiver:
            assert not server.serve(receiver.wait_port())
            assert receiver.process.wait(SECONDS_MAX) == 3
            assert "out (File too large); nothing committed is" in receiver.said()[-1]
        assert server.offset == 100_000
        with receiving(tmp_path) as receiver:
            assert server.serve(receiver.wait_port())
            assert receiver.stop() == 0
        check_whole(tmp_path)

    @pytest.mark.parametrize(
        ("words", "code", "reason"),
        [
            (["--connector"], 2, "--connector needs --output FILE"),
            (["--connector-cookie-file", __file__], 2, "needs --connector"),
            (["--connector", "--output", "x", "--expect", "1"], 2, "--expect counts"),
            (["--connector", "--output", "no/out"], 3, "cannot open no/out (No such"),
            (["--connector", "--output", "stranger"], 3, "has no transaction log"),
            (["--connector", "--output", "damaged"], 1, "is corrupt at byte 0: "),
            (["--connector", "--output", "short"], 1, "has 0 bytes, and"),
        ],
    )
    def test_what_goes_wrong_is_told(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        words: list[str],
        code: int,
        reason: str,
    ) -> None:
        """Wrong usage and damage are told with what to do, and have their exit code."""
        monkeypatch.chdir(tmp_path)
        Path("stranger").write_bytes(b"mine")
        Path("damaged.transactions").write_bytes(b"nonsense\n")
        line = b"alphabet-sink-1 0 5 61 903e7f90\n"
        Path("short.transactions").write_bytes(line)
        done = CliRunner().invoke(receive, ["--listen", ANY, *words])
        assert (done.exit_code, done.stdout) == (code, ""), done
        assert reason in done.stderr
