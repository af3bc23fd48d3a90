"""Blocks into a log in lots, and back from its disk."""

import os
from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from log.block import Tail
from log.errors import DamagedError
from log.lmdb_store import DATA_FILE
from recovery import copying
from recovery.copying import in_lots, read_back
from tests.machines import write_votes
from tests.samples import chain


@given(sizes=st.lists(st.integers(1, 300)), lot_bytes=st.integers(1, 1000))
def test_lots(sizes: list[int], lot_bytes: int) -> None:
    """Every block comes once, in order; no lot could have ended before its last."""
    blocks = chain(*([bytes(size)] for size in sizes))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(copying, "COMMIT_BYTES", lot_bytes)
        lots = list(in_lots(blocks))
    assert [block for lot in lots for block in lot] == blocks
    for lot in lots:
        assert sum(len(block.encoded) for block in lot[:-1]) < lot_bytes
    for lot in lots[:-1]:
        assert sum(len(block.encoded) for block in lot) >= lot_bytes


def test_a_lot_is_no_smaller_than_asked_for() -> None:
    """Each lot is counted from nothing: all but the last are as large as the first."""
    blocks = chain(*([bytes(10)] for _ in range(7)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(copying, "COMMIT_BYTES", 2 * len(blocks[0].encoded) + 1)
        assert [len(lot) for lot in in_lots(blocks)] == [3, 3, 1]


def test_it_is_the_disk_that_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel is asked to forget all of the file first; nothing is left open."""
    log = write_votes(tmp_path / "data").open_log()
    asked: list[tuple[str, int, int, int]] = []

    def advise(descriptor: int, *words: int) -> None:
        start, size, advice = words
        name = str(Path(f"/proc/self/fd/{descriptor}").readlink())
        asked.append((name, start, size, advice))

    monkeypatch.setattr(os, "posix_fadvise", advise)
    opened = Path("/proc/self/fd")
    before = set(opened.iterdir())
    read_back(log, 0, log.tail)
    file = str(log.store.path / DATA_FILE)
    assert asked == [(file, 0, 0, os.POSIX_FADV_DONTNEED)]
    assert set(opened.iterdir()) == before
    log.close()


def test_an_end_that_is_not_there(tmp_path: Path) -> None:
    """A log that reads to another end than it was written to is damaged there."""
    log = write_votes(tmp_path / "data").open_log()
    end = log.tail
    for after in (0, 3, 6, 10):
        read_back(log, after, end)
    with pytest.raises(DamagedError, match="written to 12, and reads to 10") as caught:
        read_back(log, 3, Tail(12, end.checksum))
    assert caught.value.sequence == 11
    with pytest.raises(DamagedError):
        read_back(log, 3, attrs.evolve(end, checksum=end.checksum ^ 1))
    log.close()
