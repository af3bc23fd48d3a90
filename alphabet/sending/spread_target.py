"""One input for several senders: a pipe to each, and its share in it. The edge: pipes.

A sender is a thread that reads its pipe as `alphabet send -` reads standard input. The
slowest of them sets the pace of all, so what is held is what the pipes hold.
"""

from __future__ import annotations

import io
import os
import select
from typing import TYPE_CHECKING, Protocol, Self

import attrs

from alphabet.sending.sender import NoReceiptError, StreamTarget
from alphabet.sending.vote_choice import VoteChoice
from alphabet.thread import start_thread

if TYPE_CHECKING:
    import threading
    from collections.abc import Sequence

    from alphabet.sending.spread import Spread


class ShareSender(Protocol):
    """Sends one server's share, whole, and waits until it is durable."""

    def run(self, share: VoteChoice, /) -> None:
        """Send what a share has up to its end; raises click.ClickException."""
        ...

    def cut_short(self) -> None:
        """Take it that the share will end before its time."""
        ...


@attrs.define
class Branch:
    """A sender in a thread of its own, and the pipe to it.

    Attributes:
        sender: What the thread does.
        pipe: Takes the share; closed, it is the share's end.
        failure: What ended the thread before its time, None if nothing did.
    """

    sender: ShareSender
    pipe: io.FileIO
    failure: Exception | None = None
    _source: io.FileIO = attrs.field(kw_only=True)
    _thread: threading.Thread = attrs.field(init=False)

    @classmethod
    def start(cls, sender: ShareSender, name: str) -> Self:
        """Start the thread; raises MemoryError where there is no room for one."""
        source, pipe = os.pipe()
        branch = cls(
            sender,
            io.FileIO(pipe, "wb"),
            source=io.FileIO(source, "rb"),
        )
        branch._thread = start_thread(name, branch._run)
        return branch

    def join(self) -> None:
        """Wait for the thread's end."""
        self._thread.join()

    def _run(self) -> None:
        path = f"/dev/fd/{self._source.fileno()}"
        try:
            self.sender.run(
                VoteChoice(path, lines=False, seed=0, repeat=1, skip=0, messages=None)
            )
        except Exception as error:  # noqa: BLE001 - whoever joins is told
            self.failure = error
        finally:
            # Whoever writes to the pipe notices.
            self._source.close()


@attrs.define
class SpreadTarget:
    """Branches as one target. It gives no receipt: each branch has its own.

    Attributes:
        spread: Says which vote goes where.
        branches: One for each place, in this order.
        sent_bytes: How much was given out; a write counts whole.
    """

    spread: Spread
    branches: Sequence[Branch]
    sent_bytes: int = attrs.field(default=0, init=False)

    def write(self, data: bytes) -> None:
        """Give each branch its share, also when one is gone: so that all have theirs.

        Raises NoReceiptError.
        """
        gone = None
        shares = self.spread.shares(data)
        for branch, share in zip(self.branches, shares, strict=True):
            try:
                StreamTarget(branch.pipe).write(share)
            except NoReceiptError as error:
                gone = error
        self.sent_bytes += len(data)
        if gone:
            raise gone

    def wait(self, seconds: float) -> None:
        """Let time pass, with an eye on the branches."""
        self._poll(None, seconds)

    def await_input(self, fileno: int) -> None:
        """Wait for an input, with an eye on the branches."""
        self._poll(fileno, None)

    def finish(self) -> bool:
        """End every share."""
        for branch in self.branches:
            branch.pipe.close()
        return False

    def _poll(self, fileno: int | None, seconds: float | None) -> None:
        poll = select.poll()
        for branch in self.branches:
            poll.register(branch.pipe, 0)
        if fileno is not None:
            poll.register(fileno, select.POLLIN)
        ready = dict(poll.poll(None if seconds is None else seconds * 1000))
        if ready.keys() - {fileno}:
            raise NoReceiptError("is gone")
