"""Any application on the real server: the tutorial's listing as it is printed."""

import random
from pathlib import Path

import pytest

from recovery.snapshot_directory import SnapshotDirectory
from tests.inspection import last_sequence, records
from tests.process import READY, finish, refused, serving, submit, wait_until
from tests.receiving import Receiver
from tests.votes import OUTPUT_BYTES, make_votes, outputs, payloads, trace, wire

VOTES = make_votes(random.Random(8), 2000)
FIRST, SECOND = VOTES[:1200], VOTES[1200:]
OUTPUTS = outputs(VOTES)

TUTORIAL = """\
import struct
import pickle

import wallaroo


def application_setup(args):
    in_host, in_port = wallaroo.tcp_parse_input_addrs(args)[0]
    out_host, out_port = wallaroo.tcp_parse_output_addrs(args)[0]

    ab = wallaroo.ApplicationBuilder("alphabet")
    ab.new_pipeline("alphabet",
                    wallaroo.TCPSourceConfig(in_host, in_port, Decoder()))
    ab.to_stateful(AddVotes(), LetterStateBuilder(), "letter state")
    ab.to_sink(wallaroo.TCPSinkConfig(out_host, out_port, Encoder()))
    return ab.build()


class AddVotes(object):
    def name(self):
        return "add votes"

    def compute(self, data, state):
        state.update(data)
        return (state.get_votes(data.letter), True)


class Votes(object):
    def __init__(self, letter, votes):
        self.letter = letter
        self.votes = votes


class AllVotes(object):
    def __init__(self):
        self.votes_by_letter = {}

    def update(self, votes):
        letter = votes.letter
        vote_count = votes.votes

        votes_for_letter = self.votes_by_letter.get(letter, Votes(letter, 0))
        votes_for_letter.votes += vote_count
        self.votes_by_letter[letter] = votes_for_letter

    def get_votes(self, letter):
        vbl = self.votes_by_letter[letter]
        return Votes(letter, vbl.votes)


class LetterStateBuilder(object):
    def build(self):
        return AllVotes()


class Encoder(object):
    def encode(self, data):
        # data is a Votes
        return struct.pack(">IsQ", 9, data.letter, data.votes)


class Decoder(object):
    def header_length(self):
        return 4

    def payload_length(self, bs):
        return struct.unpack(">I", bs)[0]

    def decode(self, bs):
        (letter, vote_count) = struct.unpack(">sI", bs)
        return Votes(letter, vote_count)
"""

MODULE = ("--application-module", "tally_tutorial")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Give a place where the tutorial's listing is a module."""
    (tmp_path / "tally_tutorial.py").write_text(TUTORIAL)
    return tmp_path


def replay(place: Path, command: str) -> int:
    """Let the recovery tool work with the module; give its exit code."""
    words = [command, place / "data", *MODULE]
    return finish("recovery.cli", *words, working_directory=place).code


class TestTutorial:
    """The tutorial's own code."""

    def test_it_counts(self, place: Path) -> None:
        """Each vote's output is the letter's running total."""
        with Receiver() as receiver:
            words = [*MODULE, "--out", receiver.address]
            with serving(place, *words, working_directory=place) as server:
                assert submit(server.port, wire(VOTES))
                receiver.wait_bytes(len(OUTPUTS))
                assert server.stop() == 0
            assert receiver.connections == [OUTPUTS]
        assert records(place) == payloads(VOTES)

    def test_its_state_goes_through_pickle(self, place: Path) -> None:
        """That is said, for a state that offers nothing better."""
        with serving(place, *MODULE, working_directory=place) as server:
            server.wait_said("state 'letter state' goes through pickle: give its")
            assert submit(server.port, wire(VOTES))
            assert server.stop() == 0
        directory = SnapshotDirectory(place / "data" / "snapshots")
        [state] = directory.read(len(VOTES)).states
        assert state.encoding == "pickle"
        assert replay(place, "verify") == 0

    @pytest.mark.parametrize("every", [1, 500, 10_000])
    def test_it_survives_a_kill(self, place: Path, every: int) -> None:
        """Its state is rebuilt from a snapshot and the log, or from the log alone."""
        with Receiver() as receiver:
            words = [*MODULE, "--out", receiver.address, "--snapshot-every", every]
            with serving(place, *words, working_directory=place) as server:
                assert submit(server.port, wire(FIRST[:600]))
                directory = SnapshotDirectory(place / "data" / "snapshots")
                is_due = every <= 600
                wait_until(lambda: directory.sequences() or not is_due, "a snapshot")
                assert submit(server.port, wire(FIRST[600:]))
                server.kill()
            receiver.wait_hung_up()
            with serving(place, *words, working_directory=place) as server:
                start = max(directory.sequences(), default=0)
                assert (start > 0) is is_due
                replayed = len(FIRST) - start
                line = (
                    f"RESILIENCE: Replayed {replayed} entries from recovery log file."
                )
                assert server.lines()[1:] == [line, READY]
                assert submit(server.port, wire(SECOND))
                wait_until(
                    lambda: receiver.connections[-1].endswith(OUTPUTS[-OUTPUT_BYTES:]),
                    "the last output",
                )
                assert server.stop() == 0
            assert trace(receiver.connections, OUTPUTS)[-1].stop == len(VOTES)
        assert replay(place, "verify") == 0
        assert replay(place, "state") == 0

    def test_its_log_is_not_for_everyone(self, place: Path) -> None:
        """Its decoder tells no schema, so that Alphabet's own refuses the log."""
        with serving(place, *MODULE, working_directory=place) as server:
            assert submit(server.port, wire(VOTES[:1]))
            assert server.stop() == 0
        done = refused(place)
        assert done.code == 3
        assert "its records are 'opaque', not '>sI'" in done.stderr


class TestMarks:
    """What `compute` returns beside its output."""

    @pytest.fixture
    def marking(self, tmp_path: Path) -> Path:
        """Give a place with a module that marks `m` and has no output for `n`."""
        changed = TUTORIAL.replace(
            "return (state.get_votes(data.letter), True)",
            "output = state.get_votes(data.letter)\n"
            '        output = None if data.letter == b"n" else output\n'
            '        return (output, data.letter == b"m")',
        )
        assert changed != TUTORIAL
        (tmp_path / "tally_tutorial.py").write_text(changed)
        return tmp_path

    def test_true_allows_a_snapshot(self, marking: Path) -> None:
        """One is written where True comes when one is due, and at no other event."""
        votes = [(b"a", 1)] * 6 + [(b"m", 1)] + [(b"a", 1)] * 3
        words = [*MODULE, "--snapshot-every", 4]
        with serving(marking, *words, working_directory=marking) as server:
            assert submit(server.port, wire(votes))
            directory = SnapshotDirectory(marking / "data" / "snapshots")
            wait_until(directory.sequences, "a snapshot")
            assert server.stop() == 0
        # The last event was not marked, so the stop added none.
        assert directory.sequences() == [7]

    def test_a_stop_at_true(self, marking: Path) -> None:
        """A clean stop behind a marked event keeps its state."""
        votes = [(b"a", 1)] * 6 + [(b"m", 1)]
        with serving(marking, *MODULE, working_directory=marking) as server:
            assert submit(server.port, wire(votes))
            assert server.stop() == 0
        assert SnapshotDirectory(marking / "data" / "snapshots").sequences() == [7]

    def test_no_output(self, marking: Path) -> None:
        """An event without output is counted, passed over, and not repeated."""
        votes = [(b"n", 1), (b"a", 1), (b"n", 1)]
        with Receiver() as receiver:
            words = [*MODULE, "--out", receiver.address]
            for _ in range(2):
                with serving(marking, *words, working_directory=marking) as server:
                    seen = receiver.received_bytes
                    assert submit(server.port, wire(votes))
                    receiver.wait_bytes(seen + OUTPUT_BYTES)
                    assert server.stop() == 0
            expected = outputs([(b"a", 1), (b"a", 1)])
            assert b"".join(receiver.connections) == expected
        assert last_sequence(marking) == 6


class TestOwnOptions:
    """Words behind the module's name."""

    @pytest.fixture
    def weighing(self, tmp_path: Path) -> Path:
        """Give a place with a module that has an option of its own, `--weight`."""
        changed = TUTORIAL.replace(
            "    ab = ", "    global WEIGHT\n    WEIGHT = int(args[-1])\n    ab = "
        ).replace("+= vote_count", "+= vote_count * WEIGHT")
        assert changed.count("WEIGHT") == 3
        (tmp_path / "tally_tutorial.py").write_text(changed)
        return tmp_path

    def test_the_application_reads_them(self, weighing: Path) -> None:
        """The server's and a tool's application both have them, behind addresses."""
        words = ("--application-module", "tally_tutorial --weight '1''0'")
        with Receiver() as receiver:
            out = ("--out", receiver.address)
            with serving(weighing, *words, *out, working_directory=weighing) as server:
                assert submit(server.port, wire([(b"a", 3)]))
                receiver.wait_bytes(OUTPUT_BYTES)
                assert server.stop() == 0
            assert receiver.connections == [outputs([(b"a", 30)])]
        tool = ["verify", weighing / "data", *words]
        assert finish("recovery.cli", *tool, working_directory=weighing).code == 0
        other = ("--application-module", "tally_tutorial --weight 9")
        tool = ["verify", weighing / "data", *other]
        assert finish("recovery.cli", *tool, working_directory=weighing).code == 1


class TestModules:
    """Modules that give no application."""

    @pytest.mark.parametrize(
        ("name", "said"),
        [
            ("tally 'x", '"tally \'x": ValueError: No closing quotation'),
            ("", "'': ValueError: Empty module name"),
        ],
    )
    def test_no_name(self, tmp_path: Path, name: str, said: str) -> None:
        """What names no module is one line, and exit code 3."""
        done = refused(tmp_path, "--application-module", name)
        assert done.code == 3
        assert done.stderr == f"alphabet: application module {said}\n"

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            (None, "ModuleNotFoundError: No module named 'tally_tutorial'"),
            ("import no_such_thing", "ModuleNotFoundError: No module named 'no_such"),
            ("def f(:", "SyntaxError: "),
            ("1 / 0", "ZeroDivisionError: division by zero"),
            ("raise SystemExit(0)", "SystemExit: 0"),
            ("x = 1", "it has no application_setup(args)"),
            ("application_setup = 3", "TypeError: 'int' object is not callable"),
            ("def application_setup(args): 1 / 0", "ZeroDivisionError: division"),
            ("def application_setup(args): return 5", "application_setup returned int"),
            (
                TUTORIAL.replace("Decoder()", "Decoder"),
                "the decoder of a TCPSourceConfig is the class Decoder; give it an",
            ),
            (
                TUTORIAL.replace("    ab.to_sink", "    0 and ab.to_sink"),
                "the pipeline 'alphabet' has no sink; call to_sink before build",
            ),
            (
                TUTORIAL.replace("return AllVotes()", "return AllVotes(1)"),
                "TypeError: AllVotes.__init__() takes 1 positional argument but 2",
            ),
            (
                TUTORIAL.replace("return 4", "return 9"),
                "header_length() of Decoder returned 9; a header has 1 to 8 bytes",
            ),
            (
                TUTORIAL.replace("(args)[0]", "(args)[1]"),
                "IndexError: list index out of range",
            ),
        ],
        ids=lambda value: None if value is None else " ".join(value.split())[:20],
    )
    def test_one_line(self, tmp_path: Path, text: str | None, said: str) -> None:
        """Each is one line that names the module and the cause, and exit code 3."""
        if text is not None:
            (tmp_path / "tally_tutorial.py").write_text(text)
        done = refused(tmp_path, *MODULE, working_directory=tmp_path)
        assert done.code == 3
        assert done.stderr.startswith("alphabet: application module 'tally_tutorial': ")
        assert said in done.stderr
        assert not (tmp_path / "data").exists()

    def test_ours_come_first(self, tmp_path: Path) -> None:
        """A module in the working directory that is named as ours takes no place."""
        (tmp_path / "log").mkdir()
        (tmp_path / "log" / "__init__.py").write_text("raise SystemExit('not ours')")
        (tmp_path / "json.py").write_text("raise SystemExit('not the library')")
        (tmp_path / "tally_tutorial.py").write_text(TUTORIAL)
        with serving(tmp_path, *MODULE, working_directory=tmp_path) as server:
            assert submit(server.port, wire(VOTES))
            assert server.stop() == 0
