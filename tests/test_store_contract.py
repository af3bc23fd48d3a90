"""What every store must do, asked of both: the one on LMDB and the one in memory."""

import itertools
import tempfile
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from log.lmdb_store import LmdbStore
from log.memory_store import MemoryStore
from log.store import (
    BLOCKS,
    CURSORS,
    KEY_BYTES_MAX,
    META,
    STREAMS,
    TABLES,
    Change,
    Store,
)
from tests.places import Place, place

__all__ = ["place"]  # A fixture, which pytest finds by its name here.

ALL = 1 << 30

keys = st.binary(min_size=1, max_size=3)
changes = st.lists(
    st.builds(
        Change,
        st.sampled_from([BLOCKS, CURSORS]),
        keys,
        st.none() | st.binary(max_size=5),
        st.booleans(),
    ),
    max_size=6,
)


def put(key: bytes, value: bytes, table: str = BLOCKS) -> Change:
    """Return the change that puts one row."""
    return Change(table, key, value)


class TestCommit:
    """Changes in one transaction."""

    def test_a_new_store_is_empty(self, place: Place) -> None:
        """Every table is there and has no rows."""
        store = place.open()
        assert [store.scan(table, b"", ALL) for table in TABLES] == [[]] * 5

    def test_rows_are_put_replaced_and_deleted(self, place: Place) -> None:
        """A row has the value that was put last, until it is deleted."""
        store = place.open()
        store.commit([put(b"a", b"1"), put(b"b", b"2")], 0)
        store.commit([put(b"a", b"3"), Change(BLOCKS, b"b", None)], 0)
        assert store.get(BLOCKS, b"a") == b"3"
        assert store.get(BLOCKS, b"b") is None

    def test_changes_apply_in_order(self, place: Place) -> None:
        """Of two changes to one row in a transaction the later holds."""
        store = place.open()
        store.commit([put(b"a", b"1"), Change(BLOCKS, b"a", None)], 0)
        store.commit([put(b"b", b"1"), put(b"b", b"2")], 0)
        assert store.scan(BLOCKS, b"", ALL) == [(b"b", b"2")]

    def test_deleting_nothing_is_fine(self, place: Place) -> None:
        """A row that is not there may be deleted."""
        store = place.open()
        store.commit([Change(BLOCKS, b"a", None)], 0)
        assert store.scan(BLOCKS, b"", ALL) == []

    def test_tables_are_apart(self, place: Place) -> None:
        """One key may stand in every table, with values of its own."""
        store = place.open()
        store.commit([put(b"a", table.encode(), table) for table in TABLES], 0)
        assert [store.get(table, b"a") for table in TABLES] == [
            table.encode() for table in TABLES
        ]

    def test_committed_rows_outlive_the_store(self, place: Place) -> None:
        """What was committed is there when the store is opened again."""
        place.open().commit([put(b"a", b"1"), put(b"b", b"", META)], 0)
        store = place.open()
        assert store.get(BLOCKS, b"a") == b"1"
        assert store.get(META, b"b") == b""

    @pytest.mark.parametrize("key", [b"b", b"a", b"\0"])
    def test_an_append_that_is_none_is_refused(self, place: Place, key: bytes) -> None:
        """An append not above the last key raises, and its transaction is nothing."""
        store = place.open()
        store.commit([Change(BLOCKS, b"b", b"1", is_append=True)], 0)
        wrong = Change(BLOCKS, key, b"2", is_append=True)
        with pytest.raises(ValueError, match="not above the last key"):
            store.commit([put(b"x", b"3", CURSORS), wrong], 0)
        assert store.scan(BLOCKS, b"", ALL) == [(b"b", b"1")]
        assert store.scan(CURSORS, b"", ALL) == []
        store.commit([Change(BLOCKS, b"c", b"4", is_append=True)], 0)
        assert len(store.scan(BLOCKS, b"", ALL)) == 2

    def test_keys_have_a_limit(self, place: Place) -> None:
        """A key of 1 to 511 bytes is stored, and no other can be asked for."""
        store = place.open()
        longest = b"k" * KEY_BYTES_MAX
        store.commit([put(longest, b"1"), put(b"k", b"2")], 0)
        assert store.get(BLOCKS, longest) == b"1"
        for key in (b"", longest + b"k"):
            with pytest.raises(ValueError, match="must be"):
                put(key, b"3")

    def test_a_large_value_is_one_row(self, place: Place) -> None:
        """A value may be many pages long."""
        value = bytes(range(256)) * 4000
        place.open().commit([put(b"a", value)], 0)
        assert place.open().get(BLOCKS, b"a") == value


class TestRead:
    """Rows in the order of their keys."""

    @pytest.fixture
    def store(self, place: Place) -> Store:
        """Return a store with rows `b`, `d` and `f`, 10 bytes each."""
        store = place.open()
        store.commit([put(key, key * 10) for key in (b"d", b"f", b"b")], 0)
        return store

    @pytest.mark.parametrize(
        ("key", "found"),
        [
            (b"a", None),
            (b"b", b"b"),
            (b"c", b"b"),
            (b"d", b"d"),
            (b"ee", b"d"),
            (b"f", b"f"),
            (b"\xff", b"f"),
        ],
    )
    def test_floor(self, store: Store, key: bytes, found: bytes | None) -> None:
        """The floor of a key is the row at it, or the last before it, or None."""
        expected = None if found is None else (found, found * 10)
        assert store.floor(BLOCKS, key) == expected
        assert store.floor(STREAMS, key) is None

    @pytest.mark.parametrize(
        ("start", "bytes_max", "found"),
        [
            (b"", ALL, [b"b", b"d", b"f"]),
            (b"b", ALL, [b"b", b"d", b"f"]),
            (b"b\0", ALL, [b"d", b"f"]),
            (b"f", ALL, [b"f"]),
            (b"g", ALL, []),
            (b"", 1, [b"b"]),
            (b"", 10, [b"b"]),
            (b"", 11, [b"b", b"d"]),
            (b"c", 20, [b"d", b"f"]),
        ],
    )
    def test_scan(
        self,
        store: Store,
        start: bytes,
        bytes_max: int,
        found: list[bytes],
    ) -> None:
        """A scan gives rows from a key upward until their values are enough."""
        rows = store.scan(BLOCKS, start, bytes_max)
        assert rows == [(key, key * 10) for key in found]

    def test_readers_see_whole_transactions(self, place: Place) -> None:
        """A thread that reads while another commits never sees half of it."""
        store = place.open()
        is_enough = threading.Event()
        deadline = time.monotonic() + 20

        def write() -> None:
            for number in itertools.count():
                value = b"%d" % number
                store.commit([put(key, value) for key in (b"a", b"b", b"c")], 0)
                if is_enough.is_set() or time.monotonic() > deadline:
                    break

        writer = threading.Thread(target=write)
        writer.start()
        seen: set[tuple[bytes, ...]] = set()
        while writer.is_alive() and len(seen) < 10:
            seen.add(tuple(value for _, value in store.scan(BLOCKS, b"", ALL)))
        is_enough.set()
        writer.join()
        assert len(seen) == 10
        assert all(len(set(values)) == 1 for values in seen - {()})


class TestClose:
    """A store that was let go."""

    def test_a_closed_store_is_of_no_use(self, place: Place) -> None:
        """Using a closed store is the programmer's mistake; closing again is none."""
        store = place.open()
        store.close()
        store.close()
        with pytest.raises(ValueError, match="closed"):
            store.commit([], 0)
        with pytest.raises(ValueError, match="closed"):
            store.get(BLOCKS, b"a")
        with pytest.raises(ValueError, match="closed"):
            store.floor(BLOCKS, b"a")
        with pytest.raises(ValueError, match="closed"):
            store.scan(BLOCKS, b"", ALL)


class TestTwins:
    """The store in memory as the model of the one on LMDB."""

    @settings(max_examples=40)
    @given(st.lists(changes, max_size=6), keys, st.integers(1, 12))
    def test_both_give_the_same(
        self, transactions: list[list[Change]], key: bytes, bytes_max: int
    ) -> None:
        """After the same transactions both stores give the same rows and refusals."""
        with (
            tempfile.TemporaryDirectory() as path,
            closing(LmdbStore.open(Path(path), is_new=True, map_bytes=1 << 24)) as lmdb,
        ):
            memory = MemoryStore()
            for transaction in transactions:
                refusals = []
                for store in (memory, lmdb):
                    try:
                        store.commit(transaction, 0)
                    except ValueError as error:
                        refusals.append(str(error))
                assert len(refusals) in {0, 2}
                assert len(set(refusals)) <= 1
            for table in (BLOCKS, CURSORS):
                assert lmdb.scan(table, b"", ALL) == memory.scan(table, b"", ALL)
                assert lmdb.floor(table, key) == memory.floor(table, key)
                assert lmdb.get(table, key) == memory.get(table, key)
                found = lmdb.scan(table, key, bytes_max)
                assert found == memory.scan(table, key, bytes_max)
