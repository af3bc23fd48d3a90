"""Votes from where they are to where they go, with a bar on a terminal."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING

from alphabet.sending.vote_input import VoteInputError, cut_votes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from alphabet.sending.sender import Sender
    from alphabet.sending.vote_choice import VoteChoice


def pump(choice: VoteChoice, sender: Sender) -> VoteInputError | None:
    """Send the votes, up to a fault among them; return that.

    Raises:
        NoReceiptError: The target is gone.
    """
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
