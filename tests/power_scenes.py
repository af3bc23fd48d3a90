"""What is under way when the power fails, and what must be found afterwards.

A scene is played by a process of its own, which says on standard output what it has
begun (`submit`) and what it has been promised (all else), each with a number or a word.
Then it is checked in a directory as a power failure may have left it, against what had
been said until then. All is done by the code that serves, recovers, compacts and backs
up; nothing here writes a file.
"""

import contextlib
import functools
import io
import os
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from unittest import mock

import attrs
import lmdb

from alphabet.journal.journal import Journal
from alphabet.startup import Consent, Opened
from log.block import Block, Point
from log.directory import DataDirectory
from log.log import Log, Transaction
from log.row import Cursor
from recovery.backup import back_up
from recovery.compact import choose_base, compact
from recovery.new_place import new_place
from recovery.replay import Replayer, take_snapshot
from recovery.snapshot_directory import SnapshotDirectory
from recovery.verify import Verifier
from tests.machines import VOTES_REJECT, alphabet, pack_votes
from tests.votes import make_votes, payloads, tally

SIZES = (1, 1, 5, 100, 600, 3000)
COMMITS = 40
COMMITS_BEFORE_A_COPY = 9
STREAM = 7
DATA = "data"
COPY = "copy"

_CHANCE = random.Random(7)
LOTS = [_CHANCE.choice(SIZES) for _ in range(COMMITS)]
VOTES = make_votes(_CHANCE, sum(LOTS) + 1)
"""One more than the lots have: for a check that counting goes on."""


@attrs.define
class Said:
    """What was said before the power failed: the last of each word."""

    last: dict[str, str] = attrs.Factory(dict)

    def hear(self, text: str) -> None:
        """Take what was said at once."""
        for line in text.splitlines():
            word, _, value = line.partition(" ")
            self.last[word] = value

    def number(self, word: str) -> int:
        """Give the number last said with a word, 0 if it was never said."""
        return int(self.last.get(word, 0))


def say(word: str, value: object = "") -> None:
    """Tell the world something, in one call."""
    sys.stdout.write(f"{word} {value}\n")
    sys.stdout.flush()


@functools.cache
def journal() -> Journal:
    """Give a journal that nobody reads."""
    return Journal.open(io.StringIO(), "json")


def open_data(path: Path) -> Opened:
    """Start on a data directory as the server does."""
    return Opened.open(path, alphabet(), Consent(), journal())


def count(path: Path, commits: int = COMMITS) -> None:
    """Make a log, then commit lots, with snapshots now and then and one restart."""
    opened = open_data(path)
    say("log", opened.log.meta.log_id)
    opened.settle_sinks(["out"], None, (), journal())
    for number in range(commits):
        commit_lot(opened.log, number)
        if number % 5 == 4:
            snapshot(opened)
        if number == commits // 2:
            opened.close()
            opened = open_data(path)
    opened.close()


def commit_lot(log: Log, number: int) -> None:
    """Commit a lot of votes with a point and a cursor; now and then a reject alone."""
    first = log.tail.sequence
    end = first + LOTS[number]
    if number % 8 == 7:
        log.commit(Transaction(rejects=(VOTES_REJECT,)))
        say("reject", number)
    block = Block.seal(
        log.tail,
        pack_votes(VOTES[first:end]),
        time_ns=number,
        points=(Point(STREAM, end, b"stream"),),
    )
    say("submit", end)
    log.commit(Transaction((block,), cursors={"out": Cursor(first, first)}))
    say("cursor", first)
    say("commit", end)


def snapshot(opened: Opened) -> None:
    """Take a snapshot at the log's end, and remove old ones."""
    machine = alphabet()
    opened.replayer.recover(machine)
    sequence = opened.log.tail.sequence
    taken = take_snapshot(opened.log, machine, sequence, machine.dump())
    opened.snapshots.write(taken)
    say("snapshot", sequence)
    opened.snapshots.prune(sequence)


@contextlib.contextmanager
def _source(path: Path) -> Iterator[Replayer]:
    """Open a log to copy it."""
    directory = DataDirectory(path)
    with contextlib.closing(directory.open_log(is_read_only=True)) as log:
        yield Replayer(log, SnapshotDirectory(directory.snapshots_path))


def make_compacted(source: Path, to: Path) -> None:
    """Compact a log."""
    with _source(source) as replayer, new_place(to, source) as target:
        compact(replayer.log, choose_base(replayer, alphabet()), target)


def make_backup(source: Path, to: Path) -> None:
    """Back a log up, or bring its copy up to it."""
    with _source(source) as replayer:
        back_up(replayer.log, replayer.snapshots, source, to)


Make = Callable[[Path, Path], None]


def copy(make: Make, place: Path) -> None:
    """Count, make a copy, count on, and make it again where that is possible."""
    count(place / DATA, COMMITS_BEFORE_A_COPY)
    say("copying")
    make(place / DATA, place / COPY)
    say("copy", sum(LOTS[:COMMITS_BEFORE_A_COPY]))
    if make is make_backup:
        with contextlib.closing(open_data(place / DATA)) as opened:
            commit_lot(opened.log, COMMITS_BEFORE_A_COPY)
            snapshot(opened)
        make(place / DATA, place / COPY)
        say("copy", sum(LOTS[: COMMITS_BEFORE_A_COPY + 1]))


def check_counted(path: Path, said: Said, *, is_thorough: bool) -> None:
    """What was promised is there, nothing else is, and counting goes on."""
    machine = alphabet()
    opened = Opened.open(path, machine, Consent(), journal())
    with contextlib.closing(opened):
        log = opened.log
        last = log.tail.sequence
        promised, submitted = said.number("commit"), said.number("submit")
        assert promised <= last, f"lost: {promised} was committed, and {last} is there"
        assert last <= submitted, f"made up: {last} is there, {submitted} submitted"
        if "log" in said.last:
            assert log.meta.log_id == said.last["log"], "lost: it is another log"
        _check_beside(log, said)
        recovered = opened.recovered
        start = 0 if recovered is None else recovered.start
        notices = () if recovered is None else recovered.notices
        assert not notices, f"damaged: {notices}"
        taken = said.number("snapshot")
        assert taken <= start, f"lost: a snapshot at {taken}; it began at {start}"
        found = [record for block in log.read(0) for record in block.records]
        assert b"".join(found) == payloads(VOTES[:last]), "other votes"
        _check_state(machine.dump()[0].data, last)
        end = last + 1
        block = Block.seal(log.tail, pack_votes(VOTES[last:end]), time_ns=COMMITS)
        log.commit(Transaction((block,)))
    machine = alphabet()
    with contextlib.closing(Opened.open(path, machine, Consent(), journal())) as again:
        assert again.log.tail.sequence == end, "it does not go on"
        _check_state(machine.dump()[0].data, end)
    if is_thorough:
        verify(path)


def verify(path: Path) -> None:
    """Find no damage, in the file's structure either."""
    directory = DataDirectory(path)
    structure = directory.inspect_file()
    with _source(path) as replayer:
        verifier = Verifier(
            replayer.log, replayer.snapshots, alphabet(), structure=structure
        )
        damage = verifier.run().damage
    assert not damage, f"damaged: {damage}"


def _check_beside(log: Log, said: Said) -> None:
    """What stands beside the blocks is what was promised, and goes with them."""
    cursors = log.cursors()
    reached = cursors["out"].sequence if "out" in cursors else -1
    if "commit" in said.last:
        promised = said.number("cursor")
        assert promised <= reached, f"lost: cursor {promised}; it is at {reached}"
    points = {stream: point.message_id for stream, (_, point) in log.points().items()}
    last = log.tail.sequence
    assert points.get(STREAM, 0) == last, f"the point is at {points}, the log at {last}"
    rejects = len(list(log.rejects()))
    assert rejects >= (said.number("reject") + 1) // 8, f"lost: {rejects} rejects left"


def _check_state(dumped: bytes, last: int) -> None:
    totals = {
        dumped[at : at + 1].decode("latin-1"): int.from_bytes(dumped[at + 1 : at + 9])
        for at in range(0, len(dumped), 9)
    }
    assert totals == tally(VOTES[:last]), f"other totals after {last}: {totals}"


def check_copied(make: Make, place: Path, said: Said, *, is_thorough: bool) -> None:
    """The copy is whole or absent, and if it is absent it can be made."""
    to = place / COPY
    if not DataDirectory(to).has_log():
        assert "copy" not in said.last, "lost: the copy"
        make(place / DATA, to)
        assert DataDirectory(to).has_log(), "the copy cannot be made"
    machine = alphabet()
    with contextlib.closing(Opened.open(to, machine, Consent(), journal())) as opened:
        last = opened.log.tail.sequence
        promised = max(said.number("copy"), sum(LOTS[:COMMITS_BEFORE_A_COPY]))
        assert promised <= last, f"in part: {promised} was to copy, and {last} is there"
        _check_state(machine.dump()[0].data, last)
    if is_thorough:
        verify(to)
    check_counted(place / DATA, said, is_thorough=is_thorough)


@attrs.frozen
class Scene:
    """What is played in a directory, from which word on, and how it is checked."""

    play: Callable[[Path], None]
    check: Callable[..., None]
    begins: str | None = None


def _copying(make: Make) -> Scene:
    return Scene(
        functools.partial(copy, make), functools.partial(check_copied, make), "copying"
    )


def _opening(**flags: bool) -> AbstractContextManager[object]:
    """Have LMDB opened with other flags."""
    opener: Callable[..., object] = lmdb.open
    return mock.patch.object(lmdb, "open", functools.partial(opener, **flags))


SCENES = {
    "count": Scene(
        lambda place: count(place / DATA),
        lambda place, said, *, is_thorough: check_counted(
            place / DATA, said, is_thorough=is_thorough
        ),
    ),
    "compact": _copying(make_compacted),
    "backup": _copying(make_backup),
}

FLAWS: dict[str, Callable[[], AbstractContextManager[object]]] = {
    "none": contextlib.nullcontext,
    "sync": lambda: _opening(sync=False),
    "metasync": lambda: _opening(metasync=False),
    "fsync": lambda: mock.patch.object(os, "fsync", return_value=None),
}
"""What a writer may fail to do: checks must see it."""

if __name__ == "__main__":
    with FLAWS[sys.argv[2]]():
        SCENES[sys.argv[1]].play(Path(sys.argv[3]))
