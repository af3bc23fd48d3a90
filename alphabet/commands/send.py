"""`alphabet send`: the tutorial's sender, which also says if the votes are safe."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from alphabet.command_line import (
    AddressType,
    CannotServeError,
    DamageError,
    load_certificates,
    option,
    read_cookie,
    tls_options,
)
from alphabet.network.address import Address
from alphabet.network.dialing import connect
from alphabet.sending.sender import NoReceiptError, Sender, ServerTarget, StreamTarget
from alphabet.sending.vote_choice import STANDARD, VoteChoice
from alphabet.sending.vote_pump import pump
from recovery.counted import counted

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator, Sequence

    from alphabet.sending.sender import Target
    from alphabet.sending.spread import Way
    from alphabet.sending.stream_send import StreamChoice

STREAM_ID_MAX = 2**64 - 1
NAME_BYTES_MAX = 2**16 - 1
"""The longest name that the connector protocol can carry."""
PLACE_BYTES = 32
"""How much shorter a name must be that a share's place is added to."""
SERVERS_MAX = 100
"""The most servers that votes are spread over, inclusive: each takes a few files."""


@click.command()
@click.argument(
    "file",
    required=False,
    type=click.Path(exists=True, dir_okay=False, readable=True, allow_dash=True),
)
@option(
    "--to",
    "targets",
    type=AddressType(or_dash=True),
    multiple=True,
    default=["127.0.0.1:7010"],
    show_default=True,
    help="The server's source, or several with --spread; - writes the frames to"
    " standard output.",
)
@option(
    "--spread",
    type=click.Choice(["letter", "hash", "round-robin"]),
    help="Give each vote to one of the servers of --to: by its letter, by all of it,"
    " or in turn.",
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
def send(
    context: click.Context,
    *,
    file: str | None,
    targets: Sequence[Address | str],
    spread: Way | None,
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

    With --spread each vote goes to one of several servers, always the same one of a
    list of --to in this order.
    """
    _check_input(file, repeat, messages, at_random=at_random)
    choice = VoteChoice(file, format_ == "lines", seed, repeat, skip, messages)
    _check_targets(targets, spread)
    if connector:
        _check_connector(context, choice)
    tls = _load_context(tls_cert, tls_key, tls_ca)
    if connector:
        # What only a connector needs is not imported by others.
        from alphabet.sending.stream_send import StreamChoice

        stream_name = None if stream is None else os.fsencode(stream)
        cookie = read_cookie(connector_cookie_file)
        chosen = StreamChoice(stream_name, stream_id, instance, cookie, tls)
        _send_streams(
            choice, chosen, targets, spread, rate=rate, silence_seconds=silence_seconds
        )
    else:
        _send_plain(
            choice,
            targets,
            spread,
            rate=rate,
            silence_seconds=silence_seconds,
            context=tls,
        )


def _check_input(
    file: str | None, repeat: int, messages: int | None, *, at_random: bool
) -> None:
    """Refuse votes from nowhere, from two places and without end."""
    if at_random == (file is not None):
        raise click.UsageError("give a FILE, - for standard input, or --random")
    if at_random and messages is None:
        raise click.UsageError("--random makes votes without end: give --messages too")
    if repeat > 1 and file in {None, STANDARD}:
        raise click.UsageError("--repeat needs a FILE that can be read again")


def _check_targets(targets: Sequence[Address | str], spread: Way | None) -> None:
    """Refuse several servers where one is meant, and what is no server among them."""
    if spread is None and len(targets) > 1:
        raise click.UsageError("--to is there several times: say how to --spread")
    if spread is None:
        return
    if STANDARD in targets or len(set(targets)) < len(targets):
        raise click.UsageError("--spread takes servers, each once: --to HOST:PORT")
    if len(targets) > SERVERS_MAX:
        raise click.UsageError(f"--spread takes {SERVERS_MAX} servers at most")


def _check_connector(context: click.Context, choice: VoteChoice) -> None:
    """Refuse what makes no sense with --connector."""
    given = context.params
    source = context.get_parameter_source("targets")
    if STANDARD in given["targets"] or source is ParameterSource.DEFAULT:
        raise click.UsageError("--connector needs --to HOST:PORT, of a --connector-in")
    if given["spread"] and given["stream_id"] is not None:
        raise click.UsageError("--stream-id is for one server, not for --spread")
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
    bytes_max = NAME_BYTES_MAX - (PLACE_BYTES if given["spread"] else 0)
    for name in ("stream", "instance"):
        value = given[name]
        if value is not None and not 0 < len(os.fsencode(value)) <= bytes_max:
            raise click.UsageError(f"--{name} takes 1 to {bytes_max} bytes")


def _send_streams(
    choice: VoteChoice,
    stream: StreamChoice,
    targets: Sequence[Address | str],
    spread: Way | None,
    *,
    rate: float | None,
    silence_seconds: float,
) -> None:
    """Send a stream, or a stream to each of several servers."""
    addresses = [each for each in targets if isinstance(each, Address)]
    if spread is None:
        from alphabet.sending.stream_send import send_stream

        send_stream(choice, stream, addresses[0], rate, silence_seconds)
        return
    from alphabet.sending.spread_send import send_spread_streams

    send_spread_streams(
        choice, spread, addresses, stream, rate=rate, silence_seconds=silence_seconds
    )


def _send_plain(
    choice: VoteChoice,
    targets: Sequence[Address | str],
    spread: Way | None,
    *,
    rate: float | None,
    silence_seconds: float,
    context: ssl.SSLContext | None,
) -> None:
    """Connect to all servers, or take standard output, and send the votes."""
    with contextlib.ExitStack() as stack:
        opened = {
            each: stack.enter_context(_open_target(each, silence_seconds, context))
            for each in targets
        }
        if spread is None:
            [(to, target)] = opened.items()
            name = "standard output" if to == STANDARD else str(to)
            _send(choice, Sender(target, rate), name)
            return
        from alphabet.sending.spread_send import send_spread

        send_spread(choice, spread, opened, rate)


def _load_context(
    certificate: Path | None, key: Path | None, authority: Path | None
) -> ssl.SSLContext | None:
    """Load what makes it TLS, if anything is named that does."""
    if certificate is not None and authority is None:
        raise click.UsageError("--tls-cert needs --tls-ca, to know the server by")
    certificates = load_certificates(certificate, key, ca=authority)
    return certificates and certificates.client


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
        fault = pump(choice, sender)
        receipt = sender.target.finish()
    except NoReceiptError as error:
        loss = f"{target_name} {error}"
    except KeyboardInterrupt:
        loss = "this command was stopped"
    sent = sender.votes_sent
    fault_text = f"{choice.name}: {fault}; " if fault else ""
    if loss:
        raise CannotServeError(
            f"{fault_text}{loss} after {counted(sent, 'vote was', 'votes were')} sent,"
            " and how many are durable is not known: `alphabet-replay info DATA_DIR`"
            " tells what the log holds, and --skip leaves that out"
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
        votes = "1 vote, durable" if sent == 1 else f"{sent} votes, all durable"
        click.echo(f"sent {votes}")
