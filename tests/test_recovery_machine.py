"""Recovery under any order of votes, snapshots, crashes, damage and lost tails.

The invariant, after every step: the recovered state is the fold of the acknowledged
events, reached from the newest snapshot that is good; what is not good is named, and
nothing that was set aside is ever gone.
"""

import contextlib
import tempfile
from pathlib import Path
from typing import Literal

import attrs
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from log import failpoint
from log.log import Log
from recovery.errors import AheadError
from recovery.replay import Recovered
from recovery.snapshot_directory import AHEAD, BROKEN, SnapshotDirectory
from tests.machines import DAMAGES, Batch, Damage, Kept, batches, change
from tests.places import LmdbPlace, MemoryPlace, Place

Standing = Literal["good", "broken", "other version"]


class CrashError(BaseException):
    """The end of the process, where a test wants it."""


class RecoveryOnMemory(RuleBasedStateMachine):
    """A log on the store in memory, and snapshots in real files.

    `standing` says of each snapshot in use what should become of it; `aside` counts
    the files that were set aside.
    """

    def __init__(self) -> None:
        super().__init__()
        self.resources = contextlib.ExitStack()
        path = self.resources.enter_context(tempfile.TemporaryDirectory())
        self.path = Path(path) / "snapshots"
        self.place = self.make_place()
        self.standing: dict[int, Standing] = {}
        self.aside = 0
        self.votes = 0

    def make_place(self) -> Place:
        """Return an empty place."""
        return MemoryPlace()

    def teardown(self) -> None:
        """Let everything go."""
        self.resources.close()

    @initialize()
    def create(self) -> None:
        """Begin a log."""
        self.kept = Kept.create(self.place.open(), self.path)

    @property
    def last_sequence(self) -> int:
        """Where the log ends."""
        return len(self.kept.folded.events)

    @rule(made=st.lists(batches, min_size=1, max_size=3))
    def vote(self, made: list[Batch]) -> None:
        """Commit events, no two of them alike, and be acknowledged."""
        for pipeline, payloads in made:
            self.votes += 1
            unlike = [payload + b"%d" % self.votes for payload in payloads]
            self.kept.append((pipeline, unlike))

    @precondition(lambda self: self.last_sequence)
    @rule(data=st.data(), needed=st.none() | st.integers(0, 30))
    def snapshot(self, data: st.DataObject, needed: int | None) -> None:
        """Take a snapshot at an event, and prune."""
        sequence = data.draw(st.integers(1, self.last_sequence))
        self.kept.write_snapshot(sequence)
        self.standing[sequence] = "good"
        self.prune(needed)

    def prune(self, needed: int | None) -> None:
        """Prune, and forget what is gone; what is kept is what should be."""
        before = sorted(self.standing, reverse=True)
        self.kept.snapshots.prune(needed)
        kept = set(self.kept.snapshots.sequences())
        below = [each for each in before if needed is not None and each <= needed]
        assert kept == {*before[:3], *below[:1]}
        self.standing = {each: self.standing[each] for each in kept}

    @precondition(lambda self: self.last_sequence)
    @rule(
        data=st.data(),
        name=st.sampled_from(["snapshot.before_rename", "snapshot.after_rename"]),
    )
    def crash_in_a_snapshot(self, data: st.DataObject, name: str) -> None:
        """End the process while a snapshot is written, and start another."""
        sequence = data.draw(st.integers(1, self.last_sequence))

        def reach(reached: str) -> None:
            if reached == name:
                raise CrashError(name)

        failpoint.handler = reach
        try:
            with pytest.raises(CrashError):
                self.kept.write_snapshot(sequence)
        finally:
            failpoint.handler = None
        if name == "snapshot.after_rename":
            self.standing[sequence] = "good"
        self.start()

    @precondition(lambda self: self.standing)
    @rule(data=st.data(), damage=st.sampled_from(DAMAGES))
    def damage_a_snapshot(self, data: st.DataObject, damage: Damage) -> None:
        """Change the bytes of a snapshot that was whole."""
        whole = [each for each, how in self.standing.items() if how != "broken"]
        for sequence in data.draw(st.sets(st.sampled_from(whole))) if whole else ():
            change(self.kept.snapshots.file(sequence), damage)
            self.standing[sequence] = "broken"

    @precondition(lambda self: self.last_sequence)
    @rule(data=st.data())
    def meet_another_version(self, data: st.DataObject) -> None:
        """Find a snapshot that other code wrote."""
        sequence = data.draw(st.integers(1, self.last_sequence))
        self.kept.write_snapshot(
            sequence, lambda snapshot: attrs.evolve(snapshot, state_version=2)
        )
        self.standing[sequence] = "other version"

    @precondition(lambda self: self.standing)
    @rule(data=st.data())
    def lose_a_snapshot(self, data: st.DataObject) -> None:
        """Remove a snapshot by hand."""
        sequence = data.draw(st.sampled_from(sorted(self.standing)))
        self.kept.snapshots.file(sequence).unlink()
        del self.standing[sequence]

    @rule()
    def start(self) -> None:
        """Start another process, which sets aside what cannot be used."""
        self.reopen()
        self.set_aside(self.kept.recover())

    @precondition(lambda self: self.last_sequence)
    @rule(data=st.data())
    def lose_the_tail(self, data: st.DataObject) -> None:
        """Lose the last blocks; what a snapshot knows of is noticed."""
        ends = [0, *(block.last_sequence for block in self.kept.log.read(0))]
        self.kept.lose_tail(data.draw(st.sampled_from(ends)))
        self.reopen()
        ahead = [
            each
            for each, how in self.standing.items()
            if each > self.last_sequence and how != "broken"
        ]
        if ahead:
            with pytest.raises(AheadError) as caught:
                self.kept.recover()
            assert caught.value.sequence == max(ahead)
            assert caught.value.last_sequence == self.last_sequence
        recovered = self.kept.recover(is_lost_tail_accepted=True)
        assert sorted(recovered.ahead) == sorted(ahead)
        self.set_aside(recovered)

    def reopen(self) -> None:
        """Open log and snapshots as a new process does."""
        log = Log.open(self.place.open())
        self.kept = Kept(log, SnapshotDirectory(self.path), self.kept.folded)

    def set_aside(self, recovered: Recovered) -> None:
        """Set aside what recovery named, as a server does."""
        broken = [notice.sequence for notice in recovered.notices if notice.is_broken]
        for sequence in broken:
            assert self.standing.pop(sequence) == "broken"
            self.kept.snapshots.set_aside(sequence, BROKEN)
        for sequence in recovered.ahead:
            del self.standing[sequence]
            self.kept.snapshots.set_aside(sequence, AHEAD)
        self.aside += len(broken) + len(recovered.ahead)

    @invariant()
    def the_state_is_the_fold(self) -> None:
        """What is recovered is what was acknowledged, from the newest good snapshot."""
        recovered = self.kept.recover()
        good = [each for each, how in self.standing.items() if how == "good"]
        start = max(good, default=0)
        assert (recovered.sequence, recovered.start) == (self.last_sequence, start)
        assert recovered.is_snapshot == bool(good)
        assert {n.sequence: n.is_broken for n in recovered.notices} == {
            each: how == "broken" for each, how in self.standing.items() if each > start
        }

    @invariant()
    def nothing_set_aside_is_gone(self) -> None:
        """As many files are set aside as there were reasons to."""
        names = [file.name for file in self.path.glob("*")]
        aside = [name for name in names if BROKEN in name or AHEAD in name]
        assert len(aside) == self.aside


class RecoveryOnLmdb(RecoveryOnMemory):
    """The same on LMDB."""

    def make_place(self) -> Place:
        """Return an empty directory."""
        path = self.resources.enter_context(tempfile.TemporaryDirectory())
        place = LmdbPlace(Path(path))
        self.resources.callback(lambda: place.open().close())
        return place


TestRecoveryOnMemory = RecoveryOnMemory.TestCase
TestRecoveryOnLmdb = RecoveryOnLmdb.TestCase
# A share of the examples that are asked for, in the long run as in the short one.
TestRecoveryOnMemory.settings = settings(max_examples=settings().max_examples // 4)
TestRecoveryOnLmdb.settings = settings(max_examples=settings().max_examples // 20)
