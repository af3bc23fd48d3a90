"""Send votes as a connector's stream, and say how that ended.

What was durable before is told apart from what was sent. Running the same again goes on
where this ended, however it ended.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import socket
import sys
from typing import TYPE_CHECKING

import attrs
import click

from alphabet.command_line import INTERRUPTED, CannotServeError, DamageError
from alphabet.connector.client import ConnectorClient, PointError
from alphabet.sending.connector_target import ConnectorTarget
from alphabet.sending.sender import NoReceiptError, Sender
from alphabet.sending.vote_input import VoteInputError, cut_votes
from recovery.counted import counted

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator

    from alphabet.network.address import Address
    from alphabet.sending.vote_choice import VoteChoice


class StoppedError(click.ClickException):
    """Ctrl-C ended a command, which says what it leaves. Exit code 130."""

    exit_code = INTERRUPTED


@attrs.frozen
class StreamChoice:
    """Which stream, and as whom.

    Attributes:
        name: The stream's name; None for one made from the votes.
        stream_id: Its number; None for one made from the name.
        instance: Tells this sender from others; None for one that is new each time.
        cookie: What the server wants to hear.
        context: Makes it TLS; None for plain TCP.
    """

    name: bytes | None
    stream_id: int | None
    instance: str | None
    cookie: bytes = attrs.field(repr=False)
    context: ssl.SSLContext | None = None

    def name_of(self, choice: VoteChoice) -> bytes:
        """Give the stream's name, made from the votes if it has none.

        Raises:
            VoteInputError: It has none, and something in the votes is no vote.
        """
        return choice.stream_name() if self.name is None else self.name

    def client(self, choice: VoteChoice) -> ConnectorClient:
        """Make the client that sends these votes.

        Raises:
            VoteInputError: They have no name yet, and something in them is no vote.
        """
        name = self.name_of(choice)
        number = stable_id(name) if self.stream_id is None else self.stream_id
        instance = os.fsencode(self.instance or new_instance())
        is_prefix = choice.messages is not None
        return ConnectorClient(number, name, instance, self.cookie, is_prefix)


def stable_id(name: bytes) -> int:
    """Make a stream's number from its name, always the same."""
    return int.from_bytes(hashlib.sha256(name).digest()[:8], "big")


def new_instance() -> str:
    """Make a name that no other sender has."""
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"


def send_stream(
    choice: VoteChoice,
    stream: StreamChoice,
    address: Address,
    rate: float | None,
    silence_seconds: float,
) -> None:
    """Send votes until all are durable, and print how many were sent.

    Raises:
        DamageError: Something among them is no vote, or they are not what was sent
            before.
        CannotServeError: The server was away or silent for too long, or refused.
        StoppedError: Ctrl-C.
    """
    stamp = choice.stamp()
    try:
        client = stream.client(choice)
    except VoteInputError as error:
        raise DamageError(f"{choice.name}: {error}; nothing was sent") from error
    with _progress(choice.votes_expected(), client) as (watch, tell):
        target = ConnectorTarget(
            address,
            client,
            silence_seconds,
            tell,
            watch,
            context=stream.context,
        )
        with contextlib.closing(target):
            fault = pump_stream(choice, target, rate)
    _check_input(choice, stamp, client, fault)
    click.echo(f"sent {all_durable(client.votes_taken, client.votes_there)}")


def all_durable(taken: int, there: int, whither: str = "") -> str:
    """Say how many votes were sent, whither, and how many the server had already."""
    already = counted(there, "was", "were")
    return f"{counted(taken)}{whither}, {already} there already, all durable"


def pump_stream(
    choice: VoteChoice,
    target: ConnectorTarget,
    rate: float | None,
) -> VoteInputError | None:
    """Send the votes up to a fault among them, and wait until they are durable.

    Raises DamageError, CannotServeError or StoppedError: each says what is durable.
    """
    fault = None
    client = target.client
    sender = Sender(target, rate)
    try:
        place = choice.find(target.open())
        client.begin_at(place.offset, place.votes)
        chunks = choice.chunks(target, place)
        try:
            for chunk in cut_votes(chunks, sender.chunk_votes_max):
                sender.send(chunk)
        except VoteInputError as error:
            fault = error
        target.finish()
    except NoReceiptError as error:
        raise CannotServeError(
            f"{target.address} {error}; {_so_far(client)}"
        ) from error
    except (PointError, VoteInputError) as error:
        raise DamageError(f"{choice.name}: {error}; {_so_far(client)}") from error
    except KeyboardInterrupt:
        raise StoppedError(f"stopped; {_so_far(client)}") from None
    return fault


def _check_input(
    choice: VoteChoice,
    stamp: tuple[int, int, int] | None,
    client: ConnectorClient,
    fault: VoteInputError | None,
) -> None:
    """Refuse to call it a success where the input is bad or was not left alone."""
    if stamp != choice.stamp():
        raise DamageError(
            f"{choice.name} was changed while it was sent, and"
            f" {counted(client.votes_durable, 'vote is', 'votes are')} durable of what"
            " was read, whichever that was"
        )
    if fault:
        raise DamageError(
            f"{choice.name}: {fault};"
            f" {counted(client.votes_durable, 'vote is', 'votes are')} durable, all"
            " before that: mend it from there on, then run the same again"
        )


def _so_far(client: ConnectorClient) -> str:
    """Say what is durable, and how to go on."""
    if not client.votes_taken:
        return "nothing was sent"
    return (
        f"{counted(client.votes_durable, 'vote is', 'votes are')} durable, up to byte"
        f" {client.durable} of stream {os.fsdecode(client.stream_name)!r}: to go on"
        " behind them, run the same again"
    )


@contextlib.contextmanager
def _progress(
    votes: int | None, client: ConnectorClient
) -> Iterator[tuple[Callable[[], None], Callable[[str], None]]]:
    """Show on a terminal how far a client has come; lines go to standard error."""
    if not sys.stderr.isatty():
        yield lambda: None, lambda line: click.echo(line, err=True)
        return
    from rich import progress
    from rich.console import Console

    with progress.Progress(
        progress.TextColumn("{task.fields[sent]:,} sent"),
        progress.TextColumn("{task.completed:,.0f} durable"),
        progress.BarColumn(),
        progress.TaskProgressColumn(show_speed=True),
        progress.TimeRemainingColumn(),
        console=Console(file=sys.stderr),
    ) as bar:
        task = bar.add_task("send", total=votes, sent=0)

        def watch() -> None:
            sent = client.votes_there + client.votes_taken
            bar.update(task, completed=client.votes_durable, sent=sent)

        yield watch, lambda line: bar.console.out(line, highlight=False)
