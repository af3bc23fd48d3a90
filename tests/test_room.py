"""How much room is needed, said in advance: near the truth, wherever a log is thick."""

import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from log.block import Block, Records, Tail
from log.directory import DataDirectory
from log.errors import DirectoryError
from log.log import Log, Transaction
from log.memory_store import MemoryStore
from recovery.room import SPARE_BYTES, check_room, estimate_bytes, stored_bytes
from tests.samples import META


def blocks(counts: list[int]) -> tuple[Block, ...]:
    """Make blocks of so many votes each."""
    made: list[Block] = []
    after = Tail(0, 0)
    for count in counts:
        made.append(Block.seal(after, Records(count, 5, bytes(5 * count)), time_ns=1))
        after = made[-1].tail
    return tuple(made)


@pytest.mark.parametrize("count", [1, 10, 394, 395, 806, 1000, 10_000])
def test_it_is_what_a_log_takes(tmp_path: Path, count: int) -> None:
    """The estimate is within a tenth of the file that LMDB makes of such blocks."""
    made = blocks([count] * (4000 if count == 1 else 400))
    directory = DataDirectory.claim(tmp_path / "data")
    with directory.new_log(META) as log:
        log.commit(Transaction(made))
        estimated = estimate_bytes(log, 0, log.tail.sequence)
    directory.release()
    files = (tmp_path / "data" / "log").iterdir()
    size = sum(file.stat().st_size for file in files) - SPARE_BYTES
    assert abs(estimated - size) < 0.1 * size + SPARE_BYTES


@pytest.mark.parametrize(
    ("block_bytes", "taken"),
    [
        (500, 516),
        (2022, 2038),
        (2023, 4096),
        (4080, 4096),
        (4081, 8192),
        (8176, 8192),
        (8177, 12_288),
    ],
)
def test_a_block_shares_a_page_or_has_its_own(block_bytes: int, taken: int) -> None:
    """A small block takes its bytes and a node's share, a larger one whole pages."""
    [empty] = blocks([1])
    body_bytes = block_bytes - len(empty.encoded) + 5
    block = Block.seal(Tail(0, 0), Records.pack([bytes(body_bytes)]), time_ns=1)
    assert len(block.encoded) == block_bytes
    assert stored_bytes(block) == taken


def test_one_event_is_estimated_by_its_own_block() -> None:
    """The block that is looked at is the event's, and no event takes nothing."""
    log = Log.create(MemoryStore(), META)
    log.commit(Transaction(blocks([1, 4, 9])))
    sizes = [
        estimate_bytes(log, after, after + 1, lambda block: block.records.count**2)
        for after in (0, 1, 4, 5)
    ]
    assert sizes == [1, 4, 4, 9]
    assert estimate_bytes(log, 5, 5) == estimate_bytes(log, 9, 5) == 0


@given(
    thin=st.integers(1, 60),
    thick=st.integers(1, 60),
    after=st.floats(0, 0.5),
    until=st.floats(0.5, 1),
)
def test_thick_and_thin(thin: int, thick: int, after: float, until: float) -> None:
    """Where blocks differ much, neither kind hides the other; any part has its own."""
    log = Log.create(MemoryStore(), META)
    log.commit(Transaction(blocks([1] * thin + [50] * thick)))
    last = log.tail.sequence
    first, end = int(after * last), int(until * last)
    estimated = estimate_bytes(log, first, end, lambda block: block.records.count)
    assert estimated == end - first
    estimated = estimate_bytes(log, first, end, lambda _block: 1)
    exact = max(0, min(thin, end) - first) + max(0, end - max(first, thin)) / 50
    assert abs(estimated - exact) <= 1 + (end - first) / 32


def test_the_sum_on_one_disk(tmp_path: Path) -> None:
    """Places on one disk share its room; a refusal says what it takes."""
    free = shutil.disk_usage(tmp_path).free
    half = {tmp_path / "new": free * 3 // 4}
    check_room(half)
    check_room({tmp_path / "no" / "where": free * 2})
    with pytest.raises(DirectoryError, match=r"it takes about .* bytes, and its disk"):
        check_room({**half, tmp_path: free * 3 // 4})
