"""Starts a bare server with a sink, and floods it."""

import contextlib
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import attrs

from alphabet.trial.children import Child, Children
from alphabet.trial.flood import (
    HOST,
    SECONDS_MAX,
    WRITE_BYTES,
    OutputBuffer,
    Sending,
    receive,
    sender,
)
from alphabet.trial.output_check import check_all
from alphabet.trial.vote_load import Load


@attrs.frozen
class BareServer:
    """A bare server that waits for its sender."""

    child: Child
    port: int


@contextlib.contextmanager
def served(place: Path, shape: str) -> Iterator[tuple[BareServer, socket.socket]]:
    """Give a bare server and its sink's connection; it ends with its sender."""
    data_dir = place / "bare"
    data_dir.mkdir()
    with Children(place) as children, socket.create_server((HOST, 0)) as listener:
        words = (listener.getsockname()[1], data_dir, shape)
        child = children.start("bare", "bench.bare.server", *words)
        port = int(child.await_line(""))
        listener.settimeout(SECONDS_MAX)
        sink, _ = listener.accept()
        with sink:
            yield BareServer(child, port), sink


def flood(
    place: Path, load: Load, buffer: OutputBuffer, write_bytes: int = WRITE_BYTES
) -> float:
    """Flood a bare server; every output is checked. Give the seconds."""
    outputs = buffer.view(load.output_bytes)
    with served(place, "flow") as (server, sink):
        sending = Sending(load, server.port, write_bytes, has_receipt=False)
        with sender(sending) as source:
            began = time.perf_counter()
            source.go()
            receive(sink, outputs)
            seconds = time.perf_counter() - began
            source.await_end()
    check_all(load, outputs)
    return seconds
