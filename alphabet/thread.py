"""A thread of the server's own. The edge: the system may have no room for one."""

import contextlib
import threading
from collections.abc import Callable
from pathlib import Path


def start_thread(name: str, target: Callable[[], None]) -> threading.Thread:
    """Start a thread that the process does not wait for at its end.

    Raises MemoryError where the system refuses one: memory or threads have run out.
    """

    def run() -> None:
        name_thread(name)
        target()

    thread = threading.Thread(target=run, name=name, daemon=True)
    try:
        thread.start()
    except RuntimeError as error:
        raise MemoryError(str(error)) from error
    return thread


def name_thread(name: str) -> None:
    """Let the system know this thread by its name, for `top -H` and profilers.

    Linux takes 15 bytes of it; where there is no such file, it goes without.
    """
    with contextlib.suppress(OSError):
        comm = Path(f"/proc/self/task/{threading.get_native_id()}/comm")
        comm.write_bytes(name.encode()[:15])
