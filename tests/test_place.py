"""How a command opens DATA_DIR: hints at what was meant, manners beside a server."""

import contextlib
import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from alphabet.commands.run import run as run_server
from log import directory
from log.directory import DataDirectory
from log.lmdb_store import LOCK_FILE
from log.store import BLOCKS, Change
from log.tree_store import TreeStore
from recovery import priority
from recovery.cli import main
from recovery.commands.place import DATA_DIR_DEFAULT, hint, is_offline, opened
from recovery.priority import find_server
from tests.machines import flip_middle, key, write_votes
from tests.process import ROOT, SECONDS_MAX, environment

TELL_PRIORITY = """
import os
from recovery.replay import Replayer
from recovery.cli import run_program
recover = Replayer.recover
def recover_telling(self, *words):
    print(os.nice(0), flush=True)
    return recover(self, *words)
Replayer.recover = recover_telling
run_program()
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the working directory, with a data directory `kept` in it."""
    monkeypatch.chdir(tmp_path)
    write_votes(tmp_path / "kept", snapshots=[10])
    return tmp_path


@pytest.fixture
def claimed(place: Path) -> Iterator[Path]:
    """Return a data directory that a server has: this process."""
    server = DataDirectory.claim(place / "kept")
    yield place / "kept"
    server.release()


class TestHints:
    """A place that holds no log."""

    def check(
        self, capfd: pytest.CaptureFixture[str], data_dir: object, said: str
    ) -> None:
        """Fail unless a directory is refused with this, in one line."""
        assert main(["info", str(data_dir)]) == 3
        line = f"alphabet-replay: DATA_DIR {data_dir}: {said}\n"
        assert capfd.readouterr() == ("", line)

    def test_what_is_there_is_said(
        self, place: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        """Nothing, a file, something below a file, and an empty directory differ."""
        (place / "file").touch()
        (place / "empty").mkdir()
        hint = f"; did you mean {place / 'kept'}?"
        self.check(capfd, "none", "no such directory")
        self.check(capfd, "none/below", "no such directory")
        self.check(capfd, "file", "it is not a directory")
        self.check(capfd, "file/below", "it is not a directory")
        self.check(capfd, "empty", "there is no log in it")
        self.check(capfd, "n" * 300, "it cannot be used: File name too long")
        self.check(capfd, place, f"there is no log in it{hint}")

    @pytest.mark.parametrize(
        ("data_dir", "said"),
        [
            ("kept/log", "there is no log in it"),
            ("kept/snapshots", "there is no log in it"),
            ("kept/log/data.mdb", "it is not a directory"),
            ("kept/server.lock", "it is not a directory"),
            (".", "there is no log in it"),
        ],
    )
    def test_what_is_near_is_named(
        self, place: Path, capfd: pytest.CaptureFixture[str], data_dir: str, said: str
    ) -> None:
        """The data directory above or below the one that was given is named."""
        assert place.is_dir()
        self.check(capfd, data_dir, f"{said}; did you mean kept?")

    def test_the_default_is_named(
        self, place: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        """Where nothing is near, the server's default is, if it is there."""
        write_votes(place / DATA_DIR_DEFAULT)
        self.check(
            capfd, "none", f"no such directory; did you mean {DATA_DIR_DEFAULT}?"
        )

    def test_the_default_is_the_servers(self) -> None:
        """What counts as the default is what `alphabet run` takes."""
        [option] = [each for each in run_server.params if each.name == "data_dir"]
        assert isinstance(option, click.Option)
        assert option.default == str(DATA_DIR_DEFAULT)

    def test_of_what_is_there_nothing_else_is_meant(self, place: Path) -> None:
        """No other place is named for one that holds a log."""
        assert hint(place / "kept") == ""


def test_what_can_be_reached_is_opened(place: Path) -> None:
    """A file that LMDB must not read is opened all the same, past LMDB."""
    with contextlib.closing(DataDirectory(place / "kept").open_log()) as log:
        value = log.store.get(BLOCKS, key(7))
        assert value is not None
        log.store.commit([Change(BLOCKS, key(7), flip_middle(value))], 0)
    with opened(place / "kept", needs_machine=False, is_file_damaged=True) as found:
        assert isinstance(found.log.store, TreeStore)
        sound = itertools.islice(found.log.read(0), 3)
        assert [block.last_sequence for block in sound] == [3, 5, 6]


def test_offline_takes_no_lock(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """With --offline LMDB's list of readers is not touched, and not made."""
    lock = place / "kept" / "log" / LOCK_FILE
    lock.unlink()
    assert main(["info", "kept", "--offline"]) == 0
    assert not lock.exists()
    assert main(["info", "kept"]) == 0
    assert lock.exists()
    assert "events: 10" in capfd.readouterr().out


def test_offline_is_asked_for(place: Path) -> None:
    """Who opens a log from no command has not asked to be offline."""
    assert is_offline() is False
    with opened(place / "kept", needs_machine=False) as found:
        assert found.log.tail.sequence == 10


class TestPriority:
    """Beside a server, others go first."""

    def told(self, data_dir: Path) -> int:
        """Run a command as a program; give the niceness that it works at."""
        done = subprocess.run(
            [sys.executable, "-P", "-c", TELL_PRIORITY, "state", data_dir],
            cwd=ROOT,
            env=environment({}),
            stdout=subprocess.PIPE,
            text=True,
            timeout=SECONDS_MAX,
            check=True,
        )
        return int(done.stdout.splitlines()[0])

    def test_beside_a_server(self, claimed: Path) -> None:
        """While a server has the directory, a command works at a low priority."""
        assert self.told(claimed) == priority.NICE

    def test_alone(self, place: Path) -> None:
        """Where no server is running, it works as any other program."""
        assert self.told(place / "kept") == os.nice(0)

    def test_only_a_program(
        self, claimed: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        """A process that runs a command among other things keeps its priority."""
        before = os.nice(0)
        assert main(["info", str(claimed)]) == 0
        assert "events: 10" in capfd.readouterr().out
        assert os.nice(0) == before

    def test_which_words_count(self, claimed: Path, tmp_path: Path) -> None:
        """Of a command's words, a directory that a server has counts alone."""
        (tmp_path / "file").touch()
        others = ["state", "--json", "", "no\0name", str(tmp_path / "file"), "."]
        assert find_server(others) is None
        assert find_server([*others, str(claimed)]) == os.getpid()

    def test_the_lock_is_the_servers(self) -> None:
        """The lock that is looked at is the one that a server takes."""
        assert priority.LOCK == directory.LOCK
