"""Runs a command in a child process, so that damage may kill it and still be told.

Reading through LMDB's map of a damaged file can fault, or make LMDB give up. Python
cannot catch that, but a parent can see it. The edge: processes and signals.
"""

import contextlib
import os
import signal
import sys
from collections.abc import Callable

DAMAGE_SIGNALS = {signal.SIGABRT, signal.SIGBUS, signal.SIGSEGV}
"""What ends a process that reads a damaged file."""

_FORWARDED = (signal.SIGINT, signal.SIGTERM)


def run_in_child(main: Callable[[], int]) -> int:
    """Run `main` in a child; give its exit code, or less a signal's number.

    Standard output is the child's alone: nothing may be waiting in its buffer.
    """
    child = os.fork()
    if not child:
        code = main()
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        os._exit(code)
    for number in _FORWARDED:
        signal.signal(number, lambda received, _: os.kill(child, received))
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)
