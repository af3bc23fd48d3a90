"""On what something was measured, on Linux: without it a figure says nothing."""

import os
import platform
from pathlib import Path

from alphabet.version import describe_version

GIBIBYTE = 1 << 30


def describe_machine(directory: Path) -> list[str]:
    """Give lines about this machine; `directory` is where the data is written."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIBIBYTE
    load, *_ = os.getloadavg()
    return [
        f"{describe_version('alphabet')}, Python {platform.python_version()}",
        f"{_processor()}, {os.cpu_count()} cores, {memory:.0f} GiB",
        f"{platform.platform()}, data on {_file_system(directory)}",
        f"load average at the start: {load:.2f}",
    ]


def _processor() -> str:
    """Name the processor, as far as the system tells."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.exists() else []
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _file_system(directory: Path) -> str:
    """Name the kind of file system that a directory is on."""
    file = Path("/proc/mounts")
    mounts = [line.split() for line in file.read_text().splitlines()]
    above = {str(path) for path in (directory, *directory.parents)}
    found = [fields for fields in mounts if fields[1] in above]
    return max(found, key=lambda fields: len(fields[1]))[2]
