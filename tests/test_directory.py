"""The data directory: who may claim it, and how a log comes into it."""

import os
import shutil
import signal
import stat
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from log import failpoint
from log.directory import CONTENTS, LOCK, LOG, LOG_NEW, SNAPSHOTS, DataDirectory
from log.errors import DirectoryError, LockedError, LogError
from log.lmdb_store import DATA_FILE, LOCK_FILE, LmdbStore
from log.log import Transaction
from tests import samples
from tests.permissions import STRANGER, needs_root
from tests.process import PYTHON, ROOT, child, environment, finish
from tests.samples import META

CREATION = (
    "create.before_log",
    "commit.before_flush",
    "commit.after_flush",
    "create.before_rename",
    "create.after_rename",
    "create.after_flush",
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where a data directory shall be."""
    return tmp_path / "data"


@pytest.fixture
def directory(path: Path) -> Iterator[DataDirectory]:
    """Return a new data directory, claimed."""
    directory = DataDirectory.claim(path)
    yield directory
    directory.release()


def refusal(path: Path) -> str:
    """Return why a directory cannot be claimed: one line that begins with its path."""
    with pytest.raises(LogError) as caught:
        DataDirectory.claim(path)
    line = str(caught.value)
    assert line.startswith(str(path))
    assert "\n" not in line
    return line.removeprefix(str(path))


class TestClaim:
    """Taking a directory for one server."""

    def test_a_missing_one_is_made(self, path: Path, directory: DataDirectory) -> None:
        """A directory that was not there is there, with the lock in it alone."""
        assert [entry.name for entry in path.iterdir()] == [LOCK]
        assert (path / LOCK).read_text() == f"{os.getpid()}\n"
        assert not directory.has_log()

    def test_its_own_contents_are_welcome(self, path: Path) -> None:
        """A directory that holds what belongs there is taken."""
        path.mkdir()
        for name in CONTENTS - {LOCK}:
            (path / name).mkdir()
        DataDirectory.claim(path).release()

    def test_it_holds_something_else(self, path: Path) -> None:
        """A directory with a stranger in it is refused, and left as it is."""
        path.mkdir()
        (path / "holiday.jpg").touch()
        assert refusal(path) == (
            ": it holds 'holiday.jpg'; choose an empty or new directory"
        )
        assert [entry.name for entry in path.iterdir()] == ["holiday.jpg"]

    def test_its_parent_is_missing(self, tmp_path: Path) -> None:
        """A parent is never made."""
        path = tmp_path / "missing" / "data"
        assert (
            refusal(path) == f": its parent {path.parent} does not exist; make it first"
        )
        assert list(tmp_path.iterdir()) == []

    def test_it_is_a_file(self, path: Path) -> None:
        """A file is refused as that."""
        path.touch()
        assert refusal(path) == ": it is not a directory"

    def test_its_parent_is_a_file(self, path: Path) -> None:
        """A path below a file is refused, and the file is named."""
        path.touch()
        below = path / "below"
        assert refusal(below) == f": its parent {path} is not a directory"

    def test_it_may_not_be_made(self) -> None:
        """A place where the system makes no directories is refused.

        Not even root may make one in /sys.
        """
        assert refusal(Path("/sys/alphabet-test")).startswith(": it cannot be used: ")

    def test_its_name_is_too_long(self, tmp_path: Path) -> None:
        """A name that the system does not take is refused."""
        assert (
            refusal(tmp_path / ("d" * 300)) == ": it cannot be used: File name too long"
        )

    def test_it_may_not_be_written(self, path: Path) -> None:
        """An empty directory of a read-only file system is refused."""
        path.mkdir()
        mount = 'mount -t tmpfs -o ro,size=64k none "$0" && exec "$@"'
        command = ["unshare", "--map-root-user", "--mount", "sh", "-c", mount]
        done = subprocess.run(
            [*command, path, *PYTHON, "tests.children", "create", path],
            cwd=ROOT,
            env=environment({}),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 1
        reason = f"{path}: it cannot be used: Read-only file system"
        assert done.stderr.splitlines()[-1].endswith(reason)


class TestLock:
    """One server for a directory."""

    def test_another_server_has_it(self, path: Path) -> None:
        """A directory in use is refused and the server named, until that one dies."""
        process = subprocess.Popen(
            [*PYTHON, "tests.children", "claim", path],
            cwd=ROOT,
            env=environment({}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        with process:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            try:
                assert refusal(path) == (
                    f" is in use by server {process.pid}; "
                    "stop it or choose another directory"
                )
            finally:
                process.kill()
        DataDirectory.claim(path).release()

    def test_one_process_has_it_once(
        self, path: Path, directory: DataDirectory
    ) -> None:
        """A second claim in one process is refused, until the first is released."""
        with pytest.raises(LockedError) as caught:
            DataDirectory.claim(path)
        assert caught.value.pid == os.getpid()
        directory.release()
        DataDirectory.claim(path).release()

    def test_it_is_seen(self, path: Path, directory: DataDirectory) -> None:
        """Anybody who may look sees whether a server has a directory."""
        assert DataDirectory(path).is_served() is True
        directory.release()
        assert DataDirectory(path).is_served() is False
        (path / LOCK).unlink()
        assert DataDirectory(path).is_served() is False

    def test_who_may_not_look_does_not_know(self, path: Path) -> None:
        """Where the lock file cannot be looked at, nothing is known."""
        path.mkdir()
        (path / LOCK).symlink_to(LOCK)
        assert DataDirectory(path).is_served() is None

    def test_a_look_keeps_no_server_out(
        self, path: Path, directory: DataDirectory
    ) -> None:
        """However often somebody looks, a server that starts gets its directory."""
        directory.release()
        is_over = threading.Event()

        def look() -> None:
            while not is_over.is_set():
                DataDirectory(path).is_served()

        looking = threading.Thread(target=look)
        looking.start()
        try:
            for _ in range(100):
                DataDirectory.claim(path).release()
        finally:
            is_over.set()
            looking.join()

    def test_an_unreadable_lock_still_locks(
        self, path: Path, directory: DataDirectory
    ) -> None:
        """Where the lock file does not tell the pid, the directory is in use still."""
        assert directory.path == path
        (path / LOCK).write_text("somebody")
        assert refusal(path).startswith(" is in use by another server;")


class TestCreate:
    """A log appears whole, or not at all."""

    def test_a_log_is_made(self, directory: DataDirectory) -> None:
        """A log that was made is there, open to be read and written."""
        with directory.new_log(META) as log:
            log.commit(Transaction(blocks=tuple(samples.chain([b"a"]))))
            assert not directory.has_log()
        again = directory.open_log()
        assert (again.meta, again.tail.sequence) == (META, 1)
        samples.append(again, [b"b"])
        assert again.tail.sequence == 2
        again.close()

    def test_a_base_goes_along(self, directory: DataDirectory) -> None:
        """A log may begin at a base, with the state there."""
        meta = attrs.evolve(META, base_sequence=7)
        with directory.new_log(meta, b"state"):
            pass
        log = directory.open_log(is_read_only=True)
        assert (log.base.sequence, log.base_state()) == (7, b"state")
        log.close()

    @pytest.mark.parametrize("instant", CREATION)
    def test_a_crash_leaves_a_log_or_none(self, path: Path, instant: str) -> None:
        """Wherever its creator dies, the next start has a sound log, at once or made.

        The creator is a real process, ended by SIGKILL.
        """
        variables = {failpoint.VARIABLE: instant}
        done = finish("tests.children", "create", path, variables=variables)
        assert done.code == -signal.SIGKILL
        directory = DataDirectory.claim(path)
        is_named = instant in {"create.after_rename", "create.after_flush"}
        assert directory.has_log() == is_named
        assert (path / LOG_NEW).exists() != is_named
        if not is_named:
            with directory.new_log(META):
                pass
        log = directory.open_log()
        assert (log.meta.application, log.tail.sequence) == ("Alphabet", 0)
        log.close()
        assert {entry.name for entry in path.iterdir()} == {LOG, LOCK}
        directory.release()

    def test_every_instant_is_tested(
        self, directory: DataDirectory, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Creation reaches the instants above, in that order, and no others."""
        reached: list[str] = []
        monkeypatch.setattr(failpoint, "handler", reached.append)
        with directory.new_log(META):
            pass
        assert tuple(reached) == CREATION

    def test_everything_is_flushed_before_it_counts(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Names and contents are flushed in the order that a power failure demands.

        The directory in its parent first, then the log's file and names, and after
        it has been renamed, its name.
        """
        events: list[str] = []
        real = os.fsync

        def flush(descriptor: int) -> None:
            real(descriptor)
            events.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))

        monkeypatch.setattr(os, "fsync", flush)
        monkeypatch.setattr(failpoint, "handler", events.append)
        directory = DataDirectory.claim(path)
        with directory.new_log(META):
            pass
        directory.release()
        assert events == [
            str(path),
            str(path.parent),
            "create.before_log",
            "commit.before_flush",
            "commit.after_flush",
            str(path / LOG_NEW / DATA_FILE),
            str(path / LOG_NEW),
            "create.before_rename",
            "create.after_rename",
            str(path),
            "create.after_flush",
        ]

    def test_a_failure_leaves_no_log(self, directory: DataDirectory) -> None:
        """What fails while a log is made leaves none, and can be tried again."""

        def fail() -> None:
            with directory.new_log(META):
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            fail()
        assert not directory.has_log()
        with directory.new_log(META):
            pass
        assert directory.has_log()

    def test_a_log_that_cannot_be_brought_in_is_told(
        self, path: Path, directory: DataDirectory
    ) -> None:
        """A log that was taken away while it was made is a failure, and no log."""
        with (
            pytest.raises(DirectoryError, match=r"log\.new: No such file"),
            directory.new_log(META),
        ):
            shutil.rmtree(path / LOG_NEW)
        assert not directory.has_log()

    def test_no_file_is_left_open(self, path: Path) -> None:
        """Once a log is made and its directory released, nothing of it is open."""
        directory = DataDirectory.claim(path)
        with directory.new_log(META):
            pass
        directory.release()
        links = [
            file.readlink()
            for file in Path("/proc/self/fd").iterdir()
            if file.is_symlink()
        ]
        assert not [link for link in links if link.is_relative_to(path.parent)]

    def test_a_left_over_is_removed(self, path: Path, directory: DataDirectory) -> None:
        """What an earlier try left behind is gone, whatever it was."""
        (path / LOG_NEW).mkdir()
        (path / LOG_NEW / DATA_FILE).write_bytes(b"half a log")
        (path / LOG_NEW / "more").mkdir()
        with directory.new_log(META):
            pass
        assert {entry.name for entry in (path / LOG).iterdir()} == {
            DATA_FILE,
            "lock.mdb",
        }

    def test_a_log_is_never_made_over_another(self, directory: DataDirectory) -> None:
        """Where a log is, none is made."""
        with directory.new_log(META):
            pass
        with (
            pytest.raises(DirectoryError, match="it already holds a log"),
            directory.new_log(META),
        ):
            pass

    def test_files_are_the_owners_alone(self, path: Path) -> None:
        """Nobody else may read or enter what is made, whatever the umask."""
        before = os.umask(0)
        try:
            directory = DataDirectory.claim(path)
            with directory.new_log(META):
                pass
            directory.release()
        finally:
            os.umask(before)
        modes = {
            entry.name: stat.S_IMODE(entry.stat().st_mode)
            for entry in (path, *path.rglob("*"))
        }
        assert modes == {
            "data": 0o700,
            LOCK: 0o600,
            LOG: 0o700,
            DATA_FILE: 0o600,
            "lock.mdb": 0o600,
        }


class TestOpen:
    """Opening the log that is there."""

    def test_there_is_none(self, directory: DataDirectory) -> None:
        """A directory without a log says so."""
        with pytest.raises(DirectoryError, match="there is no log in it"):
            directory.open_log()

    def test_there_is_no_directory(self, path: Path) -> None:
        """A missing directory says so, and is not made."""
        with pytest.raises(DirectoryError, match="no such directory"):
            DataDirectory(path).open_log(is_read_only=True)
        assert not path.exists()

    def test_there_is_no_data_file(self, path: Path) -> None:
        """A log without its file says so, and not that there is no leave."""
        (path / LOG).mkdir(parents=True)
        with pytest.raises(DirectoryError, match=r"data\.mdb: No such file"):
            DataDirectory(path).open_log(is_read_only=True)

    def test_it_is_a_file(self, path: Path) -> None:
        """A file in the directory's place is told from a directory without a log."""
        path.touch()
        with pytest.raises(DirectoryError, match="it is not a directory"):
            DataDirectory(path).open_log()

    def test_a_server_frees_dead_readers_slots(self, directory: DataDirectory) -> None:
        """A log that is opened to be written holds no pages for readers that died."""
        with directory.new_log(META):
            pass
        words = ("readers", directory.log_path, 1)
        # One that lives: LMDB clears the slots itself where nobody else is there.
        with child(*words), child(*words) as process:
            process.kill()
            process.wait()
            log = directory.open_log()
            assert isinstance(log.store, LmdbStore)
            assert log.store.drop_dead_readers() == 0
            log.close()

    def test_a_reader_alone_leaves_no_lock_file(self, path: Path) -> None:
        """On the operator's word that no server runs, nothing is written to read."""
        directory = DataDirectory.claim(path)
        with directory.new_log(META):
            pass
        (path / LOG / LOCK_FILE).unlink()
        with pytest.raises(DirectoryError, match="leave --offline out"):
            directory.open_log(is_read_only=True, is_offline=True)
        directory.release()
        directory.open_log(is_read_only=True, is_offline=True).close()
        assert not (path / LOG / LOCK_FILE).exists()
        directory.open_log(is_read_only=True).close()
        assert (path / LOG / LOCK_FILE).exists()

    @needs_root
    @pytest.mark.parametrize("is_read_only", [True, False])
    def test_root_makes_no_lock_file_of_its_own(
        self, directory: DataDirectory, *, is_read_only: bool
    ) -> None:
        """A lock file that root had to make belongs to the log's owner."""
        with directory.new_log(META):
            pass
        lock = directory.log_path / LOCK_FILE
        lock.unlink()
        os.chown(directory.log_path / DATA_FILE, STRANGER, STRANGER)
        directory.open_log(is_read_only=is_read_only).close()
        found = lock.stat()
        lock.unlink()
        directory.inspect_file()
        assert lock.stat().st_uid == STRANGER
        assert (found.st_uid, found.st_gid) == (STRANGER, STRANGER)
        assert stat.S_IMODE(found.st_mode) == 0o600

    @pytest.mark.parametrize("name", [DATA_FILE, LOCK_FILE])
    def test_a_file_that_may_not_be_written_is_named(
        self, directory: DataDirectory, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        """A server that may read a file and not write it says which, and what to do."""
        with directory.new_log(META):
            pass
        real = os.access

        def access(path: Path, mode: int) -> bool:
            return real(path, mode) and not (path.name == name and mode & os.W_OK)

        monkeypatch.setattr(os, "access", access)
        with pytest.raises(DirectoryError, match=rf"write {name}, of user .*chown -R"):
            directory.open_log()

    def test_a_failure_lets_go(self, directory: DataDirectory) -> None:
        """A log that cannot be opened is not left open: it can be looked at again."""
        with directory.new_log(META) as log:
            log.commit(Transaction(meta=attrs.evolve(META, engine="other")))
        for _ in range(2):
            with pytest.raises(LogError, match="engine other"):
                directory.open_log()

    def test_places(self, path: Path) -> None:
        """Log and snapshots are where the module says."""
        directory = DataDirectory(path)
        assert directory.log_path == path / LOG
        assert directory.snapshots_path == path / SNAPSHOTS
