"""`alphabet-replay plot`: the history that is drawn, and the pictures themselves.

A picture is looked at as a reader of its SVG would: every text on it, with its place.
"""

import contextlib
import itertools
import os
import re
import struct
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from random import Random

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphabet.application import Votes
from alphabet.pipeline.machine import Machine
from log.block import Block, Records
from log.directory import DataDirectory
from log.errors import DirectoryError
from log.log import Log, Transaction
from log.memory_store import MemoryStore
from log.store import BLOCKS, Change
from recovery.cli import main
from recovery.commands.plot import _write_whole
from recovery.picture.chart import LINES_MAX, make_chart
from recovery.picture.history import Gap, History, read_history
from recovery.picture.plot import HEIGHT, PIXELS_PER_POINT, WIDTH, draw
from recovery.picture.sampling import Sample
from recovery.picture.theme import THEMES
from recovery.replay import Replayer, take_snapshot
from recovery.snapshot_directory import SnapshotDirectory
from tests import toy
from tests.machines import (
    LOTS,
    VOTES_META,
    alphabet,
    append_records,
    append_votes,
    change,
    flip_middle,
    key,
    pack_votes,
    write_votes,
)
from tests.process import (
    SECONDS_MAX,
    Finished,
    environment,
    finish,
    replay,
    serving,
    submit,
)
from tests.votes import Vote, tally, wire

SECOND = 10**9
START = VOTES_META.created_ns
SVG = "{http://www.w3.org/2000/svg}"
VOTES = [vote for lot in LOTS for vote in lot]

lots = st.lists(
    st.lists(
        st.tuples(st.sampled_from([b"a", b"b", b"\0"]), st.integers(0, 2**32 - 1)),
        min_size=1,
        max_size=5,
    ),
    min_size=1,
    max_size=12,
)
Totals = Mapping[str, int]


def look_at(machine: Machine) -> Totals:
    """Give the totals, by Latin-1."""
    votes = machine.state("letter state").votes_by_letter.values()
    return {vote.letter.decode("latin-1"): vote.votes for vote in votes}


def log_of(lots: Sequence[Sequence[Vote]], waits_ns: Sequence[int] = ()) -> Log:
    """Make a log in memory with a block per lot; a lot without votes is 7 lost."""
    log = Log.create(MemoryStore(), VOTES_META)
    time_ns = START
    for votes, wait_ns in zip(lots, waits_ns or [SECOND] * len(lots), strict=True):
        time_ns += wait_ns
        records = pack_votes(votes) if votes else Records.gap(7)
        log.commit(Transaction((Block.seal(log.tail, records, time_ns=time_ns),)))
    return log


def read(
    log: Log, events: range, snapshots: Path = Path("none")
) -> History[Totals | None]:
    """Read a history of votes."""
    machine = alphabet()
    replayer = Replayer(log, SnapshotDirectory(snapshots), are_gaps_accepted=True)
    return read_history(replayer, machine, lambda: look_at(machine), events)


class TestHistory:
    """From a log to samples."""

    @given(lots, st.data())
    def test_ends_are_exact(self, made: list[list[Vote]], data: st.DataObject) -> None:
        """The totals at both ends are those of the votes up to there."""
        votes = [vote for lot in made for vote in lot]
        last = data.draw(st.integers(1, len(votes)))
        first = data.draw(st.integers(1, last))
        history = read(log_of(made), range(first, last + 1))
        assert (history.first, history.last) == (first, last)
        assert history.samples[0].seen == tally(votes[: first - 1])
        assert history.samples[-1].seen == tally(votes[:last])
        assert history.counted[0] == 0
        assert history.counted[-1] == last - first + 1

    @given(lots)
    def test_every_sample_is_a_state(self, made: list[list[Vote]]) -> None:
        """Each sample has the totals of the votes up to its event, at its time."""
        votes = [vote for lot in made for vote in lot]
        history = read(log_of(made), range(1, len(votes) + 1))
        ends = list(itertools.accumulate(map(len, made)))
        assert [each.sequence for each in history.samples] == [0, *ends]
        for index, each in enumerate(history.samples[1:]):
            assert each.seen == tally(votes[: each.sequence])
            assert each.time_ns == START + SECOND * (index + 1)
        assert history.blocks == len(made)

    def test_how_far_it_is(self) -> None:
        """Who waits is told of each block that was reached, up to the last event."""
        machine, told = alphabet(), list[int]()
        replayer = Replayer(log_of(LOTS), SnapshotDirectory(Path("none")))
        read_history(replayer, machine, lambda: None, range(5, 9), told.append)
        assert told[-3:] == [5, 6, 8]

    def test_a_gap_lies_between_blocks(self) -> None:
        """Lost events are between the times of their neighbours, and not counted."""
        log = log_of([[(b"a", 1)], [], [(b"a", 2)], [], []], [0, 9, 90, 900, 9_000])
        history = read(log, range(1, log.tail.sequence + 1))
        assert history.gaps == [
            Gap(2, 8, 7, START, START + 99),
            Gap(10, 23, 14, START + 99, START + 9_999),
        ]
        assert history.counted[-1] == 2
        assert history.samples[-1].seen == {"a": 3}

    def test_a_stretch_cuts_a_gap(self) -> None:
        """Of a gap only the events of the stretch are told."""
        log = log_of([[(b"a", 1)], [], [(b"a", 2)]])
        [gap] = read(log, range(4, 7)).gaps
        assert (gap.first, gap.last, gap.lost) == (4, 6, 3)

    def test_near_gaps_are_one(self) -> None:
        """Gaps closer than samples are one, and do not hide what is between them."""
        waits = [0, *[1, 1] * 3, 10 * SECOND]
        log = log_of([[(b"a", 1)], *[[], [(b"a", 1)]] * 3, [(b"a", 1)]], waits)
        [gap] = read(log, range(1, log.tail.sequence + 1)).gaps
        assert (gap.first, gap.last, gap.lost) == (2, 24, 21)

    @pytest.mark.parametrize(
        ("snapshots", "total"),
        [
            ([], 14),
            ([1], 14),
            ([5], 414),
            ([8], 714),
            ([5, 8], 714),
            ([5, 10], 714),
            ([9], 714),
            ([10], 714),
            ([12], 714),
        ],
    )
    def test_a_snapshot_makes_up_for_a_gap(
        self, tmp_path: Path, snapshots: list[int], total: int
    ) -> None:
        """Behind lost events the totals are again those of the next good snapshot."""
        log, directory = self.make_gap(tmp_path, snapshots)
        history = read(log, range(1, 13), directory.path)
        assert history.samples[-1].seen == {"a": total}
        seen = [each.seen for each in history.samples[1:]]
        assert seen[0] == {"a": 10}
        assert sorted(seen, key=lambda totals: (totals or {})["a"]) == seen

    def test_a_broken_snapshot_makes_up_for_nothing(self, tmp_path: Path) -> None:
        """A damaged snapshot is passed over, and an older one is taken."""
        log, directory = self.make_gap(tmp_path, [10])
        change(directory.file(10), flip_middle)
        assert read(log, range(1, 13), directory.path).samples[-1].seen == {"a": 14}
        log, directory = self.make_gap(tmp_path, [5, 8])
        change(directory.file(8), flip_middle)
        assert read(log, range(1, 9), directory.path).samples[-1].seen == {"a": 410}

    def test_a_gap_before_the_stretch(self, tmp_path: Path) -> None:
        """A snapshot within the stretch makes up for what was lost before it."""
        log, directory = self.make_gap(tmp_path, [11])
        log.commit(Transaction(meta=attrs.evolve(log.meta, gaps=[(2, 7)])))
        history = read(log, range(10, 13), directory.path)
        seen = [each.seen for each in history.samples]
        assert seen == [{"a": 11}, {"a": 12}, {"a": 713}, {"a": 714}]
        assert history.gaps == []

    def make_gap(
        self, path: Path, snapshots: list[int]
    ) -> tuple[Log, SnapshotDirectory]:
        """Make a log of 10 votes, 7 lost events of 100 votes each, 4 of 1 vote each."""
        log = log_of([[(b"a", 10)], [], *[[(b"a", 1)]] * 4])
        directory = SnapshotDirectory(path / "snapshots")
        for sequence in snapshots:
            lost = min(sequence, 8) - 1
            machine = alphabet()
            total = 10 + 100 * lost + sequence - 1 - lost
            machine.state("letter state").update(Votes(b"a", total))
            snapshot = take_snapshot(log, machine, sequence, machine.dump())
            directory.write(snapshot)
        return log, directory


def history_of(
    totals: Sequence[Totals], times_ns: Sequence[int] = (), gaps: Sequence[Gap] = ()
) -> History[Totals | None]:
    """Make a history of these totals, one event and one second after another."""
    times_ns = times_ns or [START + SECOND * n for n in range(len(totals))]
    samples: list[Sample[Totals | None]] = [
        Sample(time_ns, sequence, each)
        for sequence, (time_ns, each) in enumerate(zip(times_ns, totals, strict=True))
    ]
    counted = list(range(len(totals)))
    return History(samples, counted, list(gaps), len(totals) - 1, SECOND // 10)


class TestChart:
    """What is shown of a history."""

    @given(st.integers(0, 256), st.randoms(use_true_random=False))
    def test_every_letter_is_there(self, letters: int, chance: Random) -> None:
        """The highest have names, in order; all others are one sum, none is lost."""
        last = {
            f"{code:02x}": chance.randrange(1 << chance.randrange(65))
            for code in chance.sample(range(256), letters)
        }
        chart = make_chart(history_of([{}, last]), "alphabet", "0123456789abcdef")
        named = [(line.name, line.total) for line in chart.lines]
        ranked = sorted(last.items(), key=lambda each: (-each[1], each[0]))
        assert named == ranked[: len(named)]
        others = ranked[len(named) :]
        assert [(line.name, line.total) for line in chart.others] == others
        assert len(named) == len(last) or len(named) == LINES_MAX < len(last) - 1
        if others:
            rest = sum(total for _, total in others)
            assert chart.others_name == (f"{len(others)} more", f"Σ {rest:,}")
        assert f"{sum(last.values()):,} votes for {len(last)} letter" in chart.facts

    def test_chosen_lines(self) -> None:
        """Chosen lines have the names, even of letters that nobody voted for."""
        last = {"a": 5, "b": 6, "c": 7}
        chart = make_chart(history_of([{}, last]), "alphabet", "id", ["a", "x", "b"])
        assert [(each.name, each.total) for each in chart.lines] == [
            ("b", 6),
            ("a", 5),
            ("x", 0),
        ]
        assert chart.others_name == ("1 more", "Σ 7")

    def test_words(self) -> None:
        """The title has application and log, the facts events, times and totals."""
        history = history_of(
            [{"a": 10}, {"a": 1_010, "b": 5}, {"a": 1_010, "b": 2_000}]
        )
        chart = make_chart(history, "alphabet", "0123456789abcdef")
        assert chart.title == "alphabet · log 01234567"
        assert chart.facts == (
            "events 1 to 2 · 2023-11-14 22:13:20 to 22:13:22 UTC, 2 s\n"
            "3,010 votes for 2 letters, 10 of them from before"
        )
        assert chart.description == (
            f"{chart.facts}. Totals at the end: b 2,000; a 1,010. "
            "votes per second: mean 1.5 k, peak 19.9 k. "
            "events per second: mean 1, peak 10."
        )

    def test_words_of_one_moment(self) -> None:
        """At one moment there is no span and no rate, and the picture says so."""
        chart = make_chart(history_of([{}, {"a": 1}], [START] * 2), "x" * 90, "id")
        facts = "event 1 · 2023-11-14 22:13:20 UTC\n1 votes for 1 letter"
        assert chart.facts == facts
        assert chart.rates == ()
        assert "no rate" in chart.rate_note
        assert (chart.end, chart.moments) == (10.0, [0.0, 5.0, 5.0, 10.0])
        assert list(chart.lines[0].totals) == [0, 0, 1, 1]
        assert len(chart.title) < 70

    def test_a_pause_is_flat(self) -> None:
        """Where nothing came the totals stay, and do not climb to what came later."""
        times = [START, START + SECOND // 10, START + 100 * SECOND]
        chart = make_chart(
            history_of([{}, {"a": 5}, {"a": 9}], times), "alphabet", "id"
        )
        places = dict(zip(chart.moments, chart.lines[0].totals, strict=True))
        assert places == {0.0: 0, 0.1: 5, 100.0: 9} | {100.0: 9}
        pairs = list(zip(chart.moments, chart.lines[0].totals, strict=True))
        assert pairs[-3:] == [(100.0, 5), (100.0, 9), (100.0, 9)]

    def test_gaps_are_named(self) -> None:
        """Each gap is a band; the largest have names that tell what is lost."""
        gaps = [
            Gap(n * 100 + 1, n * 100 + 1 + n, n + 1, START + n, START + SECOND + n)
            for n in range(9)
        ]
        gaps.append(Gap(2_001, 3_000, 500, START, START))
        chart = make_chart(history_of([{}, {"a": 1}], gaps=gaps), "alphabet", "id")
        assert [band.name for band in chart.bands] == [
            "",
            "",
            *(f"events {n}01 to {n}{n + 1:02} lost" for n in range(2, 9)),
            "500 events of 2,001 to 3,000 lost",
        ]
        assert (chart.bands[3].start, chart.bands[3].end) == (3e-9, 1 + 3e-9)
        assert "· 545 lost" in chart.facts
        one = make_chart(history_of([{}, {"a": 1}], gaps=gaps[:1]), "alphabet", "id")
        assert one.bands[0].name == "event 1 lost"

    def test_an_application_without_letters(self) -> None:
        """Without totals there is the rate of events alone."""
        history = attrs.evolve(
            history_of([{}, {}, {}]),
            samples=[Sample(START + n * SECOND, n, None) for n in range(3)],
        )
        chart = make_chart(history, "toy", "id")
        assert [each.name for each in chart.rates] == ["events per second"]
        assert (chart.moments, chart.lines) == ((), ())
        assert "votes" not in chart.description


@attrs.frozen
class Text:
    """A text on a picture, with its place, in points, y downwards."""

    words: str
    x: float
    y: float
    is_letter: bool


def parse(svg: bytes) -> ET.Element:
    """Read an SVG; fails for one that is no XML."""
    return ET.fromstring(svg)  # noqa: S314 - it is our own


def texts(svg: bytes) -> list[Text]:
    """Give every text on an SVG, in the order of drawing."""
    found = []
    for each in parse(svg).iter(f"{SVG}text"):
        style = each.get("style", "")
        x, y = each.get("x"), each.get("y")
        if x is None or y is None:
            place = re.search(
                r"translate\(([-\d.]+)[ ,]+([-\d.]+)", each.get("transform", "")
            )
            assert place is not None
            x, y = place[1], place[2]
        words = "".join(each.itertext())
        found.append(Text(words, float(x), float(y), "Mono" in style))
    return found


def named_totals(svg: bytes) -> dict[str, int]:
    """Give what the ends of the lines say: each letter, and the total beside it."""
    found = texts(svg)
    named = {}
    for before, after in itertools.pairwise(found):
        if before.is_letter:
            assert abs(before.y - after.y) < 0.01
            assert before.words not in named
            named[before.words] = int(after.words.replace(",", ""))
    return named


def picture(chart_of: History[Totals | None], format_: str = "svg") -> bytes:
    """Draw a history."""
    chart = make_chart(chart_of, "alphabet", "0123456789abcdef")
    return draw(chart, format_, THEMES["light"])


class TestPicture:
    """Charts as files."""

    def test_what_is_drawn(self) -> None:
        """Times stand under the axis; lines without names are there, if there are."""
        for letters, is_crowd in ((2, False), (20, True)):
            totals = {chr(ord("a") + n): 5 + n for n in range(letters)}
            chart = make_chart(history_of([{}, totals]), "alphabet", "0123456789abcdef")
            svg = draw(chart, "svg", THEMES["light"])
            drawn = svg.count(THEMES["light"].other.encode())
            assert drawn >= len(chart.others)
            assert bool(drawn) == is_crowd
            words = [each.words for each in texts(svg)]
            assert chart.ticks
            assert all(tick.label in words for _, tick in chart.ticks)

    def test_png(self) -> None:
        """A PNG is one, and has the size that is documented."""
        data = picture(history_of([{}, {"a": 1}]), "png")
        assert data[:8] == b"\x89PNG\r\n\x1a\n"
        size = (round(WIDTH * PIXELS_PER_POINT), round(HEIGHT * PIXELS_PER_POINT))
        assert struct.unpack(">2I", data[16:24]) == size == (1440, 1008)

    @pytest.mark.parametrize("format_", ["png", "svg"])
    def test_the_same_bytes_again(self, format_: str) -> None:
        """The same history gives the same file, and nothing in it tells the time."""
        history = history_of([{}, {"a": 1, "b": 2}])
        data = picture(history, format_)
        assert data == picture(history, format_)
        assert time.strftime("%Y-%m").encode() not in data

    @pytest.mark.parametrize("theme", THEMES)
    def test_themes(self, theme: str) -> None:
        """A theme's colours are on the picture."""
        chart = make_chart(history_of([{}, {"a": 1}]), "alphabet", "id")
        data = draw(chart, "svg", THEMES[theme]).decode()
        assert f"fill: {THEMES[theme].back}" in data
        assert THEMES[theme].lines[0] in data

    def test_words_for_those_who_cannot_see(self) -> None:
        """An SVG has its title and a description first, whatever is in them."""
        history = history_of([{}, {"<": 1, "&": 2}])
        chart = make_chart(history, "a<b>&c", "0123456789")
        root = parse(draw(chart, "svg", THEMES["light"]))
        assert (root.get("role"), [each.tag for each in root][:2]) == (
            "img",
            [f"{SVG}title", f"{SVG}desc"],
        )
        assert root[0].text == chart.title == "a<b>&c · log 01234567"
        assert root[1].text == chart.description
        assert len(root.findall(f".//{SVG}title")) == 1

    @pytest.mark.parametrize("letters", [1, 12, 13, 14, 26, 256])
    def test_every_name_once(self, letters: int) -> None:
        """However many letters, the names at the ends are few, apart and in order."""
        last = {f"\\x{code:02x}": 10**9 + code for code in range(letters)}
        data = picture(history_of([{}, last]))
        named = named_totals(data)
        assert len(named) == min(letters, LINES_MAX + (letters == 13))
        assert sorted(last.values())[-len(named) :] == sorted(named.values())
        assert named.items() <= last.items()
        words = [each.words for each in texts(data)]
        more = f"{letters - LINES_MAX} more"
        assert words.count(more) == (letters > LINES_MAX + 1)
        places = sorted(
            (each.y, each.words) for each in texts(data) if each.is_letter
        ) + [(each.y, "") for each in texts(data) if each.words == more]
        assert [named[name] for _, name in places if name] == sorted(
            named.values(), reverse=True
        )
        for (before, _), (after, _) in itertools.pairwise(places):
            assert after - before >= 12 - 0.01

    def test_the_largest_totals(self) -> None:
        """Totals of twenty digits fit on the picture, and none reaches its name."""
        last = {f"\\x{code:02x}": 2**64 - 1 - code for code in range(256)}
        data = picture(history_of([{}, last]))
        assert max(named_totals(data).values()) == 2**64 - 1
        assert all(0 <= each.x <= WIDTH for each in texts(data))
        assert all(0 <= each.y <= HEIGHT for each in texts(data))
        for name, total in itertools.pairwise(texts(data)):
            if name.is_letter or "more" in name.words:
                # A digit is 0.64 of 8.5 points wide, what stands between them half.
                width = sum(5.4 if c.isdigit() else 2.7 for c in total.words)
                assert name.x + 5.1 * len(name.words) < total.x - width

    def test_no_votes(self) -> None:
        """Totals that are all 0, or none at all, are a picture too."""
        assert named_totals(picture(history_of([{}, {"a": 0}]))) == {"a": 0}
        assert named_totals(picture(history_of([{}, {}]))) == {}


Run = Callable[..., Finished]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return what runs `plot` in this process, without variables of ours."""
    for name in [name for name in os.environ if name.startswith("ALPHABET_")]:
        monkeypatch.delenv(name)

    def run(*words: object) -> Finished:
        capfd.readouterr()
        code = main(["plot", *map(str, words)])
        sys.stdout.flush()
        return Finished(code, *capfd.readouterr())

    return run


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return data directories: of ten votes, of 256 letters, and of other kinds."""
    path = tmp_path_factory.mktemp("made")
    write_votes(path / "votes")
    every = [(bytes([code]), 1_000_000 + code) for code in range(256)]
    write_votes(path / "every", [every, every])
    write_votes(path / "none", [])
    damaged = write_votes(path / "damaged")
    with contextlib.closing(damaged.open_log()) as log:
        value = log.store.get(BLOCKS, key(4))
        assert value is not None
        log.store.commit([Change(BLOCKS, key(4), flip_middle(value))], 0)
    lost = write_votes(path / "lost")
    with contextlib.closing(lost.open_log()) as log:
        append_records(log, Records.gap(1_000))
        append_votes(log, [(b"a", 1)])
    toy_log = DataDirectory.claim(path / "toy")
    with toy_log.new_log(toy.META) as log:
        for number in range(5):
            records = Records.pack([b"p%d" % number])
            append_records(log, records)
    toy_log.release()
    return path


class TestCommand:
    """As its users meet it."""

    def check(self, done: Finished, code: int, said: str) -> None:
        """Fail unless it ended so, said so in one line, and printed nothing."""
        assert (done.code, done.stdout) == (code, ""), done
        assert said in done.stderr
        assert done.stderr.count("\n") == 1

    @pytest.mark.parametrize("name", ["votes", "every"])
    def test_totals_are_those_of_state(
        self, made: Path, tmp_path: Path, run: Run, name: str
    ) -> None:
        """What stands at the lines' ends is what `state` says, the highest of it."""
        to = tmp_path / "votes.svg"
        done = run(made / name, to)
        count = {"votes": "10 events, 1 to 10", "every": "512 events, 1 to 512"}[name]
        assert (done.code, done.stdout, done.stderr) == (0, f"{to}: {count}\n", "")
        words = replay("state", made / name, "--format", "csv").stdout.splitlines()
        totals = {k: int(v) for k, v in (word.rsplit(",", 1) for word in words[1:])}
        named = named_totals(to.read_bytes())
        assert len(named) == min(len(totals), LINES_MAX)
        assert sorted(named.values()) == sorted(totals.values())[-len(named) :]
        assert named.items() <= totals.items()

    @pytest.mark.parametrize(
        ("words", "drawn"),
        [
            ("--after 3", (3, 10)),
            ("--until 4", (0, 4)),
            ("--after 4 --until 9", (4, 9)),
            ("--after 2023-11-14T22:13:22Z", (5, 10)),
            ("--until 2023-11-14T22:13:23.9Z", (0, 6)),
        ],
    )
    def test_bounds(
        self, made: Path, tmp_path: Path, run: Run, words: str, drawn: tuple[int, int]
    ) -> None:
        """A stretch is drawn from after one event or time until another."""
        after, until = drawn
        to = tmp_path / "votes.svg"
        done = run(made / "votes", to, *words.split())
        assert done.stdout == (
            f"{to}: {until - after} events, {after + 1} to {until}\n"
        )
        named = named_totals(to.read_bytes())
        expected = tally(VOTES[:until])
        assert sorted(named.values()) == sorted(expected.values())

    def test_a_compacted_log(self, tmp_path: Path, run: Run) -> None:
        """A log that begins at a snapshot begins with the totals there."""
        write_votes(tmp_path / "votes", snapshots=[6])
        assert main(["compact", str(tmp_path / "votes"), str(tmp_path / "new")]) == 0
        done = run(tmp_path / "new", tmp_path / "votes.svg")
        assert done.stdout.endswith(": 4 events, 7 to 10\n")
        data = (tmp_path / "votes.svg").read_bytes()
        assert sum(named_totals(data).values()) == sum(tally(VOTES).values())
        before = sum(tally(VOTES[:6]).values())
        assert any(f"{before:,} of them from before" in e.words for e in texts(data))

    def test_letters(self, made: Path, tmp_path: Path, run: Run) -> None:
        """The letters asked for have names, bytes among them, and no other."""
        to = tmp_path / "votes.svg"
        assert run(made / "every", to, "--letters", r"az\xE9\x00é\z").code == 0
        names = set(named_totals(to.read_bytes()))
        assert names == {"a", "z", r"\xe9", r"\x00", "\\"}

    def test_letters_are_few(self, made: Path, tmp_path: Path, run: Run) -> None:
        """As many lines as can be told apart have names, and no more may be asked."""
        letters = "abcdefghijkl"
        assert run(made / "every", tmp_path / "a.svg", "--letters", letters).code == 0
        done = run(made / "every", tmp_path / "b.svg", "--letters", letters + "m")
        self.check(done, 2, "--letters takes 12 at most, not 13")

    def test_behind_a_gap(self, made: Path, tmp_path: Path, run: Run) -> None:
        """What comes behind lost events is drawn without being asked to accept them."""
        done = run(made / "lost", tmp_path / "votes.svg", "--after", 1010)
        assert (done.code, done.stderr) == (0, "")

    def test_gaps(self, made: Path, tmp_path: Path, run: Run) -> None:
        """Lost events are named on the picture, and said beside it."""
        done = run(made / "lost", tmp_path / "votes.svg")
        assert done.code == 0
        assert done.stderr == "1,000 events are lost; the picture marks where\n"
        words = [each.words for each in texts((tmp_path / "votes.svg").read_bytes())]
        assert "events 11 to 1,010 lost" in words

    def test_another_application(
        self, made: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Without totals the rate of events is drawn, and that is said."""
        monkeypatch.syspath_prepend(tmp_path)
        (tmp_path / "a_toy.py").write_text(
            "from tests import toy\n"
            "def application_setup(args):\n"
            "    return toy.machine().definition\n"
        )
        words = ("--application-module", "a_toy")
        done = run(made / "toy", tmp_path / "toy.svg", *words)
        assert done.code == 0, done
        assert done.stderr == (
            "application 'toy' has no totals by letter: only the rate of its events "
            "is drawn\n"
        )
        found = [each.words for each in texts((tmp_path / "toy.svg").read_bytes())]
        assert "events per second" in found
        assert "votes per second" not in found
        done = run(made / "toy", tmp_path / "one.svg", "--until", 1, *words)
        self.check(done, 3, "nothing to draw: application 'toy' has no totals")
        assert not (tmp_path / "one.svg").exists()

    def test_beside_a_server(self, tmp_path: Path, run: Run) -> None:
        """A live server's log is drawn, and the server goes on."""
        with serving(tmp_path) as server:
            assert submit(server.port, wire(VOTES))
            done = run(tmp_path / "data", tmp_path / "votes.svg")
            assert (done.code, done.stderr) == (0, "")
            assert submit(server.port, wire(VOTES))
        totals = named_totals((tmp_path / "votes.svg").read_bytes())
        assert sum(totals.values()) == sum(tally(VOTES).values())

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            ("votes TO/votes.jpg", "votes.jpg must end in .png or .svg"),
            ("votes TO/png", "png must end in .png or .svg"),
            ("votes", "Missing argument 'TO'"),
            ("votes TO/a.png --after 11", "--after 11 is not in the log"),
            ("votes TO/a.png --after noon", "'noon' is neither a sequence nor a time"),
            ("votes TO/a.png --after 10", "no event comes after 10 and until 10"),
            ("votes TO/a.png --after 5 --until 5", "nothing to draw"),
            ("votes TO/a.png --letters abcdefghijklm", "takes 12 at most, not 13"),
            ("votes TO/a.png --letters €", "'€' is no letter"),
            ("votes TO/a.png --theme pink", "'pink' is not one of"),
        ],
    )
    def test_2_usage(
        self, made: Path, tmp_path: Path, run: Run, words: str, said: str
    ) -> None:
        """What cannot be asked for is said, and where the help is."""
        given, *rest = words.split()
        done = run(made / given, *(w.replace("TO", str(tmp_path)) for w in rest))
        self.check(done, 2, said)
        assert "--help" in done.stderr
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            ("missing TO/a.png", "no such directory"),
            ("none TO/a.png", "nothing to draw: the log has no events\n"),
            ("damaged TO/a.png", "is damaged at sequence 4"),
            ("toy TO/a.png", "it belongs to application 'toy'"),
            ("votes TO/here.svg", "here.svg: it is there already; remove it"),
            ("votes TO/link.svg", "link.svg: it is there already"),
            ("votes TO/none/a.png", "does not exist; make it first"),
            ("votes DATA/a.png", "where nothing but a log may be"),
            ("votes TO/LONG.png", "it cannot be written: File name too long"),
        ],
    )
    def test_what_cannot_be(
        self, made: Path, tmp_path: Path, run: Run, words: str, said: str
    ) -> None:
        """What keeps a picture from being is said in one line, and nothing is left."""
        (tmp_path / "here.svg").write_text("mine")
        (tmp_path / "link.svg").symlink_to("nowhere")
        data, to = words.split()
        to = to.replace("TO", str(tmp_path)).replace("LONG", "a" * 250)
        done = run(made / data, to.replace("DATA", str(made / data)))
        self.check(done, 1 if data == "damaged" else 3, said)
        names = {each.name for each in tmp_path.iterdir()}
        assert names == {"here.svg", "link.svg"}
        assert (tmp_path / "here.svg").read_text() == "mine"
        assert not (made / "votes" / "a.png").exists()

    def test_never_in_the_place_of_another(self, tmp_path: Path) -> None:
        """A file that came while we drew stays, and ours goes."""
        (tmp_path / "here.svg").write_text("mine")
        with pytest.raises(DirectoryError, match="it is there already"):
            _write_whole(tmp_path / "here.svg", b"ours")
        assert [each.read_text() for each in tmp_path.iterdir()] == ["mine"]


class TestProcess:
    """The command as a process of its own."""

    def test_without_a_home_or_settings(self, made: Path, tmp_path: Path) -> None:
        """No home, no display and no settings of the user's make a difference."""
        (tmp_path / "matplotlibrc").write_text("savefig.bbox: tight\nnonsense\n")
        temporary = tmp_path / "tmp"
        temporary.mkdir()
        variables = {
            "HOME": "/dev/null",
            "MATPLOTLIBRC": str(tmp_path),
            "MPLBACKEND": "nonsense",
            "MPLCONFIGDIR": "/dev/null/none",
            "PYTHONHASHSEED": "7",
            "TMPDIR": str(temporary),
            "TZ": "Asia/Tokyo",
        }
        words = ("plot", made / "votes")
        odd, even = tmp_path / "odd.svg", tmp_path / "even.svg"
        done = finish("recovery.cli", *words, odd, variables=variables)
        assert (done.code, done.stderr) == (0, "")
        assert finish("recovery.cli", *words, even).code == 0
        assert odd.read_bytes() == even.read_bytes()
        assert list(temporary.iterdir()) == []

    def test_without_matplotlib(self, made: Path, tmp_path: Path) -> None:
        """Where it is not installed a line says how to get it."""
        code = (
            "import sys; sys.modules['matplotlib'] = None; "
            "from recovery.cli import main; sys.exit(main())"
        )
        done = subprocess.run(
            [sys.executable, "-P", "-c", code, "plot", made / "votes", "a.png"],
            cwd=tmp_path,
            env=environment({}),
            capture_output=True,
            text=True,
            timeout=SECONDS_MAX,
            check=False,
        )
        assert (done.returncode, done.stdout) == (3, "")
        assert done.stderr == (
            "alphabet-replay: drawing needs matplotlib: pip install "
            "'.[plot]' in the checkout\n"
        )
        assert list(tmp_path.iterdir()) == []
