"""LMDB's pages read in plain Python: the same values as LMDB gives, damaged or not."""

import contextlib
import errno
import os
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from log.block import Point, Records
from log.directory import DataDirectory
from log.lmdb_file import NewerEngineError
from log.lmdb_store import DATA_FILE
from log.log import Transaction
from log.row import Cursor, encode_point, seal_row
from log.store import BLOCKS, CURSORS, META, REJECTS, STREAMS, TABLES
from recovery.damage.raw_file import RawFile
from recovery.damage.raw_pages import Pages, RawPageError, Value, Walk
from recovery.damage.remains import Live
from recovery.damage.row_scan import Rows, find_rows
from tests.faults import cut, zero_page
from tests.machines import append_records, key
from tests.samples import META as MADE
from tests.samples import rejects
from tests.test_block_scan import Bytes

PAGE_BYTES = 4096


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a data directory whose trees have branches, and values of all sizes."""
    directory = DataDirectory.claim(tmp_path_factory.mktemp("made") / "data")
    with directory.new_log(MADE) as log:
        for number in range(120):
            size = (5, 100, 2000, 3000, 9000)[number % 5]
            records = Records.pack([bytes([number % 256]) * size])
            append_records(log, records, Point(number % 40, number, b"name"))
        for number in range(3):
            sinks = {f"sink {each}": Cursor(100 + number, each) for each in range(70)}
            log.commit(Transaction(cursors=sinks, rejects=rejects(1, 30)))
        log.commit(Transaction(forgotten=("sink 3",)))
    directory.release()
    return directory.path


@pytest.fixture
def data(made: Path, tmp_path: Path) -> Path:
    """Return a copy of it."""
    return Path(shutil.copytree(made, tmp_path / "data"))


@pytest.fixture
def pages(data: Path) -> Iterator[Pages]:
    """Return the copy's pages."""
    with contextlib.closing(RawFile.open(data / "log" / DATA_FILE)) as source:
        yield Pages.find(source)


@contextlib.contextmanager
def look(data: Path) -> Iterator[Pages]:
    """Open the pages of a copy that was changed."""
    with contextlib.closing(RawFile.open(data / "log" / DATA_FILE)) as source:
        yield Pages.find(source)


def stored(data: Path, table: str) -> list[tuple[bytes, bytes]]:
    """Read a table through LMDB."""
    with contextlib.closing(DataDirectory(data).open_log(is_read_only=True)) as log:
        return log.store.scan(table, b"", 1 << 40)


@pytest.mark.parametrize("table", TABLES)
def test_a_walk_gives_what_lmdb_gives(data: Path, pages: Pages, table: str) -> None:
    """Keys, order and values of a whole tree are those that LMDB reads."""
    walk = Walk(pages)
    found = [
        (value.key, pages.source.read(value.offset, value.value_bytes))
        for value in walk.table(pages.heads[0].root, table)
    ]
    assert walk.is_whole
    assert found == stored(data, table)


def test_meta_pages_lead_to_the_trees(pages: Pages) -> None:
    """Of a sound file both meta pages are read, and its page size."""
    assert (pages.page_bytes, len(pages.heads), pages.is_sound) == (PAGE_BYTES, 2, True)


def test_free_pages_are_those_that_no_tree_has(pages: Pages) -> None:
    """Every page is a meta page, one of a tree, one of a value, or a free one."""
    unused = pages.unused()
    assert unused is not None
    used = {0, 1}
    head = pages.heads[0]
    walks = [Walk(pages) for _ in range(2 + len(TABLES))]
    trees = [walks[0].values(head.root), walks[1].values(head.free_root)]
    trees += [w.table(head.root, t) for w, t in zip(walks[2:], TABLES, strict=True)]
    for values in trees:
        for value in values:
            first, place = divmod(value.offset, PAGE_BYTES)
            if place == 16:
                count = -(-(16 + value.value_bytes) // PAGE_BYTES)
                used.update(range(first, first + count))
    for walk in walks:
        used |= walk.seen
    assert not used & unused
    assert used | unused == set(range(pages.source.size // PAGE_BYTES))


@pytest.mark.parametrize("number", [0, 1])
def test_one_meta_page_leads_to_a_tree(data: Path, number: int) -> None:
    """With either meta page gone the other still leads to a tree, if not the last."""
    zero_page(data / "log" / DATA_FILE, number)
    with look(data) as pages:
        assert (pages.page_bytes, len(pages.heads), pages.is_sound) == (4096, 1, False)
        live = Live.find(pages)
        assert len(live.keys) == 120
        assert not live.is_whole


def test_without_meta_pages_the_page_size_is_guessed(data: Path) -> None:
    """The pages themselves tell their size."""
    for number in (0, 1):
        zero_page(data / "log" / DATA_FILE, number)
    with look(data) as pages:
        assert (pages.page_bytes, pages.heads, pages.is_sound) == (4096, (), False)


def test_a_file_of_the_other_engine_is_told() -> None:
    """LMDB 1.0's files are not taken for damaged ones."""
    head = bytearray(8192)
    head[24:28] = (0xBEEFC0DE).to_bytes(4, "little")
    with pytest.raises(NewerEngineError):
        Pages.find(Bytes(bytes(head)))


def test_every_page_of_a_tree_counts(data: Path) -> None:
    """Without any page of the blocks' tree it is not whole; values never end a walk."""
    whole = (data / "log" / DATA_FILE).read_bytes()
    with look(data) as pages:
        live = Live.find(pages)
        tree = set(_tree_pages(pages, live.root))
    assert len(tree) > 4
    others = range(2, len(whole) // PAGE_BYTES, 5)
    for number in tree.union(others):
        place = number * PAGE_BYTES
        page = whole[:place] + bytes(PAGE_BYTES) + whole[place + PAGE_BYTES :]
        found = Live.find(Pages.find(Bytes(page)))
        assert found.is_whole == (number not in tree), number
        if found.is_whole:
            assert found.offsets.tolist() == live.offsets.tolist()


def _tree_pages(pages: Pages, root: int | None) -> Iterator[int]:
    """Give the pages that lead to the blocks."""
    assert root is not None
    walk = Walk(pages)
    list(walk.table(root, BLOCKS))
    yield from walk.seen


def test_an_earlier_tree_is_not_the_whole(data: Path) -> None:
    """A root that leads to an earlier version of the table is noticed by its size."""
    with look(data) as pages:
        [place] = [
            value.offset
            for value in pages_values(pages)
            if value.is_table and value.key == BLOCKS.encode()
        ]
        earlier = next(
            number
            for number in range(2, pages.source.size // PAGE_BYTES)
            if is_leaf_of_blocks(pages, number)
        )
    file = data / "log" / DATA_FILE
    changed = bytearray(file.read_bytes())
    changed[place + 40 : place + 48] = earlier.to_bytes(8, "little")
    file.write_bytes(changed)
    with look(data) as pages:
        assert not Live.find(pages).is_whole


def pages_values(pages: Pages) -> list[Value]:
    """Give the values of the tree of trees."""
    return list(Walk(pages).values(pages.heads[0].root))


def is_leaf_of_blocks(pages: Pages, number: int) -> bool:
    """Say whether a page is a leaf whose keys are sequences."""
    try:
        values = pages.leaf(number)
    except RawPageError:
        return False
    return bool(values) and len(values[0].key) == 8 and not values[0].is_table


def test_a_tree_that_bites_its_tail_ends() -> None:
    """A branch that leads to itself is walked once."""
    page = bytearray(PAGE_BYTES)
    struct.pack_into("<Q2xHHH", page, 0, 3, 1, 20, PAGE_BYTES - 16)
    struct.pack_into("<HH", page, 16, PAGE_BYTES - 16, PAGE_BYTES - 8)
    for place in (PAGE_BYTES - 16, PAGE_BYTES - 8):
        struct.pack_into("<HHHH", page, place, 3, 0, 0, 0)
    source = Bytes(bytes(3 * PAGE_BYTES) + bytes(page))
    walk = Walk(Pages(source, PAGE_BYTES, (), is_sound=True))
    assert list(walk.values(3)) == []
    assert not walk.is_whole


def test_pages_vouch_for_values_and_nothing_else(pages: Pages) -> None:
    """Each block in use is vouched for where it lies, and at no place beside it."""
    live = Live.find(pages)
    places = list(zip(live.offsets.tolist(), live.sizes.tolist(), strict=True))
    assert all(pages.vouched(places))
    for shift in (-8, 1, 48):
        assert not any(pages.vouched([(at + shift, size) for at, size in places]))
    assert not any(pages.vouched([(at, size + PAGE_BYTES) for at, size in places]))


def test_a_page_in_another_place_is_none(data: Path) -> None:
    """A leaf that was copied over another page does not count there."""
    with look(data) as pages:
        leaf = next(n for n in range(2, 200) if is_leaf_of_blocks(pages, n))
        size = pages.source.size
    whole = (data / "log" / DATA_FILE).read_bytes()
    copied = whole + whole[leaf * PAGE_BYTES : (leaf + 1) * PAGE_BYTES]
    with pytest.raises(RawPageError):
        Pages.find(Bytes(copied)).leaf(size // PAGE_BYTES)


@given(page=st.binary(min_size=512, max_size=512), data=st.data())
def test_any_bytes_are_a_page_or_none(page: bytes, data: st.DataObject) -> None:
    """No page makes reading it fail in another way, or lead beyond it."""
    header = struct.pack(
        "<Q2xHHH",
        2,
        data.draw(st.sampled_from([1, 2])),
        16 + 2 * data.draw(st.integers(0, 6)),
        data.draw(st.integers(16, 512)),
    )
    places = data.draw(st.lists(st.integers(0, 511), min_size=6, max_size=6))
    forged = header + struct.pack("<6H", *places) + page[28:]
    pages = Pages(Bytes(bytes(1024) + forged), 512, (), is_sound=False)
    with contextlib.suppress(RawPageError):
        for value in pages.leaf(2):
            assert len(value.key) < 512
    walk = Walk(pages)
    list(walk.values(2))
    list(pages.vouched([(1024 + places[0], 60), (1040, 60)]))


def found_rows(data: Path, *, has_root: bool = True) -> Rows:
    """Find the rows of a data directory."""
    with look(data) as pages:
        root = Live.find(pages).root
        return find_rows(pages, root if has_root else None)


def everything(data: Path) -> Rows:
    """Give what LMDB has of the rows."""
    with contextlib.closing(DataDirectory(data).open_log(is_read_only=True)) as log:
        return Rows(
            meta=log.meta,
            base_state=log.base_state(),
            cursors=log.cursors(),
            points=log.points(),
            rejects=tuple(reject for _, reject in log.rejects()),
            doubtful=(),
        )


def test_rows_of_whole_trees_are_exact(data: Path) -> None:
    """A sound file's rows are those of the tree, and no earlier ones."""
    rows = found_rows(data)
    assert rows == everything(data)
    assert "sink 3" not in rows.cursors


@attrs.frozen
class Leaf:
    """A page of rows that no tree leads to, behind one without any."""

    rows: list[tuple[bytes, bytes]]

    @property
    def source(self) -> Bytes:
        """Give the bytes that the values are in."""
        return Bytes(b"".join(value for _, value in self.rows))

    def leaves(self) -> Iterator[list[Value]]:
        """Give the pages' values."""
        start = 0
        values = []
        for name, value in self.rows:
            values.append(Value(name, start, len(value)))
            start += len(value)
        yield from ([], values)

    def found(self) -> Rows:
        """Find what is in them."""
        return find_rows(self, None)  # type: ignore[arg-type]


def test_a_point_of_another_form_hides_no_other() -> None:
    """Of a stream's versions one that is no point is passed over, wherever it lies."""
    good = [encode_point(Point(7, number * 10, b"seven")) for number in (5, 6)]
    bodies = [(5, good[0]), (9, b"no point"), (6, good[1])]
    rows = [(key(7), seal_row(STREAMS, key(7), *each)) for each in bodies]
    assert Leaf(rows).found().points == {7: (6, Point(7, 60, b"seven"))}


def test_a_cursor_of_another_form_hides_no_other() -> None:
    """So it is with a sink; of two written at once the one that is behind counts."""
    bodies = [
        (5, Cursor(5, 50).encode()),
        (9, b"no cursor"),
        (6, Cursor(8, 80).encode()),
        (6, Cursor(7, 70).encode()),
        (6, Cursor(7, 71).encode()),
    ]
    rows = [(b"out", seal_row(CURSORS, b"out", *each)) for each in bodies]
    rows += [(b"\xff", seal_row(CURSORS, b"\xff", *bodies[0]))]
    assert Leaf(rows).found().cursors == {"out": Cursor(7, 70)}


def test_behind_the_file_is_no_page(pages: Pages) -> None:
    """A page that the file does not have to its end is none."""
    with pytest.raises(RawPageError, match="beyond the file's end"):
        pages.leaf(1 << 20)
    assert pages.source.read(pages.source.size, 10) == b""
    assert pages.source.read(pages.source.size + 5, 10) == b""


def test_pages_of_the_last_commit_are_in_use(data: Path) -> None:
    """What the last commit added to the file is not behind its end."""
    with contextlib.closing(DataDirectory(data).open_log()) as log:
        append_records(log, Records.pack([bytes(300_000)]))
    with look(data) as pages:
        assert pages.heads[0].last_page > pages.heads[1].last_page
        unused = pages.unused()
        assert unused is not None
        assert not unused & set(_tree_pages(pages, pages.heads[0].root))
        assert pages.heads[0].last_page not in unused


def test_a_closed_file_is_closed(data: Path) -> None:
    """No file stays open behind whoever looked at it."""
    opened = Path("/proc/self/fd")
    before = set(opened.iterdir())
    source = RawFile.open(data / "log" / DATA_FILE)
    source.close()
    assert set(opened.iterdir()) == before
    with pytest.raises(OSError, match="Bad file descriptor"):
        source.read(0, 10)


def test_rows_are_found_without_a_tree(data: Path) -> None:
    """Without any way in every row is found, forgotten ones too; no sink is ahead."""
    rows = found_rows(data, has_root=False)
    expected = everything(data)
    assert rows.doubtful == (META, STREAMS, CURSORS, REJECTS)
    assert rows.cursors.pop("sink 3").offset == 3
    assert rows.cursors.keys() == expected.cursors.keys()
    assert all(rows.cursors[name] <= each for name, each in expected.cursors.items())
    assert attrs.evolve(rows, doubtful=(), cursors=expected.cursors) == expected


def test_of_two_versions_the_sink_is_sooner_sent_to_twice(data: Path) -> None:
    """Of two cursors written at one sequence, the one that is behind is taken."""
    with contextlib.closing(DataDirectory(data).open_log()) as log:
        log.commit(Transaction(cursors={"sink 5": Cursor(110, 9)}))
        log.commit(Transaction(cursors={"sink 5": Cursor(105, 8)}))
    assert found_rows(data).cursors["sink 5"] == Cursor(105, 8)
    assert found_rows(data, has_root=False).cursors["sink 5"].sequence <= 105
    zero_page(data / "log" / DATA_FILE, 0)
    assert found_rows(data).cursors["sink 5"] in {Cursor(105, 8), Cursor(110, 9)}


def test_a_missing_page_costs_its_rows_alone(data: Path) -> None:
    """Whatever page is gone, no row is made up, and a damaged table is named."""
    expected = everything(data)
    whole = (data / "log" / DATA_FILE).read_bytes()
    for number in range(2, len(whole) // PAGE_BYTES, 3):
        place = number * PAGE_BYTES
        page = whole[:place] + bytes(PAGE_BYTES) + whole[place + PAGE_BYTES :]
        pages = Pages.find(Bytes(page))
        rows = find_rows(pages, Live.find(pages).root)
        assert rows.meta in {None, expected.meta}
        assert {reject.position for reject in rows.rejects} <= set(range(1, 31))
        for name, cursor in rows.cursors.items():
            assert cursor.offset == int(name.split()[1])
            assert 100 <= cursor.sequence <= 102
        for stream_id, (written, point) in rows.points.items():
            last, newest = expected.points[stream_id]
            assert written <= last
            assert point.message_id <= newest.message_id
        if not rows.doubtful:
            assert rows == expected


def test_an_unreadable_sector_is_zeros(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the disk cannot read counts as zeros, and the rest of it is read."""
    file = data / "log" / DATA_FILE
    whole = file.read_bytes()
    real = os.pread

    def pread(descriptor: int, length: int, start: int) -> bytes:
        if start < 9000 < start + length:
            raise OSError(errno.EIO, "Input/output error")
        return real(descriptor, length, start)

    with contextlib.closing(RawFile.open(file)) as source:
        monkeypatch.setattr(os, "pread", pread)
        found = source.read(100, 20_000)
        assert source.read(20_000, 100) == whole[20_000:20_100]
    expected = whole[100:8192] + bytes(4096) + whole[12288:20_100]
    assert found == expected
    assert source.unreadable_bytes == 4096


def test_a_file_that_shrinks_is_zeros(data: Path) -> None:
    """What is cut off while it is read counts as zeros, too."""
    file = data / "log" / DATA_FILE
    with contextlib.closing(RawFile.open(file)) as source:
        cut(file, 5000)
        assert source.read(4000, 3000)[1000:] == bytes(2000)
        assert source.read(source.size, 10) == b""
        assert source.read(2**70, 10) == b""
