"""`alphabet send --connector` as users meet it: every vote counts once, come what may.

The servers are real, and are killed; those that misbehave are the model's.
"""

import contextlib
import os
import pty
import random
import select
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import pytest
from click.testing import CliRunner, Result

from alphabet.commands.send import send
from alphabet.connector.client import ConnectorClient
from alphabet.connector.frames import Ack, Error, Restart
from alphabet.network.address import Address
from alphabet.sending.connector_target import ConnectorTarget
from alphabet.sending.sender import NoReceiptError
from alphabet.sending.stream_send import new_instance, stable_id
from tests.connector_model import ModelConnection, ModelServer
from tests.inspection import last_sequence, records
from tests.process import (
    PYTHON,
    ROOT,
    SECONDS_MAX,
    Server,
    environment,
    free_port,
    serving,
    wait_until,
)
from tests.votes import make_votes, payloads, wire

IS_SOAK = bool(os.environ.get("ALPHABET_SOAK"))
ROUNDS = 60 if IS_SOAK else 2
VOTES = make_votes(random.Random(6), 40_000)

NUMBER = 11_361_114_649_935_978_717
"""The first eight bytes of the SHA-256 of `random:0`."""


def run_send(port: int, *words: object) -> Result:
    """Run the command in this process."""
    to = ["--connector", "--to", f"127.0.0.1:{port}"]
    return CliRunner().invoke(send, [*to, *map(str, words)])


@contextlib.contextmanager
def sending(
    port: int, *words: object, **files: object
) -> Iterator[subprocess.Popen[bytes]]:
    """Run the command in a process of its own; end it at once if the test did not."""
    to = ["--connector", "--to", f"127.0.0.1:{port}"]
    process = subprocess.Popen(
        [*PYTHON, "alphabet.cli", "send", *to, *map(str, words)],
        cwd=ROOT,
        env=environment({}),
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **files},  # type: ignore[call-overload]
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def ended(process: subprocess.Popen[bytes]) -> tuple[int, str, str]:
    """Wait for its end; give exit code, standard output and standard error."""
    out, err = process.communicate(timeout=SECONDS_MAX)
    return process.returncode, out.decode(), err.decode()


def started(place: Path, port: int) -> contextlib.AbstractContextManager[Server]:
    """Give a server that is ready, at a port that is known before."""
    return serving(place, "--connector-in", f"127.0.0.1:{port}")


def wait_for_votes(place: Path, votes: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until the log has so many more, or the sender has ended."""
    goal = last_sequence(place) + votes
    wait_until(
        lambda: last_sequence(place) >= goal or process.poll() is not None,
        f"{goal} votes",
    )


@pytest.fixture
def port() -> int:
    """Give a port."""
    return free_port()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Give a file of votes."""
    path = tmp_path / "votes.bin"
    path.write_bytes(wire(VOTES))
    return path


class TestOnce:
    """With a server that stays."""

    def test_a_second_run_sends_nothing(
        self, tmp_path: Path, file: Path, port: int
    ) -> None:
        """The same votes count once, however often they are sent; others count."""
        lines = tmp_path / "votes.txt"
        lines.write_text("".join(f"{letter.decode()} {n}\n" for letter, n in VOTES[:9]))
        runs = [
            ((file,), len(VOTES)),
            ((lines, "--format", "lines"), 9),
            (("--random", "--messages", 5000), 5000),
            ((file, "--stream", "other", "--messages", 10), 10),
        ]
        with started(tmp_path, port):
            for there in (False, True):
                for words, votes in runs:
                    done = run_send(port, *words)
                    new, old = (0, votes) if there else (votes, 0)
                    told = f"sent {new} votes, {old} were there already, all durable\n"
                    assert (done.exit_code, done.output) == (0, told)
            done = run_send(port, file, "--stream", "other", "--messages", 30)
            assert done.output.startswith("sent 20 votes, 10 were there already")
            done = run_send(port, "--random", "--messages", 7000)
            assert done.output.startswith("sent 2000 votes, 5000 were there already")
        assert last_sequence(tmp_path) == sum(votes for _, votes in runs) + 2020

    def test_what_is_not_the_same_is_refused(self, tmp_path: Path, port: int) -> None:
        """Under one name nothing else goes on, and each refusal says why in a line."""
        file = tmp_path / "votes.bin"
        several = wire(VOTES[:3]) + b"\0\0\0\1x"
        with started(tmp_path, port):
            for content, code, said in (
                (several, 0, "sent 4 votes, 0 were there already"),
                (several[:-5], 1, "byte 27: it is the file's end, and the server has"),
                (several[:9] * 4, 1, "a frame of the input goes across it"),
                (several + b"\0\0", 1, "4 votes are durable, all before that: mend it"),
                (several + wire(VOTES[:1]), 0, "sent 1 vote, 4 were there already"),
            ):
                file.write_bytes(content)
                done = run_send(port, file, "--stream", "s")
                assert (done.exit_code, said in done.output) == (code, True), (
                    done.output
                )
                assert done.output.count("\n") == 1
            file.write_bytes(b"\0\0\0\5")
            done = run_send(port, file)
            assert done.exit_code == 1
            assert done.output.endswith("of a frame's 9 bytes; nothing was sent\n")
            file.write_bytes(wire(VOTES[:1]))
            done = run_send(port, file, "--stream", "t", "--stream-id", 7)
            assert done.exit_code == 0
            done = run_send(port, file, "--stream", "u", "--stream-id", 7)
            assert done.exit_code == 3
            assert "refused: stream 7 " in done.output
        assert last_sequence(tmp_path) == 5

    def test_a_second_sender_waits(self, tmp_path: Path, port: int) -> None:
        """Who finds the stream held says so once, waits, and goes on behind."""
        pipe = subprocess.PIPE
        few = tmp_path / "few.bin"
        few.write_bytes(wire(VOTES[:5]))
        with (
            started(tmp_path, port),
            sending(port, "-", "--stream", "s", stdin=pipe) as first,
        ):
            assert first.stdin
            first.stdin.write(wire(VOTES[:2]))
            first.stdin.flush()
            wait_until(lambda: last_sequence(tmp_path) == 2, "the first votes")
            with sending(port, few, "--stream", "s") as second:
                assert second.stderr
                told = second.stderr.readline().decode()
                assert "has another sender of this stream: trying again" in told
                code, out, _ = ended(first)
                assert (code, out) == (
                    0,
                    "sent 2 votes, 0 were there already, all durable\n",
                )
                assert ended(second) == (
                    0,
                    "sent 3 votes, 2 were there already, all durable\n",
                    "",
                )
        assert records(tmp_path) == payloads(VOTES[:5])

    def test_who_has_the_same_instance_takes_over(
        self, tmp_path: Path, port: int
    ) -> None:
        """With --instance the newer sender has the stream, and the older ends."""
        words = ("-", "--stream", "s", "--instance", "one")
        pipe = subprocess.PIPE
        with (
            started(tmp_path, port),
            sending(port, *words, stdin=pipe) as first,
        ):
            assert first.stdin
            first.stdin.write(wire(VOTES[:2]))
            first.stdin.flush()
            wait_until(lambda: last_sequence(tmp_path) == 2, "the first votes")
            with sending(port, *words, stdin=pipe) as second:
                assert first.wait(SECONDS_MAX) == 3
                assert first.stderr
                assert b"was taken over by a newer" in first.stderr.read()
                assert second.stdin
                second.stdin.write(wire(VOTES[:4]))
                assert ended(second)[:2] == (
                    0,
                    "sent 2 votes, 2 were there already, all durable\n",
                )
        assert records(tmp_path) == payloads(VOTES[:4])

    def test_a_stop_says_what_is_durable(self, tmp_path: Path, port: int) -> None:
        """Ctrl-C ends it with 130 and how far it came."""
        words = ("-", "--stream", "s")
        with (
            started(tmp_path, port),
            sending(port, *words, stdin=subprocess.PIPE) as process,
        ):
            assert process.stdin
            process.stdin.write(wire(VOTES[:2]))
            process.stdin.flush()
            wait_until(lambda: last_sequence(tmp_path) == 2, "the votes")
            process.send_signal(signal.SIGINT)
            code, out, err = ended(process)
        assert (code, out) == (130, "")
        assert err.startswith("alphabet: stopped; ")
        assert err.endswith("of stream 's': to go on behind them, run the same again\n")

    def test_a_terminal_sees_progress(
        self, tmp_path: Path, file: Path, port: int
    ) -> None:
        """A bar on a terminal tells how many were sent and how many are durable."""
        master, slave = pty.openpty()
        with (
            started(tmp_path, port),
            sending(port, file, stderr=slave) as process,
        ):
            os.close(slave)
            shown = b""
            with contextlib.suppress(OSError):  # A terminal ends so.
                while data := os.read(master, 1 << 16):
                    shown += data
            os.close(master)
            assert process.wait(SECONDS_MAX) == 0
        assert b"40,000 sent" in shown
        assert b"40,000 durable" in shown


class TestCrashes:
    """With servers and senders that are killed."""

    @pytest.mark.parametrize("seed", range(ROUNDS))
    def test_every_vote_counts_once(
        self, tmp_path: Path, file: Path, port: int, seed: int
    ) -> None:
        """Server, sender or both are killed in mid-stream: the log has the file."""
        chance = random.Random(seed)
        place = tmp_path / "server"
        place.mkdir()
        words = (file, "--rate", 60_000)
        with contextlib.ExitStack() as stack:
            server = stack.enter_context(started(place, port))
            process = stack.enter_context(sending(port, *words))
            for _ in range(3):
                wait_for_votes(place, chance.randrange(1, 10_000), process)
                victims = chance.choice([{"server"}, {"sender"}, {"server", "sender"}])
                if "server" in victims:
                    server.kill()
                if "sender" in victims:
                    process.kill()
                    process.wait()
                    process = stack.enter_context(sending(port, *words))
                if "server" in victims:
                    server = stack.enter_context(started(place, port))
            code, out, err = ended(process)
            assert code == 0, err
            assert out.endswith("all durable\n")
        assert records(place) == payloads(VOTES)

    def test_standard_input_outlives_a_server(self, tmp_path: Path, port: int) -> None:
        """What came through a pipe and was not durable goes to the next server."""
        words = ("-", "--stream", "s")
        with (
            sending(port, *words, stdin=subprocess.PIPE) as process,
            contextlib.ExitStack() as stack,
        ):
            assert process.stdin
            assert process.stderr
            server = stack.enter_context(started(tmp_path, port))
            process.stdin.write(wire(VOTES[:9000]))
            process.stdin.flush()
            wait_for_votes(tmp_path, 1, process)
            server.kill()
            process.stdin.write(wire(VOTES[9000:9010]))
            process.stdin.flush()
            told = process.stderr.readline().decode()
            assert "trying again until 60 seconds are over" in told
            stack.enter_context(started(tmp_path, port))
            process.stdin.write(wire(VOTES[9010:]))
            code, out, _ = ended(process)
            assert (code, out) == (
                0,
                "sent 40000 votes, 0 were there already, all durable\n",
            )
        assert records(tmp_path) == payloads(VOTES)


Behaviour = Callable[[int, ModelConnection], bool]
"""Given a connection's number and the model: acts for it, says if it goes on."""


@contextlib.contextmanager
def modelled(behave: Behaviour, model: ModelServer | None = None) -> Iterator[int]:
    """Serve the model's connections, one after the other, in a thread."""
    server = model or ModelServer()
    stop = threading.Event()

    def run(listener: socket.socket) -> None:
        for number in range(1 << 20):
            peer, _ = listener.accept()
            with peer, contextlib.suppress(ConnectionError):
                if stop.is_set():
                    return
                connection = ModelConnection(server, 1000)
                while data := peer.recv(1 << 16):
                    connection.receive(data)
                    is_going_on = behave(number, connection)
                    peer.sendall(connection.outgoing)
                    connection.outgoing.clear()
                    if not is_going_on:
                        break

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=run, args=[listener])
        thread.start()
        address = listener.getsockname()
        try:
            yield address[1]
        finally:
            stop.set()
            socket.create_connection(address).close()
            thread.join(SECONDS_MAX)
        assert not thread.is_alive()


def serve(_number: int, connection: ModelConnection) -> bool:
    """Make all durable at once."""
    connection.server.commit()
    connection.acknowledge(1000)
    return True


def refuse(_number: int, connection: ModelConnection) -> bool:
    """Say ERROR."""
    connection.say(Error(b"not today"))
    return True


def say_nothing(_number: int, connection: ModelConnection) -> bool:
    """Swallow it."""
    connection.outgoing.clear()
    return True


def owe(_number: int, connection: ModelConnection) -> bool:
    """Take messages, and make nothing durable."""
    del connection
    return True


def hang_up(_number: int, connection: ModelConnection) -> bool:
    """Close each connection."""
    del connection
    return False


def talk(_number: int, connection: ModelConnection) -> bool:
    """Be another kind of server."""
    connection.outgoing[:] = b"HTTP/1.1 400 Bad Request\r\n\r\n"
    return True


def forget(number: int, connection: ModelConnection) -> bool:
    """Lose what was acknowledged, at the first connection's end."""
    serve(number, connection)
    is_going_on = number > 0 or connection.server.durable == []
    if not is_going_on:
        connection.server.durable.clear()
    return is_going_on


class TestServers:
    """What becomes of a sender whose server is not as it should be."""

    @pytest.mark.parametrize(
        ("behave", "code", "said"),
        [
            (refuse, 3, "refused: not today; nothing was sent"),
            (say_nothing, 3, "gave no answer (is that the port of --connector-in?)"),
            (owe, 3, "acknowledged nothing for 0.3 seconds; 0 votes are durable"),
            (hang_up, 3, ") for 0.3 seconds; nothing was sent"),
            (talk, 3, "sent a bad frame: "),
            (forget, 1, "it has lost what was durable"),
        ],
    )
    def test_it_ends_with_a_line(
        self, tmp_path: Path, behave: Behaviour, code: int, said: str
    ) -> None:
        """No server holds the sender for ever, and its end says whose fault it is."""
        file = tmp_path / "few.bin"
        file.write_bytes(wire(VOTES[:5]) * (2 if behave is forget else 1))
        words: list[object] = [file, "--silence-seconds", "0.3"]
        if behave is forget:
            words += ["--rate", "5"]
        with modelled(behave) as port:
            done = run_send(port, *words)
        assert done.exit_code == code, done.output
        assert said in done.output.splitlines()[-1]

    def test_a_file_that_changes_is_told(self, file: Path) -> None:
        """A file that is written to while it is sent is no success."""

        def behave(number: int, connection: ModelConnection) -> bool:
            if connection.is_open:
                os.utime(file, (0, 0))
            return serve(number, connection)

        with modelled(behave) as port:
            done = run_send(port, file)
        assert done.exit_code == 1
        assert (
            "was changed while it was sent, and 40000 votes are durable" in done.output
        )

    def test_nobody_there(self, port: int, file: Path) -> None:
        """A server that is not there is waited for, so long and no longer."""
        done = run_send(port, file, "--silence-seconds", "0.3")
        told, end = done.output.splitlines()
        assert done.exit_code == 3
        assert told.endswith(
            "(Connection refused): trying again until 0.3 seconds are over"
        )
        assert end.endswith("(Connection refused) for 0.3 seconds; nothing was sent")

    @pytest.mark.parametrize("kind", ["restart", "refusals", "cuts"])
    def test_it_tries_again(self, tmp_path: Path, kind: str) -> None:
        """After RESTART, refusals and cuts it begins again, and comes to its end."""
        file = tmp_path / "few.bin"
        file.write_bytes(wire(VOTES[:2000]))
        model = ModelServer(refusals_due=3 if kind == "refusals" else 0)

        def behave(number: int, connection: ModelConnection) -> bool:
            if kind == "restart" and number < 2 and connection.is_open:
                connection.say(Restart())
                return True
            serve(number, connection)
            return not (kind == "cuts" and number < 3 and connection.is_open)

        with modelled(behave, model) as port:
            done = run_send(port, file)
        assert done.exit_code == 0, done.output
        *told, end = done.output.splitlines()
        assert end.startswith("sent 2000 votes, 0 were there already")
        assert len(told) >= 1
        assert [payload for _, payload in model.durable] == [
            payloads([vote]) for vote in VOTES[:2000]
        ]


class TestUsage:
    """What makes no sense is refused before anything is sent."""

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (("--skip", 1), "neither --skip nor --repeat"),
            (("--repeat", 2), "neither --skip nor --repeat"),
            (("--stream", ""), "--stream takes 1 to 65535 bytes"),
            (("--instance", "x" * 65_536), "--instance takes 1 to 65535 bytes"),
            (("--to", "-"), "say how to --spread"),
            (("--stream-id", 2**64), "'--stream-id'"),
        ],
        ids=lambda value: str(value)[:20],
    )
    def test_what_makes_no_sense(
        self, file: Path, port: int, words: tuple[object, ...], said: str
    ) -> None:
        """Each is exit code 2, with a reason."""
        done = run_send(port, file, *words)
        assert done.exit_code == 2
        assert said in done.output

    def test_a_server_has_to_be_named(self, file: Path) -> None:
        """The plain sender's default address is no connector's."""
        done = CliRunner().invoke(send, ["--connector", str(file)])
        assert (done.exit_code, "needs --to" in done.output) == (2, True)

    def test_standard_input_has_to_be_named(self, port: int) -> None:
        """A pipe's votes cannot be told from others, so they need a name."""
        done = run_send(port, "-")
        assert (done.exit_code, "needs --stream NAME" in done.output) == (2, True)

    def test_a_cookie_is_shown(self, tmp_path: Path, file: Path, port: int) -> None:
        """A server that wants a cookie takes votes from who has it, and no others."""
        cookie, other = tmp_path / "cookie", tmp_path / "other"
        cookie.write_text("secret\n")
        other.write_text("public\n")
        words = ("--connector-in", f"127.0.0.1:{port}", "--connector-cookie-file")
        with serving(tmp_path, *words, cookie):
            done = run_send(port, file, "--connector-cookie-file", other)
            assert (done.exit_code, "refused" in done.output) == (3, True)
            assert "secret" not in done.output
            done = run_send(port, file, "--connector-cookie-file", cookie)
            assert done.exit_code == 0

    def test_names_are_what_they_have_to_be(self) -> None:
        """A stream's number follows from its name for good; an instance is new."""
        assert stable_id(b"random:0") == NUMBER
        assert new_instance() != new_instance()


@attrs.define
class Clock:
    """A clock that a test moves, and each look at it, a little."""

    seconds: float = 0.0

    def __call__(self) -> float:
        """Tell the time."""
        self.seconds += 1e-3
        return self.seconds


def new_target(port: int, clock: Clock) -> ConnectorTarget:
    """Make a target that gives up after a minute."""
    return ConnectorTarget(
        Address("127.0.0.1", port),
        ConnectorClient(1, b"s", b"i"),
        60,
        lambda _line: None,
        lambda: None,
        clock,
    )


class TestTarget:
    """The socket, on a clock that a test moves."""

    def test_pauses_grow_to_a_bound(self, port: int) -> None:
        """Each pause before a new try is twice the last one, up to the longest."""
        clock = Clock()
        target = new_target(port, clock)
        pauses = []
        for _ in range(9):
            target.wait(0.0025)
            pauses.append(target.retry_at - clock.seconds)
            clock.seconds = target.retry_at
        wanted = [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 2, 2, 2]
        assert pauses == pytest.approx(wanted, abs=0.02)

    def test_silence_while_nothing_is_owed_is_none(self) -> None:
        """A long pause of the input is not held against the server."""
        clock = Clock()
        may_answer = threading.Event()

        def behave(number: int, connection: ModelConnection) -> bool:
            if connection.server.in_flight:
                assert may_answer.wait(SECONDS_MAX)
            return serve(number, connection)

        with modelled(behave) as port:
            target = new_target(port, clock)
            with contextlib.closing(target):
                target.open()
                clock.seconds += 1000
                target.write(wire(VOTES[:5]))
                target.wait(0.01)
                may_answer.set()
                assert target.finish()
        assert target.client.votes_durable == 5

    def test_silence_where_an_answer_is_owed_ends_it(self) -> None:
        """A server that has had its time to answer has none beyond it."""
        clock = Clock()
        with modelled(owe) as port:
            target = new_target(port, clock)
            with contextlib.closing(target):
                target.open()
                target.write(wire(VOTES[:5]))
                clock.seconds += 59
                target.wait(0.01)
                clock.seconds += 1
                with pytest.raises(NoReceiptError, match="acknowledged nothing for 60"):
                    target.wait(0.01)

    def test_who_speaks_is_not_silent(self) -> None:
        """A server is given up when it says nothing, not while it says something."""
        clock = Clock()

        def behave(_number: int, connection: ModelConnection) -> bool:
            if connection.server.in_flight:
                connection.say(Ack(1))
            return True

        with modelled(behave) as port:
            target = new_target(port, clock)
            with contextlib.closing(target):
                target.open()
                target.write(wire(VOTES[:1]))
                assert target.connection
                assert select.select([target.connection], [], [], SECONDS_MAX)[0]
                had = target.client.credits
                clock.seconds += 1000
                target.wait(0.0025)
        assert target.client.credits == had + 1

    def test_an_answer_that_waits_is_heard(self) -> None:
        """A sender that was stopped for long hears what came before it gives up."""
        clock = Clock()
        with modelled(serve) as port:
            target = new_target(port, clock)
            with contextlib.closing(target):
                target.open()
                target.write(wire(VOTES[:5]))
                assert target.connection
                assert select.select([target.connection], [], [], SECONDS_MAX)[0]
                clock.seconds += 1000
                assert target.finish()
        assert target.client.votes_durable == 5
