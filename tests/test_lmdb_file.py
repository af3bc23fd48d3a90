"""LMDB's file, looked at before LMDB does: real files of both engines, and damage."""

import struct
from pathlib import Path

import lmdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from log.lmdb_file import (
    META_PAGES,
    PAGE_BYTES_MAX,
    LmdbFileError,
    MetaPage,
    NewerEngineError,
    check_head,
)

COMMITS = 7

# Where the fields of a meta page stand in it (mdb.c, MDB_page and MDB_meta).
FLAGS, MAGIC, VERSION, PAGE_BYTES, LAST_PAGE, TRANSACTION_ID = (
    (10, "<H"),
    (16, "<I"),
    (20, "<I"),
    (40, "<I"),
    (136, "<Q"),
    (144, "<Q"),
)


def write(path: Path, lib_version: int, commits: int) -> bytes:
    """Have LMDB write a file with that many transactions; give its bytes."""
    environment = lmdb.open(str(path), lib_version=lib_version, map_size=1 << 24)
    for number in range(commits):
        with environment.begin(write=True) as transaction:
            transaction.put(b"%d" % number, b"v" * 3000, append=True)
    environment.close()
    return (path / "data.mdb").read_bytes()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Return a file of LMDB 0.9."""
    return write(tmp_path_factory.mktemp("engine-0.9"), 0, COMMITS)


def check(data: bytes) -> MetaPage:
    """Check a whole file's bytes."""
    return check_head(data[: META_PAGES * PAGE_BYTES_MAX], len(data))[1]


def changed(data: bytes, page: int, place: tuple[int, str], value: int) -> bytes:
    """Change one field of a meta page."""
    page_bytes = check(data).page_bytes
    changed = bytearray(data)
    struct.pack_into(place[1], changed, page * page_bytes + place[0], value)
    return bytes(changed)


class TestSound:
    """Files that LMDB wrote."""

    @pytest.mark.parametrize("commits", range(5))
    def test_a_real_file_passes(self, tmp_path: Path, commits: int) -> None:
        """A file of LMDB 0.9 passes, and tells its transactions and its size."""
        data = write(tmp_path, 0, commits)
        newest = check(data)
        assert newest.transaction_id == commits
        assert (newest.last_page + 1) * newest.page_bytes == len(data)

    @pytest.mark.parametrize("is_compact", [False, True])
    def test_a_copy_passes(self, tmp_path: Path, *, is_compact: bool) -> None:
        """What `mdb_copy` makes of a file passes too."""
        (tmp_path / "from").mkdir()
        (tmp_path / "to").mkdir()
        write(tmp_path / "from", 0, COMMITS)
        with lmdb.open(str(tmp_path / "from"), lib_version=0) as environment:
            environment.copy(str(tmp_path / "to"), compact=is_compact)
        newest = check((tmp_path / "to" / "data.mdb").read_bytes())
        assert newest.transaction_id == (1 if is_compact else COMMITS)

    def test_more_bytes_do_not_matter(self, data: bytes) -> None:
        """A file may be longer than its pages: a failed commit leaves it so."""
        assert check(data + bytes(5000)) == check(data)

    @pytest.mark.parametrize("commits", [0, 1, COMMITS])
    def test_the_other_engine_is_told_apart(self, tmp_path: Path, commits: int) -> None:
        """A file of LMDB 1.0 is refused as that, not as damage."""
        data = write(tmp_path, 1, commits)
        with pytest.raises(NewerEngineError, match=r"LMDB 1\.0"):
            check(data)


class TestDamage:
    """Files that LMDB must not be given."""

    def test_every_truncation_is_noticed(self, data: bytes) -> None:
        """A file that lost one byte or more at its end is refused."""
        for size in range(len(data)):
            with pytest.raises(LmdbFileError):
                check(data[:size])

    @pytest.mark.parametrize("page", [0, 1])
    @pytest.mark.parametrize("fill", [b"\0", b"\xff", b"\xab\x42"])
    def test_a_lost_meta_page_is_noticed(
        self, data: bytes, page: int, fill: bytes
    ) -> None:
        """A file with one meta page overwritten is refused, be it the older one."""
        size = check(data).page_bytes
        lost = fill * (size // len(fill))
        with pytest.raises(LmdbFileError, match=f"meta page {page}"):
            check(data[: page * size] + lost + data[(page + 1) * size :])

    @pytest.mark.parametrize("page", [0, 1])
    @pytest.mark.parametrize(
        ("place", "value", "reason"),
        [
            (MAGIC, 0xBEEFC0DF, "is not one of LMDB 0.9"),
            (VERSION, 2, "is not one of LMDB 0.9"),
            (FLAGS, 0xFFF7, "is not one of LMDB 0.9"),
            (PAGE_BYTES, 0, "says pages of 0 bytes"),
            (PAGE_BYTES, 128, "says pages of 128 bytes"),
            (PAGE_BYTES, 4097, "says pages of 4097 bytes"),
            (PAGE_BYTES, 1 << 16, "says pages of 65536 bytes"),
            (PAGE_BYTES, 512, "disagree on the page size|meta page 1"),
            (LAST_PAGE, 1 << 40, "cut short|two transactions in a row"),
            (TRANSACTION_ID, COMMITS + 100, "two transactions in a row"),
            (TRANSACTION_ID, 0, "two transactions in a row"),
        ],
    )
    def test_a_wrong_field_is_noticed(
        self, data: bytes, page: int, place: tuple[int, str], value: int, reason: str
    ) -> None:
        """Each field that LMDB trusts is checked, on both pages."""
        with pytest.raises(LmdbFileError, match=reason):
            check(changed(data, page, place, value))

    @pytest.mark.parametrize("page", [0, 1])
    def test_no_bit_takes_a_transaction_back(self, data: bytes, page: int) -> None:
        """Whatever bit of a meta page flips, the newest transaction stays or it shows.

        LMDB by itself goes back to the one before, without a word, when a bit of a
        transaction's number flips.
        """
        sound = check(data)
        for position in range(page * sound.page_bytes, page * sound.page_bytes + 152):
            for bit in range(8):
                damaged = bytearray(data)
                damaged[position] ^= 1 << bit
                try:
                    found = check(bytes(damaged))
                except LmdbFileError:
                    continue
                assert found.transaction_id == sound.transaction_id

    @pytest.mark.parametrize("page", [0, 1])
    def test_every_flip_of_a_number_is_noticed(self, data: bytes, page: int) -> None:
        """Whatever bit of a transaction's number flips, the file is refused."""
        place = page * check(data).page_bytes + TRANSACTION_ID[0]
        (number,) = struct.unpack_from("<Q", data, place)
        for bit in range(64):
            with pytest.raises(LmdbFileError, match="two transactions in a row"):
                check(changed(data, page, TRANSACTION_ID, number ^ 1 << bit))

    @given(st.binary(max_size=600), st.integers(0, 1 << 20))
    def test_random_bytes_are_refused(self, data: bytes, file_bytes: int) -> None:
        """Bytes that LMDB never wrote raise LmdbFileError, and nothing else."""
        with pytest.raises(LmdbFileError):
            check_head(data, file_bytes)
