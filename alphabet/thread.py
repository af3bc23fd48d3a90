"""A thread of the server's own. The edge: the system may have no room for one."""

import threading
from collections.abc import Callable


def start_thread(name: str, target: Callable[[], None]) -> threading.Thread:
    """Start a thread that the process does not wait for at its end.

    Raises MemoryError where the system refuses one: memory or threads have run out.
    """
    thread = threading.Thread(target=target, name=name, daemon=True)
    try:
        thread.start()
    except RuntimeError as error:
        raise MemoryError(str(error)) from error
    return thread
