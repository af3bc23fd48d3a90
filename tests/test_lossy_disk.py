"""A disk that loses power keeps what was flushed, and of the rest what it likes."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.lossy_disk import SECTOR_BYTES, SHARES, Loss, LossyDisk, Share, choose
from tests.system_calls import (
    Flushed,
    Made,
    Operation,
    Removed,
    Renamed,
    Resized,
    Written,
)

NONE = Loss("none", "none", is_grown=False)
ALL = Loss("all", "all", is_grown=True)
SECTOR = bytes([1]) * SECTOR_BYTES
NAMES = ["a", "b", "d/a"]

shares = st.sampled_from(SHARES)
losses = st.builds(Loss, shares, shares, is_grown=st.booleans())


def left(*done: Operation, loss: Loss = NONE, seed: int = 0) -> dict[str, bytes | None]:
    """Give what is left of what was done."""
    disk = LossyDisk()
    for operation in done:
        disk.take(operation)
    return disk.survivors(loss, random.Random(seed))


def made(path: str) -> Made:
    """Make a file."""
    return Made(path, is_directory=False)


def durable(path: str, data: bytes) -> list[Operation]:
    """Make a file below the root, write it, and flush both."""
    return [made(path), Written(path, 0, data), Flushed(path), Flushed(".")]


class TestChoice:
    """Which changes reach the disk."""

    @given(share=shares, count=st.integers(0, 20), seed=st.integers(0, 99))
    def test_each_share_is_what_it_says(
        self, share: Share, count: int, seed: int
    ) -> None:
        """Corners are exact, and the first ones have no gap."""
        chosen = choose(share, count, random.Random(seed))
        assert len(chosen) == count
        expected = {
            "none": 0,
            "all": count,
            "all but one": max(count - 1, 0),
            "the last": min(count, 1),
        }
        if share in expected:
            assert sum(chosen) == expected[share]
        if share == "the last" and count:
            assert chosen[-1]
        if share == "first":
            assert chosen == sorted(chosen, reverse=True)


class TestFiles:
    """What becomes of bytes."""

    def test_what_was_flushed_stays(self) -> None:
        """Bytes are there if file and directory were flushed, and only then."""
        done: list[Operation] = [made("a"), Written("a", 0, b"x")]
        file, names = Flushed("a"), Flushed(".")
        assert left(*done, file, names) == {"a": b"x"}
        assert left(*done, names) == {"a": b""}
        assert left(*done, file) == {}

    def test_later_writes_may_be_lost(self) -> None:
        """What was written behind a flush is there or not, as the disk likes."""
        done: list[Operation] = [
            made("a"),
            Written("a", 0, b"x"),
            Flushed("a"),
            Flushed("."),
        ]
        assert left(*done, Written("a", 0, b"y")) == {"a": b"x"}
        assert left(*done, Written("a", 0, b"y"), loss=ALL) == {"a": b"y"}

    def test_a_write_is_lost_by_sectors(self) -> None:
        """Of one write, a later sector may reach the disk without an earlier one."""
        done: list[Operation] = [made("a"), Flushed("."), Written("a", 100, SECTOR * 2)]
        loss = Loss("the last", "none", is_grown=False)
        rest = bytes(2 * SECTOR_BYTES) + SECTOR[:100]
        assert left(*done, loss=loss) == {"a": rest}

    def test_a_file_may_grow_without_its_bytes(self) -> None:
        """Its length reaches the disk, and zeros are there."""
        done: list[Operation] = [made("a"), Flushed("."), Written("a", 0, b"xyz")]
        grown = Loss("none", "none", is_grown=True)
        assert left(*done, loss=grown) == {"a": b"\0\0\0"}

    def test_a_cut_may_be_lost(self) -> None:
        """A file that was cut is long or short; a flush makes it short."""
        done: list[Operation] = [
            made("a"),
            Written("a", 0, b"xyz"),
            Flushed("a"),
            Flushed("."),
        ]
        cut = Resized("a", 1)
        assert left(*done, cut) == {"a": b"xyz"}
        assert left(*done, cut, loss=ALL) == {"a": b"x"}
        assert left(*done, cut, Flushed("a")) == {"a": b"x"}

    def test_the_flush_of_a_stretch_covers_no_more(self) -> None:
        """A synchronous write makes its own sectors durable, not those before it."""
        done: list[Operation] = [made("a"), Flushed("."), Written("a", 0, SECTOR)]
        done += [Written("a", SECTOR_BYTES, b"x")]
        done += [Flushed("a", range(SECTOR_BYTES, SECTOR_BYTES + 1))]
        assert left(*done) == {"a": bytes(SECTOR_BYTES) + b"x"}

    def test_the_flush_of_a_stretch_behind_a_cut_is_refused(self) -> None:
        """What the model does not know is an error."""
        with pytest.raises(ValueError, match="not understood"):
            left(made("a"), Resized("a", 0), Flushed("a", range(1)))

    def test_a_mapped_file_may_hold_anything(self) -> None:
        """The bytes of LMDB's lock file are not those that were flushed."""
        done: list[Operation] = [made("lock.mdb"), Resized("lock.mdb", 64)]
        done += [Flushed("lock.mdb"), Flushed(".")]
        found = left(*done)["lock.mdb"]
        assert found is not None
        assert len(found) == 64
        assert found != bytes(64)


class TestNames:
    """What becomes of names."""

    def test_a_renaming_is_whole_or_not_at_all(self) -> None:
        """One of the two names is there, and the new one if it was flushed."""
        done: list[Operation] = [
            made("a"),
            Written("a", 0, b"x"),
            Flushed("a"),
            Flushed("."),
        ]
        renamed = Renamed("a", "b")
        assert left(*done, renamed) == {"a": b"x"}
        assert left(*done, renamed, loss=ALL) == {"b": b"x"}
        assert left(*done, renamed, Flushed(".")) == {"b": b"x"}

    def test_a_removal_may_be_lost(self) -> None:
        """A file that was removed is there again, unless its directory was flushed."""
        done: list[Operation] = [made("a"), Flushed(".")]
        assert left(*done, Removed("a")) == {"a": b""}
        assert left(*done, Removed("a"), Flushed(".")) == {}

    def test_each_directory_is_flushed_by_itself(self) -> None:
        """A file's name needs its own directory's flush, and that one its parent's."""
        done: list[Operation] = [Made("d", is_directory=True), made("d/a")]
        assert left(*done, Flushed("d")) == {}
        assert left(*done, Flushed(".")) == {"d": None}
        assert left(*done, Flushed("d"), Flushed(".")) == {"d": None, "d/a": b""}

    def test_what_is_there_is_not_made_again(self) -> None:
        """Opening a file that may be made leaves the one that is there."""
        done: list[Operation] = [
            made("a"),
            Written("a", 0, b"x"),
            Flushed("a"),
            Flushed("."),
        ]
        assert left(*done, made("a")) == {"a": b"x"}


operations = st.one_of(
    st.builds(made, st.sampled_from(NAMES)),
    st.builds(
        Written, st.sampled_from(NAMES), st.integers(0, 1500), st.binary(max_size=1200)
    ),
    st.builds(Resized, st.sampled_from(NAMES), st.integers(0, 2000)),
    st.builds(Flushed, st.sampled_from([*NAMES, ".", "d"])),
)


@given(done=st.lists(operations, max_size=12), loss=losses, seed=st.integers(0, 99))
def test_with_everything_flushed_nothing_is_lost(
    done: list[Operation], loss: Loss, seed: int
) -> None:
    """Behind flushes of all files and directories, every loss leaves what was done."""
    first = [Made("d", is_directory=True), *map(made, NAMES)]
    expected = {name: bytearray() for name in NAMES}
    for each in done:
        match each:
            case Written(path, offset, data) if data:
                content = expected[path]
                content.extend(bytes(max(offset + len(data) - len(content), 0)))
                content[offset : offset + len(data)] = data
            case Resized(path, file_bytes):
                del expected[path][file_bytes:]
                expected[path].extend(bytes(file_bytes - len(expected[path])))
            case _:
                pass
    flushes = [Flushed(path) for path in [*NAMES, "d", "."]]
    survivors = left(*first, *done, *flushes, loss=loss, seed=seed)
    assert survivors == {**expected, "d": None}
