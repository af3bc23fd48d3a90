"""Blocks into a log in lots, and back from its disk."""

from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from log.block import Tail
from log.errors import DamagedError
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
