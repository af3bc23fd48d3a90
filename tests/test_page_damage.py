"""A page of the log's file damaged under a server: it serves, or says so and ends.

Never by a signal: LMDB, which trusts its pages, is given none that were not looked at.
Many starts are made in one forked process, each on a file with one page damaged, and
each goes on to count.
"""

import contextlib
import io
import os
import random
import shutil
from pathlib import Path

import attrs
import pytest

from alphabet.journal.journal import Journal
from alphabet.startup import Consent, Opened
from log import lmdb_store
from log.block import Block
from log.directory import DataDirectory
from log.errors import DamagedError, LogError
from log.lmdb_store import DATA_FILE
from log.log import Transaction
from log.row import Cursor
from recovery.errors import RecoveryError
from tests.machines import VOTES_META, VOTES_REJECT, alphabet, pack_votes
from tests.process import ANY, refused, serving, submit, wait_until
from tests.receiving import Receiver
from tests.test_every_damage import Dissection, run_cases
from tests.test_page import ask
from tests.votes import Vote, tally, wire

PAGE_BYTES = 4096
COMMITS = 24
BLOCKS_PER_COMMIT = 6
CASES_MAX = 10_000 if "ALPHABET_SOAK" in os.environ else 80
NEW_COMMITS = 4
NEW: Vote = (b"z", 1)


@attrs.frozen
class Case:
    """One page of the file, replaced; `data` is what stands there instead."""

    kind: str
    page: int
    data: bytes = attrs.field(repr=False)


@attrs.frozen
class Made:
    """A log that a server left, its file after each commit, and its votes in order."""

    path: Path
    versions: list[bytes]
    votes: list[Vote]

    @property
    def file(self) -> Path:
        """The log's file."""
        return self.path / "log" / DATA_FILE

    @property
    def free_list_pages(self) -> set[int]:
        """The pages where the list of free pages is kept."""
        spans = Dissection(self.versions[-1], PAGE_BYTES).spans()
        return {each.page for each in spans if each.region.startswith("free list")}

    def cases(self, chance: random.Random) -> list[Case]:
        """Give pages zeroed, flipped, old ones put back and others' put there."""
        data = self.versions[-1]
        found = []
        for number in range(2, len(data) // PAGE_BYTES):
            place = slice(number * PAGE_BYTES, (number + 1) * PAGE_BYTES)
            page = data[place]
            found.append(Case("zeroed", number, bytes(PAGE_BYTES)))
            # Half of the flips hit the header and the pointers.
            for _ in range(4):
                position = chance.randrange(chance.choice([64, PAGE_BYTES]))
                flipped = bytearray(page)
                flipped[position] ^= 1 << chance.randrange(8)
                found.append(Case(f"flipped at {position}", number, bytes(flipped)))
            old = {version[place] for version in self.versions} - {page, b""}
            found += [Case("stale", number, each) for each in sorted(old)]
            other = chance.randrange(2, len(data) // PAGE_BYTES)
            start = other * PAGE_BYTES
            found.append(Case("foreign", number, data[start : start + PAGE_BYTES]))
        return chance.sample(found, min(CASES_MAX, len(found)))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Return a log with leaves, branches, overflow pages, rows and free pages."""
    path = tmp_path_factory.mktemp("made") / "data"
    directory = DataDirectory.claim(path)
    with directory.new_log(VOTES_META):
        pass
    versions: list[bytes] = []
    votes: list[Vote] = []
    with contextlib.closing(directory.open_log()) as log:
        for number in range(COMMITS):
            after, blocks = log.tail, []
            for index in range(BLOCKS_PER_COMMIT):
                lot = [(b"abc"[index % 3 : index % 3 + 1], len(votes) + 1)]
                lot *= 900 if number % 8 == 7 and not index else 20
                votes += lot
                blocks.append(Block.seal(after, pack_votes(lot), time_ns=number))
                after = blocks[-1].tail
            cursors = {"out": Cursor(after.sequence, 13 * after.sequence)}
            log.commit(
                Transaction(tuple(blocks), cursors=cursors, rejects=(VOTES_REJECT,))
            )
            versions.append((path / "log" / DATA_FILE).read_bytes())
    directory.release()
    return Made(path, versions, votes)


class RefusedError(Exception):
    """A start that was refused, with the line that says why."""


def count_on(path: Path) -> tuple[int, dict[str, int]]:
    """Start on a directory as a server does, count some more, and read all of it.

    Gives the sequence it began after, and the totals in the end. Raises RefusedError
    where it does not start.
    """
    journal = Journal.open(io.StringIO(), "json")
    machine = alphabet()
    try:
        try:
            opened = Opened.open(path, machine, Consent(), journal)
        except (LogError, RecoveryError) as error:
            raise RefusedError(str(error)) from error
        with contextlib.closing(opened):
            log = opened.log
            start = log.tail.sequence
            log.cursors()
            for number in range(NEW_COMMITS):
                block = Block.seal(log.tail, pack_votes([NEW]), time_ns=100 + number)
                cursor = Cursor(block.last_sequence, 1)
                log.commit(
                    Transaction(
                        (block,), cursors={"out": cursor}, rejects=(VOTES_REJECT,)
                    )
                )
            opened.replayer.recover(machine)
    finally:
        journal.close()
    letters = machine.state("letter state").votes_by_letter
    return start, {key.decode(): vote.votes for key, vote in letters.items()}


def complaint(made: Made, case: Case, *, is_long: bool) -> str | None:
    """Say what is wrong with how a start took a damaged page, if anything is."""
    data = made.versions[-1]
    start = case.page * PAGE_BYTES
    made.file.write_bytes(data[:start] + case.data + data[start + PAGE_BYTES :])
    try:
        sequence, totals = count_on(made.path)
    except RefusedError as refusal:
        return "several lines" if "\n" in str(refusal) else None
    except (LogError, RecoveryError) as error:
        is_free_list = case.page in made.free_list_pages
        is_known = is_long and is_free_list and isinstance(error, DamagedError)
        return None if is_known else f"it began, and then: {error}"
    finally:
        made.file.write_bytes(data)
    is_lost = case.kind == "stale" and is_long and sequence
    if sequence != len(made.votes) and not is_lost:
        return f"it began after {sequence} of {len(made.votes)}"
    if totals != tally([*made.votes[:sequence], *[NEW] * NEW_COMMITS]):
        return "its totals are wrong"
    return None


class TestAnyPage:
    """Any page of the file, damaged in any way, under a server's start."""

    @pytest.mark.parametrize("is_long", [False, True], ids=["whole", "long"])
    def test_it_serves_or_says_so(
        self,
        made: Made,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        *,
        is_long: bool,
    ) -> None:
        """It counts on with right totals, or refuses in one line; no signal ends it.

        An old page takes a tail unnoticed, for `verify` to find: the last leaf's of a
        long log, of which only the last block's place is looked at. And in a long log
        a wrong number in the list of free pages may cost blocks, which is noticed when
        they are read.
        """
        if is_long:
            monkeypatch.setattr(lmdb_store, "BLOCKS_WALKED_MAX", 0)
        seed = int(os.environ.get("ALPHABET_SEED") or random.randrange(2**32))
        print(f"to repeat this: ALPHABET_SEED={seed}")  # noqa: T201 - pytest shows it
        copy = tmp_path / "data"
        shutil.copytree(made.path, copy)
        here = attrs.evolve(made, path=copy)
        assert not run_cases(
            here.cases(random.Random(seed)),
            lambda case: complaint(here, case, is_long=is_long),
            tmp_path / "cases",
        )

    def test_it_serves_a_sound_file(self, made: Made, tmp_path: Path) -> None:
        """Where no page is damaged it serves: the refusals are of damage."""
        copy = tmp_path / "data"
        shutil.copytree(made.path, copy)
        sequence, totals = count_on(copy)
        assert sequence == len(made.votes)
        assert totals == tally([*made.votes, *[NEW] * NEW_COMMITS])


class TestServer:
    """The real server on a damaged file."""

    def test_a_page_that_the_start_reads(self, made: Made, tmp_path: Path) -> None:
        """It ends with 1 and one line, which names the page and both tools."""
        shutil.copytree(made.path, tmp_path / "data")
        file = tmp_path / "data" / "log" / DATA_FILE
        data = bytearray(file.read_bytes())
        # Every page but the meta pages: the names are met first.
        data[2 * PAGE_BYTES :] = bytes(len(data) - 2 * PAGE_BYTES)
        file.write_bytes(data)
        done = refused(tmp_path)
        assert done.code == 1
        for part in ("names, page ", "it is zeros", "verify", "salvage"):
            assert part in done.stderr

    def test_a_page_that_only_a_sink_reads(self, tmp_path: Path) -> None:
        """The sink that needs it stops and says where; votes are counted on."""
        lots = lmdb_store.BLOCKS_WALKED_MAX + 100
        directory = DataDirectory.claim(tmp_path / "data")
        with directory.new_log(VOTES_META) as log:
            blocks, after = [], log.tail
            for number in range(lots):
                block = Block.seal(after, pack_votes([(b"a", 1)]), time_ns=number)
                blocks.append(block)
                after = block.tail
            log.commit(Transaction(tuple(blocks), cursors={"out": Cursor(0, 0)}))
        directory.release()
        file = directory.log_path / DATA_FILE
        with serving(tmp_path, "--snapshot-every", 1) as server:
            assert submit(server.port, wire([(b"a", 1)] * 1000))
            assert server.stop() == 0
        data = file.read_bytes()
        place = data.index(blocks[lots // 2].encoded) // PAGE_BYTES
        with file.open("r+b") as stream:
            stream.seek(place * PAGE_BYTES)
            stream.write(bytes(PAGE_BYTES))
        with Receiver() as receiver:
            words = ("--snapshot-every", 1, "--out", receiver.address, "--http", ANY)
            with serving(tmp_path, *words) as server:
                line = server.wait_said(f"page {place}: it is zeros")
                assert "blocks" in line
                ready = ask(server, "/readyz")
                assert ready.status == 503
                [reason] = ready.document["reasons"]
                assert reason.startswith("sink out has stopped: ")
                assert f"page {place}: it is zeros" in reason
                assert ask(server, "/healthz").status == 200
                assert submit(server.port, wire([(b"b", 7)]))
                server.stop()
        wait_until(lambda: not server.is_running, "its end")
        with contextlib.closing(directory.open_log(is_read_only=True)) as log:
            assert log.tail.sequence == lots + 1001
