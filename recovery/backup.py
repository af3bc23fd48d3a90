"""A copy of a log as it was at one sequence: the same log, in another place.

Blocks are copied as they are, so the copy's chain is the log's. Invariants:

- the copy is a whole log at every moment that it can be found under its name;
- no cursor, point of reference, reject or snapshot of it is ahead of its blocks, and
  no point of reference behind them, so that nothing is lost or counted twice;
- what was written is flushed, and then read back.

The log may be a live server's. So what stands beside the blocks is read first, then
the log's end, then the blocks up to there, in short transactions.
"""

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Self

import attrs

from log.block import SEQUENCE_MAX, Block
from log.directory import DataDirectory
from log.errors import DamagedError, DirectoryError
from log.log import SCAN_BYTES, Log, Transaction
from log.row import Cursor, RowError, encode_point, open_row, seal_row
from log.store import CURSORS, META, REJECTS, STREAMS, Change
from recovery.copying import Progress, forget_cached, in_lots, read_back, unseen
from recovery.errors import AheadError, RecoveryError, SnapshotError
from recovery.new_place import holds_log, new_place
from recovery.replay import Replayer
from recovery.room import SPARE_BYTES, check_room, estimate_bytes
from recovery.snapshot import Snapshot
from recovery.snapshot_directory import SnapshotDirectory

Shown = Callable[[int, int], AbstractContextManager[Progress]]
"""Shows work from a sequence to a sequence; gives what is told how far it is."""

Rows = dict[tuple[str, bytes], bytes]
"""Rows as they are stored, by table and key."""

_TABLES = (STREAMS, CURSORS, REJECTS, META)


@attrs.frozen
class DivergedError(RecoveryError):
    """A copy with an event that its log does not have, or has otherwise."""

    path: Path
    sequence: int
    log_path: Path
    last_sequence: int

    def __str__(self) -> str:
        """Name both ends, and what can have happened."""
        return (
            f"{self.path} ends with an event {self.sequence} that is not in "
            f"{self.log_path}, which ends at {self.last_sequence}: a server was "
            "started on the copy, or the log has lost its tail; look at both, and "
            "back up to another directory"
        )


@attrs.frozen
class BackedUp:
    """What a backup did: it copied the events after `start` (exclusive).

    `left_out` are snapshots that are no good, each with the reason.
    """

    log_id: str
    start: int
    last_sequence: int
    block_bytes: int
    snapshots: tuple[int, ...]
    left_out: tuple[tuple[int, str], ...]


@attrs.frozen
class Beside:
    """What stands beside a log's blocks, none of it ahead of the log's end."""

    rows: Rows
    snapshots: tuple[Snapshot, ...]
    left_out: tuple[tuple[int, str], ...]

    @classmethod
    def read(cls, log: Log, directory: SnapshotDirectory) -> Self:
        """Read it all, and then the log's end; raises AheadError, DamagedError."""
        found = list(directory.newest(SEQUENCE_MAX))
        rows = _read_rows(log)
        # A server may go on: what was read before the end is never beyond it.
        log.refresh()
        _check_reach(log, rows)
        replayer = Replayer(log, directory)
        snapshots = []
        left_out = []
        for sequence, snapshot in found:
            try:
                snapshots.append(_good(replayer, snapshot))
            except SnapshotError as error:
                left_out.append((sequence, str(error)))
        return cls(rows, tuple(snapshots), tuple(left_out))

    def note(self, block: Block) -> None:
        """Bring the points of reference up to a block, younger than the rows or not.

        A row may be the younger one: a stream may advance without an event.
        """
        last = block.last_sequence
        for point in block.points:
            key = point.stream_id.to_bytes(8)
            row = self.rows.get((STREAMS, key))
            if row is None or open_row(STREAMS, key, row)[0] < last:
                sealed = seal_row(STREAMS, key, last, encode_point(point))
                self.rows[STREAMS, key] = sealed


def back_up(
    log: Log,
    snapshots: SnapshotDirectory,
    source: Path,
    to: Path,
    shown: Shown = lambda _start, _end: contextlib.nullcontext(unseen),
) -> BackedUp:
    """Copy a log, that of the data directory `source`, to `to`.

    Where an earlier copy of it is, only what came since is added. Raises AheadError
    for a log that has lost its tail, DivergedError for a copy that went its own way,
    DirectoryError, LockedError, DamagedError, DiskFullError or CommitError.
    """
    if not holds_log(to):
        with new_place(to, source) as target:
            with target.new_log(log.meta, log.base_state()) as copy:
                copier = Copier.begin(log, snapshots, copy, to)
                copier.run(shown)
            return copier.finish(SnapshotDirectory(target.snapshots_path))
    if to.resolve() == source.resolve():
        raise DirectoryError(to, "it is the log that is to be copied; choose another")
    target = DataDirectory.claim(to)
    try:
        with contextlib.closing(target.open_log()) as copy:
            _check_same(log, copy, source, to)
            copier = Copier.begin(log, snapshots, copy, to)
            copier.run(shown)
        return copier.finish(SnapshotDirectory(target.snapshots_path))
    finally:
        target.release()


@attrs.define
class Copier:
    """Brings a copy that is open up to its log."""

    log: Log
    copy: Log
    start: int
    beside: Beside
    block_bytes: int = 0

    @classmethod
    def begin(cls, log: Log, directory: SnapshotDirectory, copy: Log, to: Path) -> Self:
        """Look at the log's end; raises what is wrong before anything is written."""
        beside = Beside.read(log, directory)
        start = copy.tail.sequence
        needed = estimate_bytes(log, start, log.tail.sequence) + SPARE_BYTES
        needed += sum(len(snapshot.encode()) for snapshot in beside.snapshots)
        check_room({to: needed})
        return cls(log, copy, start, beside)

    def run(self, shown: Shown) -> None:
        """Copy the blocks and what stands beside them; flushed and read back."""
        with shown(self.start, self.log.tail.sequence) as progress:
            self._copy_blocks(progress)
            self._mirror_rows()
            self._read_back()

    def finish(self, snapshots: SnapshotDirectory) -> BackedUp:
        """Copy the snapshots, and remove those that a server would remove."""
        try:
            for snapshot in self.beside.snapshots:
                _copy_snapshot(snapshot, snapshots)
            cursors = [c.sequence for c in _cursors(self.beside.rows).values()]
            if snapshots.path.is_dir():
                snapshots.prune(min(cursors, default=None))
        except OSError as error:
            reason = f"a snapshot cannot be written: {error.strerror}"
            raise DirectoryError(snapshots.path, reason) from error
        return BackedUp(
            self.copy.meta.log_id,
            self.start,
            self.log.tail.sequence,
            self.block_bytes,
            tuple(snapshots.sequences()[::-1]),
            self.beside.left_out,
        )

    def _copy_blocks(self, progress: Progress) -> None:
        """Copy blocks up to the log's end as it was seen.

        Their pipelines' names, if there are new ones, are there before them.
        """
        names = self.log.meta.pipelines
        if self.copy.meta.pipelines != names:
            meta = attrs.evolve(self.copy.meta, pipelines=names)
            self.copy.commit(Transaction(meta=meta))
        for blocks in in_lots(self._blocks()):
            self.copy.commit(Transaction(blocks))
            self.block_bytes += sum(len(block.encoded) for block in blocks)
            progress(self.copy.tail.sequence)

    def _blocks(self) -> Iterator[Block]:
        for block in self.log.read(self.copy.tail.sequence):
            if block.first_sequence > self.log.tail.sequence:
                return
            self.beside.note(block)
            yield block

    def _mirror_rows(self) -> None:
        """Give the copy the log's rows, all at once."""
        rows = self.beside.rows
        gone = _read_rows(self.copy).keys() - rows.keys()
        changes = [Change(*place, value) for place, value in rows.items()]
        changes += [Change(*place, None) for place in gone]
        self.copy.store.commit(changes, self.copy.tail.sequence)

    def _read_back(self) -> None:
        """Read what was written, from the disk; raises DamagedError."""
        read_back(self.copy, self.start, self.log.tail)
        if _read_rows(self.copy) != self.beside.rows:
            reason = "rows do not read as they were written"
            raise DamagedError(self.copy.store.path, None, reason)


def _check_same(log: Log, copy: Log, source: Path, to: Path) -> None:
    """Raise unless the copy is the beginning of the log."""
    if copy.meta.log_id != log.meta.log_id:
        is_parent = copy.meta.log_id == log.meta.parent_id
        which = "the one that this one was made from" if is_parent else "not this one"
        reason = f"it holds log {copy.meta.log_id}, {which}; choose another directory"
        raise DirectoryError(to, reason)
    log.refresh()
    end = copy.tail
    known = log.tail_at(end.sequence)
    if (known.sequence, known.checksum) != (end.sequence, end.checksum):
        raise DivergedError(to, end.sequence, source, log.tail.sequence)


def _check_reach(log: Log, rows: Rows) -> None:
    """Raise AheadError for a cursor or point that the log does not reach."""
    subjects = [(f"sink {k}", cursor.sequence) for k, cursor in _cursors(rows).items()]
    subjects += [
        (f"stream {int.from_bytes(key)}", open_row(table, key, value)[0])
        for (table, key), value in rows.items()
        if table == STREAMS
    ]
    last = log.tail.sequence
    for subject, sequence in subjects:
        if sequence > last:
            raise AheadError(log.store.path.parent, subject, sequence, last)


def _good(replayer: Replayer, found: Snapshot | SnapshotError) -> Snapshot:
    """Give a snapshot that the copy may have; raises SnapshotError, AheadError."""
    meta = replayer.log.meta
    if isinstance(found, SnapshotError):
        raise found
    if found.log_id != meta.log_id:
        raise SnapshotError(f"it belongs to log {found.log_id}")
    if found.sequence < meta.base_sequence:
        raise SnapshotError("it is older than the log's base")
    replayer.check_witness(found)
    return found


def _copy_snapshot(snapshot: Snapshot, snapshots: SnapshotDirectory) -> None:
    """Write a snapshot unless it is there, and read it back; raises DamagedError."""
    if _holds(snapshots, snapshot):
        return
    file = snapshots.write(snapshot)
    forget_cached(file)
    if not _holds(snapshots, snapshot):
        reason = "the snapshot does not read as it was written"
        raise DamagedError(file, snapshot.sequence, reason)


def _holds(snapshots: SnapshotDirectory, snapshot: Snapshot) -> bool:
    try:
        return snapshots.read(snapshot.sequence) == snapshot
    except SnapshotError:
        return False


def _read_rows(log: Log) -> Rows:
    """Read all rows that stand beside the blocks; raises DamagedError."""
    found = {}
    for table in _TABLES:
        start = b""
        while rows := log.store.scan(table, start, SCAN_BYTES):
            for key, value in rows:
                try:
                    open_row(table, key, value)
                except RowError as error:
                    reason = f"{table} row {key!r}: {error}"
                    raise DamagedError(log.store.path, None, reason) from error
                found[table, key] = value
            start = rows[-1][0] + b"\0"
    return found


def _cursors(rows: Rows) -> dict[str, Cursor]:
    return {
        key.decode(): Cursor.decode(open_row(table, key, value)[1])
        for (table, key), value in rows.items()
        if table == CURSORS
    }
