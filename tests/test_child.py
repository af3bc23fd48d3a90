"""A command in a child process: signals reach it, and it ends as the command does."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.process import ROOT, SECONDS_MAX, environment, state_of, wait_until

WORK = """
import os, signal, sys, time
from recovery.child import run_in_child

def main():
    signal.signal(signal.SIGTERM, lambda *_: os._exit(7))
    try:
        print(os.getpid(), flush=True)
        time.sleep(60)
    except KeyboardInterrupt:
        os.kill(os.getpid(), signal.SIGINT)
        print("once")
        raise
    return 0

sys.exit(run_in_child(main, *map(int, sys.argv[1:])))
"""
UNKNOWN_SERVER = "0"


@contextlib.contextmanager
def working(*words: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Give a process whose child works, and the child's pid."""
    command = [sys.executable, "-c", WORK, *words]
    with subprocess.Popen(
        command, cwd=ROOT, env=environment({}), stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            yield process, int(process.stdout.readline())
        finally:
            process.kill()


def is_there(pid: int) -> bool:
    """Say whether a process runs; one that ended counts as gone."""
    try:
        return state_of(pid) != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("words", [[], [UNKNOWN_SERVER]])
def test_a_signal_is_passed_on(words: list[str]) -> None:
    """What ends the process is the child's to answer, and so is its exit code."""
    with working(*words) as (process, _):
        process.send_signal(signal.SIGTERM)
        assert process.wait(SECONDS_MAX) == 7


def test_a_second_interrupt_is_ignored() -> None:
    """Ctrl-C comes once, however often it is sent; the exit code is that of shells."""
    with working() as (process, _):
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=SECONDS_MAX)
        assert (process.returncode, said) == (130, "once\n")


@pytest.mark.parametrize("words", [[], [UNKNOWN_SERVER]])
def test_a_child_ends_with_its_parent(words: list[str]) -> None:
    """No command goes on by itself whose process was killed."""
    with working(*words) as (process, child):
        process.kill()
        process.wait(SECONDS_MAX)
        wait_until(lambda: not is_there(child), "the child's end")


def test_both_pause_together() -> None:
    """A child in a session of its own stops, and goes on, as its process is told."""
    with working(UNKNOWN_SERVER) as (process, child):
        process.send_signal(signal.SIGTSTP)
        for pid in (process.pid, child):
            wait_until(lambda pid=pid: state_of(pid) == "T", "a pause")  # type: ignore[misc]
        process.send_signal(signal.SIGCONT)
        for pid in (process.pid, child):
            wait_until(lambda pid=pid: state_of(pid) != "T", "work")  # type: ignore[misc]
        os.kill(child, signal.SIGTERM)
        assert process.wait(SECONDS_MAX) == 7
