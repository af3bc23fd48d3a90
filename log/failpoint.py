"""Named instants at which a test may crash the process, or be called back.

`reach(name)` does nothing unless a test asks for it: a real process is told by
the environment variable `ALPHABET_FAILPOINT=NAME[:N]` to end by SIGKILL the N-th
time (default the first) it reaches NAME; a test in the same process replaces
`handler`. The names are in docs/GLOSSARY.md.
"""

import os
import re
import signal
import sys
from collections.abc import Callable

VARIABLE = "ALPHABET_FAILPOINT"

_FORM = re.compile(r"([^:]+)(?::0*([1-9][0-9]{0,8}))?")
_EXIT_USAGE = 2


def _from_environment() -> Callable[[str], None] | None:
    value = os.environ.get(VARIABLE, "")
    if not value:
        return None
    found = _FORM.fullmatch(value)
    if found is None:
        # Whoever imports us, nothing was begun yet.
        form = f"NAME or NAME:N, with N at least 1, not {value!r}"
        sys.stderr.write(f"{VARIABLE} must be {form}\n")
        raise SystemExit(_EXIT_USAGE)
    wanted, turns_left = found[1], int(found[2] or 1)

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
