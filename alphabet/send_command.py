"""`alphabet send`: the tutorial's sender, which also says if the votes are safe."""

from __future__ import annotations

import contextlib
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import click

from alphabet.command_line import (
    AddressType,
    CannotServeError,
    DamageError,
    option,
)
from alphabet.sender import (
    NoReceiptError,
    Sender,
    ServerTarget,
    StreamTarget,
    read_pieces,
)
from alphabet.vote_input import (
    VOTE_BYTES,
    LineReader,
    VoteInputError,
    WireReader,
    cut_votes,
    first_votes,
    random_votes,
    read_votes,
    skip_votes,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from alphabet.address import Address
    from alphabet.sender import Target
    from alphabet.vote_input import Chunk

STANDARD = "-"
"""Standard input as a file, standard output as a target."""


@attrs.frozen
class VoteChoice:
    """Which votes to send.

    Attributes:
        file: A path, `STANDARD` for standard input, None for random votes.
        lines: Whether the file holds lines; else it holds frames.
        seed: Which random votes.
        repeat: How often the whole file is read.
        skip: How many votes at the beginning are left out.
        messages: How many votes there are, those left out included; None for all.
    """

    file: str | None
    lines: bool
    seed: int
    repeat: int
    skip: int
    messages: int | None

    @property
    def name(self) -> str:
        """What to call them in a message."""
        return "standard input" if self.file == STANDARD else self.file or "random"

    def chunks(self, target: Target) -> Iterator[Chunk]:
        """Read or make the votes, with an eye on the target while none are to be had.

        Raises:
            VoteInputError: Something else came; the votes before it were given out.
        """
        chunks = random_votes(self.seed) if self.file is None else self._read(target)
        if self.messages is not None:
            chunks = first_votes(chunks, self.messages)
        return skip_votes(chunks, self.skip)

    def _read(self, target: Target) -> Iterator[Chunk]:
        """Read the file, as often as is asked for."""
        for _ in range(self.repeat):
            reader = LineReader() if self.lines else WireReader()
            yield from read_votes(read_pieces(str(self.file), target), reader)

    def votes_expected(self) -> int | None:
        """Say how many votes these are, if that is known beforehand."""
        counts = [] if self.messages is None else [self.messages]
        if self.file not in {None, STANDARD} and not self.lines:
            file_bytes = Path(str(self.file)).stat().st_size
            counts.append(file_bytes // VOTE_BYTES * self.repeat)
        return max(0, min(counts) - self.skip) if counts else None


@click.command()
@click.argument(
    "file",
    required=False,
    type=click.Path(exists=True, dir_okay=False, readable=True, allow_dash=True),
)
@option(
    "--to",
    type=AddressType(or_dash=True),
    default="127.0.0.1:7010",
    show_default=True,
    help="The server's source; - writes the frames to standard output.",
)
@option(
    "--format",
    "format_",
    type=click.Choice(["wire", "lines"]),
    default="wire",
    show_default=True,
    help="What FILE holds: frames, or lines LETTER VOTES.",
)
@option("--random", "at_random", is_flag=True, help="Make votes instead of reading.")
@option(
    "--seed",
    type=int,
    default=0,
    show_default=True,
    help="Which random votes: a seed always makes the same ones.",
)
@option(
    "--messages",
    metavar="N",
    type=click.IntRange(min=0),
    help="Stop after the first N votes, those that --skip leaves out included.",
)
@option(
    "--skip",
    metavar="N",
    type=click.IntRange(min=0),
    default=0,
    help="Leave out the first N votes, to go on where an earlier run ended.",
)
@option(
    "--repeat",
    metavar="N",
    type=click.IntRange(min=1),
    default=1,
    help="Send the whole FILE N times.",
)
@option(
    "--rate",
    metavar="VOTES_PER_SECOND",
    type=click.FloatRange(min=0, min_open=True),
    help="Keep this pace.  [default: as fast as the server takes them]",
)
@option(
    "--silence-seconds",
    metavar="SECONDS",
    type=click.FloatRange(min=0, min_open=True),
    default=60,
    show_default=True,
    help="Give up on a server that takes nothing or owes its receipt for so long.",
)
def send(  # noqa: PLR0913 - an argument for each option
    *,
    file: str | None,
    to: Address | str,
    format_: str,
    at_random: bool,
    seed: int,
    messages: int | None,
    skip: int,
    repeat: int,
    rate: float | None,
    silence_seconds: float,
) -> None:
    """Send votes to a server and wait until they are durable.

    FILE holds the votes, - is standard input. Exit code 0 says that all of them are
    durable, 3 that this is not known, 1 that FILE is bad at a place that is named.
    """
    if at_random == (file is not None):
        raise click.UsageError("give a FILE, - for standard input, or --random")
    if at_random and messages is None:
        raise click.UsageError("--random makes votes without end: give --messages too")
    if repeat > 1 and file in {None, STANDARD}:
        raise click.UsageError("--repeat needs a FILE that can be read again")
    choice = VoteChoice(file, format_ == "lines", seed, repeat, skip, messages)
    with _open_target(to, silence_seconds) as target:
        name = "standard output" if to == STANDARD else str(to)
        _send(choice, Sender(target, rate), name)


@contextlib.contextmanager
def _open_target(to: Address | str, silence_seconds: float) -> Iterator[Target]:
    """Connect to a server, or take standard output."""
    if isinstance(to, str):
        with open(sys.stdout.fileno(), "wb", buffering=0, closefd=False) as stream:
            yield StreamTarget(stream)
        return
    try:
        connection = socket.create_connection((to.host, to.port), silence_seconds)
    except OSError as error:
        raise CannotServeError(
            f"cannot reach {to} ({error.strerror or error}), nothing was sent;"
            " is `alphabet run` listening there?"
        ) from error
    with connection:
        yield ServerTarget(connection, silence_seconds)


def _send(choice: VoteChoice, sender: Sender, target_name: str) -> None:
    """Send the votes and say how that ended.

    Raises:
        DamageError: There was something else among them.
        CannotServeError: What became of them is not known.
    """
    fault = loss = None
    receipt = False
    try:
        fault = _pump(choice, sender)
        receipt = sender.target.finish()
    except NoReceiptError as error:
        loss = f"{target_name} {error}"
    except KeyboardInterrupt:
        loss = "this command was stopped"
    sent = sender.votes_sent
    fault_text = f"{choice.name}: {fault}; " if fault else ""
    if loss:
        raise CannotServeError(
            f"{fault_text}{loss} after {sent} votes were sent, and how many are durable"
            " is not known: `alphabet-replay info DATA_DIR` tells what the log holds,"
            " and --skip leaves that out"
        )
    if fault and sent:
        raise DamageError(
            f"{fault_text}what was sent before that is"
            f" {'durable' if receipt else 'written'}: mend it, then go on with"
            f" --skip {choice.skip + sent}"
        )
    if fault:
        raise DamageError(f"{fault_text}nothing was sent")
    if receipt:
        click.echo(f"sent {sent} votes, all durable")


def _pump(choice: VoteChoice, sender: Sender) -> VoteInputError | None:
    """Send the votes, up to a fault among them; return that."""
    chunks = cut_votes(choice.chunks(sender.target), sender.chunk_votes_max)
    try:
        with _progress(choice.votes_expected()) as show:
            for chunk in chunks:
                sender.send(chunk)
                show(sender.votes_sent)
    except VoteInputError as error:
        return error
    return None


@contextlib.contextmanager
def _progress(votes: int | None) -> Iterator[Callable[[int], None]]:
    """Show on a terminal how many votes were sent; it is told by the returned call."""
    if not sys.stderr.isatty():
        yield lambda _votes: None
        return
    from rich import progress
    from rich.console import Console

    with progress.Progress(
        progress.TextColumn("{task.completed:,.0f} votes sent"),
        progress.BarColumn(),
        progress.TaskProgressColumn(show_speed=True),
        progress.TimeRemainingColumn(),
        console=Console(file=sys.stderr),
    ) as bar:
        task = bar.add_task("send", total=votes)
        yield lambda sent: bar.update(task, completed=sent)
