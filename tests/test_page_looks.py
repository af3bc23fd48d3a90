"""The page for whoever looks: colours, sizes, keyboard and screen reader."""

import re
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from tests.browser import Browser
from tests.process import ANY, Server, free_port, serving, submit
from tests.tab import Tab
from tests.votes import wire
from tests.watching import watching

FEW = [(bytes([code]), 2**32 - 1) for code in range(0x61, 0x7B)]
ALL = [(bytes([code]), 2**32 - 1) for code in range(256)]
MANY_TIMES = 1 << 14
ITEMS = "document.querySelectorAll('#letters li').length"
GROUND = "getComputedStyle(document.body).backgroundColor"
CONTRASTS = Path(__file__).with_name("contrasts.js").read_text()
CONTRAST_MIN = 4.5
"""WCAG 2.2, success criterion 1.4.3, for text of the usual size."""
FOCUSED = """
    (() => {
        const it = document.activeElement;
        const style = getComputedStyle(it);
        const name = it.id || it.textContent.trim();
        const isSeen = style.outlineStyle !== "none" && it.matches(":focus-visible");
        return [name, isSeen && parseFloat(style.outlineWidth) >= 2];
    })()
"""
REACHABLE = """
    [...document.querySelectorAll("a[href], button, [tabindex='0']")]
        .filter((each) => each.checkVisibility())
        .map((each) => each.id || each.textContent.trim())
"""
NAMED = {
    "banner": False,
    "main": False,
    "contentinfo": False,
    "region": True,
    "heading": True,
    "button": True,
    "link": True,
    "image": True,
    "list": True,
    "table": True,
    "figure": True,
    "group": True,
}
"""Roles that the page has, and whether each of that role must have a name."""


@attrs.frozen
class Scene:
    """A server with a sink that is away and a reject, and its page."""

    server: Server
    tab: Tab


@pytest.fixture(scope="module")
def scene(
    tmp_path_factory: pytest.TempPathFactory, browser: Browser
) -> Iterator[Scene]:
    """Give a page with something in every part of it."""
    place = tmp_path_factory.mktemp("looks")
    words = ("--http", ANY, "--out", f"127.0.0.1:{free_port()}", "--snapshot-every", 9)
    with serving(place, *words) as server, watching(browser, server) as tab:
        assert submit(server.port, wire(FEW) * MANY_TIMES + b"\0\0\0\3abc")
        tab.wait(f"{ITEMS} === {len(FEW)}")
        tab.wait("document.querySelector('#rejects').rows.length === 1")
        tab.wait("!document.querySelector('#notices').hidden")
        yield Scene(server, tab)


def test_rejects_are_told(scene: Scene) -> None:
    """What was refused is there by its reason."""
    assert scene.tab.text("#rejects") == "decode1"
    assert "alphabet-replay rejects" in scene.tab.text("#rejects-text")


def test_a_chart_tells_a_moment(scene: Scene) -> None:
    """A pointer on a chart has its figures at that moment told, until it leaves."""
    tab = scene.tab
    look_anew(tab)
    tab.wait("document.querySelectorAll('.line-0[d^=M]').length === 2")
    assert tab.text("#rate-chart .when") == ""
    tab.point("#rate-chart svg")
    moment = tab.text("#rate-chart .when")
    assert re.fullmatch(r"at \d\d:\d\d:\d\d", moment)
    assert tab.text("#commit-chart .when") == ""
    tab.point("h1")
    assert tab.text("#rate-chart .when") == ""


def look_anew(tab: Tab, scheme: str = "light") -> None:
    """Give the page its usual size, and the system these colours."""
    tab.resize(1280, 900)
    tab.prefer_colours(scheme)
    tab.run("localStorage.clear()")
    tab.reload()
    tab.wait(f"{ITEMS} > 0")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_can_be_read(scene: Scene, scheme: str) -> None:
    """Every text, whatever the page has to tell, stands out from what is behind it."""
    look_anew(scene.tab, scheme)
    for level in ("ok", "warn", "bad", "stale", "wait", "info"):
        told = scene.tab.run(f"({CONTRASTS})('{level}')")
        assert len(told) > 100
        assert [each for each in told if each["contrast"] < CONTRAST_MIN] == []


def test_colours_are_the_systems_or_chosen(scene: Scene) -> None:
    """They are the system's until the button is pressed, and the choice is kept."""
    tab = scene.tab
    look_anew(tab, "dark")
    dark = tab.run(GROUND)
    tab.prefer_colours("light")
    light = tab.run(GROUND)
    assert dark != light
    tab.click("#theme")
    tab.click("#theme")
    assert (tab.text("#theme"), tab.run(GROUND)) == ("Colours: dark", dark)
    tab.reload()
    tab.wait(f"{ITEMS} > 0")
    assert (tab.text("#theme"), tab.run(GROUND)) == ("Colours: dark", dark)
    tab.click("#theme")
    assert (tab.text("#theme"), tab.run(GROUND)) == ("Colours: system", light)


def test_every_control_is_reached_and_seen(scene: Scene) -> None:
    """Tab goes to each control, in the page's order, and each shows that it did."""
    tab = scene.tab
    look_anew(tab)
    reachable = tab.run(REACHABLE)
    assert {"theme", "By letter", "By total"} <= {*reachable}
    found = []
    for _ in reachable:
        tab.press("Tab")
        name, is_seen = tab.run(FOCUSED)
        assert is_seen, name
        found.append(name)
    assert found == reachable


def test_a_screen_reader_is_told(scene: Scene) -> None:
    """Landmarks, headings, lists, tables, charts and controls are there, with names."""
    tab = scene.tab
    look_anew(tab)
    tab.wait("document.querySelector('#spoken').textContent.includes('counted')")
    tab.wait("document.querySelector('#commit-chart title').textContent")
    tab.ask("Accessibility.enable")
    nodes = tab.ask("Accessibility.getFullAXTree")["nodes"]
    seen = [each for each in nodes if not each["ignored"]]
    names: dict[str, list[str]] = {}
    for node in seen:
        name = node.get("name", {}).get("value", "")
        names.setdefault(node["role"]["value"], []).append(name)
    assert set(NAMED) <= set(names)
    for role, must in NAMED.items():
        assert all(names[role]) or not must, (role, names[role])
    assert [name for name in names["image"] if "now, " in name] == names["image"]
    assert len(names["image"]) == 2
    spoken = "document.querySelector('#spoken')"
    assert tab.run(f"{spoken}.ariaLive") == "polite"
    assert tab.text("#spoken").startswith("Sink away. Sink out is away. ")


def test_nothing_moves_for_those_who_ask_so(scene: Scene) -> None:
    """Bars glide, unless the system asks for less motion."""
    tab = scene.tab
    look_anew(tab)
    glide = """
        getComputedStyle(document.querySelector("#letters .track i")).transitionDuration
    """
    for value, duration in (("no-preference", "0.25s"), ("reduce", "0s")):
        feature = {"name": "prefers-reduced-motion", "value": value}
        tab.ask("Emulation.setEmulatedMedia", features=[feature])
        assert tab.run(glide) == duration


def test_a_sinks_state_is_one_line(scene: Scene) -> None:
    """A narrow window lets the longest state be as high as the shortest."""
    tab = scene.tab
    look_anew(tab)
    tab.resize(360, 900)
    tab.wait("innerWidth === 360")
    tab.wait("document.querySelector('#sinks').rows.length === 1")
    grown = """(() => {
        const cell = document.querySelector('#sinks td[data-level]');
        const height = cell.offsetHeight;
        cell.textContent = 'catching up';
        return cell.offsetHeight - height;
    })()"""
    assert tab.run(grown) == 0


def test_it_fits_any_width(scene: Scene) -> None:
    """Nothing reaches over the edge, with few letters and with all, of long totals."""
    tab = scene.tab
    look_anew(tab)
    over = """((selector) => [...document.querySelectorAll(selector)]
        .filter((each) => each.getBoundingClientRect().right > innerWidth + 0.5)
        .map((each) => each.outerHTML.slice(0, 200)))"""
    for votes in (FEW, ALL):
        assert submit(scene.server.port, wire(votes))
        tab.wait(f"{ITEMS} === {len(votes)}")
        for width in (360, 700, 1280, 1600):
            tab.resize(width, 900)
            tab.wait(f"innerWidth === {width}")
            root = "document.documentElement"
            assert tab.run(f"{root}.scrollWidth <= {root}.clientWidth")
            most = "body, body *:not(.scroll *, pre *, svg *, .unseen)"
            assert tab.run(f"{over}('{most}')") == []
            # A chart is drawn anew a frame later.
            tab.wait(f"{over}('svg *').length === 0")
            tab.wait("document.querySelectorAll('.line-0[d^=M]').length === 2")
