"""The votes, the helper process that makes and sends them, what must come of them."""

import multiprocessing
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection

import attrs

from alphabet.vote_input import first_votes, random_votes

OUTPUT_BYTES = 13
SECONDS_MAX = 600.0

_VOTE = struct.Struct(">IsI")
_OUTPUT = struct.Struct(">IsQ")


@attrs.frozen
class Load:
    """Random votes, sent as often as `repeat` says over one connection."""

    votes: int
    seed: int = 0
    repeat: int = 1

    def frames(self) -> bytes:
        """Make the votes of one turn."""
        chunks = first_votes(random_votes(self.seed), self.votes)
        return b"".join([chunk.frames for chunk in chunks])

    def outputs(self) -> bytes:
        """Give what a server that starts from nothing must send for them."""
        totals: dict[bytes, int] = {}
        pieces = []
        for _, letter, votes in _VOTE.iter_unpack(self.frames() * self.repeat):
            totals[letter] = totals.get(letter, 0) + votes
            pieces.append(_OUTPUT.pack(9, letter, totals[letter]))
        return b"".join(pieces)


@attrs.frozen
class Helper:
    """The other end of the helper process."""

    _pipe: Connection

    def go(self) -> None:
        """Let it send."""
        self._pipe.send(None)

    def await_receipt(self) -> None:
        """Wait until all votes are durable; raises if they are not known to be."""
        if not self._pipe.poll(SECONDS_MAX) or not self._pipe.recv():
            raise RuntimeError("the helper got no receipt from the server")


@contextmanager
def helper(load: Load, port: int) -> Iterator[Helper]:
    """Give a helper that is connected, with its votes made, and waits for `go`."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_help, args=(load, port, theirs), daemon=True)
    process.start()
    try:
        theirs.close()
        ours.recv()
        yield Helper(ours)
    finally:
        process.kill()
        process.join()
        ours.close()


def _help(load: Load, port: int, pipe: Connection) -> None:
    frames = load.frames()
    with socket.create_connection(("127.0.0.1", port)) as sender:
        pipe.send(None)
        pipe.recv()
        for _ in range(load.repeat):
            sender.sendall(frames)
        sender.shutdown(socket.SHUT_WR)
        pipe.send(sender.recv(1) == b"")
