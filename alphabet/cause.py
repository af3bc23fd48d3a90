"""What an application's own code raised, as a cause of one line.

Pure.
"""

import attrs

FATAL = (MemoryError, RecursionError)
"""What says that the process is unwell: it is never an event's own affair."""
CAUSE_CHARS_MAX = 500


@attrs.frozen
class StepError(Exception):
    """A step of a pipeline raised, and which one that was."""

    step: str
    error: BaseException


def describe(error: BaseException) -> str:
    """Say in one line, of CAUSE_CHARS_MAX at most, what was raised, and by which step.

    It may quote what a peer has sent, so it is safe to print.
    """
    line = _line(error)[:CAUSE_CHARS_MAX]
    return "".join(
        char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in line
    )


def _line(error: BaseException) -> str:
    if isinstance(error, StepError):
        return f"{error.step}: {_line(error.error)}"
    name = type(error).__name__
    try:
        text = " ".join(str(error).split())
    except Exception:  # noqa: BLE001 - it is the application's code
        text = ""
    return f"{name}: {text}" if text else name
