"""Where the outputs of an application go: the same places as global totals.

A sink is given each account once it and its outputs are durable, and at a start the
newest one again, so each batch's outputs come whole, in order, and at least once. What
all totals are, nobody but the application knows: a connection gets the outputs of the
batch under way from its first on, and then of those that follow. The edge: files and
sockets.
"""

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


@attrs.define
class OutputsTcpSink:
    """Send outputs as the application's encoder made them.

    A batch has been sent when the receiver's TCP has all of it.
    """

    receiver: Receiver
    outputs: OutputsFile
    _batch: int = -1

    def put(self, account: Account) -> None:
        """Send a batch's outputs; from the first again where a connection broke."""
        if account.batch <= self._batch:
            return
        self.receiver.send(lambda _is_new: self.outputs.read(account), is_awaited=True)
        self._batch = account.batch

    def renew(self, account: Account) -> None:
        """Nothing is sent again: what all totals are, only the application knows."""

    def close(self) -> None:
        """Half-close, and wait until the receiver has read all and closes too."""
        self.receiver.close()
