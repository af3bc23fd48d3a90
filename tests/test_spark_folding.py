"""Batches through an application: each event once, and where its outputs go."""

import contextlib
import functools
import itertools
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import attrs
import pytest
from click.testing import CliRunner

from alphabet.application import TOTAL_MAX
from alphabet.loading import load_machine
from alphabet.network.address import Address
from alphabet.pipeline.machine import Machine
from alphabet.spark import command, sinks
from alphabet.spark.account import Account, RefusedError
from alphabet.spark.checkpoint import CheckpointError
from alphabet.spark.fold import FoldError
from alphabet.spark.folded import Folded
from alphabet.spark.output_sinks import OutputsTcpSink, of_outputs
from alphabet.spark.outputs_file import OutputsFile
from alphabet.spark.sinks import ConsoleSink, FilesSink, SinkError, TcpSink
from log import failpoint
from tests import thousands
from tests.segments_made import Vote, label_of, write_segment
from tests.spark_model import SparkModel
from tests.thousands import Expected

FAILPOINTS = ["spark.before_rename", "spark.after_store", "spark.after_sinks"]


class Crash(BaseException):
    """The process ends here."""


def thousands_machine() -> Machine:
    """Make the application that answers at thousands."""
    return load_machine("tests.thousands", [])


def expected_of(*lots: Sequence[Vote]) -> Expected:
    """Give what must come of votes."""
    expected = Expected()
    for letter, number in itertools.chain(*lots):
        expected.add(letter, number)
    return expected


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Give a place with an empty directory of segments."""
    (tmp_path / "s").mkdir()
    return tmp_path


@attrs.define
class Witness:
    """A sink that keeps each batch's outputs, and in which order batches came."""

    outputs: OutputsFile
    batches: list[int] = attrs.Factory(list)
    kept: dict[int, bytes] = attrs.Factory(dict)

    def put(self, account: Account) -> None:
        """See a batch."""
        data = b"".join(self.outputs.read(account))
        assert self.kept.setdefault(account.batch, data) == data
        self.batches.append(account.batch)

    def renew(self, account: Account) -> None:
        """Nobody comes anew."""

    def close(self) -> None:
        """Nothing is open."""


def model(place: Path, files_max: int = 1) -> SparkModel:
    """Give Spark's model of a place, with the application."""
    spark = SparkModel(place / "s", place / "c", files_max)
    spark.machine = thousands_machine
    return spark


LOTS: dict[str, list[Vote]] = {
    "eu": [("A", 999), ("B", 5)],
    "us": [("A", 1), ("\xff", 1999), ("A", 13)],
    "ap": [("A", 2000), ("B", 995)],
}


def write_lots(place: Path, first: int = 1) -> None:
    """Write a segment for each server."""
    for server, votes in LOTS.items():
        label = label_of(first, first + len(votes) - 1, server)
        write_segment(place / "s" / server, server, label, votes)


class TestFolding:
    """Batches, crashes and what the account says."""

    @pytest.mark.parametrize("files_max", [1, 2])
    @pytest.mark.parametrize("name", FAILPOINTS)
    @pytest.mark.parametrize("turn", range(1, 7))
    def test_each_event_once(
        self, place: Path, name: str, turn: int, files_max: int
    ) -> None:
        """Wherever a run ends, each event is computed once, and no output is lost."""
        write_lots(place)
        spark = model(place, files_max)
        witness = Witness(spark.outputs)
        files = FilesSink(place / "f")
        all_sinks = [witness, of_outputs(files, spark.outputs)]
        turns = iter(range(turn, -1000, -1))

        def reach(reached: str) -> None:
            if reached == name and next(turns) == 1:
                raise Crash

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(failpoint, "handler", reach)
            with contextlib.suppress(Crash):
                spark.run(all_sinks)
        account = spark.run(all_sinks)
        ordered = [
            LOTS[Path(file).parent.name]
            for each in spark.batches
            for file in sorted(each)
        ]
        expected = expected_of(*ordered)
        newest = range(account.batch + 1)
        assert b"".join(witness.kept[number] for number in newest) == expected.outputs
        assert (
            b"".join(
                file.read_bytes() for file in sorted((place / "f").glob("*.outputs"))
            )
            == expected.outputs
        )
        assert witness.batches == sorted(witness.batches)
        assert account.folded is not None
        [state] = account.folded.states
        assert thousands.Builder().load(state.data) == expected.totals
        kept = [file.name for file in spark.outputs.path.iterdir()]
        assert kept == [f"{account.batch:020}"]

    def test_the_order_in_a_batch(self, place: Path) -> None:
        """A batch's events come by server, then sequence, whatever Spark's order."""
        for server, first, votes in [
            ("us", 1, [("A", 1)]),
            ("eu", 3, [("A", 10)]),
            ("eu", 1, [("A", 990), ("A", 1000)]),
        ]:
            label = label_of(first, first + len(votes) - 1, server)
            write_segment(place / "s" / f"{first}{server}", server, label, votes)
        spark = model(place, 9)
        spark.run([witness := Witness(spark.outputs)])
        lots = [("A", 990), ("A", 1000), ("A", 10), ("A", 1)]
        assert witness.kept[0] == expected_of(lots).outputs

    def test_what_failed_on_its_server(self, place: Path) -> None:
        """A vote that its server could not count is not computed."""
        votes = [("A", 999), ("A", 9), ("A", 1)]
        write_segment(place / "s", "eu", label_of(1, 3), votes, counted=[999, 0, 1])
        spark = model(place)
        spark.run([witness := Witness(spark.outputs)])
        assert witness.kept[0] == expected_of([("A", 1000)]).outputs

    def test_a_line_for_what_has_no_output(self, place: Path) -> None:
        """A batch says how many events have none, and names the first."""
        write_segment(
            place / "s", "eu", label_of(4, 6), [("A", 1), ("B", 13), ("?", 1)]
        )
        spark = model(place)
        spark.run([])
        assert (
            "batch 0: 2 events have no output; the first is event 5 of server eu "
            "(compute): thousands: ValueError: it is unlucky"
        ) in spark.said

    def test_a_sum_that_no_frame_carries(self, place: Path) -> None:
        """What the application does not send may be any number."""
        write_segment(place / "s", "eu", label_of(1, 1), [("A", 1)])
        spark = model(place)
        account = spark.run([])
        server = account.servers["eu"]
        full = attrs.evolve(server, totals={"A": TOTAL_MAX})
        again = attrs.evolve(account, servers={"eu": full})
        (place / "c" / "account.json").write_bytes(again.encode())
        write_segment(place / "s", "eu", label_of(2, 2), [("A", 1)])
        assert spark.run([]).totals == {"A": TOTAL_MAX + 1}

    def test_a_refused_batch(self, place: Path) -> None:
        """A sequence that comes twice is refused, and nothing is computed of it."""
        write_lots(place)
        spark = model(place)
        before = spark.run([])
        label = label_of(1, 2, "restored")
        file = write_segment(place / "s" / "r", "eu", label, [("A", 9999), ("B", 1)])
        with pytest.raises(RefusedError, match="counted already"):
            spark.run([])
        file.unlink()
        after = spark.run([])
        assert before.folded is not None
        assert after.folded is not None
        assert after.folded.states == before.folded.states

    def test_with_and_without(self, place: Path) -> None:
        """A checkpoint stays with its application, or with none."""
        write_lots(place)
        spark = model(place)
        spark.run([])
        spark.machine = None
        with pytest.raises(CheckpointError, match=r"'thousands': name its --applic"):
            spark.run([])
        spark.machine = functools.partial(load_machine, "alphabet.application", [])
        with pytest.raises(FoldError, match="'thousands' with STATE_VERSION 1"):
            spark.run([])
        plain = SparkModel(place / "s", place / "plain")
        plain.run([])
        plain.machine = thousands_machine
        with pytest.raises(CheckpointError, match="begun without --application-mod"):
            plain.run([])

    def test_before_the_first_batch(self, place: Path) -> None:
        """Where nothing is counted yet an application may still be named."""
        plain = SparkModel(place / "s", place / "c")
        plain.run([])
        write_lots(place)
        plain.machine = thousands_machine
        assert plain.run([]).folded is not None

    @pytest.mark.parametrize("is_gone", [True, False])
    def test_outputs_that_changed(self, place: Path, *, is_gone: bool) -> None:
        """A checkpoint whose newest outputs are not what they were is refused."""
        write_lots(place)
        spark = model(place)
        spark.run([])
        [file] = spark.outputs.path.iterdir()
        if is_gone:
            file.unlink()
        else:
            file.write_bytes(b"x")
        with pytest.raises(CheckpointError, match=rf"^{file}: .*count all anew"):
            spark.run([])

    def test_outputs_that_cannot_be_written(self, place: Path) -> None:
        """A place that takes no outputs is named."""
        (place / "outputs").write_text("")
        with pytest.raises(CheckpointError, match=r"/outputs/0+7: Not a directory"):
            OutputsFile.of(place).write(7, [b"x"])


def frame(letter: str, total: int) -> bytes:
    """Give the tutorial's frame of a total."""
    return struct.pack(">IsQ", 9, letter.encode("latin-1"), total)


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """Give a socket that listens."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        found.settimeout(30)
        yield found


def tcp_sink(listener: socket.socket, spark: SparkModel) -> OutputsTcpSink:
    """Give the sink that sends to a listener."""
    found = of_outputs(TcpSink(Address(*listener.getsockname())), spark.outputs)
    assert isinstance(found, OutputsTcpSink)
    return found


def read_all(connection: socket.socket) -> bytes:
    """Read to the end, and close."""
    with connection, connection.makefile("rb") as stream:
        return stream.read()


def reset_after(listener: socket.socket, count: int) -> bytes:
    """Take a connection, read so many bytes, and reset it."""
    connection, _ = listener.accept()
    with connection:
        heard = connection.recv(count, socket.MSG_WAITALL)
        linger = struct.pack("ii", 1, 0)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    return heard


@contextlib.contextmanager
def meanwhile(function: Callable[[], None]) -> Iterator[None]:
    """Run a function in a thread, and wait for its end."""
    thread = threading.Thread(target=function)
    thread.start()
    try:
        yield
    finally:
        thread.join()


class TestSinks:
    """Where outputs go."""

    def test_tcp(self, place: Path, listener: socket.socket) -> None:
        """A run sends each batch's outputs, and the next run all that is newest."""
        write_lots(place)
        spark = model(place)
        witness = Witness(spark.outputs)
        heard: list[bytes] = []

        def take() -> None:
            for _ in range(2):
                heard.append(read_all(listener.accept()[0]))  # noqa: PERF401 - it blocks

        with meanwhile(take):
            spark.run([tcp_sink(listener, spark), witness])
            spark.run([tcp_sink(listener, spark)])
        kept = [witness.kept[number] for number in sorted(witness.kept)]
        assert len(kept) == 4
        assert heard == [b"".join(kept), frame("B", 1000) + kept[-1]]
        assert frame("B", 1000) not in kept[-1]

    def test_a_receiver_that_comes_between_batches(
        self, place: Path, listener: socket.socket
    ) -> None:
        """One that closed and listens again has each letter's newest output at once."""
        write_segment(place / "s", "eu", label_of(1, 3), [("B", 1000), *LOTS["us"][:2]])
        spark = model(place)
        spark.run([])
        votes = [("A", 2000), ("A", 1000)]
        write_segment(place / "s", "eu", label_of(4, 5), votes)
        account = spark.run([])
        heard: list[bytes] = []
        sink = tcp_sink(listener, spark)
        sink.put(account)
        sink.renew(account)
        with listener.accept()[0] as first:
            outputs = frame("B", 1000) + frame("\xff", 1999)
            outputs += frame("A", 2001) + frame("A", 3001)
            assert first.recv(1024) == outputs
        with meanwhile(lambda: heard.append(read_all(listener.accept()[0]))):
            sink.renew(account)
            sink.put(account)
            sink.close()
        assert heard == [frame("B", 1000) + frame("\xff", 1999) + frame("A", 3001)]

    def test_a_batch_after_a_receiver_closed(
        self, place: Path, listener: socket.socket
    ) -> None:
        """A batch that finds a new receiver comes behind what is newest before it."""
        write_segment(place / "s", "eu", label_of(1, 2), [("A", 1000), ("B", 5000)])
        spark = model(place)
        heard: list[bytes] = []
        before = spark.run([])
        sink = tcp_sink(listener, spark)
        sink.put(before)
        with listener.accept()[0] as first:
            assert first.recv(1024)
        write_segment(place / "s", "eu", label_of(3, 4), [("A", 999), ("A", 1)])
        after = spark.run([])
        with meanwhile(lambda: heard.append(read_all(listener.accept()[0]))):
            sink.put(after)
            sink.close()
        assert heard == [frame("B", 5000) + frame("A", 2000)]

    def test_a_connection_that_breaks(
        self, place: Path, listener: socket.socket
    ) -> None:
        """A batch that was cut short is sent from its first byte again."""
        spark = model(place)
        (place / "c").mkdir()
        whole = bytes(range(250)) * 80_000
        written = spark.outputs.write(0, [whole])
        account = Account("/s", 0, folded=Folded("x", 1, (), *written))
        heard: list[bytes] = []

        def take() -> None:
            heard.append(reset_after(listener, 13))
            heard.append(read_all(listener.accept()[0]))

        with meanwhile(take):
            sink = tcp_sink(listener, spark)
            sink.put(account)
            sink.close()
        assert heard == [whole[:13], whole]

    def test_what_is_not_taken(
        self, place: Path, listener: socket.socket, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A small batch counts as sent only when the receiver's TCP has taken it."""
        write_lots(place)
        spark = model(place)
        heard: list[bytes] = []
        left = iter([1, 1, 0])
        monkeypatch.setattr(sinks, "outstanding_bytes", lambda _connection: next(left))
        account = spark.run([])
        with meanwhile(lambda: heard.append(read_all(listener.accept()[0]))):
            sink = tcp_sink(listener, spark)
            sink.put(account)
            sink.close()
        outputs = b"".join(spark.outputs.read(account))
        assert heard == [frame("B", 1000) + outputs]
        assert list(left) == []
        monkeypatch.setattr(sinks, "outstanding_bytes", lambda _connection: 1)
        monkeypatch.setattr(sinks, "DIAL_SECONDS", 0.05)
        sink = tcp_sink(listener, spark)
        with pytest.raises(SinkError, match="does not take totals: it reads nothing"):
            sink.put(account)

    def test_a_reset_while_it_waits(
        self, place: Path, listener: socket.socket, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A connection that is reset before all was taken is dialled again."""
        write_segment(place / "s", "eu", label_of(1, 1), [("A", 1000)])
        spark = model(place)
        account = spark.run([])
        heard: list[bytes] = []
        known: list[socket.socket] = []

        def outstanding(connection: socket.socket) -> int:
            if connection not in known:
                known.append(connection)
            return 1 if connection is known[0] else 0

        def take() -> None:
            heard.append(reset_after(listener, 13))
            heard.append(read_all(listener.accept()[0]))

        monkeypatch.setattr(sinks, "outstanding_bytes", outstanding)
        with meanwhile(take):
            sink = tcp_sink(listener, spark)
            sink.put(account)
            sink.close()
        outputs = expected_of([("A", 1000)]).outputs
        assert heard == [outputs, outputs]

    def test_console(self, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """Outputs are printed as totals, each batch once."""
        write_segment(place / "s", "eu", label_of(1, 2), [("A", 999), ("A", 2001)])
        spark = model(place)
        console = of_outputs(ConsoleSink(), spark.outputs)
        account = spark.run([console])
        console.put(account)
        assert capsys.readouterr().out == "A => 3000\n"

    def test_console_of_other_outputs(
        self, place: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Outputs that are no totals are printed as the bytes they are."""
        outputs = OutputsFile(place / "outputs")
        account = Account("/s", 0, folded=Folded("x", 1, (), *outputs.write(0, [b"x"])))
        of_outputs(ConsoleSink(), outputs).put(account)
        assert capsys.readouterr().out == "b'x'\n"

    def test_files_that_cannot_be(self, place: Path) -> None:
        """A file of outputs that cannot be written is named."""
        write_lots(place)
        spark = model(place)
        (place / "f" / f"{0:020}.outputs").mkdir(parents=True)
        with pytest.raises(SinkError, match=r"/0+\.outputs: "):
            spark.run([of_outputs(FilesSink(place / "f"), spark.outputs)])


class TestCommand:
    """The option, up to where Spark starts."""

    @pytest.fixture(autouse=True)
    def without_spark(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let the command go on where Spark is not installed."""
        monkeypatch.setattr(command, "check_installed", lambda: None)

    def failure(self, place: Path, module: str) -> tuple[int, str]:
        """Run the command; give its exit code and what it says."""
        words = ["--segments", str(place / "s"), "--checkpoint", str(place / "c")]
        runner = CliRunner()
        result = runner.invoke(
            command.spark_totals, [*words, "--application-module", module]
        )
        return result.exit_code, result.stderr

    @pytest.mark.parametrize(
        ("module", "match"),
        [
            ("tests.nowhere", "'tests.nowhere': ModuleNotFoundError"),
            ("tests.thousands_made", "'tests.thousands_made': ModuleNotFoundError"),
            ("json", "'json': it has no application_setup"),
        ],
    )
    def test_no_application(self, place: Path, module: str, match: str) -> None:
        """A module that gives no application is one line and exit code 3."""
        code, said = self.failure(place, module)
        assert code == 3
        assert match in said
        assert not (place / "c").exists()

    def test_another_application(self, place: Path) -> None:
        """A checkpoint of another application is one line and exit code 3."""
        write_lots(place)
        model(place).run([])
        code, said = self.failure(place, "alphabet.application")
        assert code == 3
        assert "by application 'thousands' with" in said

    def test_other_records(self, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """An application whose records are no votes is one line and exit code 3."""
        monkeypatch.setattr(thousands.Decoder, "record_schema", ">sQ")
        code, said = self.failure(place, "tests.thousands")
        assert code == 3
        assert "takes records of '>sQ'" in said
        assert not (place / "c").exists()

    def test_a_pickled_state(
        self, place: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A state that goes through pickle is warned of, as by `alphabet run`."""
        for name in ["dump", "load"]:
            monkeypatch.delattr(thousands.Builder, name)
        write_lots(place)
        SparkModel(place / "s", place / "c").run([])
        _, said = self.failure(place, "tests.thousands")
        assert "state 'totals' goes through pickle" in said
        assert "begun without --application-module" in said
