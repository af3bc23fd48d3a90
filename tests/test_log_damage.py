"""Damage under a log: it is noticed, and its place is named, on both stores."""

from collections.abc import Callable

import pytest

from log.block import Block, Point, Records, Tail
from log.errors import DamagedError
from log.log import BASE_KEY, META_KEY, Log, Transaction
from log.row import Cursor, open_row, seal_row
from log.store import BLOCKS, CURSORS, META, REJECTS, STREAMS, TABLES, Change, Store
from tests import samples
from tests.places import Place, place
from tests.samples import COMPACTED, append, key, rejects

__all__ = ["place"]  # A fixture, which pytest finds by its name here.

Damage = Callable[[bytes], bytes]


def flip_first(value: bytes) -> bytes:
    """Change one bit of the first byte."""
    return bytes([value[0] ^ 1]) + value[1:]


def flip_last(value: bytes) -> bytes:
    """Change one bit of the last byte."""
    return value[:-1] + bytes([value[-1] ^ 0x80])


def flip_middle(value: bytes) -> bytes:
    """Change one bit in the middle."""
    middle = len(value) // 2
    return value[:middle] + bytes([value[middle] ^ 4]) + value[middle + 1 :]


def zeros(value: bytes) -> bytes:
    """Make zeros of it."""
    return bytes(len(value))


def shorten(value: bytes) -> bytes:
    """Cut off the last byte."""
    return value[:-1]


def lengthen(value: bytes) -> bytes:
    """Add a byte."""
    return value + b"\0"


def use(log: Log) -> None:
    """Read all that a log has."""
    list(log.read(0))
    log.cursors()
    log.points()
    list(log.rejects())
    log.base_state()


class TestDamage:
    """Stored bytes that are not what was written."""

    @pytest.fixture
    def log(self, place: Place) -> Log:
        """Return a log with five blocks, and a row in every table."""
        log = Log.create(place.open(), samples.META, b"state")
        append(log, *([b"v%d" % number, b"w%d" % number] for number in range(5)))
        log.commit(
            Transaction(
                points=(Point(7, 70, b"seven"),),
                cursors={"out": Cursor(2, 20)},
                rejects=rejects(1, 2),
            )
        )
        return log

    def change(self, store: Store, table: str, row: bytes, damage: Damage) -> None:
        """Damage one stored row."""
        value = store.get(table, row)
        assert value is not None
        store.commit([Change(table, row, damage(value))], 0)

    @pytest.mark.parametrize("number", range(5))
    @pytest.mark.parametrize(
        "damage", [flip_first, flip_middle, flip_last, zeros, shorten, lengthen]
    )
    def test_a_damaged_block_is_noticed(
        self, log: Log, number: int, damage: Damage
    ) -> None:
        """Every block before a damaged one is read, and its sequence is named."""
        first = 1 + 2 * number
        self.change(log.store, BLOCKS, key(first), damage)
        seen: list[int] = []
        with pytest.raises(DamagedError) as caught:
            seen.extend(block.first_sequence for block in log.read(0))
        assert caught.value.sequence == first
        assert seen == list(range(1, first, 2))
        assert f"damaged at sequence {first}" in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_a_damaged_last_block_is_noticed_at_once(self, log: Log) -> None:
        """A log whose last block is damaged does not open."""
        self.change(log.store, BLOCKS, key(9), flip_middle)
        with pytest.raises(DamagedError, match="at sequence 9"):
            Log.open(log.store)

    @pytest.mark.parametrize("number", range(4))
    def test_a_missing_block_is_noticed(self, log: Log, number: int) -> None:
        """Events that are missing are named, wherever reading began before them."""
        first = 1 + 2 * number
        log.store.commit([Change(BLOCKS, key(first), None)], 0)
        for after in range(first + 1):
            with pytest.raises(DamagedError, match=f"events {first} to {first + 1}"):
                list(log.read(after))

    def test_a_missing_tail_is_not_noticed_here(self, log: Log) -> None:
        """The last blocks may vanish unseen: only a snapshot knows of them."""
        log.store.commit([Change(BLOCKS, key(9), None)], 0)
        again = Log.open(log.store)
        assert again.tail.sequence == 8
        assert len(list(again.read(0))) == 4

    @pytest.mark.parametrize("to", [2, 4, 11, 2**64 - 1])
    def test_a_doubled_block_is_noticed(self, log: Log, to: int) -> None:
        """A block stored a second time, under any key, is noticed."""
        value = log.store.get(BLOCKS, key(3))
        log.store.commit([Change(BLOCKS, key(to), value)], 0)
        with pytest.raises(DamagedError, match="the block of 3 is stored") as caught:
            list(log.read(0))
        assert caught.value.sequence == to

    @pytest.mark.parametrize(("one", "two"), [(1, 3), (3, 7), (7, 9)])
    def test_swapped_blocks_are_noticed(self, log: Log, one: int, two: int) -> None:
        """Two blocks that changed places are noticed at the first of them."""
        values = log.store.get(BLOCKS, key(one)), log.store.get(BLOCKS, key(two))
        log.store.commit(
            [
                Change(BLOCKS, key(one), values[1]),
                Change(BLOCKS, key(two), values[0]),
            ],
            0,
        )
        with pytest.raises(DamagedError) as caught:
            list(log.read(0))
        assert caught.value.sequence == one

    @pytest.mark.parametrize("number", range(5))
    def test_another_logs_block_is_noticed(self, log: Log, number: int) -> None:
        """A sound block of another log breaks the chain, even as the first."""
        first = 1 + 2 * number
        stray = Block.seal(
            Tail(first - 1, 0xBAD), Records.pack([b"xx", b"yy"]), time_ns=number
        )
        log.store.commit([Change(BLOCKS, key(first), stray.encoded)], 0)
        with pytest.raises(DamagedError, match="does not follow") as caught:
            list(log.read(0))
        assert caught.value.sequence == first

    @pytest.mark.parametrize("after", [0, 1, 2])
    def test_a_strange_first_block_is_noticed(self, place: Place, after: int) -> None:
        """A first block that does not follow the base is noticed, last as it may be."""
        log = Log.create(place.open(), samples.META)
        stray = Block.seal(Tail(0, 0xBAD), Records.pack([b"a", b"b"]), time_ns=0)
        log.store.commit([Change(BLOCKS, key(1), stray.encoded)], 0)
        with pytest.raises(DamagedError, match=r"sequence 1: .* does not follow"):
            list(log.read(after))

    def test_a_stray_block_before_the_base_is_noticed(self, place: Place) -> None:
        """A block at or before the base is none of this log's."""
        log = Log.create(place.open(), COMPACTED, b"state")
        append(log, [b"a"])
        [stray] = samples.chain([b"x"], after=Tail(49, 0))
        log.store.commit([Change(BLOCKS, key(50), stray.encoded)], 0)
        with pytest.raises(DamagedError, match="a block from 50 comes after 100"):
            list(log.read(0))

    @pytest.mark.parametrize(
        ("table", "row"),
        [
            (STREAMS, key(7)),
            (CURSORS, b"out"),
            (REJECTS, key(1)),
            (REJECTS, key(2)),
            (META, BASE_KEY),
        ],
    )
    @pytest.mark.parametrize(
        "damage", [flip_first, flip_middle, flip_last, zeros, shorten, lengthen]
    )
    def test_a_damaged_row_is_noticed(
        self, log: Log, table: str, row: bytes, damage: Damage
    ) -> None:
        """A changed row of any table is noticed when it is read, and named."""
        use(log)
        self.change(log.store, table, row, damage)
        with pytest.raises(DamagedError, match=f"{table} row") as caught:
            use(log)
        assert repr(row) in str(caught.value)

    @pytest.mark.parametrize(
        ("table", "row", "other"),
        [(STREAMS, key(7), key(8)), (CURSORS, b"out", b"two"), (REJECTS, key(1), b"x")],
    )
    def test_a_moved_row_is_noticed(
        self, log: Log, table: str, row: bytes, other: bytes
    ) -> None:
        """A row under another's key is noticed."""
        log.store.commit([Change(table, other, log.store.get(table, row))], 0)
        with pytest.raises(DamagedError, match="checksum does not match"):
            use(log)

    def test_a_row_of_another_form_is_noticed(self, log: Log) -> None:
        """A row with a good checksum and a body of no meaning is noticed."""
        value = seal_row(CURSORS, b"out", 1, b"short")
        log.store.commit([Change(CURSORS, b"out", value)], 0)
        with pytest.raises(DamagedError, match="too short for its table"):
            log.cursors()

    @pytest.mark.parametrize(
        ("table", "sound", "row", "reason"),
        [
            (CURSORS, b"out", b"\xff", "its key is no name"),
            (STREAMS, key(7), b"seven", "its key is no number"),
            (REJECTS, key(1), bytes(9), "its key is no number"),
        ],
    )
    def test_a_key_of_another_form_is_noticed(
        self, log: Log, table: str, sound: bytes, row: bytes, reason: str
    ) -> None:
        """A row with a good checksum and a key of no meaning is noticed, and named."""
        _, body = open_row(table, sound, log.store.get(table, sound) or b"")
        log.store.commit([Change(table, row, seal_row(table, row, 1, body))], 0)
        with pytest.raises(DamagedError) as caught:
            use(log)
        assert f"{table} row {row!r}: {reason}" in str(caught.value)

    @pytest.mark.parametrize("damage", [flip_first, flip_middle, shorten])
    def test_a_damaged_meta_is_noticed(self, log: Log, damage: Damage) -> None:
        """A log that cannot say what it is does not open."""
        self.change(log.store, META, META_KEY, damage)
        with pytest.raises(DamagedError, match="meta row b'log'"):
            Log.open(log.store)

    def test_a_meta_of_another_form_is_noticed(self, log: Log) -> None:
        """A meta with a good checksum that describes no log is noticed."""
        value = seal_row(META, META_KEY, 0, b'{"log_id": "x"}')
        log.store.commit([Change(META, META_KEY, value)], 0)
        with pytest.raises(DamagedError, match="does not describe a log"):
            Log.open(log.store)

    def test_a_missing_meta_is_noticed(self, log: Log) -> None:
        """A store without a meta is no log."""
        log.store.commit([Change(META, META_KEY, None)], 0)
        with pytest.raises(DamagedError, match="does not say what log it is"):
            Log.open(log.store)

    def test_a_missing_base_state_is_noticed(self, place: Place) -> None:
        """A log that begins after an event never begins with an empty state."""
        log = Log.create(place.open(), COMPACTED, b"state")
        log.store.commit([Change(META, BASE_KEY, None)], 0)
        with pytest.raises(DamagedError, match="its base has lost its state"):
            log.base_state()

    def test_every_table_has_a_test(self) -> None:
        """The tables whose damage is tested above are all there are."""
        assert set(TABLES) == {BLOCKS, STREAMS, CURSORS, REJECTS, META}

    def test_inspection_goes_on(self, log: Log) -> None:
        """Inspection names every damaged place, and gives every sound block."""
        self.change(log.store, BLOCKS, key(3), flip_middle)
        log.store.commit([Change(BLOCKS, key(7), None)], 0)
        found = [
            each.sequence if isinstance(each, DamagedError) else each.tail.sequence
            for each in log.inspect(0)
        ]
        assert found == [2, 3, 6, 7]
