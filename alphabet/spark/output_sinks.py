"""Where the outputs of an application go: the same places as global totals.

A sink is given each account once it and its outputs are durable, and at a start the
newest one again, so each batch's outputs come whole, in order, and at least once. What
all totals are, nobody but the application knows; the newest output of each letter is
what comes nearest, and a new connection begins with these. The edge: files and sockets.
"""

from collections.abc import Iterator
from pathlib import Path

import attrs
import click

from alphabet.printing import OutputFormatError, format_outputs
from alphabet.spark.account import Account
from alphabet.spark.checkpoint import replace
from alphabet.spark.outputs_file import OutputsFile
from alphabet.spark.sinks import (
    ConsoleSink,
    FilesSink,
    Receiver,
    Sink,
    SinkError,
    TcpSink,
)


def of_outputs(sink: Sink, outputs: OutputsFile) -> Sink:
    """Make the sink of outputs that goes where a sink of totals would."""
    if isinstance(sink, TcpSink):
        return OutputsTcpSink(Receiver(sink.address), outputs)
    if isinstance(sink, FilesSink):
        return OutputsFilesSink(sink, outputs)
    if isinstance(sink, ConsoleSink):
        return OutputsConsoleSink(outputs)
    return sink


@attrs.define
class OutputsConsoleSink:
    """Print outputs as `alphabet run --out -` does."""

    outputs: OutputsFile
    _batch: int = -1

    def put(self, account: Account) -> None:
        """Print a batch's outputs, once."""
        if account.batch <= self._batch:
            return
        for piece in self.outputs.read(account):
            click.echo(_format(piece), nl=False)
        self._batch = account.batch

    def renew(self, account: Account) -> None:
        """Nobody comes anew."""

    def close(self) -> None:
        """Nothing is open."""


def _format(data: bytes) -> str:
    """Write totals as lines; what is none, as the bytes it is."""
    try:
        return format_outputs(data)
    except OutputFormatError:
        return f"{data!r}\n"


@attrs.define
class OutputsFilesSink:
    """Write a batch's outputs to `DIR/BATCH.outputs`, beside what was counted."""

    files: FilesSink
    outputs: OutputsFile

    def put(self, account: Account) -> None:
        """Write a batch's files; those that are there already are equal."""
        self.files.put(account)
        if account.batch < 0:
            return
        file = self._file(account.batch)
        try:
            replace(file, self.outputs.read(account))
        except OSError as error:
            raise SinkError(f"{file}: {error.strerror or error}") from error

    def renew(self, account: Account) -> None:
        """Nobody comes anew."""

    def close(self) -> None:
        """Nothing is open."""

    def _file(self, batch: int) -> Path:
        return self.files.path / f"{batch:020}.outputs"


def _newest(account: Account) -> list[bytes]:
    """Give the newest outputs, in the order in which they were computed."""
    folded = account.folded
    return [] if folded is None else [data for _, data in folded.newest]


@attrs.define
class OutputsTcpSink:
    """Send outputs as the application's encoder made them.

    A batch has been sent when the receiver's TCP has all of it. What a connection is
    sent comes in the order in which it was computed: the newest output of each letter,
    then all of the batches that follow.
    """

    receiver: Receiver
    outputs: OutputsFile
    _batch: int = -1

    def put(self, account: Account) -> None:
        """Send a batch's outputs; from the first again where a connection broke."""
        if account.batch <= self._batch:
            return
        self.receiver.send(
            lambda is_new: self._batch_outputs(account, is_new), is_awaited=True
        )
        self._batch = account.batch

    def renew(self, account: Account) -> None:
        """Dial a receiver that went away again, and send it the newest outputs."""
        if self.receiver.is_lost:
            self.receiver.send(lambda _is_new: _newest(account), is_awaited=True)

    def _batch_outputs(self, account: Account, is_new: bool) -> Iterator[bytes]:  # noqa: FBT001 - as `Receiver` tells it
        if is_new and account.folded is not None:
            yield from _newest(account)[: account.folded.earlier_count]
        yield from self.outputs.read(account)

    def close(self) -> None:
        """Half-close, and wait until the receiver has read all and closes too."""
        self.receiver.close()
