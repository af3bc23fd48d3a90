"""Redis with its append-only file, flushed before every answer.

Commands are made beforehand and written in bulk over raw sockets; of the answers, every
byte is read and each total is compared. Rewriting of the file is off: it would drop the
history of the votes.
"""

import contextlib
import select
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import attrs

from alphabet.trial.flood import HOST, SECONDS_MAX
from alphabet.trial.output_check import WrongOutputError
from alphabet.trial.vote_load import Load, running_totals
from bench.peers.running import await_ready, find_program, free_port, running
from bench.processes import disk_bytes, written_bytes
from bench.subject import Flooded

KEY = "t"
STREAM = "s"
RECEIVE_BYTES = 1 << 20
SETTINGS = {
    "bind": HOST,
    "appendonly": "yes",
    "auto-aof-rewrite-percentage": "0",
    "save": "",
    "protected-mode": "no",
}


@attrs.frozen
class RedisServer:
    """A server that answers; `start_seconds` includes the loading of its file."""

    process: subprocess.Popen[bytes]
    port: int
    start_seconds: float

    def connect(self) -> socket.socket:
        """Open a connection."""
        connection = socket.create_connection((HOST, self.port), SECONDS_MAX)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection


@contextlib.contextmanager
def served(place: Path, flush: str = "always") -> Iterator[RedisServer]:
    """Give a server with its file in `place`; it is killed at last."""
    port = free_port()
    settings = {**SETTINGS, "appendfsync": flush, "port": str(port), "dir": str(place)}
    words = [word for name, value in settings.items() for word in (f"--{name}", value)]
    with running([find_program("redis-server"), *words], place) as process:
        seconds = await_ready(process, lambda: _answers(port), place)
        yield RedisServer(process, port, seconds)


def _answers(port: int) -> bool:
    """Say whether it has loaded its file: until then every command is an error."""
    with (
        contextlib.suppress(OSError),
        socket.create_connection((HOST, port), SECONDS_MAX) as connection,
    ):
        connection.sendall(b"PING\r\n")
        return connection.recv(64).startswith(b"+PONG")
    return False


def _command(*words: str | int) -> str:
    texts = [str(word) for word in words]
    bulks = "".join(f"${len(text)}\r\n{text}\r\n" for text in texts)
    return f"*{len(texts)}\r\n{bulks}"


def increment(letter: str, votes: int) -> str:
    """Write the command that adds votes to a letter's total."""
    return _command("HINCRBY", KEY, letter, votes)


def _append(letter: str, votes: int) -> str:
    return _command("XADD", STREAM, "*", "l", letter, "v", votes)


@attrs.frozen
class Bulk:
    """All that one connection sends, and the totals that must be among the answers."""

    commands: bytes
    answers: int
    totals: Sequence[bytes]


@lru_cache(maxsize=4)
def make_bulks(votes: int, connections: int, *, has_stream: bool) -> list[Bulk]:
    """Make commands for so many votes, an equal share for each connection.

    Each connection has a letter of its own where there are several, so that the totals
    it is answered are known.
    """
    if connections > 1:
        each = max(1, votes // connections)
        rows = [(f"l{number}", each) for number in range(connections)]
        return [
            Bulk(
                (increment(name, 1) * count).encode(),
                count,
                [b":%d" % total for total in range(1, count + 1)],
            )
            for name, count in rows
        ]
    load = Load(votes)
    [letters], [counts] = load.letters(), load.counts()
    pairs = list(zip(map(chr, letters.tolist()), counts.tolist(), strict=True))
    commands = [
        (_append(*pair) if has_stream else "") + increment(*pair) for pair in pairs
    ]
    totals = [b":%d" % total for total in running_totals(letters, counts).tolist()]
    answers = votes * (3 if has_stream else 1)  # An id is a length and a text.
    return [Bulk("".join(commands).encode(), answers, totals)]


@attrs.frozen
class Redis:
    """Redis under a flood: every vote's HINCRBY, after its XADD if `has_stream`."""

    has_stream: bool = False
    connections: int = 1
    flush: str = "always"

    @property
    def name(self) -> str:
        """What it is called in tables."""
        return "Redis XADD + HINCRBY" if self.has_stream else "Redis HINCRBY"

    def flood(self, place: Path, votes: int) -> Flooded:
        """Count votes with a new server."""
        with served(place, self.flush) as server:
            return self.flood_server(server, place, votes)

    def flood_server(self, server: RedisServer, place: Path, votes: int) -> Flooded:
        """Count votes with a server that has none."""
        bulks = make_bulks(votes, self.connections, has_stream=self.has_stream)
        with contextlib.ExitStack() as stack:
            connections = [stack.enter_context(server.connect()) for _ in bulks]
            before = written_bytes(server.process.pid)
            began = time.perf_counter()
            answers = _exchange(connections, bulks)
            seconds = time.perf_counter() - began
            written = written_bytes(server.process.pid) - before
        _check(bulks, answers)
        count = sum(len(bulk.totals) for bulk in bulks)
        file_bytes = disk_bytes(place / "appendonlydir")
        return Flooded(count, seconds, file_bytes, written)


def _exchange(
    connections: Sequence[socket.socket], bulks: Sequence[Bulk]
) -> list[bytes]:
    """Send everything from a thread while every answer is read here."""
    thread = threading.Thread(target=_send_all, args=(connections, bulks))
    thread.start()
    pieces: list[list[bytes]] = [[] for _ in bulks]
    left = [bulk.answers for bulk in bulks]
    poll = select.epoll()
    numbers = {each.fileno(): number for number, each in enumerate(connections)}
    for file in numbers:
        poll.register(file, select.EPOLLIN)
    while any(left):
        for file, _ in poll.poll():
            number = numbers[file]
            piece = connections[number].recv(RECEIVE_BYTES)
            if not piece:
                raise WrongOutputError("Redis closed a connection")
            pieces[number].append(piece)
            left[number] -= piece.count(b"\n")
    thread.join()
    return [b"".join(each) for each in pieces]


def _send_all(connections: Sequence[socket.socket], bulks: Sequence[Bulk]) -> None:
    if len(connections) == 1:
        connections[0].sendall(bulks[0].commands)
        return
    rests = {
        each.fileno(): (each, memoryview(bulk.commands))
        for each, bulk in zip(connections, bulks, strict=True)
    }
    poll = select.epoll()
    for file in rests:
        poll.register(file, select.EPOLLOUT)
    while rests:
        for file, _ in poll.poll():
            connection, rest = rests[file]
            rest = rest[connection.send(rest, socket.MSG_DONTWAIT) :]
            rests[file] = (connection, rest)
            if not rest:
                poll.unregister(file)
                del rests[file]


def _check(bulks: Sequence[Bulk], answers: Sequence[bytes]) -> None:
    """Compare every total that was answered."""
    for bulk, answer in zip(bulks, answers, strict=True):
        totals = [line for line in answer.split(b"\r\n") if line.startswith(b":")]
        if totals != bulk.totals:
            raise WrongOutputError("Redis has answered a wrong total")


def fill(server: RedisServer, load: Load) -> None:
    """Count all votes of a one-sender load."""
    [bulk] = make_bulks(load.votes_per_turn, 1, has_stream=False)
    whole = Bulk(bulk.commands, bulk.answers, ())
    with server.connect() as connection:
        for _ in range(load.turns):
            _exchange([connection], [whole])


def check_totals(server: RedisServer, load: Load) -> None:
    """Raise WrongOutputError unless each letter's total is what it must be."""
    with server.connect() as connection:
        for letter, total in load.totals().items():
            connection.sendall(_command("HGET", KEY, letter).encode())
            answer = connection.recv(RECEIVE_BYTES)
            if answer.split(b"\r\n")[1:2] != [b"%d" % total]:
                raise WrongOutputError(f"Redis has a wrong total for {letter}")
