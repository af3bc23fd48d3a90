"""From a data directory to a state that is ready to count.

In this order: take the directory, open or make the log, rebuild the state, check
that nothing reaches beyond the log, settle where each sink begins. Whatever is wrong
is raised as one of `log`'s or `recovery`'s errors before anything was changed, but
for what the operator has asked for.
"""

import time
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Self

import attrs

from alphabet.connector.outbound import NO_TRANSACTION
from alphabet.journal import entries
from alphabet.journal.journal import Journal
from alphabet.lost_tail import LostTail
from alphabet.pipeline.machine import Machine
from log import failpoint
from log.directory import DataDirectory
from log.errors import DamagedError
from log.log import Log, Transaction
from log.row import Cursor, Meta
from recovery.errors import GapError
from recovery.replay import Recovered, Replayer
from recovery.snapshot_directory import AHEAD, BROKEN, SnapshotDirectory


class SinkError(ValueError):
    """Sinks that the operator named in a way that cannot be; says what can."""


@attrs.frozen
class Consent:
    """What the operator agrees to lose."""

    is_lost_tail_accepted: bool = False
    are_gaps_accepted: bool = False


@attrs.define
class Opened:
    """A data directory in use by this server, its log open and its state rebuilt.

    `recovered` is None for a log that was just made.
    """

    directory: DataDirectory
    log: Log
    snapshots: SnapshotDirectory
    replayer: Replayer
    recovered: Recovered | None

    @classmethod
    def open(
        cls,
        path: Path,
        machine: Machine,
        consent: Consent,
        journal: Journal,
        progress: Callable[[int], None] | None = None,
    ) -> Self:
        """Take a data directory and bring `machine` to the log's last event.

        `progress` is called with the sequence reached, again and again.
        """
        directory = DataDirectory.claim(path)
        try:
            return cls._open(directory, machine, consent, journal, progress)
        except BaseException:
            directory.release()
            raise

    @classmethod
    def _open(
        cls,
        directory: DataDirectory,
        machine: Machine,
        consent: Consent,
        journal: Journal,
        progress: Callable[[int], None] | None,
    ) -> Self:
        has_log = directory.has_log()
        if not has_log:
            _check_no_log(directory, consent)
            with directory.new_log(_new_meta(machine)):
                pass
        log = directory.open_log()
        try:
            snapshots = SnapshotDirectory(directory.snapshots_path)
            replayer = Replayer(log, snapshots, **attrs.asdict(consent))
            names = machine.pipeline_names
            has_new = log.require(machine.application, machine.record_schema, names)
            _check_gaps(log, consent)
            lost_tail = LostTail.find(log)
            if not consent.is_lost_tail_accepted:
                lost_tail.check(log, snapshots)
            recovered = replayer.recover(machine, progress=progress)
            machine.dump()  # One that cannot be stored is told now, not in mid-flood.
            # Nothing is refused from here on, so files may change.
            _set_aside(snapshots, recovered, journal)
            lost_tail.bring_back(log, journal)
            if has_new:
                log.commit(Transaction(meta=attrs.evolve(log.meta, pipelines=names)))
        except BaseException:
            log.close()
            raise
        return cls(directory, log, snapshots, replayer, recovered if has_log else None)

    @property
    def snapshot_sequence(self) -> int:
        """Where the newest snapshot in use is; the base if there is none."""
        return (
            self.log.base.sequence if self.recovered is None else self.recovered.start
        )

    def settle_sinks(
        self,
        names: Sequence[str],
        out_from: int | None,
        forgotten: Sequence[str],
        journal: Journal,
        two_phase: Collection[str] = (),
    ) -> Mapping[str, Cursor]:
        """Give each sink's cursor, committing the rows of new ones.

        `two_phase` are those of the names whose row has a transaction id from the
        beginning on. Raises SinkError for what cannot be: an unknown sink forgotten, a
        known one that is of the other kind, a start given to a known one or beyond the
        log.
        """
        known = self.log.cursors()
        last_sequence = self.log.tail.sequence
        for name in forgotten:
            if name not in known:
                raise SinkError(
                    f"no sink {name!r} to forget (known sinks: {_known(known)})"
                )
        known = {name: known[name] for name in known if name not in forgotten}
        _check_kinds(known, names, two_phase)
        new = [name for name in names if name not in known]
        if out_from is not None:
            if len(new) < len(names):
                named = next(name for name in names if name in known)
                raise SinkError(
                    f"--out-from is for new sinks, and {named!r} is at sequence "
                    f"{known[named].sequence}; forget it first with --forget-sink"
                )
            if not self.log.base.sequence <= out_from <= last_sequence:
                raise SinkError(
                    f"--out-from {out_from} is not in the log, which goes from "
                    f"{self.log.base.sequence} to {last_sequence}"
                )
        start = last_sequence if out_from is None else out_from
        cursors = {
            name: Cursor(start, 0, NO_TRANSACTION if name in two_phase else b"")
            for name in new
        }
        for name in new:
            journal.say(
                entries.sink_new(sink=name, sequence=start, known=_known(known))
            )
        # One that is forgotten and named anew has a row again, not none.
        gone = tuple(name for name in forgotten if name not in cursors)
        transaction = Transaction(cursors=cursors, forgotten=gone)
        if transaction:
            self.log.commit(transaction)
        return {name: (known | cursors)[name] for name in names}

    def close(self) -> None:
        """Close the log and let another server have the directory."""
        self.log.close()
        self.directory.release()


def _known(cursors: Mapping[str, Cursor]) -> str:
    return ", ".join(sorted(cursors)) or "none"


def _check_kinds(
    known: Mapping[str, Cursor], names: Sequence[str], two_phase: Collection[str]
) -> None:
    """Refuse a row to a sink of the other kind: it would lose or repeat outputs."""
    for name in names:
        if name in known and bool(known[name].transaction_id) != (name in two_phase):
            wanted = "--connector-out" if name in two_phase else "--out"
            has = "--connector-out" if name not in two_phase else "--out"
            raise SinkError(
                f"sink {name!r} goes by {has} and cannot go on by {wanted}: give "
                f"another name, or begin it anew with --forget-sink {name}"
            )


def _new_meta(machine: Machine) -> Meta:
    return Meta(
        log_id=uuid.uuid4().hex,
        application=machine.application,
        pipelines=machine.pipeline_names,
        record_schema=machine.record_schema,
        created_ns=time.time_ns(),
    )


def _check_no_log(directory: DataDirectory, consent: Consent) -> None:
    """Refuse to begin anew where snapshots tell that there was a log."""
    sequences = SnapshotDirectory(directory.snapshots_path).sequences()
    if sequences and not consent.is_lost_tail_accepted:
        raise DamagedError(
            directory.path,
            None,
            f"its log is missing, and a snapshot at {sequences[0]} is there",
        )


def _check_gaps(log: Log, consent: Consent) -> None:
    for first, count in log.meta.gaps:
        if not consent.are_gaps_accepted:
            raise GapError(log.store.path.parent, first, first + count - 1)


def _set_aside(
    snapshots: SnapshotDirectory, recovered: Recovered, journal: Journal
) -> None:
    """Rename the snapshots that cannot be used, each with a line."""
    for notice in recovered.notices:
        if notice.is_broken:
            failpoint.reach("recover.set_aside")
            aside = snapshots.set_aside(notice.sequence, BROKEN)
            journal.say(
                entries.snapshot_set_aside(file=aside.name, reason=notice.reason)
            )
        else:
            journal.say(
                entries.snapshot_passed_over(
                    sequence=notice.sequence, reason=notice.reason
                )
            )
    for sequence in recovered.ahead:
        aside = snapshots.set_aside(sequence, AHEAD)
        reason = "the log's tail was lost"
        journal.say(entries.snapshot_set_aside(file=aside.name, reason=reason))
