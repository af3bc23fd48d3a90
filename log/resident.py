"""Gives pages of a memory map back to the kernel once they were read.

A page of a file's map that was touched counts as resident until somebody needs the
memory. After a long read that is the whole log. Giving the pages back costs nothing
but a soft fault when they are read again: they stay in the kernel's cache.
"""

import ctypes
import mmap
from collections.abc import Sequence

import numpy as np

SPAN_BYTES_MAX = 1 << 24
"""Values that lie further apart than this are given back one by one."""

_MADV_DONTNEED = getattr(mmap, "MADV_DONTNEED", None)
_PAGE_MASK = ~(mmap.PAGESIZE - 1)

_madvise = ctypes.CDLL(None).madvise
_madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)


def give_back(views: Sequence[memoryview]) -> None:
    """Let go of the pages under views of a read-only map of a file.

    The views must lie in one shared map, since private pages would lose what they
    hold; they may be read again at any time.
    """
    if _MADV_DONTNEED is None or not views:
        return
    arrays = [np.frombuffer(view, np.uint8) for view in views]
    spans = [(each.ctypes.data, each.ctypes.data + each.nbytes) for each in arrays]
    start, end = min(spans)[0], max(end for _, end in spans)
    if end - start <= SPAN_BYTES_MAX:
        spans = [(start, end)]
    for start, end in spans:
        aligned = start & _PAGE_MASK
        _madvise(aligned, end - aligned, _MADV_DONTNEED)
