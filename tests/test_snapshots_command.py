"""`alphabet-replay snapshots`: which there are, and what each of them is worth."""

import contextlib
import json
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from log.block import Records
from log.directory import DataDirectory
from log.log import Log, Transaction
from log.memory_store import MemoryStore
from log.store import BLOCKS, Change
from recovery.replay import Replayer
from recovery.snapshot import Snapshot, State
from recovery.snapshot_directory import AHEAD, BROKEN, SnapshotDirectory
from recovery.snapshot_list import Listed, SnapshotList
from tests import toy
from tests.machines import (
    DAMAGES,
    VOTES_META,
    BusyStore,
    Kept,
    append_records,
    append_votes,
    batches,
    change,
    flip_middle,
    in_version,
    key,
    write_votes,
    write_votes_snapshot,
)
from tests.process import serving, submit, wait_until
from tests.replaying import replay_here
from tests.votes import wire


@pytest.fixture
def directory(tmp_path: Path) -> DataDirectory:
    """Return a log of ten votes in four blocks, with snapshots at 3, 6 and 10."""
    return write_votes(tmp_path / "data", snapshots=[3, 6, 10])


@pytest.fixture
def files(directory: DataDirectory) -> SnapshotDirectory:
    """Return its snapshots."""
    return SnapshotDirectory(directory.snapshots_path)


@contextlib.contextmanager
def opened(directory: DataDirectory) -> Iterator[Log]:
    """Open its log, to change it."""
    with contextlib.closing(directory.open_log(is_damage_accepted=True)) as log:
        yield log


def alter(
    files: SnapshotDirectory, sequence: int, altered: Callable[[Snapshot], Snapshot]
) -> None:
    """Write a snapshot anew, whole and otherwise."""
    files.file(sequence).write_bytes(altered(files.read(sequence)).encode())


def with_other_totals(snapshot: Snapshot) -> Snapshot:
    """Give a vote too many: the last byte of a state is of a total."""
    [state] = snapshot.states
    data = state.data[:-1] + bytes([state.data[-1] ^ 1])
    return attrs.evolve(snapshot, states=(State(state.name, state.encoding, data),))


def listed(path: Path, *words: object) -> tuple[dict[str, str], int, str]:
    """Give how each file stands, with the exit code, and standard error."""
    done = replay_here("snapshots", path, "--json", *words)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    standings = {
        Path(row["file"]).name.removesuffix(".snapshot").lstrip("0"): row["standing"]
        for row in rows
    }
    assert "Traceback" not in done.stderr
    return standings, done.code, done.stderr


class TestStandings:
    """What a snapshot is worth."""

    def test_sound(self, directory: DataDirectory, files: SnapshotDirectory) -> None:
        """Sound ones are listed with sequence, time, size and version; exit code 0."""
        done = replay_here("snapshots", directory.path, "--json")
        assert (done.code, done.stderr) == (0, "")
        assert [json.loads(line) for line in done.stdout.splitlines()] == [
            {
                "sequence": sequence,
                "time": f"2023-11-14T22:13:2{second}Z",
                "bytes": files.file(sequence).stat().st_size,
                "state_version": 1,
                "standing": "sound",
                "reason": None,
                "file": str(files.file(sequence)),
            }
            for sequence, second in [(3, 1), (6, 3), (10, 4)]
        ]

    @pytest.mark.parametrize("damage", DAMAGES)
    @pytest.mark.parametrize("sequence", [3, 6, 10])
    def test_damaged(
        self,
        directory: DataDirectory,
        files: SnapshotDirectory,
        damage: Callable[[bytes], bytes],
        sequence: int,
    ) -> None:
        """One that is no whole snapshot is damaged, and only that one: exit code 1."""
        change(files.file(sequence), damage)
        standings, code, said = listed(directory.path)
        expected = {"3": "sound", "6": "sound", "10": "sound", str(sequence): "damaged"}
        assert (standings, code) == (expected, 1)
        assert said.startswith(f"alphabet-replay: {files.file(sequence)}: damaged: ")
        assert len(said.splitlines()) == 1

    def test_for_people(
        self, directory: DataDirectory, files: SnapshotDirectory
    ) -> None:
        """Each has a line of columns; what cannot be told of one is a dash."""
        change(files.file(3), lambda _: b"nonsense of some length")
        files.file(12).write_bytes(b"more nonsense of some length")
        done = replay_here("snapshots", directory.path)
        cells = [line.split()[:5] for line in done.stdout.splitlines()]
        size, names = files.file(6).stat().st_size, [files.file(n).name for n in (3, 6)]
        assert cells[:3] == [
            ["SEQUENCE", "TIME", "BYTES", "VERSION", "FILE"],
            ["3", "2023-11-14T22:13:21Z", "23", "-", names[0]],
            ["6", "2023-11-14T22:13:23Z", str(size), "1", names[1]],
        ]
        assert cells[-1][:4] == ["12", "-", "28", "-"]
        assert done.stderr.endswith(" (1 more)\n")
        files.file(12).unlink()
        assert "more)" not in replay_here("snapshots", directory.path).stderr

    def test_of_another_state(
        self, directory: DataDirectory, files: SnapshotDirectory
    ) -> None:
        """A whole one with other totals is not that of a replay; later ones may be."""
        alter(files, 6, with_other_totals)
        standings, code, said = listed(directory.path)
        assert standings == {"3": "sound", "6": "different", "10": "sound"}
        assert code == 1
        assert "not the state of a replay: damaged, or the code changed" in said

    def test_of_another_log(
        self, directory: DataDirectory, files: SnapshotDirectory
    ) -> None:
        """One of another log or application is foreign here."""
        alter(files, 3, lambda snapshot: attrs.evolve(snapshot, log_id="other"))
        alter(files, 6, lambda snapshot: attrs.evolve(snapshot, application="tally"))
        standings, code, said = listed(directory.path)
        assert standings == {"3": "damaged", "6": "damaged", "10": "sound"}
        assert code == 1
        assert "it belongs to another log, other (1 more)" in said

    def test_of_another_version(
        self, directory: DataDirectory, files: SnapshotDirectory
    ) -> None:
        """One that this code cannot load is told by its version, and is no damage."""
        alter(files, 6, lambda snapshot: attrs.evolve(snapshot, state_version=2))
        done = replay_here("snapshots", directory.path, "--json")
        row = json.loads(done.stdout.splitlines()[1])
        assert (row["standing"], row["state_version"]) == ("unchecked", 2)
        assert row["reason"] == "it is of version 2, not 1"
        assert done.code == 0

    def test_under_another_name(
        self, directory: DataDirectory, files: SnapshotDirectory
    ) -> None:
        """One that was renamed is not the snapshot that its name promises."""
        files.file(3).rename(files.file(4))
        standings, code, said = listed(directory.path)
        assert standings == {"4": "damaged", "6": "sound", "10": "sound"}
        assert code == 1
        assert "it is the snapshot at 3" in said

    def test_ahead(self, directory: DataDirectory) -> None:
        """One beyond the log's end, or of a log that went on otherwise, is ahead."""
        with opened(directory) as log:
            log.store.commit([Change(BLOCKS, key(7), None)], 0)
        standings, code, said = listed(directory.path)
        assert standings == {"3": "sound", "6": "sound", "10": "ahead"}
        assert code == 1
        assert "the log ends at 6, or went on otherwise" in said
        with opened(directory) as log:
            append_votes(log, [(b"x", 1)] * 6)
        assert listed(directory.path)[0]["10"] == "ahead"

    def test_set_aside(
        self, directory: DataDirectory, files: SnapshotDirectory
    ) -> None:
        """Those that a server has set aside are listed as such, and are no failure."""
        for sequence in (3, 6):
            change(files.file(sequence), flip_middle)
            files.set_aside(sequence, BROKEN)
        write_votes_snapshot(directory, 6)
        files.set_aside(6, AHEAD)
        write_votes_snapshot(directory, 6)
        files.set_aside(6, AHEAD)
        (files.path / "notes.txt").touch()
        (files.path / "00000000000000000007.tmp").touch()
        standings, code, _ = listed(directory.path)
        assert standings == {
            "3.snapshot.broken": "set aside",
            "6.snapshot.ahead": "set aside",
            "6.snapshot.ahead.2": "set aside",
            "6.snapshot.broken": "set aside",
            "10": "sound",
        }
        assert code == 0
        out = replay_here("snapshots", directory.path).stdout
        assert "set aside: a server found it broken" in out
        assert "set aside: a server found it ahead" in out

    def test_before_the_base(
        self, directory: DataDirectory, files: SnapshotDirectory, tmp_path: Path
    ) -> None:
        """One below a compacted log's base cannot be held against a replay."""
        new = tmp_path / "new"
        words = ("--from-snapshot", files.file(6))
        assert replay_here("compact", directory.path, new, *words).code == 0
        target = DataDirectory(new)
        write_votes_snapshot(target, 6)
        write_votes_snapshot(target, 9)
        with opened(target) as log:
            old = attrs.evolve(files.read(3), log_id=log.meta.log_id)
        SnapshotDirectory(target.snapshots_path).write(old)
        standings, code, _ = listed(new)
        assert standings == {"3": "unchecked", "6": "sound", "9": "sound"}
        assert code == 0


class TestDamagedLog:
    """Snapshots beside a log that is not sound."""

    def test_the_last_block(self, directory: DataDirectory) -> None:
        """Before the damage they are checked; what is behind is not to blame."""
        with opened(directory) as log:
            value = log.store.get(BLOCKS, key(7))
            assert value is not None
            log.store.commit([Change(BLOCKS, key(7), flip_middle(value))], 0)
        standings, code, said = listed(directory.path)
        assert standings == {"3": "sound", "6": "sound", "10": "unchecked"}
        assert code == 1
        assert "log is damaged at sequence 7" in said

    def test_a_block_in_the_middle(self, directory: DataDirectory) -> None:
        """The one just before the damage is checked, those behind cannot be."""
        with opened(directory) as log:
            value = log.store.get(BLOCKS, key(4))
            assert value is not None
            log.store.commit([Change(BLOCKS, key(4), flip_middle(value))], 0)
        standings, code, said = listed(directory.path)
        assert standings == {"3": "sound", "6": "unchecked", "10": "unchecked"}
        assert code == 1
        assert "log is damaged at sequence 4" in said
        assert (
            "the log is damaged at 4" in replay_here("snapshots", directory.path).stdout
        )

    def test_lost_events(self, directory: DataDirectory) -> None:
        """Behind a gap nothing can be checked, and that is no failure."""
        with opened(directory) as log:
            append_records(log, Records.gap(5))
            append_votes(log, [(b"a", 1)])
            state = SnapshotDirectory(directory.snapshots_path).read(10)
            tail = log.tail
        SnapshotDirectory(directory.snapshots_path).write(
            attrs.evolve(
                state,
                sequence=16,
                block_sequence=tail.sequence,
                block_checksum=tail.checksum,
            )
        )
        standings, code, _ = listed(directory.path)
        assert standings == {
            "3": "sound",
            "6": "sound",
            "10": "sound",
            "16": "unchecked",
        }
        assert code == 0
        assert (
            "events 11 to 15 are lost"
            in replay_here("snapshots", directory.path).stdout
        )


class TestWithoutCheck:
    """`--no-check` lists alone."""

    def test_nothing_is_replayed(self, directory: DataDirectory) -> None:
        """It needs no application, and believes what it can read."""
        with opened(directory) as log:
            meta = attrs.evolve(VOTES_META, application="tally")
            log.commit(Transaction(meta=meta))
        files = SnapshotDirectory(directory.snapshots_path)
        for sequence in (3, 6, 10):
            alter(files, sequence, lambda s: attrs.evolve(s, application="tally"))
        alter(files, 6, with_other_totals)
        assert replay_here("snapshots", directory.path).code == 3
        standings, code, _ = listed(directory.path, "--no-check")
        assert (set(standings.values()), code) == ({"unchecked"}, 0)

    def test_what_needs_no_replay_is_seen(
        self, directory: DataDirectory, files: SnapshotDirectory
    ) -> None:
        """A damaged one, and one ahead of the log, are found all the same."""
        change(files.file(3), flip_middle)
        with opened(directory) as log:
            log.store.commit([Change(BLOCKS, key(7), None)], 0)
        standings, code, _ = listed(directory.path, "--no-check")
        assert standings == {"3": "damaged", "6": "unchecked", "10": "ahead"}
        assert code == 1

    def test_a_damaged_block_is_met(self, directory: DataDirectory) -> None:
        """Where the block that a snapshot was taken on is damaged, that is told."""
        with opened(directory) as log:
            value = log.store.get(BLOCKS, key(6))
            assert value is not None
            log.store.commit([Change(BLOCKS, key(6), flip_middle(value))], 0)
        done = replay_here("snapshots", directory.path, "--no-check")
        assert "the log is damaged at 6" in done.stdout

    @pytest.mark.parametrize("words", [[], ["--no-check"], ["--format", "csv"]])
    def test_none(self, tmp_path: Path, words: list[str]) -> None:
        """Where there is none, that is said, and nothing is printed."""
        path = write_votes(tmp_path / "data").path
        done = replay_here("snapshots", path, *words)
        assert (done.code, done.stdout) == (0, "")
        assert done.stderr == "there are no snapshots\n"


class TestBesideAServer:
    """Snapshots that come and go."""

    def test_a_live_server(self, tmp_path: Path) -> None:
        """However many a server takes and removes meanwhile, none is called wrong."""
        data = tmp_path / "data"
        lot = wire([(b"a", 1)] * 10)
        with serving(tmp_path, "--snapshot-every", "1") as server:
            assert submit(server.port, lot)
            wait_until(SnapshotDirectory(data / "snapshots").sequences, "a snapshot")
            is_over = threading.Event()

            def send() -> None:
                while not is_over.is_set():
                    assert submit(server.port, lot)

            sender = threading.Thread(target=send)
            sender.start()
            try:
                for _ in range(5):
                    standings, code, said = listed(data)
                    assert (set(standings.values()), code) == ({"sound"}, 0), said
            finally:
                is_over.set()
                sender.join()

    def test_all_were_removed_meanwhile(self, tmp_path: Path) -> None:
        """A server that removed all it had has newer ones, which are listed."""
        store = BusyStore()
        kept = Kept.create(store, tmp_path / "snapshots")
        kept.append((0, [b"m1", b"m2", b"m3"]))
        kept.write_snapshot(3)
        replayer = Replayer(Log.open(store), kept.snapshots)

        def go_on() -> None:
            store.between = lambda: None
            kept.append((0, [b"m4"]))
            kept.write_snapshot(4)
            kept.snapshots.file(3).unlink()

        store.between = go_on
        [listed] = SnapshotList(replayer, toy.machine()).run()
        assert (listed.sequence, listed.standing) == (4, "sound")

    @settings(max_examples=settings().max_examples // 4)
    @given(st.lists(batches, min_size=1, max_size=4), st.data())
    def test_the_log_goes_on(
        self, made: list[tuple[int, list[bytes]]], data: st.DataObject
    ) -> None:
        """Of snapshots written and removed at any moment, none is called wrong."""
        with tempfile.TemporaryDirectory() as path:
            kept = Kept.create(BusyStore(), Path(path) / "snapshots")
            store = kept.log.store
            assert isinstance(store, BusyStore)
            kept.append(*made)
            kept.write_snapshot(data.draw(st.integers(0, kept.log.tail.sequence)))
            reader = Log.open(store)

            def go_on() -> None:
                store.between = lambda: None
                if data.draw(st.booleans()):
                    kept.append(data.draw(batches))
                    kept.write_snapshot(kept.log.tail.sequence)
                if data.draw(st.booleans()):
                    oldest, *_ = [*kept.snapshots.sequences()[::-1], None]
                    if oldest is not None:
                        kept.snapshots.file(oldest).unlink()
                store.between = go_on

            store.between = go_on
            replayer = Replayer(reader, kept.snapshots)
            found = SnapshotList(replayer, toy.machine()).run()
            store.between = lambda: None
            assert {each.standing for each in found} <= {"sound"}


class TestLists:
    """The list itself, for any application."""

    def run(self, kept: Kept, version: int = 1) -> list[Listed]:
        """List as a version of the toy does."""
        machine = in_version(version)
        return SnapshotList(kept.replayer(), machine).run()

    @settings(max_examples=settings().max_examples // 4)
    @given(st.lists(batches, min_size=1, max_size=4), st.data())
    def test_each_on_its_own(
        self, made: list[tuple[int, list[bytes]]], data: st.DataObject
    ) -> None:
        """Of any snapshots, those with other states are found, and no others."""
        with tempfile.TemporaryDirectory() as path:
            kept = Kept.create(MemoryStore(), Path(path) / "snapshots")
            kept.append(*made)
            end = kept.log.tail.sequence
            sequences = data.draw(st.sets(st.integers(0, end), min_size=1))
            wrong = data.draw(st.sets(st.sampled_from(sorted(sequences))))
            for sequence in sequences:
                kept.write_snapshot(
                    sequence, spoiled if sequence in wrong else lambda same: same
                )
            found = {each.sequence: each.standing for each in self.run(kept)}
            assert found == {
                sequence: "different" if sequence in wrong else "sound"
                for sequence in sequences
            }
            others = {each.standing for each in self.run(kept, version=2)}
            assert others == {"unchecked"}

    def test_code_that_changed(self, tmp_path: Path) -> None:
        """An event that can no longer be replayed hides what comes after it."""
        kept = Kept.create(MemoryStore(), tmp_path / "snapshots")
        kept.append((0, [b"p"]), (0, [b"refused"]), (0, [b"p"]))
        for sequence in (1, 2, 3):
            kept.write_snapshot(sequence)
        found = self.run(kept)
        assert [each.standing for each in found] == ["sound", "unchecked", "unchecked"]
        assert "event 2 can no longer be replayed" in found[2].reason

    def test_progress(self, tmp_path: Path) -> None:
        """How far the replay has come is told, up to the last snapshot."""
        kept = Kept.create(MemoryStore(), tmp_path / "snapshots")
        kept.append((0, [b"p", b"p"]), (0, [b"p"]), (0, [b"p"]))
        kept.write_snapshot(1)
        kept.write_snapshot(3)
        told: list[int] = []
        SnapshotList(kept.replayer(), toy.machine(), told.append).run()
        assert told == [1, 2, 3]


def spoiled(snapshot: Snapshot) -> Snapshot:
    """Change one of the toy's states."""
    first, *others = snapshot.states
    data = first.data[:-1] + bytes([first.data[-1] ^ 1])
    return attrs.evolve(snapshot, states=(attrs.evolve(first, data=data), *others))
