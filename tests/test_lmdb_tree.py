"""LMDB's trees read without LMDB: sound files pass and read the same; damage does not.

LMDB itself, with any transactions, is the model of what is sound.
"""

import contextlib
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path

import attrs
import lmdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from log.lmdb_check import FREE_LIST, NAMES, Flaw, Structure, check_structure
from log.lmdb_file import META_PAGES, PAGE_BYTES_MAX, MetaPage, check_head
from log.lmdb_page import Bounds, PageError, children, entries, page_kind, run_pages
from log.lmdb_tree import TreeFile

TABLES: dict[str, int | None] = {"one": None, "two": None}
PAGE_BYTES = 4096

keys = st.one_of(
    st.integers(0, 200).map(lambda number: b"%03d" % number),
    st.binary(min_size=1, max_size=511),
)
sizes = st.sampled_from([0, 1, 50, 300, 1000, 2022, 2023, 4080, 4081, 9000])
changes = st.dictionaries(
    st.tuples(st.sampled_from(sorted(TABLES)), keys),
    st.one_of(st.none(), sizes),
    max_size=25,
)


@attrs.define
class Written:
    """A file that LMDB wrote, its bytes, and the rows that are in it."""

    data: bytes
    rows: dict[str, dict[bytes, bytes]]

    @property
    def meta(self) -> MetaPage:
        """The newest meta page."""
        return check_head(self.data[: META_PAGES * PAGE_BYTES_MAX], len(self.data))[1]

    def read(self, offset: int, size: int) -> bytes:
        """Read as from a file."""
        return self.data[offset : offset + size]

    def check(self) -> Structure:
        """Check the structure."""
        return check_structure(self.meta, self.read, TABLES)

    @property
    def file(self) -> TreeFile:
        """The trees."""
        return TreeFile(self.meta, self.read)

    def found(self, table: str, start: bytes = b"") -> list[tuple[bytes, bytes]]:
        """Read a table's rows without LMDB."""
        return list(self.file.rows(self.file.tables()[table.encode()], start))

    def with_bytes(self, offset: int, form: str, *values: int | bytes) -> "Written":
        """Give the file with other numbers in one place."""
        data = bytearray(self.data)
        struct.pack_into(form, data, offset, *values)
        return Written(bytes(data), self.rows)


def write(
    path: Path, transactions: list[dict[tuple[str, bytes], int | None]]
) -> Written:
    """Have LMDB put and delete rows, in these transactions."""
    rows: dict[str, dict[bytes, bytes]] = {table: {} for table in TABLES}
    with lmdb.open(
        str(path), lib_version=0, map_size=1 << 28, max_dbs=2, sync=False
    ) as environment:
        tables = {table: environment.open_db(table.encode()) for table in TABLES}
        for number, each in enumerate(transactions):
            with environment.begin(write=True) as transaction:
                for (table, key), size in each.items():
                    if size is None:
                        transaction.delete(key, db=tables[table])
                        rows[table].pop(key, None)
                    else:
                        value = bytes([number % 256]) * size
                        transaction.put(key, value, db=tables[table])
                        rows[table][key] = value
    return Written((path / "data.mdb").read_bytes(), rows)


class TestAgainstLmdb:
    """Whatever LMDB writes."""

    @given(st.lists(changes, max_size=5), keys)
    def test_it_passes_and_reads_the_same(
        self,
        transactions: list[dict[tuple[str, bytes], int | None]],
        probe: bytes,
    ) -> None:
        """Any file of LMDB's is sound, loses no page, and gives LMDB's rows."""
        with tempfile.TemporaryDirectory() as path:
            written = write(Path(path), transactions)
        assert written.check() == Structure()
        for table, rows in written.rows.items():
            expected = sorted(rows.items())
            record = written.file.tables()[table.encode()]
            assert written.found(table) == expected
            assert written.found(table, probe) == [r for r in expected if r[0] >= probe]
            below = [row for row in expected if row[0] <= probe]
            found = written.file.floor(record, probe)
            assert found == (below[-1] if below else None)
            for row in expected[:5]:
                assert written.file.floor(record, row[0]) == row

    def test_many_levels(self, tmp_path: Path) -> None:
        """A tree of several levels is sound, and each row is found from above."""
        long = {("one", b"%03d" % n + b"-" * 500): 9 for n in range(300)}
        written = write(tmp_path, [dict(long)])
        record = written.file.tables()[b"one"]
        assert record.depth > 2
        assert written.check() == Structure()
        for key, value in written.rows["one"].items():
            assert next(written.file.rows(record, key)) == (key, value)
            assert written.file.floor(record, key + b"x") == (key, value)

    def test_a_deep_free_list(self, tmp_path: Path) -> None:
        """Pages freed by many transactions while a reader stays are a sound list.

        Their keys are native numbers, which sort in another order than their bytes.
        """
        path = str(tmp_path / "log")
        with lmdb.open(path, max_dbs=1, map_size=1 << 30, sync=False) as environment:
            table = environment.open_db(b"one")
            with environment.begin():
                for number in range(1000):
                    with environment.begin(write=True) as transaction:
                        transaction.put(b"key", b"%d" % number, db=table)
            environment.sync(force=True)
        written = Written((tmp_path / "log" / "data.mdb").read_bytes(), {})
        assert written.meta.free.depth == 2
        assert written.meta.free.leaf_pages > 2
        assert check_structure(written.meta, written.read, {"one": None}).flaws == ()

    def test_long_lists_of_free_pages(self, tmp_path: Path) -> None:
        """A transaction that frees thousands of pages leaves a sound file.

        Where its list cannot be read to the end, that is a flaw.
        """
        many: dict[tuple[str, bytes], int | None] = {
            ("one", b"%04d" % n): 9000 for n in range(4000)
        }
        none: dict[tuple[str, bytes], int | None] = dict.fromkeys(many)
        written = write(tmp_path, [many, none, {("two", b"a"): 1}])
        assert written.check() == Structure()
        assert written.meta.free.overflow_pages > 1

        def read_short(offset: int, size: int) -> bytes:
            return written.read(offset, min(size, PAGE_BYTES))

        flaws = check_structure(written.meta, read_short, TABLES).flaws
        assert {flaw.reason for flaw in flaws} == {"the file ends before its list does"}

    def test_progress_counts_pages(self, deep: Written) -> None:
        """Whoever waits is told how many pages were accounted for, and it rises."""
        told: list[int] = []
        check_structure(deep.meta, deep.read, TABLES, told.append)
        assert told == sorted(told)
        assert len(deep.data) // PAGE_BYTES // 2 < told[-1] <= deep.meta.last_page + 1


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> Written:
    """Return a file with branches, values apart, and free pages."""
    path = tmp_path_factory.mktemp("deep")
    rows: list[dict[tuple[str, bytes], int | None]] = [
        {("one", b"%05d" % n): 40 for n in range(start, start + 400)}
        for start in range(0, 2000, 400)
    ]
    rows += [{("two", b"k%d" % n): 5000 for n in range(6)}, {("two", b"k3"): None}]
    return write(path, rows)


def pages(written: Written, kind: int, table: str) -> list[int]:
    """Give the pages of a kind that a tree has, leftmost first."""
    meta = written.meta
    special = {NAMES: meta.main, FREE_LIST: meta.free}
    record = special.get(table) or written.file.tables()[table.encode()]
    found = []
    waiting = [(record.root, Bounds())]
    while waiting:
        number, bounds = waiting.pop(0)
        page = written.file.page(number)
        if page_kind(page, number) == kind:
            found.append(number)
        if page_kind(page, number) == 1:
            waiting[:0] = [
                (child.page, child.bounds) for child in children(page, bounds)
            ]
    return found


BRANCH, LEAF = 1, 2


@pytest.mark.parametrize(
    ("page", "field", "value", "reason"),
    [
        ((BRANCH, "one"), (0, "<Q"), 99, "says that it is page 99"),
        ((LEAF, "one"), (0, "<Q"), 99, "says that it is page 99"),
        ((LEAF, "one"), (10, "<H"), 1, "at level 2 of a tree of 2"),
        ((BRANCH, "one"), (10, "<H"), 2, "at level 1 of a tree of 2"),
        ((LEAF, "one"), (10, "<H"), 0x12, "of kind 0x12, not a branch or a leaf"),
        ((LEAF, "one"), (10, "<H"), 8, "a meta page, not a branch or a leaf"),
        ((LEAF, "one"), (12, "<H"), 16, "said to lie between 16 and"),
        ((LEAF, "one"), (12, "<H"), 17, "said to lie between 17 and"),
        ((LEAF, "one"), (12, "<H"), 5000, "said to lie between 5000 and"),
        ((LEAF, "one"), (14, "<H"), 4097, "and 4097"),
        ((BRANCH, "one"), (12, "<H"), 18, "a branch with one page under it"),
        ((LEAF, "one"), (16, "<H"), 4095, "a node beyond its end"),
        ((LEAF, "one"), (16, "<H"), 4000, "overlap, or leave a hole"),
        ((BRANCH, "one"), (16, "<H"), 4000, "overlap, or leave a hole"),
        ((LEAF, FREE_LIST), (14, "<H"), 4000, "overlap, or leave a hole"),
    ],
)
def test_a_wrong_header_is_named(
    deep: Written,
    page: tuple[int, str],
    field: tuple[int, str],
    value: int,
    reason: str,
) -> None:
    """Each field of a page's header and each pointer is checked, and the page named."""
    (kind, table), (offset, form) = page, field
    number = pages(deep, kind, table)[0]
    damaged = deep.with_bytes(number * PAGE_BYTES + offset, form, value)
    [flaw, *_] = damaged.check().flaws
    assert (flaw.table, flaw.page) == (table, number)
    assert reason in flaw.reason


def node(written: Written, page: int, index: int) -> int:
    """Give where a node begins in the file."""
    at = page * PAGE_BYTES + 16 + 2 * index
    return page * PAGE_BYTES + int(struct.unpack_from("<H", written.data, at)[0])


class TestNodes:
    """What a page's nodes say."""

    def test_keys_out_of_order(self, deep: Written) -> None:
        """A key that is not above the one before it is noticed, on any kind of page."""
        for kind in (LEAF, BRANCH):
            number = pages(deep, kind, "one")[0]
            damaged = deep.with_bytes(node(deep, number, 2) + 8, "<B", 0)
            [flaw] = damaged.check().flaws
            assert (flaw.page, flaw.reason) == (number, "its keys are out of order")

    @pytest.mark.parametrize("index", [0, -1])
    def test_keys_of_another_page(self, deep: Written, index: int) -> None:
        """A leaf whose keys are not those that its branch says is noticed."""
        number = pages(deep, LEAF, "one")[1]
        count = len(entries(deep.file.page(number), Bounds()))
        place = node(deep, number, index % count) + 8
        damaged = deep.with_bytes(place, "<5B", *(b"00000" if index == 0 else b"99999"))
        [flaw] = damaged.check().flaws
        assert (flaw.page, flaw.reason) == (
            number,
            "it has keys that belong on another page",
        )

    def test_rows_that_cannot_be_reached_are_bounded(self, deep: Written) -> None:
        """A flaw says between which keys rows are lost; all others are still read."""
        number = pages(deep, LEAF, "one")[1]
        damaged = deep.with_bytes(number * PAGE_BYTES, "<Q", 99)
        [flaw] = damaged.check().flaws
        low, high = flaw.bounds
        assert high is not None
        rows = sorted(deep.rows["one"].items())
        assert damaged.found("one") == [r for r in rows if not low <= r[0] < high]
        assert len(rows) > len(damaged.found("one")) > 0
        record = damaged.file.tables()[b"one"]
        assert damaged.file.floor(record, low + b"5") == max(
            row for row in rows if row[0] < low
        )

    def test_a_page_used_twice(self, deep: Written) -> None:
        """A branch that leads to one page twice is noticed, and no walk comes back."""
        branch = pages(deep, BRANCH, "one")[0]
        for target in (branch, pages(deep, LEAF, "one")[0]):
            damaged = deep.with_bytes(node(deep, branch, 1), "<I", target)
            flaws = damaged.check().flaws
            assert [flaw.table for flaw in flaws] == ["one"]
            assert len(damaged.found("one")) < len(deep.rows["one"])

    @pytest.mark.parametrize("target", [0, 1, 1 << 20])
    def test_a_page_that_cannot_be(self, deep: Written, target: int) -> None:
        """A branch that leads to a meta page, or out of the file, is noticed."""
        branch = pages(deep, BRANCH, "one")[0]
        damaged = deep.with_bytes(node(deep, branch, 1), "<I", target)
        [flaw] = damaged.check().flaws
        assert flaw.page == target
        assert "it is none of the pages 2 to" in flaw.reason

    @pytest.mark.parametrize(
        ("offset", "form", "value", "reason"),
        [
            (0, "<Q", 99, "says that it is page 99"),
            (10, "<H", 2, "it is a leaf, not an overflow page"),
            (12, "<I", 1, "its 1 pages are not for 5000 bytes"),
            (12, "<I", 3, "its 3 pages are not for 5000 bytes"),
        ],
    )
    def test_a_wrong_overflow_page(
        self, deep: Written, offset: int, form: str, value: int, reason: str
    ) -> None:
        """An overflow page's header is checked, and its row is passed over."""
        leaf = pages(deep, LEAF, "two")[0]
        (number,) = struct.unpack_from("<Q", deep.data, node(deep, leaf, 0) + 8 + 2)
        damaged = deep.with_bytes(number * PAGE_BYTES + offset, form, value)
        [flaw] = damaged.check().flaws
        assert (flaw.page, flaw.bounds) == (number, Bounds(b"k0", b"k0\0"))
        assert reason in flaw.reason
        assert [key for key, _ in damaged.found("two")] == [b"k1", b"k2", b"k4", b"k5"]

    @pytest.mark.parametrize("flags", [2, 4, 6])
    def test_a_node_that_holds_no_value(self, deep: Written, flags: int) -> None:
        """A row is never a table's record or a set of duplicates."""
        leaf = pages(deep, LEAF, "one")[0]
        damaged = deep.with_bytes(node(deep, leaf, 0) + 4, "<H", flags)
        [flaw] = damaged.check().flaws
        assert (flaw.page, flaw.reason) == (leaf, f"it has a node of kind {flags:#04x}")
        assert damaged.found("one")[0][0] == b"00001"

    def test_a_page_of_zeros(self, deep: Written) -> None:
        """A page that was never written, or was wiped, is told as what it is."""
        leaf = pages(deep, LEAF, "one")[0]
        zeros = deep.with_bytes(leaf * PAGE_BYTES, f"{PAGE_BYTES}s", bytes(PAGE_BYTES))
        [flaw] = zeros.check().flaws
        assert (flaw.page, flaw.reason) == (leaf, "it is zeros")


class TestRecords:
    """What is kept of whole trees."""

    @pytest.mark.parametrize(
        ("offset", "form", "reason"),
        [
            (4, "<H", "its flags are"),
            (6, "<H", "at level"),
            (8, "<Q", "branch pages, and there are 1"),
            (16, "<Q", "leaf pages, and there are"),
            (24, "<Q", "overflow pages, and there are 0"),
            (32, "<Q", "entries, and there are 2000"),
            (40, "<Q", "it is"),
        ],
    )
    def test_a_wrong_record(
        self, deep: Written, offset: int, form: str, reason: str
    ) -> None:
        """Each count, the depth, the flags and the root are held against the tree."""
        leaf = pages(deep, LEAF, NAMES)[0]
        place = node(deep, leaf, 0) + 8 + 3 + offset
        (value,) = struct.unpack_from(form, deep.data, place)
        flaws = deep.with_bytes(place, form, value + 1).check().flaws
        assert {flaw.table for flaw in flaws} >= {"one"}
        assert any(reason in flaw.reason for flaw in flaws)

    def test_no_depth_is_too_deep(self, deep: Written) -> None:
        """A depth that no tree has is noticed before anything is walked."""
        place = node(deep, pages(deep, LEAF, NAMES)[0], 0) + 8 + 3
        for depth in (0, 33, 65535):
            [flaw] = deep.with_bytes(place + 6, "<H", depth).check().flaws
            assert flaw == Flaw("one", None, f"it is said to be {depth} pages deep")

    def test_a_missing_table(self, deep: Written) -> None:
        """A table whose name is another is missing, and is said to be."""
        place = node(deep, pages(deep, LEAF, NAMES)[0], 0) + 8
        flaws = deep.with_bytes(place, "<B", ord("a")).check().flaws
        assert flaws == (Flaw("one", None, "it is missing"),)

    def test_keys_of_another_length(self, deep: Written) -> None:
        """A table whose keys have one length has no key of another."""
        for key_bytes, is_sound in ((5, True), (4, False), (8, False)):
            wanted = {"one": key_bytes, "two": None}
            flaws = check_structure(deep.meta, deep.read, wanted).flaws
            assert (not flaws) == is_sound
            assert all("impossible length" in flaw.reason for flaw in flaws)


def free_lists(written: Written) -> list[int]:
    """Give where the free pages' lists begin in the file, the longest one last."""
    leaf = pages(written, LEAF, FREE_LIST)[0]
    found = entries(written.file.page(leaf), Bounds(), is_native=True)
    found.sort(key=lambda each: each.value_bytes)
    return [leaf * PAGE_BYTES + each.start for each in found]


class TestFreePages:
    """The list of free pages."""

    @pytest.mark.parametrize(
        ("offset", "change", "reason"),
        [
            (0, lambda value: value + 1, "is not as long as it says"),
            (8, lambda _: 1 << 40, "it lists page 1099511627776"),
            (8, lambda _: 1, "it lists page 1 "),
            (8, lambda _: 0, "it lists page 0 "),
            (16, lambda value: value + 1000, "it lists page"),
        ],
    )
    def test_a_wrong_list(
        self, deep: Written, offset: int, change: Callable[[int], int], reason: str
    ) -> None:
        """A list of another length, of pages that cannot be, or out of order."""
        place = free_lists(deep)[-1] + offset
        (value,) = struct.unpack_from("<Q", deep.data, place)
        [flaw, *_] = deep.with_bytes(place, "<Q", change(value)).check().flaws
        assert flaw.table == FREE_LIST
        assert reason in flaw.reason

    def test_a_page_in_use_and_free(self, deep: Written) -> None:
        """A page that a tree uses is not free: LMDB would write over it."""
        used = pages(deep, LEAF, "one")
        place = free_lists(deep)[-1] + 8
        found = [deep.with_bytes(place, "<Q", number).check() for number in used]
        assert all(any(f.table == FREE_LIST for f in each.flaws) for each in found)
        assert any("as free, and it is not" in str(each.flaws) for each in found)

    def test_a_list_of_a_transaction_to_come(self, deep: Written) -> None:
        """Pages that a later transaction freed cannot be listed yet."""
        leaf = pages(deep, LEAF, FREE_LIST)[0]
        place = node(deep, leaf, len(free_lists(deep)) - 1) + 8
        [flaw] = deep.with_bytes(place, "<Q", 1 << 20).check().flaws
        assert "that transaction 1048576 freed" in flaw.reason

    def test_a_list_of_before(self, deep: Written) -> None:
        """A list that the last transaction added nothing to is an earlier one's."""
        last = deep.meta.transaction_id
        later = attrs.evolve(deep.meta, transaction_id=last + 1)
        reason = f"it ends with transaction {last}, not {last + 1}: it is an old one"
        found = check_structure(later, deep.read, TABLES).flaws
        assert found == (Flaw(FREE_LIST, None, reason),)

    def test_a_lost_page_is_counted(self, deep: Written) -> None:
        """A page that is neither used nor free is counted, and is no flaw."""
        offset = PAGE_BYTES * (deep.meta.transaction_id % 2) + 136
        longer = Written(deep.data + bytes(PAGE_BYTES), deep.rows)
        longer = longer.with_bytes(offset, "<Q", deep.meta.last_page + 1)
        assert longer.check() == Structure(lost_pages=1)


@given(st.binary(max_size=200), st.data())
def test_any_bytes_are_a_page_or_an_error(some: bytes, data: st.DataObject) -> None:
    """Whatever a page holds, reading it ends, with its nodes or with PageError."""
    lower = 16 + 2 * data.draw(st.integers(0, 20))
    upper = data.draw(st.integers(lower, PAGE_BYTES))
    kind = data.draw(st.sampled_from([1, 2, 4, 8, 0x12]))
    page = struct.pack("<QHHHH", 5, 0, kind, lower, upper) + some
    page += bytes(PAGE_BYTES - len(page))
    for read in (
        lambda: page_kind(page, 5),
        lambda: run_pages(page[:16], 5),
        lambda: children(page, Bounds()),
        lambda: entries(page, Bounds()),
    ):
        with contextlib.suppress(PageError):
            read()


@given(st.lists(st.tuples(st.integers(0, 1 << 30), st.integers(0, 255)), max_size=30))
def test_any_damage_is_survived(deep: Written, damage: list[tuple[int, int]]) -> None:
    """However many bytes changed, the walk ends, and what is read are rows in order."""
    data = bytearray(deep.data)
    for place, byte in damage:
        data[2 * PAGE_BYTES + place % (len(data) - 2 * PAGE_BYTES)] = byte
    damaged = Written(bytes(data), deep.rows)
    structure = damaged.check()
    for record in damaged.file.tables().values():
        rows = list(damaged.file.rows(record, b""))
        assert [key for key, _ in rows] == sorted({key for key, _ in rows})
    if not structure.flaws and damaged.data == deep.data:
        assert damaged.found("one") == sorted(deep.rows["one"].items())
