"""`python -m tests.handing_over NAMES FD… -- COMMAND…`: what systemd does with sockets.

The descriptors become 3 and those behind it, under names with colons between; the
command takes this process's place.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.process import PYTHON, Server

FIRST_DESCRIPTOR = 3


def handing_over(names: str, descriptors: Sequence[int]) -> list[str]:
    """Give the command that hands files over to the server's own."""
    return [*PYTHON, "tests.handing_over", names, *map(str, descriptors), "--"]


def activated(
    place: Path, names: str, descriptors: Sequence[int], *words: object
) -> Server:
    """Start a server that is handed files over, and has no `--in` of its own."""
    return Server.start(
        place,
        *("--data-dir", place / "data", *words),
        before=handing_over(names, descriptors),
        pass_fds=descriptors,
        is_bare=True,
    )


def _own_descriptors(given: Sequence[int]) -> Iterator[int]:
    """Copy files out of the way of the numbers that they will have."""
    for descriptor in given:
        yield os.dup2(descriptor, 100 + descriptor)


def main(names: str, *words: str) -> None:
    """Hand over, and become the command."""
    middle = words.index("--")
    copies = list(_own_descriptors([int(word) for word in words[:middle]]))
    for number, copy in enumerate(copies, FIRST_DESCRIPTOR):
        os.dup2(copy, number)
        os.close(copy)
    told = {
        "LISTEN_PID": str(os.getpid()),
        "LISTEN_FDS": str(len(copies)),
        "LISTEN_FDNAMES": names,
    }
    os.execve(words[middle + 1], words[middle + 1 :], os.environ | told)  # noqa: S606


if __name__ == "__main__":
    main(*sys.argv[1:])
