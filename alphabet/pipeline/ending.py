"""What an application's code ended the process with, in one line.

MemoryError apart, that is what `alphabet.cause` calls fatal, and what is no Exception,
as `sys.exit` raises it. A component is the first function beyond our own that a
traceback passes; which event it was given is in the error's notes.

Pure.
"""

from alphabet.cause import describe

_OURS = ("alphabet", "log", "recovery")
_PICKLES = "alphabet.pipeline.state_codec"
"""Where a component may be none of Python's functions."""
_NO_COMPONENTS = ("click", "threading")


def ending_line(error: BaseException) -> str | None:
    """Say what ended the process, and where; None if no application did."""
    if isinstance(error, Exception) and not isinstance(error, RecursionError):
        return None
    place = _component(error)
    if isinstance(error, KeyboardInterrupt) or place is None:
        return None
    notes = "".join(f" at {note}" for note in getattr(error, "__notes__", ()))
    return (
        f"{place} raised {describe(error)}{notes}, which ends everything;"
        " mend the application"
    )


def _component(error: BaseException) -> str | None:
    """Name what our own code called last; None if that is no component."""
    place = caller = None
    passed = error.__traceback__
    while passed is not None:
        frame, passed = passed.tb_frame, passed.tb_next
        module = frame.f_globals.get("__name__", "")
        package = module.partition(".")[0]
        if package in _OURS:
            caller, place = module, None
        elif caller and place is None:
            place = None if package in _NO_COMPONENTS else frame.f_code.co_qualname
    return place or ("pickle" if caller == _PICKLES else None)
