"""A file of frames: there whole and flushed, or not at all."""

import os
from pathlib import Path

import pytest

from log.block import Block, Records, Tail
from log.errors import DirectoryError
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
    [file_bytes, _directory] = flushed
    assert file_bytes == len(b"onetwoten")
    assert file.read_bytes() == b"onetwoten"
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("there", "it is there already"),
        ("link", "it is there already"),
        ("none/archive", "does not exist; make it first"),
        ("n" * 300, "it cannot be written: File name too long"),
    ],
)
def test_a_name_that_cannot_be(tmp_path: Path, name: str, said: str) -> None:
    """A name that is taken, has no directory, or is none, is refused."""
    (tmp_path / "there").touch()
    (tmp_path / "link").symlink_to("nothing")
    with pytest.raises(DirectoryError, match=said):
        Archive(tmp_path / name, frames).check()


def test_a_directory_that_went_away(tmp_path: Path) -> None:
    """What cannot be written is told by its name and the cause."""
    with pytest.raises(DirectoryError, match="cannot be written: No such file"):
        Archive(tmp_path / "none" / "archive", frames).write(blocks())
