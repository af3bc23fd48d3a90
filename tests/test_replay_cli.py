"""`alphabet-replay` as its users meet it: what it prints, and how it ends.

What it prints for a log that is always the same is kept in `golden/cli`; run these
tests with WRITE_GOLDEN=1 to write it anew, and read the difference before it is kept.
"""

import contextlib
import hashlib
import json
import os
import pty
import re
import shutil
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest

from log.block import Records
from log.directory import LOCK, DataDirectory
from log.lmdb_store import DATA_FILE
from log.log import Transaction
from log.row import Cursor, Meta
from log.store import BLOCKS, Change
from recovery.cli import main
from recovery.snapshot_directory import SnapshotDirectory
from tests.faults import cut, zero_page
from tests.machines import (
    LOTS,
    VOTES_META,
    append_records,
    append_votes,
    change,
    flip_middle,
    key,
    write_votes,
)
from tests.process import (
    PYTHON,
    ROOT,
    SECONDS_MAX,
    Finished,
    environment,
    finish,
    replay,
    serving,
    submit,
    wait_until,
)
from tests.votes import tally, wire

GOLDEN = Path(__file__).parent / "golden" / "cli"
VOTES = [vote for lot in LOTS for vote in lot]
PAGE_BYTES = 4096

CASES = {
    "state": "state DATA_DIR",
    "state-json": "state DATA_DIR --json",
    "state-csv": "state DATA_DIR --format csv",
    "state-at-5": "state DATA_DIR --at 5",
    "state-at-5-json": "state DATA_DIR --at 5 --format json",
    "state-at-0": "state DATA_DIR --at 0",
    "state-at-0-json": "state DATA_DIR --at 0 --json",
    "state-at-11": "state DATA_DIR --at 11",
    "state-at-time": "state DATA_DIR --at 2023-11-14T22:13:22.5Z",
    "state-at-time-json": "state DATA_DIR --at 2023-11-15T00:13:21+02:00 --json",
    "state-at-no-time": "state DATA_DIR --at noon",
    "state-at-and-watch": "state DATA_DIR --at 5 --watch",
    "state-of-none": "state EMPTY_DIR",
    "state-of-none-csv": "state EMPTY_DIR --format csv",
    "state-damaged": "state DAMAGED_DIR",
    "state-damaged-at-3": "state DAMAGED_DIR --at 3 --format csv",
    "state-damaged-at-5": "state DAMAGED_DIR --at 5",
    "state-damaged-at-time": "state DAMAGED_DIR --at 2023-11-14T22:13:21Z",
    "info": "info DATA_DIR",
    "info-json": "info DATA_DIR --json",
    "info-of-none": "info EMPTY_DIR",
    "info-of-none-json": "info EMPTY_DIR --format json",
    "verify": "verify DATA_DIR",
    "verify-json": "verify DATA_DIR --json",
    "verify-of-none": "verify EMPTY_DIR",
    "verify-damaged": "verify DAMAGED_DIR",
    "verify-damaged-json": "verify DAMAGED_DIR --json",
    "verify-bytes-only": "verify DAMAGED_DIR --bytes-only",
    "snapshots": "snapshots DATA_DIR",
    "snapshots-json": "snapshots DATA_DIR --json",
    "snapshots-csv": "snapshots DATA_DIR --format csv",
    "snapshots-no-check": "snapshots DATA_DIR --no-check",
    "snapshots-of-none": "snapshots EMPTY_DIR",
    "snapshots-damaged": "snapshots DAMAGED_DIR",
    "rejects": "rejects DATA_DIR",
    "rejects-json": "rejects DATA_DIR --json",
    "rejects-csv": "rejects DATA_DIR --format csv",
    "rejects-damaged": "rejects DAMAGED_DIR",
    "compact": "compact DATA_DIR TO",
    "compact-from-snapshot": (
        "compact DATA_DIR TO --from-snapshot "
        "DATA_DIR/snapshots/00000000000000000010.snapshot"
    ),
    "compact-of-none": "compact EMPTY_DIR TO",
    "compact-damaged": "compact DAMAGED_DIR TO",
    "compact-archive": "compact DATA_DIR TO --archive TO.wire",
    "backup": "backup DATA_DIR TO",
    "backup-of-none": "backup EMPTY_DIR TO",
    "backup-damaged": "backup DAMAGED_DIR TO",
}


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no variable of ours reach a command that runs in this process."""
    for name in [name for name in os.environ if name.startswith("ALPHABET_")]:
        monkeypatch.delenv(name)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return data directories: of ten votes, of none, and one that is damaged."""
    path = tmp_path_factory.mktemp("made")
    write_votes(path / "DATA_DIR", snapshots=[3, 6, 10])
    write_votes(path / "EMPTY_DIR", [])
    damaged = write_votes(path / "DAMAGED_DIR", snapshots=[3, 10])
    damage_block(damaged, 4)
    damage_block(damaged, 7)
    snapshots = SnapshotDirectory(damaged.snapshots_path)
    change(snapshots.file(3), flip_middle)
    return path


@pytest.fixture
def data(tmp_path: Path, made: Path) -> Path:
    """Return a copy of the ten votes, to do with as one likes."""
    return Path(shutil.copytree(made / "DATA_DIR", tmp_path / "data"))


def damage_block(directory: DataDirectory, first: int) -> None:
    """Change a block as it is stored."""
    with contextlib.closing(directory.open_log()) as log:
        value = log.store.get(BLOCKS, key(first))
        assert value is not None
        log.store.commit([Change(BLOCKS, key(first), flip_middle(value))], 0)


def digest(path: Path) -> dict[str, str]:
    """Give a hash of every file under a path, but for LMDB's list of readers."""
    return {
        str(file.relative_to(path)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(path.rglob("*"))
        if file.is_file() and file.name not in {LOCK, "lock.mdb"}
    }


Run = Callable[..., Finished]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    """Return what runs a command in this process."""

    def run(*words: object) -> Finished:
        capfd.readouterr()
        code = main([str(word) for word in words])
        sys.stdout.flush()
        out, err = capfd.readouterr()
        return Finished(code, out, err)

    return run


def without_chance(text: str, places: dict[str, Path]) -> str:
    """Replace what differs from run to run by its name."""
    for name, path in places.items():
        text = text.replace(str(path), name)
    text = re.sub(r"in \d+\.\d{3} s \([\d,]+/s\)", "in SECONDS (RATE)", text)
    text = re.sub(r"(\"seconds\": )[\d.e-]+", r"\1SECONDS", text)
    text = re.sub(r"\blog [0-9a-f]{32} in TO", "log LOG_ID in TO", text)
    text = re.sub(r"(?<![_ ])(bytes\"?: )\d+", r"\1BYTES", text)
    return re.sub(r"(bytes(?:_| )per(?:_| )event\"?: )[\d.]+", r"\1BYTES", text)


class TestGolden:
    """Every command, in every format."""

    @pytest.mark.parametrize("name", CASES)
    def test_what_is_printed(
        self, tmp_path: Path, made: Path, run: Run, name: str
    ) -> None:
        """A command prints on both streams, and ends with, what is kept of it."""
        places = {path.name: path for path in made.iterdir()}
        places["TO"] = tmp_path / "to"
        before = digest(made)
        command = CASES[name]
        words = re.sub(
            "|".join(map(re.escape, places)), lambda m: str(places[m[0]]), command
        )
        done = run(*words.split())
        text = (
            f"$ alphabet-replay {command}\n{done.stdout}"
            f"--- standard error\n{done.stderr}--- exit code {done.code}\n"
        )
        found = without_chance(text, places)
        kept = GOLDEN / f"{name}.txt"
        if os.environ.get("WRITE_GOLDEN"):
            kept.write_text(found, encoding="utf-8")
        assert found == kept.read_text(encoding="utf-8")
        assert digest(made) == before

    def test_nothing_else_is_kept(self) -> None:
        """Each golden file has its command."""
        assert {file.stem for file in GOLDEN.iterdir()} == set(CASES)

    def test_sizes_are_those_of_the_file(self, made: Path, run: Run) -> None:
        """`info` tells the size of the log's file, and what of it a vote takes."""
        found = json.loads(run("info", made / "DATA_DIR", "--json").stdout)
        size = (made / "DATA_DIR" / "log" / DATA_FILE).stat().st_size
        assert (found["bytes"], found["bytes_per_event"]) == (size, size / 10)

    @pytest.mark.parametrize("at", range(11))
    def test_any_moment_of_the_past(self, made: Path, run: Run, at: int) -> None:
        """The totals after any event are those of the votes up to it, inclusive."""
        done = run("state", made / "DATA_DIR", "--json", "--at", at)
        found = json.loads(done.stdout)
        assert (found["sequence"], found["totals"]) == (at, tally(VOTES[:at]))

    def test_a_compacted_log_goes_on(
        self, made: Path, tmp_path: Path, run: Run
    ) -> None:
        """The new log has the same totals, is sound, and knows no earlier moment."""
        new = tmp_path / "to"
        assert run("compact", made / "DATA_DIR", new).code == 0
        assert json.loads(run("state", new, "--json").stdout)["totals"] == tally(VOTES)
        assert run("verify", new).code == 0
        assert "goes from 6 to 10" in run("state", new, "--at", 5).stderr
        info = json.loads(run("info", new, "--json").stdout)
        assert (info["base"], info["events"]) == (6, 4)
        assert info["parent"] == VOTES_META.log_id
        assert stat.S_IMODE(new.stat().st_mode) == 0o700


class TestExitCodes:
    """How a command ends that cannot do what it was asked for."""

    def check(self, done: Finished, code: int, said: str) -> None:
        """Fail unless it ended so, said so in one line, and printed nothing."""
        assert done.code == code, done
        assert said in done.stderr
        assert done.stdout == ""
        assert done.stderr.count("\n") == 1
        assert "Traceback" not in done.stderr

    @pytest.mark.parametrize("command", ["state", "info", "verify --bytes-only"])
    @pytest.mark.parametrize("file_bytes", [0, 100, 4096, 8192, 12288])
    def test_1_a_file_cut_short(
        self, data: Path, run: Run, command: str, file_bytes: int
    ) -> None:
        """A data file without its end is damage, said before LMDB maps it."""
        cut(data / "log" / DATA_FILE, file_bytes)
        done = run(*command.split(), data)
        assert done.code == 1
        assert re.search("it is cut short|too short to hold", done.stderr)
        assert done.stderr.count("\n") == 1

    def test_1_a_damaged_last_block(self, data: Path, run: Run) -> None:
        """A log whose end is damaged gives no state, and verify names the place."""
        damage_block(DataDirectory(data), 7)
        self.check(run("state", data), 1, "is damaged at sequence 7")
        self.check(run("info", data), 1, "is damaged at sequence 7")
        found = json.loads(run("verify", data, "--json").stdout)
        assert [(f["severity"], f["place"], f["first"]) for f in found["findings"]] == [
            ("damage", "block", 7),
            ("note", "snapshot 10", 10),
        ]
        assert (found["ok"], found["blocks"], found["events"]) == (False, 3, 6)

    def test_1_a_log_that_says_nothing_of_itself(self, data: Path, run: Run) -> None:
        """Where not even the meta row is sound, verify finds that, and no more."""
        with contextlib.closing(DataDirectory(data).open_log()) as log:
            log.store.commit([Change("meta", b"log", b"nonsense")], 0)
        done = run("verify", data, "--json")
        assert done.code == 1
        found = json.loads(done.stdout)
        assert not found["ok"]
        [finding] = found["findings"]
        assert finding["place"] == "log"
        assert "8 bytes are too few for a row" in finding["reason"]

    def test_1_a_lost_tail(self, data: Path, run: Run) -> None:
        """A log that ends before its snapshot still has a state; verify names it."""
        with contextlib.closing(DataDirectory(data).open_log()) as log:
            log.store.commit([Change(BLOCKS, key(7), None)], 0)
        done = run("state", data, "--json")
        assert json.loads(done.stdout)["totals"] == tally(VOTES[:6])
        done = run("verify", data)
        assert done.code == 1
        assert "snapshot 10 is at sequence 10, and the log ends at 6" in done.stdout

    def test_1_lost_events(self, data: Path, run: Run) -> None:
        """A gap is refused by name, and passed over where that is agreed to."""
        with contextlib.closing(DataDirectory(data).open_log()) as log:
            append_records(log, Records.gap(5))
            append_votes(log, [(b"a", 1)])
        self.check(run("state", data), 1, f"{data}: events 11 to 15 are lost")
        done = run("state", data, "--accept-gaps", "--json")
        assert json.loads(done.stdout)["totals"] == tally([*VOTES, (b"a", 1)])
        done = run("verify", data)
        assert (done.code, done.stdout.splitlines()[0]) == (
            0,
            "gap: block at 11 to 15: 5 events are lost",
        )

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            ("state DATA --at 11", "--at 11 is not in the log, which goes from 0 to"),
            ("state DATA --at -1", "'-1' is neither a sequence nor a time"),
            ("state DATA --at noon", "give digits, or a time such as 2026-"),
            ("state DATA --watch --at 1", "--watch follows the log's end"),
            ("state DATA --watch --interval-seconds nan", "nan is no number"),
            (
                "state DATA --interval-seconds 0",
                "Invalid value for '--interval-seconds': it must be at least 0.01",
            ),
            ("snapshots", "Missing argument 'DATA_DIR'"),
            ("rejects DATA --last 0", "Invalid value for '--last'"),
            ("state DATA --format yaml", "'yaml' is not one of"),
            ("info DATA --format csv", "'csv' is not one of"),
            ("state", "Missing argument 'DATA_DIR'"),
            ("compact DATA", "Missing argument 'TO'"),
            ("compact DATA TO --from-snapshot NONE", "does not exist"),
            ("verify DATA --no-such", "No such option"),
            ("verfy DATA", "No such command 'verfy'. Did you mean 'verify'?"),
        ],
    )
    def test_2_usage(self, data: Path, run: Run, words: str, said: str) -> None:
        """What cannot be asked for is said, and where the help is."""
        done = run(*words.replace("DATA", str(data)).split())
        self.check(done, 2, said)
        assert "--help" in done.stderr

    @pytest.mark.parametrize("command", ["state", "info", "verify", "compact"])
    def test_3_no_log(self, tmp_path: Path, run: Run, command: str) -> None:
        """A directory that is not there, or has no log, is named."""
        to = [tmp_path / "to"] if command == "compact" else []
        done = run(command, tmp_path / "none", *to)
        self.check(done, 3, f"{tmp_path / 'none'}: no such directory")
        done = run(command, tmp_path, *to)
        self.check(done, 3, f"{tmp_path}: there is no log in it")
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        ("meta", "said"),
        [
            (attrs.evolve(VOTES_META, application="tally"), "application 'tally'"),
            (attrs.evolve(VOTES_META, record_schema=">sQ"), "'>sQ', not '>sI'"),
            (attrs.evolve(VOTES_META, format_version=2), "version 2, newer than 1"),
            (attrs.evolve(VOTES_META, engine="lmdb-1.0"), "engine lmdb-1.0"),
        ],
    )
    @pytest.mark.parametrize("command", ["state", "verify"])
    def test_3_not_for_us(
        self, data: Path, run: Run, command: str, meta: Meta, said: str
    ) -> None:
        """A log of another application, schema, format or engine is refused."""
        with contextlib.closing(DataDirectory(data).open_log()) as log:
            log.commit(Transaction(meta=meta))
        before = digest(data)
        self.check(run(command, data), 3, said)
        assert digest(data) == before

    def test_3_no_new_place(self, data: Path, tmp_path: Path, run: Run) -> None:
        """`compact` writes to a new or empty place alone, whose parent is there."""
        (tmp_path / "full").mkdir()
        (tmp_path / "full" / "mine.txt").touch()
        for to, said in [
            (tmp_path / "full", "it holds 'mine.txt'"),
            (tmp_path / "none" / "to", "its parent"),
            (data, "it already holds a log"),
        ]:
            before = digest(data)
            self.check(run("compact", data, to), 3, said)
            assert digest(data) == before

    def test_3_no_such_application(self, made: Path, run: Run) -> None:
        """A module that cannot be imported is named, with the cause."""
        done = run("state", made / "DATA_DIR", "--application-module", "no_such")
        self.check(done, 3, "application module 'no_such': ModuleNotFoundError")
        assert run("info", made / "DATA_DIR").code == 0

    def test_1_a_damaged_snapshot_to_compact(self, data: Path, run: Run) -> None:
        """A chosen snapshot that is damaged is refused, and nothing is made."""
        file = SnapshotDirectory(data / "snapshots").file(6)
        change(file, flip_middle)
        to = data.parent / "to"
        done = run("compact", data, to, "--from-snapshot", file)
        self.check(done, 1, f"{file} cannot be used: its checksum does not match")
        assert not to.exists()


class TestWaysOn:
    """After a lost tail."""

    @pytest.fixture
    def short(self, data: Path) -> Path:
        """Return a log that ends at 6, with a snapshot at 10, and a sink at 9."""
        with contextlib.closing(DataDirectory(data).open_log()) as log:
            changes = Transaction(cursors={"out": Cursor(9, 117)})
            log.store.commit([Change(BLOCKS, key(7), None)], 0)
            log.commit(changes)
        return data

    def test_the_totals_that_are_left(self, short: Path, run: Run) -> None:
        """`state` prints them, says that they lack what was lost, and ends with 1."""
        for words in (("--json",), ()):
            done = run("state", short, *words)
            assert done.code == 1
            assert done.stdout
            assert "ends at sequence 6, and there is a snapshot at 10" in done.stderr
        done = run("state", short, "--at", 6)
        assert (done.code, "snapshot at 10" in done.stderr) == (0, False)

    @pytest.mark.parametrize("is_name_alone", [False, True])
    def test_begin_at_the_snapshot(
        self, short: Path, run: Run, *, is_name_alone: bool
    ) -> None:
        """`compact --from-snapshot` makes a log that has all that the snapshot has."""
        to = short.parent / "to"
        path = SnapshotDirectory(short / "snapshots").file(10)
        file = Path(path.name) if is_name_alone else path
        done = run("compact", short, to, "--from-snapshot", file)
        assert done.code == 0
        assert "sink out was behind sequence 10 and goes on there" in done.stderr
        state = json.loads(run("state", to, "--json").stdout)
        assert (state["sequence"], state["totals"]) == (10, tally(VOTES))

    def test_where_the_log_went_on(self, short: Path, run: Run) -> None:
        """Events that do not follow the snapshot stay behind, and that is said.

        A sink that had come further goes on from the base: what is made is sound.
        """
        directory = DataDirectory(short)
        with contextlib.closing(directory.open_log()) as log:
            append_votes(log, [(b"x", 1)] * 5)
            log.commit(Transaction(cursors={"out": Cursor(11, 143)}))
        to = short.parent / "to"
        file = SnapshotDirectory(short / "snapshots").file(10)
        done = run("compact", short, to, "--from-snapshot", file)
        assert done.code == 0
        assert "the log went on otherwise than the snapshot at 10" in done.stderr
        assert run("verify", to).code == 0
        state = json.loads(run("state", to, "--json").stdout)
        assert (state["sequence"], state["totals"]) == (10, tally(VOTES))
        done = run("state", short)
        assert "snapshot 10 not used: the log went on otherwise" in done.stderr


MODULE = '''
"""Counts how long payloads are."""
import os, signal
from alphabet import wallaroo

STATE_VERSION = {version}


class Sizes:
    def __init__(self):
        self.sizes = []

    def __repr__(self):
        return f"Sizes({{self.sizes}})"


class Builder:
    def build(self):
        return Sizes()

    def dump(self, state):
        return bytes(state.sizes)

    def load(self, data):
        state = Sizes()
        state.sizes = list(data)
        return state


class Codec:
    def header_length(self):
        return 4

    def payload_length(self, bs):
        return int.from_bytes(bs)

    def decode(self, bs):
        return bs

    def encode(self, data):
        return data


class Measure:
    def name(self):
        return "measure"

    def compute(self, data, state):
        state.sizes.append(len(data))
        return data, True


def application_setup(args):
    {act}
    ab = wallaroo.ApplicationBuilder("sizes")
    ab.new_pipeline("sizes", wallaroo.TCPSourceConfig("127.0.0.1", "0", Codec()))
    ab.to_stateful(Measure(), Builder(), "all sizes")
    ab.to_sink(wallaroo.TCPSinkConfig("", "", Codec()))
    return ab.build()
'''


class TestOtherApplications:
    """A log that Alphabet's own application did not write."""

    @pytest.fixture
    def place(self, tmp_path: Path) -> Path:
        """Return a directory with a module in it, and a log of its in `data`."""
        (tmp_path / "sizes.py").write_text(MODULE.format(version=1, act=""))
        directory = DataDirectory.claim(tmp_path / "data")
        with directory.new_log(Meta("sizes-log", "sizes", ("sizes",))) as log:
            append_records(log, Records.pack([b"1", b"", b"333"]))
        directory.release()
        return tmp_path

    def run(self, place: Path, *words: object) -> Finished:
        """Run a command in the place, as a program."""
        return finish("recovery.cli", *words, working_directory=place)

    def test_it_is_found_where_one_is(self, place: Path) -> None:
        """A module in the working directory is found; states are shown as it does."""
        words = ("data", "--application-module", "sizes")
        done = self.run(place, "state", *words)
        assert done.stdout == "all sizes => Sizes([1, 0, 3])\n"
        done = self.run(place, "state", *words, "--json", "--at", 2)
        found = json.loads(done.stdout)
        assert found["sequence"] == 2
        assert found["states"] == {"all sizes": "Sizes([1, 0])"}
        done = self.run(place, "verify", *words)
        assert done.stdout == "sound: 3 events in 1 block, 0 snapshots\n"

    def test_it_must_be_named(self, place: Path) -> None:
        """Without its name the log is refused, but by what needs no application."""
        done = self.run(place, "state", "data")
        assert done.code == 3
        assert "it belongs to application 'sizes', not 'alphabet'" in done.stderr
        for words in (["info", "data"], ["verify", "data", "--bytes-only"]):
            assert self.run(place, *words).code == 0


class TestPlaces:
    """Where it works."""

    def test_beside_a_live_server(self, tmp_path: Path, run: Run) -> None:
        """While a server counts, every command finds a sound log, and a true state."""
        data = tmp_path / "data"
        lot = [(b"a", 1)] * 10
        with serving(tmp_path, "--snapshot-every", "10") as server:
            assert submit(server.port, wire(lot))
            snapshots = SnapshotDirectory(data / "snapshots")
            wait_until(snapshots.sequences, "a snapshot")
            is_over = threading.Event()
            sent = 10

            def send() -> None:
                nonlocal sent
                while not is_over.is_set():
                    assert submit(server.port, wire(lot))
                    sent += 10

            sender = threading.Thread(target=send)
            sender.start()
            try:
                for number in range(4):
                    acknowledged = sent
                    done = run("state", data, "--json")
                    state = json.loads(done.stdout)
                    assert acknowledged <= state["sequence"]
                    assert state["totals"] == {"a": state["sequence"]}
                    done = run("verify", data)
                    assert done.code == 0, done
                    assert run("info", data).code == 0
                    to = tmp_path / f"to{number}"
                    assert run("compact", data, to).code == 0, done
                    assert run("verify", to).code == 0
            finally:
                is_over.set()
                sender.join()
            assert server.stop() == 0
        assert json.loads(run("state", data, "--json").stdout)["totals"] == {"a": sent}


class TestChild:
    """A command runs in a child, which damage may kill."""

    CUT_AFTER_THE_CHECK = """
import sys
from log import lmdb_store
check = lmdb_store.check_file
def check_and_cut(path):
    check(path)
    with (path / "data.mdb").open("r+b") as stream:
        stream.truncate(8192)
lmdb_store.check_file = check_and_cut
from recovery.cli import run_program
run_program()
"""

    def run_cut(self, data: Path, *words: str) -> Finished:
        """Run a command on a file that is cut once it has been checked."""
        done = subprocess.run(
            [sys.executable, "-c", self.CUT_AFTER_THE_CHECK, *words, str(data)],
            env=environment({}),
            capture_output=True,
            text=True,
            timeout=SECONDS_MAX,
            check=False,
        )
        return Finished(done.returncode, done.stdout, done.stderr)

    @pytest.mark.parametrize("asked", ["--json", "--format=json", "--format json"])
    def test_a_late_cut_is_a_finding(self, data: Path, asked: str) -> None:
        """A file that is cut under us is reported as damage, as JSON where asked."""
        done = self.run_cut(data, "verify", *asked.split())
        assert done.code == 1
        assert json.loads(done.stdout)["ok"] is False
        [finding] = json.loads(done.stdout)["findings"]
        assert (finding["severity"], finding["place"]) == ("damage", "log")
        assert finding["reason"] == "it is cut short: 8192 bytes of at least 61440"

    def test_a_late_cut_is_a_line(self, data: Path) -> None:
        """Every other command says it in one line."""
        done = self.run_cut(data, "state")
        assert (done.code, done.stdout) == (1, "")
        [line] = done.stderr.splitlines()
        assert "is damaged: it is cut short: 8192 bytes of at least 61440; " in line
        assert "'alphabet-replay salvage'" in line

    @pytest.mark.parametrize("page", range(2, 11))
    def test_a_page_that_is_gone(self, data: Path, page: int) -> None:
        """Whichever page became zeros, it is harmless or reported, and no traceback."""
        zero_page(data / "log" / DATA_FILE, page, PAGE_BYTES)
        ended = replay("verify", data)
        assert ended.code in {0, 1}
        assert "Traceback" not in ended.stderr
        assert ended.code == 1 or "sound: 10 events in 4 blocks" in ended.stdout

    @pytest.mark.parametrize(
        ("number", "code"),
        [
            (signal.SIGTERM, 128 + signal.SIGTERM),
            (signal.SIGKILL, 128 + signal.SIGKILL),
            (signal.SIGABRT, 1),
            (signal.SIGSEGV, 1),
        ],
    )
    def test_only_damage_is_damage(
        self, made: Path, tmp_path: Path, number: signal.Signals, code: int
    ) -> None:
        """A child that somebody ended tells nothing of the log."""
        act = f"os.kill(os.getpid(), {int(number)})"
        (tmp_path / "ending.py").write_text(MODULE.format(version=1, act=act))
        words = ("state", made / "DATA_DIR", "--application-module", "ending")
        done = finish("recovery.cli", *words, working_directory=tmp_path)
        assert done.code == code
        assert ("is damaged" in done.stderr) == (code == 1)

    def test_a_signal_reaches_the_child(self, made: Path, tmp_path: Path) -> None:
        """Who ends the command ends the child with it."""
        act = "open('pid', 'w').write(str(os.getpid())); signal.pause()"
        (tmp_path / "waiting.py").write_text(MODULE.format(version=1, act=act))
        words = ["state", str(made / "DATA_DIR"), "--application-module", "waiting"]
        with subprocess.Popen(
            [*PYTHON, "recovery.cli", *words],
            cwd=tmp_path,
            env=environment({}),
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            pid = tmp_path / "pid"
            wait_until(lambda: pid.exists() and pid.read_text(), "a child that waits")
            process.send_signal(signal.SIGTERM)
            assert process.wait(SECONDS_MAX) == 128 + signal.SIGTERM
            assert process.stderr is not None
            assert process.stderr.read() == ""
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid.read_text()), 0)


class TestStreams:
    """Standard output and standard error."""

    PRINTING = (
        "state",
        "state --format csv",
        "info",
        "verify",
        "events",
        "snapshots --json",
    )

    @pytest.mark.parametrize("words", PRINTING)
    def test_a_reader_that_went_away(self, made: Path, words: str) -> None:
        """As after `| head`, an output that nobody takes is no failure."""
        readable, writable = os.pipe()
        os.close(readable)
        with os.fdopen(writable, "wb") as stdout:
            done = subprocess.run(
                [*PYTHON, "recovery.cli", *words.split(), str(made / "DATA_DIR")],
                env=environment({}),
                cwd=ROOT,
                stdout=stdout,
                stderr=subprocess.PIPE,
                text=True,
                timeout=SECONDS_MAX,
                check=False,
            )
        assert done.returncode == 0
        assert "Traceback" not in done.stderr
        assert "Broken pipe" not in done.stderr

    @pytest.mark.parametrize("words", PRINTING)
    def test_an_output_that_is_full(self, made: Path, words: str) -> None:
        """Output that found no room is a failure, told in one line."""
        with Path("/dev/full").open("wb") as stdout:
            done = subprocess.run(
                [*PYTHON, "recovery.cli", *words.split(), str(made / "DATA_DIR")],
                env=environment({}),
                cwd=ROOT,
                stdout=stdout,
                stderr=subprocess.PIPE,
                text=True,
                timeout=SECONDS_MAX,
                check=False,
            )
        line = (
            "alphabet-replay: cannot write to standard output: No space left on device"
        )
        assert (done.returncode, done.stderr.splitlines()[-1]) == (3, line)
        assert "Traceback" not in done.stderr

    def test_an_output_that_is_closed(self, made: Path) -> None:
        """A program without a standard output does its work."""
        command = [*PYTHON, "recovery.cli", "verify", str(made / "DATA_DIR")]
        done = subprocess.run(
            ["sh", "-c", 'exec "$@" >&-', "sh", *command],
            env=environment({}),
            cwd=ROOT,
            stderr=subprocess.PIPE,
            timeout=SECONDS_MAX,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, b"")

    def test_progress_is_for_terminals(self, made: Path) -> None:
        """On a terminal a bar shows how far it is; what is printed stays the same."""
        ours, theirs = pty.openpty()
        with os.fdopen(ours, "rb", buffering=0) as terminal:
            done = subprocess.run(
                [*PYTHON, "recovery.cli", "state", str(made / "DATA_DIR"), "--json"],
                env=environment({"TERM": "xterm"}),
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=theirs,
                text=True,
                timeout=SECONDS_MAX,
                check=False,
            )
            os.close(theirs)
            shown = terminal.read(1 << 16)
        assert done.returncode == 0
        assert json.loads(done.stdout)["totals"] == tally(VOTES)
        assert b"replay" in shown

    def test_help_and_version(self, run: Run) -> None:
        """Help and version go to standard output, and are no failure."""
        done = run("--help")
        assert done.code == 0
        for command in ("state", "info", "verify", "compact"):
            assert f"\n  {command} " in done.stdout
        done = run("--version")
        assert re.fullmatch(
            r"alphabet-replay \S+, log format 1, engine lmdb-0\.9\n", done.stdout
        )
