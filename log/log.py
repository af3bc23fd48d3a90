"""The log: events 1, 2, 3, … in checksummed, chained blocks, and what goes along.

Invariants:

- sequences have no gaps: block n+1 begins where block n ended, 0 means none;
- what `commit` has returned for is durable, in the order of the commits;
- blocks, points, cursors and rejects of one `Transaction` are stored together;
- nothing stored is ever changed but cursors, points and the oldest rejects;
- every byte is checked when it is read, and damage is named, never passed over.

The log stores opaque records. It is not a state, knows no votes and no sockets,
and leaves files and LMDB to the `Store` under it.
"""

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Self, TypeVar

import attrs

from log.block import (
    FORMAT_VERSION,
    SEQUENCE_MAX,
    Block,
    BlockError,
    Point,
    Tail,
)
from log.errors import CommitError, DamagedError, ForeignError, LogError
from log.row import (
    ENGINE,
    REJECTS_KEPT_MAX,
    Cursor,
    Meta,
    Reject,
    RowError,
    decode_name,
    decode_number,
    decode_point,
    encode_point,
    open_row,
    seal_row,
)
from log.store import BLOCKS, CURSORS, META, REJECTS, STREAMS, Change, Store

META_KEY = b"log"
BASE_KEY = b"base"
SCAN_BYTES = 1 << 20
"""How many bytes of rows one read of the store may bring, but for a larger row."""

_KEY = struct.Struct(">Q")

K = TypeVar("K")
T = TypeVar("T")


@attrs.frozen
class Transaction:
    """What one commit stores: all of it or nothing.

    `points` are those advanced without an event; the blocks bring their own.
    `forgotten` names the sinks whose rows go.
    """

    blocks: tuple[Block, ...] = ()
    points: tuple[Point, ...] = ()
    cursors: Mapping[str, Cursor] = attrs.Factory(dict)
    forgotten: tuple[str, ...] = ()
    rejects: tuple[Reject, ...] = ()
    meta: Meta | None = None

    def __bool__(self) -> bool:
        """Say whether there is anything to store."""
        return any(attrs.astuple(self, recurse=False))


@attrs.define
class Log:
    """A log on a store. One thread commits, any number read."""

    _store: Store
    meta: Meta
    tail: Tail
    _reject_count: int

    @classmethod
    def create(cls, store: Store, meta: Meta, base_state: bytes | None = None) -> Self:
        """Begin a log in an empty store, at `meta`'s base.

        `base_state` is the state at the base, as recovery packs it; it must be
        given unless the base is 0.
        """
        sequence = meta.base_sequence
        changes = [_put(META, META_KEY, sequence, meta.encode())]
        if base_state is not None:
            changes.append(_put(META, BASE_KEY, sequence, base_state))
        elif sequence:
            raise ValueError(f"a log that begins after {sequence} needs its state")
        store.commit(changes, sequence)
        return cls.open(store)

    @classmethod
    def open(cls, store: Store, *, is_damage_accepted: bool = False) -> Self:
        """Open the log that a store holds; its last block is checked.

        Where damage is accepted, the log ends before a last block that is damaged.
        Raises DamagedError, or ForeignError for a newer format or other engine.
        """
        found = store.get(META, META_KEY)
        if found is None:
            raise DamagedError(store.path, None, "it does not say what log it is")
        _, body = _open(store, META, META_KEY, found)
        try:
            meta = Meta.decode(body)
        except RowError as error:
            raise _row_damaged(store, META, META_KEY, error) from error
        if meta.format_version > FORMAT_VERSION:
            raise ForeignError(
                store.path,
                f"its format is version {meta.format_version}, newer than "
                f"{FORMAT_VERSION}",
                "use the newer Alphabet that wrote it",
            )
        if meta.engine != ENGINE:
            raise ForeignError(
                store.path,
                f"it was written with engine {meta.engine}, not {ENGINE}",
                "use the Alphabet that wrote it",
            )
        log = cls(store, meta, Tail(0, 0), _last_number(store, REJECTS))
        try:
            log.refresh()
        except DamagedError as error:
            if not is_damage_accepted or error.sequence is None:
                raise
            log.tail = Tail(max(error.sequence - 1, meta.base_sequence), 0)
        return log

    def require(
        self, application: str, record_schema: str, pipelines: Sequence[str]
    ) -> bool:
        """Raise ForeignError unless the log belongs to this application.

        Says whether `pipelines` has names that the log does not know yet.
        """
        remedy = "name the right application, or choose another data directory"
        meta = self.meta
        if meta.application != application:
            reason = f"it belongs to application {meta.application!r}, not "
            raise ForeignError(self._store.path, f"{reason}{application!r}", remedy)
        if meta.record_schema != record_schema:
            reason = f"its records are {meta.record_schema!r}, not {record_schema!r}"
            raise ForeignError(self._store.path, reason, remedy)
        known = len(meta.pipelines)
        if tuple(pipelines[:known]) != meta.pipelines:
            reason = (
                f"its pipelines are {', '.join(meta.pipelines)}; they keep their "
                f"order, and new ones come last (not {', '.join(pipelines)})"
            )
            raise ForeignError(self._store.path, reason, remedy)
        return len(pipelines) > known

    def refresh(self) -> None:
        """Read the tail anew, for a reader beside another process that commits."""
        last = self.block_at(SEQUENCE_MAX)
        self.tail = self.base if last is None else last.tail

    @property
    def base(self) -> Tail:
        """Where the log begins: what its first block follows."""
        return Tail(self.meta.base_sequence, self.meta.base_checksum)

    @property
    def store(self) -> Store:
        """The storage under the log."""
        return self._store

    def commit(self, transaction: Transaction) -> None:
        """Store a transaction; it is durable when this returns.

        Raises ValueError for blocks that do not follow the tail, DiskFullError
        (ask `holds`, then repeat the very same transaction) or CommitError.
        """
        tail = self.tail
        for block in transaction.blocks:
            fault = broken_link(tail, block)
            if fault:
                raise ValueError(fault)
            tail = block.tail
        changes = self._changes(transaction, tail.sequence)
        self._store.commit(changes, self.tail.sequence)
        self._adopt(transaction, tail)

    def holds(self, transaction: Transaction) -> bool:
        """Say whether a transaction is stored though its commit failed.

        False means that the very same transaction may be committed again. Raises
        CommitError when the last stored block is neither its last one nor the one
        before it, or when nothing can be read.
        """
        before = self.tail
        try:
            self.refresh()
        except LogError as error:
            self.tail = before
            raise CommitError(
                self._store.path, before.sequence, f"the log cannot be read: {error}"
            ) from error
        found, self.tail = self.tail, before
        if found.sequence == before.sequence and found.checksum == before.checksum:
            return False
        if not transaction.blocks or found != transaction.blocks[-1].tail:
            raise CommitError(
                self._store.path,
                before.sequence,
                f"the last stored block ends at {found.sequence}, which is not ours",
            )
        self._adopt(transaction, found)
        return True

    def read(self, after: int) -> Iterator[Block]:
        """Give the blocks with events later than `after` (exclusive), in order.

        The first may begin at or before `after`. Raises DamagedError at the first
        block that is damaged, missing, doubled or out of place.
        """
        for found in self.inspect(after):
            if isinstance(found, DamagedError):
                raise found
            if found.last_sequence > after:
                yield found

    def inspect(self, after: int) -> Iterator[Block | DamagedError]:
        """Give what `read` would, and go on behind damage: for verify.

        A damaged or misplaced block is given as the error that names it. The
        block that holds `after`, or ends there, is given too: it is the first
        link.
        """
        first = self._store.floor(BLOCKS, _KEY.pack(after))
        start = b"" if first is None else first[0]
        is_first = start <= _KEY.pack(self.base.sequence + 1)
        expected = self.base if is_first else None
        while rows := self._store.scan(BLOCKS, start, SCAN_BYTES):
            for key, value in rows:
                try:
                    block = self._decode(key, value)
                    if expected is not None:
                        self._check_link(expected, block)
                except DamagedError as error:
                    expected = None
                    yield error
                else:
                    expected = block.tail
                    yield block
            start = rows[-1][0] + b"\0"

    def block_at(self, sequence: int) -> Block | None:
        """Give the last block that begins at or below `sequence` (inclusive)."""
        found = self._store.floor(BLOCKS, _KEY.pack(sequence))
        return None if found is None else self._decode(*found)

    def tail_at(self, sequence: int) -> Tail:
        """Give the tail of the last whole block at or below `sequence` (inclusive)."""
        block = self.block_at(sequence)
        if block is None:
            return self.base
        if block.last_sequence <= sequence:
            return block.tail
        return Tail(block.first_sequence - 1, block.previous_checksum)

    def base_state(self) -> bytes | None:
        """Give the state at the base, or None for a log that begins at 0."""
        found = self._store.get(META, BASE_KEY)
        if found is None and self.base.sequence:
            raise DamagedError(self._store.path, None, "its base has lost its state")
        if found is None:
            return None
        return _open(self._store, META, BASE_KEY, found)[1]

    def cursors(self) -> dict[str, Cursor]:
        """Give every sink's cursor by its name."""
        rows = self._values(CURSORS, decode_name, Cursor.decode)
        return {name: cursor for name, _, cursor in rows}

    def points(self) -> dict[int, tuple[int, Point]]:
        """Give by stream id the sequence it was written at, and the point."""
        rows = self._values(STREAMS, decode_number, decode_point)
        return {number: (at, Point(number, *body)) for number, at, body in rows}

    def rejects(self) -> Iterator[tuple[int, Reject]]:
        """Give the kept rejects with their numbers, oldest first."""
        for number, _, reject in self._values(REJECTS, decode_number, Reject.decode):
            yield number, reject

    def close(self) -> None:
        """Close the store."""
        self._store.close()

    def _changes(self, transaction: Transaction, sequence: int) -> list[Change]:
        blocks = transaction.blocks
        points = {p.stream_id: p for block in blocks for p in block.points}
        points |= {point.stream_id: point for point in transaction.points}
        changes = [
            Change(
                BLOCKS, _KEY.pack(block.first_sequence), block.encoded, is_append=True
            )
            for block in blocks
        ]
        for stream_id, point in points.items():
            key = _KEY.pack(stream_id)
            changes.append(_put(STREAMS, key, sequence, encode_point(point)))
        for name, cursor in transaction.cursors.items():
            changes.append(_put(CURSORS, name.encode(), sequence, cursor.encode()))
        changes += [
            Change(CURSORS, name.encode(), None) for name in transaction.forgotten
        ]
        for number, reject in enumerate(transaction.rejects, self._reject_count + 1):
            key = _KEY.pack(number)
            changes.append(_put(REJECTS, key, sequence, reject.encode()))
            if number > REJECTS_KEPT_MAX:
                oldest = _KEY.pack(number - REJECTS_KEPT_MAX)
                changes.append(Change(REJECTS, oldest, None))
        if transaction.meta is not None:
            changes.append(_put(META, META_KEY, sequence, transaction.meta.encode()))
        return changes

    def _check_link(self, expected: Tail, block: Block) -> None:
        fault = broken_link(expected, block)
        if fault:
            place = min(expected.sequence + 1, block.first_sequence)
            raise DamagedError(self._store.path, place, fault)

    def _adopt(self, transaction: Transaction, tail: Tail) -> None:
        self.tail = tail
        self._reject_count += len(transaction.rejects)
        self.meta = transaction.meta or self.meta

    def _decode(self, key: bytes, value: bytes) -> Block:
        sequence = int.from_bytes(key)
        try:
            block = Block.decode(value)
        except BlockError as error:
            raise DamagedError(self._store.path, sequence, str(error)) from error
        if block.first_sequence != sequence or len(block.encoded) != len(value):
            reason = f"the block of {block.first_sequence} is stored in its place"
            raise DamagedError(self._store.path, sequence, reason)
        return block

    def _values(
        self, table: str, decode_key: Callable[[bytes], K], decode: Callable[[bytes], T]
    ) -> Iterator[tuple[K, int, T]]:
        """Give (key, sequence it was written at, value) for each row of a table."""
        start = b""
        while rows := self._store.scan(table, start, SCAN_BYTES):
            for key, value in rows:
                sequence, body = _open(self._store, table, key, value)
                try:
                    yield decode_key(key), sequence, decode(body)
                except RowError as error:
                    raise _row_damaged(self._store, table, key, error) from error
            start = rows[-1][0] + b"\0"


def broken_link(after: Tail, block: Block) -> str | None:
    """Say why `block` cannot follow `after`, or None where it can."""
    expected = after.sequence + 1
    if block.first_sequence > expected:
        return f"events {expected} to {block.first_sequence - 1} are missing"
    if block.first_sequence < expected:
        return f"a block from {block.first_sequence} comes after {after.sequence}"
    if block.previous_checksum != after.checksum:
        return f"the block from {expected} does not follow the one stored before it"
    if block.time_ns < after.time_ns:
        return f"the block from {expected} is older than the one before it"
    return None


def _put(table: str, key: bytes, sequence: int, body: bytes) -> Change:
    return Change(table, key, seal_row(table, key, sequence, body))


def _open(store: Store, table: str, key: bytes, value: bytes) -> tuple[int, bytes]:
    try:
        return open_row(table, key, value)
    except RowError as error:
        raise _row_damaged(store, table, key, error) from error


def _row_damaged(
    store: Store, table: str, key: bytes, error: Exception
) -> DamagedError:
    return DamagedError(store.path, None, f"{table} row {key!r}: {error}")


def _last_number(store: Store, table: str) -> int:
    found = store.floor(table, _KEY.pack(SEQUENCE_MAX))
    return 0 if found is None else int.from_bytes(found[0])
