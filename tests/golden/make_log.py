"""Make the golden log of format version 1: `python -m tests.golden.make_log DIR`.

It was run once, and what it made is `log-v1`. To run it again proves nothing of what
was released; for a new format version a new log is made beside the old ones.
Times and contents are fixed. All that a log can hold is in it.
"""

import sys
from pathlib import Path

from log.block import Block, Point, Records
from log.lmdb_store import LmdbStore
from log.log import Log, Transaction
from log.row import Cursor, Meta, Reject

TIME_NS = 1_700_000_000_000_000_000
META = Meta(
    log_id="5f0c1d2e3b4a59687786958473625140",
    application="Alphabet",
    pipelines=("alphabet", "second"),
    record_schema=">sI",
    created_ns=TIME_NS,
    parent_id="0123456789abcdef0123456789abcdef",
    base_sequence=100,
    base_checksum=0xCAFEF00D,
    gaps=((106, 10),),
)
BASE_STATE = b"the state at 100"
REJECT = Reject(
    time_ns=TIME_NS + 5,
    reason="decode",
    cause="payload of 3 bytes is no vote",
    peer="127.0.0.1:50000",
    position=18,
    sequence=0,
    payload_bytes=300,
    payload=bytes(range(256)),
)
FAILED_EVENT = Reject(
    time_ns=TIME_NS + 6,
    reason="compute",
    cause="é would pass 2^64-1",
    peer="",
    position=None,
    sequence=102,
    payload_bytes=5,
    payload=b"\xe9\xff\xff\xff\xff",
)


def write(path: Path) -> None:
    """Write the log into an empty directory."""
    log = Log.create(
        LmdbStore.open(path, is_new=True, map_bytes=1 << 20), META, BASE_STATE
    )
    votes = Block.seal(
        log.tail,
        Records.pack([b"a\0\0\0\x01", b"\xe9\xff\xff\xff\xff"]),
        time_ns=TIME_NS + 1,
        points=[Point(7, 70, b"seven"), Point(8, 1, b"")],
    )
    words = Block.seal(
        votes.tail,
        Records.pack([b"one", b"", b"three"]),
        time_ns=TIME_NS + 2,
        pipeline=1,
    )
    log.commit(
        Transaction(blocks=(votes, words), rejects=(REJECT, FAILED_EVENT)),
    )
    gap = Block.seal(words.tail, Records.gap(10), time_ns=TIME_NS + 3)
    last = Block.seal(
        gap.tail,
        Records.pack([b"z\0\0\0\x1a"]),
        time_ns=TIME_NS + 4,
        points=[Point(7, 71, b"seven")],
    )
    log.commit(
        Transaction(
            blocks=(gap, last),
            points=(Point(9, 90, b"idle"),),
            cursors={
                "out": Cursor(116, 36),
                "two-phase": Cursor(102, 18, b"w.1:18"),
            },
        )
    )
    log.close()
    (path / "lock.mdb").unlink()


if __name__ == "__main__":
    write(Path(sys.argv[1]))
