"""`--offline`: reading where a server could not know of it."""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from log.directory import LOCK, DataDirectory
from log.lmdb_store import DATA_FILE, LOCK_FILE
from recovery.cli import replay
from tests.machines import LOTS, write_votes
from tests.permissions import (
    STRANGER,
    needs_root,
    of_a_stranger,
    on_read_only_medium,
    read_only,
    unprivileged,
)
from tests.process import Finished, finish, serving, submit
from tests.process import replay as run
from tests.votes import tally, wire

VOTES = [vote for lot in LOTS for vote in lot]
HOW = [("state --json", True), ("verify", False), ("compact", False)]
"""A command, and whether it does without LMDB's lock file there."""

MAY_NOT_WRITE = (
    "no leave to write lock.mdb, by which a server learns of readers: {way}, or pass "
    "--offline if no server is running on it"
)
OUR_WAY = "give yourself leave (chmod -R u+rwX)"
THEIR_WAY = f"become user {STRANGER}"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Return a data directory of ten votes, with snapshots."""
    return write_votes(tmp_path / "data", snapshots=[3, 10]).path


@pytest.fixture
def claimed(data: Path) -> Iterator[Path]:
    """Return a data directory that a server has: this process."""
    directory = DataDirectory.claim(data)
    yield data
    directory.release()


def contents(path: Path) -> dict[str, str]:
    """Give a hash of every file under a path."""
    return {
        str(file.relative_to(path)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(path.rglob("*"))
        if file.is_file()
    }


def check_refused(done: Finished, data: Path, reason: str) -> None:
    """Fail unless a command has refused a directory in one line, with exit code 3."""
    line = f"alphabet-replay: DATA_DIR {data}: {reason}\n"
    assert done == Finished(3, "", line)


def words_of(command: str, data: Path) -> list[object]:
    """Give a command's words; what it writes goes beside the data."""
    to = [data.parent / "to"] if command == "compact" else []
    return [*command.split(), data, *to]


@contextlib.contextmanager
def without_lock_file(data: Path, *, is_without: bool) -> Iterator[None]:
    """Remove LMDB's lock file, if asked to; fail if it is there afterwards, or gone."""
    lock = data / "log" / LOCK_FILE
    if is_without:
        lock.unlink()
    yield
    assert lock.exists() != is_without


class TestReadOnlyMedium:
    """Where nobody can write, no server is: nothing needs to be said."""

    @pytest.mark.parametrize(("command", "is_without"), HOW)
    def test_everything_works(
        self, data: Path, command: str, *, is_without: bool
    ) -> None:
        """Every command works as it is, with LMDB's lock file or without."""
        with without_lock_file(data, is_without=is_without):
            before = contents(data)
            done = on_read_only_medium(data, *words_of(command, data))
            assert (done.code, done.stderr.count("Error")) == (0, 0), done
            assert contents(data) == before
        if "json" in command:
            assert json.loads(done.stdout)["totals"] == tally(VOTES)

    def test_the_server_may_run_elsewhere(self, claimed: Path) -> None:
        """A medium that is read-only only here is refused while a server has it."""
        way = OUR_WAY if os.geteuid() == 0 else "become"
        for words in ([], ["--offline"]):
            done = on_read_only_medium(claimed, "state", claimed, *words)
            assert done.code == 3
            assert "a server is running on it, and reading beside it" in done.stderr
            assert way in done.stderr

    @needs_root
    def test_a_server_may_run_unseen(self, data: Path) -> None:
        """Where the server's lock may not be looked at, our word is needed."""
        with of_a_stranger(data):
            (data / LOCK).chmod(0o600)
            done = on_read_only_medium(data, "state", data)
            assert done.code == 3
            assert "or pass --offline" in done.stderr
            assert on_read_only_medium(data, "state", data, "--offline").code == 0


class TestNoLeaveToWrite:
    """Where a server could run, and could not know of us."""

    @pytest.mark.parametrize(("command", "is_without"), HOW)
    def test_our_word_is_needed(
        self, data: Path, command: str, *, is_without: bool
    ) -> None:
        """A copy without leave to write is refused, and read with --offline."""
        with (
            without_lock_file(data, is_without=is_without),
            read_only(data),
        ):
            before = contents(data)
            words = words_of(command, data)
            check_refused(unprivileged(*words), data, MAY_NOT_WRITE.format(way=OUR_WAY))
            done = unprivileged(*words, "--offline")
            assert done.code == 0, done
            assert contents(data) == before
        if "json" in command:
            assert json.loads(done.stdout)["totals"] == tally(VOTES)

    def test_the_environment_may_give_it(self, data: Path) -> None:
        """As every option, it may be a variable."""
        with read_only(data):
            done = unprivileged("info", data, variables={"ALPHABET_OFFLINE": "1"})
        assert done.code == 0

    @needs_root
    def test_the_other_user_is_named(self, data: Path) -> None:
        """A directory of another user is refused with who that is."""
        with of_a_stranger(data):
            done = unprivileged("verify", data)
            check_refused(done, data, MAY_NOT_WRITE.format(way=THEIR_WAY))
            assert unprivileged("verify", data, "--offline").code == 0

    @needs_root
    def test_a_server_may_run_unseen(self, data: Path) -> None:
        """So is one whose server's lock may not be looked at.

        Beside its server no word helps: the log's file, which it holds too, tells.
        """
        directory = DataDirectory.claim(data)
        with of_a_stranger(data):
            (data / LOCK).chmod(0o600)
            for words in ([], ["--offline"]):
                done = unprivileged("verify", data, *words)
                assert "a server is running on it, and reading beside" in done.stderr
                assert done.code == 3
            directory.release()
            done = unprivileged("verify", data)
            check_refused(done, data, MAY_NOT_WRITE.format(way=THEIR_WAY))
            assert unprivileged("verify", data, "--offline").code == 0

    @needs_root
    def test_the_lock_file_is_enough(self, data: Path) -> None:
        """Who may write LMDB's lock file needs nothing else."""
        with of_a_stranger(data):
            (data / LOCK).chmod(0o600)
            (data / "log" / LOCK_FILE).chmod(0o666)
            assert unprivileged("verify", data).code == 0


class TestNoLeaveToRead:
    """Where nothing can be seen."""

    @pytest.mark.parametrize("hidden", ["", "log", f"log/{DATA_FILE}"])
    def test_our_own(self, data: Path, hidden: str) -> None:
        """What is ours, and closed to us, is told with the remedy."""
        place = data / hidden
        mode = place.stat().st_mode
        place.chmod(0)
        try:
            done = unprivileged("state", data, "--offline")
            reason = "no leave to read it: give yourself leave (chmod -R u+rX)"
            check_refused(done, data, reason)
        finally:
            place.chmod(mode)

    @needs_root
    @pytest.mark.parametrize("command", ["verify", "state", "info", "snapshots"])
    def test_snapshots(self, data: Path, command: str) -> None:
        """Snapshots that may not be read are not taken for none."""
        (data / "snapshots").chmod(0)
        done = unprivileged(command, data)
        (data / "snapshots").chmod(0o700)
        line = f"{data / 'snapshots'}: it cannot be read: Permission denied"
        assert (done.code, done.stdout) == (3, "")
        assert line in done.stderr

    def test_another_users(self, data: Path) -> None:
        """What only another user may read is told with who that is."""
        with of_a_stranger(data, file_mode=0o600):
            done = unprivileged("state", data)
            check_refused(done, data, f"no leave to read it: {THEIR_WAY}")


class TestBesideAServer:
    """A word that is seen to be wrong."""

    def test_a_real_one(self, tmp_path: Path) -> None:
        """While a server runs, --offline is refused, and not needed."""
        with serving(tmp_path) as server:
            assert submit(server.port, wire(VOTES))
            data = tmp_path / "data"
            done = run("state", data, "--offline")
            reason = "a server is running on it: leave --offline out"
            check_refused(done, data, reason)
            assert run("state", data).code == 0
            assert server.stop() == 0
        assert run("state", data, "--offline").code == 0

    def test_one_that_cannot_know(self, claimed: Path) -> None:
        """Who may not write the lock file is refused, whatever their word."""
        (claimed / "log" / LOCK_FILE).chmod(0o400)
        for words in ([], ["--offline"]):
            done = unprivileged("state", claimed, *words)
            reason = (
                "a server is running on it, and reading beside it needs leave to write "
                f"lock.mdb: {OUR_WAY}"
            )
            check_refused(done, claimed, reason)


class TestOption:
    """The option itself."""

    def test_every_command_that_reads_has_it(self) -> None:
        """Each command with a DATA_DIR has it as its last option, and no other has."""
        assert isinstance(replay, click.Group)
        context = click.Context(replay)
        for name in replay.list_commands(context):
            command = replay.get_command(context, name)
            assert command is not None
            parameters = [each.name for each in command.params]
            assert ("data_dir" in parameters) == ("offline" in parameters), name
            assert "offline" not in parameters[:-1], name

    def test_no_lock_file_is_made(self, data: Path) -> None:
        """With it, nothing comes into the directory, though it could be written."""
        with without_lock_file(data, is_without=True):
            assert finish("recovery.cli", "verify", data, "--offline").code == 0
