"""Commands of `alphabet-replay` run in this process, for tests of many of them."""

import contextlib
import io

from recovery.cli import main
from tests.process import Finished


def replay_here(*words: object) -> Finished:
    """Run a command to its end, and keep what it printed."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([str(word) for word in words])
    return Finished(code, out.getvalue(), err.getvalue())
