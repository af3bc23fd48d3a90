"""The directory of `--checkpoint`: the account, and Spark's own notes of files read.

```
CHECKPOINT/
  account.json    what is counted, replaced whole with each batch
  outputs/      of an application: those of the newest batch
  spark/        Spark's checkpoint: which files each batch has
  spark.log     what Spark itself has to say, since the last start
  lock
```

One process has it at a time. The account is flushed before Spark notes that a batch is
done, so a batch that comes again is known by its number. The edge: files.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Self

import attrs

from alphabet.spark.account import Account, AccountFormatError
from log import failpoint
from log.directory import flush_directory


class CheckpointError(Exception):
    """A checkpoint that cannot be used; says why and what can be done."""


@attrs.define
class Checkpoint:
    """A checkpoint, held by this process."""

    path: Path
    account: Account

    @classmethod
    @contextlib.contextmanager
    def claim(cls, path: Path, segments: Path) -> Iterator[Self]:
        """Take a checkpoint of a directory of segments, made where it is missing.

        Raises CheckpointError for one that is in use, damaged, of another directory,
        or that cannot be written.
        """
        with contextlib.ExitStack() as stack:
            try:
                if not path.exists():
                    path.mkdir()
                    flush_directory(path.parent)
                lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
                stack.callback(os.close, lock)
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise CheckpointError(f"{path}: another process uses it") from error
            except OSError as error:
                reason = error.strerror or error
                raise CheckpointError(f"{path}: it cannot be used: {reason}") from error
            yield cls._open(path, str(segments.resolve()))

    @classmethod
    def _open(cls, path: Path, segments: str) -> Self:
        file = path / "account.json"
        if not file.exists():
            others = sorted(
                {each.name for each in path.iterdir()} - {"lock", _TEMPORARY}
            )
            if others:
                raise CheckpointError(
                    f"{path} is no checkpoint of spark-totals: it holds {others[0]!r}; "
                    "choose another directory"
                )
            new = cls(path, Account(segments))
            new.store(new.account)
            return new
        try:
            account = Account.decode(file.read_bytes())
        except (OSError, AccountFormatError) as error:
            raise CheckpointError(
                f"{file}: {error}; count all anew with another --checkpoint"
            ) from error
        if account.segments != segments:
            raise CheckpointError(
                f"{path} is the checkpoint of {account.segments}, not of {segments}; "
                "choose another directory"
            )
        return cls(path, account)

    @property
    def spark(self) -> Path:
        """Where Spark keeps its own."""
        return self.path / "spark"

    @property
    def spark_log(self) -> Path:
        """What Spark itself says."""
        return self.path / "spark.log"

    def store(self, account: Account) -> None:
        """Replace the account, durable on return; raises CheckpointError."""
        file = self.path / "account.json"
        try:
            replace(file, [account.encode()])
        except OSError as error:
            reason = error.strerror or error
            raise CheckpointError(f"{file}: it cannot be written: {reason}") from error
        failpoint.reach("spark.after_store")
        self.account = account


def replace(file: Path, pieces: Iterable[bytes | memoryview]) -> None:
    """Give a file these contents, whole or not at all; durable on return."""
    temporary = file.with_name(f".{file.name}.tmp")
    with temporary.open("wb") as stream:
        stream.writelines(pieces)
        stream.flush()
        os.fsync(stream.fileno())
    failpoint.reach("spark.before_rename")
    temporary.rename(file)
    flush_directory(file.parent)


_TEMPORARY = ".account.json.tmp"
