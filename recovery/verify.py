"""Everything that can be checked about a log and its snapshots, without changing it.

Every block's checksum, link and sequence; the rows beside the blocks; each snapshot
against a replay. A finding names the place; going on behind one finds the rest. What
the structure of the file under the log is like, others look at and this takes in.
"""

from collections.abc import Callable, Iterable
from typing import TypeVar

import attrs

from log.block import SEQUENCE_MAX, Block, Point
from log.errors import DamagedError
from log.lmdb_check import FREE_LIST, NAMES, Flaw, Structure
from log.log import Log
from log.store import BLOCKS, STREAMS
from recovery.counted import counted
from recovery.errors import AheadError, RecoveryError, SnapshotError, StateError
from recovery.replay import Replayer, StateMachine, agrees, replay_block
from recovery.snapshot import Snapshot
from recovery.snapshot_directory import SnapshotDirectory

T = TypeVar("T")

DAMAGE = "damage"
GAP = "gap"
NOTE = "note"

KEY_BYTES = 8
"""How long a block's key is: its first sequence."""

_IN_THE_LOG = {"base", "block"}


@attrs.frozen
class Finding:
    """One thing that is not as it should be.

    `severity` is `damage`, `gap` (events that salvage could not save) or `note`
    (something that could not be checked, or is passed over). `first` and `last` are
    sequences, inclusive: `first` is None where the place is not among the events,
    `last` where nobody knows how far it goes.
    """

    severity: str
    place: str
    reason: str
    first: int | None = None
    last: int | None = None


@attrs.define
class Verification:
    """What was checked, and what was found."""

    blocks: int = 0
    events: int = 0
    snapshots: int = 0
    findings: list[Finding] = attrs.Factory(list)

    @property
    def damage(self) -> list[Finding]:
        """The findings that make the log one that is not sound."""
        return [found for found in self.findings if found.severity == DAMAGE]


def structure_findings(structure: Structure, base: int = 0) -> list[Finding]:
    """Say what is wrong with a file's structure; `base` is where its log begins."""
    if not structure.is_certain:
        reason = (
            "the pages of the file were not checked, for a server kept changing them: "
            "verify a backup, or stop the server"
        )
        return [Finding(NOTE, "file", reason)]
    findings = [_flaw_finding(flaw, base) for flaw in structure.flaws]
    if structure.lost_pages:
        reason = f"{structure.lost_pages} pages are neither used nor free: room is lost"
        findings.append(Finding(NOTE, FREE_LIST, reason))
    return findings


def _flaw_finding(flaw: Flaw, base: int) -> Finding:
    place = flaw.table if flaw.page is None else f"page {flaw.page} of {flaw.table}"
    if flaw.table != BLOCKS:
        return Finding(DAMAGE, place, flaw.reason)
    low, high = flaw.bounds
    first = max(int.from_bytes(low[:KEY_BYTES]), base + 1)
    # A bound that is longer than a key lies just behind the key that it begins with.
    last = (
        None
        if high is None
        else int.from_bytes(high[:KEY_BYTES]) - (len(high) <= KEY_BYTES)
    )
    return Finding(DAMAGE, place, flaw.reason, first, last)


@attrs.define
class Verifier:
    """Checks one log; `machine` is None to look at bytes alone.

    `structure` is that of the file under the log: what its flaws keep from being read
    is not blamed on what points there.
    """

    log: Log
    snapshots: SnapshotDirectory
    machine: StateMachine | None
    progress: Callable[[int], None] = lambda _sequence: None
    structure: Structure = attrs.Factory(Structure)
    _result: Verification = attrs.field(factory=Verification, init=False)
    _points: dict[int, tuple[int, Point]] = attrs.field(factory=dict, init=False)
    _is_state_known: bool = attrs.field(default=True, init=False)
    _unended: int | None = attrs.field(default=None, init=False)
    """Which finding is of damage whose end has not been reached."""
    _end: int = attrs.field(default=0, init=False)
    """How far anything may reach; SEQUENCE_MAX where the last block is not sound."""

    def run(self) -> Verification:
        """Check everything, and say what was found; raises ForeignError.

        A server may go on meanwhile. So rows and snapshots are read between two
        looks at the log's end: what the first one saw, the rows must know of, and
        nothing may reach beyond the second.
        """
        settled = self.log.tail.sequence
        points = self._rows("streams", lambda: self.log.points().items())
        cursors = self._rows("cursors", lambda: self.log.cursors().items())
        rejects = self._rows("rejects", self.log.rejects)
        read = self._read_snapshots()
        try:
            self.log.refresh()
            self._end = self.log.tail.sequence
        except DamagedError:  # It will be found among the blocks.
            self._end = SEQUENCE_MAX
        if self._lacks(BLOCKS):
            self._end = SEQUENCE_MAX
        snapshots = self._check_witnesses(read)
        self._begin_at_base()
        self._check_blocks(snapshots, settled)
        if points is not None and not self._lacks(STREAMS):
            self._check_points(dict(points))
        for name, cursor in cursors or ():
            self._check_range(DAMAGE, f"sink {name}", cursor.sequence)
        for number, reject in rejects or ():
            if reject.sequence > self.log.base.sequence:
                self._check_range(NOTE, f"reject {number}", reject.sequence)
        # What is wrong with the log comes first, and with what is under it before that.
        self._result.findings.sort(key=lambda found: found.place not in _IN_THE_LOG)
        under = structure_findings(self.structure, self.log.base.sequence)
        self._result.findings[:0] = under
        return self._result

    def _lacks(self, table: str) -> bool:
        """Say whether rows of a table may be there that cannot be reached."""
        return any(flaw.table in {table, NAMES} for flaw in self.structure.flaws)

    def _find(
        self,
        severity: str,
        place: str,
        reason: str,
        first: int | None = None,
        last: int | None = None,
    ) -> None:
        self._result.findings.append(Finding(severity, place, reason, first, last))

    def _rows(self, table: str, read: Callable[[], Iterable[T]]) -> list[T] | None:
        """Read a table whole; a damaged row is a finding, and gives None."""
        try:
            return list(read())
        except DamagedError as error:
            self._find(DAMAGE, table, error.reason)
            return None

    def _read_snapshots(self) -> list[Snapshot]:
        """Read all snapshots of this log that are whole, oldest first."""
        found = []
        for sequence, read in self.snapshots.newest(SEQUENCE_MAX):
            self._result.snapshots += 1
            place = f"snapshot {sequence}"
            if isinstance(read, SnapshotError):
                self._find(DAMAGE, place, str(read), sequence, sequence)
            elif read.log_id != self.log.meta.log_id:
                reason = f"it belongs to another log, {read.log_id}"
                self._find(DAMAGE, place, reason, sequence, sequence)
            else:
                found.append(read)
        return found[::-1]

    def _check_witnesses(self, snapshots: Iterable[Snapshot]) -> list[Snapshot]:
        """Give those snapshots that the log still has the blocks of.

        Of those that a damaged block keeps from being told, that block is to blame.
        """
        if self._lacks(BLOCKS):
            return list(snapshots)
        replayer = Replayer(self.log, self.snapshots)
        found = []
        for snapshot in snapshots:
            sequence = snapshot.sequence
            is_end_sound = self._end < SEQUENCE_MAX
            try:
                if is_end_sound or sequence <= self.log.tail.sequence:
                    replayer.check_witness(snapshot)
            except AheadError as error:
                place = f"snapshot {sequence}"
                self._find(DAMAGE, place, str(error), sequence, sequence)
                continue
            except DamagedError:
                pass
            found.append(snapshot)
        return found

    def _begin_at_base(self) -> None:
        if self.machine is None:
            return
        try:
            Replayer(self.log, self.snapshots).begin_at_base(self.machine)
        except DamagedError as error:
            self._is_state_known = False
            self._find(DAMAGE, "base", error.reason, self.log.base.sequence)

    def _check_blocks(self, snapshots: list[Snapshot], settled: int) -> None:
        """Check every block, and each snapshot where its event is reached."""
        reached = self.log.base.sequence
        waiting = [snapshot for snapshot in snapshots if snapshot.sequence >= reached]
        for found in self.log.inspect(reached):
            if isinstance(found, DamagedError):
                self._begin_damage(found, reached)
                continue
            self._end_damage(found.first_sequence)
            if found.first_sequence > self.log.tail.sequence:
                break
            self._count(found, settled)
            while waiting and waiting[0].sequence <= found.last_sequence:
                snapshot = waiting.pop(0)
                self._replay(found, reached, snapshot.sequence)
                reached = max(reached, snapshot.sequence)
                self._compare(snapshot)
            self._replay(found, reached, found.last_sequence)
            reached = found.last_sequence
            self.progress(reached)
        if self._lacks(BLOCKS):
            self._is_state_known = False
        for snapshot in waiting:
            self._compare(snapshot)

    def _begin_damage(self, error: DamagedError, reached: int) -> None:
        """Note a damaged block; behind a sound one, the damage begins where that ends.

        For a block may be stored under a later key than its own.
        """
        first = error.sequence
        if self._unended is None and first is not None:
            first = min(first, reached + 1)
        self._end_damage(error.sequence)
        self._unended = len(self._result.findings)
        self._find(DAMAGE, "block", error.reason, first)
        self._is_state_known = False

    def _end_damage(self, sequence: int | None) -> None:
        """Let the damage found last among the blocks reach up to a sequence."""
        if self._unended is not None and sequence is not None:
            found = self._result.findings[self._unended]
            last = max(sequence - 1, found.first or 0)
            self._result.findings[self._unended] = attrs.evolve(found, last=last)
        self._unended = None

    def _count(self, block: Block, settled: int) -> None:
        """Count a block; remember its points if the rows must know of them."""
        if block.last_sequence <= settled:
            for point in block.points:
                self._points[point.stream_id] = (block.last_sequence, point)
        if block.pipeline >= len(self.log.meta.pipelines):
            reason = f"it is of pipeline {block.pipeline}, which the log does not name"
            first, last = block.first_sequence, block.last_sequence
            self._find(DAMAGE, "block", reason, first, last)
        if not block.records.is_gap:
            self._result.blocks += 1
            self._result.events += block.records.count
        else:
            lost = counted(block.records.count, "event is", "events are")
            reason = f"{lost} lost"
            first, last = block.first_sequence, block.last_sequence
            self._find(GAP, "block", reason, first, last)
            self._is_state_known = False

    def _replay(self, block: Block, after: int, until: int) -> None:
        if self.machine is None or not self._is_state_known or until <= after:
            return
        try:
            replay_block(self.machine, block, after, until)
        except RecoveryError as error:
            self._is_state_known = False
            first, last = block.first_sequence, block.last_sequence
            self._find(DAMAGE, "block", str(error), first, last)

    def _compare(self, snapshot: Snapshot) -> None:
        """Hold a snapshot against the state replayed up to it."""
        if self.machine is None:
            return
        sequence = snapshot.sequence
        place = f"snapshot {sequence}"
        if not self._is_state_known:
            reason = "it cannot be held against a replay, for what comes before it"
            self._find(NOTE, place, reason, sequence, sequence)
            return
        try:
            is_equal = agrees(self.machine, snapshot)
        except StateError as error:
            self._find(NOTE, place, f"not compared: {error}", sequence, sequence)
            return
        if not is_equal:
            reason = "it is not the state of a replay: damaged, or the code changed"
            self._find(DAMAGE, place, reason, sequence, sequence)

    def _check_points(self, rows: dict[int, tuple[int, Point]]) -> None:
        """Hold the streams' rows against the blocks, and the log's range."""
        for stream_id, (sequence, point) in sorted(self._points.items()):
            row = rows.get(stream_id)
            place = f"stream {stream_id}"
            if row is None:
                self._find(DAMAGE, place, "the blocks have it, and no row does")
            elif row[0] < sequence or row[1].message_id < point.message_id:
                reason = (
                    f"its row is at message {row[1].message_id}, and the blocks are "
                    f"at {point.message_id}"
                )
                self._find(DAMAGE, place, reason, sequence, sequence)
            elif row[1].name != point.name:
                reason = f"its row names it {row[1].name!r}, the blocks {point.name!r}"
                self._find(DAMAGE, place, reason, sequence, sequence)
        for stream_id, (sequence, _) in sorted(rows.items()):
            self._check_range(DAMAGE, f"stream {stream_id}", sequence)

    def _check_range(self, severity: str, place: str, sequence: int) -> None:
        base = self.log.base.sequence
        if not base <= sequence <= self._end:
            last = self.log.tail.sequence
            reason = f"it is at {sequence}, and the log goes from {base} to {last}"
            self._find(severity, place, reason, sequence, sequence)
