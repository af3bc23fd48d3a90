"""A new log from whatever is left of a damaged one; the damaged one is only read.

Blocks keep their bytes up to the first gap. Behind it the chain is another one, so
they are sealed anew: events, sequences, times, pipelines and points stay what they
were. The new log has an id of its own and names its parent. It appears whole and
flushed, its snapshots beside it, or not at all.
"""

import uuid
from collections.abc import Callable, Iterator, Sequence

import attrs
import numpy as np

from log import failpoint
from log.block import FORMAT_VERSION, Block, BlockError, Point, Records, Tail
from log.directory import DataDirectory
from log.log import Log, Transaction, broken_link
from log.row import ENGINE, Meta
from recovery.copying import in_lots
from recovery.damage.block_scan import Source
from recovery.damage.remains import Remains, find_remains
from recovery.damage.salvage_plan import Gap, Ignored, Move, Piece, Plan, make_plan
from recovery.snapshot import Snapshot
from recovery.snapshot_directory import SnapshotDirectory

IGNORED_MAX = 100
"""How many blocks that were not taken are told one by one."""


class SalvageError(ValueError):
    """A salvage that cannot be; says why and what can."""


class NewerLogError(SalvageError):
    """A log of a form that only a newer program knows."""


@attrs.frozen
class Description:
    """What a log is that does not say so any more."""

    application: str
    record_schema: str
    pipelines: tuple[str, ...]


Describe = Callable[[str | None], Description]
"""Describes a log by the application that its snapshots name, None where none does.

Raises SalvageError where that does not tell enough."""


@attrs.frozen
class Salvaged:
    """What the new log is, and what became of the old one.

    `events` are those that were saved. `sealed_anew` counts the blocks whose bytes are
    not the old ones, and `unproven` those of them that may be of another branch than
    what is before the gap. `snapshots` are those that went along, by sequence.
    `streams` counts points of reference; those in `streams_back` were beyond what is
    left, and their senders may give the lost events again. `copies` counts blocks found
    again, `torn` places where a block begins that is not whole, `ignored_more` the
    blocks that were not taken beyond those named in `ignored`. `doubtful` names the
    tables whose rows had to be looked for.
    """

    log_id: str
    parent_id: str
    base_sequence: int
    last_sequence: int
    blocks: int
    events: int
    sealed_anew: int
    unproven: int
    gaps: tuple[Gap, ...]
    snapshots: tuple[int, ...]
    streams: int
    streams_back: tuple[int, ...]
    sinks: tuple[str, ...]
    moves: tuple[Move, ...]
    rejects: int
    doubtful: tuple[str, ...]
    is_base_lost: bool
    ignored: tuple[Ignored, ...]
    ignored_more: int
    copies: int
    torn: int

    @property
    def is_loss(self) -> bool:
        """Say whether anything is known to be lost."""
        return bool(self.gaps or self.moves or self.streams_back or self.is_base_lost)


@attrs.define
class _Writer:
    """Writes the pieces of a plan, and keeps the books."""

    source: Source
    log: Log
    blocks: int = 0
    events: int = 0
    sealed_anew: int = 0
    points: dict[int, tuple[int, Point]] = attrs.Factory(dict)

    def sealed(self, pieces: Sequence[Piece]) -> Iterator[Block]:
        """Give the new log's blocks, in order."""
        after = self.log.tail
        for number, piece in enumerate(pieces):
            if piece.blocks is None:
                time_ns = _next_time(pieces[number:], after)
                gap = Records.gap(piece.count)
                block = Block.seal(after, gap, time_ns=time_ns)
                after = block.tail
                yield block
                continue
            for row in piece.blocks:
                block = self._joined(after, self._read_again(row))
                after = block.tail
                yield block

    def _read_again(self, row: np.void) -> Block:
        offset, block_bytes = int(row["offset"]), int(row["block_bytes"])
        try:
            return Block.decode(self.source.read(offset, block_bytes))
        except BlockError as error:
            raise SalvageError(
                f"the block at byte {offset} was whole and is not any more: {error}; "
                "copy what can be read of the disk, and salvage the copy"
            ) from error

    def _joined(self, after: Tail, found: Block) -> Block:
        """Give a block as it was, or sealed anew if it cannot follow as it was."""
        self.blocks += 1
        self.events += 0 if found.records.is_gap else found.records.count
        for point in found.points:
            self.points[point.stream_id] = (found.last_sequence, point)
        if broken_link(after, found) is None:
            return found
        self.sealed_anew += 1
        return Block.seal(
            after,
            found.records,
            time_ns=found.time_ns,
            pipeline=found.pipeline,
            points=found.points,
        )


def salvage(
    source: Source,
    snapshots: Sequence[Snapshot],
    target: DataDirectory,
    describe: Describe,
    progress: Callable[[int], None] = lambda _offset: None,
) -> Salvaged:
    """Write a new log of all that can be found; whole and flushed on return.

    `snapshots` are those beside the old log that are whole. `describe` is asked if the
    log has lost what it says of itself. `progress` is called with the bytes looked at.
    Raises SalvageError where nothing is found, or nothing says what it is;
    NewerEngineError; LogError for what keeps the new log from being written.
    """
    remains = find_remains(source, snapshots, progress)
    plan = make_plan(remains, snapshots)
    meta = _new_meta(remains, plan, describe)
    with target.new_log(meta, _base_state(plan, meta)) as new:
        writer = _Writer(source, new)
        for lot in in_lots(writer.sealed(plan.pieces)):
            new.commit(Transaction(lot))
        points, streams_back = _points(remains, plan, writer.points)
        new.commit(
            Transaction(
                cursors=plan.cursors,
                points=tuple(points.values()),
                rejects=remains.rows.rejects,
            )
        )
        failpoint.reach("salvage.before_snapshots")
        _write_snapshots(plan, new, SnapshotDirectory(target.snapshots_path))
        failpoint.reach("salvage.after_snapshots")
        ignored, ignored_more = _ignored(remains)
        return Salvaged(
            log_id=meta.log_id,
            parent_id=meta.parent_id,
            base_sequence=plan.base.sequence,
            last_sequence=new.tail.sequence,
            blocks=writer.blocks,
            events=writer.events,
            sealed_anew=writer.sealed_anew,
            unproven=0 if remains.is_certain else writer.sealed_anew,
            gaps=plan.gaps,
            snapshots=tuple(each.sequence for each in plan.snapshots),
            streams=len(writer.points.keys() | points.keys()),
            streams_back=streams_back,
            sinks=tuple(sorted(plan.cursors)),
            moves=plan.moves,
            rejects=len(remains.rows.rejects),
            doubtful=remains.rows.doubtful,
            is_base_lost=plan.is_base_lost,
            ignored=(*plan.ignored, *ignored),
            ignored_more=ignored_more,
            copies=remains.chain.copies,
            torn=remains.torn,
        )


def _new_meta(remains: Remains, plan: Plan, describe: Describe) -> Meta:
    """Say what the new log is; raises SalvageError where nothing tells."""
    blocks = remains.chain.blocks
    if not len(blocks) and remains.rows.meta is None and plan.base_state is None:
        raise SalvageError("nothing of a log was found in it")
    old = remains.rows.meta or _described(remains, plan, describe)
    if old.format_version > FORMAT_VERSION or old.engine != ENGINE:
        raise NewerLogError("it is a newer Alphabet's; use the one that wrote it")
    most = int(blocks["pipeline"].max()) if len(blocks) else 0
    if most >= len(old.pipelines):
        raise SalvageError(
            f"it has blocks of {most + 1} pipelines, and {len(old.pipelines)} are "
            "named: name them all, in order, with --pipeline"
        )
    gaps = [(piece.first, piece.count) for piece in plan.pieces if piece.blocks is None]
    for row in blocks[blocks["is_gap"]]:
        first, last = int(row["first"]), int(row["last"])
        gaps.append((first, last + 1 - first))
    return attrs.evolve(
        old,
        log_id=uuid.uuid4().hex,
        parent_id=remains.log_id,
        base_sequence=plan.base.sequence,
        base_checksum=plan.base.checksum,
        gaps=sorted(gaps),
    )


def _described(remains: Remains, plan: Plan, describe: Describe) -> Meta:
    """Describe a log that does not do so itself; raises SalvageError."""
    states = [each for each in (plan.base_state, *plan.snapshots) if each is not None]
    found = describe(states[-1].application if states else None)
    blocks = remains.chain.blocks
    return Meta(
        log_id="",
        application=found.application,
        pipelines=found.pipelines,
        record_schema=found.record_schema,
        created_ns=int(blocks["time_ns"][0]) if len(blocks) else 0,
    )


def _base_state(plan: Plan, meta: Meta) -> bytes | None:
    """Give the bytes of the state at the new log's base; None where it begins at 0."""
    if plan.base_state is None:
        return None
    return attrs.evolve(
        plan.base_state,
        log_id=meta.log_id,
        block_sequence=plan.base.sequence,
        block_checksum=plan.base.checksum,
    ).encode()


def _next_time(pieces: Sequence[Piece], after: Tail) -> int:
    """Give the time of the first block behind a gap, or of the one before it."""
    for piece in pieces:
        if piece.blocks is not None:
            return int(piece.blocks["time_ns"][0])
    return after.time_ns


def _points(
    remains: Remains, plan: Plan, of_blocks: dict[int, tuple[int, Point]]
) -> tuple[dict[int, Point], tuple[int, ...]]:
    """Give the points to keep from the rows, and the streams that go back.

    The blocks bring their own. A row that is younger stays, for a stream may advance
    without an event; but not one that speaks of events that are lost and in no state:
    a sender that still has them gives them again. Where earlier blocks are missing
    nobody knows what of it they counted, and its row stays.
    """
    kept = {}
    back = []
    is_all_known = not plan.base.sequence and all(
        gap.first > plan.settled for gap in plan.gaps
    )
    for stream_id, (written, point) in sorted(remains.rows.points.items()):
        stored, _ = of_blocks.get(stream_id, (0, point))
        if written > plan.settled:
            back.append(stream_id)
            if stored or is_all_known:
                continue
        if written >= stored:
            kept[stream_id] = point
    return kept, tuple(back)


def _write_snapshots(plan: Plan, new: Log, directory: SnapshotDirectory) -> None:
    """Write the snapshots that go along, each on the block that it stands on now."""
    for snapshot in plan.snapshots:
        tail = new.tail_at(snapshot.sequence)
        directory.write(
            attrs.evolve(
                snapshot,
                log_id=new.meta.log_id,
                block_sequence=tail.sequence,
                block_checksum=tail.checksum,
            )
        )


def _ignored(remains: Remains) -> tuple[list[Ignored], int]:
    """Say of blocks that were not taken why, and how many more there are."""
    chain = remains.chain
    found = []
    for row in chain.others[:IGNORED_MAX]:
        first, last = int(row["first"]), int(row["last"])
        is_same = (chain.blocks["last"] >= first) & (chain.blocks["first"] <= last)
        reason = "nothing leads to it from the log"
        if is_same.any():
            taken = chain.blocks[is_same][0]
            is_known = bool(chain.is_known[is_same].any())
            cause = "the log names it" if is_known else "more follows from it"
            reason = f"the block at byte {int(taken['offset'])} was taken: {cause}"
        elif last <= remains.base.sequence:
            reason = "it comes before the log's base"
        what = f"block {first} to {last} at byte {int(row['offset'])}"
        found.append(Ignored(what, reason))
    return found, max(len(chain.others) - IGNORED_MAX, 0)
