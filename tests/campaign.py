"""Rounds of the campaign: everything is killed, cut and stalled, and nothing is lost.

A round is made of its seed: what is sent, what strikes whom, and when. Programs are
real processes, and `Relay`s the network between them. After each blow whoever is dead
is started again; in the end all may finish in peace, and everything is looked at. What
repeats is the plan; where in its work a blow finds a process is a matter of timing.
"""

import random
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Self

import attrs

from alphabet.receiving.file_sink import FileSink
from tests import witness
from tests.blows import (
    BLOW_SECONDS_MAX,
    RECEIVER,
    SERVER,
    Blow,
    failpoints_of,
    plan,
)
from tests.inspection import (
    cursors,
    last_sequence,
    points,
    records,
    totals,
    verify,
)
from tests.process import (
    PYTHON,
    SECONDS_MAX,
    Server,
    environment,
    wait_until,
)
from tests.relay import Relay
from tests.votes import (
    OUTPUT_BYTES,
    Vote,
    make_votes,
    outputs,
    payloads,
    tally,
    wire,
)

FINISH_SECONDS_MAX = 120.0
"""How long it may take to start everything again, and to get through."""
FLOW_SECONDS_MAX = 0.5
"""How long a blow waits at most for votes on their way, or for an armed death."""
STALL_SECONDS_MAX = 0.2
RECORD_BYTES = 5
PIECE_BYTES = (1, 7, 100, 1000, 1 << 16)
LETTERS = b"abcdefghijklmnopqrstuvwxyz"


@attrs.define(eq=False)
class Program:
    """One of our commands as a process; what it says is kept in one file."""

    process: subprocess.Popen[bytes]
    file: Path

    @classmethod
    def start(
        cls, place: Path, name: str, *words: object, variables: Mapping[str, str]
    ) -> Self:
        """Start `alphabet` with these words."""
        file = place / f"{name}.{len(list(place.glob(f'{name}.*')))}.said"
        with file.open("wb") as said:
            process = subprocess.Popen(
                [*PYTHON, "alphabet.cli", *map(str, words)],
                cwd=place,
                env=environment(variables),
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
            )
        return cls(process, file)

    def lines(self) -> list[str]:
        """Give what it said."""
        return self.file.read_text(errors="replace").splitlines()

    said = lines

    @property
    def is_running(self) -> bool:
        """Say whether the process is there."""
        return self.process.poll() is None

    def stop(self) -> int:
        """Ask it to end; give its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(SECONDS_MAX)

    def kill(self) -> None:
        """End it at once."""
        self.process.kill()
        self.process.wait(SECONDS_MAX)


def port_of(program: Program | Server, part: str) -> int | None:
    """Give the port that a program says it listens on, if it has said so."""
    for line in [*program.lines(), *program.said()]:
        if line.startswith(f"listening {part} "):
            return int(line.rpartition(":")[2])
    return None


@attrs.frozen
class Stream:
    """What one sender sends; no two streams have a letter in common."""

    name: str
    file: Path
    votes: Sequence[Vote]

    @property
    def letters(self) -> set[bytes]:
        """Whose votes are this stream's."""
        return {letter for letter, _ in self.votes}


def make_streams(
    chance: random.Random, place: Path, count: int, votes: int
) -> list[Stream]:
    """Write the files of some streams."""
    made = []
    size = len(LETTERS) // count
    for number in range(count):
        first = LETTERS[number * size]
        drawn = make_votes(chance, votes, size)
        mapped = [(bytes([letter[0] - 97 + first]), n) for letter, n in drawn]
        file = place / f"votes{number}"
        file.write_bytes(wire(mapped))
        made.append(Stream(f"sender{number}", file, mapped))
    return made


@attrs.define(eq=False)
class ConnectorRound:
    """Senders, a server and a receiver that speak the connector protocol."""

    place: Path
    streams: Sequence[Stream]
    blows: Sequence[Blow]
    first_armed: Mapping[str, str]
    piece_bytes: int
    server_words: Sequence[object]
    is_same_instance: bool
    """Whether a sender that is started again takes over from itself."""
    way_in: Relay = attrs.field(factory=Relay, init=False)
    way_out: Relay = attrs.field(factory=Relay, init=False)
    programs: dict[str, Program | Server] = attrs.field(factory=dict, init=False)
    done: set[str] = attrs.field(factory=set, init=False)
    """Senders that have said that all is durable."""
    to_arm: dict[str, str] = attrs.field(factory=dict, init=False)
    """Where processes that are started next are to die."""
    armed: dict[str, str] = attrs.field(factory=dict, init=False)
    """Where processes that are there are to die."""
    deaths: list[str] = attrs.field(factory=list, init=False)
    """Failpoints at which a process has died."""
    told: list[str] = attrs.field(factory=list, init=False)
    """What has happened, for whoever reads of a failure."""

    @classmethod
    def from_seed(cls, seed: int, place: Path, *, is_long: bool = False) -> Self:
        """Make a round; seeds that follow each other go through all failpoints."""
        chance = random.Random(seed)
        count = chance.choice([1, 1, 2, 3])
        votes = chance.choice([100, 3000, 20_000]) // count
        streams = make_streams(chance, place, count, votes)
        armed = {}
        for name, point in failpoints_of(seed).items():
            turns = 15 if point.startswith("commit") else 3
            armed[name] = f"{point}:{chance.randrange(1, turns)}"
        # These come at a file's making, and then no more, or not for long.
        first = {
            name: point.partition(":")[0]
            for name, point in armed.items()
            if point.startswith("create") or "log_rename" in point
        }
        armed = {name: point for name, point in armed.items() if name not in first}
        names = [SERVER, RECEIVER, *(stream.name for stream in streams)]
        return cls(
            place,
            streams,
            plan(chance, names, armed, chance.randrange(2, 12 if is_long else 4)),
            first,
            chance.choice(PIECE_BYTES),
            ["--snapshot-every", chance.choice([1, 500]), "--drain-seconds", 0.5],
            chance.choice([False, True]),
        )

    @property
    def output(self) -> Path:
        """The receiver's file."""
        return self.place / "outputs"

    @property
    def _ways(self) -> dict[str, Relay]:
        return {"in": self.way_in, "out": self.way_out}

    @property
    def output_bytes(self) -> int:
        """How long it is in the end."""
        return sum(len(stream.votes) for stream in self.streams) * OUTPUT_BYTES

    def run(self) -> None:
        """Go through all blows, then let everything finish, and look at it."""
        with self.way_in, self.way_out:
            try:
                self._suffer()
                self._finish()
            finally:
                for program in self.programs.values():
                    program.kill()
        self._check_all()

    def _suffer(self) -> None:
        self.to_arm.update(self.first_armed)
        self.way_in.allow(0)
        self.way_in.piece_bytes = self.way_out.piece_bytes = self.piece_bytes
        left = sum(stream.file.stat().st_size for stream in self.streams) * 4
        for blow in self.blows:
            self._mend()
            for way, number in blow.fragile.items():
                self._ways[way].cut_at_answer(number)
            granted = int(left * blow.share)
            left -= granted
            at_bytes = self.way_in.onward_bytes + int(granted * blow.wait_share)
            self.way_in.allow(granted)
            self._await_flow(at_bytes)
            time.sleep(blow.wait_seconds)
            self._strike(blow)
            self._check_promises()

    def _await_flow(self, at_bytes: int) -> None:
        """Wait a while for so many bytes, and for the deaths of those armed."""
        until = time.monotonic() + FLOW_SECONDS_MAX
        while time.monotonic() < until:
            is_alive = {name: each.is_running for name, each in self.programs.items()}
            if not all(is_alive[name] for name in self.armed):
                return
            if not self.armed and self.way_in.onward_bytes >= at_bytes:
                return
            time.sleep(0.003)

    def _strike(self, blow: Blow) -> None:
        ways = self._ways
        stalled = []
        for way, what in blow.ill:
            self._tell(f"{what} {way}")
            if what == "cut":
                ways[way].cut()
            else:
                ways[way].stall()
                stalled.append(ways[way])
        if stalled:
            time.sleep(blow.wait_seconds * STALL_SECONDS_MAX / BLOW_SECONDS_MAX)
        for name in blow.stopped:
            self._tell(f"stop {name}")
            self._stop(name)
        for name in blow.killed:
            if name in self.programs and name not in self.done:
                self._note_end(name)
                self._tell(f"kill {name}")
                self.programs[name].process.kill()
        for name in blow.killed:
            if name in self.programs and name not in self.done:
                self.programs[name].kill()
                self.armed.pop(name, None)
        for way_stalled in stalled:
            way_stalled.go_on()
        self.to_arm.update(blow.armed)

    def _mend(self) -> None:
        """Start whoever is not there, and lead the network to them."""
        started = []
        for name in (SERVER, RECEIVER, *(stream.name for stream in self.streams)):
            self._note_end(name)
            if name in self.done:
                continue
            program = self.programs.get(name)
            if program is None or not program.is_running:
                started.append(name)
                self.programs[name] = self._start(name)
        if RECEIVER in started:
            self.way_out.lead_to(self._await_port(RECEIVER, "in"))
        if SERVER in started:
            self.way_in.lead_to(self._await_port(SERVER, "connector-in"))

    def _note_end(self, name: str) -> None:
        """See to a process that has ended by itself: only some ends are right."""
        program = self.programs.get(name)
        if program is None or program.is_running or name in self.done:
            return
        code = program.process.returncode
        if code == 0 and name not in {SERVER, RECEIVER}:
            self._tell(f"{name} is done")
            self._check_durable(name)
            self.done.add(name)
            return
        assert code == -signal.SIGKILL, f"{name} ended with {code}: {program.said()}"
        if name in self.armed:
            self._tell(f"{name} died at {self.armed[name]}")
            self.deaths.append(self.armed.pop(name))

    def _start(self, name: str) -> Program | Server:
        variables = {}
        if name in self.to_arm:
            self.armed[name] = variables["ALPHABET_FAILPOINT"] = self.to_arm.pop(name)
        self._tell(f"start {name} {variables}")
        if name == SERVER:
            return Server.start(
                self.place,
                "--connector-in",
                "127.0.0.1:0",
                "--connector-out",
                self.way_out.address,
                *self.server_words,
                variables=variables,
            )
        if name == RECEIVER:
            words: list[object] = ["receive", "--connector", "--output", self.output]
            words += ["--listen", "127.0.0.1:0"]
        else:
            [stream] = [each for each in self.streams if each.name == name]
            words = ["send", stream.file, "--connector", "--stream", stream.name]
            words += ["--to", self.way_in.address]
            words += ["--instance", name] if self.is_same_instance else []
        return Program.start(self.place, name, *words, variables=variables)

    def _await_port(self, name: str, part: str) -> int | None:
        program = self.programs[name]
        wait_until(
            lambda: port_of(program, part) or not program.is_running,
            f"{name} listens, which said {program.said()}",
        )
        return port_of(program, part)

    def _finish(self) -> None:
        """Let all go on in peace until everything is through."""
        self._tell("finish")
        for way in (self.way_in, self.way_out):
            way.allow(None)
            way.piece_bytes = 1 << 16
        until = time.monotonic() + FINISH_SECONDS_MAX
        while not self._is_through():
            assert time.monotonic() < until, self._standing()
            self._mend()
            time.sleep(0.01)
        self._check_promises()
        for name in (SERVER, RECEIVER):
            self._stop(name)

    def _stop(self, name: str) -> None:
        """End a process in good order, unless it dies where it was told to."""
        program = self.programs.pop(name)
        code = program.stop()
        is_armed = self.armed.pop(name, None) is not None
        is_fine = code == 0 or (code == -signal.SIGKILL and is_armed)
        assert is_fine, f"{name}: {code}: {program.said()}"

    def _is_through(self) -> bool:
        """Say whether all is sent, received, and decided to be final."""
        is_sent = len(self.done) == len(self.streams)
        is_received = self._received_bytes() >= self.output_bytes
        return is_sent and is_received and self._decided_bytes() >= self.output_bytes

    def _decided_bytes(self) -> int:
        return cursors(self.place)["out"].offset

    def _received_bytes(self) -> int:
        return self.output.stat().st_size if self.output.exists() else 0

    def _standing(self) -> str:
        return (
            f"in vain: {sorted(self.done)} are done, the log has"
            f" {last_sequence(self.place)} events, the receiver"
            f" {self._received_bytes()} of {self.output_bytes} bytes; {self.told}"
        )

    def _tell(self, line: str) -> None:
        self.told.append(line)

    def _check_promises(self) -> None:
        """What has been said is in the log: the server may die at any instant."""
        said_back = [bytes(link.back.said) for link in self.way_in.links]
        said_on = [bytes(link.onward.said) for link in self.way_out.links]
        if not (said_back or said_on):
            return
        stored = {each.stream_id: each.message_id for each in points(self.place)}
        for stream, point in witness.acknowledged(said_back).items():
            assert point <= stored.get(stream, -1), (
                f"{point} of {stream} was acknowledged, stored are {stored}"
            )
        shown = witness.shown(said_on)
        assert shown <= last_sequence(self.place) * OUTPUT_BYTES, (
            f"{shown} bytes have left of {last_sequence(self.place)} durable events"
        )
        decided = witness.decided(said_on)
        if decided:
            stored_bytes = cursors(self.place)["out"].offset
            assert decided <= stored_bytes, (
                f"a commit to {decided} was told, stored is {stored_bytes}"
            )

    def _check_durable(self, name: str) -> None:
        """All of a stream whose sender has ended is in the log."""
        [stream] = [each for each in self.streams if each.name == name]
        assert self._logged(stream) == payloads(stream.votes), (
            f"{name} said that all is durable"
        )

    def _logged(self, stream: Stream) -> bytes:
        """Give the records of one stream, as they stand in the log."""
        letters = stream.letters
        return b"".join(
            record for record in _cut(records(self.place)) if record[:1] in letters
        )

    def _check_all(self) -> None:
        found = [_vote(record) for record in _cut(records(self.place))]
        assert len(found) == sum(len(stream.votes) for stream in self.streams)
        for stream in self.streams:
            self._check_durable(stream.name)
        assert self.output.read_bytes() == outputs(found)
        # Opening cuts off what is not final.
        FileSink.open(self.output).close()
        assert self.output.stat().st_size == self.output_bytes
        votes = [vote for stream in self.streams for vote in stream.votes]
        assert totals(self.place) == tally(votes)
        checked = verify(self.place)
        assert checked["ok"], checked


def _cut(data: bytes) -> Iterator[bytes]:
    for start in range(0, len(data), RECORD_BYTES):
        yield data[start : start + RECORD_BYTES]


def _vote(record: bytes) -> Vote:
    return record[:1], int.from_bytes(record[1:])
