"""docs/FORMAT.md says what the code does, down to the bytes of its examples."""

import re
import struct

import attrs
import pytest

from log import log as log_module
from log.block import (
    BLOCK_BYTES_MAX,
    FORMAT_VERSION,
    HEADER_BYTES,
    SEQUENCE_MAX,
    Block,
    Point,
    Records,
    Tail,
)
from log.directory import CONTENTS
from log.row import (
    ENGINE,
    OPAQUE,
    REJECT_PAYLOAD_BYTES_MAX,
    REJECTS_KEPT_MAX,
    Cursor,
    Meta,
    Reject,
    encode_point,
    open_row,
    seal_row,
)
from log.store import CURSORS, KEY_BYTES_MAX, TABLES
from tests import samples
from tests.documents import fenced
from tests.process import ROOT

TEXT = (ROOT / "docs" / "FORMAT.md").read_text(encoding="utf-8")
TYPE_BYTES = {"u8": 1, "u16": 2, "u32": 4, "u64": 8, "4 bytes": 4}

VOTES = Block.seal(
    Tail(0, 0),
    Records.pack([struct.pack(">sI", b"a", 1), struct.pack(">sI", b"b", 300)]),
    time_ns=1_700_000_000_000_000_000,
)
CURSOR = Cursor(2, 18)
CURSOR_ROW = seal_row(CURSORS, b"out", 2, CURSOR.encode())


def section(title: str) -> str:
    """Return what stands under a heading, up to the next one."""
    [found] = re.findall(
        rf"^#+ {re.escape(title)}\n(.*?)(?=^#+ |\Z)", TEXT, re.DOTALL | re.MULTILINE
    )
    return str(found)


def table(text: str) -> list[list[str]]:
    """Return the rows of the tables in a text, without headings."""
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("|")
    ]
    is_rule = [set("".join(row)) <= set("-:") for row in rows]
    return [
        row
        for number, row in enumerate(rows)
        if not is_rule[number] and not any(is_rule[number + 1 : number + 2])
    ]


def dump(text: str) -> bytes:
    """Return the bytes of a hex dump, whose lines begin with their offset."""
    data = b""
    [block] = fenced(text, "hex")
    for line in block.splitlines():
        offset, _, digits = line.partition("  ")
        assert int(offset, 16) == len(data)
        data += bytes.fromhex(digits)
    return data


def broken_down(text: str) -> list[tuple[bytes, str, str]]:
    """Return bytes, field and value of each row of an example's table."""
    return [
        (bytes.fromhex(digits.strip("`")), field, value)
        for digits, field, value in table(text)
    ]


def sizes(grammar: str) -> list[int]:
    """Return the widths of a grammar's fixed fields, as `name:u64`."""
    return [TYPE_BYTES[each] for each in re.findall(r":(u\d+)", grammar)]


class TestBlock:
    """The grammar of a block, and its example."""

    def test_the_header_is_the_codes(self) -> None:
        """The header's fields stand one behind the other and fill it."""
        offset = 0
        for stated, width, _, _ in table(section("A block")):
            assert int(stated) == offset
            offset += TYPE_BYTES[width]
        assert offset == HEADER_BYTES == 48
        assert f"The header has {HEADER_BYTES} bytes" in section("A block")

    def test_a_point_is_as_wide_as_it_says(self) -> None:
        """A point's fixed fields are those of the grammar, and cost what is stated."""
        [grammar] = re.findall(r"^point    = (.*)$", TEXT, re.MULTILINE)
        point = Point(1, 2, b"name")
        block = Block.seal(Tail(0, 0), VOTES.records, time_ns=0, points=[point])
        width = len(block.encoded) - len(VOTES.encoded) - len(point.name)
        assert sum(sizes(grammar)) == width == 18
        assert f"a point {width} and its name" in TEXT

    def test_the_overhead_is_what_it_says(self) -> None:
        """A block costs the stated bytes beside its records."""
        overhead = len(VOTES.encoded) - len(VOTES.records.body)
        assert f"a block costs {overhead} bytes" in TEXT

    def test_the_dump_is_what_the_code_makes(self) -> None:
        """The example's bytes are those of the block that it describes."""
        assert dump(section("Example: two votes")) == VOTES.encoded

    def test_the_table_is_the_dump(self) -> None:
        """The example's fields are the header's in order, and their values true."""
        rows = broken_down(section("Example: two votes"))
        assert b"".join(digits for digits, _, _ in rows) == VOTES.encoded
        names = [field for _, _, field, _ in table(section("A block"))]
        assert [field for _, field, _ in rows] == [
            *names,
            "record",
            "record",
            "checksum",
        ]
        for digits, field, value in rows:
            if field not in {"magic", "record"}:
                assert int.from_bytes(digits) == int(value)

    def test_the_rules_of_the_chain_hold(self) -> None:
        """Each part of the stated rule is refused by the code."""
        rule = section("A block")
        assert "sequence after block n's last" in rule
        for wrong in (Tail(1, VOTES.checksum), Tail(2, 0), Tail(2, VOTES.checksum, 1)):
            block = Block.seal(wrong, Records.pack([b"x"]), time_ns=0)
            assert log_module.broken_link(VOTES.tail, block)

    def test_a_scan_goes_by_these_numbers(self) -> None:
        """The offset and the least length that the steps name are the code's."""
        steps = section("Finding blocks without LMDB")
        [offset] = re.findall(r"block_bytes at offset (\d+)", steps)
        [least] = re.findall(r"below (\d+)", steps)
        length = struct.unpack_from(">I", VOTES.encoded, int(offset))[0]
        assert length == len(VOTES.encoded)
        assert int(least) == HEADER_BYTES + 4


class TestRows:
    """The rows beside the blocks."""

    def test_the_envelope_is_as_wide_as_it_says(self) -> None:
        """A row's own fields are those of the grammar."""
        [grammar] = re.findall(r"^row      = (.*)$", TEXT, re.MULTILINE)
        assert sum(sizes(grammar)) == len(seal_row(CURSORS, b"out", 2, b""))

    @pytest.mark.parametrize(
        ("name", "body"),
        [
            ("`streams`", encode_point(Point(1, 2, b""))),
            ("`cursors`", Cursor(1, 2).encode()),
        ],
    )
    def test_a_body_is_as_wide_as_it_says(self, name: str, body: bytes) -> None:
        """A body's fixed fields are those of the table."""
        [grammar] = [row[1] for row in table(section("Rows")) if row[0] == name]
        assert sum(sizes(grammar)) == len(body)

    def test_the_dump_is_what_the_code_makes(self) -> None:
        """The example's bytes are those of the row that it describes."""
        text = section("Example: a cursor")
        assert dump(text) == CURSOR_ROW
        assert f"key `{b'out'.hex(' ')}`" in text
        assert open_row(CURSORS, b"out", dump(text)) == (2, CURSOR.encode())

    def test_the_table_is_the_dump(self) -> None:
        """The example's fields make its bytes, and their values are true."""
        rows = broken_down(section("Example: a cursor"))
        assert b"".join(digits for digits, _, _ in rows) == CURSOR_ROW
        assert [int.from_bytes(digits) for digits, _, _ in rows] == [
            int(value) for _, _, value in rows
        ]

    @pytest.mark.parametrize(
        ("start", "kind"), [("A reject has", Reject), ("`meta`'s `log` has", Meta)]
    )
    def test_json_has_these_fields(self, start: str, kind: type) -> None:
        """The fields that a JSON body has are those that the text names."""
        [paragraph] = [
            each for each in section("Rows").split("\n\n") if each.startswith(start)
        ]
        named = re.findall(r"`(\w+)`", paragraph.removeprefix(start))
        fields = {field.name for field in attrs.fields(kind)}
        assert set(named) - {OPAQUE} == fields
        assert kind is Reject or f"`{ENGINE}`" in paragraph

    def test_json_is_sorted(self) -> None:
        """JSON bodies have their keys in order."""
        for body in (samples.META.encode(), samples.REJECT.encode()):
            keys = re.findall(rb'"(\w+)": ', body)
            assert keys == sorted(keys)


class TestPlace:
    """What is where."""

    def test_the_directory_holds_this(self) -> None:
        """The tree names all that a data directory may hold."""
        tree = section("The data directory")
        assert set(re.findall(r"^  ([\w.]+)", tree, re.MULTILINE)) == CONTENTS

    def test_the_tables_are_these(self) -> None:
        """Every table of a store has its row, and there are no others."""
        named = {name.strip("`") for name, *_ in table(section("Tables"))}
        assert named == set(TABLES)

    def test_the_limits_are_these(self) -> None:
        """Each limit is the code's."""
        limits = {name: int(most) for name, most in table(section("Limits"))}
        assert limits == {
            "sequences": SEQUENCE_MAX,
            "bytes in a block": BLOCK_BYTES_MAX,
            "bytes in a key, such as a sink's name": KEY_BYTES_MAX,
            "pipelines": 2**16,
            "bytes in a stream's name, or a transaction id": 2**16 - 1,
            "rejects kept": REJECTS_KEPT_MAX,
            "bytes of a reject's payload kept": REJECT_PAYLOAD_BYTES_MAX,
        }

    def test_fields_take_their_limits(self) -> None:
        """A pipeline's number, a name and an id may be as large as stated."""
        block = Block.seal(
            Tail(0, 0),
            VOTES.records,
            time_ns=0,
            pipeline=2**16 - 1,
            points=[Point(0, 0, b"n" * (2**16 - 1))],
        )
        assert Block.decode(block.encoded) == block
        cursor = Cursor(0, 0, b"i" * (2**16 - 1))
        assert Cursor.decode(cursor.encode()) == cursor

    def test_the_newest_version_is_this(self) -> None:
        """The versions told are those that there are, each with a golden log."""
        versions = [int(number) for number, *_ in table(section("Versions"))]
        assert versions == list(range(1, FORMAT_VERSION + 1))
        for number in versions:
            assert (ROOT / "tests" / "golden" / f"log-v{number}").is_dir()

    def test_votes_take_these_bytes(self) -> None:
        """The sizes of blocks that the last table tells are the code's."""
        for votes, block_bytes, _ in table(section("Benefits and costs")):
            records = Records.pack([b"a\0\0\0\x01"] * int(votes))
            block = Block.seal(Tail(0, 0), records, time_ns=0)
            assert len(block.encoded) == int(block_bytes)
