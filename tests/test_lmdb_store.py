"""The store on LMDB beyond the contract: growth, full disks, other processes, damage.

The disk that is full is real: a tmpfs of 1 MiB, mounted in a mount namespace of a
child's own (`unshare --map-root-user --mount`, from util-linux, which every Debian
has). It needs no privileges and leaves nothing behind.
"""

import json
import mmap
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import lmdb
import pytest

from log import failpoint
from log.errors import CommitError, DamagedError, DirectoryError, ForeignError
from log.lmdb_store import (
    DATA_FILE,
    LOCK_FILE,
    MAP_BYTES,
    MAP_BYTES_MIN,
    READER_CHECK_SECONDS,
    LmdbStore,
    check_file,
    hold_pages,
    read_meta,
)
from log.store import BLOCKS, CURSORS, META, REJECTS, STREAMS, TABLES, Change
from tests.children import mapped_bytes
from tests.faults import cut, flip_bit, zero_page
from tests.process import PYTHON, ROOT, SECONDS_MAX, child, environment, finish

ALL = 1 << 30
ENOSPC, EIO = 28, 5
PAGE_BYTES = mmap.PAGESIZE
DISK_BYTES = 1 << 20
LEAF = 2
SLOTS = 126
"""How many readers LMDB has room for."""
COMMITS = 30
ON_A_SMALL_DISK = (
    "unshare",
    "--map-root-user",
    "--mount",
    "sh",
    "-c",
    f'mount -t tmpfs -o size={DISK_BYTES} none "$0" && exec "$@"',
)


def append(number: int, value_bytes: int) -> Change:
    """Return the change that appends one row."""
    return Change(BLOCKS, number.to_bytes(8), bytes(value_bytes), is_append=True)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LmdbStore]:
    """Return a new store with room for a hundred rows or so."""
    store = LmdbStore.open(tmp_path, is_new=True, map_bytes=100 * PAGE_BYTES)
    yield store
    store.close()


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[lmdb.Environment]:
    """Return the list of environments that are opened from now on."""
    opened: list[lmdb.Environment] = []
    real: Callable[..., lmdb.Environment] = lmdb.open

    def spy(path: str, **options: object) -> lmdb.Environment:
        opened.append(real(path, **options))
        return opened[-1]

    monkeypatch.setattr(lmdb, "open", spy)
    return opened


class TestDurability:
    """What makes a commit durable."""

    def test_every_commit_is_flushed(
        self, tmp_path: Path, opened: list[lmdb.Environment]
    ) -> None:
        """LMDB flushes data and meta page at each commit, and writes no map."""
        store = LmdbStore.open(tmp_path, is_new=True)
        flags = opened[0].flags()
        assert (flags["sync"], flags["metasync"]) == (True, True)
        assert (flags["writemap"], flags["map_async"]) == (False, False)
        assert flags["lock"]
        store.close()


class TestGrowth:
    """A map that was too small."""

    @pytest.fixture
    def moments(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """Return the list of moments that commits reach from now on."""
        moments: list[str] = []
        monkeypatch.setattr(failpoint, "handler", moments.append)
        return moments

    def test_it_grows_in_a_put(self, store: LmdbStore, moments: list[str]) -> None:
        """A row larger than the map is stored; the put found the map full."""
        store.commit([append(1, 5 * 100 * PAGE_BYTES)], 1)
        assert moments == ["commit.before_flush", "commit.after_flush"]
        assert [len(value) for _, value in store.scan(BLOCKS, b"", ALL)] == [
            500 * PAGE_BYTES
        ]

    def test_it_grows_in_a_commit(self, store: LmdbStore, moments: list[str]) -> None:
        """Rows go on being stored where LMDB finds the map full when it commits."""
        for number in range(1, 201):
            store.commit([append(number, 3000)], number)
        before, after = map(
            moments.count, ("commit.before_flush", "commit.after_flush")
        )
        assert before > after == 200
        assert len(store.scan(BLOCKS, b"", ALL)) == 200

    def test_it_grows_below_readers(self, store: LmdbStore) -> None:
        """Threads may read while the map grows under them."""
        is_done = threading.Event()
        counts: list[int] = []

        def read() -> None:
            while not is_done.is_set():
                rows = store.scan(BLOCKS, b"", ALL)
                assert all(value == bytes(3000) for _, value in rows)
                counts.append(len(rows))

        threads = [threading.Thread(target=read) for _ in range(2)]
        for thread in threads:
            thread.start()
        for number in range(1, 301):
            store.commit([append(number, 3000)], number)
        is_done.set()
        for thread in threads:
            thread.join()
        assert len(store.scan(BLOCKS, b"", ALL)) == 300
        assert len(set(counts)) > 1

    def test_another_process_makes_it_grow(self, tmp_path: Path) -> None:
        """A reader follows when the writer, another process, has grown the map."""
        LmdbStore.open(tmp_path, is_new=True).close()
        reader = LmdbStore.open(tmp_path, is_read_only=True, map_bytes=16 * PAGE_BYTES)
        assert reader.get(BLOCKS, b"large") is None
        assert finish("tests.children", "put", tmp_path, 5_000_000).code == 0
        assert reader.get(BLOCKS, b"large") == bytes(5_000_000)
        reader.close()

    def test_a_map_that_cannot_grow_is_told(self, tmp_path: Path) -> None:
        """Where the address space ends, commit and later reads say so, and no more."""
        done = finish("tests.children", "past_the_address_space", tmp_path)
        assert done.code == 0, done.stderr
        committing, reading = json.loads(done.stdout)
        assert "the map cannot grow to" in committing
        assert "LMDB cannot read it" in reading

    def test_a_limited_address_space_is_enough(self, tmp_path: Path) -> None:
        """Where a process may map less, less than half of that is reserved."""
        done = finish("tests.children", "in_little_memory", tmp_path, 1 << 30)
        assert done.code == 0, done.stderr
        rows, reserved_bytes = json.loads(done.stdout)
        assert rows == 1
        assert MAP_BYTES_MIN < reserved_bytes < 1 << 29

    def test_without_a_limit_a_large_map_is_reserved(self, tmp_path: Path) -> None:
        """A map that hardly ever has to grow is reserved where nothing forbids it."""
        store = LmdbStore.open(tmp_path, is_new=True)
        assert mapped_bytes(store) == MAP_BYTES
        store.close()

    def test_what_room_there_is_is_enough(self, tmp_path: Path) -> None:
        """A map is halved until it fits beside all else in the address space."""
        done = finish("tests.children", "in_little_room", tmp_path, 16 * MAP_BYTES_MIN)
        assert done.code == 0, done.stderr
        assert MAP_BYTES_MIN <= int(done.stdout) < 16 * MAP_BYTES_MIN

    def test_no_room_for_a_map_is_told(self, tmp_path: Path) -> None:
        """Where not even the smallest map fits, opening says so, and gives up."""
        room_bytes = MAP_BYTES_MIN // 2
        done = finish("tests.children", "in_little_room", tmp_path, room_bytes)
        assert done.code == 0, done.stderr
        assert "LMDB cannot read it" in done.stdout


class TestFullDisk:
    """A disk without room, and other errors of a commit."""

    def test_nothing_is_lost_or_doubled(self, tmp_path: Path) -> None:
        """After room was made the very same transaction goes in, and the next.

        LMDB tells of it with the system's code where nothing of a write fits, and
        with an input or output error where a part does. Both are met here.
        """
        codes = set()
        for record_bytes in (100, 3000, 5000, 60_000):
            words = [tmp_path, *PYTHON, "tests.children", "on_a_full_disk", tmp_path]
            done = subprocess.run(
                [*ON_A_SMALL_DISK, *map(str, words), str(record_bytes)],
                cwd=ROOT,
                env=environment({}),
                capture_output=True,
                text=True,
                timeout=SECONDS_MAX,
                check=False,
            )
            assert done.returncode == 0, done.stderr
            tries, acknowledged, found, cursor = json.loads(done.stdout)
            codes |= {code for code, _, _ in tries}
            assert [each[1:] for each in tries] == [[False, acknowledged]] * 3
            assert found == list(range(1, acknowledged + 3))
            assert cursor == acknowledged + 2
        assert codes == {ENOSPC, EIO}

    def test_another_error_is_no_full_disk(self, tmp_path: Path) -> None:
        """An error with room on the disk is not taken for a full one."""
        done = finish("tests.children", "past_a_file_size", tmp_path / "data")
        assert done.code == 0, done.stderr
        name, line, is_held, found = json.loads(done.stdout)
        assert name == "CommitError"
        assert "the commit after sequence 0 failed: LMDB says" in line
        assert "\n" not in line
        assert not is_held
        assert found == [1]


class TestReaders:
    """Readers in other processes."""

    def test_a_dead_reader_is_dropped(self, store: LmdbStore) -> None:
        """The slot of a reader that was killed is free again."""
        with child("readers", store.path, 1) as process:
            assert store.drop_dead_readers() == 0
            process.kill()
            process.wait()
            assert store.drop_dead_readers() == 1

    def test_too_many_readers_are_no_damage(self, store: LmdbStore) -> None:
        """Where readers have taken every slot, reading says so, and works again."""
        with child("readers", store.path, SLOTS) as process:
            with pytest.raises(DirectoryError, match="READERS_FULL") as caught:
                store.get(BLOCKS, b"a")
            assert "damaged" not in str(caught.value)
            process.kill()
            process.wait()
            # The slots are those of the dead now, and are taken from them.
            assert store.get(BLOCKS, b"a") is None

    def test_a_commit_that_is_half_way(self, tmp_path: Path) -> None:
        """While a commit's last flush takes its time, the one before it is read."""
        here, there = tmp_path / "here", tmp_path / "there"
        here.mkdir()
        store = LmdbStore.open(here, is_new=True)
        store.commit([append(1, 9000)], 1)
        shutil.copytree(here, there)
        other = LmdbStore.open(there)
        other.commit([append(2, 9000)], 2)
        other.close()
        # Its pages and its meta page are there, and LMDB has told nobody yet.
        with (here / DATA_FILE).open("r+b") as stream:
            stream.write((there / DATA_FILE).read_bytes())
        assert store.floor(BLOCKS, b"\xff") == ((1).to_bytes(8), bytes(9000))
        store.close()

    def test_a_dead_reader_holds_no_pages_for_ever(self, tmp_path: Path) -> None:
        """The file grows beside a dead reader until the next look, and no more."""
        now = 0.0
        store = LmdbStore.open(tmp_path, is_new=True)
        store.clock = lambda: now

        def growth_bytes() -> int:
            before = (tmp_path / DATA_FILE).stat().st_size
            for _ in range(COMMITS):
                store.commit([Change(CURSORS, b"out", bytes(1000))], 0)
            return (tmp_path / DATA_FILE).stat().st_size - before

        growth_bytes()
        with child("readers", tmp_path, 1) as process:
            process.kill()
            process.wait()
            growth_bytes()
            assert growth_bytes() >= COMMITS * PAGE_BYTES
            now = READER_CHECK_SECONDS
            growth_bytes()
            assert growth_bytes() == 0
        store.close()


class TestOpen:
    """What is refused before LMDB sees it, and stays as it is."""

    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        """Return a store's file, closed."""
        store = LmdbStore.open(tmp_path, is_new=True)
        for number in range(1, 4):
            store.commit([append(number, 9000)], number)
        store.close()
        return tmp_path / DATA_FILE

    def refused(self, file: Path) -> str:
        """Return why a store is refused as damaged; its file must not change."""
        before = file.read_bytes()
        with pytest.raises(DamagedError) as caught:
            LmdbStore.open(file.parent)
        assert file.read_bytes() == before
        assert "\n" not in str(caught.value)
        return str(caught.value)

    def test_the_names_of_an_empty_store(self, tmp_path: Path) -> None:
        """The tables' names from before the first block, put back, are refused."""
        LmdbStore.open(tmp_path, is_new=True).close()
        file = tmp_path / DATA_FILE
        empty, before = file.read_bytes(), read_meta(tmp_path).main.root
        store = LmdbStore.open(tmp_path)
        for number in range(1, 4):
            store.commit([append(number, 100)], number)
        store.close()
        root = read_meta(tmp_path).main.root
        page = empty[before * PAGE_BYTES : (before + 1) * PAGE_BYTES]
        with file.open("r+b") as stream:
            stream.seek(root * PAGE_BYTES)
            stream.write(root.to_bytes(8, "little") + page[8:])
        assert "it has no row, and" in self.refused(file)

    def test_an_empty_store_is_opened(self, tmp_path: Path) -> None:
        """However much happened in it, a store without a block is no damaged one."""
        store = LmdbStore.open(tmp_path, is_new=True)
        for number in range(60):
            changes = [Change(CURSORS, b"%d" % (number % 7), bytes(900))]
            if number % 5 == 4:
                changes.append(Change(CURSORS, b"0", None))
            if number % 4 == 3:
                changes.append(Change(REJECTS, number.to_bytes(8), bytes(9000)))
            store.commit(changes, 0)
            if number % 20 == 0:
                store.close()
                store = LmdbStore.open(tmp_path)
        store.close()
        LmdbStore.open(tmp_path).close()

    def test_a_sound_store_is_opened(self, file: Path) -> None:
        """The file that the other tests damage is sound."""
        check_file(file.parent)
        store = LmdbStore.open(file.parent)
        assert len(store.scan(BLOCKS, b"", ALL)) == 3
        store.close()

    @pytest.mark.parametrize("page", [0, 1])
    def test_a_zeroed_meta_page(self, file: Path, page: int) -> None:
        """A store that lost one of its meta pages is refused as damaged."""
        zero_page(file, page)
        assert f"meta page {page}" in self.refused(file)

    @pytest.mark.parametrize("page", [0, 1])
    def test_a_damaged_number(self, file: Path, page: int) -> None:
        """A store whose transactions' numbers rotted is refused as damaged."""
        flip_bit(file, page * PAGE_BYTES + 144, bit=6)
        assert "two transactions in a row" in self.refused(file)

    def test_a_cut_file(self, file: Path) -> None:
        """A store that lost its last byte is refused, and no process dies."""
        cut(file, file.stat().st_size - 1)
        assert "cut short" in self.refused(file)

    def test_a_file_that_is_gone(self, store: LmdbStore) -> None:
        """A commit to a file that the next start would not find is no commit."""
        (store.path / DATA_FILE).unlink()
        with pytest.raises(CommitError, match="removed, replaced or moved away"):
            store.commit([append(1, 10)], 1)

    def test_an_empty_file(self, file: Path) -> None:
        """A store that lost all its bytes is refused."""
        cut(file, 0)
        with pytest.raises(DamagedError, match="too short"):
            check_file(file.parent)
        assert "too short to hold meta page 0" in self.refused(file)

    @pytest.mark.parametrize("table", TABLES)
    def test_a_missing_table(self, file: Path, table: str) -> None:
        """A store without one of its tables is refused as damaged."""
        with (
            lmdb.open(str(file.parent), lib_version=0, max_dbs=5) as environment,
            environment.begin(write=True) as transaction,
        ):
            transaction.drop(environment.open_db(table.encode(), transaction))
        assert f"{table}: it is missing" in self.refused(file)

    def test_a_damaged_tree(self, file: Path) -> None:
        """A store whose tree leads to a page of another kind is damaged."""
        data = bytearray(file.read_bytes())
        for page in range(2, len(data) // PAGE_BYTES):
            data[page * PAGE_BYTES + 10] ^= 0x02
        file.write_bytes(data)
        with pytest.raises(DamagedError, match=r"names, page 3: it is of kind 0x00"):
            LmdbStore.open(file.parent)

    def test_the_other_engine(self, tmp_path: Path) -> None:
        """A file of LMDB 1.0 is another's, and no damage."""
        lmdb.open(str(tmp_path), lib_version=1, map_size=1 << 20).close()
        with pytest.raises(ForeignError, match=r"LMDB 1\.0, not LMDB 0\.9; use the"):
            LmdbStore.open(tmp_path)

    def test_no_file(self, tmp_path: Path) -> None:
        """A directory without LMDB's file is the operator's mistake."""
        with pytest.raises(DirectoryError, match=r"data\.mdb: No such file"):
            LmdbStore.open(tmp_path)
        assert list(tmp_path.iterdir()) == []

    def test_a_reader_changes_nothing(self, file: Path) -> None:
        """A store opened for reading cannot be written, and leaves its file alone."""
        before = file.read_bytes()
        store = LmdbStore.open(file.parent, is_read_only=True)
        assert len(store.scan(BLOCKS, b"", ALL)) == 3
        with pytest.raises(CommitError):
            store.commit([Change(CURSORS, b"out", b"1")], 3)
        store.close()
        assert file.read_bytes() == before

    def test_a_file_that_cannot_be_kept_open(
        self, file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A store that fails to open leaves nothing open: LMDB takes it again."""
        real = os.open

        def failing(path: Path, flags: int) -> int:
            if path == file:
                raise OSError(EIO, "Input/output error")
            return real(path, flags)

        with monkeypatch.context() as patch:
            patch.setattr(os, "open", failing)
            with pytest.raises(DirectoryError, match="Input/output error"):
                LmdbStore.open(file.parent)
        assert not [line for line in maps() if line.endswith(str(file))]
        LmdbStore.open(file.parent).close()


def maps() -> list[str]:
    """Give what this process has mapped."""
    return Path("/proc/self/maps").read_text().splitlines()


class TestDamageUnderReads:
    """A tree that is damaged while its store is open."""

    @pytest.mark.parametrize("table", [BLOCKS, STREAMS])
    def test_a_sequence_is_that_of_a_block(self, tmp_path: Path, table: str) -> None:
        """Damage among blocks has their sequence; a stream's number is none."""
        store = LmdbStore.open(tmp_path, is_new=True)
        rows = [Change(table, n.to_bytes(8), bytes(1000)) for n in range(1, 41)]
        store.commit(rows, 0)
        data = bytearray((tmp_path / DATA_FILE).read_bytes())
        key = (20).to_bytes(8)
        leaf = next(
            page
            for page in range(2, len(data) // PAGE_BYTES)
            if b"\x08\0" + key in data[page * PAGE_BYTES : (page + 1) * PAGE_BYTES]
            and data[page * PAGE_BYTES + 10] == LEAF
        )
        flip_bit_in_place(tmp_path / DATA_FILE, leaf * PAGE_BYTES + 10)
        with pytest.raises(DamagedError, match=f"{table}, page {leaf}") as caught:
            store.get(table, key)
        sequence = caught.value.sequence
        assert sequence is None if table == STREAMS else sequence in range(17, 21)
        assert store.get(META, b"log") is None
        store.close()


class TestHold:
    """Pages that are held for a look without LMDB."""

    def test_a_directory_in_the_place_of_the_lock(self, store: LmdbStore) -> None:
        """What keeps LMDB from a sound file is told as that, and as no damage."""
        store.close()
        (store.path / LOCK_FILE).unlink()
        (store.path / LOCK_FILE).mkdir()
        with (
            pytest.raises(DirectoryError, match="LMDB cannot read it"),
            hold_pages(store.path),
        ):
            pass

    def test_a_file_that_must_not_be_mapped(self, store: LmdbStore) -> None:
        """A file that is cut is refused before LMDB maps it."""
        store.close()
        cut(store.path / DATA_FILE, 9000)
        with pytest.raises(DamagedError, match="cut short"), hold_pages(store.path):
            pass

    def test_meta_pages_that_cannot_be_read(
        self, store: LmdbStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A bad sector under the meta pages is told in the system's words."""

        def failing(_descriptor: int, _size: int, _offset: int) -> bytes:
            raise OSError(EIO, "Input/output error")

        monkeypatch.setattr(os, "pread", failing)
        with pytest.raises(DirectoryError, match=r"data\.mdb: Input/output error$"):
            check_file(store.path)

    def test_a_lock_file_of_another(self, store: LmdbStore) -> None:
        """A lock file in use that LMDB does not know is told as damage."""
        with child("readers", store.path, 1):
            store.close()
            flip_bit_in_place(store.path / LOCK_FILE, 0)
            with (
                pytest.raises(DamagedError, match="LMDB says: "),
                hold_pages(store.path),
            ):
                pass

    def test_nothing_can_be_written(
        self, store: LmdbStore, opened: list[lmdb.Environment]
    ) -> None:
        """Who only looks has LMDB open the file for reading alone."""
        store.close()
        with hold_pages(store.path):
            assert [environment.flags()["readonly"] for environment in opened] == [True]


def flip_bit_in_place(file: Path, offset: int) -> None:
    """Change one bit of a file that others have open."""
    with file.open("r+b") as stream:
        stream.seek(offset)
        [byte] = stream.read(1)
        stream.seek(offset)
        stream.write(bytes([byte ^ 1]))
