"""Whether a file is where it was opened: each way to take it away, and its clock."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from log.place import Place

SECOND_NS = 1_000_000_000
LONG_NS = 10 * SECOND_NS


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Make a file in a directory of its own."""
    file = tmp_path / "log" / "data"
    file.parent.mkdir()
    file.write_bytes(b"votes")
    return file


def changed_ns(file: Path) -> int:
    """Tell the time of change of a file's directory."""
    return file.parent.stat().st_ctime_ns


def settled(file: Path) -> Place:
    """Give a place that trusts its directory's time from the first look on."""
    place = Place(file, wall_clock_ns=lambda: changed_ns(file) + LONG_NS)
    assert place.is_kept()
    return place


def remove(file: Path) -> None:
    """Remove the file alone."""
    file.unlink()


def remove_directory(file: Path) -> None:
    """Remove the file and its directory."""
    shutil.rmtree(file.parent)


def move(file: Path) -> None:
    """Give the file another name."""
    file.rename(file.with_name("moved"))


def move_directory(file: Path) -> None:
    """Give the directory another name."""
    file.parent.rename(file.parent.with_name("moved"))


def replace(file: Path) -> None:
    """Put another file at its place in one step."""
    copy = file.parent.with_name("copy")
    shutil.copyfile(file, copy)
    copy.rename(file)


def replace_directory(file: Path) -> None:
    """Put a copy of the directory at its place, times and all."""
    away = file.parent.with_name("away")
    file.parent.rename(away)
    shutil.copytree(away, file.parent)
    shutil.copystat(away, file.parent)


TAKE_AWAY = [remove, remove_directory, move, move_directory, replace, replace_directory]


@pytest.mark.parametrize("take_away", TAKE_AWAY)
def test_a_file_taken_away(file: Path, take_away: Callable[[Path], None]) -> None:
    """It is missed at the next look, however long its directory had been quiet."""
    place = settled(file)
    modified_ns = file.parent.stat().st_mtime_ns
    take_away(file)
    if file.parent.exists():
        # As a copy that keeps times, or whoever hides traces, would.
        os.utime(file.parent, ns=(modified_ns, modified_ns))
    assert not place.is_kept()
    assert not place.is_kept()


def test_a_file_put_back(file: Path) -> None:
    """The very same file at its place again is kept."""
    place = settled(file)
    away = file.parent.with_name("away")
    file.rename(away)
    assert not place.is_kept()
    away.rename(file)
    assert place.is_kept()


def test_writing_is_no_change(file: Path) -> None:
    """What is written to the file, or beside it, leaves it in its place."""
    place = settled(file)
    with file.open("ab") as stream:
        stream.write(b"more")
    file.with_name("lock").write_bytes(b"")
    assert place.is_kept()


def test_a_link_whose_target_is_replaced(file: Path) -> None:
    """It is missed though the link's directory has not changed."""
    link = file.parent.with_name("links") / "data"
    link.parent.mkdir()
    link.symlink_to(file)
    place = settled(link)
    replace(file)
    assert not place.is_kept()


def stat_at(stamp_ns: int) -> Callable[[str], os.stat_result]:
    """Make a look at files that says they all changed at one time."""

    def stat(path: str) -> os.stat_result:
        found = Path(path).stat()
        fields = {name: getattr(found, name) for name in dir(found) if "_ns" in name}
        return os.stat_result(tuple(found), fields | {"st_ctime_ns": stamp_ns})

    return stat


@pytest.mark.parametrize(
    ("stamp_ns", "later_ns"),
    [
        (7 * SECOND_NS, 0),
        (7 * SECOND_NS, 2_000_000_000),
        (7 * SECOND_NS + 4_000_000, 0),
        (7 * SECOND_NS + 4_000_000, 100_000_000),
        (7 * SECOND_NS, -SECOND_NS),
    ],
)
def test_two_changes_within_one_tick(file: Path, stamp_ns: int, later_ns: int) -> None:
    """A file that goes in the tick of the change before it is missed."""
    place = Place(file, stat_at(stamp_ns), lambda: stamp_ns + later_ns)
    assert place.is_kept()
    file.unlink()
    assert not place.is_kept()


def test_another_directory_of_the_same_time(file: Path) -> None:
    """It is told from the one before by its identity."""
    place = Place(file, stat_at(7 * SECOND_NS), lambda: 7 * SECOND_NS + LONG_NS)
    assert place.is_kept()
    replace_directory(file)
    assert not place.is_kept()


def test_a_quiet_directory_spares_the_file_a_look(file: Path) -> None:
    """While the directory's time stands still, only the directory is looked at."""
    looks: list[str] = []

    def stat(path: str) -> os.stat_result:
        looks.append(path)
        return Path(path).stat()

    place = Place(file, stat, lambda: changed_ns(file) + LONG_NS)
    assert all(place.is_kept() for _ in range(3))
    assert looks == [str(file), str(file.parent), str(file), *2 * [str(file.parent)]]
