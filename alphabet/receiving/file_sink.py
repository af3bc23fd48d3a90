"""A durable file that grows by transactions, and its transaction log beside it.

```
FILE                 the outputs, and nothing else
FILE.transactions    which bytes of FILE are committed or prepared
```

Bytes are appended to FILE as they come. What lies beyond the committed bytes is
visible and not final: it is cut off again when its transaction is aborted, and when
FILE is opened after a crash, unless its transaction was prepared.

Invariants:
    - FILE is flushed before a transaction of it is prepared, and the transaction log
      before anybody is told of a step.
    - FILE is cut only after its log says that what is cut off counts for nothing.
    - Once a flush has failed the sink is of no use; opening it anew tells what is left.

One process at a time: it holds FILE with flock. This module is the edge: what the log
means is in `transaction_log`.
"""

from __future__ import annotations

import fcntl
import os
import stat
from typing import TYPE_CHECKING, Self

import attrs

from alphabet.connector.transaction_log import (
    CorruptLineError,
    Standing,
    Step,
    Transaction,
    advance,
    begin,
    read_log,
)
from log import failpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

LOG_BYTES_MAX = 1 << 16
"""A transaction log longer than this is replaced by a new one at the next decision."""
BUFFERS_MAX = 1024
"""As many buffers as Linux writes in one call."""

_FILE_MODE = 0o666
_CLOSED = -1


class SinkFileError(Exception):
    """A file cannot be used as a sink; the message says why and what to do."""


class SinkDamageError(SinkFileError):
    """A file and its transaction log do not fit together, or the log is corrupt."""


def log_path(path: Path) -> Path:
    """Tell where the transaction log of a file is."""
    return path.with_name(path.name + ".transactions")


@attrs.define(eq=False)
class FileSink:
    """A file that is held, and what is known of it.

    Attributes:
        path: The file.
        flush: Makes a file or a directory durable, as `os.fsync` does.
        standing: What its transaction log comes to.
        end_bytes: The file's length, with what is not final.
    """

    path: Path
    flush: Callable[[int], None]
    _file: int
    _log: int = attrs.field(default=_CLOSED, init=False)
    _log_bytes: int = attrs.field(init=False)
    standing: Standing = attrs.field(init=False)
    end_bytes: int = attrs.field(init=False)

    @classmethod
    def open(cls, path: Path, flush: Callable[[int], None] = os.fsync) -> Self:
        """Take a file for this process alone, making it where it is missing.

        What a crash left of it that is neither committed nor prepared is cut off.

        Raises:
            SinkFileError: It is in use, is not a sink's or cannot be opened.
            SinkDamageError: What is committed or prepared is not all there.
        """
        try:
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _FILE_MODE)
        except OSError as error:
            raise SinkFileError(f"cannot open {path} ({error.strerror})") from error
        sink = cls(path, flush, file)
        try:
            sink._hold()
            sink._open_log()
            sink._recover()
        except BaseException:
            sink.close()
            raise
        return sink

    def close(self) -> None:
        """Let another process have the file."""
        for descriptor in (self._file, self._log):
            if descriptor != _CLOSED:
                os.close(descriptor)
        self._file = self._log = _CLOSED

    @property
    def committed_bytes(self) -> int:
        """How much of the file is final."""
        return self.standing.committed_bytes

    @property
    def prepared(self) -> Transaction | None:
        """The transaction that waits for a decision."""
        return self.standing.prepared

    @property
    def last_committed(self) -> bytes | None:
        """The id of the transaction committed last."""
        return self.standing.last_committed

    def put(self, offset: int, payloads: Sequence[bytes | memoryview]) -> bool:
        """Append outputs that begin at an offset, `end_bytes` at most.

        Those that the file has already are compared with it and not written again;
        False if they differ. Raises OSError where the disk does not take them.
        """
        known_bytes = self.end_bytes - offset
        if known_bytes:
            data = memoryview(b"".join(payloads))
            known = data[:known_bytes]
            if os.pread(self._file, len(known), offset) != known:
                return False
            payloads = [data[known_bytes:]]
        for first in range(0, len(payloads), BUFFERS_MAX):
            self._append(payloads[first : first + BUFFERS_MAX])
        return True

    def take_back(self) -> None:
        """Cut off what is neither committed nor prepared."""
        if self.end_bytes != self.standing.kept_bytes:
            self.end_bytes = self.standing.kept_bytes
            os.ftruncate(self._file, self.end_bytes)

    def prepare(self, name: bytes) -> None:
        """Make all that is not committed a transaction that survives any crash."""
        failpoint.reach("sink.before_prepare")
        self.flush(self._file)
        failpoint.reach("sink.after_file_flush")
        start = self.standing.committed_bytes
        self._note(Step.PREPARED, Transaction(name, start, self.end_bytes))
        failpoint.reach("sink.after_prepare")

    def commit(self) -> None:
        """Make the prepared transaction final; raises ValueError if there is none."""
        failpoint.reach("sink.before_commit")
        self._decide(Step.COMMITTED)
        failpoint.reach("sink.after_commit")

    def abort(self) -> None:
        """Take the prepared transaction back; raises ValueError if there is none."""
        failpoint.reach("sink.before_abort")
        self._decide(Step.ABORTED)
        failpoint.reach("sink.after_abort")
        self.take_back()

    def _hold(self) -> None:
        """Lock the file, if it is one."""
        if not stat.S_ISREG(os.fstat(self._file).st_mode):
            raise SinkFileError(f"{self.path} is no regular file; choose one that is")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise SinkFileError(
                f"another receiver writes {self.path}; stop it, or choose another file"
            ) from error

    def _open_log(self) -> None:
        """Open the transaction log; begin one where there is none."""
        log = log_path(self.path)
        try:
            if not log.exists():
                if os.fstat(self._file).st_size:
                    raise SinkFileError(
                        f"{self.path} has no transaction log {log};"
                        " choose a file that is new or empty"
                    )
                self._replace_log(*begin())
            else:
                self._log = os.open(log, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
        except OSError as error:
            raise SinkFileError(f"cannot open {log} ({error.strerror})") from error

    def _recover(self) -> None:
        """Read the transaction log and cut both files to what counts."""
        log = log_path(self.path)
        try:
            self.standing, self._log_bytes = read_log(log.read_bytes())
        except CorruptLineError as error:
            raise SinkDamageError(
                f"{log} is corrupt at {error}; keep both files and choose another"
            ) from error
        self.end_bytes = os.fstat(self._file).st_size
        if self.end_bytes < self.standing.kept_bytes:
            raise SinkDamageError(
                f"{self.path} has {self.end_bytes} bytes, and {log} says that"
                f" {self.standing.kept_bytes} are durable; restore it from a copy"
            )
        os.ftruncate(self._log, self._log_bytes)
        self.take_back()
        # A process that was killed may have left what it wrote unflushed.
        for descriptor in (self._file, self._log):
            self.flush(descriptor)
        self._flush_names()

    def _append(self, payloads: Sequence[bytes | memoryview]) -> None:
        """Write at the file's end, however little the system takes at once."""
        size = os.pwritev(self._file, payloads, self.end_bytes)
        self.end_bytes += size
        if size < sum(map(len, payloads)):
            left = memoryview(b"".join(payloads))[size:]
            while left:
                size = os.pwrite(self._file, left, self.end_bytes)
                self.end_bytes += size
                left = left[size:]

    def _note(self, step: Step, transaction: Transaction) -> None:
        """Append a step to the transaction log, and flush it."""
        line, standing = advance(self.standing, step, transaction)
        _write_all(self._log, line)
        self.flush(self._log)
        self._log_bytes += len(line)
        self.standing = standing

    def _decide(self, step: Step) -> None:
        """Settle the prepared transaction; keep the log short."""
        if self.prepared is None:
            raise ValueError("no transaction is prepared")
        self._note(step, self.prepared)
        if self._log_bytes > LOG_BYTES_MAX:
            self._replace_log(*begin(self.committed_bytes, self.last_committed))

    def _replace_log(self, line: bytes, standing: Standing) -> None:
        """Put a transaction log of one line in place, whole and flushed."""
        log = log_path(self.path)
        new = log.with_name(log.name + ".new")
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC
        descriptor = os.open(new, flags, _FILE_MODE)
        _write_all(descriptor, line)
        self.flush(descriptor)
        failpoint.reach("sink.before_log_rename")
        new.rename(log)
        failpoint.reach("sink.after_log_rename")
        self._flush_names()
        if self._log != _CLOSED:
            os.close(self._log)
        self._log = descriptor
        self._log_bytes = len(line)
        self.standing = standing

    def _flush_names(self) -> None:
        """Make the names of both files durable."""
        directory = os.open(self.path.absolute().parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            self.flush(directory)
        finally:
            os.close(directory)


def _write_all(descriptor: int, data: bytes) -> None:
    """Write all of it: where there is little room, the system takes a part."""
    left = memoryview(data)
    while left:
        left = left[os.write(descriptor, left) :]
