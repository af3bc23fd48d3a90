"""`alphabet-replay events` as its users meet it: what it prints, and how it ends."""

import contextlib
import csv
import io
import json
import os
import pty
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import attrs
import pytest

from log.block import Block, Records
from log.directory import DataDirectory
from log.log import Transaction
from log.row import Meta
from log.store import BLOCKS, Change
from recovery.cli import main
from recovery.commands.events import EventPrinter, Form
from recovery.commands.place import opened
from recovery.event_reader import EventReader
from tests import toy
from tests.machines import (
    LOTS,
    VOTES_META,
    append_records,
    append_votes,
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
    serving,
    submit,
    wait_until,
)
from tests.votes import Vote, frame, wire

VOTES = [vote for lot in LOTS for vote in lot]


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no variable of ours reach a command that runs in this process."""
    for name in [name for name in os.environ if name.startswith("ALPHABET_")]:
        monkeypatch.delenv(name)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a data directory of ten votes; nobody changes it."""
    return write_votes(tmp_path_factory.mktemp("made") / "data").path


@pytest.fixture
def data(tmp_path: Path, made: Path) -> Path:
    """Return a copy of the ten votes, to do with as one likes."""
    return Path(shutil.copytree(made, tmp_path / "data"))


@attrs.frozen
class Ended:
    """A command that ran in this process."""

    code: int
    out: bytes
    err: str


Run = Callable[..., Ended]


@pytest.fixture
def run(capfdbinary: pytest.CaptureFixture[bytes]) -> Run:
    """Return what runs `events` in this process."""

    def run(*words: object) -> Ended:
        capfdbinary.readouterr()
        code = main(["events", *map(str, words)])
        sys.stdout.flush()
        out, err = capfdbinary.readouterr()
        return Ended(code, out, err.decode())

    return run


def damage(path: Path, first: int) -> None:
    """Change a block as it is stored."""
    with contextlib.closing(DataDirectory(path).open_log()) as log:
        value = log.store.get(BLOCKS, key(first))
        assert value is not None
        log.store.commit([Change(BLOCKS, key(first), flip_middle(value))], 0)


def test_progress_is_told(made: Path) -> None:
    """Who waits is told of each event that was reached, printed or not."""
    shown: list[int] = []
    printed: list[bytes] = []
    with opened(made, needs_machine=False) as place:
        form = Form(b"", lambda part: bytes(part.records.body))
        printer = EventPrinter(EventReader(0), form, 1, printed.append, shown.append)
        printer.look(place, 9)
    assert printed == []
    assert shown == sorted(set(shown))
    assert shown[-1] == 9


def fails(done: Ended, code: int, said: str) -> None:
    """Fail unless it ended so, and said so in one line."""
    assert done.code == code, done
    assert said in done.err
    assert done.err.count("\n") == 1


class TestFormats:
    """The ten votes, in each format."""

    def test_lines(self, made: Path, run: Run) -> None:
        """A line is a letter and its votes."""
        assert run(made).out.decode().splitlines() == [
            "a 1",
            "b 2",
            "a 3",
            "z 4000000000",
            r"\xe9 5",
            r"\x20 6",
            "a 7",
            "b 8",
            "c 9",
            "a 10",
        ]

    def test_json(self, made: Path, run: Run) -> None:
        """An object has sequence, exact time, letter, votes; a block has one time."""
        lines = run(made, "--json").out.splitlines()
        assert lines[3] == (
            b'{"sequence": 4, "time": "2023-11-14T22:13:22Z", '
            b'"time_ns": 1700000002000000000, "letter": "z", "votes": 4000000000}'
        )
        found = [json.loads(line) for line in lines]
        blocks = [number for number, lot in enumerate(LOTS, 1) for _ in lot]
        assert found == [
            {
                "sequence": sequence,
                "time": f"2023-11-14T22:13:{20 + block}Z",
                "time_ns": VOTES_META.created_ns + block * 1_000_000_000,
                "letter": letter.decode("latin-1"),
                "votes": votes,
            }
            for sequence, ((letter, votes), block) in enumerate(
                zip(VOTES, blocks, strict=True), 1
            )
        ]

    def test_csv(self, made: Path, run: Run) -> None:
        """The columns are named, and a row has what an object has."""
        text = run(made, "--format", "csv").out.decode()
        header, *rows = csv.reader(io.StringIO(text))
        assert header == ["sequence", "time", "time_ns", "letter", "votes"]
        first = ["1", "2023-11-14T22:13:21Z", "1700000001000000000", "a", "1"]
        assert (rows[0], rows[4][3], len(rows)) == (first, r"\xe9", 10)

    def test_wire(self, made: Path, run: Run) -> None:
        """The frames are those that the votes came in."""
        assert run(made, "--format", "wire").out == wire(VOTES)

    @pytest.mark.parametrize("format_", ["lines", "wire"])
    def test_send_reads_it(self, made: Path, run: Run, format_: str) -> None:
        """What is printed as lines, or as frames, `alphabet send` takes as it is."""
        printed = run(made, "--format", format_).out
        words = ["alphabet.cli", "send", "-", "--format", format_, "--to", "-"]
        done = subprocess.run(
            [*PYTHON, *words],
            cwd=ROOT,
            env=environment({}),
            input=printed,
            capture_output=True,
            timeout=SECONDS_MAX,
            check=True,
        )
        assert done.stdout == wire(VOTES)

    @pytest.mark.parametrize("format_", ["lines", "json", "csv", "wire"])
    def test_of_none(self, tmp_path: Path, run: Run, format_: str) -> None:
        """An empty log gives nothing but a header."""
        done = run(write_votes(tmp_path / "data", []).path, "--format", format_)
        assert (done.code, done.err) == (0, "")
        assert done.out.count(b"\n") == (format_ == "csv")

    def test_nothing_is_changed(self, data: Path, run: Run) -> None:
        """The log's file is byte for byte what it was."""
        before = (data / "log" / "data.mdb").read_bytes()
        assert run(data).code == 0
        assert (data / "log" / "data.mdb").read_bytes() == before


class TestBounds:
    """Which events."""

    def test_after_is_exclusive_until_is_inclusive(self, made: Path, run: Run) -> None:
        """For every pair of bounds, exactly the votes between them are printed."""
        for after in range(11):
            for until in range(after, 11):
                words = ["--after", after, "--until", until, "--format", "wire"]
                done = run(made, *words)
                assert (done.code, done.out) == (0, wire(VOTES[after:until])), words

    @pytest.mark.parametrize(
        ("words", "expected"),
        [
            ("--last 3", range(7, 10)),
            ("--last 0", range(0)),
            ("--last 99", range(10)),
            ("--last 2 --until 5", range(3, 5)),
            ("--after 2023-11-14T22:13:22Z", range(5, 10)),
            ("--until 2023-11-14T22:13:22.5Z", range(5)),
            ("--after 2023-11-14 --until 2023-11-14T22:13:23", range(6)),
        ],
    )
    def test_other_bounds(
        self, made: Path, run: Run, words: str, expected: range
    ) -> None:
        """The last events, and those of a time, are counted from the same sequences."""
        done = run(made, *words.split(), "--format", "wire")
        assert (done.code, done.err) == (0, "")
        assert done.out == wire(VOTES[each] for each in expected)

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            ("--until 11", "--until 11 is not in the log, which goes from 0 to 10"),
            ("--after 11", "--after 11 is not in the log, which goes from 0 to 10"),
            ("--after 11 --follow", "--after 11 is not in the log"),
            ("--after 5 --until 4", "--until 4 comes before --after 5"),
            ("--after 5 --last 4", "give --after or --last, not both"),
            ("--after noon", "'noon' is neither a sequence nor a time"),
            ("--until 2023-11-14 --follow", "--until takes a sequence"),
            ("--last -1", "--last"),
            ("--pipeline no", "there is no pipeline 'no' (known: alphabet)"),
            ("--format table", "'table' is not one of"),
        ],
    )
    def test_2_usage(self, made: Path, run: Run, words: str, said: str) -> None:
        """What cannot be asked for is said, and nothing is printed."""
        done = run(made, *words.split())
        fails(done, 2, said)
        assert done.out == b""

    def test_3_no_log(self, tmp_path: Path, run: Run) -> None:
        """A directory that is not there is named."""
        fails(run(tmp_path / "none"), 3, f"{tmp_path / 'none'}: no such directory")

    def test_a_log_that_begins_later(self, tmp_path: Path, run: Run) -> None:
        """Behind a base there is nothing to print, and that is said."""
        new = tmp_path / "new"
        write_votes(tmp_path / "old", snapshots=[6])
        assert main(["compact", str(tmp_path / "old"), str(new)]) == 0
        assert run(new, "--format", "wire").out == wire(VOTES[6:])
        fails(run(new, "--after", 5), 2, "which goes from 6 to 10")


class TestDamage:
    """What is lost, or not what it was."""

    @pytest.mark.parametrize("first", [1, 4, 6, 7])
    def test_1_all_before_it_is_printed(self, data: Path, run: Run, first: int) -> None:
        """The events before a damaged block are printed; then it is named."""
        damage(data, first)
        done = run(data, "--format", "wire")
        assert done.out == wire(VOTES[: first - 1])
        fails(done, 1, f"is damaged at sequence {first}")

    def test_before_it_nothing_is_damaged(self, data: Path, run: Run) -> None:
        """Who asks for less than the damage gets it, and no error."""
        damage(data, 7)
        done = run(data, "--until", 6, "--format", "wire")
        assert (done.code, done.out, done.err) == (0, wire(VOTES[:6]), "")
        done = run(data, "--last", 2, "--format", "wire")
        assert (done.code, done.out) == (1, wire(VOTES[4:6]))

    def test_1_a_gap(self, data: Path, run: Run) -> None:
        """Lost events are refused where they come, or named and passed over."""
        with contextlib.closing(DataDirectory(data).open_log()) as log:
            append_records(log, Records.gap(5))
            append_votes(log, [(b"x", 1)])
        done = run(data, "--format", "wire")
        assert done.out == wire(VOTES)
        fails(done, 1, "events 11 to 15 are lost")
        done = run(data, "--format", "wire", "--accept-gaps")
        assert (done.code, done.err) == (0, "events 11 to 15 are lost\n")
        assert done.out == wire([*VOTES, (b"x", 1)])
        done = run(data, "--json", "--accept-gaps", "--after", 12)
        assert [json.loads(line)["sequence"] for line in done.out.splitlines()] == [16]


MODULE = """
from alphabet import wallaroo
class Count:
    total = 0
class Builder:
    def build(self): return Count()
class Event:
    def __init__(self, bs): self.bs = bs
    def __repr__(self): return f"Event({{self.bs!r}},\\n2)"
class Codec:
    def header_length(self): return 2
    def payload_length(self, bs): return int.from_bytes(bs, "{order}")
    def decode(self, bs):
        if bs == b"no": raise ValueError("no event")
        return Event(bs)
    def encode(self, data): return b""
class Add:
    def name(self): return "add"
    def compute(self, data, state): return None, False
def application_setup(args):
    ab = wallaroo.ApplicationBuilder("other")
    ab.new_pipeline("only", wallaroo.TCPSourceConfig("127.0.0.1", "0", Codec()))
    ab.to_stateful(Add(), Builder(), "count")
    ab.to_sink(wallaroo.TCPSinkConfig("", "", Codec()))
    return ab.build()
"""


class TestOtherApplications:
    """A log that Alphabet's own application did not write."""

    def make(
        self, place: Path, records: Sequence[bytes], order: str = "big"
    ) -> tuple[Path, str]:
        """Make a module in a place, and a log of its; give both names."""
        name = f"other_{place.name.replace('-', '_')}"
        (place / f"{name}.py").write_text(MODULE.format(order=order))
        directory = DataDirectory.claim(place / "data")
        with directory.new_log(Meta("other-log", "other", ("only",))) as log:
            append_records(log, Records.pack(records))
        directory.release()
        return place / "data", name

    @pytest.fixture(autouse=True)
    def in_place(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let modules be found, and every test begin without them."""
        monkeypatch.chdir(tmp_path)
        monkeypatch.syspath_prepend(tmp_path)

    def test_events_as_they_show(self, tmp_path: Path, run: Run) -> None:
        """An event is what its decoder makes of it, on one line."""
        data, name = self.make(tmp_path, [b"1", b"22"])
        words = (data, "--application-module", name)
        assert run(*words).out == b"Event(b'1'), 2)\nEvent(b'22'), 2)\n".replace(
            b"),", b",", 2
        )
        [first, _] = run(*words, "--json").out.splitlines()
        assert json.loads(first)["event"] == "Event(b'1',\n2)"
        text = run(*words, "--format", "csv").out.decode()
        rows = list(csv.reader(io.StringIO(text, newline="")))
        assert [row[3] for row in rows] == [
            "event",
            "Event(b'1',\n2)",
            "Event(b'22',\n2)",
        ]

    def test_frames_have_its_headers(self, tmp_path: Path, run: Run) -> None:
        """Frames are as long in their headers as the application has them."""
        data, name = self.make(tmp_path, [b"1", b"", b"333"])
        done = run(data, "--application-module", name, "--format", "wire")
        assert done.out == b"\0\x011\0\0\0\x03333"

    def test_3_frames_that_it_would_not_read(self, tmp_path: Path, run: Run) -> None:
        """Where headers are not a big-endian length, no frames are written."""
        data, name = self.make(tmp_path, [b"1"], "little")
        done = run(data, "--application-module", name, "--format", "wire")
        fails(done, 3, "its decoder reads 256 where 1 is written")
        assert done.out == b""

    def test_1_an_event_that_is_none_now(self, tmp_path: Path, run: Run) -> None:
        """What the decoder refuses today is named by its sequence."""
        data, name = self.make(tmp_path, [b"1", b"no"])
        done = run(data, "--application-module", name)
        fails(done, 1, "event 2 can no longer be replayed: ValueError: no event")

    def test_raw_needs_no_application(self, tmp_path: Path, run: Run) -> None:
        """Records are hexadecimal digits, and no module is imported for them."""
        data, _ = self.make(tmp_path, [b"1", b"", b"\xff\0"])
        fails(run(data), 3, "it belongs to application 'other', not 'alphabet'")
        assert run(data, "--raw").out == b"31\n\nff00\n"
        found = [json.loads(x) for x in run(data, "--raw", "--json").out.splitlines()]
        assert [(each["sequence"], each["record"]) for each in found] == [
            (1, "31"),
            (2, ""),
            (3, "ff00"),
        ]
        text = run(data, "--raw", "--format", "csv").out
        assert text.splitlines()[0] == b"sequence,time,time_ns,record"
        done = run(data, "--raw", "--format", "wire")
        assert done.out == frame(b"1") + frame(b"") + frame(b"\xff\0")

    def test_pipelines_are_told_apart(self, tmp_path: Path, run: Run) -> None:
        """Where there are several, each event tells its own, and one can be chosen."""
        directory = DataDirectory.claim(tmp_path / "data")
        with directory.new_log(toy.META) as log:
            for pipeline, payload in [(0, b"p1"), (1, b"p2"), (1, b"p3"), (0, b"p4")]:
                records = Records.pack([payload])
                block = Block.seal(log.tail, records, time_ns=1, pipeline=pipeline)
                log.commit(Transaction((block,)))
        directory.release()
        found = run(directory.path, "--raw", "--json").out.splitlines()
        names = [json.loads(line)["pipeline"] for line in found]
        assert names == ["one", "two", "two", "one"]
        words = (directory.path, "--raw", "--format")
        rows = run(*words, "csv", "--pipeline", "two").out.decode().splitlines()
        assert [(row.split(",")[0], row.split(",")[3]) for row in rows] == [
            ("sequence", "pipeline"),
            ("2", "two"),
            ("3", "two"),
        ]
        done = run(*words, "wire", "--pipeline", "one")
        assert done.out == frame(b"p1") + frame(b"p4")
        fails(run(*words, "wire"), 2, "give one with --pipeline (one, two)")


@contextlib.contextmanager
def following(
    data: Path, *words: object
) -> Iterator[tuple[subprocess.Popen[bytes], Callable[[], bytes]]]:
    """Follow a log in a process of its own; give it, and what it has printed so far."""
    out = data.parent / "followed"
    options = "--follow --interval-seconds 0.01 --format wire"
    command = f"recovery.cli events {data} {options}"
    with (
        out.open("wb") as stream,
        subprocess.Popen(
            [*PYTHON, *command.split(), *map(str, words)],
            cwd=ROOT,
            env=environment({}),
            stdout=stream,
            stderr=subprocess.PIPE,
        ) as process,
    ):
        try:
            yield process, out.read_bytes
        finally:
            process.kill()


def wait_printed(printed: Callable[[], bytes], votes: Sequence[Vote]) -> None:
    """Wait until these votes are printed, and nothing else is."""
    wait_until(lambda: printed() == wire(votes), f"{len(votes)} votes")


def ended(process: subprocess.Popen[bytes]) -> tuple[int, str]:
    """Wait for a process's end; give its code and what it said."""
    _, err = process.communicate(timeout=SECONDS_MAX)
    return process.returncode, err.decode()


class TestFollow:
    """Beside a server that counts."""

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_a_signal_ends_it(self, data: Path, number: int) -> None:
        """Ctrl-C and SIGTERM are how it ends, so they are no failure."""
        with following(data) as (process, printed):
            wait_printed(printed, VOTES)
            process.send_signal(number)
            assert ended(process) == (0, "")

    def test_what_comes_is_printed_once(self, tmp_path: Path) -> None:
        """Votes are printed in order as they are counted, over a restart too."""
        lots: list[list[Vote]] = [[(b"a", n), (b"b", n)] for n in range(1, 7)]
        sent: list[Vote] = []
        with contextlib.ExitStack() as stack:
            server = stack.enter_context(serving(tmp_path))
            assert submit(server.port, wire(lots[0]))
            sent += lots[0]
            process, printed = stack.enter_context(following(tmp_path / "data"))
            for lot in lots[1:]:
                wait_printed(printed, sent)
                if len(sent) == 6:
                    server.kill()
                    server = stack.enter_context(serving(tmp_path))
                assert submit(server.port, wire(lot))
                sent += lot
            wait_printed(printed, sent)
            process.send_signal(signal.SIGINT)
            assert ended(process) == (0, "")
            assert printed() == wire(sent)

    def test_until_ends_it(self, data: Path) -> None:
        """With a bound that is still to come, it waits for that event and ends."""
        with following(data, "--last", 1, "--until", 12) as (process, printed):
            wait_printed(printed, VOTES[-1:])
            with contextlib.closing(DataDirectory(data).open_log()) as log:
                append_votes(log, [(b"x", 1), (b"y", 2), (b"z", 3)])
            assert ended(process) == (0, "")
            assert printed() == wire([*VOTES[-1:], (b"x", 1), (b"y", 2)])

    def test_1_damage_ends_it(self, data: Path) -> None:
        """A block that is damaged when it comes is named."""
        with following(data, "--after", 10) as (process, printed):
            with contextlib.closing(DataDirectory(data).open_log()) as log:
                append_votes(log, [(b"x", 1)])
            wait_until(printed, "a vote")
            with contextlib.closing(DataDirectory(data).open_log()) as log:
                records = Records.pack([b"y\0\0\0\1"])
                block = Block.seal(log.tail, records, time_ns=2**62).encoded
                change = Change(BLOCKS, key(12), flip_middle(block))
                log.store.commit([change], 12)
            code, err = ended(process)
            assert code == 1
            assert "is damaged at sequence 12" in err
            assert printed() == wire([(b"x", 1)])

    def test_1_another_log_ends_it(self, data: Path) -> None:
        """A log that was put in the place of the one that was followed is refused."""
        other = attrs.evolve(VOTES_META, log_id="f" * 32)
        write_votes(data.parent / "other", meta=other)
        with following(data) as (process, printed):
            wait_printed(printed, VOTES)
            # One step, so that there is a log at every look.
            file = data / "log" / "data.mdb"
            (data.parent / "other" / "log" / "data.mdb").rename(file)
            code, err = ended(process)
            assert code == 1
            assert f"was replaced: it is log {'f' * 32}" in err

    def test_nobody_reads_any_more(self, data: Path) -> None:
        """As after `| head`, it ends without a word, though no vote comes."""
        process = subprocess.Popen(
            [*PYTHON, "recovery.cli", "events", str(data), "--follow"],
            cwd=ROOT,
            env=environment({}),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        with process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"a 1\n"
            process.stdout.close()
            assert process.stderr is not None
            assert process.stderr.read() == b""
            assert process.wait(SECONDS_MAX) == 0


class TestStreams:
    """Standard output and standard error."""

    @pytest.mark.parametrize("format_", ["csv", "wire"])
    def test_a_reader_that_went_away(self, tmp_path: Path, format_: str) -> None:
        """As after `| head`, it ends at once, without a word."""
        data = write_votes(tmp_path / "data", [[(b"a", 1)] * 20_000] * 3).path
        with subprocess.Popen(
            [*PYTHON, "recovery.cli", "events", str(data), "--format", format_],
            cwd=ROOT,
            env=environment({}),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:
            assert process.stdout is not None
            assert process.stdout.read(10)
            process.stdout.close()
            assert process.stderr is not None
            assert process.stderr.read() == b""
            assert process.wait(SECONDS_MAX) == 0

    @pytest.mark.parametrize("is_file", [True, False])
    def test_a_bar_is_shown_while_a_file_is_written(
        self, data: Path, *, is_file: bool
    ) -> None:
        """A bar tells how far a file is; a pipe's reader may use the terminal."""
        ours, theirs = pty.openpty()
        with (
            os.fdopen(ours, "rb", buffering=0) as terminal,
            (data.parent / "out").open("wb") as file,
        ):
            done = subprocess.run(
                [*PYTHON, "recovery.cli", "events", str(data), "--format", "wire"],
                env=environment({"TERM": "xterm"}),
                cwd=ROOT,
                stdout=file if is_file else subprocess.PIPE,
                stderr=theirs,
                timeout=SECONDS_MAX,
                check=True,
            )
            os.write(theirs, b"!")
            os.close(theirs)
            shown = terminal.read(1 << 16)
        assert (b"events" in shown) == is_file
        printed = (data.parent / "out").read_bytes() if is_file else done.stdout
        assert printed == wire(VOTES)

    def test_help_says_what_bounds_mean(self) -> None:
        """The help says which bound is exclusive, and which inclusive."""
        done: Finished = finish("recovery.cli", "events", "--help")
        assert "--after (exclusive) to --until (inclusive)" in done.stdout
