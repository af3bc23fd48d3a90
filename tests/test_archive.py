"""A file of frames: there whole and flushed, or not at all."""

import os
from pathlib import Path

import pytest

from log.block import Block, Records, Tail
from recovery.archive import Archive


def frames(block: Block) -> bytes:
    """Give a block's records, one after the other."""
    return b"".join(block.records)


def blocks() -> list[Block]:
    """Give two blocks of votes, with a gap between."""
    first = Block.seal(Tail(0, 0), Records.pack([b"one", b"two"]), time_ns=1)
    gap = Block.seal(first.tail, Records.gap(5), time_ns=1)
    return [first, gap, Block.seal(gap.tail, Records.pack([b"ten"]), time_ns=1)]


def test_what_is_flushed_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the disk is asked to keep the file, it has been given all of it."""
    flushed: list[int] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        flushed.append(os.fstat(descriptor).st_size)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    file = tmp_path / "archive"
    assert Archive(file, frames).write(blocks()) == 3
    assert flushed[0] == len(b"onetwoten")
    assert file.read_bytes() == b"onetwoten"
    assert list(tmp_path.iterdir()) == [file]
