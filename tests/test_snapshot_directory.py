"""Snapshots as files: whole or absent, newest first, never lost by being set aside."""

import contextlib
import os
import re
import socket
import stat
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from log import failpoint
from recovery import snapshot_directory
from recovery.errors import SnapshotError
from recovery.snapshot import HEAD_BYTES, Snapshot, State, announced_bytes
from recovery.snapshot_directory import AHEAD, BROKEN, KEPT_MAX, SnapshotDirectory
from tests.machines import DAMAGES, Damage, change

SOURCE = Path(snapshot_directory.__file__).read_text(encoding="utf-8")
FAILPOINTS = re.findall(r'failpoint\.reach\("([^"]+)"\)', SOURCE)


HUGE_BYTES = 1 << 42
"""A hole of more than any memory has."""
LARGE_BYTES = 5 * HEAD_BYTES
CHECKSUM_BYTES = 4


def lay_socket(file: Path) -> None:
    """Make a socket's name."""
    # A socket's path has 107 bytes at most; a test's directory may have more.
    with socket.socket(socket.AF_UNIX) as made, contextlib.chdir(file.parent):
        made.bind(file.name)


def link_to_zeros(file: Path) -> None:
    """Make a link to the device that never ends."""
    file.symlink_to("/dev/zero")


class CrashError(BaseException):
    """The end of the process, where a test wants it."""


def snapshot(sequence: int, data: bytes = b"state") -> Snapshot:
    """Make a snapshot at a sequence."""
    states = (State("s", "dump", data),)
    return Snapshot("log", sequence, sequence, 0, "toy", 1, states)


@pytest.fixture
def snapshots(tmp_path: Path) -> SnapshotDirectory:
    """Return a directory that is not there yet."""
    return SnapshotDirectory(tmp_path / "snapshots")


@pytest.fixture
def crash_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Return what makes the process end at a failpoint, or go on at all of them."""

    def crash_at(wanted: str) -> None:
        def reach(name: str) -> None:
            if name == wanted:
                raise CrashError(name)

        monkeypatch.setattr(failpoint, "handler", reach)

    return crash_at


class TestWrite:
    """A snapshot becomes a file."""

    def test_it_can_be_read(self, snapshots: SnapshotDirectory) -> None:
        """What was written is read, and the first write makes the directory."""
        assert snapshots.sequences() == []
        file = snapshots.write(snapshot(12))
        assert file == snapshots.path / "00000000000000000012.snapshot"
        assert snapshots.sequences() == [12]
        assert snapshots.read(12) == snapshot(12)

    def test_nobody_else_may_read_it(self, snapshots: SnapshotDirectory) -> None:
        """A snapshot holds what the log holds, and is as closed to others."""
        file = snapshots.write(snapshot(1))
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert stat.S_IMODE(snapshots.path.stat().st_mode) == 0o700

    def test_one_takes_the_place_of_another(self, snapshots: SnapshotDirectory) -> None:
        """A second snapshot at a sequence replaces the first."""
        snapshots.write(snapshot(1, b"old"))
        snapshots.write(snapshot(1, b"new"))
        assert snapshots.read(1) == snapshot(1, b"new")
        assert len(list(snapshots.path.iterdir())) == 1

    @pytest.mark.parametrize("name", FAILPOINTS)
    @pytest.mark.parametrize("before", [None, b"older"])
    def test_it_is_whole_or_absent(
        self,
        snapshots: SnapshotDirectory,
        crash_at: Callable[[str], None],
        name: str,
        before: bytes | None,
    ) -> None:
        """A crash while it is written leaves what was there, or all of the new one."""
        if before is not None:
            snapshots.write(snapshot(5, before))
        crash_at(name)
        with pytest.raises(CrashError):
            snapshots.write(snapshot(5, b"newer" * 1000))
        crash_at("")
        whole = [snapshot(5, b"newer" * 1000)]
        older = [] if before is None else [snapshot(5, before)]
        found = [found for _, found in snapshots.newest(5)]
        assert found == (older if name == "snapshot.before_rename" else whole)
        snapshots.write(snapshot(5, b"newest"))
        snapshots.prune(None)
        assert [snapshots.read(5)] == [snapshot(5, b"newest")]
        assert len(list(snapshots.path.iterdir())) == 1

    def test_it_is_durable(
        self, snapshots: SnapshotDirectory, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The bytes are flushed before the name is given, and the name afterwards."""
        steps: list[str] = []
        flush = os.fsync

        def spy(descriptor: int) -> None:
            steps.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
            flush(descriptor)

        monkeypatch.setattr(os, "fsync", spy)
        monkeypatch.setattr(failpoint, "handler", steps.append)
        snapshots.write(snapshot(5))
        parent = snapshots.path.parent.name
        assert steps == [
            parent,
            "00000000000000000005.tmp",
            "snapshot.before_rename",
            "snapshot.after_rename",
            "snapshots",
        ]

    def test_every_failpoint_is_known(self) -> None:
        """The crashes above are at two places, before and after the rename."""
        assert FAILPOINTS == ["snapshot.before_rename", "snapshot.after_rename"]


class TestRead:
    """A file becomes a snapshot, or an error that says why not."""

    @pytest.mark.parametrize("damage", DAMAGES)
    def test_damage_is_noticed(
        self, snapshots: SnapshotDirectory, damage: Damage
    ) -> None:
        """A changed file is no snapshot."""
        change(snapshots.write(snapshot(5)), damage)
        with pytest.raises(SnapshotError):
            snapshots.read(5)

    def test_another_name_is_noticed(self, snapshots: SnapshotDirectory) -> None:
        """A sound snapshot under the name of another sequence is refused."""
        snapshots.write(snapshot(5)).rename(snapshots.file(6))
        with pytest.raises(SnapshotError, match="it is the snapshot at 5"):
            snapshots.read(6)

    def test_an_unreadable_file_is_noticed(self, snapshots: SnapshotDirectory) -> None:
        """What cannot be read as a file says so, and is no crash."""
        snapshots.file(5).mkdir(parents=True)
        with pytest.raises(SnapshotError, match="cannot be read: Is a directory"):
            snapshots.read(5)

    @pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lay_socket, link_to_zeros])
    def test_what_is_no_file_is_noticed(
        self, snapshots: SnapshotDirectory, make: Callable[[Path], object]
    ) -> None:
        """Nobody waits for a pipe, nor reads a device, whatever its name is."""
        snapshots.write(snapshot(4))
        make(snapshots.file(5))
        with pytest.raises(SnapshotError, match="it cannot be read: "):
            snapshots.read(5)
        [(_, error), (_, good)] = snapshots.newest(5)
        assert isinstance(error, SnapshotError)
        assert good == snapshot(4)
        assert snapshots.set_aside(5, BROKEN).lstat()

    @pytest.mark.parametrize("begins_well", [False, True])
    def test_a_file_of_any_length_is_noticed(
        self, snapshots: SnapshotDirectory, *, begins_well: bool
    ) -> None:
        """No more than a snapshot says that it has is read: a hole may be endless."""
        file = snapshots.write(snapshot(5))
        if not begins_well:
            file.write_bytes(b"")
        os.truncate(file, HUGE_BYTES)
        with pytest.raises(SnapshotError):
            snapshots.read(5)

    def test_a_head_that_tells_too_much(self, snapshots: SnapshotDirectory) -> None:
        """A file that is as long as its head says, with a hole in it, is not held."""
        large = snapshot(5, bytes(LARGE_BYTES)).encode()
        file = snapshots.write(snapshot(5))
        file.write_bytes(large[:1000])
        os.truncate(file, len(large))
        assert announced_bytes(large) == len(large)
        del large
        tracemalloc.start()
        try:
            with pytest.raises(SnapshotError, match="checksum"):
                snapshots.read(5)
            _, held_bytes = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert held_bytes < 2 * HEAD_BYTES

    @given(st.binary(max_size=100), st.integers(0, 10))
    def test_what_a_head_tells(self, data: bytes, cut_bytes: int) -> None:
        """A whole head tells the snapshot's length; any other bytes do no harm."""
        whole = snapshot(5, data).encode()
        assert announced_bytes(whole) == len(whole)
        head_bytes = len(whole) - len(data) - CHECKSUM_BYTES
        assert announced_bytes(whole[:head_bytes]) == len(whole)
        assert announced_bytes(whole[: head_bytes - 1 - cut_bytes]) == 0
        assert announced_bytes(data) == 0
        told = announced_bytes(whole[:10] + data)
        assert told == 0

    def test_a_large_one_is_read_whole(self, snapshots: SnapshotDirectory) -> None:
        """One that is longer than a head may be is read to its end, but no further."""
        large = snapshot(5, bytes(HEAD_BYTES))
        file = snapshots.write(large)
        assert snapshots.read(5) == large
        with file.open("ab") as stream:
            stream.write(b"\0")
        with pytest.raises(SnapshotError, match="it is to have"):
            snapshots.read(5)

    def test_newest_come_first(self, snapshots: SnapshotDirectory) -> None:
        """Snapshots come newest first, at most those up to a sequence, inclusive."""
        for sequence in (9, 100, 10, 2**64 - 1):
            snapshots.write(snapshot(sequence))
        assert snapshots.sequences() == [2**64 - 1, 100, 10, 9]
        assert [sequence for sequence, _ in snapshots.newest(100)] == [100, 10, 9]
        assert [sequence for sequence, _ in snapshots.newest(99)] == [10, 9]
        assert [sequence for sequence, _ in snapshots.newest(8)] == []

    def test_a_damaged_one_comes_as_its_error(
        self, snapshots: SnapshotDirectory
    ) -> None:
        """Among the newest, a damaged snapshot is in its place, as what is wrong."""
        for sequence in (1, 2, 3):
            snapshots.write(snapshot(sequence))
        snapshots.file(2).write_bytes(b"")
        found = dict(snapshots.newest(3))
        assert list(found) == [3, 2, 1]
        assert isinstance(found[2], SnapshotError)
        assert (found[3], found[1]) == (snapshot(3), snapshot(1))

    def test_one_that_vanishes_is_left_out(self, snapshots: SnapshotDirectory) -> None:
        """A snapshot that its server removes meanwhile is no damage."""
        for sequence in (1, 2, 3):
            snapshots.write(snapshot(sequence))
        found = snapshots.newest(3)
        assert next(found) == (3, snapshot(3))
        snapshots.file(2).unlink()
        assert list(found) == [(1, snapshot(1))]

    @pytest.mark.parametrize(
        "name",
        [
            "5.snapshot",
            "0000000000000000000\N{SUPERSCRIPT FIVE}.snapshot",
            "00000000000000000005.snapshot.broken",
            "00000000000000000005.snapshot.ahead",
            "00000000000000000005.tmp",
            "000000000000000000005.snapshot",
            ".snapshot",
            "notes.snapshot",
        ],
    )
    def test_other_names_are_no_snapshots(
        self, snapshots: SnapshotDirectory, name: str
    ) -> None:
        """A file with any other name is not taken for a snapshot."""
        snapshots.path.mkdir()
        (snapshots.path / name).write_bytes(snapshot(5).encode())
        assert snapshots.sequences() == []
        assert list(snapshots.newest(5)) == []


class TestSetAside:
    """A snapshot that is not to be used."""

    @pytest.mark.parametrize("suffix", [BROKEN, AHEAD])
    def test_it_is_renamed(self, snapshots: SnapshotDirectory, suffix: str) -> None:
        """It is in use no more, and its bytes are kept under a name that says why."""
        snapshots.write(snapshot(5))
        aside = snapshots.set_aside(5, suffix)
        assert aside.name == f"00000000000000000005.snapshot{suffix}"
        assert aside.read_bytes() == snapshot(5).encode()
        assert snapshots.sequences() == []

    @pytest.mark.parametrize("suffix", [BROKEN, AHEAD])
    def test_none_takes_the_place_of_another(
        self, snapshots: SnapshotDirectory, suffix: str
    ) -> None:
        """Each one that is set aside at a sequence is kept beside those before it."""
        made = [snapshot(5, b"%d" % number) for number in range(4)]
        for each in made:
            snapshots.write(each)
            snapshots.set_aside(5, suffix)
        kept = {file.read_bytes() for file in snapshots.path.iterdir()}
        assert kept == {each.encode() for each in made}
        assert snapshots.sequences() == []


class TestPrune:
    """What is removed, and what never is."""

    @given(
        sequences=st.sets(st.integers(1, 40), max_size=9),
        needed=st.none() | st.integers(0, 41),
    )
    def test_what_is_kept(
        self,
        tmp_path_factory: pytest.TempPathFactory,
        sequences: set[int],
        needed: int | None,
    ) -> None:
        """The newest three stay, and the newest at or below what a sink needs."""
        snapshots = SnapshotDirectory(tmp_path_factory.mktemp("kept") / "snapshots")
        for sequence in sequences:
            snapshots.write(snapshot(sequence))
        snapshots.prune(needed)
        newest = set(sorted(sequences)[-3:])
        below = {each for each in sequences if needed is not None and each <= needed}
        assert set(snapshots.sequences()) == newest | set(sorted(below)[-1:])

    def test_three_are_kept(self) -> None:
        """The number of snapshots that are kept is three."""
        assert KEPT_MAX == 3

    def test_what_was_set_aside_is_never_removed(
        self, snapshots: SnapshotDirectory
    ) -> None:
        """Pruning leaves broken ones, those ahead, and the files of others alone."""
        for sequence, suffix in [(1, BROKEN), (2, AHEAD), (3, BROKEN), (4, AHEAD)]:
            snapshots.write(snapshot(sequence))
            snapshots.set_aside(sequence, suffix)
        (snapshots.path / "notes.txt").touch()
        before = set(snapshots.path.iterdir())
        for sequence in range(5, 10):
            snapshots.write(snapshot(sequence))
        snapshots.prune(None)
        assert before <= set(snapshots.path.iterdir())
        assert snapshots.sequences() == [9, 8, 7]

    def test_what_a_crash_left_is_removed(self, snapshots: SnapshotDirectory) -> None:
        """Temporary files of writes that never ended go with the next pruning."""
        snapshots.write(snapshot(1))
        (snapshots.path / "00000000000000000002.tmp").write_bytes(b"half")
        snapshots.prune(None)
        assert [file.name for file in snapshots.path.iterdir()] == [
            snapshots.file(1).name
        ]

    def test_nothing_is_there_to_prune(self, snapshots: SnapshotDirectory) -> None:
        """A directory that is not there yet is not missed."""
        snapshots.prune(3)
        assert not snapshots.path.exists()


def test_a_snapshot_says_where_it_belongs(snapshots: SnapshotDirectory) -> None:
    """All fields survive on disk, whatever their size."""
    full = attrs.evolve(snapshot(7, bytes(range(256)) * 500), log_id="x" * 1000)
    snapshots.write(full)
    assert snapshots.read(7) == full
