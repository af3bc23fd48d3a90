"""Rows: each proves where and when it was written, and decodes to what was stored."""

import json
import zlib

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from log.block import FORMAT_VERSION, Point
from log.row import (
    REJECT_PAYLOAD_BYTES_MAX,
    Cursor,
    Meta,
    Reject,
    RowError,
    decode_point,
    encode_point,
    open_row,
    seal_row,
)
from log.store import TABLES
from tests import samples

tables = st.sampled_from(TABLES)
keys = st.binary(min_size=1, max_size=20)
places = st.tuples(tables, keys)
bodies = st.binary(max_size=40)

rejects = st.builds(
    Reject,
    time_ns=samples.u64,
    reason=st.text(max_size=20),
    cause=st.text(max_size=20),
    peer=st.text(max_size=20),
    position=st.none() | samples.u64,
    sequence=samples.u64,
    payload_bytes=samples.u32,
    payload=st.binary(max_size=300),
)
metas = st.builds(
    Meta,
    log_id=st.text(max_size=20),
    application=st.text(max_size=20),
    pipelines=st.lists(st.text(max_size=9), max_size=3),
    record_schema=st.text(max_size=9),
    created_ns=samples.u64,
    parent_id=st.text(max_size=9),
    base_sequence=samples.u64,
    base_checksum=samples.u32,
    gaps=st.lists(st.tuples(samples.u64, samples.u64), max_size=3),
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
    ),
    max_leaves=5,
)


class TestEnvelope:
    """What every row has around its body."""

    @given(tables, keys, samples.u64, bodies)
    def test_it_comes_back(
        self, table: str, key: bytes, sequence: int, body: bytes
    ) -> None:
        """A sealed row opens to its sequence and body, and costs 12 bytes."""
        value = seal_row(table, key, sequence, body)
        assert open_row(table, key, value) == (sequence, body)
        assert len(value) == len(body) + 12

    @given(tables, keys, samples.u64, bodies, st.data())
    def test_every_changed_byte_is_noticed(
        self, table: str, key: bytes, sequence: int, body: bytes, data: st.DataObject
    ) -> None:
        """Whatever byte of a row is changed, it is refused."""
        value = seal_row(table, key, sequence, body)
        change = data.draw(st.integers(1, 255))
        for position in range(len(value)):
            changed = bytearray(value)
            changed[position] ^= change
            with pytest.raises(RowError):
                open_row(table, key, bytes(changed))

    @given(tables, keys, samples.u64, bodies)
    def test_every_truncation_is_noticed(
        self, table: str, key: bytes, sequence: int, body: bytes
    ) -> None:
        """A row without its end is refused, wherever it was cut."""
        value = seal_row(table, key, sequence, body)
        for size in range(len(value)):
            with pytest.raises(RowError):
                open_row(table, key, value[:size])

    @given(st.binary(max_size=7))
    def test_a_row_needs_its_sequence(self, content: bytes) -> None:
        """What is too short to hold a sequence is no row, whatever its checksum."""
        checksum = zlib.crc32(content, zlib.crc32(b"meta\0log\0"))
        with pytest.raises(RowError, match="too few for a row"):
            open_row("meta", b"log", content + checksum.to_bytes(4))

    @given(places, places, samples.u64, bodies)
    def test_a_moved_row_is_noticed(
        self,
        place: tuple[str, bytes],
        other: tuple[str, bytes],
        sequence: int,
        body: bytes,
    ) -> None:
        """A row is good in its own table, under its own key, and nowhere else."""
        value = seal_row(*place, sequence, body)
        if place != other:
            with pytest.raises(RowError, match="checksum"):
                open_row(*other, value)


class TestCursor:
    """A sink's place."""

    @given(samples.cursors)
    def test_it_comes_back(self, cursor: Cursor) -> None:
        """Decoding a cursor's body gives an equal cursor."""
        assert Cursor.decode(cursor.encode()) == cursor

    @given(samples.cursors)
    def test_another_length_is_refused(self, cursor: Cursor) -> None:
        """A body that is longer or shorter than it says is refused."""
        body = cursor.encode()
        for wrong in (*(body[:size] for size in range(len(body))), body + b"x"):
            with pytest.raises(RowError):
                Cursor.decode(wrong)

    def test_cursors_have_an_order(self) -> None:
        """A cursor further on in the log, or else in the output, is the greater."""
        assert Cursor(1, 9) < Cursor(2, 0) < Cursor(2, 1)


class TestPoint:
    """A point of reference."""

    @given(samples.points)
    def test_it_comes_back(self, point: Point) -> None:
        """A point's body gives back all but the stream id, which is the key."""
        found = decode_point(encode_point(point))
        assert found == (point.message_id, point.name)

    @given(samples.points)
    def test_another_length_is_refused(self, point: Point) -> None:
        """A body that is longer or shorter than it says is refused."""
        body = encode_point(point)
        for wrong in (*(body[:size] for size in range(len(body))), body + b"x"):
            with pytest.raises(RowError):
                decode_point(wrong)


class TestReject:
    """A vote that did not count."""

    @given(rejects)
    def test_it_comes_back(self, reject: Reject) -> None:
        """Decoding a reject's body gives an equal reject."""
        assert Reject.decode(reject.encode()) == reject

    def test_it_keeps_the_first_bytes(self) -> None:
        """Of a long payload the first 256 bytes are kept, and the whole length."""
        payload = bytes(range(256)) + b"more"
        reject = attrs.evolve(
            samples.REJECT, payload=payload, payload_bytes=len(payload)
        )
        assert reject.payload == payload[:REJECT_PAYLOAD_BYTES_MAX]
        assert reject.payload_bytes == 260
        assert REJECT_PAYLOAD_BYTES_MAX == 256

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"\xff",
            b"[]",
            b"{}",
            samples.REJECT.encode().replace(b"616263", b"61626"),
            samples.REJECT.encode().replace(b'"616263"', b"616263"),
            samples.REJECT.encode().replace(b'"cause"', b'"course"'),
            samples.REJECT.encode().replace(b'"position": 18', b'"position": "18"'),
            samples.REJECT.encode().replace(b'"sequence": 0', b'"sequence": 1e9'),
            b"[" * 100_000,
        ],
    )
    def test_another_form_is_refused(self, body: bytes) -> None:
        """A body that is no reject raises RowError."""
        with pytest.raises(RowError):
            Reject.decode(body)


class TestMeta:
    """What a log is."""

    def test_a_new_log_begins_at_nothing(self) -> None:
        """What is not said of a log is that it is new, whole and nobody's child."""
        meta = Meta("id", "app", ("one", "two"))
        assert attrs.astuple(meta) == (
            *("id", "app", ("one", "two"), "opaque", 0, 1, "lmdb-0.9", "", 0, 0, ()),
        )

    @given(metas)
    def test_it_comes_back(self, meta: Meta) -> None:
        """Decoding a meta's body gives an equal meta."""
        assert Meta.decode(meta.encode()) == meta

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"\xff",
            b"[]",
            b"{}",
            b'{"log_id": "a"}',
            b'{"a":' * 100_000,
            samples.META.encode().replace(b'"gaps": []', b'"gaps": [[NaN, 1]]'),
            samples.META.encode().replace(b'["alphabet"]', b"[1]"),
        ],
    )
    def test_another_form_is_refused(self, body: bytes) -> None:
        """A body that does not describe a log raises RowError."""
        with pytest.raises(RowError):
            Meta.decode(body)

    def test_a_stranger_is_refused(self) -> None:
        """A field that this format version does not have raises RowError."""
        body = samples.META.encode().replace(b'"engine"', b'"motor"')
        with pytest.raises(RowError, match="motor"):
            Meta.decode(body)

    def test_a_newer_format_may_say_more(self) -> None:
        """A newer meta is read for its version, whatever else stands in it."""
        newer = FORMAT_VERSION + 1
        body = attrs.evolve(samples.META, format_version=newer).encode()
        found = Meta.decode(body.replace(b"{", b'{"colour": "red", ', 1))
        assert found.format_version == newer

    @given(st.dictionaries(st.sampled_from(attrs.fields(Meta)), json_values))
    def test_odd_values_raise_nothing_else(
        self, fields: dict["attrs.Attribute[object]", object]
    ) -> None:
        """Whatever JSON a sealed body holds, it is a meta or a RowError."""
        odd = attrs.asdict(samples.META) | {
            f.name: value for f, value in fields.items()
        }
        try:
            meta = Meta.decode(json.dumps(odd).encode())
        except RowError:
            return
        is_newer = meta.format_version > FORMAT_VERSION
        assert is_newer or isinstance(meta.base_sequence, int)
