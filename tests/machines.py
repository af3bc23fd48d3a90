"""A log, the snapshots beside it, and what its states must be: for tests of recovery.

`Kept` is the toy application's, with any store under it; what it should hold comes
from `toy.Fold` alone. `write_votes` makes a data directory of Alphabet's own, always
the same one, and `alphabet` a machine for it.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Self

import attrs
from hypothesis import strategies as st

from alphabet.loading import load_machine
from alphabet.pipeline.machine import Machine
from log.block import Block, Point, Records
from log.directory import DataDirectory
from log.log import Log, Transaction
from log.memory_store import MemoryStore
from log.row import Cursor, Meta, Reject
from log.store import BLOCKS, Change, Store
from recovery.replay import Recovered, Replayer, take_snapshot
from recovery.snapshot import Snapshot, State
from recovery.snapshot_directory import SnapshotDirectory
from tests import toy
from tests.votes import Vote

Batch = tuple[int, list[bytes]]
"""What one block holds: a pipeline's number, and payloads."""

batches = st.tuples(toy.pipelines, st.lists(toy.payloads, min_size=1, max_size=4))

Damage = Callable[[bytes], bytes]


def flip_first(data: bytes) -> bytes:
    """Change the first byte."""
    return bytes([data[0] ^ 1]) + data[1:]


def flip_middle(data: bytes) -> bytes:
    """Change a byte in the middle."""
    half = len(data) // 2
    return data[:half] + bytes([data[half] ^ 0x80]) + data[half + 1 :]


def flip_last(data: bytes) -> bytes:
    """Change the last byte."""
    return data[:-1] + bytes([data[-1] ^ 1])


def shorten(data: bytes) -> bytes:
    """Take the last byte away."""
    return data[:-1]


def lengthen(data: bytes) -> bytes:
    """Add a byte."""
    return data + b"\0"


def zeros(data: bytes) -> bytes:
    """Make it zeros."""
    return bytes(len(data))


DAMAGES = [flip_first, flip_middle, flip_last, shorten, lengthen, zeros]


def change(file: Path, damage: Damage) -> None:
    """Damage a file."""
    file.write_bytes(damage(file.read_bytes()))


def key(number: int) -> bytes:
    """Give the key of a sequence, a stream or a reject."""
    return number.to_bytes(8)


def in_version(version: object) -> Machine:
    """Make the toy as another version of its module has it."""
    module = SimpleNamespace(STATE_VERSION=version)
    return Machine(toy.machine().definition, module)


def toy_states(states: dict[str, bytes]) -> tuple[State, ...]:
    """Give the states whose bytes `Fold` knows, as a snapshot has them."""
    return tuple(State(name, "dump", data) for name, data in states.items())


@attrs.define
class Kept:
    """The toy's log with its snapshots, and the fold of the events in it."""

    log: Log
    snapshots: SnapshotDirectory
    folded: toy.Fold = attrs.Factory(toy.Fold)

    @classmethod
    def create(cls, store: Store, path: Path, *before: toy.Event) -> Self:
        """Begin a log on a store, with its snapshots in a directory `path`.

        Events `before` are behind its base, as in a compacted log.
        """
        folded = toy.fold(*before)
        base = len(before)
        meta = attrs.evolve(toy.META, base_sequence=base, base_checksum=base * 7)
        states = toy_states(folded.states_at(base))
        snapshot = Snapshot(meta.log_id, base, base, base * 7, "toy", 1, states)
        log = Log.create(store, meta, snapshot.encode() if base else None)
        return cls(log, SnapshotDirectory(path), folded)

    def append(self, *made: Batch, points: Sequence[Point] = ()) -> None:
        """Commit a block for each batch, one by one; each advances these points."""
        for pipeline, payloads in made:
            block = Block.seal(
                self.log.tail,
                Records.pack(payloads),
                time_ns=len(self.folded.events),
                pipeline=pipeline,
                points=points,
            )
            self.log.commit(Transaction((block,)))
            for payload in payloads:
                self.folded.add((pipeline, payload))

    def make_snapshot(self, sequence: int) -> Snapshot:
        """Make the snapshot at an event, of what the fold says."""
        states = toy_states(self.folded.states_at(sequence))
        return take_snapshot(self.log, toy.machine(), sequence, states)

    def write_snapshot(
        self,
        sequence: int,
        alter: Callable[[Snapshot], Snapshot] = lambda snapshot: snapshot,
    ) -> Path:
        """Write the snapshot at an event, as it should be or as a test alters it."""
        return self.snapshots.write(alter(self.make_snapshot(sequence)))

    def replayer(
        self, *, is_lost_tail_accepted: bool = False, are_gaps_accepted: bool = False
    ) -> Replayer:
        """Give what rebuilds the states."""
        return Replayer(
            self.log,
            self.snapshots,
            is_lost_tail_accepted=is_lost_tail_accepted,
            are_gaps_accepted=are_gaps_accepted,
        )

    def recover(
        self, at: int | None = None, *, is_lost_tail_accepted: bool = False
    ) -> Recovered:
        """Rebuild the states, and check them against the fold; say how it was done."""
        machine = toy.machine()
        replayer = self.replayer(is_lost_tail_accepted=is_lost_tail_accepted)
        recovered = replayer.recover(machine, at)
        assert toy.state_bytes(machine) == self.folded.states_at(recovered.sequence)
        return recovered

    def lose_tail(self, sequence: int) -> None:
        """Take the blocks after event `sequence`, which ends one, out of the log."""
        store = self.log.store
        lost = [block.first_sequence for block in self.log.read(sequence)]
        store.commit([Change(BLOCKS, key(first), None) for first in lost], sequence)
        self.log = Log.open(store)
        self.folded = toy.fold(*self.folded.events[:sequence])


@attrs.define
class BusyStore(MemoryStore):
    """A store on which another process does something before each read."""

    between: Callable[[], None] = lambda: None

    def get(self, table: str, key: bytes) -> bytes | None:
        """Let the other go on, then read."""
        self.between()
        return super().get(table, key)

    def floor(self, table: str, key: bytes) -> tuple[bytes, bytes] | None:
        """Let the other go on, then read."""
        self.between()
        return super().floor(table, key)

    def scan(
        self, table: str, start: bytes, bytes_max: int
    ) -> list[tuple[bytes, bytes]]:
        """Let the other go on, then read."""
        self.between()
        return super().scan(table, start, bytes_max)


VOTES_META = Meta(
    log_id="0123456789abcdef0123456789abcdef",
    application="alphabet",
    pipelines=("alphabet",),
    record_schema=">sI",
    created_ns=1_700_000_000_000_000_000,
)
LOTS: list[list[Vote]] = [
    [(b"a", 1), (b"b", 2), (b"a", 3)],
    [(b"z", 4_000_000_000), (b"\xe9", 5)],
    [(b" ", 6)],
    [(b"a", 7), (b"b", 8), (b"c", 9), (b"a", 10)],
]
"""Events 1 to 3, 4 and 5, 6, 7 to 10: four blocks."""

VOTES_REJECT = Reject(
    time_ns=1_700_000_000_000_000_001,
    reason="decode",
    cause="3 bytes are no vote",
    peer="127.0.0.1:5000",
    position=18,
    sequence=0,
    payload_bytes=3,
    payload=b"abc",
)


def alphabet() -> Machine:
    """Make a machine of Alphabet's own application."""
    return load_machine(None, [])


def pack_votes(votes: Sequence[Vote]) -> Records:
    """Store votes as records."""
    return Records.pack([letter + number.to_bytes(4) for letter, number in votes])


def append_records(log: Log, records: Records, *points: Point) -> None:
    """Commit a block, a second later than the one before."""
    time_ns = max(log.tail.time_ns, VOTES_META.created_ns) + 1_000_000_000
    block = Block.seal(log.tail, records, time_ns=time_ns, points=points)
    log.commit(Transaction((block,)))


def append_votes(log: Log, votes: Sequence[Vote], *points: Point) -> None:
    """Commit a block of votes, a second later than the one before."""
    append_records(log, pack_votes(votes), *points)


def write_votes(
    path: Path,
    lots: Sequence[Sequence[Vote]] = LOTS,
    *,
    meta: Meta = VOTES_META,
    snapshots: Sequence[int] = (),
) -> DataDirectory:
    """Make a data directory: a block per lot, a cursor, a point, and a reject.

    The cursor `out` is at 6, or the end; stream 7 is at the last block's end.
    """
    directory = DataDirectory.claim(path)
    with directory.new_log(meta) as log:
        for votes in lots:
            end = log.tail.sequence + len(votes)
            append_votes(log, votes, Point(7, end, b"stream seven"))
        cursor = Cursor(min(6, log.tail.sequence), 78)
        log.commit(Transaction(cursors={"out": cursor}, rejects=(VOTES_REJECT,)))
    directory.release()
    for sequence in snapshots:
        write_votes_snapshot(directory, sequence)
    return directory


def write_votes_snapshot(directory: DataDirectory, sequence: int) -> Path:
    """Write the snapshot at an event of a data directory of votes."""
    snapshots = SnapshotDirectory(directory.snapshots_path)
    machine = alphabet()
    log = directory.open_log(is_read_only=True)
    try:
        Replayer(log, snapshots).recover(machine, sequence)
        return snapshots.write(take_snapshot(log, machine, sequence, machine.dump()))
    finally:
        log.close()
