"""A disk that loses power: what may be on it then, from what was done to it; pure.

The model, and what it takes for granted:

- What is written stays in the page cache until a flush of that file, or of that stretch
  of it, has returned. When the power fails, each 512-byte sector of each write since
  then is on the disk or is not, whatever became of the others. A sector is never torn.
- A file is as long as the sectors that reached the disk say, or as long as it was meant
  to be, and then has zeros where a sector is missing.
- Names made, changed and removed stay in memory until a flush of their directory has
  returned. When the power fails, some of the changes since then are on the disk: the
  first few of them, which is what a journal that keeps their order gives (ext4, XFS);
  or, harsher than any journal, any of them. One renaming is whole or not at all.
- A flush of a file makes no name durable, and one of a directory no file's bytes.
- What a flush has covered stays, and the disk does not lie about flushes.
- What is written through a writable map is not seen. LMDB maps `lock.mdb` alone like
  that, so its bytes may be anything.
"""

import random
from collections.abc import Iterator, Sequence
from typing import Literal

import attrs

from tests.system_calls import (
    Flushed,
    Made,
    Mark,
    Operation,
    Removed,
    Renamed,
    Resized,
    Written,
)

SECTOR_BYTES = 512
MAPPED = "lock.mdb"

Share = Literal[
    "none", "all", "all but one", "the last", "few", "half", "most", "first"
]
SHARES: tuple[Share, ...] = (
    *("none", "all", "all but one", "the last"),
    *("few", "half", "most", "first"),
)
_CHANCES = {"few": 0.1, "half": 0.5, "most": 0.9}


def choose(share: Share, count: int, chance: random.Random) -> list[bool]:
    """Say of each of `count` changes, oldest first, whether it reached the disk."""
    if share in _CHANCES:
        return [chance.random() < _CHANCES[share] for _ in range(count)]
    if share == "first":
        reached = chance.randint(0, count)
        return [index < reached for index in range(count)]
    if share == "the last":
        return [index == count - 1 for index in range(count)]
    missing = chance.randrange(count) if share == "all but one" and count else None
    return [share != "none" and index != missing for index in range(count)]


@attrs.frozen
class Loss:
    """What a power failure leaves of the changes that no flush had covered.

    With `is_grown`, files are as long as they were meant to be.
    """

    sectors: Share
    names: Share
    is_grown: bool


@attrs.frozen
class _Piece:
    """A change of a file that reaches the disk whole or not: a sector, or a size."""

    offset: int
    data: bytes | None

    def apply(self, content: bytearray) -> None:
        """Change what is on the disk."""
        if self.data is None:
            _resize(content, self.offset)
        else:
            end = self.offset + len(self.data)
            _resize(content, max(end, len(content)))
            content[self.offset : end] = self.data

    def is_within(self, stretch: range) -> bool:
        """Say whether a flush of a stretch of the file covers this sector."""
        if self.data is None:
            return False
        first = stretch.start // SECTOR_BYTES
        return (
            first <= self.offset // SECTOR_BYTES <= (stretch.stop - 1) // SECTOR_BYTES
        )


@attrs.define(eq=False)
class _File:
    """A file: its flushed bytes, and the changes since, oldest first."""

    content: bytearray = attrs.Factory(bytearray)
    pending: list[_Piece] = attrs.Factory(list)

    def write(self, offset: int, data: bytes) -> None:
        """Change bytes, sector by sector."""
        while data:
            room = SECTOR_BYTES - offset % SECTOR_BYTES
            self.pending.append(_Piece(offset, data[:room]))
            offset, data = offset + room, data[room:]

    def flush(self, stretch: range | None) -> None:
        """Make changes durable, those within a stretch or all."""
        left = []
        for piece in self.pending:
            if stretch is None or piece.is_within(stretch):
                piece.apply(self.content)
            else:
                left.append(piece)
        if any(piece.data is None for piece in left):
            raise ValueError("the flush of a stretch, behind a cut, is not understood")
        self.pending = left

    def survivor(self, reached: Sequence[bool], *, is_grown: bool) -> bytes:
        """Give what is on the disk, where these of the changes reached it."""
        content = bytearray(self.content)
        meant = len(content)
        for piece, is_there in zip(self.pending, reached, strict=True):
            if is_there:
                piece.apply(content)
            meant = (
                piece.offset
                if piece.data is None
                else max(meant, piece.offset + len(piece.data))
            )
        if is_grown:
            _resize(content, max(meant, len(content)))
        return bytes(content)


@attrs.define(eq=False)
class _Directory:
    """A directory: its names now, and those that are durable."""

    names: dict[str, "_Node"] = attrs.Factory(dict)
    durable: dict[str, "_Node"] = attrs.Factory(dict)


_Node = _File | _Directory


@attrs.frozen
class _Naming:
    """Names that change together: in which directory, which name, to what."""

    changes: tuple[tuple[_Directory, str, _Node | None], ...]

    def apply(self, names: dict[_Directory, dict[str, _Node]]) -> None:
        """Change the names of directories."""
        for directory, name, node in self.changes:
            if node is None:
                names[directory].pop(name, None)
            else:
                names[directory][name] = node

    def touches(self, directory: _Directory) -> bool:
        """Say whether it changes names in a directory."""
        return any(each is directory for each, _, _ in self.changes)


@attrs.define(eq=False)
class LossyDisk:
    """A directory that was empty and durable, and what was done in it since."""

    _root: _Directory = attrs.Factory(_Directory)
    _directories: list[_Directory] = attrs.field(init=False)
    _pending: list[_Naming] = attrs.field(factory=list, init=False)

    def __attrs_post_init__(self) -> None:
        """Begin with the root."""
        self._directories = [self._root]

    def take(self, operation: Operation) -> None:
        """Do what was done."""
        match operation:
            case Made(path, is_directory):
                self._make(path, is_directory=is_directory)
            case Written(path, offset, data):
                self._file(path).write(offset, data)
            case Resized(path, file_bytes):
                self._file(path).pending.append(_Piece(file_bytes, None))
            case Flushed(path, stretch):
                self._flush(path, stretch)
            case Renamed(old, new):
                source, old_name = self._place(old)
                target, new_name = self._place(new)
                node = source.names[old_name]
                self._name((source, old_name, None), (target, new_name, node))
            case Removed(path):
                self._name((*self._place(path), None))
            case Mark():
                pass

    def survivors(self, loss: Loss, chance: random.Random) -> dict[str, bytes | None]:
        """Give what is found after a power failure now: files' bytes, None for others.

        Keys are paths, parents first.
        """
        names = {each: dict(each.durable) for each in self._directories}
        kept = choose(loss.names, len(self._pending), chance)
        for naming, is_kept in zip(self._pending, kept, strict=True):
            if is_kept:
                naming.apply(names)
        found = list(_walk_names(names, self._root, ""))
        counts = [len(node.pending) for _, node in found if isinstance(node, _File)]
        reached = iter(choose(loss.sectors, sum(counts), chance))
        survivors: dict[str, bytes | None] = {}
        for path, node in found:
            survivors[path] = None
            if isinstance(node, _File):
                flags = [next(reached) for _ in node.pending]
                content = node.survivor(flags, is_grown=loss.is_grown)
                is_mapped = path.rpartition("/")[2] == MAPPED
                survivors[path] = (
                    chance.randbytes(len(content)) if is_mapped else content
                )
        return survivors

    def _make(self, path: str, *, is_directory: bool) -> None:
        directory, name = self._place(path)
        if name in directory.names:
            return
        node: _Node = _Directory() if is_directory else _File()
        if isinstance(node, _Directory):
            self._directories.append(node)
        self._name((directory, name, node))

    def _name(self, *changes: tuple[_Directory, str, _Node | None]) -> None:
        naming = _Naming(changes)
        naming.apply({each: each.names for each, _, _ in changes})
        self._pending.append(naming)

    def _flush(self, path: str, stretch: range | None) -> None:
        node = self._node(path)
        if isinstance(node, _File):
            node.flush(stretch)
            return
        for naming in self._pending:
            if naming.touches(node):
                naming.apply({each: each.durable for each in self._directories})
        self._pending = [each for each in self._pending if not each.touches(node)]

    def _file(self, path: str) -> _File:
        node = self._node(path)
        if not isinstance(node, _File):
            raise TypeError(f"{path} is no file")
        return node

    def _node(self, path: str) -> _Node:
        if path == ".":
            return self._root
        directory, name = self._place(path)
        return directory.names[name]

    def _place(self, path: str) -> tuple[_Directory, str]:
        """Give the directory that a path's last name is in, and the name."""
        *parents, name = path.split("/")
        directory = self._root
        for parent in parents:
            node = directory.names[parent]
            if not isinstance(node, _Directory):
                raise TypeError(f"{path} is below no directory")
            directory = node
        return directory, name


def _resize(content: bytearray, file_bytes: int) -> None:
    del content[file_bytes:]
    content.extend(bytes(file_bytes - len(content)))


def _walk_names(
    names: dict[_Directory, dict[str, _Node]], directory: _Directory, prefix: str
) -> Iterator[tuple[str, _Node]]:
    """Give all that can be reached, parents first, each with its path."""
    for name, node in sorted(names[directory].items()):
        yield prefix + name, node
        if isinstance(node, _Directory):
            yield from _walk_names(names, node, f"{prefix}{name}/")
