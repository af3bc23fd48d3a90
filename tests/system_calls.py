r"""What a process did to a disk, read from the trace that strace wrote of it; pure.

The trace is that of one process, with one thread that writes (`OPTIONS`): each line is
a call that has ended, `name(arguments) = result`, and every string in it is hex. What
goes to standard output is a mark between the operations. A call on files below the root
that is not understood is an error, never passed over.
"""

import posixpath
import re
from collections.abc import Callable, Iterable, Iterator, Mapping

import attrs

CALLS = (
    "openat,close,lseek,write,writev,pwrite64,pwritev,pwritev2,ftruncate,truncate,"
    "fsync,fdatasync,rename,renameat,renameat2,unlink,unlinkat,rmdir,mkdir,mkdirat,"
    "open,creat,link,linkat,symlink,symlinkat,fallocate,copy_file_range,sendfile"
)
OPTIONS = (
    "--seccomp-bpf",
    "-f",
    "-y",
    "-xx",
    "-s",
    "100000000",
    "-e",
    f"trace={CALLS}",
)

_STDOUT = 1
_CALL = re.compile(r"(?:\d+ +)?(\w+)\((.*)\) += (-?\d+)(.*)", re.DOTALL)
_UNFINISHED = " <unfinished ...>"
_RESUMED = re.compile(r"\d+ +<\.\.\. \w+ resumed>(.*)", re.DOTALL)
_ENDING = re.compile(r"(?:\d+ +)?(?:\+\+\+|---) ")
_TEXT = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
_DESCRIPTOR = re.compile(r"(?:\d+|AT_FDCWD)<((?:\\x[0-9a-f]{2})*)>")
_AT = re.compile(r"at2?$")
_BY_DESCRIPTOR = {
    *("close", "lseek", "write", "writev", "pwrite64", "pwritev", "pwritev2"),
    *("ftruncate", "fsync", "fdatasync", "fallocate", "copy_file_range", "sendfile"),
}
_SYNCHRONOUS = {"O_SYNC", "O_DSYNC"}


class TraceError(ValueError):
    """A trace that is not understood."""


@attrs.frozen
class Made:
    """A name came to be, if it was not there, for an empty file or directory."""

    path: str
    is_directory: bool


@attrs.frozen
class Written:
    """Bytes were written at an offset."""

    path: str
    offset: int
    data: bytes


@attrs.frozen
class Resized:
    """A file was cut, or grew by zeros."""

    path: str
    file_bytes: int


@attrs.frozen
class Flushed:
    """A flush returned: of a directory's names, of a file, or of a stretch of it."""

    path: str
    stretch: range | None = None


@attrs.frozen
class Renamed:
    """A name was changed."""

    old: str
    new: str


@attrs.frozen
class Removed:
    """A name was removed."""

    path: str


@attrs.frozen
class Mark:
    """The process said something to the world."""

    text: str


Operation = Made | Written | Resized | Flushed | Renamed | Removed | Mark
Done = Iterator[Operation]


@attrs.define
class _Open:
    """An open file: where the next write goes, and whether writes are flushed."""

    is_synchronous: bool
    offset: int = 0


@attrs.define
class _Reader:
    """Turns calls into operations below a root, knowing the descriptors open."""

    root: str
    _open: dict[int, _Open] = attrs.Factory(dict)

    def read(self, line: str) -> Done:
        """Give what a line tells; paths are relative to the root."""
        if _ENDING.match(line) or not line.strip():
            return
        call = _CALL.fullmatch(line)
        if call is None:
            raise TraceError(f"this is no call that has ended: {line[:200]!r}")
        name, words, result = call[1], call[2], int(call[3])
        if result < 0:
            return
        places = map(self._inside, _paths(name, words))
        paths = [path for path in places if path is not None]
        read = _READERS.get(name)
        if read is not None and (paths or name == "write"):
            yield from read(self, paths, words, result)
        elif paths:
            raise TraceError(f"{name} is not understood: {line[:200]!r}")

    def _inside(self, path: str) -> str | None:
        """Give a path below the root, relative to it."""
        inside = posixpath.relpath(path, self.root)
        return None if inside == ".." or inside.startswith("../") else inside

    def opened(self, paths: list[str], words: str, result: int) -> Done:
        """Take a new descriptor."""
        flags = set(words.rsplit('", ', 1)[1].split(", ", maxsplit=1)[0].split("|"))
        if "O_APPEND" in flags:
            raise TraceError(f"{paths[0]} is opened to append to")
        self._open[result] = _Open(bool(flags & _SYNCHRONOUS))
        if "O_CREAT" in flags:
            yield Made(paths[0], is_directory=False)
        if "O_TRUNC" in flags:
            yield Resized(paths[0], 0)

    def closed(self, _paths: list[str], words: str, _result: int) -> Done:
        """Forget a descriptor."""
        self._open.pop(_number(words), None)
        yield from ()

    def sought(self, _paths: list[str], words: str, result: int) -> Done:
        """Move where the next write goes."""
        self._open[_number(words)].offset = result
        yield from ()

    def written(self, paths: list[str], words: str, result: int) -> Done:
        """Write where the last write ended, or say something."""
        number = _number(words)
        data = b"".join(_texts(words))[:result]
        if paths:
            yield from self._write(paths[0], number, self._open[number].offset, data)
            self._open[number].offset += result
        elif number == _STDOUT:
            yield Mark(data.decode())

    def placed(self, paths: list[str], words: str, result: int) -> Done:
        """Write at an offset, which is the last argument."""
        data = b"".join(_texts(words))[:result]
        offset = int(words.rsplit(", ", 1)[1])
        yield from self._write(paths[0], _number(words), offset, data)

    def _write(self, path: str, number: int, offset: int, data: bytes) -> Done:
        yield Written(path, offset, data)
        if self._open[number].is_synchronous:
            yield Flushed(path, range(offset, offset + len(data)))

    def resized(self, paths: list[str], words: str, _result: int) -> Done:
        """Cut a file, or let it grow."""
        yield Resized(paths[0], int(words.rsplit(", ", 1)[1]))

    def flushed(self, paths: list[str], _words: str, _result: int) -> Done:
        """Flush a file or directory."""
        yield Flushed(paths[0])

    def renamed(self, paths: list[str], _words: str, _result: int) -> Done:
        """Rename within the root."""
        if len(paths) != 2:
            raise TraceError(f"a name crosses the root: {paths[0]}")
        yield Renamed(*paths)

    def removed(self, paths: list[str], _words: str, _result: int) -> Done:
        """Remove a file's or a directory's name."""
        yield Removed(paths[0])

    def made(self, paths: list[str], _words: str, _result: int) -> Done:
        """Make a directory."""
        yield Made(paths[0], is_directory=True)


_READERS: Mapping[
    str, Callable[[_Reader, list[str], str, int], Iterator[Operation]]
] = {
    "openat": _Reader.opened,
    "close": _Reader.closed,
    "lseek": _Reader.sought,
    "write": _Reader.written,
    "writev": _Reader.written,
    "pwrite64": _Reader.placed,
    "ftruncate": _Reader.resized,
    "fsync": _Reader.flushed,
    "fdatasync": _Reader.flushed,
    "rename": _Reader.renamed,
    "unlink": _Reader.removed,
    "unlinkat": _Reader.removed,
    "rmdir": _Reader.removed,
    "mkdir": _Reader.made,
    "mkdirat": _Reader.made,
}


def read_trace(trace: str, root: str) -> Done:
    """Give what was done below a directory, in order; raises TraceError."""
    reader = _Reader(root)
    for line in _joined(trace.splitlines()):
        yield from reader.read(line)


def _joined(lines: Iterable[str]) -> Iterator[str]:
    """Join each call that another thread's came between, where it has ended."""
    begun: dict[str, str] = {}
    for line in lines:
        thread = line.partition(" ")[0]
        resumed = _RESUMED.fullmatch(line)
        if line.endswith(_UNFINISHED):
            begun[thread] = line.removesuffix(_UNFINISHED)
        elif resumed is not None and thread in begun:
            yield begun.pop(thread) + resumed[1]
        else:
            yield line
    yield from (line + _UNFINISHED for line in begun.values())


def _number(words: str) -> int:
    """Give the descriptor that is a call's first argument."""
    return int(words.partition("<")[0])


def _texts(words: str) -> list[bytes]:
    """Give all strings among the arguments."""
    return [_bytes(each) for each in _TEXT.findall(words)]


def _paths(name: str, words: str) -> list[str]:
    """Give the absolute paths that a call is about, as the process had them."""
    files = [_bytes(path).decode() for path in _DESCRIPTOR.findall(words)]
    if name in _BY_DESCRIPTOR:
        return files
    names = [text.decode(errors="replace") for text in _texts(words)]
    if _AT.search(name):
        return [posixpath.join(*each) for each in zip(files, names, strict=False)]
    return names


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))
