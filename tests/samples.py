"""Values that tests of the log share: a meta, rejects, blocks, and how to make any."""

from collections.abc import Iterable

import attrs
from hypothesis import strategies as st

from log.block import Block, Point, Records, Tail
from log.log import Log, Transaction
from log.row import Cursor, Meta, Reject

START = Tail(0, 0)

META = Meta(
    log_id="0123456789abcdef",
    application="Alphabet",
    pipelines=("alphabet",),
    record_schema=">sI",
    created_ns=1_700_000_000_000_000_000,
)

COMPACTED = attrs.evolve(
    META, base_sequence=100, base_checksum=0xABCD, parent_id="fedcba9876543210"
)

REJECT = Reject(
    time_ns=1_700_000_000_000_000_001,
    reason="decode",
    cause="3 bytes are no vote",
    peer="127.0.0.1:5000",
    position=18,
    sequence=0,
    payload_bytes=3,
    payload=b"abc",
)

u16 = st.integers(0, 2**16 - 1)
u32 = st.integers(0, 2**32 - 1)
u64 = st.integers(0, 2**64 - 1)

points = st.builds(Point, u64, u64, st.binary(max_size=20))
cursors = st.builds(Cursor, u64, u64, st.binary(max_size=20))

fixed_payloads = st.integers(1, 12).flatmap(
    lambda size: st.lists(
        st.binary(min_size=size, max_size=size), min_size=1, max_size=8
    )
)
varied_payloads = st.lists(st.binary(max_size=12), min_size=1, max_size=8)
payloads = fixed_payloads | varied_payloads
records = payloads.map(Records.pack) | st.integers(1, 2**32).map(Records.gap)

tails = st.builds(Tail, st.integers(0, 2**63), u32, u64)
blocks = st.builds(
    Block.seal,
    tails,
    records,
    time_ns=u64,
    pipeline=u16,
    points=st.lists(points, max_size=3),
)


def chain(*contents: Iterable[bytes], after: Tail = START) -> list[Block]:
    """Seal one block for each list of payloads, each after the one before."""
    made: list[Block] = []
    for each in contents:
        made.append(Block.seal(after, Records.pack(list(each)), time_ns=len(made)))
        after = made[-1].tail
    return made


def append(log: Log, *contents: list[bytes]) -> list[Block]:
    """Commit a block for each list of payloads, one by one."""
    made = chain(*contents, after=log.tail)
    for block in made:
        log.commit(Transaction(blocks=(block,)))
    return made


def key(number: int) -> bytes:
    """Return the key of a sequence, stream or reject."""
    return number.to_bytes(8)


def rejects(first: int, last: int) -> tuple[Reject, ...]:
    """Return rejects at the positions `first` to `last`, inclusive."""
    return tuple(
        attrs.evolve(REJECT, position=position) for position in range(first, last + 1)
    )
