"""A directory as a power cut would leave it, in the worst case.

Of a file only what was flushed is left; of names, only those that the directory had
when it was flushed last. Real files; `os.fsync` is watched and does nothing.
"""

import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs
import pytest


@attrs.define
class PowerCut:
    """What of a directory, which has no others in it, would survive right now."""

    path: Path
    _contents: dict[int, bytes] = attrs.Factory(dict)
    _names: dict[str, bytes] = attrs.Factory(dict)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch what is flushed."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "fsync", self._flush)
            yield

    def strike(self) -> None:
        """Leave what would survive."""
        shutil.rmtree(self.path)
        self.path.mkdir()
        for name, content in self._names.items():
            (self.path / name).write_bytes(content)
            self._contents[(self.path / name).stat().st_ino] = content

    def _flush(self, descriptor: int) -> None:
        found = os.fstat(descriptor)
        file = Path(f"/proc/self/fd/{descriptor}").readlink()
        if stat.S_ISREG(found.st_mode):
            self._contents[found.st_ino] = file.read_bytes()
        elif file == self.path:
            self._names = {
                each.name: self._contents.get(each.stat().st_ino, b"")
                for each in self.path.iterdir()
            }
