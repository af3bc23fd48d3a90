"""What Linux tells about a process: memory, bytes written, processor time of threads.

Reads /proc and nothing else.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import attrs

SAMPLE_SECONDS = 0.01
MEGABYTE = 1_000_000
NANOSECONDS = 1_000_000_000

_TICK_SECONDS = 1 / os.sysconf("SC_CLK_TCK")
_BLOCK_BYTES = 512
_ENDED = (FileNotFoundError, ProcessLookupError)
"""What is raised about a process or a thread that has just ended."""


@attrs.frozen
class Memory:
    """A process's memory now, in MB.

    Attributes:
        own_mb: What is its own (RssAnon).
        files_mb: Pages of files, such as the log's, that the kernel can take back
            (RssFile).
    """

    own_mb: float
    files_mb: float


@attrs.define
class Peak:
    """The most memory that samples of a process have shown."""

    own_mb: float = 0.0
    files_mb: float = 0.0

    def note(self, memory: Memory) -> None:
        """Take a sample in."""
        self.own_mb = max(self.own_mb, memory.own_mb)
        self.files_mb = max(self.files_mb, memory.files_mb)


@attrs.frozen
class ThreadTime:
    """A thread's processor time so far; `name` is what the kernel knows it by.

    `system_seconds`, the part spent in the kernel, is counted in hundredths.
    """

    tid: int
    name: str
    seconds: float
    system_seconds: float


def memory_of(pid: int) -> Memory:
    """Look at a process's memory; nothing is left of one that has ended."""
    kilobytes = {"RssAnon": 0, "RssFile": 0}
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name in kilobytes:
            kilobytes[name] = int(rest.split()[0])
    return Memory(*(1024 * each / MEGABYTE for each in kilobytes.values()))


@contextmanager
def sampled(pid: int) -> Iterator[Peak]:
    """Sample a process's memory meanwhile; the peak includes the last moment."""
    peak, is_over = Peak(), threading.Event()

    def sample() -> None:
        while not is_over.wait(SAMPLE_SECONDS):
            peak.note(memory_of(pid))

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield peak
        peak.note(memory_of(pid))
    finally:
        is_over.set()
        thread.join()


def written_bytes(pid: int) -> int:
    """Say how much a process and all its descendants have had written to the disk.

    Those that have ended and were waited for are in their parent's number.
    """
    total = 0
    for each in (pid, *_descendants(pid)):
        for line in Path(f"/proc/{each}/io").read_text().splitlines():
            if line.startswith("write_bytes:"):
                total += int(line.split()[1])
    return total


def _descendants(pid: int) -> Iterator[int]:
    """Give the processes below one; of what ends meanwhile, nothing is left."""
    tasks: list[Path] = []
    with suppress(*_ENDED):
        tasks += Path(f"/proc/{pid}/task").iterdir()
    for task in tasks:
        children = ""
        with suppress(*_ENDED):
            children = (task / "children").read_text()
        for child in map(int, children.split()):
            yield child
            yield from _descendants(child)


def processor_seconds(pid: int) -> float:
    """Say how much processor time a process and all its descendants have had.

    In hundredths; of those that have ended, what their parent waited for.
    """
    return sum(map(_processor_seconds, (pid, *_descendants(pid))))


def _processor_seconds(pid: int) -> float:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except _ENDED:
        return 0.0
    # Fields as proc(5) numbers them: utime is 14, cutime 16; the text goes on at 3.
    used = text[text.rindex(")") + 2 :].split()[11:15]
    return sum(map(int, used)) * _TICK_SECONDS


def thread_times(pid: int) -> list[ThreadTime]:
    """Give the processor time of each thread of a process, in the order they began."""
    tasks = sorted(Path(f"/proc/{pid}/task").iterdir(), key=lambda task: int(task.name))
    return [_thread_time(task) for task in tasks]


def _thread_time(task: Path) -> ThreadTime:
    text = (task / "stat").read_text()
    name = text[text.index("(") + 1 : text.rindex(")")]
    # Fields as proc(5) numbers them: stime is 15; the text goes on at 3.
    system_ticks = int(text[text.rindex(")") + 2 :].split()[12])
    nanoseconds = int((task / "schedstat").read_text().split()[0])
    seconds = nanoseconds / NANOSECONDS
    return ThreadTime(int(task.name), name, seconds, system_ticks * _TICK_SECONDS)


def disk_bytes(directory: Path) -> int:
    """Say how much room a directory's files take up on the disk."""
    files = (file for file in directory.rglob("*") if file.is_file())
    return sum(file.stat().st_blocks for file in files) * _BLOCK_BYTES
