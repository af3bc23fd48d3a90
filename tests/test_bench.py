"""`python -m bench`: it measures what it says, and notices a server that is wrong."""

import json
import socket
import sys
import tempfile
import threading
import xml.etree.ElementTree as ET
from collections.abc import Iterable
from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphabet.trial.figure import ALPHABET, Figure
from alphabet.trial.output_check import WrongOutputError
from alphabet.trial.vote_load import VOTE, load_of
from bench import parts
from bench.bare.kernel import BadFrameError, Kernel
from bench.bare.recount import fill, recount
from bench.case import Case, MissingPeerError, Turns, Value, choose
from bench.flooding import flood_case
from bench.goals import GOALS, Verdict, judge
from bench.parts import flood, spark
from bench.parts.profile import used
from bench.peers import redis, running
from bench.peers.sqlite import Sqlite
from bench.picture import BAR_WIDTH, Scale, draw
from bench.plan import Plan, in_words
from bench.processes import Memory, Peak, ThreadTime, disk_bytes, memory_of
from bench.report import Report, grouped, table, write_markdown
from bench.subject import Flooded
from tests.process import finish
from tests.votes import outputs

TINY = ("--runs", 1, "--flood-votes", 10_000, "--votes", 10_000, "--round-trips", 10)
CASES = {
    "flood": (flood.ALONE, flood.beside_name(flood.ALL_AT_ONCE)),
    "spark": tuple(map(spark.export_name, (spark.LARGE, spark.SMALL))),
}
"""The cases to try of a part; all at once has in it what each other flood has.

Those with Spark itself are tried where Java is: `tests/spark/`.
"""

names = st.text(st.characters(min_codepoint=32, max_codepoint=123), max_size=20)
numbers = st.floats(0.001, 1e9)


@st.composite
def figures(draw_: st.DrawFn) -> list[Figure]:
    """Make figures that were all taken in the same runs."""
    runs = draw_(st.integers(1, 5))
    values = st.lists(numbers, min_size=runs, max_size=runs)
    subjects = st.sampled_from([ALPHABET, "peer", "<other> & co"])
    figure = st.builds(
        Figure, names, st.sampled_from(["s", "votes/s"]), values, subjects
    )
    return draw_(
        st.lists(
            figure, min_size=1, max_size=8, unique_by=lambda f: (f.name, f.subject)
        )
    )


class TestParts:
    """Each part, in small."""

    @pytest.mark.slow
    @pytest.mark.parametrize("part", parts.NAMES)
    def test_every_part_measures(self, tmp_path: Path, part: str) -> None:
        """A part gives figures of Alphabet or of the machine, and all its files."""
        cases = [word for title in CASES.get(part, ()) for word in ("--case", title)]
        done = finish("bench", part, *TINY, *cases, "--output", tmp_path)
        assert done.code == 0, done.stderr
        report = Report.from_json((tmp_path / f"{part}.json").read_text())
        assert report.part == part
        assert {figure.subject for figure in report.figures} & {ALPHABET, "machine"}
        assert all(len(figure.values) == 1 for figure in report.figures)
        assert f"python -m bench {part} --runs 1" in report.command
        assert (tmp_path / f"{part}.svg").exists()
        assert f"## {part}\n" in (tmp_path / "RESULTS.md").read_text()

    def test_a_part_that_is_none_is_refused(self) -> None:
        """Another name than a part's is wrong usage."""
        assert finish("bench", "nothing").code == 2

    def test_a_case_that_is_none_is_refused(self) -> None:
        """Another title than a case's is wrong usage, and those that are are named."""
        done = finish("bench", "flood", "--case", "nothing")
        assert done.code == 2
        for title in (flood.ALONE, *map(flood.beside_name, flood.FLOODS)):
            assert repr(title) in done.stderr

    @given(st.lists(st.text(), unique=True), st.data())
    def test_cases_are_chosen(self, titles: list[str], data: st.DataObject) -> None:
        """Those that are named stay, in the part's order; without a name, all."""
        cases = [Case(title, lambda _: []) for title in titles]
        assert choose(cases, []) == cases
        if titles:
            named = data.draw(st.sets(st.sampled_from(titles), min_size=1))
            found = choose(cases, sorted(named))
            assert found == [case for case in cases if case.title in named]


class TestTurns:
    """Cases take turns."""

    def test_runs_are_paired(self, tmp_path: Path) -> None:
        """In each run every case is measured once, in an empty directory of its own."""
        heard: list[str] = []
        seen: list[tuple[str, int]] = []

        def case(subject: str) -> Case:
            def measure(place: Path) -> Iterable[Value]:
                assert not list(place.iterdir())
                (place / "file").touch()
                seen.append((subject, len(seen)))
                return [Value("time", "s", len(seen), subject)]

            return Case(subject, measure)

        results = Turns(2, tmp_path, heard.append).take([case("a"), case("b")])
        assert [figure.values for figure in results.figures] == [[1, 3], [2, 4]]
        assert [subject for subject, _ in seen] == ["a", "b", "a", "b"]
        assert heard[-1] == "run 2 of 2: b"
        assert not list(tmp_path.iterdir())

    def test_a_peer_that_is_missing_is_named(self, tmp_path: Path) -> None:
        """What is not installed is reported with its reason, and the rest goes on."""

        def missing(place: Path) -> Iterable[Value]:
            raise MissingPeerError(f"nothing in {place.parent.name}")

        def here(_place: Path) -> Iterable[Value]:
            return [Value("time", "s", 1.0)]

        cases = [Case("away", missing), Case("here", here)]
        results = Turns(3, tmp_path, lambda _: None).take(cases)
        assert results.missing == {"away": f"nothing in {tmp_path.name}"}
        assert [figure.values for figure in results.figures] == [[1.0] * 3]

    def test_a_wrong_output_ends_everything(self, tmp_path: Path) -> None:
        """A figure of something that counts wrongly is not taken."""

        def wrong(_place: Path) -> Iterable[Value]:
            raise WrongOutputError("output 1")

        with pytest.raises(WrongOutputError):
            Turns(1, tmp_path, lambda _: None).take([Case("wrong", wrong)])


MOMENT_SECONDS = 0.01


@attrs.define
class Steady:
    """A subject that takes a moment, then counts at one rate; it notes its votes."""

    rate: float
    given: list[int] = attrs.field(factory=list)
    name: str = "steady"

    def flood(self, place: Path, votes: int) -> Flooded:
        """Count, and leave something."""
        (place / "left").touch()
        self.given.append(votes)
        return Flooded(votes, MOMENT_SECONDS + votes / self.rate, 0, 0)


class TestFlooding:
    """Floods of the right length."""

    @given(st.floats(1000, 1e8), st.floats(0.2, 5))
    def test_all_runs_have_the_same_votes(self, rate: float, seconds: float) -> None:
        """Every run has about as many votes as take the time wanted, found out once."""
        subject = Steady(rate)
        with tempfile.TemporaryDirectory() as name:
            plan = Plan(Path(name), 2, seconds, 1, 1)
            case = flood_case(plan, subject, "steady", lambda _: [])
            for run in ("1", "2"):
                place = Path(name) / run
                place.mkdir()
                list(case.measure(place))
        probes, runs = subject.given[:-2], subject.given[-2:]
        assert 1 <= len(probes) <= 5
        assert runs[0] == runs[1]
        assert 0.5 * seconds < runs[0] / rate + MOMENT_SECONDS < 1.1 * seconds

    @given(st.integers(1))
    def test_a_number_of_votes_is_taken_as_it_is(self, votes: int) -> None:
        """A plan that names it has floods of that size, and no other before."""
        subject = Steady(1e6)
        with tempfile.TemporaryDirectory() as name:
            plan = Plan(Path(name), 1, 1, 1, 1, flood_votes=votes)
            case = flood_case(plan, subject, "steady", lambda _: [])
            list(case.measure(Path(name)))
        assert subject.given == [votes]


class TestPeers:
    """What stands beside Alphabet."""

    def test_a_program_that_is_not_installed(self, tmp_path: Path) -> None:
        """A program that is nowhere, or that ends at once, is a missing peer."""
        with pytest.raises(MissingPeerError, match="no-such-program is not installed"):
            running.find_program("no-such-program", "usr/nowhere/*")
        with (
            running.running(["/bin/sh", "-c", "echo because >&2"], tmp_path) as process,
            pytest.raises(MissingPeerError, match="it does not start: because"),
        ):
            running.await_ready(process, lambda: False, tmp_path)

    def test_sqlite_counts(self, tmp_path: Path) -> None:
        """SQLite is a subject as any: it counts, and says what it has left."""
        flooded = Sqlite().flood(tmp_path, 500)
        assert flooded.votes == 500
        assert flooded.disk_bytes == disk_bytes(tmp_path) > 0

    @pytest.mark.parametrize("connections", [1, 3])
    @pytest.mark.parametrize("is_right", [True, False])
    def test_a_wrong_answer_is_seen(
        self, tmp_path: Path, connections: int, *, is_right: bool
    ) -> None:
        """A server that speaks like Redis and counts wrongly once is found out."""
        redis.make_bulks.cache_clear()
        bulks = redis.make_bulks(60, connections, has_stream=False)
        answers = [
            b"".join(b"%s\r\n" % total for total in bulk.totals) for bulk in bulks
        ]
        if not is_right:
            answers[-1] = answers[-1].replace(b":", b":1", 1)
        (tmp_path / "appendonlydir").mkdir()
        with socket.create_server(("127.0.0.1", 0)) as listener:

            def answer() -> None:
                for text in answers:
                    accepted.append(listener.accept()[0])
                    accepted[-1].sendall(text)

            accepted: list[socket.socket] = []
            thread = threading.Thread(target=answer)
            thread.start()
            with running.running(["/bin/sleep", "60"], tmp_path) as process:
                server = redis.RedisServer(process, listener.getsockname()[1], 0.0)
                subject = redis.Redis(connections=connections)
                if is_right:
                    assert subject.flood_server(server, tmp_path, 60).votes == 60
                else:
                    with pytest.raises(WrongOutputError):
                        subject.flood_server(server, tmp_path, 60)
            thread.join()
            for each in accepted:
                each.close()


class TestBare:
    """The yardstick counts as it must, or it would measure nothing."""

    @given(
        st.lists(
            st.lists(
                st.tuples(st.sampled_from([b"a", b"b", b"\xff"]), st.integers(0, 9))
            ),
            max_size=5,
        )
    )
    def test_the_kernel_gives_running_totals(
        self, reads: list[list[tuple[bytes, int]]]
    ) -> None:
        """However votes are cut into reads, its outputs are the reference's."""
        kernel, found = Kernel(), b""
        for votes in reads:
            frames = b"".join(
                b"\0\0\0\5" + letter + number.to_bytes(4) for letter, number in votes
            )
            found += kernel.count(memoryview(frames)).tobytes()
        assert found == outputs([vote for votes in reads for vote in votes])

    def test_a_long_read_is_cut_into_blocks(self) -> None:
        """More votes than a block has are counted alike."""
        frames = load_of(100_000).frames()[0]
        whole, parts_ = Kernel(), Kernel()
        pieces = [
            parts_.count(memoryview(frames[at : at + 777].tobytes())).tobytes()
            for at in range(0, len(frames), 777)
        ]
        assert whole.count(memoryview(frames.tobytes())).tobytes() == b"".join(pieces)

    def test_a_bad_frame_ends_it(self) -> None:
        """A frame of another length is no vote."""
        frames = load_of(10).frames()[0]
        frames["length"][7] = 6
        with pytest.raises(BadFrameError):
            Kernel().count(memoryview(frames.tobytes()))

    def test_the_recount_is_the_sum(self, tmp_path: Path) -> None:
        """Recounting a bare log gives each letter's total."""
        load = load_of(5000)
        fill(tmp_path / "log", load)
        totals = recount(tmp_path / "log")
        assert {chr(c): int(t) for c, t in enumerate(totals) if t} == load.totals()
        assert VOTE.itemsize == 9


class TestGoals:
    """What is met and what is not."""

    def test_a_ratio_is_paired_by_runs(self) -> None:
        """The runs' own ratios count, not that of the medians."""
        [goal, *_] = GOALS
        assert goal.than == (goal.figure, "Redis HINCRBY")
        ours = Figure(goal.figure, "votes/s", [100.0, 400.0, 900.0])
        theirs = Figure(goal.figure, "votes/s", [2.0, 5.0, 30.0], "Redis HINCRBY")
        [verdict, *_] = judge([theirs, ours])
        assert (verdict.found, verdict.is_met) == (50.0, True)
        assert not Verdict(goal, 49.99).is_met
        assert str(goal) == "one sender: at least 50 times Redis HINCRBY"

    def test_every_goal_can_be_met_and_missed(self) -> None:
        """Good figures meet every goal, bad ones none, and none at all are not met."""
        good, bad = [], []
        for goal in GOALS:
            if goal.than is None:
                name, unit = goal.figure.replace("*", "idle"), goal.unit or ""
                better, worse = (2, 0.5) if goal.is_least else (0.5, 2)
                good.append(Figure(name, unit, [better * goal.bound]))
                bad.append(Figure(name, unit, [worse * goal.bound]))
        fixed = [goal for goal in GOALS if goal.than is None]
        assert [each.goal for each in judge(good) if each.is_met] == fixed
        assert not any(each.is_met for each in judge(bad))
        assert {each.row().rpartition("| ")[2] for each in judge([])} == {
            "not measured |"
        }

    def test_of_several_the_worst_counts(self) -> None:
        """A goal about all memory is missed where one phase misses it."""
        own = [Figure("own memory (RssAnon), idle", "MB", [20.0])]
        own.append(Figure("own memory (RssAnon), flood", "MB", [151.0]))
        [found] = [each for each in judge(own) if each.goal.figure.endswith("*")]
        assert (found.found, found.is_met) == (151.0, False)


class TestReport:
    """JSON, Markdown, picture."""

    @given(figures(), st.dictionaries(names, names, max_size=2))
    def test_json_is_read_as_it_was_written(
        self, taken: list[Figure], missing: dict[str, str]
    ) -> None:
        """A report survives its JSON, and all its names are in the Markdown."""
        report = Report("disk", ["a machine"], "python -m bench", taken, missing)
        assert Report.from_json(report.to_json()) == report
        assert json.loads(report.to_json())["figures"][0]["values"]
        text = write_markdown([report])
        assert all(
            f"not measured, {title}: {missing[title]}" in text for title in missing
        )

    @given(figures())
    def test_a_table_has_a_row_for_each(self, taken: list[Figure]) -> None:
        """Each figure has one row, of as many cells as the head."""
        head, line, *rows, end = table(taken).split("\n")
        assert end == ""
        assert len(rows) == len(taken) == sum(map(len, grouped(taken)))
        cells = {row.count("|") for row in (head, line, *rows)}
        assert cells == {9}

    def test_a_row_says_how_many_times(self) -> None:
        """Beside each peer stands how many times its figure ours is."""
        ours = Figure("speed", "votes/s", [30.0, 20.0])
        theirs = Figure("speed", "votes/s", [10.0, 10.0], "peer")
        assert table([theirs, ours]).splitlines()[2:] == [
            "| speed | peer | 10 | 10 | 10 | votes/s | 2 | 2.5 times |",
            "| speed | Alphabet | 25 | 20 | 30 | votes/s | 2 |  |",
        ]

    @given(figures())
    def test_a_picture_is_whole(self, taken: list[Figure]) -> None:
        """It is well-formed SVG with a bar for each figure, none too wide."""
        root = ET.fromstring(draw("a <title>", taken))  # noqa: S314 - our own
        space = "{http://www.w3.org/2000/svg}"
        bars = [
            float(each.attrib["width"])
            for each in root.iter(f"{space}rect")
            if each.attrib["class"] != "back"
        ]
        assert len(bars) == len(taken)
        assert all(0 <= width <= BAR_WIDTH + 0.1 for width in bars)

    @given(st.lists(numbers, min_size=2))
    def test_a_higher_number_has_a_wider_bar(self, values: list[float]) -> None:
        """Whichever the scale, it keeps the order."""
        scale = Scale.over([Figure("x", "s", values)])
        widths = [scale.width(each) for each in sorted(values)]
        assert widths == sorted(widths)

    @pytest.mark.parametrize(
        ("votes", "text"),
        [(100_000_000, "100 M votes"), (20_000, "20 k votes"), (1234, "1234 votes")],
    )
    def test_round_numbers_are_short(self, votes: int, text: str) -> None:
        """Millions and thousands are written as such."""
        assert in_words(votes) == text


class TestProcesses:
    """What is read from /proc."""

    def test_a_peak_never_falls(self) -> None:
        """The most of each kind stays."""
        peak = Peak()
        for memory in (Memory(2, 1), Memory(1, 3)):
            peak.note(memory)
        assert (peak.own_mb, peak.files_mb) == (2, 3)

    def test_memory_is_seen(self, tmp_path: Path) -> None:
        """A process that holds 50 MB more has about 50 MB more of its own."""
        found = []
        for size in (0, 50_000_000):
            place = tmp_path / str(size)
            place.mkdir()
            script = (
                "import signal\n"
                f"held = bytearray(b'x') * {size}\n"
                "print('ready', flush=True)\n"
                "signal.pause()"
            )
            with running.running([sys.executable, "-c", script], place) as process:

                def is_ready(said: Path = place / "said") -> bool:
                    return said.read_text() == "ready\n"

                running.await_ready(process, is_ready, place)
                found.append(memory_of(process.pid).own_mb)
        assert 45 < found[1] - found[0] < 60

    def test_threads_that_share_a_name_are_told_apart(self) -> None:
        """What a thread used is told by its name or its place; idle ones are not."""
        before = [ThreadTime(1, "python3", 1.0, 0.5)]
        after = [
            ThreadTime(1, "python3", 3.0, 1.0),
            ThreadTime(2, "python3", 1.0, 0.0),
            ThreadTime(3, "commit", 4.0, 2.0),
            ThreadTime(4, "idle", 0.001, 0.0),
        ]
        found = used(before, after)
        assert found.pop("server, all threads") == pytest.approx(7.001)
        assert found == {
            "server thread, unnamed 1": 2.0,
            "server thread, unnamed 2": 1.0,
            "server thread, commit": 4.0,
            "server, in the kernel": 2.5,
        }
