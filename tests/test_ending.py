"""An application's code that ends everything says so in one line."""

from pathlib import Path

import pytest

from alphabet.pipeline.ending import ending_line
from tests.inspection import last_sequence
from tests.process import refused, serving, submit
from tests.votes import wire

VOTES = [(b"a", 1), (b"b", 2), (b"a", 3)]

CANNOT_SERVE = 3
ENDING = """
import sys

from alphabet import application


class Decoder(application.Decoder):
    def payload_length(self, bs):
        return self.payload_length(bs) if bs[0] else super().payload_length(bs)

    def decode(self, bs):
        vote = super().decode(bs)
        return sys.exit() if vote.votes == 5000 else vote

    decode_batch = None


class AddVotes(application.AddVotes):
    def compute(self, data, state):
        if data.votes == 6000:
            sys.exit(0)
        if data.votes == 7000:
            self.compute(data, state)
        if data.votes == 8000:
            raise GeneratorExit
        return super().compute(data, state)

    compute_batch = None


application.Decoder = Decoder
application.AddVotes = AddVotes
application_setup = application.application_setup
"""
"""Alphabet's own, but for a header and some numbers of votes."""


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (b"\x01\0\0\5", "Decoder.payload_length raised RecursionError: "),
        (wire([(b"a", 5000)]), "Decoder.decode raised SystemExit, which "),
        (wire([(b"a", 6000)]), "AddVotes.compute raised SystemExit: 0 at event 4, "),
        (wire([(b"a", 7000)]), "AddVotes.compute raised RecursionError: maximum"),
        (wire([(b"a", 8000)]), "AddVotes.compute raised GeneratorExit at event 4, "),
    ],
)
def test_a_component_that_ends_everything(
    tmp_path: Path, sent: bytes, said: str
) -> None:
    """It is one line that names it, before the event's commit, and exit code 3."""
    (tmp_path / "ending.py").write_text(ENDING)
    words = ["--application-module", "ending"]
    with serving(tmp_path, *words, working_directory=tmp_path) as server:
        assert submit(server.port, wire(VOTES))
        assert not submit(server.port, sent)
        assert server.wait() == CANNOT_SERVE
        [line] = [each for each in server.said() if not each.startswith("{")]
        assert line.startswith(f"alphabet: {said}")
    assert last_sequence(tmp_path) == len(VOTES)


def test_a_replay_that_ends(tmp_path: Path) -> None:
    """A component that ends everything in a replay is told in the same way."""
    module = tmp_path / "ending.py"
    module.write_text(ENDING)
    words = ["--application-module", "ending"]
    with serving(tmp_path, *words, working_directory=tmp_path) as server:
        assert submit(server.port, wire(VOTES))
        assert server.stop() == 0
    for snapshot in (tmp_path / "data" / "snapshots").iterdir():
        snapshot.unlink()
    module.write_text(ENDING.replace("7000", "2"))
    done = refused(tmp_path, *words, working_directory=tmp_path)
    assert done.code == CANNOT_SERVE
    assert done.stderr.startswith("alphabet: AddVotes.compute raised RecursionError: ")
    assert " at event 2, " in done.stderr


def test_what_no_application_raised() -> None:
    """What was not raised beyond our own code is none of its affair."""
    assert ending_line(SystemExit(0)) is None
    assert ending_line(ValueError()) is None
