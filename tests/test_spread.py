"""`alphabet send --spread`: each vote goes to one server, the same one each time.

Where votes go is held to a definition of a few lines; servers are real, and killed.
"""

import contextlib
import itertools
import os
import random
import signal
import socket
import struct
import subprocess
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import click
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from alphabet.commands.send import send
from alphabet.framing import encode_frame
from alphabet.sending.spread import Spread, Way, place_of
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
WAYS: tuple[Way, ...] = get_args(Way)
VOTES = make_votes(random.Random(3), 30_000)

votes = st.lists(st.binary(min_size=5, max_size=5), max_size=200)
anything = st.lists(st.binary(max_size=80), max_size=40)
ways = st.sampled_from(WAYS)
counts = st.integers(1, 7)


def expected(way: Way, servers: int, given: list[bytes], first: int) -> list[bytes]:
    """Share votes out by the definition: each server's payloads, as frames."""
    shares = [b""] * servers
    for number, payload in enumerate(given, first):
        shares[place_of(way, servers, payload, number)] += encode_frame(payload)
    return shares


class TestPlaces:
    """Which server a vote goes to."""

    @given(ways, counts, votes | anything, st.integers(0, 1 << 40), st.data())
    def test_chunks_do_not_matter(
        self,
        way: Way,
        servers: int,
        given_: list[bytes],
        first: int,
        data: st.DataObject,
    ) -> None:
        """However an input is cut, its votes are in their servers' shares, in order."""
        spread = Spread(way, servers, first)
        cuts = data.draw(st.lists(st.integers(0, len(given_)), max_size=4).map(sorted))
        found = [b""] * servers
        for start, stop in itertools.pairwise([0, *cuts, len(given_)]):
            shares = spread.shares(b"".join(map(encode_frame, given_[start:stop])))
            found = [a + b for a, b in zip(found, shares, strict=True)]
        assert found == expected(way, servers, given_, first)
        assert spread.passed == first + len(given_)

    @given(counts, st.binary(min_size=1, max_size=80), st.integers(0, 1 << 40))
    def test_each_way_has_its_rule(
        self, servers: int, payload: bytes, number: int
    ) -> None:
        """A place depends on the letter, on the CRC-32 or on the number, and is one."""
        letter = place_of("letter", servers, payload, number)
        assert letter == payload[0] % servers
        hashed = place_of("hash", servers, payload, number)
        assert hashed == int(zlib.crc32(payload) / 2**32 * servers) < servers
        assert place_of("round-robin", servers, payload, number) == number % servers

    @pytest.mark.parametrize("way", WAYS)
    def test_random_votes_spread_evenly(self, way: Way) -> None:
        """Of four servers none has more than half as much again as its share."""
        sizes = [len(share) // 9 for share in Spread(way, 4).shares(wire(VOTES))]
        assert sum(sizes) == len(VOTES)
        assert max(sizes) < 1.5 * len(VOTES) / 4

    def test_the_command_knows_every_way(self) -> None:
        """--spread offers the ways that there are, and no others."""
        [option] = [each for each in send.params if each.name == "spread"]
        assert isinstance(option.type, click.Choice)
        assert tuple(option.type.choices) == WAYS


def run_send(*words: object) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(send, [*map(str, words)])


def to(*ports: int) -> list[str]:
    """Name servers."""
    return [word for port in ports for word in ("--to", f"127.0.0.1:{port}")]


def shares_of(way: Way, servers: int, given: bytes) -> list[bytes]:
    """Give the records that each server must have in the end."""
    return [
        b"".join(share[at + 4 : at + 9] for at in range(0, len(share), 9))
        for share in Spread(way, servers).shares(given)
    ]


@contextlib.contextmanager
def served(tmp_path: Path, count: int) -> Iterator[list[tuple[Path, Server]]]:
    """Give servers that are ready, each in its own place."""
    with contextlib.ExitStack() as stack:
        places = [tmp_path / str(number) for number in range(count)]
        for place in places:
            place.mkdir()
        yield [(place, stack.enter_context(serving(place))) for place in places]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Give a file of votes."""
    path = tmp_path / "votes.bin"
    path.write_bytes(wire(VOTES))
    return path


class TestPlain:
    """Over plain TCP."""

    def test_every_server_has_its_share(self, tmp_path: Path, file: Path) -> None:
        """Each server has the votes of its place, in order, and all are durable."""
        with served(tmp_path, 3) as servers:
            ports = [server.port for _, server in servers]
            for way in WAYS:
                done = run_send(file, "--spread", way, *to(*ports))
                told = f"sent {len(VOTES)} votes to 3 servers, all durable\n"
                assert (done.exit_code, done.output) == (0, told)
            both = [shares_of(way, 3, wire(VOTES)) for way in WAYS]
        for number, (place, _) in enumerate(servers):
            assert records(place) == b"".join(each[number] for each in both)

    def test_skipping_keeps_places(self, tmp_path: Path, file: Path) -> None:
        """--skip and --messages send what is between, to where all would have gone."""
        with served(tmp_path, 2) as servers:
            ports = [server.port for _, server in servers]
            words = (file, "--spread", "round-robin", *to(*ports))
            assert run_send(*words, "--messages", 7).exit_code == 0
            assert run_send(*words, "--skip", 7, "--messages", 12).exit_code == 0
        for number, (place, _) in enumerate(servers):
            assert records(place) == payloads(VOTES[number:12:2])

    def test_a_server_that_is_away_is_named(self, tmp_path: Path, file: Path) -> None:
        """Nothing is sent to any server while one of them cannot be reached."""
        with served(tmp_path, 1) as [(place, server)]:
            away = free_port()
            done = run_send(file, "--spread", "hash", *to(server.port, away))
            assert done.exit_code == 3
            assert f"cannot reach 127.0.0.1:{away} (" in done.output
            assert "nothing was sent" in done.output
        assert last_sequence(place) == 0

    def test_one_that_breaks_ends_all(self, tmp_path: Path) -> None:
        """A cut server is named; the others have all of theirs up to a number."""
        with (
            served(tmp_path, 1) as [(place, server)],
            socket.create_server(("127.0.0.1", 0)) as listener,
            subprocess.Popen(
                [
                    *(*PYTHON, "alphabet.cli", "send", "--random"),
                    *("--messages", "100000000", "--spread", "round-robin"),
                    *to(server.port, listener.getsockname()[1]),
                ],
                cwd=ROOT,
                env=environment({}),
                stderr=subprocess.PIPE,
                text=True,
            ) as process,
        ):
            port = listener.getsockname()[1]
            cut, _ = listener.accept()
            with cut:
                assert cut.recv(9)
                cut.setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                )
            assert process.stderr
            said = process.stderr.read()
            assert process.wait(SECONDS_MAX) == 3
        assert said.count("\n") == 1
        assert said.startswith(f"alphabet: 127.0.0.1:{port} is gone ("), said
        assert "what went to the other servers is durable" in said
        behind = int(said.partition("--skip ")[2].split()[0])
        assert 0 < behind < 100_000_000
        assert last_sequence(place) == (behind + 1) // 2

    def test_a_bad_vote_ends_it(self, tmp_path: Path, file: Path) -> None:
        """All before a bad vote is durable, and the line says where to go on."""
        file.write_bytes(wire(VOTES[:5]) + b"\0\0")
        with served(tmp_path, 2) as servers:
            ports = [server.port for _, server in servers]
            done = run_send(file, "--spread", "letter", *to(*ports))
            assert done.exit_code == 1
            assert "byte 45: the stream ended" in done.output
            assert done.output.endswith("go on with --skip 5\n")
        assert sum(last_sequence(place) for place, _ in servers) == 5

    def test_a_stop_is_noticed(self, tmp_path: Path) -> None:
        """Ctrl-C ends it while no input comes, in a line."""
        with (
            served(tmp_path, 2) as servers,
            subprocess.Popen(
                [
                    *(*PYTHON, "alphabet.cli", "send", "-", "--spread", "round-robin"),
                    *to(*(server.port for _, server in servers)),
                ],
                cwd=ROOT,
                env=environment({}),
                stdin=subprocess.PIPE,
                stderr=subprocess.PIPE,
            ) as process,
        ):
            assert process.stdin
            assert process.stderr
            process.stdin.write(wire(VOTES[:3]))
            process.stdin.flush()
            wait_until(
                lambda: sum(last_sequence(place) for place, _ in servers) == 3,
                "the votes",
            )
            process.send_signal(signal.SIGINT)
            said = process.stderr.read().decode()
            assert process.wait(SECONDS_MAX) == 3
        assert said.startswith("alphabet: this command was stopped after 3 votes")
        assert said.count("\n") == 1

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (to(1, 2), "say how to --spread"),
            (["--to", "-", "--connector"], "--connector needs --to HOST:PORT"),
            (
                [*to(1), "--connector", "--spread", "hash", "--stream", "x" * 65_504],
                "--stream takes 1 to 65503 bytes",
            ),
            ([*to(1, 1), "--spread", "hash"], "each once"),
            (["--to", "-", *to(1), "--spread", "hash"], "each once"),
            ([*to(*range(1, 102)), "--spread", "hash"], "100 servers at most"),
            (
                [*to(1, 2), "--spread", "hash", "--connector", "--stream-id", "4"],
                "--stream-id is for one server",
            ),
        ],
    )
    def test_what_makes_no_sense_is_usage(self, words: list[str], said: str) -> None:
        """Servers that cannot be spread over are refused before anything is done."""
        done = run_send("--random", "--messages", 1, *words)
        assert (done.exit_code, said in done.output) == (2, True), done.output


def wait_for(place: Path, goal: int, process: subprocess.Popen[str]) -> None:
    """Wait until a log has so many votes, or the sender has ended."""
    wait_until(
        lambda: last_sequence(place) >= goal or process.poll() is not None,
        f"{goal} votes",
    )


class TestStreams:
    """With --connector: a stream for each server."""

    @staticmethod
    def started(place: Path, port: int) -> contextlib.AbstractContextManager[Server]:
        """Give a server that is ready, at a port that is known before."""
        return serving(place, "--connector-in", f"127.0.0.1:{port}")

    @pytest.mark.parametrize(
        ("way", "seed"),
        [
            (way, seed)
            for way in (WAYS if IS_SOAK else WAYS[2:])
            for seed in range(20 if IS_SOAK else 1)
        ],
    )
    def test_every_vote_counts_once(
        self, tmp_path: Path, file: Path, way: Way, seed: int
    ) -> None:
        """Servers and sender are killed in mid-stream: each log has its share once."""
        chance = random.Random(seed)
        ports = [free_port(), free_port()]
        places = [tmp_path / "0", tmp_path / "1"]
        words = [
            *(*PYTHON, "alphabet.cli", "send", "--connector", str(file)),
            *("--spread", way, "--rate", "40000", *to(*ports)),
        ]

        def begin() -> subprocess.Popen[str]:
            return stack.enter_context(
                subprocess.Popen(
                    words,
                    cwd=ROOT,
                    env=environment({}),
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    text=True,
                )
            )

        with contextlib.ExitStack() as stack:
            servers = []
            for place, port in zip(places, ports, strict=True):
                place.mkdir()
                servers.append(stack.enter_context(self.started(place, port)))
            process = begin()
            for victim in ("server", "sender", "both"):
                number = chance.randrange(2)
                goal = last_sequence(places[number]) + chance.randrange(1, 3000)
                wait_for(places[number], goal, process)
                if victim != "server":
                    process.kill()
                    process.wait()
                if victim != "sender":
                    servers[number].kill()
                    servers[number] = stack.enter_context(
                        self.started(places[number], ports[number])
                    )
                if victim != "server":
                    process = begin()
            out, _ = process.communicate(timeout=SECONDS_MAX)
            assert process.returncode == 0
            assert out.endswith("there already, all durable\n")
            again = run_send(file, "--connector", "--spread", way, *to(*ports))
            told = f"sent 0 votes to 2 servers, {len(VOTES)} were there already, "
            assert again.output == told + "all durable\n"
        for place, share in zip(places, shares_of(way, 2, wire(VOTES)), strict=True):
            assert records(place) == share

    def test_a_server_that_stays_away_is_named(
        self, tmp_path: Path, file: Path
    ) -> None:
        """One is given up in a line; what went to the others is not sent again."""
        ports = [free_port(), free_port()]
        words = (file, "--connector", "--spread", "letter", *to(*ports))
        (tmp_path / "0").mkdir()
        (tmp_path / "1").mkdir()
        shares = shares_of("letter", 2, wire(VOTES))
        with self.started(tmp_path / "0", ports[0]):
            done = run_send(*words, "--silence-seconds", 0.3)
            assert done.exit_code == 3
            *_, last = done.output.splitlines()
            assert f"127.0.0.1:{ports[1]} cannot be reached (" in last
            assert last.endswith("for 0.3 seconds; nothing was sent")
            there = last_sequence(tmp_path / "0")
            assert records(tmp_path / "0") == shares[0][: 5 * there]
            with self.started(tmp_path / "1", ports[1]):
                done = run_send(*words)
            assert f", {there} were there already, all durable" in done.output
            # The first server has more than it is given before the second is given up.
            done = run_send(*words, "--silence-seconds", 0.3)
            assert done.exit_code == 3
            assert "the input ends" not in done.output
        for number in (0, 1):
            assert records(tmp_path / str(number)) == shares[number]

    def test_a_shorter_input_is_refused(self, tmp_path: Path, file: Path) -> None:
        """An input that ends before what a server has of its share is another one."""
        port = free_port()
        words = (file, "--connector", "--stream", "s", "--spread", "letter", *to(port))
        with self.started(tmp_path, port):
            assert run_send(*words).exit_code == 0
            file.write_bytes(wire(VOTES[:9]))
            done = run_send(*words)
            assert done.exit_code == 1
            assert "the input ends at byte 81, but the server has it" in done.output
            file.write_bytes(wire(VOTES) + b"\0\0")
            done = run_send(*words)
            assert done.exit_code == 1
            assert f"{len(VOTES)} votes are durable, all before that" in done.output
        assert records(tmp_path) == payloads(VOTES)

    def test_the_list_is_part_of_the_name(self, tmp_path: Path, file: Path) -> None:
        """Spread in another way, over as many servers, the votes are other streams."""
        port = free_port()
        with self.started(tmp_path, port):
            for way in WAYS:
                words = (file, "--connector", "--spread", way, *to(port))
                told = f"sent {len(VOTES)} votes to 1 server, 0 were there already, "
                assert run_send(*words).output.startswith(told)
        assert last_sequence(tmp_path) == 3 * len(VOTES)
