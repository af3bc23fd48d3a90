"""The bare server: `python -m bench.bare.server SINK_PORT DIRECTORY SHAPE`.

Prints the port that it takes votes at, serves one sender, and ends with it.

- `lone` reads, computes, commits and sends in one thread: best for a lone vote.
- `flow` has a thread for each, with small bounded queues between: best for a flood.
"""

import queue
import socket
import struct
import sys
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

import attrs
import lmdb

from alphabet.trial.vote_load import VOTE_BYTES
from bench.bare.kernel import Kernel

READ_BYTES = 1 << 20
IN_FLIGHT_MAX = 8
"""How many reads are somewhere between the sender and the log."""
MAP_BYTES = 64 << 30


@attrs.frozen
class Computed:
    """One read's votes, their outputs, and the totals behind them."""

    frames: memoryview
    outputs: memoryview
    totals: bytes


@attrs.define
class Store:
    """The votes as they came, a row for each commit, and the newest totals."""

    _environment: lmdb.Environment
    _sequence: int = 0

    @classmethod
    def open(cls, directory: Path) -> "Store":
        """Open a store in a directory."""
        return cls(lmdb.open(str(directory), map_size=MAP_BYTES))

    def commit(self, batch: list[Computed]) -> None:
        """Store a batch; it is durable when this returns."""
        frames = batch[0].frames
        if len(batch) > 1:
            frames = memoryview(b"".join([each.frames for each in batch]))
        with self._environment.begin(write=True) as transaction:
            transaction.put(struct.pack(">Q", self._sequence), frames)
            transaction.put(b"\xfftotals", batch[-1].totals)
        self._sequence += len(frames) // VOTE_BYTES


@attrs.define
class Reader:
    """Reads what is there, whole frames of it.

    Each read has a buffer of its own, unless one is given: then each overwrites the
    frames before.
    """

    _source: socket.socket
    _buffer: bytearray | None = None
    _rest: bytes = b""

    def read(self) -> memoryview | None:
        """Give the next whole frames, perhaps none; None at the end."""
        buffer = bytearray(READ_BYTES) if self._buffer is None else self._buffer
        have = len(self._rest)
        buffer[:have] = self._rest
        view = memoryview(buffer)
        count = self._source.recv_into(view[have:])
        if not count:
            return None
        have += count
        whole = have // VOTE_BYTES * VOTE_BYTES
        self._rest = bytes(view[whole:have])
        return view[:whole]


def serve_lone(source: socket.socket, sink: socket.socket, store: Store) -> None:
    """Do one thing after the other."""
    kernel, reader = Kernel(), Reader(source, bytearray(READ_BYTES))
    while (frames := reader.read()) is not None:
        if frames:
            outputs = kernel.count(frames)
            store.commit([Computed(frames, outputs, kernel.tally.totals.tobytes())])
            sink.sendall(outputs)


@attrs.define
class Flow:
    """Reads, computes, commits and sends at once, each in a thread of its own."""

    source: socket.socket
    sink: socket.socket
    store: Store
    _room: threading.Semaphore = attrs.field(
        factory=lambda: threading.Semaphore(IN_FLIGHT_MAX)
    )
    _read: "queue.SimpleQueue[memoryview | None]" = attrs.field(
        factory=queue.SimpleQueue
    )
    _computed: "queue.SimpleQueue[Computed | None]" = attrs.field(
        factory=queue.SimpleQueue
    )
    _committed: "queue.SimpleQueue[list[Computed] | None]" = attrs.field(
        factory=queue.SimpleQueue
    )

    def serve(self) -> None:
        """Do it to the sender's end."""
        stages = [
            _stage("read", self._receive),
            _stage("commit", self._commit),
            _stage("send", self._send),
        ]
        _name_thread("compute")
        kernel = Kernel()
        while (frames := self._read.get()) is not None:
            if frames:
                outputs = kernel.count(frames)
                totals = kernel.tally.totals.tobytes()
                self._computed.put(Computed(frames, outputs, totals))
            else:
                self._room.release()
        self._computed.put(None)
        for stage in stages:
            stage.join()

    def _receive(self) -> None:
        reader = Reader(self.source)
        frames: memoryview | None = memoryview(b"")
        while frames is not None:
            self._room.acquire()
            frames = reader.read()
            self._read.put(frames)

    def _commit(self) -> None:
        is_over = False
        while not is_over:
            batch = _all_waiting(self._computed)
            is_over = batch[-1] is None
            votes = [each for each in batch if each is not None]
            if votes:
                self.store.commit(votes)
                self._committed.put(votes)
                self._room.release(len(votes))
        self._committed.put(None)

    def _send(self) -> None:
        while (batch := self._committed.get()) is not None:
            for each in batch:
                self.sink.sendall(each.outputs)


def _all_waiting(
    waiting: "queue.SimpleQueue[Computed | None]",
) -> list[Computed | None]:
    """Wait for one, and take all that have come meanwhile."""
    batch = [waiting.get()]
    while batch[-1] is not None:
        try:
            batch.append(waiting.get_nowait())
        except queue.Empty:
            break
    return batch


def _name_thread(name: str) -> None:
    """Let the kernel know this thread by a name of up to 15 bytes."""
    Path(f"/proc/self/task/{threading.get_native_id()}/comm").write_text(name)


def _stage(name: str, run: Callable[[], None]) -> threading.Thread:
    """Start a thread that the kernel knows by its name too, for the profile."""

    def named() -> None:
        _name_thread(name)
        run()

    thread = threading.Thread(target=named, daemon=True)
    thread.start()
    return thread


def main(words: Iterable[str]) -> None:
    """Serve one sender."""
    sink_port, directory, shape = words
    sink = socket.create_connection(("127.0.0.1", int(sink_port)))
    sink.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with sink, socket.create_server(("127.0.0.1", 0)) as listener:
        print(listener.getsockname()[1], flush=True)
        source, _ = listener.accept()
        with source:
            store = Store.open(Path(directory))
            if shape == "lone":
                serve_lone(source, sink, store)
            else:
                Flow(source, sink, store).serve()


if __name__ == "__main__":
    main(sys.argv[1:])
