"""`alphabet-replay salvage` as an operator meets it, and a server on what it made."""

import contextlib
import json
import os
import re
import signal
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest

from log.directory import LOCK, DataDirectory
from log.errors import LockedError
from log.lmdb_store import DATA_FILE
from recovery.cli import main
from recovery.commands.salvage import ALPHABET, held, loss_line, report_lines
from recovery.damage.salvage import Salvaged
from recovery.damage.salvage_plan import Gap, Ignored, Move
from recovery.replay import Replayer
from recovery.snapshot_directory import SnapshotDirectory
from tests.faults import zero_page
from tests.machines import LOTS, VOTES_META, alphabet, change, flip_middle, write_votes
from tests.permissions import read_only, unprivileged
from tests.process import (
    PYTHON,
    ROOT,
    SECONDS_MAX,
    Finished,
    Server,
    environment,
    finish,
    refused,
    serving,
    submit,
)
from tests.receiving import Receiver
from tests.votes import OUTPUT_BYTES, payloads, tally, wire

VOTES = [vote for lot in LOTS for vote in lot]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Return the data directory of the ten votes, with snapshots at 3, 6 and 10."""
    write_votes(tmp_path / "data", snapshots=[3, 6, 10])
    return tmp_path / "data"


@pytest.fixture
def to(tmp_path: Path) -> Path:
    """Return a place where there is a directory `data` for a server, once made."""
    place = tmp_path / "new"
    place.mkdir()
    return place / "data"


def lose(data: Path, lot: int) -> None:
    """Damage the records of a block, wherever they are stored."""
    file = data / "log" / DATA_FILE
    lost = payloads(LOTS[lot])
    file.write_bytes(file.read_bytes().replace(lost, b"\0" * len(lost)))


def lose_snapshots(data: Path, *sequences: int) -> None:
    """Remove snapshots."""
    for sequence in sequences:
        SnapshotDirectory(data / "snapshots").file(sequence).unlink()


Run = Callable[..., Finished]


@pytest.fixture
def replay(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return what runs `alphabet-replay` in this process, which is quicker."""
    for name in [name for name in os.environ if name.startswith("ALPHABET_")]:
        monkeypatch.delenv(name)

    def run(*words: object) -> Finished:
        capfd.readouterr()
        code = main([str(word) for word in words])
        sys.stdout.flush()
        out, err = capfd.readouterr()
        return Finished(code, out, err)

    return run


def totals(data: Path) -> dict[str, int]:
    """Give the totals of a data directory, gaps passed over."""
    directory = DataDirectory(data)
    machine = alphabet()
    with contextlib.closing(directory.open_log(is_read_only=True)) as log:
        snapshots = SnapshotDirectory(directory.snapshots_path)
        Replayer(log, snapshots, are_gaps_accepted=True).recover(machine)
    votes = machine.state("letter state").votes_by_letter.values()
    return {vote.letter.decode("latin-1"): vote.votes for vote in votes}


def served(place: Path, *words: str) -> Server:
    """Serve what was made, and say so."""
    with serving(place, "--accept-gaps", *words) as server:
        assert submit(server.port, wire([(b"a", 100)]))
        assert server.stop() == 0
    return server


NOTHING_LOST = Salvaged(
    log_id="new",
    parent_id="old",
    base_sequence=0,
    last_sequence=9,
    blocks=3,
    events=9,
    sealed_anew=0,
    unproven=0,
    gaps=(),
    snapshots=(),
    streams=1,
    streams_back=(),
    sinks=("out",),
    moves=(),
    rejects=2,
    doubtful=(),
    is_base_lost=False,
    ignored=(),
    ignored_more=0,
    copies=0,
    torn=0,
)


class TestReport:
    """What is said of a new log."""

    def test_only_what_is_so(self) -> None:
        """Where nothing was lost or left out, nothing is said of it."""
        assert loss_line(NOTHING_LOST) == ""
        one = attrs.evolve(NOTHING_LOST, gaps=(Gap(2, 2, None, is_counted=True),))
        assert loss_line(one) == (
            "1 event is lost, of which 1 is counted in the totals"
        )
        assert list(report_lines(NOTHING_LOST, [], 0, Path("to"))) == [
            "log new in to: 9 events in 3 blocks, begins after 0, ends at 9",
            "made from: log old",
            "snapshots: none",
            "sinks: out",
            "streams: 1",
            "rejects: 2",
        ]

    def test_all_that_can_be(self) -> None:
        """Each loss has its words, and each thing left out its line."""
        result = attrs.evolve(
            NOTHING_LOST,
            parent_id="",
            sealed_anew=1,
            unproven=2,
            gaps=(Gap(2, 4, 77, is_counted=True), Gap(6, 6, None, is_counted=False)),
            snapshots=(4, 9),
            streams_back=(7, 8),
            sinks=(),
            moves=(Move("out", 3, 4), Move("tap", 6, 7)),
            doubtful=("streams", "cursors"),
            is_base_lost=True,
            ignored=(Ignored("a block", "it is old"),),
            ignored_more=5,
            copies=3,
            torn=4,
        )
        assert loss_line(result) == (
            "4 events are lost, of which 3 are counted in the totals; the state at its "
            "base is lost; moved on: out, tap; streams that go back: 2"
        )
        broken = [Ignored("snapshot 3", "it is cut")]
        assert list(report_lines(result, broken, 6, Path("to")))[1:] == [
            "made from: log unknown",
            "lost: events 2 to 4 (77 bytes), still counted in the totals",
            "lost: events 6 to 6, not in the totals",
            "lost: the state at the log's base, and all before it from the totals",
            "moved: sink out from 3 to 4",
            "moved: sink tap from 6 to 7",
            "moved: stream 7 goes back to what is left of it",
            "moved: stream 8 goes back to what is left of it",
            "snapshots: 4, 9",
            "sinks: none",
            "streams: 1",
            "rejects: 2",
            "sealed anew, behind a gap: 1",
            "of these not proven to be of the branch before the gap: 2",
            "blocks found more than once: 3",
            "places where a block seems to begin and is not whole: 4",
            "bytes that cannot be read: 6",
            "searched for in the raw bytes: streams, cursors",
            "ignored: snapshot 3: it is cut",
            "ignored: a block: it is old",
            "ignored: 5 more blocks",
        ]


def test_a_healthy_log(replay: Run, data: Path, to: Path) -> None:
    """It ends with 0, and the new log has the same totals, is sound and is served."""
    done = replay("salvage", data, to)
    text = re.sub("[0-9a-f]{32} in", "ID in", done.stdout)
    assert (done.code, done.stderr) == (0, "")
    assert text.splitlines()[:6] == [
        f"log ID in {to}: 10 events in 4 blocks, begins after 0, ends at 10",
        f"made from: log {VOTES_META.log_id}",
        "snapshots: 3, 6, 10",
        "sinks: out",
        "streams: 1",
        "rejects: 1",
    ]
    assert totals(to) == tally(VOTES)
    assert replay("verify", to).code == 0
    with serving(to.parent) as server:
        assert submit(server.port, wire([(b"a", 100)]))
    assert totals(to) == tally([*VOTES, (b"a", 100)])


def test_a_gap_costs_history_and_not_totals(replay: Run, data: Path, to: Path) -> None:
    """With a snapshot behind the gap a server has all totals, if that is agreed to."""
    lose(data, 1)
    lose_snapshots(data, 6)
    done = replay("salvage", data, to)
    assert done.code == 1
    assert "2 events are lost, of which 2 are counted in the totals" in done.stderr
    assert done.stderr.count("\n") == 1
    assert "lost: events 4 to 5 (92 bytes), still counted in the totals" in done.stdout
    assert "moved: sink out from 6 to 10" in done.stdout
    verified = replay("verify", to, "--json")
    assert verified.code == 0
    result = json.loads(verified.stdout)
    found = result["findings"]
    assert [(f["severity"], f["first"]) for f in found if f["severity"] != "note"] == [
        ("gap", 4)
    ]
    described = json.loads(replay("info", to, "--json").stdout)
    assert described["gaps"] == [{"first": 4, "last": 5}]
    assert "gaps: 4 to 5\n" in replay("info", to).stdout
    # Events that are lost count as none.
    assert result["events"] == described["events"] == 8
    assert "events 4 to 5 are lost" in refused(to.parent).stderr
    assert totals(to) == tally(VOTES)
    with Receiver() as receiver:
        served(to.parent, "--out", f"out@{receiver.address}")
        receiver.wait_bytes(OUTPUT_BYTES)
        [received] = [bytes(each) for each in receiver.connections]
    total = tally([*VOTES, (b"a", 100)])
    assert received == struct.pack(">IsQ", 9, b"a", total["a"])
    assert totals(to) == total
    assert replay("verify", to).code == 0


def test_a_gap_without_a_snapshot_behind(replay: Run, data: Path, to: Path) -> None:
    """Then the totals lack the lost votes, and nothing else."""
    lose(data, 1)
    lose_snapshots(data, 6, 10)
    done = replay("salvage", data, to, "--json")
    found = json.loads(done.stdout)
    assert (done.code, found["is_loss"]) == (1, True)
    assert found["gaps"] == [
        {"first": 4, "last": 5, "block_bytes": 92, "is_counted": False}
    ]
    assert (found["events"], found["blocks"], found["sealed_anew"]) == (8, 3, 2)
    assert (found["snapshots"], found["sinks"]) == ([3], ["out"])
    kept = [*VOTES[:3], *VOTES[5:]]
    assert totals(to) == tally(kept)
    served(to.parent)
    assert totals(to) == tally([*kept, (b"a", 100)])


@pytest.mark.parametrize("lots", [[0], [0, 1], [0, 1, 2, 3]])
def test_the_beginning_is_lost(
    replay: Run, data: Path, to: Path, lots: list[int]
) -> None:
    """The best snapshot becomes the base, and a server needs to agree to nothing."""
    for number in lots:
        lose(data, number)
    if lots == [0, 1]:
        lose_snapshots(data, 6)
    assert replay("salvage", data, to).code == 1
    expected = {1: 3, 2: 3, 4: 10}[len(lots)]
    info = json.loads(replay("info", to, "--json").stdout)
    assert (info["base"], info["parent"]) == (expected, VOTES_META.log_id)
    assert totals(to) == tally(VOTES)
    if len(lots) != 2:
        assert info["gaps"] == []
        with serving(to.parent) as server:
            assert submit(server.port, wire([(b"a", 100)]))
        assert totals(to) == tally([*VOTES, (b"a", 100)])


def test_without_meta_pages(replay: Run, data: Path, to: Path) -> None:
    """With both meta pages gone everything is found by looking through the file."""
    for number in (0, 1):
        zero_page(data / "log" / DATA_FILE, number)
    assert replay("verify", data).code == 1
    done = replay("salvage", data, to)
    assert done.code == 0, done
    assert (
        "searched for in the raw bytes: meta, streams, cursors, rejects" in done.stdout
    )
    assert totals(to) == tally(VOTES)
    assert replay("verify", to).code == 0


def test_a_log_that_does_not_know_itself(replay: Run, data: Path, to: Path) -> None:
    """A snapshot tells whose log it is; without one, only the operator can."""
    file = data / "log" / DATA_FILE
    name = VOTES_META.log_id.encode()
    file.write_bytes(file.read_bytes().replace(b'"log_id": "' + name, b"x" * 43))
    lose_snapshots(data, 3, 6)
    done = replay("salvage", data, to)
    assert done.code == 0, done
    assert f"made from: log {VOTES_META.log_id}" in done.stdout
    assert totals(to) == tally(VOTES)
    lose_snapshots(data, 10)
    other = to.parent / "other"
    done = replay("salvage", data, other)
    assert (done.code, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert "as with --application alphabet" in done.stderr
    assert not other.exists()
    done = replay("salvage", data, other, "--application", "mine")
    assert "name them in order with --pipeline" in done.stderr
    done = replay("salvage", data, other, "--application", "alphabet")
    assert done.code == 0, done
    assert "made from: log unknown" in done.stdout
    assert totals(other) == tally(VOTES)
    described = json.loads(replay("info", other, "--json").stdout)
    assert described["record_schema"] == ALPHABET.record_schema


def test_alphabet_is_known_as_it_is() -> None:
    """What the command knows of Alphabet's own logs is what its machine says."""
    machine = alphabet()
    assert machine.application == ALPHABET.application
    assert machine.record_schema == ALPHABET.record_schema
    assert tuple(machine.pipeline_names) == ALPHABET.pipelines


def check(done: Finished, code: int, said: str) -> None:
    """Fail unless a command ended so, said so in one line, and printed nothing."""
    assert done.code == code, done
    assert said in done.stderr
    assert (done.stdout, done.stderr.count("\n")) == ("", 1)


def test_what_cannot_be(replay: Run, data: Path, to: Path, tmp_path: Path) -> None:
    """Wrong usage ends with 2, a place that cannot be with 3, and nothing is made."""
    check(replay("salvage", data), 2, "Missing argument 'TO'")
    check(replay("salvage", tmp_path / "none", to), 3, "there is no log in it")
    check(replay("salvage", data / "log" / DATA_FILE, to), 3, "there is no log in it")
    check(replay("salvage", data, data / "to"), 3, "it is inside")
    check(replay("salvage", data, data), 3, "it already holds a log")
    check(replay("salvage", data, to.parent / "no" / "to"), 3, "does not exist")
    assert not to.exists()
    (data / "log" / DATA_FILE).write_bytes(b"nothing" * 5000)
    lose_snapshots(data, 3, 6, 10)
    check(replay("salvage", data, to), 1, "nothing of a log was found in it")
    head = bytearray(8192)
    head[24:28] = (0xBEEFC0DE).to_bytes(4, "little")
    (data / "log" / DATA_FILE).write_bytes(head)
    check(replay("salvage", data, to), 3, "LMDB 1.0")
    assert not to.exists()


def test_beside_a_server(replay: Run, tmp_path: Path, to: Path) -> None:
    """It is refused while a server runs, and a server while it reads."""
    with serving(tmp_path) as server:
        assert submit(server.port, wire(VOTES))
        done = replay("salvage", tmp_path / "data", to)
        check(done, 3, f"in use by server {server.pid}")
        (tmp_path / "data" / LOCK).unlink()
        check(replay("salvage", tmp_path / "data", to), 3, "(salvage is for a stopped")
        server.kill()
    assert replay("salvage", tmp_path / "data", to).code == 0
    assert totals(to) == tally(VOTES)


def test_no_server_begins_meanwhile(data: Path) -> None:
    """While it works a server is refused, by either of the files that one holds."""
    for name in (LOCK, f"log/{DATA_FILE}"):
        with held(data):
            (data / name).rename(data.parent / "away")
            with pytest.raises(LockedError):
                DataDirectory.claim(data)
            (data.parent / "away").rename(data / name)
    DataDirectory.claim(data).release()


def test_a_lock_that_may_not_be_read(data: Path, to: Path) -> None:
    """Whether a server runs cannot be seen then: the operator has to say so."""
    (data / LOCK).chmod(0)
    done = unprivileged("salvage", data, to)
    check(done, 3, "say so with --offline")
    assert unprivileged("salvage", data, to, "--offline").code == 0


def test_a_read_only_copy(data: Path, to: Path) -> None:
    """Nothing has to be written where the damaged log is."""
    lose(data, 1)
    with read_only(data):
        done = unprivileged("salvage", data, to)
    assert done.code == 1, done
    assert totals(to) == tally(VOTES)


def test_a_damaged_snapshot_is_told(replay: Run, data: Path, to: Path) -> None:
    """It stays behind, named; the others go along."""
    change(SnapshotDirectory(data / "snapshots").file(6), flip_middle)
    done = replay("salvage", data, to)
    assert done.code == 0
    assert "ignored: snapshot 6: its checksum does not match" in done.stdout
    assert "snapshots: 3, 10" in done.stdout


def test_a_reader_that_went_away(data: Path, to: Path) -> None:
    """As in `salvage | head`, an output that nobody takes gives no traceback."""
    done = subprocess.run(
        [
            "sh",
            "-c",
            '"$@" | head -0',
            "sh",
            *PYTHON,
            "recovery.cli",
            "salvage",
            data,
            to,
        ],
        env=environment({}),
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )
    assert done.stderr == ""
    assert totals(to) == tally(VOTES)


@pytest.mark.parametrize("name", ["salvage.before_snapshots", "create.before_rename"])
def test_killed_in_the_middle(replay: Run, data: Path, to: Path, name: str) -> None:
    """It leaves no log; the same command in another place makes it."""
    variables = {"ALPHABET_FAILPOINT": name}
    done = finish("recovery.cli", "salvage", data, to, variables=variables)
    assert done.code == 128 + signal.SIGKILL
    assert not (to / "log").exists()
    other = to.parent / "other"
    assert replay("salvage", data, other).code == 0
    assert not DataDirectory(to).has_log()
    assert totals(other) == tally(VOTES)
