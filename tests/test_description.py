"""What is said of a log, and of what was found in it: nothing left out, or doubled."""

from pathlib import Path

import attrs
import pytest

from log.block import Block, Point, Records, Tail
from log.log import Log, Transaction
from log.memory_store import MemoryStore
from log.row import Cursor
from recovery.description import describe_log, field_lines, finding_line
from recovery.snapshot_directory import SnapshotDirectory
from recovery.verify import DAMAGE, GAP, NOTE, Finding
from tests.samples import COMPACTED, META

SECOND = 10**9
NO_SNAPSHOTS = SnapshotDirectory(Path("none"))


def test_a_new_log() -> None:
    """A log without events has no times, and no size of one event."""
    log = Log.create(MemoryStore(), META)
    said = describe_log(log, NO_SNAPSHOTS, 40_960)
    assert said == {
        "id": META.log_id,
        "parent": None,
        "application": "Alphabet",
        "record_schema": ">sI",
        "pipelines": ["alphabet"],
        "format_version": 1,
        "engine": "lmdb-0.9",
        "base": 0,
        "last_sequence": 0,
        "events": 0,
        "first_time": None,
        "last_time": None,
        "bytes": 40_960,
        "bytes_per_event": None,
        "snapshots": [],
        "sinks": {},
        "streams": {},
        "gaps": [],
    }


def test_a_log_that_has_lost_events() -> None:
    """Events are those that are there: neither those before the base nor the lost."""
    meta = attrs.evolve(COMPACTED, gaps=((104, 7), (120, 1)))
    log = Log.create(MemoryStore(), meta, b"state")
    tail = Tail(100, COMPACTED.base_checksum)
    for time_ns, records in (
        (SECOND, Records.pack([b"a"] * 3)),
        (2 * SECOND, Records.gap(7)),
        (3 * SECOND, Records.pack([b"a"] * 9)),
        (4 * SECOND, Records.gap(1)),
    ):
        point = Point(9, time_ns, b"nine\xff")
        block = Block.seal(tail, records, time_ns=time_ns, points=(point,))
        cursors = {"b": Cursor(103, 30), "a": Cursor(102, 20)}
        log.commit(Transaction((block,), cursors=cursors))
        tail = block.tail
    said = describe_log(log, NO_SNAPSHOTS, 100)
    assert (said["base"], said["last_sequence"], said["events"]) == (100, 120, 12)
    assert said["parent"] == COMPACTED.parent_id
    assert said["first_time"] == "1970-01-01T00:00:01Z"
    assert said["last_time"] == "1970-01-01T00:00:04Z"
    assert said["bytes_per_event"] == 8.33
    assert said["gaps"] == [{"first": 104, "last": 110}, {"first": 120, "last": 120}]
    assert list(said["sinks"].items()) == [
        ("a", {"sequence": 102, "output_bytes": 20}),
        ("b", {"sequence": 103, "output_bytes": 30}),
    ]
    assert said["streams"] == {
        "9": {"name": "nine\N{REPLACEMENT CHARACTER}", "message_id": 4 * SECOND}
    }


@pytest.mark.parametrize(
    ("name", "value", "lines"),
    [
        ("last_sequence", 0, ["last sequence: 0"]),
        ("parent", None, ["parent: none"]),
        ("parent", "", ["parent: none"]),
        ("sinks", {}, ["sinks: none"]),
        ("snapshots", [], ["snapshots: none"]),
        ("pipelines", ["one", "two"], ["pipelines: one, two"]),
        (
            "gaps",
            [{"first": 1, "last": 2}, {"first": 5, "last": 5}],
            ["gaps: 1 to 2, 5 to 5"],
        ),
        (
            "sinks",
            {"a": {"sequence": 1, "output_bytes": 2}, "b": {"sequence": 3}},
            ["sinks:", "  a: sequence 1, output bytes 2", "  b: sequence 3"],
        ),
    ],
)
def test_a_field_is_lines(name: str, value: object, lines: list[str]) -> None:
    """A field is its name and its value; one with many parts has a line for each."""
    assert list(field_lines(name, value)) == lines


@pytest.mark.parametrize(
    ("finding", "line"),
    [
        (Finding(DAMAGE, "log", "it rotted"), "damage: log: it rotted"),
        (Finding(NOTE, "sink out", "why", 5), "note: sink out at 5: why"),
        (Finding(GAP, "block", "why", 5, 5), "gap: block at 5: why"),
        (Finding(GAP, "block", "why", 5, 9), "gap: block at 5 to 9: why"),
    ],
)
def test_a_finding_is_a_line(finding: Finding, line: str) -> None:
    """A finding says how bad, where, at which events, and why."""
    assert finding_line(finding) == line
