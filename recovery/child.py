"""Runs a command in a child process, so that damage may kill it and still be told.

Reading through LMDB's map of a damaged file can fault, or make LMDB give up. Python
cannot catch that, but a parent can see it. The edge: processes and signals.
"""

import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

from recovery.priority import Governor, go_last

DAMAGE_SIGNALS = {signal.SIGABRT, signal.SIGBUS, signal.SIGSEGV}
"""What ends a process that reads a damaged file."""

_INTERRUPTED = 130
_FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
_PR_SET_PDEATHSIG = 1


def run_in_child(main: Callable[[], int], server: int | None = None) -> int:
    """Run `main` in a child; give its exit code, or less a signal's number.

    Standard output is the child's alone: nothing may be waiting in its buffer. What
    Ctrl-C interrupts ends with 130, as shells have it. Beside a `server`, given by its
    pid, other processes go first, and while it is at work the child rests.
    """
    # What comes while nobody is ready for it waits.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _FORWARDED)
    parent = os.getpid()
    child = os.fork()
    if not child:
        _end_with(parent)
        if server is not None:
            go_last()
        _be_child(main, before)
    for number in _FORWARDED:
        signal.signal(number, lambda received, _: _send(child, received))
    if server is not None:
        signal.signal(signal.SIGTSTP, lambda *_: _pause(child))
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    status = _await_end(child, None if server is None else Governor(child, server))
    for number in _FORWARDED:
        signal.signal(number, signal.SIG_DFL)
    return os.waitstatus_to_exitcode(status)


def _end_with(parent: int) -> None:
    """Let this process end at once when its parent has: one at rest would stay so.

    See prctl(2); elsewhere than on Linux it goes on by itself.
    """
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(_INTERRUPTED)


def _await_end(child: int, governor: Governor | None) -> int:
    """Wait for a child's end; give its status."""
    if governor is None:
        return os.waitpid(child, 0)[1]
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return status
        governor.take_turn()


def _be_child(main: Callable[[], int], mask: set[int | signal.Signals]) -> NoReturn:
    """Run `main` and end with its exit code."""
    try:
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            signal.signal(signal.SIGINT, _interrupt)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        code = main()
    except KeyboardInterrupt:
        code = _INTERRUPTED
    with contextlib.suppress(OSError):
        sys.stdout.flush()
    os._exit(code)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt once: a terminal sends a second, through the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise KeyboardInterrupt


def _pause(child: int) -> None:
    """Stop and go on together with a child that the terminal does not reach."""
    _send(child, signal.SIGSTOP)
    os.kill(os.getpid(), signal.SIGSTOP)
    _send(child, signal.SIGCONT)


def _send(child: int, number: int) -> None:
    """Send a signal, unless the child has just ended."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, number)
