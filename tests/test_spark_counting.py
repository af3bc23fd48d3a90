"""Segments into totals, without Spark: crashes, late and doubled segments, sinks."""

import contextlib
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import attrs
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from alphabet.network.address import Address
from alphabet.spark import sinks
from alphabet.spark.account import Account, Addition, RefusedError
from alphabet.spark.checkpoint import Checkpoint, CheckpointError
from alphabet.spark.segment_files import SegmentFiles
from alphabet.spark.sinks import ConsoleSink, FilesSink, SinkError, TcpSink, parse_sink
from log import failpoint
from recovery.exporting.segment import Label
from tests.segments_made import TYPES, Vote, label_of, write_segment
from tests.spark_model import SparkModel

FAILPOINTS = ["spark.before_rename", "spark.after_store", "spark.after_sinks"]
SERVERS = ["eu", "us", "ap"]
VOTES = st.lists(
    st.tuples(st.sampled_from("AB\xff"), st.integers(0, 2**32 - 1)),
    min_size=1,
    max_size=3,
)


class Crash(BaseException):
    """The process ends here."""


@attrs.define
class Witness:
    """A sink that holds each total to those shown before, over restarts too."""

    totals: dict[str, int] = attrs.Factory(dict)

    def put(self, account: Account) -> None:
        """See new totals."""
        for letter, total in self.totals.items():
            assert account.totals[letter] >= total
        self.totals = dict(account.totals)

    def renew(self, account: Account) -> None:
        """Nobody comes anew."""

    def close(self) -> None:
        """Nothing is open."""


def summed(votes: dict[str, list[Vote]]) -> dict[str, int]:
    """Add up all votes."""
    found: dict[str, int] = {}
    for each in votes.values():
        for letter, number in each:
            found[letter] = found.get(letter, 0) + number
    return found


class Machine(RuleBasedStateMachine):
    """Servers whose segments come in any order, and runs that end anywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = TemporaryDirectory()
        place = Path(self.directory.name)
        self.segments = place / "segments"
        self.segments.mkdir()
        self.totals = place / "totals"
        self.spark = SparkModel(self.segments, place / "checkpoint")
        self.witness = Witness()
        self.ends = dict.fromkeys(SERVERS, 0)
        self.late: list[tuple[str, Label, list[Vote]]] = []
        self.votes: dict[str, list[Vote]] = {}
        self.restored = 0

    def teardown(self) -> None:
        """Remove all files."""
        self.directory.cleanup()

    def _make(self, server: str, votes: list[Vote]) -> tuple[str, Label, list[Vote]]:
        first = self.ends[server] + 1
        self.ends[server] += len(votes)
        return server, label_of(first, self.ends[server], f"log-{server}"), votes

    def _write(self, server: str, label: Label, votes: list[Vote]) -> None:
        file = write_segment(self.segments / server, server, label, votes)
        self.votes[str(file)] = votes

    @rule(server=st.sampled_from(SERVERS), votes=VOTES, is_late=st.booleans())
    def export(self, server: str, votes: list[Vote], *, is_late: bool) -> None:
        """A segment is written, or held back for a while."""
        made = self._make(server, votes)
        if is_late:
            self.late.append(made)
        else:
            self._write(*made)

    @rule(data=st.data())
    def arrive(self, data: st.DataObject) -> None:
        """A late segment is there after all."""
        if self.late:
            self._write(*self.late.pop(data.draw(st.integers(0, len(self.late) - 1))))

    def _run(self) -> Account:
        return self.spark.run([self.witness, FilesSink(self.totals)])

    @rule(name=st.sampled_from(FAILPOINTS), turn=st.integers(1, 4))
    def crash(self, name: str, turn: int) -> None:
        """A run ends at an instant, if it gets so far."""
        turns = iter(range(turn, 0, -1))

        def reach(reached: str) -> None:
            if reached == name and next(turns) == 1:
                raise Crash

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(failpoint, "handler", reach)
            with contextlib.suppress(Crash):
                self._run()

    @rule()
    def run(self) -> None:
        """A run to the end has each vote once, and says what is missing."""
        account = self._run()
        assert account.totals == summed(self.votes)
        assert self.witness.totals == account.totals
        lacking = {
            server
            for server, label, _ in self.late
            if any(
                f"/{server}/" in file
                and int(Path(file).name[:20]) > label.last_sequence
                for file in self.votes
            )
        }
        assert account.missing.keys() == lacking
        files = sorted(self.totals.glob("*.json"))
        assert len(files) == self.spark.done
        if files:
            told = json.loads(files[-1].read_text())
            assert told["totals"] == account.totals
            assert told["missing"].keys() == lacking

    @rule(data=st.data(), votes=VOTES)
    def restore(self, data: st.DataObject, votes: list[Vote]) -> None:
        """What has a sequence again is refused, and taken away; totals stay."""
        self.run()
        server = data.draw(st.sampled_from(SERVERS))
        known = [
            int(Path(file).name[21:41]) for file in self.votes if f"/{server}/" in file
        ]
        if not known:
            return
        again = data.draw(st.sampled_from(known))
        self.restored += 1
        label = label_of(again, again + len(votes) - 1, f"log-{server}", 1)
        file = write_segment(
            self.segments / f"restored{self.restored}", server, label, votes
        )
        for _ in range(2):
            with pytest.raises(RefusedError, match="counted already"):
                self._run()
        file.unlink()
        self.run()

    @invariant()
    def no_half_file(self) -> None:
        """A file of totals is whole."""
        for file in self.totals.glob("*.json"):
            json.loads(file.read_text())


TestMachine = Machine.TestCase
if not os.environ.get("ALPHABET_SOAK"):
    TestMachine.settings = settings(max_examples=25, stateful_step_count=20)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Give a directory of segments with one of a server."""
    write_segment(tmp_path / "s" / "eu", "eu", label_of(1, 2), [("A", 1), ("B", 2)])
    return tmp_path


def model(place: Path) -> SparkModel:
    """Give Spark's model for a place."""
    return SparkModel(place / "s", place / "c")


class TestRestored:
    """A server that went on otherwise after a backup was restored."""

    def test_under_the_same_name(self, place: Path) -> None:
        """A segment that was counted and has other contents now is noticed."""
        spark = model(place)
        spark.run([])
        write_segment(
            place / "s" / "eu", "eu", label_of(1, 2, checksum=7), [("A", 1), ("B", 9)]
        )
        with pytest.raises(RefusedError, match="'eu' was restored from an old backup"):
            spark.run([])
        assert spark.done == 1

    def test_while_it_runs(self, place: Path) -> None:
        """It is noticed before a segment that comes after is added."""
        spark = model(place)
        spark.run([])
        directory = place / "s" / "eu"

        @attrs.define
        class Restores:
            def put(self, account: Account) -> None:
                del account
                votes = [("A", 1), ("B", 9)]
                write_segment(directory, "eu", label_of(1, 2, checksum=7), votes)

            def renew(self, account: Account) -> None:
                pass

            def close(self) -> None:
                pass

        write_segment(directory, "eu", label_of(3, 3), [("A", 1)])
        with pytest.raises(RefusedError, match="went on otherwise"):
            spark.run([Restores()])

    def test_its_newest_segment_is_gone(self, place: Path) -> None:
        """It is said once that the newest segment counted is not there any more."""
        spark = model(place)
        spark.run([])
        (place / "s" / "eu" / label_file(1, 2)).unlink()
        write_segment(place / "s" / "us", "us", label_of(1, 1, "log-us"), [("A", 1)])
        spark.run([])
        newest = f"eu/{label_file(1, 2)}"
        [line] = [line for line in spark.said if "gone" in line]
        assert line.startswith(f"server eu: {newest}, the last that was counted")

    def test_under_another_name(self, place: Path) -> None:
        """A log that comes under a second name is refused, and not added twice."""
        spark = model(place)
        spark.run([])
        write_segment(place / "s" / "again", "again", label_of(1, 3), [("A", 1)] * 3)
        with pytest.raises(RefusedError, match=r"^again/.* 1 to 2 of log .*'eu'"):
            spark.run([])

    def test_a_segment_copied(self, place: Path) -> None:
        """A copy of a counted segment elsewhere is refused."""
        spark = model(place)
        spark.run([])
        shutil.copytree(place / "s" / "eu", place / "s" / "copy")
        with pytest.raises(RefusedError, match=r"^copy/.* 1 to 2 of server 'eu'"):
            spark.run([])


def label_file(first: int, last: int) -> str:
    """Give a segment's name."""
    return f"{first:020}-{last:020}-log.parquet"


class TestSegmentFiles:
    """What is no segment is told in a line."""

    @pytest.mark.parametrize("name", ["notes.txt", "a.parquet", f"0{label_file(1, 2)}"])
    def test_a_foreign_name(self, place: Path, name: str) -> None:
        """A name that no exporter gives is refused."""
        (place / "s" / name).write_bytes(b"")
        with pytest.raises(RefusedError, match=f"holds {name}, which is no segment"):
            model(place).run([])

    @pytest.mark.parametrize("name", [".next", "_SUCCESS", ".x/y", "_y/x"])
    def test_a_hidden_name(self, place: Path, name: str) -> None:
        """What readers of Parquet pass over is passed over."""
        (place / "s" / name).parent.mkdir(exist_ok=True)
        (place / "s" / name).write_bytes(b"")
        assert list(SegmentFiles(place / "s").files()) == [f"eu/{label_file(1, 2)}"]

    def test_a_renamed_one(self, place: Path) -> None:
        """A segment under another's name is refused."""
        file = place / "s" / "eu" / label_file(1, 2)
        file.rename(file.with_name(label_file(3, 4)))
        with pytest.raises(RefusedError, match="it was renamed"):
            model(place).run([])

    def test_not_a_parquet_file(self, place: Path) -> None:
        """A file that is cut short is refused by its name."""
        file = place / "s" / "eu" / label_file(1, 2)
        file.write_bytes(file.read_bytes()[:-1])
        with pytest.raises(RefusedError, match="no whole Parquet file"):
            SegmentFiles(place / "s").label(f"eu/{label_file(1, 2)}")

    @pytest.mark.parametrize("is_labelled", [True, False])
    def test_other_columns(self, place: Path, *, is_labelled: bool) -> None:
        """A Parquet file of others is refused, and so is one without a label."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        types = pa.schema([TYPES[0]]) if is_labelled else TYPES
        file = place / "s" / label_file(3, 3)
        with pq.ParquetWriter(file, types) as writer:
            if is_labelled:
                writer.add_key_value_metadata({"alphabet": label_of(3, 3).encode()})
        match = "its columns are server" if is_labelled else "does not say what"
        with pytest.raises(RefusedError, match=match):
            SegmentFiles(place / "s").label(file.name)

    def test_names_that_a_uri_quotes(self, place: Path) -> None:
        """A file that Spark names by a URI is found again."""
        uri = (place / "s" / "server=a b%" / "x").as_uri()
        assert SegmentFiles(place / "s").file_of(uri) == "server=a b%/x"


class TestCheckpoint:
    """Which directories will do."""

    def test_of_another_directory(self, place: Path) -> None:
        """A checkpoint counts the directory that it was begun with, and no other."""
        model(place).run([])
        (place / "other").mkdir()
        other = SparkModel(place / "other", place / "c")
        with pytest.raises(CheckpointError, match=r"/s, not of .*/other"):
            other.run([])

    def test_a_foreign_directory(self, place: Path) -> None:
        """A directory with something else in it is left alone."""
        (place / "c").mkdir()
        (place / "c" / "x").write_text("")
        with pytest.raises(CheckpointError, match="holds 'x'"):
            model(place).run([])

    def test_in_use(self, place: Path) -> None:
        """A second process is kept out."""
        with (
            Checkpoint.claim(place / "c", place / "s"),
            pytest.raises(CheckpointError, match="another process"),
        ):
            model(place).run([])

    def test_damaged(self, place: Path) -> None:
        """An account that is not what was written is refused."""
        model(place).run([])
        file = place / "c" / "account.json"
        file.write_bytes(file.read_bytes().replace(b"A", b"B", 1))
        with pytest.raises(CheckpointError, match="checksum"):
            model(place).run([])

    def test_it_cannot_be_written(self, place: Path) -> None:
        """An account that the disk does not take is named, and stays as it was."""
        with Checkpoint.claim(place / "c", place / "s") as checkpoint:
            before = checkpoint.account
            (place / "c" / ".account.json.tmp").mkdir()
            after = attrs.evolve(before, batch=7)
            with pytest.raises(
                CheckpointError, match=r"account\.json: it cannot be wr"
            ):
                checkpoint.store(after)
            assert checkpoint.account == before

    def test_its_parent_is_missing(self, place: Path) -> None:
        """Only the checkpoint's own directory is made."""
        with pytest.raises(CheckpointError, match="No such file"):
            SparkModel(place / "s", place / "x" / "c").run([])

    def test_spark_begins_anew(self, place: Path) -> None:
        """An account is refused with notes of Spark's that begin anew."""
        spark = model(place)
        spark.run([])
        write_segment(place / "s" / "us", "us", label_of(1, 1, "log-us"), [("A", 1)])
        spark.batches.clear()
        spark.done = 0
        with pytest.raises(CheckpointError, match="not kept together"):
            spark.run([])


OUTPUT = struct.Struct(">IsQ")


@attrs.define
class Receiver:
    """Takes connections, one after another, and keeps what each sent."""

    listener: socket.socket
    heard: list[bytes] = attrs.Factory(list)

    def take(self, connections: int) -> None:
        """Read some connections to their ends."""
        for _ in range(connections):
            connection, _ = self.listener.accept()
            with connection, connection.makefile("rb") as stream:
                self.heard.append(stream.read())

    @property
    def address(self) -> Address:
        """Where it listens."""
        host, port = self.listener.getsockname()
        return Address(host, port)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """Give a receiver that listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(30)
        yield Receiver(listener)


class TestSinks:
    """Where totals go."""

    def test_console(self, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """New totals are printed, each once."""
        spark = model(place)
        spark.run([console := ConsoleSink()])
        write_segment(place / "s" / "us", "us", label_of(1, 1, "log-us"), [("\xff", 5)])
        spark.run([console])
        assert capsys.readouterr().out == "A => 1\nB => 2\n\\xff => 5\n"

    def test_tcp(self, place: Path, receiver: Receiver) -> None:
        """Frames are the tutorial's, new ones only, and all on connecting again."""
        thread = threading.Thread(target=receiver.take, args=(2,))
        thread.start()
        spark = model(place)
        spark.files_max = 1
        write_segment(place / "s" / "us", "us", label_of(1, 1, "log-us"), [("A", 5)])
        spark.run([TcpSink(receiver.address)])
        spark.run([TcpSink(receiver.address)])
        thread.join()
        frames = [list(OUTPUT.iter_unpack(each)) for each in receiver.heard]
        assert frames == [
            [(9, b"A", 1), (9, b"B", 2), (9, b"A", 6)],
            [(9, b"A", 6), (9, b"B", 2)],
        ]

    def test_a_receiver_that_comes_again(self, place: Path, receiver: Receiver) -> None:
        """A connection that breaks is dialled again, and then given all totals."""
        account = model(place).run([])
        sink = TcpSink(receiver.address)
        sink.put(account)
        receiver.listener.accept()[0].close()
        thread = threading.Thread(target=receiver.take, args=(1,))
        thread.start()
        # What is sent into a connection that is reset may go unnoticed once.
        for sequence in range(3, 6):
            vote = Addition("f", "eu", label_of(sequence, sequence), {"A": 1})
            account = account.add(sequence, [vote])
            sink.put(account)
        sink.close()
        thread.join()
        [frames] = [list(OUTPUT.iter_unpack(each)) for each in receiver.heard]
        assert frames[:2] == [(9, b"A", frames[0][2]), (9, b"B", 2)]
        assert frames[-1] in {(9, b"A", 4), (9, b"B", 2)}

    def test_a_receiver_that_comes_between_batches(
        self, place: Path, receiver: Receiver
    ) -> None:
        """One that closed and listens again has all totals before the next batch."""
        account = model(place).run([])
        sink = TcpSink(receiver.address)
        sink.put(account)
        sink.renew(account)
        with receiver.listener.accept()[0] as first:
            assert first.recv(1024)
        thread = threading.Thread(target=receiver.take, args=(1,))
        thread.start()
        sink.renew(account)
        sink.close()
        thread.join()
        assert [list(OUTPUT.iter_unpack(each)) for each in receiver.heard] == [
            [(9, b"A", 1), (9, b"B", 2)]
        ]

    def test_a_receiver_that_closed_before_a_batch(
        self, place: Path, receiver: Receiver
    ) -> None:
        """What comes after a receiver closed goes to the next, and not nowhere."""
        account = model(place).run([])
        sink = TcpSink(receiver.address)
        sink.put(account)
        with receiver.listener.accept()[0] as first:
            assert first.recv(1024)
        thread = threading.Thread(target=receiver.take, args=(1,))
        thread.start()
        vote = Addition("f", "eu", label_of(3, 3), {"A": 1})
        sink.put(account.add(1, [vote]))
        sink.close()
        thread.join()
        assert [list(OUTPUT.iter_unpack(each)) for each in receiver.heard] == [
            [(9, b"A", 2), (9, b"B", 2)]
        ]

    def test_a_receiver_that_is_away(
        self, place: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A receiver that stays away ends the command, and names the address."""
        monkeypatch.setattr(sinks, "DIAL_SECONDS", 0.0)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            address = Address(*listener.getsockname())
        with pytest.raises(SinkError, match=rf"^{address} does not take totals"):
            model(place).run([TcpSink(address)])

    def test_files_that_cannot_be(self, place: Path) -> None:
        """A file of totals that cannot be written is named."""
        (place / "file").write_text("")
        with pytest.raises(SinkError, match=r"file/0+\.json: "):
            model(place).run([FilesSink(place / "file")])

    @pytest.mark.parametrize(
        ("text", "sink"),
        [
            ("console", ConsoleSink()),
            ("files:a:b", FilesSink(Path("a:b"))),
            ("tcp:[::1]:7", TcpSink(Address("::1", 7))),
        ],
    )
    def test_words(self, text: str, sink: object) -> None:
        """A sink is named by a word and where it is."""
        assert parse_sink(text) == sink

    @pytest.mark.parametrize("text", ["", "consol", "files", "files:", "tcp:x", "tcp"])
    def test_other_words(self, text: str) -> None:
        """Anything else is no sink."""
        with pytest.raises(ValueError, match=r"console, files:DIR|no address"):
            parse_sink(text)


SAYS = """
import logging, pathlib, sys
from alphabet.spark.query import log_in
log_in(pathlib.Path(sys.argv[1]))
logging.error("Exception while sending command.")
"""


def test_what_py4j_logs(tmp_path: Path) -> None:
    """What py4j logs by itself goes to the log of Spark, and not to the user."""
    file = tmp_path / "spark.log"
    done = subprocess.run(
        [sys.executable, "-c", SAYS, file], capture_output=True, check=True, timeout=30
    )
    assert done.stderr == b""
    assert "Exception while sending command." in file.read_text()
