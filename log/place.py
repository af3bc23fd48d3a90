"""Whether an open file is still where it was opened: what a writer asks at each commit.

Its directory is looked at, whose time of change moves when an entry comes, goes or is
renamed; only then the file itself. For to look at a file that is written to all the
time is dear: Linux from 6.13 on gives its next write a time of its own, which goes
through the file system's journal.

It never opens the file, and does not look at what is in it.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path

import attrs

SECOND_NS = 1_000_000_000
TICK_NS_MAX = SECOND_NS // 10
WHOLE_TICK_NS_MAX = 2 * SECOND_NS
"""How far apart a file system's times are at most; the latter: if in whole seconds."""


@attrs.define
class Place:
    """The place of `file`, which is there now; raises OSError where it is not."""

    file: Path
    stat: Callable[[str], os.stat_result] = os.stat
    wall_clock_ns: Callable[[], int] = time.time_ns
    _directory: str = attrs.field(init=False)
    _file_id: tuple[int, int] = attrs.field(init=False)
    _look: tuple[int, int, int] | None = attrs.field(default=None, init=False)
    """The directory's, while the file was there."""

    def __attrs_post_init__(self) -> None:
        """Know the file, whatever its name was before."""
        self._directory = str(self.file.parent)
        self._file_id = self._find()

    def is_kept(self) -> bool:
        """Say whether whoever opens the file by its name would find the very same."""
        try:
            found = self.stat(self._directory)
            look = (found.st_dev, found.st_ino, found.st_ctime_ns)
            if look == self._look:
                return True
            is_there = self._find() == self._file_id
        except OSError:
            return False
        is_settled = _is_settled(found.st_ctime_ns, self.wall_clock_ns())
        # A link's target may be replaced, and the link's directory would not tell.
        if is_there and is_settled and not self.file.is_symlink():
            self._look = look
        return is_there

    def _find(self) -> tuple[int, int]:
        found = self.stat(str(self.file))
        return found.st_dev, found.st_ino


def _is_settled(changed_ns: int, now_ns: int) -> bool:
    """Say whether a change from now on would have a later time than `changed_ns`."""
    tick_ns = TICK_NS_MAX if changed_ns % SECOND_NS else WHOLE_TICK_NS_MAX
    return changed_ns + tick_ns < now_ns
