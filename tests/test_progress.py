"""The progress bar: its words, and how it fits a terminal."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recovery.commands.progress import NARROW, clock, short
from tests.process import ROOT, SECONDS_MAX, environment

WORK = """
import time
from recovery.commands.progress import progress
with progress(1000, "check", start=100) as show:
    for reached in range(100, 1001, 50):
        show(reached)
        time.sleep(0.02)
    time.sleep(0.2)
    show(1000)
print("done")
"""
SIZES = {"": 1, " k": 1e3, " M": 1e6, " G": 1e9}


@given(st.floats(1, 9e11))
def test_rates_are_short(number: float) -> None:
    """A rate is written in six characters at most, right to half a percent."""
    text = short(number)
    digits, letter = re.fullmatch(r"([\d.]+)( [kMG])?", text).groups()  # type: ignore[union-attr]
    assert len(text) <= 6
    error = abs(float(digits) * SIZES[letter or ""] - number)
    assert error <= max(0.0051 * number, 0.5)


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0.2, "0"),
        (7, "7"),
        (999, "999"),
        (999.5, "1.00 k"),
        (1000, "1.00 k"),
        (9994, "9.99 k"),
        (9996, "10.0 k"),
        (99_960, "100 k"),
        (999_900, "1.00 M"),
        (83_155_258, "83.2 M"),
    ],
)
def test_rates_as_they_are_read(number: float, text: str) -> None:
    """A rate has three digits, and one letter for the size."""
    assert short(number) == text


@given(st.integers(0, 1_000_000))
def test_times_can_be_read(seconds: int) -> None:
    """The time left says hours, minutes and seconds, and no more than it needs."""
    text = clock(seconds)
    parts = [int(part) for part in text.removesuffix(" s").split(":")]
    assert (
        sum(part * 60**power for power, part in enumerate(reversed(parts))) == seconds
    )
    assert len(parts) == 1 + (seconds >= 60) + (seconds >= 3600)
    assert text.endswith(" s") == (seconds < 60)


@pytest.mark.parametrize("columns", [80, 40])
def test_it_fits_the_terminal(columns: int) -> None:
    """Label, bar, percentage, rate and time left stand on one line, then are gone."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    with os.fdopen(ours, "rb", buffering=0) as terminal:
        done = subprocess.run(
            [sys.executable, "-c", WORK],
            cwd=ROOT,
            env=environment({"TERM": "xterm", "COLUMNS": ""}),
            stdin=theirs,
            stdout=subprocess.PIPE,
            stderr=theirs,
            text=True,
            timeout=SECONDS_MAX,
            check=True,
        )
        os.close(theirs)
        shown = terminal.read(1 << 16).decode()
    assert done.stdout == "done\n"
    lines = re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown))
    last = [line for line in lines if line][-1]
    assert re.fullmatch(
        r"check [━╸╺]+ 100 %  [\d.]+( k)?( events)?/s  0 s left *", last
    ), lines
    assert ("events/s" in last) == (columns >= NARROW)
    assert max(map(len, lines)) <= columns
    assert "…" not in shown
    assert shown.endswith("\x1b[2K"), "the line is wiped"
