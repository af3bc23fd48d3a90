"""A trace is read as what was done, and what is not understood is refused."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.system_calls import (
    OPTIONS,
    Flushed,
    Made,
    Mark,
    Removed,
    Renamed,
    Resized,
    TraceError,
    Written,
    read_trace,
)

PROGRAM = """
import os, sys
root = sys.argv[1]
os.mkdir(root + "/d")
file = os.open(root + "/d/f", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
os.write(file, b"one")
os.writev(file, [b"two", b"three"])
os.lseek(file, 1, os.SEEK_SET)
os.write(file, b"seen")
os.pwrite(file, b"placed", 600)
os.ftruncate(file, 900)
os.fdatasync(file)
sys.stdout.write("ack 1\\n")
sys.stdout.flush()
synchronous = os.open(root + "/d/f", os.O_WRONLY | os.O_DSYNC)
os.pwrite(synchronous, b"meta", 32)
os.rename(root + "/d/f", root + "/d/g")
directory = os.open(root + "/d", os.O_RDONLY)
os.fsync(directory)
os.unlink("g", dir_fd=directory)
os.rmdir(root + "/d")
try:
    os.mkdir(root + "/no/such")
except OSError:
    pass
os.close(os.open(root + "/../outside", os.O_CREAT | os.O_WRONLY))
"""
DONE = [
    Made("d", is_directory=True),
    Made("d/f", is_directory=False),
    Resized("d/f", 0),
    Written("d/f", 0, b"one"),
    Written("d/f", 3, b"twothree"),
    Written("d/f", 1, b"seen"),
    Written("d/f", 600, b"placed"),
    Resized("d/f", 900),
    Flushed("d/f"),
    Mark("ack 1\n"),
    Written("d/f", 32, b"meta"),
    Flushed("d/f", range(32, 36)),
    Renamed("d/f", "d/g"),
    Flushed("d"),
    Removed("d/g"),
    Removed("d"),
]


def text(data: str) -> str:
    """Write a string as strace does."""
    return '"' + "".join(f"\\x{byte:02x}" for byte in data.encode()) + '"'


def path(data: str) -> str:
    """Write a descriptor's path as strace does."""
    return f"<{text(data)[1:-1]}>"


class TestTrace:
    """What is read."""

    def test_a_real_trace_is_read(self, tmp_path: Path) -> None:
        """Each call of a program that strace has watched is the operation it was."""
        root = tmp_path / "root"
        root.mkdir()
        trace = tmp_path / "trace"
        subprocess.run(
            ["strace", *OPTIONS, "-o", trace, sys.executable, "-c", PROGRAM, root],
            capture_output=True,
            check=True,
            timeout=30,
        )
        assert list(read_trace(trace.read_text(), str(root))) == DONE

    def test_a_short_write_is_short(self) -> None:
        """Only the bytes that were taken count; the next write comes behind them."""
        lines = [
            f"1 openat(AT_FDCWD{path('/')}, {text('/r/f')}, O_WRONLY) = 3{path('/')}",
            f"1 write(3{path('/r/f')}, {text('abcd')}, 4) = 2",
            f"1 write(3{path('/r/f')}, {text('cd')}, 2) = 2",
        ]
        read = list(read_trace("\n".join(lines), "/r"))
        assert read == [Written("f", 0, b"ab"), Written("f", 2, b"cd")]

    @pytest.mark.parametrize(
        "line",
        [
            f"1 fallocate(3{path('/r/f')}, 0, 0, 4096) = 0",
            f"1 pwritev2(3{path('/r/f')}, [], 0, 0, RWF_DSYNC) = 0",
            f"1 link({text('/r/f')}, {text('/r/g')}) = 0",
            f"1 fsync(3{path('/r/f')} <unfinished ...>",
            f"1 rename({text('/r/f')}, {text('/s/f')}) = 0",
            f"1 openat(AT_FDCWD{path('/')}, {text('/r/f')}, O_WRONLY|O_APPEND) = 3",
        ],
    )
    def test_what_is_not_understood_is_refused(self, line: str) -> None:
        """A call below the root that the model does not have is an error."""
        with pytest.raises(TraceError):
            list(read_trace(line, "/r"))

    @pytest.mark.parametrize(
        "line",
        [
            f"1 link({text('/s/f')}, {text('/s/g')}) = 0",
            f"1 mkdir({text('/r/f')}, 0700) = -1 EEXIST (File exists)",
            f"1 fsync(3{path('/rr/f')}) = 0",
            "1 +++ exited with 0 +++",
        ],
    )
    def test_what_does_nothing_here_is_passed_over(self, line: str) -> None:
        """A call that failed, or that is about other places, does nothing."""
        assert list(read_trace(line, "/r")) == []
