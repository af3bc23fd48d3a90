"""Each application of examples/ on a real server, killed on the way, and replayed.

What must come out is told by a model of a few lines, which shares no code with it.
"""

import random
import struct
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples import frames
from examples.alarm.application import LIMIT, WINDOW
from tests.documents import EXAMPLES
from tests.inspection import last_sequence
from tests.process import (
    ROOT,
    Server,
    finish,
    free_port,
    serving,
    submit,
    wait_until,
)
from tests.receiving import Receiver

EVENTS = 60


@attrs.frozen
class Play:
    """What an application is sent, as (number of the input, frame), and what comes.

    `outputs` has what comes of each event; `state` is what the recovery tool says.
    """

    events: list[tuple[int, bytes]]
    outputs: list[bytes]
    state: list[str]


def framed(payload: bytes) -> bytes:
    """Put a payload's length before it."""
    return struct.pack(">I", len(payload)) + payload


def reverse(chance: random.Random) -> Play:
    """Send texts; they come out backwards."""
    texts = ["".join(chance.choices("abcé ", k=9)) for _ in range(EVENTS)]
    events = [(0, framed(text.encode())) for text in texts]
    outputs = [framed("".join(reversed(text)).encode()) for text in texts]
    return Play(events, outputs, [])


def word_count(chance: random.Random) -> Play:
    """Send lines; each word comes out with its count."""
    lines = [chance.choices(["Cat", "cat", "dog", "né"], k=3) for _ in range(EVENTS)]
    outputs, seen = [], []
    for line in lines:
        output = b""
        for word in line:
            seen.append(word.lower())
            output += framed(f"{seen[-1]} {seen.count(seen[-1])}".encode())
        outputs.append(output)
    events = [(0, framed(f"{', '.join(line)}!".encode())) for line in lines]
    shelves = {"cat": 8, "dog": 13, "né": 9}
    state = [
        f"counts[{shelf}] => { ({word: seen.count(word)}) }"
        for word, shelf in sorted(shelves.items(), key=lambda pair: pair[1])
    ]
    return Play(events, outputs, state)


def alarm(chance: random.Random) -> Play:
    """Send readings of two sensors; alarms go on and off."""
    outputs, events = [], []
    readings: dict[int, list[int]] = {1: [], 2: []}
    is_on = {1: False, 2: False}
    for _ in range(EVENTS):
        sensor, amount = chance.choice([1, 2]), chance.randrange(2 * LIMIT // WINDOW)
        events.append((0, framed(struct.pack(">HI", sensor, amount))))
        readings[sensor].append(amount)
        total = sum(readings[sensor][-WINDOW:])
        has_changed = (total >= LIMIT) != is_on[sensor]
        is_on[sensor] ^= has_changed
        change = struct.pack(">HQ?", sensor, total, is_on[sensor])
        outputs.append(framed(change) if has_changed else b"")
    state = [
        f"histories[{sensor}] => History(amounts={readings[sensor][-WINDOW:]},"
        f" is_on={is_on[sensor]})"
        for sensor in readings
    ]
    return Play(events, outputs, state)


def market(chance: random.Random) -> Play:
    """Send quotes and orders; those come out that are stopped."""
    outputs, events = [], []
    quotes: dict[str, tuple[int, int]] = {}
    for number in range(EVENTS):
        symbol = chance.choice(["ACME", "BOLT", "CORK", "NONE"])
        code = symbol.encode()
        if chance.random() < 0.5:
            bid = chance.randrange(90, 110)
            ask = bid + chance.randrange(10)
            events.append((0, framed(struct.pack(">4sII", code, bid, ask))))
            outputs.append(b"")
            quotes[symbol] = (bid, ask)
            continue
        events.append((1, framed(struct.pack(">I4sI", number, code, 5))))
        bid, ask = quotes.get(symbol, (0, 0))
        reason = b"unknown" if not bid else b"wide" if ask > bid * 1.05 else b""
        stopped = framed(struct.pack(">I4s7s", number, code, reason))
        outputs.append(stopped if reason and symbol != "NONE" else b"")
    state = [
        f"prices[{symbol!r}] => Prices(bid={bid}, ask={ask})"
        for symbol, (bid, ask) in sorted(quotes.items())
        if symbol != "NONE"
    ]
    return Play(events, outputs, state)


def celsius(chance: random.Random) -> Play:
    """Send quarters of a degree, which a float has exactly."""
    degrees = [chance.randrange(-400, 400) / 4 for _ in range(EVENTS)]
    events = [(0, framed(struct.pack(">f", each))) for each in degrees]
    outputs = [framed(struct.pack(">f", each * 9 / 5 + 32)) for each in degrees]
    return Play(events, outputs, [])


PLAYS: dict[str, Callable[[random.Random], Play]] = {
    play.__name__: play for play in (reverse, word_count, alarm, market, celsius)
}


def send(server: Server, events: list[tuple[int, bytes]]) -> None:
    """Send events in order, each run of one input's on a connection of its own."""
    listening = [each for each in server.lines() if each.startswith("listening in ")]
    ports = [int(line.rpartition(":")[2]) for line in listening]
    while events:
        number = events[0][0]
        size = next((n for n, (i, _) in enumerate(events) if i != number), len(events))
        assert submit(ports[number], b"".join(frame for _, frame in events[:size]))
        events = events[size:]


def is_complete(receiver: Receiver, whole: bytes) -> bool:
    """Say whether the last connection brought the end of all outputs."""
    newest = bytes(receiver.connections[-1])
    return bool(newest) and whole.endswith(newest)


def test_there_is_a_play_for_each() -> None:
    """Every directory with an application is played here, and has its README."""
    assert {file.parent.name for file in EXAMPLES} == set(PLAYS)
    found = {file.parent.name for file in ROOT.glob("examples/*/application.py")}
    assert found == set(PLAYS)


@pytest.mark.parametrize("name", PLAYS)
def test_it_runs_is_killed_and_goes_on(name: str, tmp_path: Path) -> None:
    """Each output comes, across a SIGKILL, and the tools rebuild the same state."""
    play = PLAYS[name](random.Random(5))
    inputs = f"127.0.0.1:{free_port()},127.0.0.1:{free_port()}"
    module = ("--application-module", f"examples.{name}.application")
    with Receiver() as receiver:
        words = ["--in", inputs, "--out", receiver.address, "--http", "none"]
        words += [*module, "--data-dir", str(tmp_path / "data"), "--snapshot-every"]
        half = EVENTS // 2
        with serving(tmp_path, *words, 10, is_bare=True) as server:
            send(server, play.events[:half])
            server.kill()
        receiver.wait_hung_up()
        seen = len(receiver.connections)
        with serving(tmp_path, *words, 10, is_bare=True) as server:
            send(server, play.events[half:])
            whole = b"".join(play.outputs)
            wait_until(lambda: len(receiver.connections) > seen, "the server's return")
            wait_until(partial(is_complete, receiver, whole), "the last output")
            assert server.stop() == 0
        *before, _ = map(bytes, receiver.connections)
    assert all(whole.startswith(each) for each in before)
    assert receiver.received_bytes >= len(whole)
    assert last_sequence(tmp_path) == EVENTS
    done = finish("recovery.cli", "verify", tmp_path / "data", *module)
    assert done.code == 0, done
    done = finish("recovery.cli", "state", tmp_path / "data", *module)
    assert done.code == 0, done
    assert done.stdout.splitlines() == play.state


class TestFrames:
    """The script that makes frames of lines, and lines of frames."""

    @given(st.lists(st.text(st.characters(exclude_categories=["Cs"]))))
    def test_texts(self, texts: list[str]) -> None:
        """Texts come through as they are."""
        lines = [text.replace("\n", "") for text in texts]
        data = b"".join(frames.write(f"{line}\n" for line in lines))
        assert list(frames.read(data)) == lines

    def test_layouts(self) -> None:
        """Words become fields, and fields words."""
        data = b"".join(frames.write(["7 ACME -1.5\n", "8 A 2\n"], ">H4sf"))
        assert data[:14] == b"\0\0\0\x0a\0\x07ACME\xbf\xc0\0\0"
        assert list(frames.read(data, ">H4sf")) == ["7 ACME -1.5", "8 A 2"]

    @pytest.mark.parametrize(
        ("words", "given_in", "said"),
        [
            ("write --layout >H", b"x\n", "'x\\n' is not of the layout >H"),
            ("write --layout >H", b"1 2\n", "'1 2\\n' is not of the layout >H"),
            ("read --layout >H", b"\0\0\0\1a", "an output is not of the layout >H"),
            ("read", b"\0\0\0\2a", "the last frame is not whole"),
            ("read", b"\0\0", "the last frame is not whole"),
        ],
    )
    def test_what_does_not_fit_is_one_line(
        self, words: str, given_in: bytes, said: str
    ) -> None:
        """Anything else ends the script, with one line that says why."""
        done = subprocess.run(
            [sys.executable, ROOT / "examples" / "frames.py", *words.split()],
            input=given_in,
            capture_output=True,
            timeout=30,
            check=False,
        )
        assert done.returncode == 1
        [line] = done.stderr.decode().splitlines()
        assert line.startswith(f"frames.py: {said}")

    def test_nobody_reads(self) -> None:
        """Where the next program of a pipe has ended, nothing more is said."""
        program = [sys.executable, str(ROOT / "examples" / "frames.py"), "write"]
        with subprocess.Popen(
            program,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:
            assert process.stdout is not None
            process.stdout.close()
            _, stderr = process.communicate(b"word\n", timeout=60)
        assert (process.returncode, stderr) == (1, b"")
