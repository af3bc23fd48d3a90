"""The server's two ways from the inbox to the log, and who may take which.

A real server on a store in memory. The test stands in for the sources' thread: it puts
arrivals into the inbox and calls `take_read` behind them.
"""

import contextlib
import io
import itertools
import random
import select
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import attrs
import pytest

from alphabet import server as server_module
from alphabet.arrival import Arrival, End, Refusal
from alphabet.engine import Engine
from alphabet.journal.journal import Journal
from alphabet.network.address import Address
from alphabet.network.waker import Waker
from alphabet.outputs import Outputs
from alphabet.pipeline.machine import Machine
from alphabet.server import Server
from alphabet.sink import tcp_sink as tcp_sink_module
from alphabet.sink.delivery import Delivery
from alphabet.sink.feed import Feed
from alphabet.sink.subscription import Pace, Subscription
from alphabet.sink.tcp_sink import TcpSink
from alphabet.snapshotter import Snapshotter
from alphabet.source.connection import Limits
from alphabet.source.inbox import Inbox
from alphabet.source.plain import Sources
from alphabet.startup import Opened
from log.directory import DataDirectory
from log.errors import CommitError, DiskFullError
from log.log import Log
from log.memory_store import MemoryStore
from log.row import Cursor
from log.store import Change
from recovery.replay import Replayer
from recovery.snapshot_directory import SnapshotDirectory
from tests import toy
from tests.faults import Fault, FaultyStore
from tests.process import SECONDS_MAX, wait_until
from tests.receiving import Receiver
from tests.samples import REJECT
from tests.speeds import batch_toy

NEVER = 1 << 60
INLINE_BYTES = 1000
LITTLE = [b"p."]
MUCH = [b"p" * 100] * 20
RESET = struct.pack("ii", 1, 0)


@attrs.define
class Store(FaultyStore):
    """A store that notes which thread commits, and can keep it waiting there."""

    committers: list[str] = attrs.Factory(list)
    is_open: threading.Event = attrs.Factory(threading.Event)
    is_waiting: threading.Event = attrs.Factory(threading.Event)

    def commit(self, changes: Sequence[Change], sequence: int) -> None:
        """Wait for the gate, then commit."""
        self.committers.append(threading.current_thread().name)
        self.is_waiting.set()
        assert self.is_open.wait(SECONDS_MAX), "nobody opened the gate"
        super().commit(changes, sequence)


@attrs.define(eq=False)
class Sender:
    """A connection, as the server sees it."""


@attrs.define(eq=False)
class NotingWaker(Waker):
    """A waker that counts, and wakes nobody while it is muted."""

    count: int = 0
    is_muted: bool = False

    def wake(self) -> None:
        """Count, and wake."""
        self.count += 1
        if not self.is_muted:
            super().wake()


@attrs.define
class Bench:
    """A server, the log that it writes, and what was put into its inbox so far."""

    server: Server
    store: Store
    said: io.StringIO
    folded: toy.Fold = attrs.Factory(toy.Fold)
    failures: list[BaseException] = attrs.Factory(list)

    def put(self, payloads: Sequence[bytes], *others: Arrival) -> None:
        """Put an arrival of these payloads into the inbox, and others behind it."""
        if payloads:
            arrival = toy.received(*payloads)
            self.server.inbox.put(arrival, sum(map(len, payloads)))
        for other in others:
            self.server.inbox.put(other, 0)
        for payload in payloads:
            self.folded.add((0, payload))

    @property
    def events(self) -> list[bytes]:
        """What the log has, read anew."""
        log = Log.open(self.store.inner)
        return [record for block in log.read(0) for record in block.records]

    @property
    def submitted(self) -> list[bytes]:
        """What was put into the inbox."""
        return [payload for _, payload in self.folded.events]

    @contextlib.contextmanager
    def running(self) -> Iterator[threading.Thread]:
        """Run the server's threads, and stop them at the end, if they still run."""
        thread = threading.Thread(target=self._run, name="run")
        thread.start()
        try:
            yield thread
        finally:
            self.store.is_open.set()
            self.server.stop()
            thread.join(SECONDS_MAX)
            assert not thread.is_alive()

    def _run(self) -> None:
        try:
            self.server.run()
        except BaseException as error:  # noqa: BLE001 - the test looks at it
            self.failures.append(error)


@contextlib.contextmanager
def served(
    path: Path,
    machine: Machine,
    snapshot_every: int = NEVER,
    subscribe: type[Subscription] = Subscription,
    receiver_port: int | None = None,
) -> Iterator[Bench]:
    """Give a server that does not run yet, with a sink if there is a receiver."""
    said = io.StringIO()
    journal = Journal.open(said, "json")
    store = Store(MemoryStore())
    store.is_open.set()
    log = Log.create(store, toy.META)
    store.committers.clear()
    store.is_waiting.clear()
    snapshots = SnapshotDirectory(path / "snapshots")
    replayer = Replayer(log, snapshots)
    directory = DataDirectory.claim(path / "data")
    opened = Opened(directory, log, snapshots, replayer, None)
    engine = Engine(machine, log.tail, snapshot_every)
    inbox = Inbox(1 << 24)
    sources = Sources([], inbox, Limits(), journal)
    stopping = threading.Event()
    sinks = []
    if receiver_port is not None:
        pace = Pace(lambda: not inbox.is_empty, stopping.wait)
        feed = Feed(log.tail.sequence)
        sink = TcpSink(
            "out",
            Address("127.0.0.1", receiver_port),
            Delivery(Cursor(0, 0)),
            subscribe(feed, replayer, machine.fresh(), pace),
            NotingWaker(),
            journal,
            stopping,
        )
        sinks.append(sink)
    snapshotter = Snapshotter(
        log, snapshots, machine, list, engine.snapshot_done, journal
    )
    server = Server(
        opened,
        engine,
        inbox,
        [sources.reception],
        sinks,
        snapshotter,
        journal,
        stopping,
        [sources.settle],
    )
    try:
        yield Bench(server, store, said)
    finally:
        # What a failed server left behind ends here too.
        sources.reception.end()
        snapshotter.close()
        wait_until(lambda: not is_alive("source in", "snapshotter"), "the threads' end")
        attention = server._attention  # noqa: SLF001 - the end of a process closes it
        wakers = (attention, sources.reception.waker, *(sink.waker for sink in sinks))
        for waker in wakers:
            waker.close()
        directory.release()
        journal.close()


def is_alive(*names: str) -> bool:
    """Say whether one of these threads is left."""
    return any(thread.name in names for thread in threading.enumerate())


@pytest.fixture(autouse=True)
def _make_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a few events be much, and spare the disk: no power fails here."""
    monkeypatch.setattr(server_module, "INLINE_BYTES_MAX", INLINE_BYTES)
    monkeypatch.setattr(server_module, "DISK_RETRY_SECONDS", 0.001)
    monkeypatch.setattr("os.fsync", lambda _: None)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """Give a server without sinks, that does not run yet."""
    with served(tmp_path, toy.machine()) as bench:
        yield bench


class TestAtOnce:
    """What is taken by the thread that read it."""

    def test_a_little_when_idle(self, bench: Bench) -> None:
        """A little that finds nothing in flight is durable when `take_read` returns."""
        for _ in range(3):
            bench.put(LITTLE)
            bench.server.take_read()
            assert bench.events == bench.submitted
        assert bench.server.inbox.is_empty
        assert bench.store.committers == [threading.current_thread().name] * 3
        assert bench.server.engine.durable == bench.server.engine.tail

    def test_several_arrivals_are_one_commit(self, bench: Bench) -> None:
        """All that one round of reading brought is one commit, receipts included."""
        sender = Sender()
        for _ in range(5):
            bench.put(LITTLE, Refusal(sender, REJECT), End(sender))
        bench.server.take_read()
        assert bench.events == bench.submitted
        assert len(bench.store.committers) == 1
        assert len(list(Log.open(bench.store.inner).rejects())) == 5

    def test_nothing_is_no_commit(self, bench: Bench) -> None:
        """A round of reading that brought nothing whole stores nothing."""
        bench.server.take_read()
        assert bench.store.committers == []

    def test_a_mark_becomes_a_snapshot(self, tmp_path: Path) -> None:
        """States captured on this way are kept as on the other."""
        with served(tmp_path, toy.machine(), 2) as bench, bench.running():
            for _ in range(2):
                bench.put([b"m"])
                bench.server.take_read()
            snapshots = bench.server.opened.snapshots
            wait_until(lambda: list(snapshots.sequences()) == [2], "a snapshot")
            bench.server.stop()
            wait_until(lambda: not is_alive("run"), "the server's end")
            assert bench.failures == []

    def test_a_full_disk_is_waited_for(self, bench: Bench) -> None:
        """On a full disk the very same batch is stored once there is room."""
        bench.store.faults = [Fault.FULL, Fault.FULL]
        bench.put(LITTLE)
        bench.server.take_read()
        bench.put(LITTLE)
        bench.server.take_read()
        assert bench.events == bench.submitted
        bench.server.journal.close()
        assert "there is room on the disk again" in bench.said.getvalue()

    def test_a_stop_ends_the_wait_for_room(self, bench: Bench) -> None:
        """A server that is stopped while the disk is full says so and waits no more."""
        bench.store.faults = [Fault.FULL] * 2
        bench.server.stopping.set()
        bench.put(LITTLE)
        with pytest.raises(DiskFullError):
            bench.server.take_read()


class TestLeft:
    """What is left to the threads."""

    def test_much_is_left(self, bench: Bench) -> None:
        """More than a little is not taken by the thread that read it."""
        bench.put(MUCH)
        bench.server.take_read()
        assert not bench.server.inbox.is_empty
        assert bench.store.committers == []
        with bench.running():
            wait_until(lambda: bench.events == bench.submitted, "all events")
        assert set(bench.store.committers) == {"commit"}
        assert bench.failures == []

    def test_the_thread_that_waits_is_woken(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Whoever waits for the inbox need not wait for its time to be up."""
        monkeypatch.setattr(server_module, "IDLE_SECONDS", 3 * SECONDS_MAX)
        with bench.running():
            for _ in range(3):
                bench.put(MUCH)
                bench.server.take_read()
                wait_until(lambda: bench.events == bench.submitted, "all events")

    def test_what_comes_behind_something_in_flight_is_left(self, bench: Bench) -> None:
        """While a batch is flushed nothing overtakes it, however little it is."""
        bench.store.is_open.clear()
        with bench.running():
            bench.put(MUCH)
            bench.server.take_read()
            assert bench.store.is_waiting.wait(SECONDS_MAX)
            for _ in range(4):
                bench.put(LITTLE)
                bench.server.take_read()
            assert bench.events == []
            assert bench.store.committers == ["commit"]
            bench.store.is_open.set()
            wait_until(lambda: bench.events == bench.submitted, "all events")
            assert set(bench.store.committers) == {"commit"}
            bench.put(LITTLE)
            bench.server.take_read()
        assert bench.events == bench.submitted
        assert bench.failures == []

    def test_every_commit_is_told_to_the_sinks(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A sink is woken by each commit on either way, also one without outputs."""
        with (
            Receiver() as receiver,
            served(tmp_path, toy.machine(), receiver_port=receiver.port) as bench,
        ):
            [sink] = bench.server.sinks
            # Its thread does not run yet: it is at work, and nobody sends for it.
            for payloads in (LITTLE, [toy.SILENT]):
                bench.put(payloads)
                bench.server.take_read()
                assert select.select([sink.waker], [], [], SECONDS_MAX)[0]
                sink.waker.clear()
            monkeypatch.setattr(tcp_sink_module, "IDLE_SECONDS", 3 * SECONDS_MAX)
            with bench.running():
                for _ in range(5):
                    bench.put(MUCH)
                    bench.server.take_read()
                    size = len(bench.folded.data(0, len(bench.folded.events)))
                    receiver.wait_bytes(size)


class TestFailure:
    """Nobody goes on from the state that a failed step left."""

    def check_stopped(self, bench: Bench) -> None:
        """Check that what comes now is not stored."""
        before = bench.events, len(bench.store.committers)
        bench.put(LITTLE)
        bench.server.take_read()
        assert (bench.events, len(bench.store.committers)) == before

    def test_of_the_thread_that_read(self, bench: Bench) -> None:
        """A commit that fails at once goes up, and is the last."""
        bench.store.faults = [Fault.LOST]
        bench.put(LITTLE)
        with pytest.raises(CommitError):
            bench.server.take_read()
        self.check_stopped(bench)
        assert not bench.server.inbox.is_empty

    def test_of_the_thread_that_commits(self, bench: Bench) -> None:
        """A commit that fails in its thread ends the server, and is the last."""
        bench.store.faults = [Fault.LOST]
        bench.put(MUCH)
        with bench.running() as thread:
            bench.server.take_read()
            thread.join(SECONDS_MAX)
        assert [type(error) for error in bench.failures] == [CommitError]
        self.check_stopped(bench)

    def test_of_the_thread_that_counts(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What ends the counting thread ends the server, and no output shows it."""
        machine = batch_toy()
        encoder = machine.definition.pipelines[0].sink.encoder

        def fail(_: object) -> object:
            raise ValueError("no encode today")

        monkeypatch.setattr(encoder, "encode_batch", fail)
        with served(tmp_path, machine.fresh()) as bench:
            bench.put([b"p" * 100] * 100)
            with bench.running() as thread:
                bench.server.take_read()
                thread.join(SECONDS_MAX)
            assert [str(error) for error in bench.failures] == ["no encode today"]
            self.check_stopped(bench)
            assert not bench.server.inbox.is_empty
            assert bench.events == []


class TestOrder:
    """Both ways at once."""

    def test_no_commit_overtakes_another(self, bench: Bench) -> None:
        """However the two threads race, events are stored in the order they came."""
        chance = random.Random(7)
        with bench.running():
            for number in range(1500):
                size = chance.choice([1, 1, 1, 40])
                bench.put([b"p%d.%030d" % (number, index) for index in range(size)])
                if chance.random() < 0.5:
                    bench.server.inbox.notify()
                bench.server.take_read()
            wait_until(lambda: bench.server.inbox.is_empty, "an empty inbox")
        assert bench.failures == []
        assert bench.events == bench.submitted
        both = {"commit", threading.current_thread().name}
        assert set(bench.store.committers) == both

    def test_no_output_overtakes_another(self, tmp_path: Path) -> None:
        """A sink that is served by two threads sends each output once, in order.

        Its receiver is fast, then takes nothing at all for a while, then is fast.
        """
        chance = random.Random(8)
        with (
            Receiver(buffer_bytes=1 << 12) as receiver,
            served(tmp_path, toy.machine(), receiver_port=receiver.port) as bench,
        ):
            with bench.running():
                receiver.wait_connections(1)
                for number in range(450):
                    if number == 150:
                        receiver.stall()
                    if number == 300:
                        receiver.go_on()
                    is_large = 150 <= number < 300 or chance.random() < 0.1
                    payload = b"p%d." % number + bytes(240 if is_large else 9)
                    bench.put([payload] * (150 if is_large else 1))
                    bench.server.take_read()
                expected = bench.folded.data(0, len(bench.folded.events))
                receiver.wait_bytes(len(expected))
            assert bench.failures == []
        assert receiver.connections == [expected]


@attrs.define
class Interrupted(Subscription):
    """A subscription that lets something happen once, while outputs are offered.

    That is when another thread than the sink's asks for them.
    """

    happen: Callable[[], None] | None = None

    def next_live(self) -> Outputs | None:
        """Let it happen, then give the next outputs."""
        if self.happen is not None:
            happen, self.happen = self.happen, None
            happen()
        return super().next_live()


class TestOffer:
    """Outputs that the thread which read sends too."""

    def test_an_idle_sink_is_not_woken(self, tmp_path: Path) -> None:
        """What the kernel takes at once costs no other thread's time."""
        with (
            Receiver() as receiver,
            served(tmp_path, toy.machine(), receiver_port=receiver.port) as bench,
            bench.running(),
        ):
            [sink] = bench.server.sinks
            assert isinstance(sink.waker, NotingWaker)
            for _ in range(100):
                count = sink.waker.count
                bench.put(LITTLE)
                bench.server.take_read()
                size = len(bench.folded.data(0, len(bench.folded.events)))
                receiver.wait_bytes(size)
                if sink.waker.count == count:
                    break
            else:
                pytest.fail("the sink was woken for each output")
            assert sink.subscription.feed.is_empty

    def test_what_the_kernel_does_not_take_is_sent_later(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A receiver that reads nothing blocks no offer, and later gets every byte.

        One offer after the other meets a connection that has no room, before the
        sink's thread has woken.
        """
        monkeypatch.setattr(server_module, "INLINE_BYTES_MAX", 1 << 16)
        monkeypatch.setattr(tcp_sink_module, "IDLE_SECONDS", 3 * SECONDS_MAX)
        monkeypatch.setattr(tcp_sink_module, "WATCH_SECONDS", 3 * SECONDS_MAX)
        with (
            Receiver(buffer_bytes=1 << 16) as receiver,
            served(tmp_path, toy.machine(), receiver_port=receiver.port) as bench,
        ):
            [sink] = bench.server.sinks
            assert isinstance(sink.waker, NotingWaker)
            with bench.running():
                receiver.wait_connections(1)
                receiver.stall()
                sink.waker.is_muted = True
                for number in range(300):
                    bench.put([b"p%d." % number + bytes(240)] * 100)
                    bench.server.take_read()
                sink.waker.is_muted = False
                sink.waker.wake()
                receiver.go_on()
                expected = bench.folded.data(0, len(bench.folded.events))
                receiver.wait_bytes(len(expected))
            assert bench.failures == []
        assert receiver.connections == [expected]

    def test_a_reset_that_an_offer_meets_is_one(self, tmp_path: Path) -> None:
        """The kernel tells a reset once: whoever hears it, the cursor goes back.

        So what the peer had acknowledged and may not have read is sent again.
        """
        with (
            socket.create_server(("127.0.0.1", 0)) as listening,
            served(
                tmp_path,
                toy.machine(),
                subscribe=Interrupted,
                receiver_port=listening.getsockname()[1],
            ) as bench,
            bench.running(),
        ):
            listening.settimeout(SECONDS_MAX)
            [sink] = bench.server.sinks
            assert isinstance(sink, TcpSink)
            subscription = sink.subscription
            assert isinstance(subscription, Interrupted)
            receiver, _ = listening.accept()

            def reset() -> None:
                receiver.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                receiver.close()
                poll = select.poll()
                poll.register(sink._connection, select.POLLHUP)  # noqa: SLF001 - it waits
                assert poll.poll(SECONDS_MAX * 1000)

            def acknowledged() -> bool:
                return sink.cursor is not None and sink.cursor.sequence == 1

            bench.put([b"p1"])
            bench.server.take_read()
            wait_until(acknowledged, "an acknowledgement")
            subscription.happen = reset
            numbers = itertools.count(2)

            def offered() -> bool:
                bench.put([b"p%d" % next(numbers)])
                bench.server.take_read()
                return subscription.happen is None

            wait_until(offered, "an offer that meets the reset")
            again, _ = listening.accept()
            with again:
                again.settimeout(SECONDS_MAX)
                expected = bench.folded.data(0, len(bench.folded.events))
                found = b""
                while len(found) < len(expected):
                    found += again.recv(1 << 16)
            assert found == expected
        assert "reset" in bench.said.getvalue()
