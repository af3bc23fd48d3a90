"""State from a log: the newest good snapshot, and the events after it.

The promise kept here: snapshot + rest of the log = whole log, byte for byte.
Generic over what the events mean: a `StateMachine` is all that replay knows of an
application. Nothing is sent, and nothing is written, by any function here.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import attrs

from log import failpoint
from log.block import SEQUENCE_MAX, Block, Records
from log.errors import ForeignError
from log.log import Log
from recovery.errors import AheadError, GapError, SnapshotError, StateError
from recovery.snapshot import Snapshot, State
from recovery.snapshot_directory import SnapshotDirectory


class StateMachine(Protocol):
    """An application's states, as replay drives them.

    Deterministic: the same events in the same order give the same dump.
    """

    @property
    def application(self) -> str:
        """The application's name."""

    @property
    def state_version(self) -> int:
        """The version of its states' bytes."""

    def reset(self) -> None:
        """Go back to the states before the first event."""

    def dump(self) -> tuple[State, ...]:
        """Give every state's bytes; raises StateError."""

    def load(self, states: Sequence[State]) -> None:
        """Take every state from its bytes; raises StateError, changing nothing."""

    def replay(
        self, pipeline: int, first_sequence: int, records: Records
    ) -> Sequence[int]:
        """Apply logged events, with no outputs; raises ReplayError.

        Gives the sequences of those that changed nothing, for computing them failed.
        """


@attrs.frozen
class Notice:
    """A snapshot that was not used, and why.

    `is_broken` is for a damaged or foreign one, which the server sets aside; one
    that this version of the code cannot load is passed over.
    """

    sequence: int
    reason: str
    is_broken: bool


@attrs.frozen
class Recovered:
    """How a state was rebuilt.

    It is the state after `sequence`; it began at the snapshot (or base) at `start`
    and took `replayed` events from the log. `is_snapshot` says that `start` is a
    snapshot's. `ahead` are the snapshots of a lost tail, passed over by consent.
    """

    sequence: int
    start: int
    is_snapshot: bool
    replayed: int
    notices: tuple[Notice, ...] = ()
    ahead: tuple[int, ...] = ()


@attrs.frozen
class Replayer:
    """Rebuilds states from one log and its snapshots.

    With `is_lost_tail_accepted`, snapshots that the log does not reach are passed
    over instead of refused; with `are_gaps_accepted`, lost events are too.
    """

    log: Log
    snapshots: SnapshotDirectory
    is_lost_tail_accepted: bool = False
    are_gaps_accepted: bool = False

    def recover(
        self,
        machine: StateMachine,
        at: int | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> Recovered:
        """Bring a machine to the state after event `at` (inclusive), default all.

        `progress` is called with the sequence reached, now and then. Raises
        DamagedError, ForeignError or a RecoveryError.
        """
        until = self.log.tail.sequence if at is None else at
        notices: list[Notice] = []
        ahead: list[int] = []
        start, is_snapshot = self._begin(machine, at, notices, ahead)
        self.replay(machine, start, until, progress)
        replayed = until - start
        return Recovered(
            until, start, is_snapshot, replayed, tuple(notices), tuple(ahead)
        )

    def replay(
        self,
        machine: StateMachine,
        after: int,
        until: int,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        """Apply the events after `after` (exclusive) up to `until` (inclusive)."""
        if after >= until:
            return
        for block in self.log.read(after):
            self.check_gap(block)
            replay_block(machine, block, after, until)
            failpoint.reach("recover.block")
            if progress is not None:
                progress(min(block.last_sequence, until))
            if block.last_sequence >= until:
                return  # What comes behind is not looked at: it may be damaged.

    def check_gap(self, block: Block) -> None:
        """Raise GapError for a gap that nobody has agreed to."""
        if block.records.is_gap and not self.are_gaps_accepted:
            path = self.log.store.path.parent
            raise GapError(path, block.first_sequence, block.last_sequence)

    def _begin(
        self,
        machine: StateMachine,
        at_most: int | None,
        notices: list[Notice],
        ahead: list[int],
    ) -> tuple[int, bool]:
        """Load the newest good snapshot at or below `at_most`, else the base.

        Without a bound, snapshots beyond the log are looked at too: they are the
        witness of a lost tail.
        """
        bound = SEQUENCE_MAX if at_most is None else at_most
        for sequence, found in self.snapshots.newest(bound):
            try:
                self.load_snapshot(machine, found)
            except SnapshotError as error:
                notices.append(Notice(sequence, str(error), is_broken=True))
            except StateError as error:
                notices.append(Notice(sequence, str(error), is_broken=False))
            except AheadError:
                if not self.is_lost_tail_accepted:
                    raise
                ahead.append(sequence)
            else:
                return sequence, True
        self.begin_at_base(machine)
        return self.log.base.sequence, False

    def load_snapshot(
        self, machine: StateMachine, found: Snapshot | SnapshotError
    ) -> Snapshot:
        """Give a machine a snapshot's states, and the snapshot back.

        Raises SnapshotError for a damaged or foreign one, AheadError for one that
        the log does not reach, StateError for one that cannot be loaded.
        """
        if isinstance(found, SnapshotError):
            raise found
        meta = self.log.meta
        if found.log_id != meta.log_id:
            raise SnapshotError(f"it belongs to log {found.log_id}, not {meta.log_id}")
        if found.application != machine.application:
            raise SnapshotError(f"it belongs to application {found.application!r}")
        self.check_witness(found)
        if found.sequence < self.log.base.sequence:
            raise StateError("it is older than the log's base")
        load_states(machine, found)
        return found

    def check_witness(self, snapshot: Snapshot) -> None:
        """Raise AheadError unless the log still has what the snapshot was taken on."""
        if not has_witness(self.log, snapshot):
            raise AheadError(
                self.log.store.path.parent,
                f"snapshot {snapshot.sequence}",
                snapshot.sequence,
                self.log.tail.sequence,
                self.snapshots.file(snapshot.sequence),
            )

    def begin_at_base(self, machine: StateMachine) -> None:
        """Give a machine the state at the log's base; raises ForeignError."""
        machine.reset()
        data = self.log.base_state()
        if data is None:
            return
        path = self.log.store.path
        try:
            load_states(machine, Snapshot.decode(data))
        except (SnapshotError, StateError) as error:
            raise ForeignError(
                path,
                f"its base state, at {self.log.base.sequence}, cannot be used: {error}",
                "use the application's code that it was compacted with",
            ) from error


def has_witness(log: Log, snapshot: Snapshot) -> bool:
    """Say whether a log still has the block that a snapshot was taken on.

    Of a snapshot before the base nothing can be known: it is believed.
    """
    if snapshot.sequence < log.base.sequence:
        return True
    if snapshot.sequence > log.tail.sequence:
        return False
    stored = log.tail_at(snapshot.sequence)
    witness = (snapshot.block_sequence, snapshot.block_checksum)
    return (stored.sequence, stored.checksum) == witness


def load_states(machine: StateMachine, snapshot: Snapshot) -> None:
    """Give a machine a snapshot's states; raises StateError, changing nothing."""
    if snapshot.state_version != machine.state_version:
        reason = (
            f"it is of version {snapshot.state_version}, not {machine.state_version}"
        )
        raise StateError(reason)
    machine.load(snapshot.states)


def agrees(machine: StateMachine, snapshot: Snapshot) -> bool:
    """Say whether a snapshot holds the states that a machine has; it keeps them.

    Raises StateError for a snapshot that cannot be loaded.
    """
    replayed = machine.dump()
    load_states(machine, snapshot)
    stored = machine.dump()
    # Equal states may have other bytes, as sets do, by the way they came about: so
    # both are loaded and dumped again.
    machine.load(replayed)
    return machine.dump() == stored


def replay_block(
    machine: StateMachine, block: Block, after: int, until: int
) -> Sequence[int]:
    """Apply the events of a block between `after` (exclusive) and `until` (inclusive).

    Gives the sequences of those that failed. Raises ReplayError.
    """
    first = max(block.first_sequence, after + 1)
    records = block.records.cut(
        first - block.first_sequence, until + 1 - block.first_sequence
    )
    return machine.replay(block.pipeline, first, records)


def take_snapshot(
    log: Log, machine: StateMachine, sequence: int, states: Sequence[State]
) -> Snapshot:
    """Make the snapshot of states captured after a committed event."""
    tail = log.tail_at(sequence)
    return Snapshot(
        log_id=log.meta.log_id,
        sequence=sequence,
        block_sequence=tail.sequence,
        block_checksum=tail.checksum,
        application=machine.application,
        state_version=machine.state_version,
        states=tuple(states),
    )
