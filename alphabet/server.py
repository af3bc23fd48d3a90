"""The running server: threads that drive the steps, and nothing that decides.

```
sources ─▶ inbox ─▶ count ─▶ sealed ─▶ commit ─▶ feeds ─▶ one thread a sink
                                          └─▶ snapshotter
```
While `commit` flushes one batch, `count` computes the next. A little that arrives when
nothing is in flight is not worth two threads' wake-ups: the thread that read it takes
both steps itself. Outputs, receipts and captures leave the commit step only behind the
flush. Whatever ends a thread ends the server, with the error that `run` raises.
"""

import queue
import select
import threading
import time
from collections.abc import Callable, Sequence

import attrs

from alphabet.arrival import Decision
from alphabet.connector.sink import ConnectorSink
from alphabet.engine import Batch, Engine
from alphabet.journal import entries
from alphabet.journal.journal import Journal
from alphabet.measures import Measures
from alphabet.network.waker import Waker
from alphabet.page import Page
from alphabet.reject_digest import RejectDigest
from alphabet.sink.console_sink import ConsoleSink
from alphabet.sink.tcp_sink import TcpSink
from alphabet.snapshotter import Snapshotter
from alphabet.source.connection import Connection
from alphabet.source.inbox import Inbox
from alphabet.source.reception import Reception
from alphabet.startup import Opened
from alphabet.thread import start_thread
from alphabet.totals_board import TotalsBoard
from log.errors import DiskFullError
from log.row import Cursor

BATCH_BYTES_MAX = 1 << 20
"""How much of the inbox one batch takes: it bounds a batch's memory and its delay."""
INLINE_BYTES_MAX = 1 << 14
"""How much is little enough to be taken by the thread that read it."""
SEALED_MAX = 1
"""How many sealed batches wait while another is flushed."""
IDLE_SECONDS = 1.0
DISK_RETRY_SECONDS = 1.0
JOIN_SECONDS = 0.1
"""How often a stop looks whether a thread has failed, or ended."""
STOP_SECONDS_MAX = 9.5
"""Everything that a stop does is over by then: the promise is 10 s."""

Sink = TcpSink | ConnectorSink | ConsoleSink


@attrs.define(eq=False)
class Server:
    """All parts of a server, wired; `run` serves until `stop` is called.

    `_counting` is held by the thread whose turn it is to take and seal. A turn that
    raised is never over: nobody goes on from the state that it left.
    """

    opened: Opened
    engine: Engine
    inbox: Inbox
    receptions: Sequence[Reception]
    sinks: Sequence[Sink]
    snapshotter: Snapshotter
    journal: Journal
    stopping: threading.Event
    settlers: Sequence[Callable[[Sequence[object]], None]]
    """Who is told of receipts, in the commit's thread; each knows its own."""
    drain_seconds: float = 5.0
    digest: RejectDigest = attrs.Factory(RejectDigest)
    measures: Measures = attrs.Factory(Measures)
    board: TotalsBoard = attrs.Factory(TotalsBoard)
    page: Page | None = None
    """What shows all this to people; it reads, and nobody here waits for it."""
    _sealed: queue.Queue[Batch | None] = attrs.field(
        factory=lambda: queue.Queue(SEALED_MAX), init=False
    )
    _counting: threading.Lock = attrs.field(factory=threading.Lock, init=False)
    _stored_cursors: dict[str, Cursor] = attrs.field(factory=dict, init=False)
    _commit_until: float = attrs.field(default=float("inf"), init=False)
    _failure: BaseException | None = attrs.field(default=None, init=False)
    _is_told_to_stop: bool = attrs.field(default=False, init=False)
    _attention: Waker = attrs.field(factory=Waker, init=False)
    _threads: list[threading.Thread] = attrs.field(factory=list, init=False)

    def __attrs_post_init__(self) -> None:
        """Know which cursors the log has."""
        self._stored_cursors = self.opened.log.cursors()

    @property
    def is_quiet(self) -> bool:
        """Say whether no thread of the server is left."""
        return not any(thread.is_alive() for thread in self._threads)

    def stop(self) -> None:
        """Ask `run` to end in good order; safe in a signal handler.

        A handler may interrupt any lock's holder, so it takes none: it only wakes.
        """
        self._is_told_to_stop = True
        self._attention.wake()

    def wake_on_signals(self) -> None:
        """Let a signal wake `run`, whichever thread it reaches."""
        self._attention.wake_on_signals()

    def run(
        self,
        on_ready: Callable[[], None] = lambda: None,
        on_stop: Callable[[], None] = lambda: None,
    ) -> None:
        """Serve until stopped; raises what ended a thread.

        `on_ready` is called once every thread is at work, `on_stop` when told to stop.
        """
        sinks = [self._start(f"sink {sink.name}", sink.run) for sink in self.sinks]
        snapshotter = self._start("snapshotter", self.snapshotter.run)
        commit = self._start("commit", self._commit)
        count = self._start("count", self._count)
        sources = [
            self._start(f"source {each.label}", each.run) for each in self.receptions
        ]
        on_ready()
        if self.page is not None:
            self.page.start()
        self._wait_for_the_end()
        self.stopping.set()
        self._raise_failure()
        until = time.monotonic() + STOP_SECONDS_MAX
        on_stop()
        self._commit_until = until - self.drain_seconds
        for reception in self.receptions:
            reception.stop()
        self._join([count, commit], until)
        for reception in self.receptions:
            reception.end()
        self._join(sources, until)
        self.snapshotter.close()
        self._join([snapshotter], until)
        self._take_last_snapshot()
        until = min(until, time.monotonic() + self.drain_seconds)
        for sink in self.sinks:
            sink.drain(until)
        if not commit.is_alive():
            self._commit_decisions(until)
        self._join(sinks, until)
        if not commit.is_alive():
            self._store_last_cursors()
        self._say_goodbye()
        if self.page is not None:
            self.page.stop()

    def _wait_for_the_end(self) -> None:
        """Sleep until told to stop, or a thread failed; any signal wakes as well."""
        while not (self._is_told_to_stop or self._failure):
            select.select([self._attention], [], [])
            self._attention.clear()

    def _start(self, name: str, target: Callable[[], None]) -> threading.Thread:
        def guarded() -> None:
            try:
                target()
            except BaseException as error:  # noqa: BLE001 - `run` raises it again
                self._failure = self._failure or error
                self._attention.wake()

        thread = start_thread(name, guarded)
        self._threads.append(thread)
        return thread

    def _join(self, threads: Sequence[threading.Thread], until: float) -> None:
        for thread in threads:
            while thread.is_alive() and time.monotonic() < until:
                thread.join(JOIN_SECONDS)
                self._raise_failure()
        self._raise_failure()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def take_read(self) -> None:
        """Take what was just read: at once, if it is little and nothing is in flight.

        For the sources' thread, after each round of reading. What is not taken at
        once is for the count thread, which is woken.
        """
        is_little = self.inbox.bytes <= INLINE_BYTES_MAX
        if is_little and self._counting.acquire(blocking=False):
            is_idle = not self._sealed.unfinished_tasks
            if is_idle:
                self._take_at_once()
            self._counting.release()
            if is_idle:
                return
        self.inbox.notify()

    def decide(self, decision: Decision) -> None:
        """Take a two-phase sink's decision: it has its receipt when it is flushed."""
        self.inbox.put(decision, len(decision.cursor.transaction_id))
        self.inbox.notify()
        if self.stopping.is_set():
            self._attention.wake()

    def _commit_decisions(self, until: float) -> None:
        """Store what two-phase sinks decide while they drain, in this thread.

        The threads for that have ended. What else they have left in the inbox never
        counted: its senders were told so.
        """
        two_phase = [sink for sink in self.sinks if isinstance(sink, ConnectorSink)]
        while not all(sink.is_drained for sink in two_phase):
            left = self.inbox.take(self.inbox.bytes)
            decisions = [each for each in left if isinstance(each, Decision)]
            self.engine.take(decisions, time.time_ns())
            batch = self.engine.seal(time.monotonic()) if decisions else None
            if batch is not None:
                self._commit_step(batch)
            if time.monotonic() >= until:
                return
            # A sink that has ended wakes nobody.
            select.select([self._attention], [], [], JOIN_SECONDS)
            self._attention.clear()
            self._raise_failure()

    def _take_at_once(self) -> None:
        batch = self._count_step(INLINE_BYTES_MAX)
        if batch is not None:
            self._commit_step(batch)
            for sink in self.sinks:
                sink.offer()

    def _count(self) -> None:
        """Take what arrived, seal it, hand it over; until the inbox is closed."""
        while not self.inbox.is_done and time.monotonic() < self._commit_until:
            self.measures.turns += 1
            self.inbox.wait(IDLE_SECONDS)
            self._counting.acquire()
            batch = self._count_step(BATCH_BYTES_MAX)
            if batch is not None:
                self._sealed.put(batch)
            else:
                # With no commit to do so, readers that come would find no slot.
                self.opened.log.store.drop_dead_readers()
            self._counting.release()
        self._counting.acquire()
        last = self.engine.seal(time.monotonic(), is_last=True)
        if last is not None:
            self._sealed.put(last)
        self._sealed.put(None)

    def _count_step(self, bytes_max: int) -> Batch | None:
        """Compute what arrived; give the batch that it makes, if it makes one.

        The caller holds `_counting`, so that batches are stored as they are sealed.
        """
        engine = self.engine
        received_at = self.inbox.waiting_since
        arrivals = self.inbox.take(bytes_max)
        for sink in self.sinks:
            if not sink.subscription.feed.has_room():
                sink.subscription.feed.let_go(engine.capture())
        now = time.monotonic()
        rejections = engine.take(arrivals, time.time_ns())
        for rejection in rejections:
            if isinstance(rejection.connection, Connection):
                rejection.connection.refused += rejection.count
        self.inbox.judge()
        for line in self.digest.note(rejections, now):
            self.journal.say(line)
        self._say_summary(now)
        engine.ride(self._moved_cursors())
        batch = engine.seal(now, received_at=received_at)
        self.board.offer(engine.tail.sequence, engine.machine, now)
        return batch

    def _commit(self) -> None:
        """Flush batches one by one."""
        while (batch := self._sealed.get()) is not None:
            self._commit_step(batch)
            for sink in self.sinks:
                sink.wake()
            self._sealed.task_done()

    def _commit_step(self, batch: Batch) -> None:
        """Flush a batch, and let go what waited for that."""
        self._store(batch)
        self.engine.flushed()
        released = self.engine.release()
        for sink in self.sinks:
            sink.subscription.feed.push(released.outputs, released.last_sequence)
        if released.receipts:
            for settle in self.settlers:
                settle(released.receipts)
        if released.capture is not None:
            self.snapshotter.submit(released.capture)
        self.measures.note_released(released, time.monotonic())

    def _store(self, batch: Batch) -> None:
        """Commit a batch; on a full disk, the very same one until there is room."""
        if not batch.transaction:
            return
        started = self.measures.begin_commit(time.monotonic())
        try:
            self.opened.log.commit(batch.transaction)
        except DiskFullError as error:
            self.measures.disk_full = str(error)
            self.journal.say(
                entries.disk_full(sequence=error.sequence, cause=str(error))
            )
            self._pause_reading(is_paused=True)
            self._store_when_there_is_room(batch, error)
            self.journal.say(
                entries.disk_has_room(sequence=self.opened.log.tail.sequence)
            )
            self.measures.disk_full = None
            self._pause_reading(is_paused=False)
        self.measures.note_commit(batch.transaction, time.monotonic() - started)

    def wake_readers(self) -> None:
        """Let all that read look at the inbox again: there is room."""
        for reception in self.receptions:
            reception.waker.wake()

    def _pause_reading(self, *, is_paused: bool) -> None:
        for reception in self.receptions:
            reception.pause(is_paused=is_paused)

    def _store_when_there_is_room(self, batch: Batch, error: DiskFullError) -> None:
        log = self.opened.log
        while not log.holds(batch.transaction):
            if self.stopping.wait(DISK_RETRY_SECONDS):
                raise error
            self.measures.begin_commit(time.monotonic())
            try:
                log.commit(batch.transaction)
            except DiskFullError as again:
                error = again
            else:
                return

    def _moved_cursors(self) -> dict[str, Cursor]:
        """Give the cursors that differ from those handed to the log last."""
        cursors = {
            sink.name: sink.cursor for sink in self.sinks if sink.cursor is not None
        }
        moved = {
            name: cursor
            for name, cursor in cursors.items()
            if self._stored_cursors.get(name) != cursor
        }
        self._stored_cursors |= moved
        return moved

    def _take_last_snapshot(self) -> None:
        """Keep the state of the last event, if it was marked."""
        engine = self.engine
        is_new = engine.durable.sequence > engine.snapshot_sequence
        if engine.machine.is_marked and is_new and engine.durable == engine.tail:
            self.snapshotter.write(engine.capture())

    def _store_last_cursors(self) -> None:
        self.engine.ride(self._moved_cursors())
        batch = self.engine.seal(time.monotonic(), is_last=True)
        if batch is not None and batch.transaction and not batch.transaction.blocks:
            self.opened.log.commit(batch.transaction)

    def _say_summary(self, now: float) -> None:
        summary = self.digest.summary(now)
        if summary is not None:
            self.journal.say(summary)

    def _say_goodbye(self) -> None:
        self._say_summary(float("inf"))
        self.journal.say(
            entries.stopped(
                sequence=self.engine.durable.sequence,
                rejected=sum(self.digest.counts.values()),
                partial_frames=sum(each.partial_frames for each in self.receptions),
            )
        )
