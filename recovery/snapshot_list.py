"""The snapshots of a data directory, one by one, and what each is worth.

Every snapshot is held against a replay from the log's base. Nothing is changed, and
nothing is set aside: what was set aside before is listed as such.
"""

import contextlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs

from log.block import SEQUENCE_MAX
from log.errors import DamagedError
from log.log import Log
from recovery.errors import GapError, ReplayError, SnapshotError, StateError
from recovery.moment import find_time
from recovery.replay import Replayer, StateMachine, agrees, has_witness
from recovery.snapshot import Snapshot
from recovery.snapshot_directory import (
    AHEAD,
    BROKEN,
    SUFFIX,
    SnapshotDirectory,
    read_snapshot,
)

SOUND = "sound"
UNCHECKED = "unchecked"
DAMAGED = "damaged"
DIFFERENT = "different"
BEYOND = "ahead"
ASIDE = "set aside"
FAULTS = frozenset({DAMAGED, DIFFERENT, BEYOND})
"""What keeps a snapshot from being one to trust."""
LOOKS_MAX = 10
"""How often one looks for a snapshot that stays until it is read."""

_ASIDE_NAME = re.compile(
    rf"(\d{{20}}){re.escape(SUFFIX)}"
    rf"({re.escape(BROKEN)}|{re.escape(AHEAD)})(?:\.\d+)?"
)


@attrs.frozen
class Listed:
    """One snapshot's file, and its standing; `reason` is empty where it is sound.

    `time_ns` is that of its event's block, None where the log does not have it.
    `state_version` is None where the file cannot be read as a snapshot.
    """

    sequence: int
    time_ns: int | None
    file_bytes: int
    state_version: int | None
    file: Path
    standing: str
    reason: str = ""


@attrs.define
class SnapshotList:
    """Lists the snapshots beside one log; `machine` is None to replay nothing."""

    replayer: Replayer
    machine: StateMachine | None = None
    progress: Callable[[int], None] = lambda _sequence: None
    _reached: int = attrs.field(default=0, init=False)
    _obstacle: str = attrs.field(default="", init=False)
    """What keeps the log from being replayed any further."""
    log_damage: DamagedError | None = attrs.field(default=None, init=False)
    """Damage of the log itself that was met; it is to blame, not the snapshots."""

    def run(self) -> list[Listed]:
        """List all, oldest first, and those that were set aside at their sequences.

        Raises DamagedError or ForeignError where there is no base to begin from.
        """
        found: list[Listed] = []
        for _ in range(LOOKS_MAX):
            sequences = sorted(self.directory.sequences())
            found = self._look_at_all(sequences)
            # A server that removed all of them meanwhile has newer ones.
            if found or not sequences:
                break
        found += self._aside()
        return sorted(found, key=lambda listed: (listed.sequence, listed.file.name))

    def _look_at_all(self, sequences: list[int]) -> list[Listed]:
        """Look at snapshots in use, in order, and leave out those that have gone."""
        # A server may go on: the log has the blocks of all that were there by now.
        try:
            self.log.refresh()
        except DamagedError as error:
            self.log_damage = error
        if self.machine is not None:
            self.replayer.begin_at_base(self.machine)
        self._reached = self.log.base.sequence
        found = []
        for sequence in sequences:
            # The server that it belongs to may have removed it meanwhile.
            with contextlib.suppress(FileNotFoundError):
                found.append(self._look_at(sequence))
        return found

    @property
    def log(self) -> Log:
        """The log that the snapshots are beside."""
        return self.replayer.log

    @property
    def directory(self) -> SnapshotDirectory:
        """Where the snapshots are."""
        return self.replayer.snapshots

    def _look_at(self, sequence: int) -> Listed:
        """Look at a snapshot in use; raises FileNotFoundError if it has gone."""
        file = self.directory.file(sequence)
        read: Snapshot | SnapshotError
        try:
            read = self.directory.read(sequence)
        except SnapshotError as error:
            read = error
        # What has gone meanwhile is not damaged.
        size = file.stat().st_size
        time_ns = _time_or_none(self.log, sequence)
        if isinstance(read, SnapshotError):
            return Listed(sequence, time_ns, size, None, file, DAMAGED, str(read))
        version = read.state_version
        return Listed(sequence, time_ns, size, version, file, *self._judge(read))

    def _judge(self, snapshot: Snapshot) -> tuple[str, str]:
        """Say how a whole snapshot stands, and why."""
        meta = self.log.meta
        if snapshot.log_id != meta.log_id:
            return DAMAGED, f"it belongs to another log, {snapshot.log_id}"
        if snapshot.application != meta.application:
            return DAMAGED, f"it belongs to application {snapshot.application!r}"
        if snapshot.sequence < self.log.base.sequence:
            return UNCHECKED, f"it is older than the log's base, {meta.base_sequence}"
        missing = self._missing_witness(snapshot)
        if missing is not None:
            return missing
        if self.machine is None:
            return UNCHECKED, "no replay was asked for"
        return self._compare(self.machine, snapshot)

    def _missing_witness(self, snapshot: Snapshot) -> tuple[str, str] | None:
        """Say why the log does not vouch for a snapshot, None where it does."""
        end = self.log.tail.sequence
        if snapshot.sequence > end and self.log_damage is not None:
            return UNCHECKED, f"the log is damaged at {self.log_damage.sequence}"
        try:
            if has_witness(self.log, snapshot):
                return None
        except DamagedError as error:
            self.log_damage = self.log_damage or error
            return UNCHECKED, f"the log is damaged at {error.sequence}"
        return BEYOND, f"the log ends at {end}, or went on otherwise"

    def _compare(self, machine: StateMachine, snapshot: Snapshot) -> tuple[str, str]:
        """Hold a snapshot against a replay, from the one before it on."""
        try:
            self._replay(machine, snapshot.sequence)
            if self._obstacle:
                return UNCHECKED, self._obstacle
            if agrees(machine, snapshot):
                return SOUND, ""
        except StateError as error:
            return UNCHECKED, str(error)
        return DIFFERENT, "not the state of a replay: damaged, or the code changed"

    def _replay(self, machine: StateMachine, until: int) -> None:
        """Go on to an event, unless something is or was in the way."""
        if self._obstacle:
            return
        try:
            self.replayer.replay(machine, self._reached, until, self.progress)
        except DamagedError as error:
            self.log_damage = self.log_damage or error
            self._obstacle = f"the log is damaged at {error.sequence}"
        except GapError as error:
            self._obstacle = f"events {error.first} to {error.last} are lost"
        except ReplayError as error:
            self._obstacle = str(error)
        self._reached = until

    def _aside(self) -> Iterator[Listed]:
        """Give those that a server has set aside, as far as they can be read."""
        path = self.directory.path
        for file in path.iterdir() if path.is_dir() else ():
            if found := _ASIDE_NAME.fullmatch(file.name):
                version = None
                with contextlib.suppress(SnapshotError):
                    version = read_snapshot(file).state_version
                sequence = min(int(found[1]), SEQUENCE_MAX)
                yield Listed(
                    sequence,
                    _time_or_none(self.log, sequence),
                    file.stat().st_size,
                    version,
                    file,
                    ASIDE,
                    f"a server found it {found[2].removeprefix('.')}",
                )


def _time_or_none(log: Log, sequence: int) -> int | None:
    """Give the time of an event, None where it cannot be told."""
    try:
        return find_time(log, sequence)
    except DamagedError:
        return None
