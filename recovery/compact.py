"""A new log that begins at a snapshot: shorter history, the same state.

The old log is only read. The new one has an id of its own, names its parent, and has
the snapshot as its base state. Blocks behind the base are sealed anew, since the
chain begins anew; their events, sequences, times and points stay what they were.
"""

import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import attrs

from log.block import Block, Point, Tail
from log.directory import DataDirectory
from log.log import Log, Transaction
from log.row import Cursor
from recovery.errors import AheadError, SnapshotError, StateError
from recovery.replay import Replayer, StateMachine, agrees, has_witness, load_states
from recovery.snapshot import Snapshot

COMMIT_BYTES = 1 << 24
"""How many bytes of blocks go into one commit, but for a larger block."""


class CompactError(ValueError):
    """A compaction that cannot be; says why and what can."""


@attrs.frozen
class Compacted:
    """What the new log is.

    `moved_sinks` were behind the base. With `is_fork` the old log went on otherwise
    than the snapshot: none of its events are in the new one.
    """

    log_id: str
    base_sequence: int
    last_sequence: int
    moved_sinks: tuple[str, ...]
    is_fork: bool


def choose_base(replayer: Replayer, machine: StateMachine) -> Snapshot:
    """Give the newest snapshot that is good and at or below every cursor.

    Raises CompactError if there is none, with what is wrong with the newest.
    """
    log = replayer.log
    cursors = log.cursors().values()
    bound = min([cursor.sequence for cursor in cursors] + [log.tail.sequence])
    faults = []
    for sequence, found in replayer.snapshots.newest(bound):
        if sequence <= log.base.sequence:
            break
        try:
            snapshot = replayer.load_snapshot(machine, found)
            check_against_replay(replayer, machine, snapshot)
        except (AheadError, CompactError, SnapshotError, StateError) as error:
            faults.append(f" (snapshot {sequence}: {error})")
        else:
            return snapshot
    newest_fault = faults[0] if faults else ""
    raise CompactError(
        f"there is no good snapshot at or below sequence {bound}{newest_fault}"
    )


def check_against_replay(
    replayer: Replayer, machine: StateMachine, snapshot: Snapshot
) -> None:
    """Raise CompactError unless the snapshot is the state that a replay gives."""
    replayer.begin_at_base(machine)
    replayer.replay(machine, replayer.log.base.sequence, snapshot.sequence)
    if not agrees(machine, snapshot):
        raise CompactError(
            f"snapshot {snapshot.sequence} is not the state of a replay: damaged, or "
            "the code changed"
        )


def read_snapshot(file: Path, replayer: Replayer, machine: StateMachine) -> Snapshot:
    """Read the snapshot that the operator named; raises CompactError.

    It is held against a replay as far as the log has its events.
    """
    log = replayer.log
    try:
        snapshot = Snapshot.decode(file.read_bytes())
        if snapshot.log_id != log.meta.log_id:
            raise CompactError(f"{file} belongs to another log, {snapshot.log_id}")
        if snapshot.sequence < log.base.sequence:
            raise CompactError(f"{file} is older than the log's base")
        load_states(machine, snapshot)
    except OSError as error:
        raise CompactError(f"{file} cannot be read: {error.strerror}") from error
    except (SnapshotError, StateError) as error:
        raise CompactError(f"{file} cannot be used: {error}") from error
    if has_witness(log, snapshot):
        check_against_replay(replayer, machine, snapshot)
    return snapshot


def compact(
    log: Log,
    snapshot: Snapshot,
    target: DataDirectory,
    progress: Callable[[int], None] = lambda _sequence: None,
) -> Compacted:
    """Write the new log into an empty directory; whole and flushed on return.

    A sink behind the base, which only a snapshot chosen by the operator allows,
    goes on from the base. Events of a log that went on otherwise than the snapshot
    stay behind.
    """
    base = snapshot.sequence
    cursors = log.cursors()
    points = log.points()
    # A server may go on: what was read before the end is never beyond it.
    log.refresh()
    is_witnessed = has_witness(log, snapshot)
    is_fork = not is_witnessed and base <= log.tail.sequence
    meta = attrs.evolve(
        log.meta,
        log_id=uuid.uuid4().hex,
        parent_id=log.meta.log_id,
        base_sequence=base,
        base_checksum=snapshot.block_checksum,
        gaps=[gap for gap in log.meta.gaps if is_witnessed and sum(gap) > base + 1],
    )
    base_state = attrs.evolve(snapshot, log_id=meta.log_id, block_sequence=base)
    behind = {name for name, cursor in cursors.items() if cursor.sequence < base}
    with target.new_log(meta, base_state.encode()) as new:
        if is_witnessed and base < log.tail.sequence:
            for blocks in _lots(_sealed_anew(new.tail, _noted(log, base, points))):
                new.commit(Transaction(blocks))
                progress(new.tail.sequence)
        new.commit(
            Transaction(
                cursors={
                    name: Cursor(base, cursor.offset) if name in behind else cursor
                    for name, cursor in cursors.items()
                },
                points=tuple(point for _, point in points.values()),
                rejects=tuple(reject for _, reject in log.rejects()),
            )
        )
        return Compacted(
            meta.log_id, base, new.tail.sequence, tuple(sorted(behind)), is_fork
        )


def _noted(
    log: Log, base: int, points: dict[int, tuple[int, Point]]
) -> Iterator[Block]:
    """Give the blocks behind the base; bring `points` up to them.

    A row that is younger than a block stays: a stream may advance without an event.
    """
    for block in log.read(base):
        if block.first_sequence > log.tail.sequence:
            return
        for point in block.points:
            written, _ = points.get(point.stream_id, (0, point))
            if written < block.last_sequence:
                points[point.stream_id] = (block.last_sequence, point)
        yield block


def _sealed_anew(after: Tail, blocks: Iterable[Block]) -> Iterator[Block]:
    """Seal the blocks' events that come after a new tail, in a chain of their own."""
    for block in blocks:
        passed = after.sequence + 1 - block.first_sequence
        records = block.records.cut(passed, block.records.count)
        sealed = Block.seal(
            after,
            records,
            time_ns=block.time_ns,
            pipeline=block.pipeline,
            points=block.points,
        )
        after = sealed.tail
        yield sealed


def _lots(blocks: Iterable[Block]) -> Iterator[tuple[Block, ...]]:
    """Gather blocks for one commit each: a commit costs a flush."""
    lot: list[Block] = []
    lot_bytes = 0
    for block in blocks:
        lot.append(block)
        lot_bytes += len(block.encoded)
        if lot_bytes >= COMMIT_BYTES:
            yield tuple(lot)
            lot, lot_bytes = [], 0
    if lot:
        yield tuple(lot)
