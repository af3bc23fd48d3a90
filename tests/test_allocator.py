"""What malloc does with freed memory, seen from the page faults that it costs.

Each process is its own: what `mallopt` is told holds for good.
"""

import subprocess
import sys

import pytest

from tests.process import ROOT

ROUNDS = 100
COLUMNS = 8
COLUMN_BYTES = 1 << 19
PAGES = COLUMNS * COLUMN_BYTES // 4096
PROGRAM = f"""
import resource, sys
import numpy as np
from alphabet.allocator import keep_freed_memory

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

if "keep" in sys.argv:
    keep_freed_memory()
before = faults()
for _ in range({ROUNDS}):
    [np.ones({COLUMN_BYTES}, np.uint8) for _ in range({COLUMNS})]
print(faults() - before)
"""


def faults(*words: str) -> int:
    """Count the page faults of a process that makes and frees arrays."""
    command = [sys.executable, "-c", PROGRAM, *words]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="mallopt is glibc's")
def test_freed_memory_is_used_again() -> None:
    """Columns that come and go cost new pages in every round, and no more with this."""
    assert faults("keep") < 2 * PAGES
    assert faults() > ROUNDS / 2 * PAGES
