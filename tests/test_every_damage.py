"""Damage in every place of a log's file: found and named, or of no consequence.

A small log that has all that a file can hold is damaged in one place at a time, and
`alphabet-replay verify` is run on it as it is, many times in one forked process. It
must find the damage and name the place; or, where it finds nothing, the log must read
back exactly as it was. With ALPHABET_SOAK set each byte of the file has its turn.
"""

import contextlib
import io
import itertools
import json
import os
import shutil
import signal
import struct
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import attrs
import pytest

from log.block import Block, Point
from log.directory import DataDirectory
from log.lmdb_store import DATA_FILE
from log.log import Transaction
from log.row import Cursor
from log.store import BLOCKS, CURSORS, META, REJECTS, STREAMS
from recovery.cli import main
from recovery.snapshot import Snapshot
from tests.faults import flip_bit
from tests.machines import (
    VOTES_META,
    VOTES_REJECT,
    alphabet,
    pack_votes,
    write_votes_snapshot,
)
from tests.process import SECONDS_MAX, replay

SOAK = "ALPHABET_SOAK" in os.environ
CASES_MAX = 60
"""How many places of a region have their turn in one run, but for a soak's."""
PARTS = 16 if SOAK else 1
"""How many tests share a region: each has to end in time."""
MASKS = (0x01, 0x80, 0xFF, 0x10)

BASE = 5
SMALL_BLOCKS = 72
LARGE_VOTES = 900
Case = TypeVar("Case")

ROWS = {CURSORS, REJECTS, STREAMS, META}


@attrs.frozen
class Made:
    """A log in a data directory, and its file and cursors after each of its commits."""

    path: Path
    versions: list[bytes]
    cursors: list[dict[str, Cursor]]

    @property
    def file(self) -> Path:
        """The log's file."""
        return self.path / "log" / DATA_FILE

    @property
    def data(self) -> bytes:
        """The file's bytes when all was well."""
        return self.versions[-1]

    @property
    def page_bytes(self) -> int:
        """How long a page is."""
        return int(struct.unpack_from("<I", self.data, 40)[0])

    @property
    def page_count(self) -> int:
        """How many pages the file has."""
        return len(self.data) // self.page_bytes

    def page(self, number: int, data: bytes | None = None) -> bytes:
        """Give a page of the file, or of `data`."""
        start = number * self.page_bytes
        return (data or self.data)[start : start + self.page_bytes]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Return a log with a base, many blocks, one of them apart, and all other rows."""
    path = tmp_path_factory.mktemp("made") / "data"
    directory = DataDirectory.claim(path)
    machine = alphabet()
    base = Snapshot(
        VOTES_META.log_id, BASE, BASE, 7, "alphabet", 1, machine.dump()
    ).encode()
    meta = attrs.evolve(VOTES_META, base_sequence=BASE, base_checksum=7)
    with directory.new_log(meta, base):
        pass
    versions, all_cursors = [], []
    with contextlib.closing(directory.open_log()) as log:
        number = 0
        for lot in range(12):
            blocks: list[Block] = []
            for _ in range(SMALL_BLOCKS // 12):
                number += 1
                votes = [(b"abcde"[number % 5 : number % 5 + 1], number)]
                points = []
                if number % 7 == 0:
                    points = [Point(7 + number % 2, number, b"stream")]
                if number == SMALL_BLOCKS // 2:
                    votes *= LARGE_VOTES
                after = blocks[-1].tail if blocks else log.tail
                records = pack_votes(votes)
                blocks.append(Block.seal(after, records, time_ns=number, points=points))
            end = blocks[-1].last_sequence
            cursors = {"out": Cursor(end, 13 * end), "two": Cursor(end, 1, b"txn")}
            reject = attrs.evolve(VOTES_REJECT, position=lot)
            log.commit(Transaction(tuple(blocks), cursors=cursors, rejects=(reject,)))
            versions.append((path / "log" / DATA_FILE).read_bytes())
            all_cursors.append(cursors)
    directory.release()
    for sequence in (BASE + 20, BASE + SMALL_BLOCKS + LARGE_VOTES - 1):
        write_votes_snapshot(directory, sequence)
    return Made(path, versions, all_cursors)


@attrs.frozen
class Span:
    """Bytes of the file that are one thing: `table` and `key` say whose they are."""

    region: str
    start: int
    stop: int
    page: int
    table: str = ""
    key: bytes = b""


@attrs.frozen
class Dissection:
    """Takes LMDB's file apart, by its own reading of `mdb.c`."""

    data: bytes
    page_bytes: int

    def spans(self) -> Iterator[Span]:
        """Give what is in use, span by span."""
        ends = [number * self.page_bytes for number in (0, 1)]
        for number, start in enumerate(ends):
            yield Span("meta page", start, start + 152, number)
        newest = max(ends, key=lambda start: self.number("<Q", start + 144))
        for table, record in (("free list", newest + 40), ("names", newest + 88)):
            yield from self.tree(table, self.number("<Q", record + 40))

    def number(self, form: str, offset: int) -> int:
        """Read a number."""
        return int(struct.unpack_from(form, self.data, offset)[0])

    def tree(self, table: str, root: int) -> Iterator[Span]:
        """Give a page's spans, and those of all below it."""
        if root == 2**64 - 1:
            return
        start = root * self.page_bytes
        lower = self.number("<H", start + 12)
        is_leaf = self.number("<H", start + 10) == 2
        kind = "free list" if table == "free list" else "leaf" if is_leaf else "branch"
        yield Span(f"{kind} header", start, start + 16, root, table)
        yield Span(f"{kind} pointers", start + 16, start + lower, root, table)
        for pointer in range(start + 16, start + lower, 2):
            node = start + self.number("<H", pointer)
            size, flags, key_bytes = struct.unpack_from("<IHH", self.data, node)
            value = node + 8 + key_bytes
            key = self.data[node + 8 : value]
            yield Span(f"{kind} nodes", node, value, root, table, key)
            if not is_leaf:
                yield from self.tree(table, size | flags << 32)
            elif flags & 1:
                yield Span(f"{kind} nodes", value, value + 8, root, table, key)
                yield from self.run(table, key, self.number("<Q", value), size)
            elif flags & 2:
                yield Span("table records", value, value + size, root, table, key)
                yield from self.tree(key.decode(), self.number("<Q", value + 40))
            else:
                yield Span(f"{kind} values", value, value + size, root, table, key)

    def run(self, table: str, key: bytes, page: int, size: int) -> Iterator[Span]:
        """Give an overflow run's spans."""
        start = page * self.page_bytes
        yield Span("overflow header", start, start + 16, page, table, key)
        yield Span("overflow data", start + 16, start + 16 + size, page, table, key)


def dissect(made: Made) -> dict[str, list[Span]]:
    """Give all of the file by region; what is in no other is `unused`."""
    found: dict[str, list[Span]] = {}
    used = bytearray(len(made.data))
    for span in Dissection(made.data, made.page_bytes).spans():
        assert not any(used[span.start : span.stop]), f"{span} is used twice"
        used[span.start : span.stop] = b"\1" * (span.stop - span.start)
        found.setdefault(span.region, []).append(span)
    for is_used, group in itertools.groupby(range(len(used)), key=used.__getitem__):
        if not is_used:
            positions = list(group)
            page = positions[0] // made.page_bytes
            found.setdefault("unused", []).append(
                Span("unused", positions[0], positions[-1] + 1, page)
            )
    return found


REGIONS = (
    "meta page",
    "branch header",
    "branch pointers",
    "branch nodes",
    "leaf header",
    "leaf pointers",
    "leaf nodes",
    "leaf values",
    "table records",
    "overflow header",
    "overflow data",
    "free list header",
    "free list pointers",
    "free list nodes",
    "free list values",
    "unused",
)


def contents(path: Path) -> list[object]:
    """Read all that a log holds, through LMDB."""
    directory = DataDirectory(path)
    with contextlib.closing(directory.open_log(is_read_only=True)) as log:
        return [
            log.meta,
            log.tail,
            log.base_state(),
            [block.encoded for block in log.read(log.base.sequence)],
            log.points(),
            list(log.rejects()),
            log.cursors(),
        ]


@attrs.frozen
class Verdict:
    """What `verify` said of a log."""

    code: int
    report: dict[str, Any]
    stderr: str

    @property
    def damage(self) -> list[dict[str, Any]]:
        """The findings that make it exit with 1."""
        return [f for f in self.report["findings"] if f["severity"] == "damage"]


def verify(path: Path) -> Verdict:
    """Run `alphabet-replay verify --json` in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(["verify", str(path), "--json"])
    return Verdict(code, json.loads(out.getvalue()), err.getvalue())


def complaint(
    path: Path, expected: list[object], once: Sequence[dict[str, Cursor]] = ()
) -> str | None:
    """Say what is wrong with how `verify` took a damaged log, if anything is.

    Cursors may be those that were true `once`.
    """
    verdict = verify(path)
    if verdict.code not in {0, 1} or "Traceback" in verdict.stderr:
        return f"it ended with {verdict.code}: {verdict.stderr}"
    if verdict.report["ok"] != (verdict.code == 0):
        return "its exit code is not what its report says"
    if verdict.code:
        found = verdict.damage
        if not found or not all(f["place"] and f["reason"] for f in found):
            return f"a place is not named: {found}"
        return None
    *rest, cursors = contents(path)
    if rest != expected[:-1] or cursors not in [expected[-1], *once]:
        return "it found nothing, and the log is another"
    return None


def run_cases(
    cases: Sequence[Case], try_case: Callable[[Case], str | None], log: Path
) -> list[str]:
    """Try many cases in one forked process; give the complaints.

    Fails where a case ends the process, or takes longer than any should.
    """
    child = os.fork()
    if not child:
        with log.open("w") as stream:
            try:
                for case in cases:
                    stream.write(f"{case!r}\n")
                    stream.flush()
                    found = try_case(case)
                    if found is not None:
                        stream.write(f"! {case!r}: {found}\n")
                stream.write("end\n")
            except BaseException:  # noqa: BLE001 - told below, in the parent
                traceback.print_exc(file=stream)
        os._exit(0)
    ended, status = 0, 0
    size, deadline = 0, time.monotonic() + SECONDS_MAX
    try:
        while not ended:
            if log.exists() and log.stat().st_size > size:
                size, deadline = log.stat().st_size, time.monotonic() + SECONDS_MAX
            if time.monotonic() > deadline:
                os.kill(child, signal.SIGKILL)
            ended, status = os.waitpid(child, os.WNOHANG)
            time.sleep(0.003)
    finally:
        if not ended:
            os.kill(child, signal.SIGKILL)
    lines = log.read_text().splitlines()
    assert (status, lines[-1:]) == (0, ["end"]), f"it ended so: {lines[-20:]}"
    return [line for line in lines if line.startswith("!")]


def place_complaint(span: Span, found: list[dict[str, Any]]) -> str | None:
    """Say that findings do not name the place where a span is, if they do not."""
    places = {each["place"] for each in found}
    page = f"page {span.page} of {span.table}"
    if span.region in {"meta page", "unused", "branch nodes", "table records"}:
        return None
    if (
        span.region in {"leaf nodes", "leaf values", "overflow data"}
        and page not in places
    ):
        if span.table == BLOCKS:
            first = int.from_bytes(span.key)
            spans = [(f["first"], f["last"]) for f in found if f["first"] is not None]
            is_named = any(a <= first and (b is None or first <= b) for a, b in spans)
            return None if is_named else f"{first} is not in {spans}"
        named = {span.table, span.key.decode("latin-1"), "log", "base"}
        return None if places & named else f"none of {named} is in {places}"
    return None if page in places else f"{page} is not in {places}"


class TestEveryPlace:
    """A byte that changed, wherever it is."""

    def test_all_regions_are_there(self, made: Made) -> None:
        """The log has each thing that a file can hold, and no byte is left out."""
        found = dissect(made)
        assert found.keys() == set(REGIONS)
        sizes = [span.stop - span.start for spans in found.values() for span in spans]
        assert sum(sizes) == len(made.data)
        tables = {span.table for spans in found.values() for span in spans}
        assert tables >= {BLOCKS, *ROWS}

    def test_it_is_sound(self, made: Made) -> None:
        """Nothing is found before it is damaged."""
        verdict = verify(made.path)
        assert verdict.report["findings"] == []
        assert verdict.report["blocks"] == SMALL_BLOCKS
        assert verdict.report["snapshots"] == 2

    @pytest.mark.parametrize("part", range(PARTS))
    @pytest.mark.parametrize("region", REGIONS)
    def test_a_byte_changed(
        self, made: Made, tmp_path: Path, region: str, part: int
    ) -> None:
        """It is found, and the place is named; or all reads back as it was."""
        places = [
            (position, span)
            for span in dissect(made)[region]
            for position in range(span.start, span.stop)
            if position % PARTS == part
        ]
        stride = 1 if SOAK else max(1, len(places) // CASES_MAX)
        cases = [
            (position, span, MASKS[position % len(MASKS)])
            for position, span in places[::stride]
        ]
        expected = contents(made.path)

        def try_case(case: tuple[int, Span, int]) -> str | None:
            position, span, mask = case
            with made.file.open("r+b", buffering=0) as stream:
                byte = made.data[position]
                os.pwrite(stream.fileno(), bytes([byte ^ mask]), position)
                try:
                    found = complaint(made.path, expected)
                    if found is None and (damage := verify(made.path).damage):
                        found = place_complaint(span, damage)
                finally:
                    os.pwrite(stream.fileno(), bytes([byte]), position)
            return found

        assert run_cases(cases, try_case, tmp_path / "cases") == []
        assert made.file.read_bytes() == made.data


@attrs.frozen
class Change:
    """The whole file as a fault leaves it, and what that fault is."""

    name: str
    data: bytes = attrs.field(repr=False)


def page_faults(made: Made) -> Iterator[Change]:
    """Give the file with one page lost, older than it should be, or another's."""
    size = made.page_bytes
    earlier = {
        (number, made.page(number, version))
        for version in made.versions[:-1]
        for number in range(len(version) // size)
    }
    for number in range(made.page_count):
        lost = [("zeros", bytes(size)), ("ones", b"\xff" * size)]
        old = [("older", page) for at, page in sorted(earlier) if at == number]
        swapped = [
            (f"page {other}", made.page(other))
            for other in range(made.page_count)
            if other != number
        ]
        for name, page in lost + old + swapped:
            start = number * size
            data = made.data[:start] + page + made.data[start + size :]
            if data != made.data:
                yield Change(f"page {number} is {name}", data)


def swaps(made: Made) -> Iterator[Change]:
    """Give the file with two pages in each other's place."""
    size = made.page_bytes
    for one, other in itertools.combinations(range(made.page_count), 2):
        data = bytearray(made.data)
        data[one * size : (one + 1) * size] = made.page(other)
        data[other * size : (other + 1) * size] = made.page(one)
        yield Change(f"pages {one} and {other} are swapped", bytes(data))


def truncations(made: Made) -> Iterator[Change]:
    """Give the file cut at each page's border, beside it, and in odd places."""
    borders = range(0, len(made.data), made.page_bytes)
    odd = (1, 100, 151, 152, made.page_bytes + 151, len(made.data) - 1)
    for end in sorted({*borders, *(b + 17 for b in borders), *odd}):
        yield Change(f"it is cut to {end} bytes", made.data[:end])


class TestWholePages:
    """A page that is lost, or another; and a file without its end."""

    @pytest.mark.parametrize("part", range(PARTS))
    @pytest.mark.parametrize("faults", [page_faults, swaps, truncations])
    def test_a_fault(
        self,
        made: Made,
        tmp_path: Path,
        faults: Callable[[Made], Iterator[Change]],
        part: int,
    ) -> None:
        """It is found; or all reads back as it was, cursors perhaps as they once were.

        For nothing tells of a cursor's age if the only page that has it goes back.
        """
        changes = list(faults(made))
        stride = PARTS if SOAK else max(1, len(changes) // (3 * CASES_MAX))
        expected = contents(made.path)

        def try_case(change: Change) -> str | None:
            made.file.write_bytes(change.data)
            try:
                return complaint(made.path, expected, made.cursors)
            finally:
                made.file.write_bytes(made.data)

        cases = changes[part::stride]
        assert run_cases(cases, try_case, tmp_path / "cases") == []
        assert made.file.read_bytes() == made.data


@pytest.mark.parametrize("region", ["leaf header", "table records", "overflow data"])
def test_the_program_as_users_run_it(made: Made, tmp_path: Path, region: str) -> None:
    """A process of its own says the same of a damaged log, and is not ended by it."""
    spans = [s for s in dissect(made)[region] if s.table in {BLOCKS, "names"}]
    path = Path(shutil.copytree(made.path, tmp_path / "data"))
    flip_bit(path / "log" / DATA_FILE, spans[-1].start + 10, bit=1)
    done = replay("verify", path, "--json")
    assert (done.code, verify(path).code) == (1, 1)
    assert json.loads(done.stdout) == verify(path).report
    assert done.stderr.count("\n") == 1
