"""Captures become files in the background, and no trouble there stops the counting."""

import io
import threading
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from alphabet.journal.journal import Journal
from alphabet.pipeline.machine import Capture
from alphabet.snapshotter import Snapshotter
from log import failpoint
from log.block import Block, Records
from log.log import Log, Transaction
from log.memory_store import MemoryStore
from log.row import Cursor
from log.store import BLOCKS, Change
from recovery.replay import Replayer
from recovery.snapshot_directory import KEPT_MAX, SnapshotDirectory
from tests import toy

SECONDS_MAX = 20.0
EVENTS = 6


@attrs.define
class Bench:
    """A snapshotter beside a log of six events in six blocks, and what it tells."""

    snapshotter: Snapshotter
    folded: toy.Fold
    done: list[int]
    said: io.StringIO
    journal: Journal

    def capture(self, sequence: int) -> Capture:
        """Capture the states after an event."""
        machine = self.snapshotter.machine.fresh()
        payloads = [payload for _, payload in self.folded.events[:sequence]]
        machine.replay(0, 1, Records.pack(payloads))
        return Capture(sequence, machine.dump())

    def sequences(self) -> list[int]:
        """Give the snapshots that there are, oldest first."""
        return self.snapshotter.snapshots.sequences()[::-1]

    def heard(self) -> str:
        """Give what was said, and end the journal."""
        self.journal.close()
        return self.said.getvalue()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """Give a snapshotter that no sink holds back."""
    log = Log.create(MemoryStore(), toy.META)
    folded = toy.Fold()
    for number in range(EVENTS):
        payload = b"m%d" % number
        folded.add((0, payload))
        block = Block.seal(log.tail, Records.pack([payload]), time_ns=0)
        log.commit(Transaction((block,)))
    done: list[int] = []
    said = io.StringIO()
    journal = Journal.open(said, "json")
    snapshotter = Snapshotter(
        log,
        SnapshotDirectory(tmp_path / "snapshots"),
        toy.machine(),
        floors=list,
        on_done=done.append,
        journal=journal,
    )
    yield Bench(snapshotter, folded, done, said, journal)
    journal.close()


class TestWrite:
    """One capture."""

    def test_it_becomes_a_snapshot_that_serves(self, bench: Bench) -> None:
        """A machine that begins at the written snapshot has the states at its event."""
        writer = bench.snapshotter
        writer.write(bench.capture(4))
        machine = toy.machine()
        recovered = Replayer(writer.log, writer.snapshots).recover(machine)
        assert (recovered.start, recovered.is_snapshot) == (4, True)
        assert recovered.replayed == EVENTS - 4
        assert toy.state_bytes(machine) == bench.folded.states_at(EVENTS)

    def test_the_newest_are_kept(self, bench: Bench) -> None:
        """The newest three stay, and those before them go."""
        for sequence in range(1, EVENTS + 1):
            bench.snapshotter.write(bench.capture(sequence))
        assert bench.sequences() == [4, 5, 6]
        assert len(bench.sequences()) == KEPT_MAX

    def test_what_a_sink_needs_is_kept(self, bench: Bench) -> None:
        """The newest at or below what a sink may have to begin from stays too."""
        bench.snapshotter.floors = lambda: [4, 2, 3]
        for sequence in range(1, EVENTS + 1):
            bench.snapshotter.write(bench.capture(sequence))
        assert bench.sequences() == [2, 4, 5, 6]

    def test_what_a_sink_that_is_away_needs_is_kept(self, bench: Bench) -> None:
        """A sink that has a cursor holds snapshots back, though it is not served."""
        bench.snapshotter.floors = lambda: [4]
        bench.snapshotter.log.commit(Transaction(cursors={"away": Cursor(2, 0)}))
        for sequence in range(1, EVENTS + 1):
            bench.snapshotter.write(bench.capture(sequence))
        assert bench.sequences() == [2, 4, 5, 6]

    def test_a_failed_write_costs_a_line(self, bench: Bench) -> None:
        """What cannot be written leaves the older snapshots, and one line that says."""
        writer = bench.snapshotter
        writer.write(bench.capture(2))
        writer.snapshots.file(4).with_suffix(".tmp").mkdir()
        writer.write(bench.capture(4))
        assert bench.sequences() == [2]
        [line] = bench.heard().splitlines()
        assert "no snapshot at sequence 4: " in line

    def test_a_damaged_log_costs_a_line(self, bench: Bench) -> None:
        """Beside a damaged block there is no snapshot, and a line that says so."""
        store = bench.snapshotter.log.store
        store.commit([Change(BLOCKS, (5).to_bytes(8), b"")], 0)
        bench.snapshotter.write(bench.capture(5))
        assert bench.sequences() == []
        assert "no snapshot at sequence 5: " in bench.heard()


class TestRun:
    """Captures one after the other, in a thread."""

    def test_all_that_was_submitted_is_done(self, bench: Bench) -> None:
        """Each capture is written and told, in order; then the thread ends."""
        writer = bench.snapshotter
        thread = threading.Thread(target=writer.run)
        thread.start()
        for sequence in (1, 3, 6):
            writer.submit(bench.capture(sequence))
        writer.close()
        thread.join(SECONDS_MAX)
        assert not thread.is_alive()
        assert bench.done == bench.sequences() == [1, 3, 6]

    def test_it_is_told_when_it_is_kept(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A capture is in the making until its file has its name."""
        seen: list[list[int]] = []
        monkeypatch.setattr(failpoint, "handler", lambda _: seen.append([*bench.done]))
        bench.snapshotter.submit(bench.capture(1))
        bench.snapshotter.close()
        bench.snapshotter.run()
        assert seen == [[], []]
        assert bench.done == [1]

    def test_one_that_cannot_be_kept_is_told_too(self, bench: Bench) -> None:
        """A failure is the end of a capture: the next one has its turn."""
        path = bench.snapshotter.snapshots.path
        path.write_bytes(b"")
        bench.snapshotter.submit(bench.capture(1))
        bench.snapshotter.submit(bench.capture(2))
        bench.snapshotter.close()
        bench.snapshotter.run()
        assert bench.done == [1, 2]
        assert bench.sequences() == []
        assert bench.heard().count("no snapshot at sequence") == 2
