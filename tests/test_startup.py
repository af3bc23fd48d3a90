"""From a data directory to a state, or to a refusal that changes nothing."""

import fcntl
import hashlib
import io
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import TypeVar

import attrs
import pytest

from alphabet.application import LetterStateBuilder
from alphabet.connector.frames import NO_POINT
from alphabet.journal.journal import Journal
from alphabet.pipeline.machine import Machine
from alphabet.startup import Consent, Opened, SinkError
from log.block import Block, Point, Records
from log.directory import LOCK, DataDirectory
from log.errors import DamagedError, DirectoryError, ForeignError, LockedError
from log.log import Log, Transaction
from log.row import Cursor, Meta
from log.store import BLOCKS, CURSORS, STREAMS, Change
from recovery.errors import AheadError, GapError, ReplayError, StateError
from recovery.replay import take_snapshot
from recovery.snapshot_directory import SnapshotDirectory
from tests import toy
from tests.machines import (
    LOTS,
    VOTES_META,
    alphabet,
    append_votes,
    change,
    flip_middle,
    key,
    write_votes,
)
from tests.votes import tally

EVERYTHING = Consent(is_lost_tail_accepted=True, are_gaps_accepted=True)
NOTHING = Consent()
RUNTIME_FILES = {LOCK, "lock.mdb"}
"""Who reads and who serves just now; no part of what was stored."""

T = TypeVar("T")

VOTES = [vote for lot in LOTS for vote in lot]


@attrs.define
class Starter:
    """Opens one data directory, as a server that starts, and hears what it says."""

    path: Path
    said: list[str] = attrs.Factory(list)

    def open(
        self, machine: Machine | None = None, consent: Consent = NOTHING
    ) -> Opened:
        """Open it; `said` has the lines afterwards."""
        return self._heard(
            lambda journal: Opened.open(
                self.path, machine or alphabet(), consent, journal
            )
        )

    def start(self, consent: Consent = NOTHING) -> dict[str, int]:
        """Open it and close it again; give the totals."""
        machine = alphabet()
        self.open(machine, consent).close()
        letters = machine.state("letter state").votes_by_letter
        return {key.decode("latin-1"): vote.votes for key, vote in letters.items()}

    def settle(
        self,
        *names: str,
        out_from: int | None = None,
        forgotten: tuple[str, ...] = (),
    ) -> dict[str, Cursor]:
        """Open it and settle its sinks; give their cursors."""
        opened = self.open()
        try:
            return dict(
                self._heard(
                    lambda journal: opened.settle_sinks(
                        names, out_from, forgotten, journal
                    )
                )
            )
        finally:
            opened.close()

    def log(self) -> Log:
        """Open the log to write to it, as a fault does."""
        return DataDirectory(self.path).open_log()

    def rows(self) -> dict[str, Cursor]:
        """Give the sinks' rows as they are stored."""
        with closing(self.log()) as log:
            return log.cursors()

    def digest(self) -> dict[str, str]:
        """Give a hash of every file that is part of what was stored."""
        return {
            str(file.relative_to(self.path)): hashlib.sha256(
                file.read_bytes()
            ).hexdigest()
            for file in sorted(self.path.rglob("*"))
            if file.is_file() and file.name not in RUNTIME_FILES
        }

    def _heard(self, act: Callable[[Journal], T]) -> T:
        stream = io.StringIO()
        journal = Journal.open(stream, "json")
        try:
            return act(journal)
        finally:
            journal.close()
            self.said = [json.loads(x)["event"] for x in stream.getvalue().splitlines()]


def is_free(path: Path) -> bool:
    """Say whether no server has a data directory."""
    with (path / LOCK).open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


@pytest.fixture
def starter(tmp_path: Path) -> Iterator[Starter]:
    """Return what opens a log of votes, with snapshots at 3 and 10."""
    write_votes(tmp_path / "data", snapshots=[3, 10])
    starter = Starter(tmp_path / "data")
    yield starter
    # Whatever happened, the lock was given back.
    assert is_free(starter.path)


def refuse(
    starter: Starter, kind: type[Exception], machine: Machine | None = None
) -> str:
    """Fail unless it is refused, with all files as they were; give the line."""
    before = starter.digest()
    with pytest.raises(kind) as caught:
        starter.open(machine)
    assert starter.digest() == before
    line = str(caught.value)
    assert "\n" not in line
    return line


def lose_tail(starter: Starter, sequence: int) -> None:
    """Take the blocks after an event out of the log, and nothing else."""
    with closing(starter.log()) as log:
        lost = [block.first_sequence for block in log.read(sequence)]
        log.store.commit([Change(BLOCKS, key(first), None) for first in lost], 0)


def without_snapshots(starter: Starter) -> None:
    """Take the snapshots away."""
    for file in (starter.path / "snapshots").iterdir():
        file.unlink()


class TestOpen:
    """A log that serves."""

    def test_a_new_log(self, tmp_path: Path) -> None:
        """Where there is none, a log is made for the application, and it is empty."""
        starter = Starter(tmp_path / "data")
        opened = starter.open()
        assert opened.recovered is None
        assert opened.snapshot_sequence == 0
        meta = opened.log.meta
        assert (meta.application, meta.pipelines) == ("alphabet", ("alphabet",))
        assert (meta.record_schema, meta.base_sequence) == (">sI", 0)
        assert len(meta.log_id) == 32
        opened.close()
        assert starter.open().recovered is not None

    def test_the_state_is_rebuilt(self, starter: Starter) -> None:
        """The machine has the totals of all votes, from the newest snapshot on."""
        with closing(starter.log()) as log:
            append_votes(log, [(b"a", 100)])
        assert starter.start() == tally([*VOTES, (b"a", 100)])
        opened = starter.open()
        assert opened.recovered is not None
        assert (opened.recovered.start, opened.recovered.replayed) == (10, 1)
        assert opened.snapshot_sequence == 10
        assert starter.said == []
        opened.close()

    def test_it_is_held(self, starter: Starter) -> None:
        """While one has it nobody else gets it, and afterwards the next does."""
        opened = starter.open()
        with pytest.raises(LockedError):
            starter.open()
        opened.close()
        starter.open().close()

    def test_a_refusal_lets_go(self, starter: Starter) -> None:
        """A start that is refused holds neither the lock nor the log."""
        with pytest.raises(ForeignError):
            starter.open(toy.machine())
        starter.open().close()

    def test_a_damaged_snapshot_is_set_aside(self, starter: Starter) -> None:
        """It is renamed with a line, and the next older serves."""
        change(starter.path / "snapshots" / f"{10:020}.snapshot", flip_middle)
        assert starter.start() == tally(VOTES)
        assert starter.said == [
            f"set aside {10:020}.snapshot.broken: its checksum does not match"
        ]
        assert SnapshotDirectory(starter.path / "snapshots").sequences() == [3]
        starter.start()
        assert starter.said == []

    def test_another_version_is_passed_over(self, starter: Starter) -> None:
        """A snapshot that this code cannot load stays in its place, with a line."""
        snapshots = SnapshotDirectory(starter.path / "snapshots")
        snapshots.write(attrs.evolve(snapshots.read(10), state_version=7))
        assert starter.start() == tally(VOTES)
        assert starter.said == ["snapshot 10 is passed over: it is of version 7, not 1"]
        assert snapshots.sequences() == [10, 3]

    def test_pipelines_that_came_since(self, tmp_path: Path) -> None:
        """The log learns the names of pipelines that the application has got."""
        write_toy(tmp_path, ("one",))
        starter = Starter(tmp_path / "data")
        opened = starter.open(toy.machine())
        assert opened.log.meta.pipelines == ("one", "two")
        opened.close()
        with closing(starter.log()) as log:
            assert log.meta.pipelines == ("one", "two")

    def test_a_state_that_cannot_be_dumped(
        self, starter: Starter, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """An application whose state cannot be stored is refused before it counts."""

        def refuse(_builder: object, _state: object) -> bytes:
            raise ValueError("not today")

        monkeypatch.setattr(LetterStateBuilder, "dump", refuse)
        with pytest.raises(StateError, match="cannot be dumped: ValueError: not today"):
            starter.open()

    def test_a_log_that_is_gone(self, starter: Starter) -> None:
        """Where snapshots tell of a log that is missing, none is begun in its place."""
        shutil.rmtree(starter.path / "log")
        with pytest.raises(DamagedError, match="its log is missing, and a snapshot at"):
            starter.open()
        assert not (starter.path / "log").exists()
        with closing(starter.open(consent=EVERYTHING)) as opened:
            assert opened.log.tail.sequence == 0


def write_toy(place: Path, pipelines: tuple[str, ...], *payloads: bytes) -> None:
    """Make a data directory of the toy's, with these pipelines."""
    directory = DataDirectory.claim(place / "data")
    with directory.new_log(attrs.evolve(toy.META, pipelines=pipelines)) as log:
        for payload in payloads:
            block = Block.seal(log.tail, Records.pack([payload]), time_ns=0)
            log.commit(Transaction((block,)))
    directory.release()


class TestForeign:
    """A sound log that is not for this program."""

    @pytest.mark.parametrize(
        ("meta", "said"),
        [
            (
                attrs.evolve(VOTES_META, application="tally"),
                "it belongs to application 'tally', not 'alphabet'",
            ),
            (
                attrs.evolve(VOTES_META, record_schema=">sQ"),
                "its records are '>sQ', not '>sI'",
            ),
            (
                attrs.evolve(VOTES_META, pipelines=("other",)),
                "its pipelines are other",
            ),
            (
                attrs.evolve(VOTES_META, pipelines=("alphabet", "second")),
                "its pipelines are alphabet, second",
            ),
            (
                attrs.evolve(VOTES_META, format_version=2),
                "its format is version 2, newer than 1",
            ),
            (
                attrs.evolve(VOTES_META, engine="lmdb-1.0"),
                "it was written with engine lmdb-1.0, not lmdb-0.9",
            ),
        ],
    )
    def test_it_is_left_alone(self, starter: Starter, meta: Meta, said: str) -> None:
        """It is refused with what it is and what to do, and no file changes."""
        with closing(starter.log()) as log:
            log.commit(Transaction(meta=meta))
        line = refuse(starter, ForeignError)
        assert said in line
        assert line.endswith(
            (
                "name the right application, or choose another data directory",
                "use the newer Alphabet that wrote it",
                "use the Alphabet that wrote it",
            )
        )

    def test_no_data_directory(self, starter: Starter) -> None:
        """A directory with anything else in it is left alone."""
        (starter.path / "thesis.txt").write_text("mine")
        assert "it holds 'thesis.txt'" in refuse(starter, DirectoryError)

    def test_an_event_that_cannot_be_replayed(self, tmp_path: Path) -> None:
        """A log whose decoder refuses what it took is refused, the event named."""
        write_toy(tmp_path, toy.META.pipelines, b"m1", b"r2")
        line = refuse(Starter(tmp_path / "data"), ReplayError, toy.machine())
        assert "event 2 can no longer be replayed" in line

    def test_a_refusal_teaches_no_pipelines(self, tmp_path: Path) -> None:
        """Whatever is refused later, the log's own description stays."""
        write_toy(tmp_path, ("one",), b"m1", b"r2")
        refuse(Starter(tmp_path / "data"), ReplayError, toy.machine())


class TestLostTail:
    """Something that the log does not reach."""

    def test_a_snapshot(self, starter: Starter) -> None:
        """Refused with both ways on; with consent it is set aside, and that is all."""
        lose_tail(starter, 6)
        with closing(starter.log()) as log:
            log.store.commit([Change(STREAMS, key(7), None)], 0)
        line = refuse(starter, AheadError)
        file = starter.path / "snapshots" / f"{10:020}.snapshot"
        assert "snapshot 10 is at sequence 10, and the log ends at 6" in line
        assert "--accept-lost-tail" in line
        assert f"compact {starter.path} TO --from-snapshot {file}'" in line
        assert starter.start(EVERYTHING) == tally(VOTES[:6])
        assert starter.said == [
            f"set aside {10:020}.snapshot.ahead: the log's tail was lost"
        ]
        assert file.with_name(f"{file.name}.ahead").exists()
        assert starter.start() == tally(VOTES[:6])

    def test_a_cursor(self, starter: Starter) -> None:
        """A sink beyond the end is refused; with consent it goes on from the end."""
        with closing(starter.log()) as log:
            log.commit(Transaction(cursors={"out": Cursor(12, 130, b"id")}))
        line = refuse(starter, AheadError)
        assert "sink out is at sequence 12, and the log ends at 10" in line
        assert "--accept-lost-tail" in line
        starter.start(EVERYTHING)
        assert starter.said == [
            "the log ends at 10, before sink out at 12: they go on from the log's end"
        ]
        assert starter.rows() == {"out": Cursor(10, 130, b"id")}
        starter.start()

    def test_the_snapshot_is_named_too(self, starter: Starter) -> None:
        """Where a snapshot is ahead as well, a cursor's line shows the way with it."""
        lose_tail(starter, 6)
        with closing(starter.log()) as log:
            log.commit(Transaction(cursors={"out": Cursor(9, 117)}))
        line = refuse(starter, AheadError)
        assert f"--from-snapshot {starter.path / 'snapshots'}/{10:020}.snapshot" in line

    def test_a_point(self, starter: Starter) -> None:
        """A stream beyond the end is refused, or put back to where the blocks are."""
        without_snapshots(starter)
        lose_tail(starter, 6)
        line = refuse(starter, AheadError)
        assert "stream 7 is at sequence 10, and the log ends at 6" in line
        starter.start(EVERYTHING)
        [said] = starter.said
        assert "stream 7 at 10" in said
        with closing(starter.log()) as log:
            assert log.points() == {7: (6, Point(7, 6, b"stream seven"))}
        starter.start()

    def test_a_point_of_which_no_block_is_left(self, starter: Starter) -> None:
        """A stream whose blocks are all lost begins anew, before any message id."""
        without_snapshots(starter)
        with closing(starter.log()) as log:
            append_votes(log, [(b"q", 1)], Point(8, 500, b"late"))
            log.commit(Transaction(points=(Point(7, 11, b"stream seven"),)))
        lose_tail(starter, 10)
        starter.start(EVERYTHING)
        with closing(starter.log()) as log:
            assert log.points() == {
                7: (10, Point(7, 10, b"stream seven")),
                8: (10, Point(8, NO_POINT, b"late")),
            }
        starter.start()

    def test_a_point_that_is_not_ahead_stays(self, starter: Starter) -> None:
        """A stream that advanced without an event, within the log, keeps its place."""
        with closing(starter.log()) as log:
            log.commit(Transaction(points=(Point(9, 90, b"nine"),)))
            append_votes(log, [(b"q", 1)], Point(8, 500, b"late"))
        lose_tail(starter, 10)
        starter.start(EVERYTHING)
        with closing(starter.log()) as log:
            assert log.points()[9] == (10, Point(9, 90, b"nine"))

    def test_a_point_whose_blocks_are_before_the_base(self, tmp_path: Path) -> None:
        """Of a stream that a compacted log has no blocks of, what is known stays."""
        data = tmp_path / "data"
        full = write_votes(tmp_path / "full", snapshots=[10])
        snapshot = SnapshotDirectory(full.snapshots_path).read(10)
        meta = attrs.evolve(VOTES_META, base_sequence=10)
        directory = DataDirectory.claim(data)
        with directory.new_log(meta, snapshot.encode()) as log:
            log.commit(Transaction(points=(Point(7, 10, b"stream seven"),)))
            append_votes(log, [(b"q", 1)], Point(7, 11, b"stream seven"))
        directory.release()
        starter = Starter(data)
        lose_tail(starter, 10)
        assert "stream 7 is at sequence 11" in refuse(starter, AheadError)
        starter.start(EVERYTHING)
        with closing(starter.log()) as log:
            assert log.points() == {7: (10, Point(7, 11, b"stream seven"))}
        starter.start()

    def test_consent_costs_nothing_where_nothing_is_lost(
        self, starter: Starter
    ) -> None:
        """A sound log is served as it is, whatever was agreed to."""
        before = starter.digest()
        assert starter.start(EVERYTHING) == tally(VOTES)
        assert starter.digest() == before
        assert starter.said == []


class TestGaps:
    """Events that salvage could not save."""

    def test_a_gap_is_refused(self, starter: Starter) -> None:
        """It is named; with consent the server counts on without the lost events."""
        with closing(starter.log()) as log:
            gap = Block.seal(log.tail, Records.gap(5), time_ns=log.tail.time_ns)
            meta = attrs.evolve(log.meta, gaps=[(11, 5)])
            log.commit(Transaction((gap,), meta=meta))
        line = refuse(starter, GapError)
        assert line.startswith(f"{starter.path}: events 11 to 15 are lost")
        assert "--accept-gaps" in line
        assert starter.start(EVERYTHING) == tally(VOTES)
        assert starter.said == []

    def test_a_gap_before_a_snapshot_is_refused_too(self, starter: Starter) -> None:
        """Lost events are agreed to, though a snapshot spares their replay."""
        with closing(starter.log()) as log:
            gap = Block.seal(log.tail, Records.gap(5), time_ns=log.tail.time_ns)
            meta = attrs.evolve(log.meta, gaps=[(11, 5)])
            log.commit(Transaction((gap,), meta=meta))
            snapshots = SnapshotDirectory(starter.path / "snapshots")
            states = snapshots.read(10).states
            snapshots.write(take_snapshot(log, alphabet(), 15, states))
        assert "events 11 to 15 are lost" in refuse(starter, GapError)
        assert starter.start(EVERYTHING) == tally(VOTES)

    def test_a_gap_that_nobody_listed_is_refused(self, starter: Starter) -> None:
        """A gap that only a block tells of is refused where it would be replayed."""
        with closing(starter.log()) as log:
            gap = Block.seal(log.tail, Records.gap(5), time_ns=log.tail.time_ns)
            log.commit(Transaction((gap,)))
        line = refuse(starter, GapError)
        assert line.startswith(f"{starter.path}: events 11 to 15 are lost")


class TestSinks:
    """Where each sink begins."""

    def test_a_known_one_goes_on(self, starter: Starter) -> None:
        """A sink with a row goes on at its cursor, and nothing is said."""
        assert starter.settle("out") == {"out": Cursor(6, 78)}
        assert starter.said == []

    def test_a_new_one_starts_at_the_end(self, starter: Starter) -> None:
        """A sink without a row starts after the last event, and it is said."""
        assert starter.settle("new") == {"new": Cursor(10, 0)}
        assert starter.said == [
            "sink new is new: starts after sequence 10 (known sinks: out)"
        ]
        assert starter.rows() == {"new": Cursor(10, 0), "out": Cursor(6, 78)}
        assert starter.settle("new") == {"new": Cursor(10, 0)}
        assert starter.said == []

    @pytest.mark.parametrize("out_from", [0, 4, 10])
    def test_a_new_one_starts_where_told(self, starter: Starter, out_from: int) -> None:
        """`--out-from` is where a new sink starts, exclusive, from 0 to the end."""
        assert starter.settle("a", "b", out_from=out_from) == {
            "a": Cursor(out_from, 0),
            "b": Cursor(out_from, 0),
        }
        assert len(starter.said) == 2
        assert f"starts after sequence {out_from}" in starter.said[0]

    @pytest.mark.parametrize(
        ("names", "out_from", "forgotten", "said"),
        [
            (
                ("out",),
                0,
                (),
                "and 'out' is at sequence 6; forget it first with --forget-sink",
            ),
            (("new", "out"), 0, (), "--out-from is for new sinks, and 'out'"),
            (
                ("new",),
                11,
                (),
                "--out-from 11 is not in the log, which goes from 0 to 10",
            ),
            (("out",), None, ("x",), "no sink 'x' to forget (known sinks: out)"),
            ((), None, ("out", "x"), "no sink 'x' to forget (known sinks: out)"),
        ],
    )
    def test_what_cannot_be(
        self,
        starter: Starter,
        names: tuple[str, ...],
        out_from: int | None,
        forgotten: tuple[str, ...],
        said: str,
    ) -> None:
        """It is refused with what can, and no row changes."""
        before = starter.digest()
        with pytest.raises(SinkError) as caught:
            starter.settle(*names, out_from=out_from, forgotten=forgotten)
        assert said in str(caught.value)
        assert starter.digest() == before

    def test_one_is_forgotten(self, starter: Starter) -> None:
        """A forgotten sink's row goes, and others stay."""
        starter.settle("two")
        assert starter.settle(forgotten=("out",)) == {}
        assert starter.rows() == {"two": Cursor(10, 0)}

    @pytest.mark.parametrize(("out_from", "start"), [(None, 10), (0, 0)])
    def test_one_is_forgotten_to_begin_anew(
        self, starter: Starter, out_from: int | None, start: int
    ) -> None:
        """A sink that is forgotten and named in one go has a new row."""
        cursors = starter.settle("out", out_from=out_from, forgotten=("out",))
        assert cursors == {"out": Cursor(start, 0)}
        assert starter.said == [
            f"sink out is new: starts after sequence {start} (known sinks: none)"
        ]
        assert starter.rows() == {"out": Cursor(start, 0)}

    def test_nothing_new_costs_no_commit(self, starter: Starter) -> None:
        """Where every sink is known, the log stays as it is."""
        before = starter.digest()
        starter.settle("out")
        starter.settle()
        assert starter.digest() == before

    def test_a_compacted_log(self, tmp_path: Path) -> None:
        """A new sink cannot start before the base of a compacted log."""
        full = write_votes(tmp_path / "full", snapshots=[10])
        snapshot = SnapshotDirectory(full.snapshots_path).read(10)
        meta = attrs.evolve(VOTES_META, base_sequence=10)
        directory = DataDirectory.claim(tmp_path / "data")
        with directory.new_log(meta, snapshot.encode()) as log:
            append_votes(log, [(b"a", 1)])
        directory.release()
        starter = Starter(tmp_path / "data")
        with pytest.raises(SinkError, match="--out-from 9 is not in the log, which"):
            starter.settle("out", out_from=9)
        assert starter.settle("out", out_from=10) == {"out": Cursor(10, 0)}
        assert starter.start() == tally([*VOTES, (b"a", 1)])


def test_rows_are_checked_first(starter: Starter) -> None:
    """A damaged row is named before a long replay, and nothing changes."""
    with closing(starter.log()) as log:
        value = log.store.get(CURSORS, b"out")
        assert value is not None
        log.store.commit([Change(CURSORS, b"out", flip_middle(value))], 0)
    assert "cursors row b'out'" in refuse(starter, Exception)
