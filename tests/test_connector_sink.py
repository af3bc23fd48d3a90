"""Two-phase sinks on a real server: what took effect there is all, once, in order.

The sink checks every rule of the protocol itself, and what it has is compared byte by
byte with the reference.
"""

import contextlib
import io
import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from alphabet.assembly import name_sinks
from alphabet.connector.frames import Error, Ok, Restart, encode_frame
from alphabet.connector.outbound import MESSAGE_BYTES_MAX
from alphabet.connector.phases import Reply, encode_phase
from alphabet.journal.journal import Journal
from alphabet.lost_tail import LostTail
from alphabet.network.address import parse_named_address
from alphabet.startup import SinkError
from log.log import Log, Transaction
from log.memory_store import MemoryDisk, MemoryStore
from log.row import Cursor
from tests import toy
from tests.inspection import cursor, last_sequence
from tests.process import Server, refused, serving, submit, wait_until
from tests.receiving import Receiver
from tests.two_phase_sink import Sink
from tests.votes import OUTPUT_BYTES, make_votes, outputs, wire

FAILPOINTS = ["decision.before_put", "decision.after_flush"]
IS_SOAK = bool(os.environ.get("ALPHABET_SOAK"))
COUNT = 3000
VOTES = make_votes(random.Random(6), 2 * COUNT)
FIRST, SECOND = VOTES[:COUNT], VOTES[COUNT:]
OUTPUTS = outputs(VOTES)
HALF = COUNT * OUTPUT_BYTES


@pytest.fixture
def sink() -> Iterator[Sink]:
    """Give a sink that listens."""
    with Sink() as opened:
        yield opened


def submit_in_pieces(server: Server, size: int = 500) -> None:
    """Send all votes that the server has not got, a few at a time."""
    for start in range(0, len(VOTES), size):
        assert submit(server.port, wire(VOTES[start : start + size]))


class TestDelivery:
    """A sink and a server that both do well."""

    def test_all_takes_effect(self, tmp_path: Path, sink: Sink) -> None:
        """Every output is committed, in order, while the server runs."""
        with serving(tmp_path, "--connector-out", sink.address) as server:
            submit_in_pieces(server)
            sink.wait_committed(len(OUTPUTS))
            assert server.stop() == 0
        assert sink.memory.committed == OUTPUTS
        assert not sink.memory.prepared

    def test_a_lone_vote_is_committed_at_once(self, tmp_path: Path, sink: Sink) -> None:
        """A round does not wait for another vote."""
        with serving(tmp_path, "--connector-out", sink.address) as server:
            for number in range(1, 4):
                assert submit(server.port, wire(VOTES[number - 1 : number]))
                sink.wait_committed(number * OUTPUT_BYTES)
        assert sink.memory.commits == 3

    def test_the_cursor_is_the_decision(self, tmp_path: Path, sink: Sink) -> None:
        """The row has the last event, the byte behind it, and the transaction."""
        with serving(tmp_path, "--connector-out", sink.address) as server:
            submit_in_pieces(server)
            sink.wait_committed(len(OUTPUTS))
            server.kill()
        row = cursor(tmp_path)
        assert (row.sequence, row.offset) == (len(VOTES), len(OUTPUTS))
        assert row.transaction_id in sink.memory.asked

    def test_a_restart_goes_on(self, tmp_path: Path, sink: Sink) -> None:
        """A server that was stopped begins where it has ended."""
        words = ["--connector-out", sink.address]
        with serving(tmp_path, *words) as server:
            assert submit(server.port, wire(FIRST))
            sink.wait_committed(HALF)
            assert server.stop() == 0
        with serving(tmp_path, *words) as server:
            assert submit(server.port, wire(SECOND))
            sink.wait_committed(len(OUTPUTS))
            assert server.stop() == 0
        assert sink.memory.committed == OUTPUTS
        assert sink.memory.aborts == 0

    def test_large_rounds(self, tmp_path: Path, sink: Sink) -> None:
        """A backlog goes in messages that a sink can take, each of whole outputs."""
        votes = VOTES * 100
        sink.leave()
        with serving(tmp_path, "--connector-out", sink.address) as server:
            assert submit(server.port, wire(votes))
            sink.come_back()
            sink.wait_committed(len(votes) * OUTPUT_BYTES)
            assert server.stop() == 0
        assert sink.memory.committed == outputs(votes)
        sizes = sink.sessions[-1].message_sizes
        assert MESSAGE_BYTES_MAX - OUTPUT_BYTES < max(sizes) <= MESSAGE_BYTES_MAX
        assert all(size % OUTPUT_BYTES == 0 for size in sizes)
        assert 2 <= sink.memory.commits < len(sizes)

    def test_beside_others(self, tmp_path: Path, sink: Sink) -> None:
        """Sinks of both kinds get everything, each under its own name."""
        with Sink() as other, Receiver() as receiver:
            words = [
                *("--connector-out", f"one@{sink.address}"),
                *("--connector-out", f"two@{other.address}"),
                *("--out", f"plain@{receiver.address}"),
            ]
            other.is_stalled = True
            with serving(tmp_path, *words) as server:
                submit_in_pieces(server)
                sink.wait_committed(len(OUTPUTS))
                receiver.wait_bytes(len(OUTPUTS))
                other.is_stalled = False
                other.wait_committed(len(OUTPUTS))
                assert server.stop() == 0
            assert sink.memory.committed == other.memory.committed == OUTPUTS
            assert receiver.connections == [OUTPUTS]
        named = [each.sessions[0].stream for each in (sink, other)]
        assert [each.name for each in named if each] == [b"one", b"two"]

    def test_events_without_output(self, tmp_path: Path, sink: Sink) -> None:
        """The cursor passes them without a round, and they do not end one."""
        (tmp_path / "quiet.py").write_text(QUIET)
        words = ["--connector-out", sink.address, "--application-module", "quiet"]
        with serving(tmp_path, *words, working_directory=tmp_path) as server:
            assert submit(server.port, wire(VOTES[:10]))
            wait_until(lambda: cursor(tmp_path).sequence == 10, "a cursor that moved")
            assert submit(server.port, wire([(b"!", 1), *VOTES[10:19]]))
            sink.wait_committed(1)
            wait_until(lambda: cursor(tmp_path).sequence == 20, "a cursor that moved")
            assert submit(server.port, wire(VOTES[20:30]))
            assert server.stop() == 0
        assert sink.memory.committed == b"!"
        assert sink.memory.commits == 1
        assert cursor(tmp_path).sequence == 30
        assert cursor(tmp_path).offset == 1


QUIET = '''
"""Counts votes, and gives them out where the letter is an exclamation mark."""

import struct

from alphabet import wallaroo


class Decoder:
    def header_length(self):
        return 4

    def payload_length(self, data):
        return int.from_bytes(data)

    def decode(self, data):
        return data


class Count:
    def name(self):
        return "count"

    def compute(self, data, state):
        state.append(1)
        return (data[:1] if data[:1] == b"!" else None), False


class Counts:
    def build(self):
        return []

    def dump(self, state):
        return struct.pack(">Q", len(state))

    def load(self, data):
        return [1] * struct.unpack(">Q", data)[0]


class Encoder:
    def encode(self, data):
        return data


def application_setup(args):
    host, port = wallaroo.tcp_parse_input_addrs(args)[0]
    builder = wallaroo.ApplicationBuilder("quiet")
    builder.new_pipeline("votes", wallaroo.TCPSourceConfig(host, port, Decoder()))
    builder.to_stateful(Count(), Counts(), "counts")
    builder.to_sink(wallaroo.TCPSinkConfig("", "", Encoder()))
    return builder.build()
'''


class TestAwkwardSinks:
    """A sink that is away, slow, unwilling, or does not know the protocol."""

    def test_away_for_long(self, tmp_path: Path, sink: Sink) -> None:
        """Votes count while nobody takes the outputs, and all of these come later."""
        sink.leave()
        words = ["--connector-out", sink.address, "--snapshot-every", 500]
        with serving(tmp_path, *words) as server:
            submit_in_pieces(server)
            server.wait_said(f"sink out: cannot reach {sink.address}")
            assert server.stop() == 0
        with serving(tmp_path, *words) as server:
            sink.come_back()
            sink.wait_committed(len(OUTPUTS))
            assert server.stop() == 0
        assert sink.memory.committed == OUTPUTS

    def test_slow(self, tmp_path: Path, sink: Sink) -> None:
        """Nobody waits for a sink that takes its time; its rounds grow instead."""
        sink.answer_seconds = 0.1
        with serving(tmp_path, "--connector-out", sink.address) as server:
            submit_in_pieces(server, 100)
            sink.wait_committed(len(OUTPUTS))
            assert server.stop() == 0
        assert sink.memory.committed == OUTPUTS
        assert sink.memory.commits < len(VOTES) // 100

    def test_unwilling(self, tmp_path: Path, sink: Sink) -> None:
        """What a sink refuses comes again until it is taken; each refusal is a line."""
        answers = iter([False, False, True, False])
        sink.is_willing = lambda: next(answers, True)
        with serving(tmp_path, "--connector-out", sink.address) as server:
            assert submit(server.port, wire(FIRST))
            wait_until(lambda: sink.memory.commits == 1, "the first commit")
            assert submit(server.port, wire(SECOND))
            sink.wait_committed(len(OUTPUTS))
            assert server.stop() == 0
        assert sink.memory.committed == OUTPUTS
        assert sink.memory.aborts == 3
        refusals = [x for x in server.entries() if x["kind"] == "sink-refused"]
        assert sum(each["count"] for each in refusals) == 3

    def test_gone_behind_its_yes(self, tmp_path: Path, sink: Sink) -> None:
        """A yes that was heard is a commit, though the sink does not wait for it."""
        sink.hang_ups = 5
        with serving(tmp_path, "--connector-out", sink.address) as server:
            for number in range(1, 6):
                assert submit(server.port, wire(VOTES[number - 1 : number]))
                sink.wait_committed(number * OUTPUT_BYTES)
            assert server.stop() == 0
        assert sink.memory.committed == OUTPUTS[: 5 * OUTPUT_BYTES]
        assert sink.memory.aborts == sink.hang_ups == 0

    def test_cut_off(self, tmp_path: Path, sink: Sink) -> None:
        """A connection that is lost again and again doubles no output."""
        with serving(tmp_path, "--connector-out", sink.address) as server:
            for start in range(0, len(VOTES), 500):
                assert submit(server.port, wire(VOTES[start : start + 500]))
                sink.cut()
            sink.wait_committed(len(OUTPUTS))
            assert server.stop() == 0
        assert sink.memory.committed == OUTPUTS

    def test_foul(self, tmp_path: Path, sink: Sink) -> None:
        """What is out of order ends the connection with a reason; the next is good."""
        cases = [
            (b"\0\0\0\2\x63!", "there is no frame of type 99", True),
            (b"GET / HTTP/1.1", "a payload of 1195725856 bytes", True),
            (encode_frame(Ok(1)) * 2, "OK came while we wait for the answer", True),
            (encode_phase(Reply(b"t", is_commit=True)), "REPLY(commit) came", True),
            (encode_frame(Error(b"no\n\xff!")), r"the sink says 'no\n\\xff!'", False),
            (encode_frame(Restart()), "the sink wants a new connection", False),
        ]
        sink.greeting = cases[0][0]
        with serving(tmp_path, "--connector-out", sink.address) as server:
            for greeting, reason, is_told in cases:
                sink.greeting = greeting
                server.wait_said(reason)
                if is_told:
                    sink.wait_error(reason)
            sink.greeting = b""
            assert submit(server.port, wire(VOTES))
            sink.wait_committed(len(OUTPUTS))
            assert server.stop() == 0
        assert sink.memory.committed == OUTPUTS


class TestStop:
    """A stop in good order."""

    def test_what_is_left_is_committed(self, tmp_path: Path, sink: Sink) -> None:
        """A stop brings the backlog to the sink, decision by decision."""
        sink.answer_seconds = 0.02
        votes = VOTES * 60
        with serving(tmp_path, "--connector-out", sink.address) as server:
            sink.wait_sessions(1)
            assert submit(server.port, wire(votes))
            assert server.stop() == 0
        assert sink.memory.committed == outputs(votes)
        assert not sink.memory.prepared
        assert cursor(tmp_path).sequence == len(votes)

    def test_a_hung_sink_does_not_hold_it(self, tmp_path: Path, sink: Sink) -> None:
        """A stop waits for a sink as long as it was told; the rest comes later."""
        words = ["--connector-out", sink.address, "--drain-seconds", 0.2]
        with serving(tmp_path, *words) as server:
            sink.wait_sessions(1)
            assert submit(server.port, wire(FIRST))
            sink.wait_committed(HALF)
            sink.is_stalled = True
            assert submit(server.port, wire(SECOND))
            assert server.stop() == 0
        assert sink.memory.committed == OUTPUTS[:HALF]
        sink.is_stalled = False
        with serving(tmp_path, *words) as server:
            sink.wait_committed(len(OUTPUTS))
            assert server.stop() == 0
        assert sink.memory.committed == OUTPUTS

    def test_a_sink_that_is_away_does_not_hold_it(
        self, tmp_path: Path, sink: Sink
    ) -> None:
        """A stop does not wait for a sink that is not there."""
        sink.leave()
        words = ["--connector-out", sink.address, "--drain-seconds", 9]
        with serving(tmp_path, *words) as server:
            server.wait_said("cannot reach")
            assert submit(server.port, wire(FIRST))
            assert server.stop() == 0
        assert cursor(tmp_path).sequence == 0


class TestCrash:
    """Either end dies."""

    @pytest.mark.parametrize("failpoint", FAILPOINTS)
    def test_killed_around_the_decision(
        self, tmp_path: Path, sink: Sink, failpoint: str
    ) -> None:
        """After the crash a yes is a commit if it was flushed, else an abort."""
        words = ["--connector-out", sink.address]
        variables = {"ALPHABET_FAILPOINT": f"{failpoint}:2"}
        with serving(tmp_path, *words, variables=variables) as server:
            assert submit(server.port, wire(VOTES[:1]))
            sink.wait_committed(OUTPUT_BYTES)
            submit(server.port, wire(VOTES[1:2]))
            assert server.wait() == -signal.SIGKILL
        [transaction] = sink.memory.prepared
        is_flushed = cursor(tmp_path).transaction_id == transaction
        assert is_flushed is (failpoint == "decision.after_flush")
        assert sink.memory.committed == OUTPUTS[:OUTPUT_BYTES]
        self._finish(tmp_path, sink)
        assert sink.memory.aborts == (not is_flushed)

    @pytest.mark.parametrize("failpoint", ["commit.before_flush", "commit.after_flush"])
    def test_killed_around_the_flush(
        self, tmp_path: Path, sink: Sink, failpoint: str
    ) -> None:
        """A crash in any of a round's two commits loses and doubles nothing."""
        words = ["--connector-out", sink.address]
        # A new log takes a commit, and a new sink another one.
        for turn in (4, 2):
            variables = {"ALPHABET_FAILPOINT": f"{failpoint}:{turn}"}
            with serving(tmp_path, *words, variables=variables) as server:
                while server.is_running:
                    start = last_sequence(tmp_path)
                    # It may have ended since it was asked.
                    with contextlib.suppress(ConnectionRefusedError):
                        submit(server.port, wire(VOTES[start : start + 1]))
                    wait_until(
                        lambda: (
                            not server.is_running
                            or sink.committed_bytes // OUTPUT_BYTES
                            == last_sequence(tmp_path)
                        ),
                        "a round, or a crash",
                    )
        self._finish(tmp_path, sink)

    @pytest.mark.slow
    @pytest.mark.parametrize("turn", range(20 if IS_SOAK else 1))
    def test_killed_at_any_instant(self, tmp_path: Path, sink: Sink, turn: int) -> None:
        """Whoever dies when, in the end all outputs have taken effect once."""
        seed = int(os.environ.get("ALPHABET_SEED") or random.randrange(2**32))
        print(f"to repeat this: ALPHABET_SEED={seed}")  # noqa: T201 - pytest shows it
        chance = random.Random(seed + turn)
        sink.is_willing = lambda: chance.random() < 0.9
        for _ in range(3):
            with serving(tmp_path, "--connector-out", sink.address) as server:
                for _ in range(chance.randrange(1, 20)):
                    start = last_sequence(tmp_path)
                    count = chance.choice([1, 10, 100])
                    submit(server.port, wire(VOTES[start : start + count]))
                    if chance.random() < 0.2:
                        sink.cut()
                server.kill()
            size = sink.committed_bytes
            assert sink.memory.committed == OUTPUTS[:size]
        self._finish(tmp_path, sink)

    def _finish(self, place: Path, sink: Sink) -> None:
        """Count the rest in peace, and compare."""
        with serving(place, "--connector-out", sink.address) as server:
            assert submit(server.port, wire(VOTES[last_sequence(place) :]))
            sink.wait_committed(len(OUTPUTS))
            assert server.stop() == 0
        assert sink.memory.committed == OUTPUTS
        assert not sink.memory.prepared


class TestGreeting:
    """What a server calls itself."""

    def test_what_it_says(self, tmp_path: Path, sink: Sink) -> None:
        """Cookie, program, instance and stream are those of the options."""
        (tmp_path / "cookie").write_text("open sesame\n")
        words = [
            *("--connector-out", f"board@{sink.address}"),
            *("--connector-out-cookie-file", tmp_path / "cookie"),
            *("--name", "third"),
        ]
        with serving(tmp_path, *words):
            sink.wait_sessions(1)
            wait_until(lambda: sink.sessions[0].stream, "a stream")
        [session] = sink.sessions
        assert session.hello is not None
        assert session.stream is not None
        assert session.hello.cookie == b"open sesame"
        assert session.hello.program == b"alphabet"
        assert session.hello.instance == b"third"
        assert session.stream.name == b"board"

    def test_its_own_name(self, tmp_path: Path, sink: Sink) -> None:
        """Without a name the instance is the application, and the sink is `out`."""
        with serving(tmp_path, "--connector-out", sink.address):
            sink.wait_sessions(1)
            wait_until(lambda: sink.sessions[0].stream, "a stream")
        [session] = sink.sessions
        assert session.hello is not None
        assert session.stream is not None
        assert session.hello.cookie == b""
        assert session.hello.instance == b"alphabet"
        assert session.stream.name == b"out"

    def test_no_such_cookie(self, tmp_path: Path) -> None:
        """A cookie that cannot be read is told before anything is made."""
        words = ["--connector-out", "127.0.0.1:9"]
        done = refused(
            tmp_path, *words, "--connector-out-cookie-file", tmp_path / "none"
        )
        assert done.code == 3
        assert f"cannot read the cookie in {tmp_path / 'none'}: No such" in done.stderr
        assert not (tmp_path / "data").exists()

    @pytest.mark.parametrize("name", ["", "x" * 256])
    def test_no_such_name(self, tmp_path: Path, name: str) -> None:
        """A name that no file can have is a usage error."""
        done = refused(tmp_path, "--name", name)
        assert done.code == 2
        assert "a name has 1 to 255 bytes" in done.stderr


class TestNames:
    """A two-phase sink is its name, as others are."""

    def test_the_end_is_where_a_new_one_begins(
        self, tmp_path: Path, sink: Sink
    ) -> None:
        """A new sink begins at the log's end, or where it is told to, at offset 0."""
        with serving(tmp_path) as server:
            assert submit(server.port, wire(FIRST))
            assert server.stop() == 0
        words = ["--connector-out", f"late@{sink.address}"]
        with serving(tmp_path, *words) as server:
            server.wait_said(f"sink late is new: starts after sequence {COUNT}")
            assert submit(server.port, wire(SECOND))
            sink.wait_committed(len(OUTPUTS) - HALF)
            assert server.stop() == 0
        assert sink.memory.committed == OUTPUTS[HALF:]
        with Sink() as other:
            words = ["--connector-out", f"all@{other.address}"]
            with serving(tmp_path, *words, "--out-from", 0) as server:
                other.wait_committed(len(OUTPUTS))
                assert server.stop() == 0
            assert other.memory.committed == OUTPUTS

    @pytest.mark.parametrize(
        ("before", "after"),
        [("--out", "--connector-out"), ("--connector-out", "--out")],
    )
    def test_a_name_keeps_its_kind(
        self, tmp_path: Path, before: str, after: str
    ) -> None:
        """A name cannot go on as the other kind; it can be forgotten and begin anew."""
        with serving(tmp_path, before, "127.0.0.1:9") as server:
            assert server.stop() == 0
        done = refused(tmp_path, after, "127.0.0.1:9")
        assert done.code == 2
        assert f"sink 'out' goes by {before} and cannot go on by {after}" in done.stderr
        with serving(tmp_path, after, "127.0.0.1:9", "--forget-sink", "out") as server:
            assert server.stop() == 0

    def test_several_need_names(self) -> None:
        """A sink beside one of the other kind needs a name."""
        plain = parse_named_address("one@127.0.0.1:9")
        unnamed = parse_named_address("127.0.0.1:10")
        with pytest.raises(SinkError, match="own: --connector-out NAME@"):
            name_sinks([plain], [unnamed])

    def test_two_of_one_name(self) -> None:
        """Two sinks of one name are an error, whatever kind they are."""
        plain = parse_named_address("one@127.0.0.1:9")
        other = parse_named_address("one@127.0.0.1:10")
        with pytest.raises(SinkError, match="two sinks are named 'one'"):
            name_sinks([plain], [other])

    def test_a_decision_outlives_a_lost_tail(self) -> None:
        """A cursor that is brought back to the log's end keeps what was decided."""
        log = Log.create(MemoryStore(MemoryDisk()), toy.META)
        log.commit(Transaction(cursors={"out": Cursor(5, 70, b"0-70-id")}))
        with contextlib.closing(Journal.open(io.StringIO(), "json")) as journal:
            LostTail.find(log).bring_back(log, journal)
        assert log.cursors() == {"out": Cursor(0, 70, b"0-70-id")}
