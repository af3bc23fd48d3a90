"""How a command ends that goes on until somebody ends it."""

import os
import signal
from collections.abc import Iterator

import pytest

from recovery.commands.endless import ended_by_signal
from tests.replaying import replay_here

NUMBERS = (signal.SIGINT, signal.SIGTERM)


@pytest.fixture(autouse=True)
def handlers() -> Iterator[list[object]]:
    """Return what handles the signals, and put it back afterwards."""
    before = [signal.getsignal(number) for number in NUMBERS]
    yield list(before)
    for number, handler in zip(NUMBERS, before, strict=True):
        signal.signal(number, handler)


def now() -> list[object]:
    """Give what handles the signals."""
    return [signal.getsignal(number) for number in NUMBERS]


def test_nothing_is_changed_without_a_signal(handlers: list[object]) -> None:
    """Where the block ends by itself, signals do what they did before."""
    with ended_by_signal():
        assert now() != handlers
    assert now() == handlers


@pytest.mark.parametrize("number", NUMBERS)
def test_a_second_signal_is_ignored(number: signal.Signals) -> None:
    """The first signal ends the block in good order, and no other one has a say."""
    with ended_by_signal():
        os.kill(os.getpid(), number)
        pytest.fail("the block goes on")
    assert now() == [signal.SIG_IGN] * 2
    for each in NUMBERS:
        os.kill(os.getpid(), each)


@pytest.mark.parametrize("command", ["state", "events"])
def test_an_interval_is_a_number(command: str) -> None:
    """What is no number is refused, which no range does."""
    done = replay_here(command, "nowhere", "--interval-seconds", "nan")
    assert done.code == 2, done
    assert "nan is no number" in done.stderr
