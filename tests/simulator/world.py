"""The whole world of one run: a disk, a network, peers, and one server after another.

`turn` lets one thing happen, which a number chooses; `finish` lets all go well from
there on, and checks that everything has come to its end.
"""

import contextlib
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs

from alphabet.journal.entries import Entry
from alphabet.network.address import Address, NamedAddress
from alphabet.pipeline.machine import Machine
from alphabet.source.connection import Limits
from alphabet.source.inbox import ARRIVAL_BYTES
from log import failpoint
from log.errors import LogError
from log.log import Log
from log.memory_store import MemoryStore
from log.row import Meta
from recovery.snapshot_directory import SnapshotDirectory
from tests import toy
from tests.faults import Fault
from tests.simulator import twin
from tests.simulator.ledger import Disk, Ledger, LedgerStore, is_good, require
from tests.simulator.network import BUFFER_BYTES, End, Network
from tests.simulator.peers import (
    HALF_FRAME,
    OUT_PORT,
    PLAIN_PORT,
    STREAM_PORT,
    TWO_PHASE_PORT,
    Peer,
    PlainReceiver,
    PlainSender,
    StreamSender,
    TwoPhaseReceiver,
)
from tests.simulator.processor import UNBOUNDED, Clock, Killed, Process, running
from tests.simulator.system import wire

INBOX_BYTES = 100
FRAME_BYTES_MAX = 100
OUT, TWO_PHASE = "out", "two"
ROUNDS_MAX = 3000
PRESS_ROUNDS = 30
OPERATIONS = [*[UNBOUNDED] * 5, 1, 2, 3, 5, 8, 13, 21]
LATER_SECONDS = [0.0, 0.0, 0.001, 0.001, 0.5, 0.5, 0.5, 20.0]


@attrs.define
class Draw:
    """A number, taken apart into choices."""

    number: int

    def below(self, count: int) -> int:
        """Choose one of so many."""
        self.number, choice = divmod(self.number, count)
        return choice


@attrs.define
class Journal:
    """What the server of now has said."""

    hear: Callable[[str], None]

    def say(self, entry: Entry) -> None:
        """Take an entry."""
        self.hear(entry.text)


@attrs.define(eq=False)
class Directory:
    """The data directory: the log is in memory, the snapshots are files."""

    path: Path
    ledger: Ledger
    process: Process
    disk: Disk = attrs.field(init=False)
    claim: Callable[[Path], "Directory"] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        """Be the one that is claimed."""
        self.claim = lambda _: self
        inner = LedgerStore(self.ledger.disk, ledger=self.ledger)
        self.disk = Disk(inner, process=self.process)

    @property
    def snapshots_path(self) -> Path:
        """Where the snapshots are."""
        return self.path / "snapshots"

    def has_log(self) -> bool:
        """Say whether there is a log."""
        return any(self.ledger.disk.tables.values())

    @contextlib.contextmanager
    def new_log(self, meta: Meta) -> Iterator[Log]:
        """Make a log."""
        yield Log.create(MemoryStore(self.ledger.disk), meta)

    def open_log(self) -> Log:
        """Open the log."""
        return Log.open(self.disk)

    def release(self) -> None:
        """Let another have it: there is none."""


@attrs.define(eq=False)
class Life:
    """One process; `server` is there once it serves."""

    process: Process
    directory: Directory
    server: Any = None
    failure: Exception | None = None
    is_over: bool = False
    is_stopping: bool = False


@attrs.define(eq=False)
class World:
    """One run; `digest` is of all that happened, `told` the same in words."""

    path: Path
    snapshot_every: int
    told: list[str] | None = None
    clock: Clock = attrs.Factory(Clock)
    network: Network = attrs.Factory(Network)
    ledger: Ledger = attrs.Factory(Ledger)
    plain_senders: list[PlainSender] = attrs.Factory(list)
    stream_senders: list[StreamSender] = attrs.Factory(list)
    receiver: PlainReceiver = attrs.field(init=False)
    two_phase: TwoPhaseReceiver = attrs.field(init=False)
    life: Life = attrs.field(init=False)
    crashes: int = 0
    seen: dict[str, int] = attrs.Factory(dict)
    digest: Any = attrs.Factory(lambda: hashlib.blake2b(digest_size=8))

    def __attrs_post_init__(self) -> None:
        """Begin with an empty disk, and start the server."""
        self.receiver = PlainReceiver(self.ledger, self._next_start)
        self.two_phase = TwoPhaseReceiver(self.ledger, self._decided)
        self.network.dial_hooks[OUT_PORT] = self.receiver.take
        self.network.dial_hooks[TWO_PHASE_PORT] = self.two_phase.take
        wire.network = self.network
        self.start()

    def say(self, what: str) -> None:
        """Take note of what happens."""
        self.digest.update(what.encode())
        if self.told is not None:
            self.told.append(f"{self.clock.now:9.3f}  {what}")

    def count(self, what: str) -> None:
        """Take note of what kind of thing happened."""
        self.seen[what] = self.seen.get(what, 0) + 1
        self.say(what)

    def _next_start(self) -> int:
        [sink] = [each for each in self.life.server.sinks if each.name == OUT]
        offset: int = sink.delivery.cursor.offset
        return offset

    def _decided(self) -> bytes:
        return self.ledger.cursors()[TWO_PHASE].transaction_id

    def start(self) -> None:
        """Start a process."""
        process = Process(self.clock)
        running.process = process
        failpoint.handler = lambda _: process.step()
        directory = Directory(self.path, self.ledger, process)
        self.life = Life(process, directory)
        process.spawn("main", lambda: self._main(self.life))

    def _main(self, life: Life) -> None:
        code = twin.load()
        code.startup.DataDirectory = life.directory
        machine = toy.machine()
        try:
            settings = self._settings(code)
            journal = Journal(self.say)
            with code.assembly.assembled(settings, machine, journal) as server:
                self._check_start(server, machine)
                life.server = server
                server.run()
        except Killed:
            raise
        except (LogError, OSError) as error:
            life.failure = error
        life.is_over = True

    def _settings(self, code: Any) -> Any:  # noqa: ANN401
        def at(name: str, port: int) -> tuple[NamedAddress]:
            return (NamedAddress(name, Address("127.0.0.1", port)),)

        return code.assembly.Settings(
            self.path,
            inputs=at("one", PLAIN_PORT),
            connector_inputs=at("two", STREAM_PORT),
            outputs=at(OUT, OUT_PORT),
            connector_outputs=at(TWO_PHASE, TWO_PHASE_PORT),
            snapshot_every=self.snapshot_every,
            inbox_bytes=INBOX_BYTES,
            limits=Limits(frame_bytes_max=FRAME_BYTES_MAX),
        )

    def _check_start(self, server: Any, machine: Machine) -> None:  # noqa: ANN401
        """Check the state that was rebuilt, and from where."""
        fold = self.ledger.fold
        sequence = len(fold.events)
        opened = server.opened
        require(opened.log.tail.sequence == sequence, "the log is not what was stored")
        state = toy.state_bytes(machine)
        require(state == fold.states_at(sequence), "the state replayed is another")
        kept = SnapshotDirectory(opened.directory.snapshots_path).sequences()
        require(max(kept, default=0) <= sequence, "a snapshot is ahead of the log")
        is_bounded = opened.snapshot_sequence == max(kept, default=0)
        require(is_bounded, "a replay does not begin at the newest snapshot")

    def end_life(self) -> None:
        """Take a process's end, however it came, and start the next one."""
        life = self.life
        if life.is_over and not (life.directory.disk.fired or life.is_stopping):
            raise life.failure or AssertionError("the server ended by itself")
        life.process.kill()
        self.network.drop_server()
        self.receiver.server_crashed()
        self.crashes += 1
        self.start()

    def check(self) -> None:
        """Check what must be so at any time."""
        if self.life.is_over:
            self.end_life()
        server = self.life.server
        if server is None:
            return
        # Each of two receptions may have been reading when it became full.
        bound = INBOX_BYTES + 2 * (BUFFER_BYTES + 2 * ARRIVAL_BYTES)
        require(server.inbox.bytes <= bound, "the inbox is beyond its bound")
        for sink in server.sinks:
            held = sink.subscription.feed._window_bytes  # noqa: SLF001
            bound = twin.FEED_BYTES_MAX + 40 * INBOX_BYTES
            require(held <= bound, "a sink's window is beyond its bound")

    # What may happen: each takes choices from a draw, and does nothing if it cannot.

    def run_task(self, draw: Draw) -> None:
        """Let a thread go on, some way or until it waits."""
        ready = self.life.process.ready()
        if not ready:
            self.pass_time(draw)
            return
        task = ready[draw.below(len(ready))]
        operations = OPERATIONS[draw.below(len(OPERATIONS))]
        self.say(f"{task.name} runs {operations if operations < UNBOUNDED else ''}")
        self.life.process.resume(task, operations)

    def deliver(self, draw: Draw) -> None:
        """Let some bytes arrive, or be known to have arrived."""
        ends = [
            each
            for each in self.network.directions()
            if each.flight
            or each.unacknowledged
            or (each.is_finished and not each.has_finish_arrived)
        ]
        if not ends:
            self.step_peer(draw)
            return
        end = ends[draw.below(len(ends))]
        size = [BUFFER_BYTES, 1, 7, 30][draw.below(4)]
        what = "acknowledged" if draw.below(3) == 0 else "arrives"
        done = end.acknowledge() if what == "acknowledged" else end.deliver(size)
        self.say(f"connection {end.name}: {what} {size} {done}")

    def step_peer(self, draw: Draw) -> None:
        """Let a sender or a receiver do something."""
        peers: list[Peer] = [
            self.receiver,
            self.two_phase,
            *(each for each in self.plain_senders if not each.is_over),
            *(each for each in self.stream_senders if not each.is_over),
        ]
        peer = peers[draw.below(len(peers))]
        size = [40, 1, 5, 200][draw.below(4)]
        done = peer.step(size)
        self.say(f"{type(peer).__name__} {peers.index(peer)} {size} {done}")

    def pass_time(self, draw: Draw) -> None:
        """Let time pass, until something is due or for longer."""
        due = self.life.process.next_deadline()
        until = self.clock.now if due is None else max(due, self.clock.now)
        self.clock.now = (
            until + [0.0, 0.001, 0.5, 20.0][[0, 0, 1, 1, 2, 2, 2, 3][draw.below(8)]]
        )
        self.say(f"it is {self.clock.now:.3f}")

    def crash(self, _: Draw) -> None:
        """End the process, wherever it is."""
        self.count("crash")
        self.end_life()

    def fail_commit(self, draw: Draw) -> None:
        """Let one of the next commits fail."""
        fault = [*Fault][draw.below(len(Fault))]
        times = 1 + draw.below(3) if fault is Fault.FULL else 1
        self.count(f"commit {fault.name}")
        self.life.directory.disk.faults = [fault] * times

    def cut(self, draw: Draw) -> None:
        """Cut a connection, or let it stall, or go on."""
        ends = [*self.network.directions()]
        if not ends:
            return
        end = ends[draw.below(len(ends))]
        if draw.below(2):
            self.count("cut")
            end.reset()
        else:
            self.count("stall")
            end.is_stalled = not end.is_stalled

    def kill_peer(self, draw: Draw) -> None:
        """Let a sender or a receiver die, or close."""
        peers: list[Peer] = [
            self.receiver,
            self.two_phase,
            self.receiver,
            *self.plain_senders,
            *self.stream_senders,
        ]
        choice = draw.below(len(peers))
        self.count(f"{type(peers[choice]).__name__} dies")
        if choice == 0:
            self.receiver.close()
        else:
            peers[choice].cut()

    def refuse(self, draw: Draw) -> None:
        """Let a receiver be away, or say no, or be there again."""
        choice = draw.below(3)
        self.count(f"refusal {choice}")
        if choice == 0:
            self.receiver.is_away = not self.receiver.is_away
        elif choice == 1:
            self.two_phase.is_away = not self.two_phase.is_away
        else:
            self.two_phase.is_willing = not self.two_phase.is_willing

    def press(self, draw: Draw) -> None:
        """Let all be sent while a commit takes long, or a receiver does not read."""
        choice = draw.below(3)
        self.count(f"press {choice}")
        disk = self.life.directory.disk
        disk.is_slow = choice > 0
        peers: list[Peer] = [*self.plain_senders, *self.stream_senders, self.two_phase]
        for number in range(PRESS_ROUNDS):
            if number == PRESS_ROUNDS // 2 and choice > 1:
                self.two_phase.cut()
            self._go_on(peers)
            self.check()
        disk.is_slow = False

    def set_clock(self, draw: Draw) -> None:
        """Let the wall clock jump."""
        self.count("clock")
        self.clock.wall_offset += [-3600.0, -1.0, 5.0, 86400.0][draw.below(4)]

    def stop(self, _: Draw) -> None:
        """Ask the server to stop in good order."""
        if self.life.server is not None:
            self.count("stop")
            self.life.is_stopping = True
            self.life.server.stop()

    def flow(self, draw: Draw) -> None:
        """Let everybody go on, but for those who stall or read nothing just now."""
        self.say("all go on")
        for end in self.network.directions():
            self._flow_through(end)
        peers: list[Peer] = [*self.plain_senders, *self.stream_senders]
        if draw.below(2):
            peers.append(self.two_phase)
        if draw.below(4) == 0:
            peers.append(self.receiver)
        for peer in peers:
            peer.step(BUFFER_BYTES)
        ready = self.life.process.ready()
        first = draw.below(len(ready)) if ready else 0
        for task in ready[first:] + ready[:first]:
            self.life.process.resume(task)

    def _flow_through(self, end: End) -> bool:
        is_moved = end.deliver(BUFFER_BYTES)
        return end.acknowledge() or is_moved

    # How it ends.

    def close(self) -> None:
        """End the last process, whatever it does."""
        self.life.process.kill()
        failpoint.handler = None

    def finish(self) -> None:
        """Let all go well until nothing is left to do; stop, and start once more."""
        self.count("finish")
        self._let_in()
        if self.life.is_stopping or self.life.directory.disk.is_unknown:
            self._settle(lambda: self.life.is_over)
            self.check()
        self._send_late()
        self.life.is_stopping = True
        self.life.server.stop()
        self._settle(lambda: self.life.is_over)
        require(self.life.failure is None, f"a stop failed: {self.life.failure}")
        self._check_end()
        self.check()
        self._settle(lambda: self.life.server is not None)

    def _let_in(self) -> None:
        """Let no fault be due, and every receiver be there and willing."""
        self.receiver.is_away = self.two_phase.is_away = False
        self.two_phase.is_willing = True
        self.life.directory.disk.faults.clear()

    def _send_late(self) -> None:
        """Let everything arrive, one sender have its receipt, and another none."""
        half = PlainSender(self.network, self.ledger, b"zh", [], HALF_FRAME)
        late = PlainSender(
            self.network,
            self.ledger,
            b"zz",
            [toy.REFUSED + b"zz\0", toy.MARKED + b"zz\1"],
        )
        self.plain_senders += [half, late]
        self._settle(self._is_complete)
        require(late.has_receipt, "a sender has no receipt")

    def _is_complete(self) -> bool:
        is_sent = all(self._senders_over())
        size = len(self.ledger.output)
        is_here = self.receiver.covered == size == len(self.two_phase.memory.committed)
        return is_sent and is_here

    def _senders_over(self) -> list[bool]:
        plain = [each.is_over for each in self.plain_senders]
        return plain + [each.is_over for each in self.stream_senders]

    def _settle(self, is_settled: Callable[[], bool]) -> None:
        """Let everything go on, until it is as it should be."""
        for _ in range(ROUNDS_MAX):
            if is_settled():
                return
            if self.life.is_over:
                self.check()
            self._go_on(self._peers())
        raise AssertionError(f"no end is in sight: {self._standing()}")

    def _peers(self) -> list[Peer]:
        both: list[Peer] = [self.receiver, self.two_phase]
        return [*both, *self.plain_senders, *self.stream_senders]

    def _go_on(self, peers: list[Peer]) -> None:
        """Let each do one thing, or time pass if nobody has anything to do."""
        if not self._round(peers):
            due = self.life.process.next_deadline()
            self.clock.now = self.clock.now + 0.01 if due is None else due

    def _round(self, peers: list[Peer]) -> bool:
        """Let each do one thing; say whether anybody did."""
        is_busy = False
        for end in self.network.directions():
            end.is_stalled = False
            is_busy |= self._flow_through(end)
        for peer in peers:
            is_busy |= peer.step(BUFFER_BYTES)
        for task in self.life.process.ready():
            is_busy = True
            self.life.process.resume(task)
        return is_busy

    def _standing(self) -> str:
        senders = self._senders_over()
        size = len(self.two_phase.memory.committed)
        tasks = [(task.name, task.is_waiting) for task in self.life.process.tasks]
        return (
            f"senders over {senders}; of {len(self.ledger.output)} output bytes the "
            f"receiver has {self.receiver.covered}, the two-phase sink {size}; {tasks}"
        )

    def _check_end(self) -> None:
        """Check what must be so when all went well at last."""
        ledger = self.ledger
        for sender in self.stream_senders:
            good = sum(map(is_good, sender.payloads))
            require(ledger.stored[sender.source] == good, "a stream is not whole")
        cursors = ledger.cursors()
        size = len(ledger.output)
        require(cursors[OUT].offset == size, "a cursor was not stored at the end")
        require(cursors[TWO_PHASE].offset == size, "a decision was not stored")
        kept = {toy.REFUSED + b"zz\0", HALF_FRAME[: toy.HEADER_BYTES]}
        require(kept <= ledger.rejects(), "a reject was not kept")
