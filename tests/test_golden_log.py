"""The log of every released format: it opens, and holds what it was given then.

What is expected is written out here, apart from the script that made the log.
"""

import shutil
from pathlib import Path

import pytest

from log.block import Point
from log.lmdb_store import DATA_FILE, LmdbStore
from log.log import Log, Transaction
from log.row import Cursor
from tests import samples
from tests.golden import make_log

GOLDEN = Path(__file__).parent / "golden"
VERSIONS = sorted(path.name for path in GOLDEN.glob("log-v*"))

TIME_NS = 1_700_000_000_000_000_000
BLOCKS = [
    # First sequence, records, pipeline, time, points, whether it is a gap.
    (
        101,
        [b"a\0\0\0\x01", b"\xe9\xff\xff\xff\xff"],
        0,
        TIME_NS + 1,
        (Point(7, 70, b"seven"), Point(8, 1, b"")),
        False,
    ),
    (103, [b"one", b"", b"three"], 1, TIME_NS + 2, (), False),
    (106, [], 0, TIME_NS + 3, (), True),
    (116, [b"z\0\0\0\x1a"], 0, TIME_NS + 4, (Point(7, 71, b"seven"),), False),
]


@pytest.fixture(params=[*VERSIONS, "made now"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Return a copy of a golden log, or the one that today's code makes."""
    if request.param == "made now":
        make_log.write(tmp_path)
    else:
        shutil.copy(GOLDEN / request.param / DATA_FILE, tmp_path)
    return tmp_path


class TestGolden:
    """The contents of log-v1, and of what its script makes today."""

    def test_there_is_one_of_each_version(self) -> None:
        """The first format is kept, and nothing lies beside its data."""
        assert VERSIONS == ["log-v1"]
        for version in VERSIONS:
            names = [entry.name for entry in (GOLDEN / version).iterdir()]
            assert names == [DATA_FILE]

    @pytest.mark.parametrize("is_read_only", [False, True])
    def test_it_says_what_it_is(self, path: Path, *, is_read_only: bool) -> None:
        """Identity, base and gaps are what they were."""
        log = Log.open(LmdbStore.open(path, is_read_only=is_read_only))
        meta = log.meta
        assert (meta.log_id, meta.parent_id) == (
            "5f0c1d2e3b4a59687786958473625140",
            "0123456789abcdef0123456789abcdef",
        )
        assert (meta.application, meta.record_schema) == ("Alphabet", ">sI")
        assert meta.pipelines == ("alphabet", "second")
        assert (meta.format_version, meta.engine) == (1, "lmdb-0.9")
        assert meta.created_ns == TIME_NS
        assert meta.gaps == ((106, 10),)
        assert (log.base.sequence, log.base.checksum) == (100, 0xCAFEF00D)
        assert log.base_state() == b"the state at 100"
        assert not log.require("Alphabet", ">sI", ["alphabet", "second"])
        log.close()

    def test_its_blocks_are_read(self, path: Path) -> None:
        """Votes, words, the gap and what follows it are read, in a sound chain."""
        log = Log.open(LmdbStore.open(path, is_read_only=True))
        found = [
            (
                block.first_sequence,
                list(block.records),
                block.pipeline,
                block.time_ns,
                block.points,
                block.records.is_gap,
            )
            for block in log.read(100)
        ]
        assert found == BLOCKS
        assert (log.tail.sequence, log.tail.checksum) == (116, 0x2BC2907F)
        log.close()

    def test_what_goes_along_is_read(self, path: Path) -> None:
        """Cursors, points of reference and rejects are what they were."""
        log = Log.open(LmdbStore.open(path, is_read_only=True))
        assert log.cursors() == {
            "out": Cursor(116, 36),
            "two-phase": Cursor(102, 18, b"w.1:18"),
        }
        assert log.points() == {
            7: (116, Point(7, 71, b"seven")),
            8: (105, Point(8, 1, b"")),
            9: (116, Point(9, 90, b"idle")),
        }
        (one, reject), (two, failed) = log.rejects()
        assert (one, two) == (1, 2)
        assert (reject.reason, reject.peer, reject.position, reject.sequence) == (
            "decode",
            "127.0.0.1:50000",
            18,
            0,
        )
        assert (reject.payload_bytes, reject.payload) == (300, bytes(range(256)))
        assert (failed.reason, failed.position, failed.sequence) == (
            "compute",
            None,
            102,
        )
        assert failed.cause == "é would pass 2^64-1"
        log.close()

    def test_it_goes_on(self, path: Path) -> None:
        """An old log takes new blocks."""
        log = Log.open(LmdbStore.open(path))
        log.commit(Transaction(blocks=tuple(samples.chain([b"new"], after=log.tail))))
        again = [block.first_sequence for block in log.read(100)]
        assert again == [101, 103, 106, 116, 117]
        log.close()
