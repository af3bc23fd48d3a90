"""Everything at once, for as long as one likes.

One server, on a small disk of its own where there may be one. Votes come by both kinds
of source and go to both kinds of sink; pests pester it; every few seconds something is
killed, frozen, cut, stalled or filled up; our own tools look on. What was promised is
checked after each blow, memory and open files all the time, and in the end every vote
and every output is.

What repeats with a seed is what is sent and what strikes; where a blow finds a process
is a matter of timing.
"""

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import attrs

from tests import endurance_books as books
from tests import loop_disk, witness
from tests.campaign import Program
from tests.inspection import cursors, last_sequence, points, records, rejects, verify
from tests.inspection import totals as printed_totals
from tests.pests import Pests
from tests.process import (
    PYTHON,
    SECONDS_MAX,
    Server,
    environment,
    free_port,
    wait_until,
)
from tests.receiving import Receiver
from tests.relay import Relay
from tests.votes import OUTPUT_BYTES, frame, make_votes, wire

RATE = 3000
"""Votes a second of each stream."""
STREAMS = ("stream0", "stream1")
PLAIN_LETTER = b"P"
PLAIN_VOTES = 50
PLAIN_PAUSE_SECONDS = 0.1
SAMPLE_SECONDS = 1.0
FREEZE_SECONDS_MAX = 3.0
FULL_SECONDS = 2.5
PAUSE_SECONDS_MAX = 6.0
FINISH_SECONDS_MAX = 300.0
REJECTS_KEPT_MAX = 10_000
ANONYMOUS_BYTES_MAX = 150_000_000
RECEIVER = "receiver"
PLAIN, DEAF, ONCE = "plain", "deaf", "once"
TOOLS = (
    ("state",),
    ("info",),
    ("verify", "--bytes-only"),
    ("snapshots",),
    ("rejects",),
    ("events", "--last", "100"),
)


@attrs.define
class Findings:
    """What a run has seen, for its report.

    Attributes:
        blows: How often each came.
        ready_seconds: From each start of the server to its ready line.
        anonymous_bytes: Its own memory, each second.
        files: How many descriptors it had open, each second.
        log_bytes: The length of the log's file in the end.
        events: How many there were.
        uncertain: Votes that counted though their plain sender had no receipt.
        repeated: Outputs that came again to the plain receiver.
        rejects: How many the log has kept.
        seconds: How long it took, with all checks.
    """

    blows: Counter[str] = attrs.Factory(Counter)
    ready_seconds: list[float] = attrs.Factory(list)
    anonymous_bytes: list[int] = attrs.Factory(list)
    files: list[int] = attrs.Factory(list)
    log_bytes: int = 0
    events: int = 0
    uncertain: int = 0
    repeated: int = 0
    rejects: int = 0
    seconds: float = 0.0


@attrs.define(eq=False)
class Endurance:
    """A run of so many seconds; `disk` is where the data directory is."""

    place: Path
    disk: Path
    seed: int
    seconds: float
    chance: random.Random = attrs.field(init=False)
    found: Findings = attrs.field(factory=Findings, init=False)
    submissions: list[books.Submission] = attrs.field(factory=list, init=False)
    programs: dict[str, Program] = attrs.field(factory=dict, init=False)
    tools: list[subprocess.Popen[bytes]] = attrs.field(factory=list, init=False)
    done: set[str] = attrs.field(factory=set, init=False)
    """Streams whose senders have said that all is durable."""
    server: Server | None = attrs.field(default=None, init=False)
    port: int = attrs.field(factory=free_port, init=False)
    connector_port: int = attrs.field(factory=free_port, init=False)
    receiver_port: int = attrs.field(factory=free_port, init=False)
    way_in: Relay = attrs.field(factory=Relay, init=False)
    way_out: Relay = attrs.field(factory=Relay, init=False)
    plain: Receiver = attrs.field(factory=Receiver, init=False)
    deaf: Receiver = attrs.field(factory=lambda: Receiver(is_stalled=True), init=False)
    _ending: threading.Event = attrs.field(factory=threading.Event, init=False)
    _failures: list[BaseException] = attrs.field(factory=list, init=False)

    def __attrs_post_init__(self) -> None:
        """Draw from the seed."""
        self.chance = random.Random(self.seed)

    @property
    def output(self) -> Path:
        """The file of the receiver that takes part."""
        return self.place / "outputs"

    def run(self) -> None:
        """Go through it all, then check everything."""
        started = time.monotonic()
        self._write_streams()
        threads = [
            threading.Thread(target=self._guard, args=(each,), daemon=True)
            for each in (self._send_plainly, self._sample)
        ]
        pests = Pests(self.port, self.connector_port, self.seed)
        with self.way_in, self.way_out, self.plain, self.deaf:
            try:
                self.way_in.lead_to(self.connector_port)
                self.way_out.lead_to(self.receiver_port)
                self._mend()
                for thread in threads:
                    thread.start()
                with pests:
                    self._suffer(started + self.seconds)
                self._ending.set()
                for thread in threads:
                    thread.join()
                self._finish()
            finally:
                self._ending.set()
                self._kill_all()
        self._check_books()
        visits = {f"visits to {name}": n for name, n in pests.visits.items()}
        self.found.blows.update(visits)
        self.found.seconds = time.monotonic() - started

    def _write_streams(self) -> None:
        count = max(1000, int(RATE * self.seconds * 0.9))
        for number, name in enumerate(STREAMS):
            drawn = make_votes(random.Random(self.seed + number), count, 13)
            first = 97 + 13 * number
            votes = ((bytes([letter[0] - 97 + first]), n) for letter, n in drawn)
            (self.place / name).write_bytes(wire(votes))

    def _suffer(self, until: float) -> None:
        blows: dict[Callable[[], None], float] = {
            self.kill_server: 5,
            self.stop_server: 1,
            self.freeze_server: 1,
            self.kill_receiver: 2,
            self.freeze_receiver: 1,
            self.kill_senders: 2,
            self.kill_everybody: 1,
            self.cut: 3,
            self.stall: 1,
            self.reset_plain_receiver: 2,
            self.start_tools: 4,
            self.kill_tools: 2,
            self.fill_disk: 1,
        }
        while time.monotonic() < until:
            self._ending.wait(self.chance.random() * PAUSE_SECONDS_MAX)
            [blow] = self.chance.choices([*blows], [*blows.values()])
            self.found.blows[blow.__name__.replace("_", " ")] += 1
            blow()
            self._check_promises()
            self._mend()

    def kill_server(self) -> None:
        """End the server at once."""
        self._server.kill()

    def stop_server(self) -> None:
        """End the server in good order."""
        assert self._server.stop() == 0, self._server.said()[-5:]

    def freeze_server(self) -> None:
        """Let the server's time stand still."""
        self._freeze(self._server.pid)

    def kill_receiver(self) -> None:
        """End the receiver that takes part."""
        self.programs[RECEIVER].kill()

    def freeze_receiver(self) -> None:
        """Let its time stand still."""
        self._freeze(self.programs[RECEIVER].process.pid)

    def kill_senders(self) -> None:
        """End the senders at once."""
        for name in STREAMS:
            self.programs[name].kill()

    def kill_everybody(self) -> None:
        """End all that take part, at once."""
        self.kill_server()
        self.kill_receiver()
        self.kill_senders()

    def cut(self) -> None:
        """Cut the connections on one side."""
        self.chance.choice([self.way_in, self.way_out]).cut()

    def stall(self) -> None:
        """Let nothing through on one side for a while."""
        way = self.chance.choice([self.way_in, self.way_out])
        way.stall()
        time.sleep(self.chance.random() * FREEZE_SECONDS_MAX)
        way.go_on()

    def reset_plain_receiver(self) -> None:
        """Let the plain receiver die with bytes unread.

        It has all again before anything else strikes: that it dies together with the
        server is what plain TCP cannot make good.
        """
        self.plain.stall()
        time.sleep(self.chance.random())
        self.plain.leave(with_reset=True)
        self.plain.go_on()
        count = len(self.plain.connections)
        self.plain.come_back()
        wait_until(lambda: len(self.plain.connections) > count, "a connection")
        self._await_plain(last_sequence(self.disk))

    def start_tools(self) -> None:
        """Look at the log beside the server, and copy it."""
        self.tools = [tool for tool in self.tools if tool.poll() is None]
        for words in self.chance.sample(TOOLS, k=2):
            self._start_tool(*words)
        if not self.tools or self.chance.random() < 1 / 2:
            number = sum(self.found.blows.values())
            shutil.rmtree(self.place / "backup", ignore_errors=True)
            (self.place / "backup").mkdir()
            self._start_tool("backup", to=self.place / "backup" / str(number))

    def kill_tools(self) -> None:
        """End the tools in the middle of their work."""
        for tool in self.tools:
            tool.kill()

    def fill_disk(self) -> None:
        """Leave no room on the server's disk for a while."""
        if self.disk == self.place:
            return
        ballast = self.disk / "ballast"
        loop_disk.fill(ballast)
        try:
            time.sleep(FULL_SECONDS)
        finally:
            ballast.unlink()

    @property
    def _server(self) -> Server:
        assert self.server is not None
        return self.server

    def _start_tool(self, command: str, *words: str, to: Path | None = None) -> None:
        places = [self.disk / "data", *([to] if to else [])]
        with (self.place / "tools.said").open("ab") as said:
            self.tools.append(
                subprocess.Popen(
                    [*PYTHON, "recovery.cli", command, *map(str, places), *words],
                    env=environment({}),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=said,
                )
            )

    def _freeze(self, pid: int) -> None:
        os.kill(pid, signal.SIGSTOP)
        time.sleep(self.chance.random() * FREEZE_SECONDS_MAX)
        os.kill(pid, signal.SIGCONT)

    def _mend(self) -> None:
        """Start whoever is not there."""
        assert not self._failures, self._failures[0]
        if self.server is None or not self.server.is_running:
            self._check_end(self.server)
            started = time.monotonic()
            self.server = self._start_server().wait_ready()
            self.found.ready_seconds.append(time.monotonic() - started)
        for name in (RECEIVER, *STREAMS):
            program = self.programs.get(name)
            if name in self.done or (program is not None and program.is_running):
                continue
            if program is not None and program.process.returncode == 0:
                self.done.add(name)
            else:
                self.programs[name] = self._start(name)

    def _check_end(self, server: Server | None) -> None:
        """See to a server that has ended: only by our hand, or in good order."""
        if server is not None:
            code = server.process.returncode
            said = server.stderr.read_text()[-2000:]
            assert code in {0, -signal.SIGKILL}, f"it ended with {code}: {said}"
            for file in (server.stdout, server.stderr):
                file.write_text("")

    def _start_server(self) -> Server:
        words: list[object] = ["--in", f"127.0.0.1:{self.port}"]
        words += ["--connector-in", f"127.0.0.1:{self.connector_port}"]
        words += ["--data-dir", self.disk / "data"]
        words += ["--out", f"{PLAIN}@{self.plain.address}"]
        words += ["--out", f"{DEAF}@{self.deaf.address}"]
        words += ["--connector-out", f"{ONCE}@{self.way_out.address}"]
        words += ["--snapshot-every", 20_000, "--partial-frame-seconds", 5]
        return Server.start(self.place, *words, "--drain-seconds", 0.5, is_bare=True)

    def _start(self, name: str) -> Program:
        words: list[object]
        if name == RECEIVER:
            words = ["receive", "--connector", "--output", self.output]
            words += ["--listen", f"127.0.0.1:{self.receiver_port}"]
        else:
            words = ["send", self.place / name, "--connector", "--stream", name]
            words += ["--to", self.way_in.address, "--instance", name]
            words += [] if self._ending.is_set() else ["--rate", RATE]
        for file in self.place.glob(f"{name}.*.said"):
            file.write_bytes(b"")
        return Program.start(self.place, name, *words, variables={})

    def _send_plainly(self) -> None:
        """Send votes that know their number, and note which had a receipt."""
        while not self._ending.wait(PLAIN_PAUSE_SECONDS):
            first = 1 + len(self.submissions) * PLAIN_VOTES
            numbers = range(first, first + PLAIN_VOTES)
            votes = [frame(PLAIN_LETTER + n.to_bytes(4)) for n in numbers]
            with contextlib.suppress(ConnectionRefusedError):
                receipt = submit_slowly(self.port, votes, PLAIN_PAUSE_SECONDS / 10)
                self.submissions.append(
                    books.Submission(first, PLAIN_VOTES, has_receipt=receipt)
                )

    def _sample(self) -> None:
        """Look at the server's memory and open files."""
        while not self._ending.wait(SAMPLE_SECONDS):
            server = self.server
            if server is None or not server.is_running:
                continue
            with contextlib.suppress(OSError, ValueError):
                self.found.anonymous_bytes.append(server.anonymous_bytes())
                files = [*Path(f"/proc/{server.pid}/fd").iterdir()]
                self.found.files.append(len(files))

    def _guard(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - `_mend` raises it
            self._failures.append(error)

    def _await_plain(self, sequence: int) -> None:
        """Wait until the plain receiver's TCP has acknowledged so many events."""
        wait_until(
            lambda: cursors(self.disk)[PLAIN].sequence >= sequence,
            f"the plain receiver at event {sequence}",
        )

    def _finish(self) -> None:
        """Let all go on in peace until everything is through."""
        for name in STREAMS:
            if name not in self.done:
                self.programs[name].kill()
        until = time.monotonic() + FINISH_SECONDS_MAX
        while not self._is_through():
            assert time.monotonic() < until, f"in vain: {sorted(self.done)} are done"
            self._mend()
            time.sleep(1 / 10)
        self._check_promises()
        self._await_plain(last_sequence(self.disk))
        assert self._server.stop() == 0, self._server.said()[-5:]
        assert self.programs[RECEIVER].stop() == 0, self.programs[RECEIVER].said()
        self.plain.wait_hung_up()

    def _is_through(self) -> bool:
        if self.done != set(STREAMS):
            return False
        final_bytes = cursors(self.disk)[ONCE].offset
        return final_bytes >= last_sequence(self.disk) * OUTPUT_BYTES

    def _kill_all(self) -> None:
        for program in [self.server, *self.programs.values()]:
            if program is not None:
                program.kill()
        for tool in self.tools:
            tool.kill()
            tool.wait()

    def _check_promises(self) -> None:
        """What has been said is in the log: the server may die at any instant."""
        said_back = [bytes(link.back.said) for link in self.way_in.links]
        said_on = [bytes(link.onward.said) for link in self.way_out.links]
        stored = {each.stream_id: each.message_id for each in points(self.disk)}
        for stream, point in witness.acknowledged(said_back).items():
            assert point <= stored.get(stream, -1), (
                f"{point} of {stream} was acknowledged, stored are {stored}"
            )
        assert witness.shown(said_on) <= last_sequence(self.disk) * OUTPUT_BYTES
        assert witness.decided(said_on) <= cursors(self.disk)[ONCE].offset
        self.way_in.forget()
        self.way_out.forget()
        assert max(self.found.anonymous_bytes, default=0) < ANONYMOUS_BYTES_MAX

    def _check_books(self) -> None:
        """Hold every vote, every output and every row to what was sent."""
        votes = books.votes_of(records(self.disk))
        expected = books.outputs_of(votes)
        found = self.found
        found.events = len(votes)
        streamed = sum(
            books.check_stream(votes, books.framed_votes_of(self.place / name))
            for name in STREAMS
        )
        found.uncertain = books.check_submissions(votes, PLAIN_LETTER, self.submissions)
        plain = int((votes["letter"] == ord(PLAIN_LETTER)).sum())
        assert streamed + plain == len(votes), "votes that nobody sent"
        assert self.output.read_bytes() == expected, "the outputs that come once"
        found.repeated = books.check_connections(self.plain.connections, expected)
        assert printed_totals(self.disk) == books.totals_of(votes)
        checked = verify(self.disk)
        assert checked["ok"], checked
        found.rejects = len(rejects(self.disk))
        assert found.rejects <= REJECTS_KEPT_MAX
        found.log_bytes = (self.disk / "data" / "log" / "data.mdb").stat().st_size


def submit_slowly(port: int, pieces: Sequence[bytes], pause_seconds: float) -> bool:
    """Send pieces, half-close, and say whether the server's receipt came.

    Raises ConnectionRefusedError where nobody listens: then nothing was sent.
    """
    with socket.create_connection(("127.0.0.1", port), SECONDS_MAX) as sender:
        try:
            for piece in pieces:
                sender.sendall(piece)
                time.sleep(pause_seconds)
            sender.shutdown(socket.SHUT_WR)
            return sender.recv(1) == b""
        except OSError:
            return False
