"""`alphabet send`: the tutorial's sender, which also says if the votes are safe."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from alphabet.address import Address
from alphabet.command_line import (
    AddressType,
    CannotServeError,
    DamageError,
    load_certificates,
    option,
    read_cookie,
    tls_options,
)
from alphabet.dialing import connect
from alphabet.sender import NoReceiptError, Sender, ServerTarget, StreamTarget
from alphabet.vote_choice import STANDARD, VoteChoice
from alphabet.vote_input import VoteInputError, cut_votes

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator

    from alphabet.sender import Target

STREAM_ID_MAX = 2**64 - 1
NAME_BYTES_MAX = 2**16 - 1
"""The longest name that the connector protocol can carry."""


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
@option(
    "--connector",
    is_flag=True,
    help="Send to a --connector-in: each vote counts once, whatever crashes.",
)
@option(
    "--connector-cookie-file",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Holds the cookie that the server wants; a final newline does not count.",
)
@option(
    "--stream",
    metavar="NAME",
    help="What the server knows these votes by.  [default: made from FILE's path and"
    " content]",
)
@option(
    "--stream-id",
    metavar="N",
    type=click.IntRange(0, STREAM_ID_MAX),
    help="The stream's number.  [default: made from its name]",
)
@option(
    "--instance",
    metavar="NAME",
    help="Take the stream over from a sender of this name.  [default: a new one]",
)
@tls_options("--tls-ca", "--tls-cert", "--tls-key")
@click.pass_context
def send(  # noqa: PLR0913 - an argument for each option
    context: click.Context,
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
    connector: bool,
    connector_cookie_file: Path | None,
    stream: str | None,
    stream_id: int | None,
    instance: str | None,
    tls_ca: Path | None,
    tls_cert: Path | None,
    tls_key: Path | None,
) -> None:
    """Send votes to a server and wait until they are durable.

    FILE holds the votes, - is standard input. Exit code 0 says that all of them are
    durable, 3 that this is not known, 1 that FILE is bad at a place that is named.

    With --connector the server knows how far the stream NAME has come: running the same
    again goes on from there, and no vote counts twice.
    """
    if at_random == (file is not None):
        raise click.UsageError("give a FILE, - for standard input, or --random")
    if at_random and messages is None:
        raise click.UsageError("--random makes votes without end: give --messages too")
    if repeat > 1 and file in {None, STANDARD}:
        raise click.UsageError("--repeat needs a FILE that can be read again")
    choice = VoteChoice(file, format_ == "lines", seed, repeat, skip, messages)
    if connector:
        _check_connector(context, choice)
    if tls_cert is not None and tls_ca is None:
        raise click.UsageError("--tls-cert needs --tls-ca, to know the server by")
    certificates = load_certificates(tls_cert, tls_key, ca=tls_ca)
    tls = certificates and certificates.client
    if connector and isinstance(to, Address):
        # What only a connector needs is not imported by others.
        from alphabet.stream_send import StreamChoice, send_stream

        stream_name = None if stream is None else os.fsencode(stream)
        cookie = read_cookie(connector_cookie_file)
        chosen = StreamChoice(stream_name, stream_id, instance, cookie, tls)
        send_stream(choice, chosen, to, rate, silence_seconds)
        return
    with _open_target(to, silence_seconds, tls) as target:
        name = "standard output" if to == STANDARD else str(to)
        _send(choice, Sender(target, rate), name)


def _check_connector(context: click.Context, choice: VoteChoice) -> None:
    """Refuse what makes no sense with --connector."""
    given = context.params
    source = context.get_parameter_source("to")
    if isinstance(given["to"], str) or source is ParameterSource.DEFAULT:
        raise click.UsageError("--connector needs --to HOST:PORT, of a --connector-in")
    if choice.skip or choice.repeat > 1:
        raise click.UsageError(
            "--connector goes with neither --skip nor --repeat: the server says where"
            " to go on"
        )
    if given["stream"] is None and not choice.is_rereadable:
        raise click.UsageError(
            f"{choice.name} needs --stream NAME: give the same input under the same"
            " name again, and it goes on where it ended"
        )
    for name in ("stream", "instance"):
        value = given[name]
        if value is not None and not 0 < len(os.fsencode(value)) <= NAME_BYTES_MAX:
            raise click.UsageError(f"--{name} takes 1 to {NAME_BYTES_MAX} bytes")


@contextlib.contextmanager
def _open_target(
    to: Address | str, silence_seconds: float, context: ssl.SSLContext | None
) -> Iterator[Target]:
    """Connect to a server, or take standard output."""
    if isinstance(to, str):
        with open(sys.stdout.fileno(), "wb", buffering=0, closefd=False) as stream:
            yield StreamTarget(stream)
        return
    try:
        connection = connect(to, silence_seconds, context)
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
