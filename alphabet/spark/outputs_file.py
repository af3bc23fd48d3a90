"""The outputs of the newest batch, in the checkpoint until the next one is counted.

`outputs/BATCH` is whole and flushed before the account names it by its size and
checksum; so after a crash the very same bytes go to the sinks again. The edge: files.
"""

import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import attrs

from alphabet.spark.account import Account
from alphabet.spark.checkpoint import CheckpointError, replace
from log.directory import flush_directory

READ_BYTES = 13 * 8192
"""How much is read at once: whole frames, where they are the tutorial's."""


@attrs.frozen
class OutputsFile:
    """The directory `outputs` of a checkpoint."""

    path: Path

    @classmethod
    def of(cls, checkpoint: Path) -> "OutputsFile":
        """Name it; nothing is made."""
        return cls(checkpoint / "outputs")

    def write(
        self, batch: int, pieces: Iterable[bytes | memoryview]
    ) -> tuple[int, int]:
        """Write a batch's outputs, durable on return; give their size and CRC-32.

        Raises CheckpointError, and whatever the pieces raise.
        """
        size, checksum = 0, 0

        def counted() -> Iterator[bytes | memoryview]:
            nonlocal size, checksum
            for piece in pieces:
                size += len(piece)
                checksum = zlib.crc32(piece, checksum)
                yield piece

        try:
            if not self.path.exists():
                self.path.mkdir()
                flush_directory(self.path.parent)
            replace(self._file(batch), counted())
        except OSError as error:
            reason = error.strerror or error
            raise CheckpointError(f"{self._file(batch)}: {reason}") from error
        return size, checksum

    def keep(self, account: Account) -> None:
        """Remove the outputs of all batches but an account's."""
        newest = self._file(account.batch)
        for file in self.path.iterdir() if self.path.exists() else ():
            if file != newest:
                file.unlink()

    def check(self, account: Account) -> None:
        """Raise CheckpointError unless an account's outputs are what they were."""
        size, checksum = 0, 0
        for piece in self.read(account):
            size += len(piece)
            checksum = zlib.crc32(piece, checksum)
        folded = account.folded
        if folded is not None and (size, checksum) != (
            folded.outputs_bytes,
            folded.outputs_checksum,
        ):
            raise CheckpointError(
                f"{self._file(account.batch)}: it is not what was written; count all "
                "anew with another --checkpoint"
            )

    def read(self, account: Account) -> Iterator[bytes]:
        """Give the outputs of an account's batch, READ_BYTES at a time.

        Raises CheckpointError.
        """
        if account.folded is None:
            return
        file = self._file(account.batch)
        try:
            stream = file.open("rb")
        except OSError as error:
            raise CheckpointError(
                f"{file}: {error.strerror or error}; count all anew with another "
                "--checkpoint"
            ) from error
        with stream:
            while piece := stream.read(READ_BYTES):
                yield piece

    def _file(self, batch: int) -> Path:
        return self.path / f"{batch:020}"
