"""What an operator gets wrong: one line, the documented exit code, nothing changed."""

import hashlib
import runpy
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import attrs
import pytest

from alphabet.cli import main
from log import failpoint
from log.directory import DataDirectory
from log.log import Log, Transaction
from log.row import Cursor, Meta
from tests.faults import cut, flip_bit
from tests.inspection import last_sequence, totals
from tests.process import ANY, finish, refused, serving, submit
from tests.votes import payloads, wire

VOTES = [(b"a", 1), (b"b", 2), (b"a", 3)]

DAMAGE, USAGE, CANNOT_SERVE = 1, 2, 3

RUNTIME_FILES = {"lock.mdb", "server.lock"}
"""Who reads and who serves just now; no part of what was stored."""

ALPHABETS = Meta(
    log_id="0123456789abcdef",
    application="alphabet",
    pipelines=["alphabet"],
    record_schema=">sI",
)


def digest(path: Path) -> dict[str, str]:
    """Give what is under a path, by its name: a kind or a hash of the content."""
    return {
        str(each.relative_to(path)): (
            "directory"
            if each.is_dir()
            else hashlib.sha256(each.read_bytes()).hexdigest()
        )
        for each in sorted(path.rglob("*"))
        if each.name not in RUNTIME_FILES
    }


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a place with a log of three votes and a snapshot at its end."""
    made = tmp_path_factory.mktemp("template")
    with serving(made) as server:
        assert submit(server.port, wire(VOTES))
        assert server.stop() == 0
    return made


@pytest.fixture
def place(template: Path, tmp_path: Path) -> Path:
    """Give a copy of the template."""
    shutil.copytree(template / "data", tmp_path / "data")
    return tmp_path


def check_refused(place: Path, *words: object, code: int, said: str) -> None:
    """Start a server that must refuse; look at what it says and what it leaves."""
    data = place / "data"
    before = digest(data)
    done = refused(place, *words)
    assert said in done.stderr
    assert done.stderr.startswith("alphabet")
    assert done.code == code, done.stderr
    assert digest(data) == before


class TestAddresses:
    """Where it is told to listen."""

    def test_port_in_use(self, tmp_path: Path) -> None:
        """A port that is taken is refused before a directory is made."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            address = f"127.0.0.1:{taken.getsockname()[1]}"
            done = refused(tmp_path, "--in", address)
        assert done.code == CANNOT_SERVE
        assert f"cannot listen on {address}: Address already in use" in done.stderr
        assert "--in HOST:PORT" in done.stderr
        assert not (tmp_path / "data").exists()

    def test_no_address_of_ours(self, tmp_path: Path) -> None:
        """An address of another machine is refused."""
        done = refused(tmp_path, "--in", "192.0.2.1:0")
        assert done.code == CANNOT_SERVE
        assert "cannot listen on 192.0.2.1:0: Cannot assign" in done.stderr
        assert not (tmp_path / "data").exists()

    def test_no_such_pipeline(self, tmp_path: Path) -> None:
        """A pipeline that the application has not got is a usage error."""
        done = refused(tmp_path, "--in", f"votes@{ANY}")
        assert done.code == USAGE
        assert "there is no pipeline 'votes' (known pipelines: alphabet)" in done.stderr
        assert "cannot listen" not in done.stderr
        assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("value", ["x:y", "x:0", "x:-1", ":3", "x:1:2", "x:1\n2"])
def test_a_failpoint_that_is_none(
    value: str,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A variable that names no failpoint is refused by whatever begins with it."""
    monkeypatch.setenv("ALPHABET_FAILPOINT", value)
    with pytest.raises(SystemExit) as ending:
        runpy.run_path(failpoint.__file__)
    [line] = capfd.readouterr().err.splitlines()
    assert line.startswith("ALPHABET_FAILPOINT must be NAME or NAME:N, ")
    assert ending.value.code == USAGE
    if value == "x:y":
        done = finish(
            "alphabet.cli",
            "run",
            "--data-dir",
            tmp_path / "data",
            variables={"ALPHABET_FAILPOINT": value},
        )
        assert (done.code, done.stderr) == (USAGE, f"{line}\n")
        done = finish(
            "recovery.cli", "state", tmp_path, variables={"ALPHABET_FAILPOINT": value}
        )
        assert (done.code, done.stderr) == (USAGE, f"{line}\n")


class TestOptions:
    """Options that are none, or have no such value."""

    @pytest.mark.parametrize(
        "words",
        [
            ["--no-such-option"],
            ["a-word"],
            ["--in", "7010"],
            ["--in", "host:99999"],
            ["--in", "-"],
            ["--out", "nowhere"],
            ["--out-from", "-1"],
            ["--snapshot-every", "0"],
            ["--snapshot-every", "often"],
            ["--max-frame-bytes", "-1"],
            ["--max-connections", "0"],
            ["--inbox-bytes", "0"],
            ["--partial-frame-seconds", "0"],
            ["--partial-frame-seconds", "nan"],
            ["--drain-seconds", "10"],
            ["--drain-seconds", "nan"],
            ["--name", ""],
            ["--name", "\udcff"],
            ["--log-format", "xml"],
        ],
        ids=lambda words: ascii(" ".join(words)),
    )
    def test_usage(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        words: list[str],
    ) -> None:
        """Each is one line that names the help, and touches nothing."""
        monkeypatch.chdir(tmp_path)
        assert main(["run", *words]) == USAGE
        out, err = capsys.readouterr()
        assert (out, err.count("\n")) == ("", 1)
        assert err.startswith("alphabet run: ")
        assert err.endswith("(see 'alphabet run --help')\n")
        assert list(tmp_path.iterdir()) == []

    def test_the_program_ends_with_that_code(self, tmp_path: Path) -> None:
        """The process's exit code is the documented one."""
        assert refused(tmp_path, "--snapshot-every", 0).code == USAGE
        assert not (tmp_path / "data").exists()


class TestDirectory:
    """A data directory that cannot be used."""

    def test_parent_missing(self, tmp_path: Path) -> None:
        """A missing parent is not made."""
        done = refused(tmp_path, "--data-dir", tmp_path / "no" / "data")
        assert done.code == CANNOT_SERVE
        assert f"its parent {tmp_path / 'no'} does not exist" in done.stderr
        assert not (tmp_path / "no").exists()

    def test_a_file(self, tmp_path: Path) -> None:
        """A file is left as it is."""
        (tmp_path / "data").write_text("mine")
        done = refused(tmp_path)
        assert done.code == CANNOT_SERVE
        assert f"{tmp_path / 'data'}: it is not a directory" in done.stderr
        assert (tmp_path / "data").read_text() == "mine"

    def test_within_a_file(self, tmp_path: Path) -> None:
        """A file is no parent."""
        (tmp_path / "file").touch()
        done = refused(tmp_path, "--data-dir", tmp_path / "file" / "data")
        assert done.code == CANNOT_SERVE
        assert f"its parent {tmp_path / 'file'} is not a directory" in done.stderr

    def test_not_empty(self, tmp_path: Path) -> None:
        """A directory with something else in it is not taken."""
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / "thesis.txt").write_text("mine")
        check_refused(tmp_path, code=CANNOT_SERVE, said="it holds 'thesis.txt'")
        assert (tmp_path / "data" / "thesis.txt").read_text() == "mine"

    def test_may_not_be_made(self, tmp_path: Path) -> None:
        """Where not even root may make a directory, the system's reason is told."""
        done = refused(tmp_path, "--data-dir", "/sys/alphabet-data")
        assert done.code == CANNOT_SERVE
        assert "/sys/alphabet-data: it cannot be used: " in done.stderr

    def test_read_only(self, place: Path) -> None:
        """A log on a file system that is mounted read-only is not served."""
        data = place / "data"
        script = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"'
        before = digest(data)
        done = refused(place, before=["unshare", "-rm", "sh", "-c", script, str(data)])
        assert done.code == CANNOT_SERVE
        assert f"{data}: it cannot be used: Read-only file system" in done.stderr
        assert digest(data) == before

    def test_in_use(self, place: Path) -> None:
        """A directory that a server holds is refused, with that server's pid."""
        with serving(place) as server:
            said = f"{place / 'data'} is in use by server {server.pid}; stop it"
            check_refused(place, code=CANNOT_SERVE, said=said)
            assert submit(server.port, wire(VOTES))
            assert server.stop() == 0
        assert totals(place) == {"a": 8, "b": 4}

    def test_in_use_no_longer(self, place: Path) -> None:
        """A lock ends with its server, however that ended."""
        with serving(place) as server:
            server.kill()
        with serving(place) as server:
            assert server.stop(signal.SIGINT) == 0


@contextmanager
def opened(place: Path) -> Iterator[Log]:
    """Give the log in a place, to change it."""
    with closing(DataDirectory(place / "data").open_log()) as log:
        yield log


class TestForeign:
    """A log that is sound, but not for this program."""

    @pytest.mark.parametrize(
        ("meta", "said"),
        [
            (
                attrs.evolve(ALPHABETS, application="wordcount"),
                "it belongs to application 'wordcount', not 'alphabet'; name the right",
            ),
            (
                attrs.evolve(ALPHABETS, record_schema=">sQ"),
                "its records are '>sQ', not '>sI'; name the right application",
            ),
            (
                attrs.evolve(ALPHABETS, pipelines=["ballot"]),
                "its pipelines are ballot; they keep their order",
            ),
            (
                attrs.evolve(ALPHABETS, format_version=99),
                "its format is version 99, newer than 1; use the newer Alphabet",
            ),
            (
                attrs.evolve(ALPHABETS, engine="lmdb-1.0"),
                "it was written with engine lmdb-1.0, not lmdb-0.9; use the Alphabet",
            ),
        ],
        ids=["application", "schema", "pipelines", "format", "engine"],
    )
    def test_it_is_left_alone(self, place: Path, meta: Meta, said: str) -> None:
        """Another application, schema, format or engine: which, and what to do."""
        with opened(place) as log:
            log.commit(Transaction(meta=meta))
        check_refused(place, code=CANNOT_SERVE, said=said)


class TestDamage:
    """A disk that does not keep what was written."""

    def test_a_record(self, place: Path) -> None:
        """A bit that changed in a block that is to be replayed is found."""
        (place / "data" / "snapshots").rename(place / "away")
        file = place / "data" / "log" / "data.mdb"
        flip_bit(file, file.read_bytes().index(payloads(VOTES)))
        said = "is damaged at sequence 1: "
        check_refused(place, code=DAMAGE, said=said)

    def test_a_file_cut_short(self, place: Path) -> None:
        """A file that lost its end is found before anything maps it."""
        file = place / "data" / "log" / "data.mdb"
        cut(file, file.stat().st_size // 2)
        check_refused(place, code=DAMAGE, said="it is cut short")

    def test_an_empty_file(self, place: Path) -> None:
        """A file that lost everything is no new log."""
        cut(place / "data" / "log" / "data.mdb", 0)
        check_refused(place, code=DAMAGE, said="it is too short")

    def test_a_file_missing(self, place: Path) -> None:
        """Nor is a log without its file."""
        (place / "data" / "log" / "data.mdb").unlink()
        check_refused(place, code=CANNOT_SERVE, said="No such file or directory")

    def test_a_snapshot(self, place: Path) -> None:
        """A damaged snapshot costs a line and a longer replay, and is set aside."""
        [snapshot] = (place / "data" / "snapshots").iterdir()
        flip_bit(snapshot, 40)
        with serving(place) as server:
            server.wait_said(f"set aside {snapshot.name}.broken: its checksum")
            assert "RESILIENCE: Replayed 3 entries from recovery log file." in (
                server.lines()
            )
            assert server.stop() == 0
        assert snapshot.with_name(f"{snapshot.name}.broken").exists()
        assert totals(place) == {"a": 4, "b": 2}


class TestAhead:
    """Something that reaches beyond the log: its tail was lost."""

    @pytest.fixture
    def shortened(self, place: Path) -> Path:
        """Give a place whose log went back to event 3, with a snapshot at event 6."""
        shutil.copytree(place / "data" / "log", place / "old")
        with serving(place) as server:
            assert submit(server.port, wire(VOTES))
            assert server.stop() == 0
        shutil.rmtree(place / "data" / "log")
        (place / "old").rename(place / "data" / "log")
        return place

    def test_a_snapshot(self, shortened: Path) -> None:
        """The server refuses, naming both sequences and the two ways on."""
        data = shortened / "data"
        said = "snapshot 6 is at sequence 6, and the log ends at 3"
        check_refused(shortened, code=DAMAGE, said=said)
        done = refused(shortened)
        assert "--accept-lost-tail" in done.stderr
        snapshot = data / "snapshots" / f"{6:020}.snapshot"
        compact = f"alphabet-replay compact {data} TO --from-snapshot {snapshot}"
        assert compact in done.stderr

    def test_it_is_accepted(self, shortened: Path) -> None:
        """By consent the log is served, and the snapshot set aside."""
        with serving(shortened, "--accept-lost-tail") as server:
            server.wait_said("set aside")
            assert submit(server.port, wire(VOTES[:1]))
            assert server.stop() == 0
        snapshots = sorted(
            each.name for each in (shortened / "data/snapshots").iterdir()
        )
        assert snapshots == [
            f"{3:020}.snapshot",
            f"{4:020}.snapshot",
            f"{6:020}.snapshot.ahead",
        ]
        assert totals(shortened) == {"a": 5, "b": 2}

    def test_a_cursor(self, place: Path) -> None:
        """A sink that had events which the log has not is refused likewise."""
        with opened(place) as log:
            log.commit(Transaction(cursors={"out": Cursor(9, 117)}))
        said = "sink out is at sequence 9, and the log ends at 3"
        check_refused(place, code=DAMAGE, said=said)
        with serving(place, "--accept-lost-tail") as server:
            server.wait_said("the log ends at 3, before sink out at 9")
            assert server.stop() == 0
        assert last_sequence(place) == 3


def test_a_full_standard_output() -> None:
    """Results that cannot be written are one line and exit code 3, no traceback."""
    command = [sys.executable, "-m", "alphabet.cli", "--version"]
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        done = subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 3
    assert done.stderr.count("\n") == 1
    assert "No space left on device" in done.stderr
