"""A new log that begins at a snapshot: shorter history, the same state.

The old log is only read. The new one has an id of its own, names its parent, and has
the snapshot as its base state. Blocks behind the base are sealed anew, since the
chain begins anew; their events, sequences, times and points stay what they were.
"""

import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import attrs

from log.block import Block, Point, Tail
from log.directory import DataDirectory
from log.log import Log, Transaction
from log.row import Cursor
from recovery.archive import Archive
from recovery.copying import Progress, in_lots, read_back, unseen
from recovery.errors import AheadError, SnapshotError, StateError
from recovery.replay import Replayer, StateMachine, agrees, has_witness, load_states
from recovery.snapshot import Snapshot
from recovery.snapshot_directory import read_snapshot as read_file


class CompactError(ValueError):
    """A compaction that cannot be; says why and what can."""


class NoBaseError(CompactError):
    """There is no snapshot to begin at yet, and nothing is wrong with that."""


@attrs.frozen
class Compacted:
    """What the new log is.

    `moved_sinks` were behind the base. With `is_fork` the old log went on otherwise
    than the snapshot: none of its events are in the new one. `archived` events are in
    the archive.
    """

    log_id: str
    base_sequence: int
    last_sequence: int
    moved_sinks: tuple[str, ...]
    is_fork: bool
    archived: int = 0


def choose_base(
    replayer: Replayer, machine: StateMachine, progress: Progress = unseen
) -> Snapshot:
    """Give the newest snapshot that is good and at or below every cursor.

    Raises NoBaseError if there is none, CompactError if the newest is no good,
    GapError for lost events below it that nobody has agreed to.
    """
    log = replayer.log
    # A server that went on may have removed all snapshots up to the end we knew.
    log.refresh()
    behind = [(cursor.sequence, name) for name, cursor in log.cursors().items()]
    end = (log.tail.sequence, None)
    bound, slowest = min([end, *behind], key=lambda place: place[0])
    faults = []
    for sequence, found in replayer.snapshots.newest(bound):
        if sequence <= log.base.sequence:
            break
        try:
            snapshot = replayer.load_snapshot(machine, found)
            check_against_replay(replayer, machine, snapshot, progress)
        except (AheadError, CompactError, SnapshotError, StateError) as error:
            faults.append(f"snapshot {sequence}: {error}")
        else:
            return snapshot
    sink = None if bound == log.tail.sequence else slowest
    if faults:
        raise CompactError(
            f"there is no good snapshot at or below sequence {bound} ({faults[0]}); "
            f"{_remedy(log, sink)}"
        )
    base = log.base.sequence
    if log.tail.sequence == base:
        raise NoBaseError(f"there are no events to leave out after sequence {base}")
    reason = f"there is no snapshot from sequence {base + 1} to {bound} to begin at"
    if bound == base:
        reason = f"no sink may lose events, and one is where the log begins, at {base}"
    raise NoBaseError(f"{reason}; {_remedy(log, sink)}")


def _remedy(log: Log, sink: str | None) -> str:
    """Say what helps: a sink that holds the base back moves on; a snapshot is taken."""
    data_dir = log.store.path.parent
    renew = (
        "a server that is stopped after a checkpoint takes a snapshot: start one with "
        f"'alphabet run --data-dir {data_dir}', stop it with Ctrl-C, and try again"
    )
    if sink is None:
        return renew
    return (
        f"sink {sink} is there: let it catch up, or drop it with 'alphabet run "
        f"--data-dir {data_dir} --forget-sink {sink}', and then {renew}"
    )


def check_against_replay(
    replayer: Replayer,
    machine: StateMachine,
    snapshot: Snapshot,
    progress: Progress = unseen,
) -> None:
    """Raise CompactError unless the snapshot is the state that a replay gives.

    Behind lost events there is no such state: where these are accepted, the snapshot
    is believed, as a server believes it. Raises GapError where they are not.
    """
    if replayer.are_gaps_accepted and lost_until(replayer.log, snapshot.sequence):
        return
    replayer.begin_at_base(machine)
    base = replayer.log.base.sequence
    replayer.replay(machine, base, snapshot.sequence, progress)
    if not agrees(machine, snapshot):
        raise CompactError(
            f"snapshot {snapshot.sequence} is not the state of a replay: damaged, or "
            "the code changed"
        )


def lost_until(log: Log, sequence: int) -> list[tuple[int, int]]:
    """Give the gaps that begin at or below a sequence: (first, last), inclusive."""
    return [
        (first, first + count - 1)
        for first, count in log.meta.gaps
        if first <= sequence
    ]


def read_snapshot(
    file: Path,
    replayer: Replayer,
    machine: StateMachine,
    progress: Progress = unseen,
) -> Snapshot:
    """Read the snapshot that the operator named; raises CompactError.

    It is held against a replay as far as the log has its events.
    """
    log = replayer.log
    try:
        snapshot = read_file(file)
        if snapshot.log_id != log.meta.log_id:
            raise CompactError(f"{file} belongs to another log, {snapshot.log_id}")
        if snapshot.sequence < log.base.sequence:
            raise CompactError(f"{file} is older than the log's base")
        load_states(machine, snapshot)
    except (SnapshotError, StateError) as error:
        raise CompactError(f"{file} cannot be used: {error}") from error
    if has_witness(log, snapshot):
        check_against_replay(replayer, machine, snapshot, progress)
    return snapshot


def _placed(cursors: Mapping[str, Cursor], new: Log) -> dict[str, Cursor]:
    """Give each sink's cursor in the new log: at its base, if it has no such place."""
    base = new.base.sequence
    return {
        name: cursor
        if base <= cursor.sequence <= new.tail.sequence
        else attrs.evolve(cursor, sequence=base)
        for name, cursor in cursors.items()
    }


def compact(
    log: Log,
    snapshot: Snapshot,
    target: DataDirectory,
    progress: Progress = unseen,
    archive: Archive | None = None,
) -> Compacted:
    """Write the new log into an empty directory; whole, read back, flushed on return.

    A sink behind the base, which only a snapshot chosen by the operator allows, or
    beyond the end goes on from the base. Events of a log that went on otherwise than
    the snapshot stay behind. Events that are not in the new log go to the archive, if
    there is one, which is there before the new log is.
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
        gaps=_gaps_after(log, base) if is_witnessed else (),
    )
    base_state = attrs.evolve(snapshot, log_id=meta.log_id, block_sequence=base)
    archived = 0
    with target.new_log(meta, base_state.encode()) as new:
        if is_witnessed and base < log.tail.sequence:
            for blocks in in_lots(_sealed_anew(new.tail, _noted(log, base, points))):
                new.commit(Transaction(blocks))
                progress(new.tail.sequence)
        placed = _placed(cursors, new)
        new.commit(
            Transaction(
                cursors=placed,
                points=tuple(point for _, point in points.values()),
                rejects=tuple(reject for _, reject in log.rejects()),
            )
        )
        read_back(new, base, new.tail)
        if archive is not None:
            dropped = base if is_witnessed else log.tail.sequence
            archived = archive.write(_events_until(log, dropped))
    last = new.tail.sequence
    moved = tuple(sorted(name for name in cursors if placed[name] != cursors[name]))
    return Compacted(meta.log_id, base, last, moved, is_fork, archived)


def _gaps_after(log: Log, base: int) -> tuple[tuple[int, int], ...]:
    """Give (first sequence, count) of what a log's gaps have behind a base."""
    ends = [(first, first + count) for first, count in log.meta.gaps]
    return tuple(
        (max(first, base + 1), end - max(first, base + 1))
        for first, end in ends
        if end > base + 1
    )


def _events_until(log: Log, until: int) -> Iterator[Block]:
    """Give a log's blocks up to an event, the last one cut behind it."""
    for block in log.read(log.base.sequence):
        if block.first_sequence > until:
            return
        count = until + 1 - block.first_sequence
        yield attrs.evolve(block, records=block.records.cut(0, count))


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
