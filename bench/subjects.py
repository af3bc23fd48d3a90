"""Alphabet and the bare server as subjects, as any peer is one."""

import time
from pathlib import Path

import attrs

from alphabet.trial.children import Children
from alphabet.trial.figure import ALPHABET
from alphabet.trial.flood import WRITE_BYTES, OutputBuffer, Sending, receive, sender
from alphabet.trial.measured_server import served_with_sink
from alphabet.trial.output_check import check_all
from alphabet.trial.vote_load import load_of
from bench.bare import driver
from bench.processes import disk_bytes, written_bytes
from bench.subject import Flooded

BARE = "bare prototype"


@attrs.frozen
class Alphabet:
    """`alphabet run` under a flood from `senders` connections.

    Attributes:
        buffer: Room for the outputs.
        senders: How many connections.
        write_bytes: How much a lone sender writes at once.
        words: Further options of `alphabet run`.
    """

    buffer: OutputBuffer
    senders: int = 1
    write_bytes: int = WRITE_BYTES
    words: tuple[object, ...] = ()
    name: str = ALPHABET

    def flood(self, place: Path, votes: int) -> Flooded:
        """Count votes with a new server; every output is received and checked."""
        load = load_of(votes, self.senders)
        outputs = self.buffer.view(load.output_bytes)
        data_dir = place / "data"
        with (
            Children(place) as children,
            served_with_sink(children, data_dir, *self.words) as (server, sink),
            sender(Sending(load, server.port, self.write_bytes)) as sending,
        ):
            before = written_bytes(server.child.pid)
            began = time.perf_counter()
            sending.go()
            receive(sink, outputs)
            seconds = time.perf_counter() - began
            sending.await_end()
            written = written_bytes(server.child.pid) - before
        check_all(load, outputs)
        return Flooded(load.votes, seconds, disk_bytes(data_dir), written)


@attrs.frozen
class Bare:
    """The bare server under a flood from one sender."""

    buffer: OutputBuffer
    write_bytes: int = WRITE_BYTES
    name: str = BARE

    def flood(self, place: Path, votes: int) -> Flooded:
        """Count votes with a new server; every output is received and checked."""
        load = load_of(votes)
        seconds = driver.flood(place, load, self.buffer, self.write_bytes)
        # Its process has gone when its files are looked at, and with it what it wrote.
        return Flooded(load.votes, seconds, disk_bytes(place / "bare"), 0)
