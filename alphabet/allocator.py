"""How malloc deals with columns that come and go thousands of times a second.

glibc gives larger pieces of memory back to the system as soon as they are freed, and
each page that is taken anew costs a fault: more than the sums in it. So it is asked to
keep what is freed. The edge: it changes this process for good.
"""

import contextlib
import ctypes

MAPPED_BYTES_MIN = 8 << 20
"""Pieces of this size are still the system's own; batches have none."""
KEPT_BYTES_MAX = 16 << 20
"""How much free memory each thread's arena keeps at its end."""

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3


def keep_freed_memory() -> None:
    """Let malloc keep freed memory for the next; without glibc, do nothing.

    See `mallopt` in the GNU C Library's manual.
    """
    with contextlib.suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, MAPPED_BYTES_MIN)
        mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES_MAX)
