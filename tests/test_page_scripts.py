"""The page's own small functions, called in a browser: figures and judgements."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.browser import Browser
from tests.process import ANY, Server, serving
from tests.tab import Tab
from tests.test_page import ask
from tests.watching import watching


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Give a server, whose scripts they are."""
    with serving(tmp_path_factory.mktemp("scripts"), "--http", ANY) as server:
        yield server


@pytest.fixture(scope="module")
def tab(server: Server, browser: Browser) -> Iterator[Tab]:
    """Give a tab that has the server's page."""
    with watching(browser, server) as tab:
        yield tab


def call(tab: Tab, module: str, name: str, *arguments: object) -> Any:  # noqa: ANN401 - JSON
    """Give what a function of one of the page's modules gives."""
    words = ", ".join(map(json.dumps, arguments))
    return tab.run(f"import('/static/{module}.js').then((it) => it.{name}({words}))")


@pytest.mark.parametrize(
    ("name", "number", "text"),
    [
        ("exact", 0, "0"),
        ("exact", 1234567, "1,234,567"),
        ("short", 0, "0"),
        ("short", 0.5, "0.5"),
        ("short", 999, "999"),
        ("short", 1000, "1 k"),
        ("short", 12345, "12.3 k"),
        ("short", 999_400, "999 k"),
        ("short", 999_600, "1 M"),
        ("short", 4_560_000, "4.56 M"),
        ("short", 7.8e9, "7.8 G"),
        ("bytes", 0, "0 B"),
        ("bytes", 1023, "1023 B"),
        ("bytes", 1536, "1.5 KiB"),
        ("bytes", 5 << 30, "5 GiB"),
        ("took", 0, "0"),
        ("took", 0.00085, "850 µs"),
        ("took", 0.0123, "12.3 ms"),
        ("took", 2.5, "2.5 s"),
        ("lasted", 0.9, "0 s"),
        ("lasted", 59.9, "59 s"),
        ("lasted", 60, "1 min"),
        ("lasted", 3725, "1 h 2 min"),
        ("lasted", 86400 * 3 + 60, "3 d"),
        ("letterName", "a", "a"),
        ("letterName", " ", "\\x20"),
        ("letterName", "\xe9", "\\xe9"),
        ("letterName", "\x7f", "\\x7f"),
    ],
)
def test_figures(tab: Tab, name: str, number: object, text: str) -> None:
    """A number is written in a unit that fits it, with three digits or all of them."""
    assert call(tab, "figures", name, number) == text


@given(st.lists(st.integers(0, 2**72), min_size=20))
@settings(max_examples=20)
def test_whole_numbers_keep_each_digit(tab: Tab, numbers: list[int]) -> None:
    """Whatever its size, a whole number is written with all of its digits."""
    exact = "import('/static/figures.js').then(({ exact }) => BIG.map(exact))"
    big = "[" + ", ".join(f"{number}n" for number in numbers) + "]"
    assert tab.run(exact.replace("BIG", big)) == [f"{each:,}" for each in numbers]


@given(st.lists(st.floats(1e-6, 1e14), min_size=20))
@settings(max_examples=20)
def test_short_numbers_are_near(tab: Tab, numbers: list[float]) -> None:
    """Three digits and a unit are within half a percent of the number, or of 0.01."""
    short = "import('/static/figures.js').then(({ short }) => NUMBERS.map(short))"
    units = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
    for number, text in zip(
        numbers, tab.run(short.replace("NUMBERS", json.dumps(numbers))), strict=True
    ):
        digits, _, unit = text.partition(" ")
        assert float(digits) < 1000 or unit == "T"
        near = pytest.approx(number, rel=0.0051, abs=0.0051)
        assert float(digits) * units[unit] == near


def test_steps_of_an_axis_are_round(tab: Tab) -> None:
    """A step is the smallest of 1, 2 and 5 times a power of ten that is enough."""
    for least, step in (
        (0, 1),
        (0.0003, 0.0005),
        (1, 1),
        (1.1, 2),
        (30, 50),
        (501, 1e3),
    ):
        assert call(tab, "scale", "niceStep", least) == pytest.approx(step)


@given(st.floats(1e-5, 10), st.floats(1, 1e4))
@settings(max_examples=20)
def test_an_axis_has_all_values(tab: Tab, least: float, times: float) -> None:
    """Each value is between foot and top, above those below it; marks are few."""
    values = sorted([least, least * times, least * times**0.5])
    for scale in (f"linearScale({values[-1]})", f"logScale({least}, {values[-1]})"):
        marks, places, ends = tab.run(
            f"""import("/static/scale.js").then(({{ linearScale, logScale }}) => {{
                const {{ marks, share }} = {scale};
                const ends = [share(marks.at(0)), share(marks.at(-1))];
                return [marks, {json.dumps(values)}.map(share), ends];
            }})"""
        )
        assert ends == pytest.approx([0, 1])
        assert -1e-6 <= places[0] <= places[1] <= places[2] <= 1 + 1e-6
        assert 2 <= len(marks) <= 8
        assert marks == sorted(marks)


@pytest.mark.parametrize(
    ("times", "left"),
    [
        ([], []),
        ([5.0], [5.0]),
        ([1, 2, 2, 9], [1, 2, 2, 9]),
        ([7, 8, 3, 4], [3, 4]),
        ([7, 8, 3, 4, 2, 600], [2, 600]),
        ([1, 2, 3e8, 3e8 + 1], [1, 2, 3e8, 3e8 + 1]),
    ],
)
def test_a_chart_begins_where_the_clock_was_set_back(
    tab: Tab, times: list[float], left: list[float]
) -> None:
    """Of the past only that is drawn which is not later than what came after it."""
    seconds = [{"time_seconds": time} for time in times]
    found = call(tab, "chart", "sinceSetBack", seconds)
    assert [each["time_seconds"] for each in found] == left


def sink(**more: object) -> dict[str, object]:
    """Give a sink's standing."""
    usual = {"name": "s", "address": "h:1", "state": "connected", "sequence": 6}
    return {**usual, "cause": None, "damaged_sequence": None, **more}


@pytest.mark.parametrize(
    ("changes", "word", "told"),
    [
        ({}, "Live", None),
        ({"disk_full": "no space left"}, "Disk full", "No space left."),
        ({"is_stopping": True}, "Stopping", "no more votes"),
        ({"sinks": [sink(state="away")]}, "Sink away", "from event 7 on"),
        ({"sinks": [sink(state="catching up")]}, "Live", None),
        (
            {
                "sinks": [
                    sink(state="stopped", cause="it is odd", damaged_sequence=1234)
                ]
            },
            "Sink stopped",
            "It is odd. Counting goes on. The log is damaged at event 1,234.",
        ),
        (
            {"sinks": [sink(state="away"), sink(state="stopped", cause="no")]},
            "Sink stopped",
            "Mend what it names",
        ),
        (
            {"disk_full": "full", "sinks": [sink(state="stopped", cause="no")]},
            "Disk full",
            "Full.",
        ),
    ],
)
def test_one_word_for_a_standing(
    tab: Tab, server: Server, changes: dict[str, object], word: str, told: str | None
) -> None:
    """The worst that is the matter gives the word, and a notice says what to do."""
    status = {**ask(server, "/status").document, **changes}
    live, silent = (True, 0.5, False), (False, 3.0, False)
    judged = call(tab, "standing", "judge", status, *live)
    assert judged["word"] == word
    texts = " ".join(each["text"] for each in judged["notices"])
    assert (told in texts) if told else not texts
    stale = call(tab, "standing", "judge", status, *silent)
    assert (stale["word"], stale["detail"][:15]) == ("Stale", "no news for 3 s")


@pytest.mark.parametrize(
    ("restart", "has_totals", "text"),
    [
        ((0, 0.1, None), True, "at once"),
        ((1000, 0.1, 5), True, "under 1 s"),
        ((1000, 0.1, 5), False, ""),
        ((600_000_000, 0.1, None), True, "about 12 s"),
        ((50_000_000, 10.0, 10_000_000), True, "about 50 s"),
        ((50_000_000, 10.0, 10_000_000), False, "about 50 s"),
    ],
)
def test_how_long_a_restart_would_take(
    tab: Tab, restart: tuple[int, float, int | None], has_totals: bool, text: str
) -> None:
    """It is told by how fast the last one was, if that replayed enough to say so."""
    names = ("replay_events", "recovery_seconds", "recovery_replayed")
    status = {"restart": dict(zip(names, restart, strict=True))}
    assert call(tab, "standing", "replayEstimate", status, has_totals) == text
