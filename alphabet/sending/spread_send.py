"""`alphabet send --spread`: one input over several servers, and how that ended.

Each server has a sender of its own, plain or as a stream, and its own receipt. When one
is given up no more is read, and the others finish what they were given.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import attrs
import click

from alphabet.command_line import CannotServeError, DamageError
from alphabet.sending.connector_target import ConnectorTarget
from alphabet.sending.sender import NoReceiptError, Sender
from alphabet.sending.spread import Spread
from alphabet.sending.spread_target import Branch, SpreadTarget
from alphabet.sending.stream_send import StoppedError, all_durable, pump_stream
from alphabet.sending.vote_input import CHUNK_VOTES, VoteInputError, cut_votes
from alphabet.sending.vote_pump import pump
from recovery.counted import counted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from alphabet.network.address import Address
    from alphabet.sending.sender import Target
    from alphabet.sending.spread import Way
    from alphabet.sending.spread_target import ShareSender
    from alphabet.sending.stream_send import StreamChoice
    from alphabet.sending.vote_choice import VoteChoice


@attrs.frozen
class PlainShare:
    """Sends a share over plain TCP.

    Attributes:
        address: The server's.
        sender: Sends there, and keeps count.
    """

    address: Address | str
    sender: Sender

    def run(self, share: VoteChoice) -> None:
        """Send the share and wait for the receipt; raises CannotServeError."""
        target = self.sender.target
        try:
            for chunk in cut_votes(share.chunks(target), CHUNK_VOTES):
                self.sender.send(chunk)
            target.finish()
        except NoReceiptError as error:
            raise CannotServeError(
                f"{self.address} {error} after"
                f" {counted(self.sender.votes_sent, 'vote was', 'votes were')} sent to"
                " it, and how many of these are durable is not known"
            ) from error

    def cut_short(self) -> None:
        """A plain share may end anywhere."""


@attrs.frozen
class StreamShare:
    """Sends a share as a stream; `target` is the server's."""

    target: ConnectorTarget

    def run(self, share: VoteChoice) -> None:
        """Send the share until it is durable; raises click.ClickException."""
        with contextlib.closing(self.target):
            pump_stream(share, self.target, None)

    def cut_short(self) -> None:
        """Let the server have more than the share."""
        self.target.client.is_prefix = True


@attrs.frozen
class Ending:
    """How spreading ended.

    Attributes:
        votes: How many votes were given out.
        fault: What else was among them.
        failures: Why senders were given up, in the order of the servers.
    """

    votes: int
    fault: VoteInputError | None
    failures: Sequence[click.ClickException]


def send_spread(
    choice: VoteChoice,
    way: Way,
    targets: Mapping[Address | str, Target],
    rate: float | None,
) -> None:
    """Spread votes over plain connections and print how many were sent.

    Raises:
        DamageError: There was something else among them.
        CannotServeError: What became of some of them is not known.
    """
    shares = [PlainShare(each, Sender(target)) for each, target in targets.items()]
    try:
        ending = _spread(choice, way, shares, rate)
    except KeyboardInterrupt:
        sent = sum(each.sender.votes_sent for each in shares)
        raise CannotServeError(
            f"this command was stopped after"
            f" {counted(sent, 'vote was', 'votes were')} sent, and how many are durable"
            " is not known: `alphabet-replay info DATA_DIR` tells what a log"
            " holds"
        ) from None
    fault = f"{choice.name}: {ending.fault}; " if ending.fault else ""
    behind = choice.skip + ending.votes
    if ending.failures:
        others = len(shares) - len(ending.failures)
        rest = "; what went to the other servers is durable" if others else ""
        raise CannotServeError(
            f"{fault}{_together(ending)}{rest}: `alphabet-replay info DATA_DIR` tells"
            f" what a log holds, and --skip {behind} goes on behind the last vote that"
            " was given to any server"
        )
    if ending.fault:
        rest = "what was sent before that is durable: mend it, then go on with"
        raise DamageError(f"{fault}{rest} --skip {behind}")
    click.echo(f"sent {counted(ending.votes)} to {_servers(shares)}, all durable")


def send_spread_streams(  # noqa: PLR0913 - as the command has them
    choice: VoteChoice,
    way: Way,
    addresses: Sequence[Address],
    stream: StreamChoice,
    *,
    rate: float | None,
    silence_seconds: float,
) -> None:
    """Spread votes until all are durable, a stream for each server, and print how many.

    Raises:
        DamageError: Something among them is no vote, or they are not what was sent
            before.
        CannotServeError: A server was away or silent for too long, or refused.
        StoppedError: Ctrl-C.
    """
    stamp = choice.stamp()
    try:
        name = stream.name_of(choice)
    except VoteInputError as error:
        raise DamageError(f"{choice.name}: {error}; nothing was sent") from error
    shares = []
    for place, address in enumerate(addresses, 1):
        part = b"%s|%s:%d/%d" % (name, way.encode(), place, len(addresses))
        client = attrs.evolve(stream, name=part).client(choice)
        target = ConnectorTarget(
            address,
            client,
            silence_seconds,
            tell=lambda line: click.echo(line, err=True),
            watch=lambda: None,
            context=stream.context,
        )
        shares.append(StreamShare(target))
    clients = [each.target.client for each in shares]
    try:
        ending = _spread(choice, way, shares, rate)
    except KeyboardInterrupt:
        durable = sum(each.votes_durable for each in clients)
        raise StoppedError(
            f"stopped; {counted(durable, 'vote is', 'votes are')} durable: to go on"
            " behind them, run the same again"
        ) from None
    _check_streams(choice, ending)
    if stamp != choice.stamp():
        raise DamageError(
            f"{choice.name} was changed while it was sent, and"
            f" {counted(ending.votes, 'vote is', 'votes are')} durable of what was"
            " read, whichever that was"
        )
    taken = sum(each.votes_taken for each in clients)
    there = sum(each.votes_there for each in clients)
    click.echo(f"sent {all_durable(taken, there, f' to {_servers(shares)}')}")


def _check_streams(choice: VoteChoice, ending: Ending) -> None:
    """Refuse to call it a success where a server or the input was at fault."""
    kinds = {type(each) for each in ending.failures}
    if ending.failures:
        kind = CannotServeError if CannotServeError in kinds else DamageError
        fault = f"{choice.name}: {ending.fault}; " if ending.fault else ""
        raise kind(f"{fault}{_together(ending)}")
    if ending.fault:
        raise DamageError(
            f"{choice.name}: {ending.fault};"
            f" {counted(ending.votes, 'vote is', 'votes are')} durable, all before"
            " that: mend it from there on, then run the same again"
        )


def _servers(shares: Sequence[object]) -> str:
    """Count the servers in words."""
    return counted(len(shares), "server", "servers")


def _together(ending: Ending) -> str:
    """Join what became of servers that were given up."""
    return "; ".join(each.format_message() for each in ending.failures)


def _spread(
    choice: VoteChoice, way: Way, shares: Sequence[ShareSender], rate: float | None
) -> Ending:
    """Give every sender its share until the votes or a sender ends; await them all."""
    branches = [
        Branch.start(each, f"share {place}") for place, each in enumerate(shares, 1)
    ]
    target = SpreadTarget(Spread(way, len(shares), choice.skip), branches)
    sender = Sender(target, rate)
    fault = None
    try:
        fault = pump(choice, sender)
    except NoReceiptError:
        for each in shares:
            each.cut_short()
    target.finish()
    for branch in branches:
        branch.join()
    failures = []
    for branch in branches:
        if isinstance(branch.failure, click.ClickException):
            failures.append(branch.failure)
        elif branch.failure is not None:
            raise branch.failure
    return Ending(sender.votes_sent, fault, failures)
