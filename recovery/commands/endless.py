"""How a command ends that goes on until somebody ends it.

In good order at the first SIGINT or SIGTERM, and when nobody reads its output any more.
"""

import contextlib
import select
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType

import click

from alphabet.command_line import option

INTERVAL_SECONDS_MIN = 0.01
INTERVAL_SECONDS_MAX = 86400.0


class _SignalledError(Exception):
    """SIGINT or SIGTERM came."""


@contextlib.contextmanager
def ended_by_signal() -> Iterator[None]:
    """End the block in good order at the first SIGINT or SIGTERM.

    More of them are ignored from then on, for the process is about to end: Ctrl-C may
    come twice, from the terminal and from the process that waits for this one.
    """
    numbers = (signal.SIGINT, signal.SIGTERM)

    def end(_number: int, _frame: FrameType | None) -> None:
        for number in numbers:
            signal.signal(number, signal.SIG_IGN)
        raise _SignalledError

    before = {number: signal.signal(number, end) for number in numbers}
    try:
        with contextlib.suppress(_SignalledError):
            yield
    finally:
        for number, handler in before.items():
            if signal.getsignal(number) is end:
                signal.signal(number, handler)


def interval_option(flag: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add `--interval-seconds`, which says how often to look, with `flag`."""
    return option(
        "--interval-seconds",
        type=click.FloatRange(INTERVAL_SECONDS_MIN, INTERVAL_SECONDS_MAX),
        metavar="SECONDS",
        default=1.0,
        show_default=True,
        help=f"With {flag}: how often to look, at most.",
    )


def is_read_for(seconds: float) -> bool:
    """Wait; give False, as soon as it is so, if nobody reads standard output."""
    poll = select.poll()
    # Asked for nothing, it tells of errors alone, as of a pipe without a reader.
    poll.register(sys.stdout.fileno(), 0)
    return not poll.poll(seconds * 1000)
