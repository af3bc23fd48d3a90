"""The page in a real browser: what it shows is what the server says."""

import contextlib
import os
import random
import signal
from pathlib import Path

from tests.browser import Browser
from tests.process import ANY, SECONDS_MAX, finish, free_port, serving, submit
from tests.receiving import Receiver
from tests.tab import Tab
from tests.test_connector_sink import QUIET
from tests.test_page import ask
from tests.test_signals import ON_A_SMALL_DISK, in_background
from tests.votes import Vote, make_votes, tally, wire
from tests.watching import watching

LARGE, LARGE_COUNT = (b"z", 2**32 - 1), 2**21 + 1
"""A vote, and how often: the total is odd and above 2**53, so no double is equal."""
VOTES = [(b"a", 1), (b"b", 9), (b"\xe9", 4), (b" ", 1), (b"c", 9)]
SHOWN = """
    [...document.querySelectorAll("#letters li")].map((each) =>
        [each.querySelector("b").textContent, each.querySelector(".total").textContent])
"""
NOTICES = "document.querySelector('#notices')"
FIRST = """
    new MutationObserver(() => {
        if (document.querySelector("#word").textContent === "Stale")
            globalThis.firstDetail ??= document.querySelector("#detail").textContent;
    }).observe(document.querySelector("#badge"), { childList: true, subtree: true });
"""
"""Keeps what the page tells first of a server that is gone: `no news for N s`."""
WORD = "document.querySelector('#word').textContent"


def name(letter: str) -> str:
    """Name a letter as the page does."""
    return letter if "!" <= letter <= "~" else f"\\x{ord(letter):02x}"


def expected(totals: dict[str, int]) -> list[list[str]]:
    """Give the rows that must be seen, in the order of letters."""
    return [[name(each), f"{totals[each]:,}"] for each in sorted(totals)]


def wait_shown(tab: Tab, votes: int) -> None:
    """Wait until the page has counted so many votes."""
    tab.wait(f"document.querySelector('#sequence').textContent === '{votes:,}'")


def follow(command: str, place: Path) -> None:
    """Run the command that an empty page shows, without a shell."""
    echo, _, send = command.partition(" | alphabet ")
    votes = place / "votes"
    votes.write_text(echo.split('"')[1] + "\n")
    *words, from_stdin = send.split()
    assert from_stdin == "-"
    assert finish("alphabet.cli", *words, votes).code == 0


def test_totals_are_those_of_the_server(tmp_path: Path, browser: Browser) -> None:
    """Every digit is right, from the first vote, sent as the page says, past 2**53."""
    with serving(tmp_path, "--http", ANY) as server, watching(browser, server) as tab:
        tab.wait("!document.querySelector('#empty').hidden")
        follow(tab.text("#first-vote"), tmp_path)
        wait_shown(tab, 1)
        assert tab.run("document.querySelector('#empty').hidden")
        assert tab.run(SHOWN) == [["a", "1"]]
        assert submit(server.port, wire(VOTES[1:]))
        wait_shown(tab, len(VOTES))
        assert tab.run(SHOWN) == expected(tally(VOTES))
        assert submit(server.port, wire([LARGE]) * LARGE_COUNT)
        wait_shown(tab, len(VOTES) + LARGE_COUNT)
        totals = ask(server, "/votes").document["totals"]
        assert totals == {**tally(VOTES), "z": LARGE[1] * LARGE_COUNT}
        assert float(totals["z"]) != totals["z"]
        assert tab.run(SHOWN) == expected(totals)
        assert tab.text("#sum").endswith(f" {sum(totals.values()):,}")


def test_letters_are_sorted_both_ways(tmp_path: Path, browser: Browser) -> None:
    """By letter and by total, by mouse and by keyboard, and as new votes come."""
    by_total = [name(each) for each in ("b", "c", "\xe9", " ", "a")]
    seen = f"({SHOWN}).map(([name]) => name).join(' ')"
    pressed = """
        [...document.querySelectorAll("#orders [aria-pressed=true]")]
            .map((each) => each.textContent).join()
    """
    with serving(tmp_path, "--http", ANY) as server:
        assert submit(server.port, wire(VOTES))
        with watching(browser, server) as tab:
            wait_shown(tab, len(VOTES))
            by_letter = " ".join(row[0] for row in expected(tally(VOTES)))
            assert (tab.run(seen), tab.run(pressed)) == (by_letter, "By letter")
            tab.click("[data-order=total]")
            tab.wait(f"{seen} === String.raw`{' '.join(by_total)}`")
            assert tab.run(pressed) == "By total"
            assert submit(server.port, wire([(b"a", 50)]))
            moved = [by_total[-1], *by_total[:-1]]
            tab.wait(f"{seen} === String.raw`{' '.join(moved)}`")
            tab.run("document.querySelector('[data-order=letter]').focus()")
            tab.press(" ")
            tab.wait(f"{seen} === String.raw`{by_letter}`")
            assert tab.run(pressed) == "By letter"
            tab.press("Tab")
            tab.press("Enter")
            tab.wait(f"{seen} === String.raw`{' '.join(moved)}`")


def test_it_outlives_the_server(tmp_path: Path, browser: Browser) -> None:
    """It is stale for as long as the server is killed, then right again by itself."""
    words = ("--http", f"127.0.0.1:{free_port()}")
    more = [(b"q", 5)]
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(serving(tmp_path, *words))
        assert submit(first.port, wire(VOTES))
        tab = stack.enter_context(watching(browser, first))
        wait_shown(tab, len(VOTES))
        tab.wait("document.title.endsWith('/s · Alphabet')")
        icon = tab.run("document.querySelector('#icon').href")
        tab.run(FIRST)
        first.kill()
        tab.wait(f"{WORD} === 'Stale'")
        assert tab.run("firstDetail[12]") in {"0", "1", "2", "3"}
        assert "no news for " in tab.text("#detail")
        assert tab.run("document.title") == "Stale · Alphabet"
        assert tab.run("document.querySelector('#icon').href") != icon
        assert tab.run(SHOWN) == expected(tally(VOTES))
        second = stack.enter_context(serving(tmp_path, *words))
        assert submit(second.port, wire(more))
        tab.wait(f"{WORD} === 'Live'")
        wait_shown(tab, len(VOTES) + len(more))
        assert tab.run(SHOWN) == expected(tally([*VOTES, *more]))
        tab.wait(f"{NOTICES}.textContent.includes('replayed 5')")
        assert tab.run("document.querySelector('#icon').href") == icon


def test_silence_is_stale(tmp_path: Path, browser: Browser) -> None:
    """A connection that stays open and tells nothing is no live one."""
    with serving(tmp_path, "--http", ANY) as server, watching(browser, server) as tab:
        tab.wait(f"{WORD} === 'Live'")
        os.kill(server.pid, signal.SIGSTOP)
        try:
            tab.wait(f"{WORD} === 'Stale'")
            tab.wait(f"{NOTICES}.textContent.includes('does not answer')")
        finally:
            os.kill(server.pid, signal.SIGCONT)
        tab.wait(f"{WORD} === 'Live'")


def test_a_sink_that_is_away(tmp_path: Path, browser: Browser) -> None:
    """A sink's state and lag are those of the server, when it goes and comes back."""
    cells = """
        [...document.querySelectorAll("#sinks tr")].map((row) =>
            [...row.cells].map((cell) => cell.textContent).join("|")).join()
    """
    with Receiver() as receiver:
        words = ("--http", ANY, "--out", receiver.address)
        with serving(tmp_path, *words) as server, watching(browser, server) as tab:
            assert submit(server.port, wire(VOTES))
            tab.wait(f"{cells} === 'out|connected|0|5|{receiver.address}'")
            assert tab.run(WORD) == "Live"
            receiver.leave()
            assert submit(server.port, wire(VOTES))
            tab.wait(f"{WORD} === 'Sink away'")
            tab.wait(f"{cells}.startsWith('out|away|')")
            assert receiver.address in tab.text("#notices")
            receiver.come_back()
            tab.wait(f"{cells} === 'out|connected|0|10|{receiver.address}'")
            tab.wait(f"{WORD} === 'Live'")
            tab.wait(f"{NOTICES}.hidden")


def test_a_sink_that_has_stopped(tmp_path: Path, browser: Browser) -> None:
    """A sink that has stopped for good is told with its cause and what to do."""
    fifo = tmp_path / "console"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    before = ["sh", "-c", f'exec "$@" >{fifo}', "sh"]
    words = ("--http", ANY, "--out", "-")
    with (
        serving(tmp_path, *words, before=before) as server,
        watching(browser, server) as tab,
    ):
        tab.wait(f"{WORD} === 'Live'")
        os.close(reader)
        assert submit(server.port, wire(VOTES))
        tab.wait(f"{WORD} === 'Sink stopped'")
        notice = tab.text("#notices [data-level=bad]")
        assert ask(server, "/status").document["sinks"][0]["cause"] in notice
        assert "start the server again" in notice
        wait_shown(tab, len(VOTES))


def test_a_disk_that_is_full(tmp_path: Path, browser: Browser) -> None:
    """A full disk is told with what to do, for as long as it lasts."""
    data = tmp_path / "data"
    data.mkdir()
    before = [*ON_A_SMALL_DISK, str(data)]
    votes = make_votes(random.Random(1), 200_000)
    words = ("--http", ANY)
    with serving(tmp_path, *words, before=before) as server:
        seen = Path(f"/proc/{server.pid}/root{data}")
        disk = os.statvfs(seen)
        filler = seen / "filler"
        filler.write_bytes(bytes(disk.f_bavail * disk.f_frsize - 100_000))
        with watching(browser, server) as tab:
            receipt = in_background(server.port, wire(votes))
            tab.wait(f"{WORD} === 'Disk full'")
            notice = tab.text("#notices [data-level=bad]")
            assert "no space left on the disk after sequence" in notice
            assert "Free some of that disk" in notice
            assert tab.run("document.title") == "Disk full · Alphabet"
            filler.unlink()
            assert receipt.result(SECONDS_MAX)
            tab.wait(f"{WORD} === 'Live'")
            wait_shown(tab, len(votes))
            assert tab.run(SHOWN) == expected(tally(votes))


def test_another_application(tmp_path: Path, browser: Browser) -> None:
    """Without totals there are no bars; its events and rates are there."""
    (tmp_path / "quiet.py").write_text(QUIET)
    words = ("--http", ANY, "--application-module", "quiet")
    with (
        serving(tmp_path, *words, working_directory=tmp_path) as server,
        watching(browser, server) as tab,
    ):
        assert submit(server.port, wire(VOTES))
        wait_shown(tab, len(VOTES))
        assert tab.text("#sequence-label") == "Events counted"
        assert tab.run("document.querySelector('#letters').hidden")
        assert tab.run("document.querySelector('#empty').hidden")
        assert not tab.run("document.querySelector('#no-totals').hidden")
        tab.wait("document.querySelectorAll('#rate-chart .line-0[d]').length === 1")


FLOOD_PARTS, MORE_PARTS = 100, 3


def in_all_letters(chance: random.Random, count: int) -> list[Vote]:
    """Make votes for all 256 letters."""
    return [
        (bytes([number % 256]), chance.randrange(1, 1000)) for number in range(count)
    ]


def test_a_flood_for_every_letter(tmp_path: Path, browser: Browser) -> None:
    """A page opened in a flood makes nothing anew, draws once a change, and ends right.

    The elements that are there once all letters are stay there, and the same; the list
    is written at most as often as the server tells, which is what it may cost.
    """
    watch = """
        globalThis.items = [...document.querySelectorAll("#letters li")];
        globalThis.added = 0;
        globalThis.told = 0;
        globalThis.writes = 0;
        new MutationObserver((changes) => {
            for (const each of changes) added += each.addedNodes.length;
        }).observe(document.querySelector("#letters"), { childList: true });
        new MutationObserver((changes) => { writes += 1; })
            .observe(document.querySelector("#letters"), {
                characterData: true, subtree: true,
            });
        globalThis.frames = 0;
        const count = () => { frames += 1; requestAnimationFrame(count); };
        requestAnimationFrame(count);
        globalThis.other = new EventSource("/events");
        other.addEventListener("totals", () => { told += 1; });
        other.addEventListener("second", () => { told += 1; });
    """
    part = in_all_letters(random.Random(3), 1 << 14)
    one = tally(part)
    with serving(tmp_path, "--http", ANY) as server:
        receipt = in_background(server.port, wire(part) * FLOOD_PARTS)
        with watching(browser, server) as tab:
            tab.wait("document.querySelectorAll('#letters li').length === 256")
            tab.run(watch)
            assert receipt.result(SECONDS_MAX)
            for _ in range(MORE_PARTS):
                assert submit(server.port, wire(part))
                told = tab.run("told")
                tab.wait(f"told > {told + 2}")
            sent = FLOOD_PARTS + MORE_PARTS
            wait_shown(tab, len(part) * sent)
            totals = {letter: total * sent for letter, total in one.items()}
            assert tab.run(SHOWN) == expected(totals)
            assert tab.run("added") == 0
            now = "document.querySelectorAll('#letters li')"
            assert tab.run(f"[...{now}].every((each, n) => each === items[n])")
            assert 0 < tab.run("writes") <= tab.run("told") + 2
            assert tab.run("frames") > tab.run("writes")
            assert tab.run("document.body.classList.contains('many')")
