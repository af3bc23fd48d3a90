"""Named instants at which a test may crash the process, or be called back.

`reach(name)` does nothing unless a test asks for it: a real process is told by
the environment variable `ALPHABET_FAILPOINT=NAME[:N]` to end by SIGKILL the N-th
time (default the first) it reaches NAME; a test in the same process replaces
`handler`. The names are in docs/GLOSSARY.md.
"""

import os
import signal
from collections.abc import Callable

VARIABLE = "ALPHABET_FAILPOINT"


def _from_environment() -> Callable[[str], None] | None:
    wanted, _, turn = os.environ.get(VARIABLE, "").partition(":")
    if not wanted:
        return None
    turns_left = int(turn or 1)

    def kill(name: str) -> None:
        nonlocal turns_left
        if name == wanted:
            turns_left -= 1
            if not turns_left:
                os.kill(os.getpid(), signal.SIGKILL)

    return kill


handler: Callable[[str], None] | None = _from_environment()


def reach(name: str) -> None:
    """Tell that the named instant has come."""
    if handler is not None:
        handler(name)
