"""A file's structure looked at beside a writer, and what a damaged file still gives."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from log import lmdb_store, tree_store
from log.errors import DamagedError, DirectoryError
from log.lmdb_check import Structure
from log.lmdb_file import MetaPage
from log.lmdb_store import DATA_FILE, LmdbStore, hold_pages
from log.lmdb_tree import Read, TreeFile
from log.store import BLOCKS, CURSORS, META, REJECTS, STREAMS, TABLES, Change
from log.tree_store import TreeStore, inspect_file
from tests.faults import cut
from tests.machines import key
from tests.process import ROOT, SECONDS_MAX, environment

ALL = 1 << 60
PAGE_BYTES = 4096


def rows(number: int) -> list[Change]:
    """Give what one commit stores: a block, and a cursor over the one before."""
    return [
        Change(BLOCKS, key(number), b"b%d" % number * 900, is_append=True),
        Change(CURSORS, b"out", b"%d" % number * 30),
        Change(REJECTS, key(number), b"r" * 300),
    ]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return a directory with a store in it."""
    store = LmdbStore.open(tmp_path, is_new=True)
    store.commit([Change(META, b"log", b"m"), Change(STREAMS, key(7), b"s")], 0)
    for number in range(1, 30):
        store.commit(rows(number), number)
    store.close()
    return tmp_path


WRITER = """
import sys
from pathlib import Path
from log.lmdb_store import LmdbStore
from tests.test_tree_store import rows
store = LmdbStore.open(Path(sys.argv[1]))
first = int.from_bytes(store.floor("blocks", b"\\xff" * 8)[0]) + 1
for number in range(first, first + int(sys.argv[2])):
    store.commit(rows(number), number)
"""


def write_in_another_process(path: Path, commits: int) -> None:
    """Commit many times, as a server beside us does; LMDB forbids a fork."""
    command = [sys.executable, "-c", WRITER, str(path), str(commits)]
    subprocess.run(
        command, cwd=ROOT, env=environment({}), timeout=SECONDS_MAX, check=True
    )


class TestBesideAWriter:
    """A writer that goes on while the pages are looked at."""

    def inspect(self, path: Path, during: Callable[[], None]) -> Structure:
        """Inspect, with something done when the first page has been looked at."""
        is_done = False

        def go_on(_pages: int) -> None:
            nonlocal is_done
            if not is_done:
                is_done = True
                during()

        return inspect_file(path, progress=go_on)

    def test_a_sound_file(self, path: Path) -> None:
        """A file that nobody changes is sound, held or alone, and it is certain."""
        assert inspect_file(path) == Structure()
        assert inspect_file(path, is_alone=True) == Structure()

    def test_pages_are_held(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """However much is committed meanwhile, what is looked at stays as it was."""
        monkeypatch.setattr(tree_store, "HOLD_SECONDS_MAX", SECONDS_MAX)
        found = self.inspect(path, lambda: write_in_another_process(path, 40))
        assert found == Structure()
        assert inspect_file(path) == Structure()

    @pytest.mark.parametrize(
        ("commits", "is_certain"), [(0, True), (1, True), (2, False)]
    )
    def test_pages_that_were_let_go(
        self,
        path: Path,
        monkeypatch: pytest.MonkeyPatch,
        commits: int,
        *,
        is_certain: bool,
    ) -> None:
        """Pages are held for a while only; what changed after that is not believed."""
        monkeypatch.setattr(tree_store, "HOLD_SECONDS_MAX", -1.0)
        found = self.inspect(path, lambda: write_in_another_process(path, commits))
        assert found.is_certain == is_certain
        assert not is_certain or not found.flaws

    def test_pages_are_let_go(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Once the time is up the writer uses pages anew, while the walk goes on."""
        grown = []
        for seconds in (-1.0, SECONDS_MAX):
            before = (path / DATA_FILE).stat().st_size
            monkeypatch.setattr(tree_store, "HOLD_SECONDS_MAX", seconds)
            self.inspect(path, lambda: write_in_another_process(path, 30))
            grown.append((path / DATA_FILE).stat().st_size - before)
        assert grown[0] < grown[1] / 2

    def test_no_page_is_used_anew_too_soon(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """One commit never touches a page that the transaction before it reaches."""
        monkeypatch.setattr(tree_store, "HOLD_SECONDS_MAX", -1.0)
        for _ in range(2):
            found = self.inspect(path, lambda: write_in_another_process(path, 1))
            assert found == Structure()

    def test_letting_go_frees_the_writer(self, path: Path) -> None:
        """A file grows while its pages are held, and not any more once they are not."""
        file = path / DATA_FILE
        with hold_pages(path) as let_go:
            before = file.stat().st_size
            write_in_another_process(path, 30)
            held = file.stat().st_size - before
            let_go()
            before = file.stat().st_size
            write_in_another_process(path, 30)
            freed = file.stat().st_size - before
        assert freed < held / 2


class TestTreeStore:
    """What is read without LMDB."""

    def test_it_gives_what_lmdb_gives(self, path: Path) -> None:
        """On a sound file every read is that of LMDB's store."""
        ours, theirs = TreeStore.open(path), LmdbStore.open(path, is_read_only=True)
        for table in TABLES:
            assert ours.scan(table, b"", ALL) == theirs.scan(table, b"", ALL)
            assert ours.scan(table, key(7), 5000) == theirs.scan(table, key(7), 5000)
            for probe in (key(0), key(7), key(29), key(99), b"log", b"out", b"zzz"):
                assert ours.get(table, probe) == theirs.get(table, probe)
                assert ours.floor(table, probe) == theirs.floor(table, probe)
        theirs.close()
        ours.close()

    def test_it_follows_a_writer(self, path: Path) -> None:
        """Each read is of the newest transaction."""
        store = TreeStore.open(path)
        for _ in range(2):
            before = store.floor(BLOCKS, b"\xff" * 8)
            write_in_another_process(path, 3)
            after = store.floor(BLOCKS, b"\xff" * 8)
            assert before is not None
            assert after is not None
            assert int.from_bytes(after[0]) == int.from_bytes(before[0]) + 3
        store.close()

    def test_a_look_is_repeated(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A read during which pages may have been used anew is made again."""
        store = TreeStore.open(path)
        real = lmdb_store.reading
        writes = [2, 0, 0]

        def reading(stream: object) -> Callable[[int, int], bytes]:
            read = real(stream)  # type: ignore[arg-type]

            def read_and_write(offset: int, size: int) -> bytes:
                found = read(offset, size)
                if writes and (commits := writes.pop(0)):
                    write_in_another_process(path, commits)
                return found

            return read_and_write

        monkeypatch.setattr(tree_store, "reading", reading)
        found = store.floor(BLOCKS, b"\xff" * 8)
        assert found is not None
        assert int.from_bytes(found[0]) == 31
        store.close()

    @pytest.mark.parametrize(("is_kept", "looks"), [(True, 1), (False, 10)])
    def test_looks_are_bounded(
        self, path: Path, monkeypatch: pytest.MonkeyPatch, looks: int, *, is_kept: bool
    ) -> None:
        """What holds still is looked at once; what never does, ten times at most."""
        made: list[TreeFile] = []

        def make(meta: MetaPage, read: Read) -> TreeFile:
            made.append(TreeFile(meta, read))
            return made[-1]

        monkeypatch.setattr(tree_store, "TreeFile", make)
        monkeypatch.setattr(tree_store, "_is_kept", lambda *_: is_kept)
        store = TreeStore.open(path)
        assert store.get(STREAMS, key(7)) == b"s"
        assert len(made) == looks
        store.close()

    def test_it_has_no_readers(self, path: Path) -> None:
        """Who reads past LMDB holds nothing back that could be freed."""
        store = TreeStore.open(path)
        assert store.drop_dead_readers() == 0
        store.close()

    @pytest.mark.parametrize("table", [BLOCKS, STREAMS, REJECTS])
    def test_a_key_of_another_length(self, path: Path, table: str) -> None:
        """Where keys are numbers, no key has another length."""
        store = LmdbStore.open(path)
        store.commit([Change(table, key(99) + b"x", b"v")], 0)
        store.close()
        [flaw] = inspect_file(path).flaws
        assert (flaw.table, flaw.reason) == (
            table,
            "it has a key of an impossible length",
        )

    def test_it_is_only_read(self, path: Path) -> None:
        """Nothing is ever committed to what is damaged."""
        store = TreeStore.open(path)
        with pytest.raises(ValueError, match="a store that is damaged"):
            store.commit([Change(CURSORS, b"out", b"1")], 0)
        store.close()

    def test_no_file(self, tmp_path: Path) -> None:
        """A directory without a file is the operator's mistake."""
        with pytest.raises(DirectoryError, match="No such file"):
            TreeStore.open(tmp_path)
        with pytest.raises(DirectoryError, match="No such file"):
            inspect_file(tmp_path)

    def test_a_file_that_must_not_be_mapped(self, path: Path) -> None:
        """A cut file is refused before it is mapped to hold its pages."""
        file = path / DATA_FILE
        cut(file, file.stat().st_size - PAGE_BYTES)
        with pytest.raises(DamagedError, match="cut short"):
            inspect_file(path)

    def test_a_page_that_cannot_be_read(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A bad sector under a page is a flaw of that page, and no traceback."""
        pread = os.pread
        bad = 0

        def failing(descriptor: int, size: int, offset: int) -> bytes:
            if offset == bad * PAGE_BYTES:
                raise OSError(5, "Input/output error")
            return pread(descriptor, size, offset)

        monkeypatch.setattr(os, "pread", failing)
        found = set()
        for bad in range(2, (path / DATA_FILE).stat().st_size // PAGE_BYTES):
            for flaw in inspect_file(path).flaws:
                assert (flaw.page, flaw.reason) == (
                    bad,
                    "it cannot be read: Input/output error",
                )
                found.add(flaw.table)
        assert {BLOCKS, REJECTS, CURSORS, "names", "free list"} <= found
