"""Senders whom the server did not read for a while: that is not held against them."""

import io
import socket
import threading
from typing import cast

import attrs
from hypothesis import given
from hypothesis import strategies as st

from alphabet.application import Decoder
from alphabet.arrival import Received, Refusal
from alphabet.framing import FrameReader, decode_length
from alphabet.journal.journal import Journal
from alphabet.network.waker import Waker
from alphabet.source.connection import Connection, Limits, Listener
from alphabet.source.inbox import Inbox
from alphabet.source.plain import Sources
from alphabet.source.reception import TICK_SECONDS
from tests.process import SECONDS_MAX, wait_until
from tests.votes import VOTE_BYTES, wire

SECONDS = st.integers(0, 200).map(float)
LOOKS_PER_ROUND = 10
"""More than a round of reading asks for the time."""
PAUSE_SECONDS = 600
VOTE = wire([(b"g", 1)])


@attrs.define
class Clock:
    """A clock that is moved by hand, and counts how often it is looked at."""

    seconds: float = 0.0
    looks: int = 0

    def __call__(self) -> float:
        """Give the time."""
        self.looks += 1
        return self.seconds


@attrs.define
class Sleep:
    """What wakes a reception, once it has slept so long."""

    clock: Clock
    waker: Waker
    seconds: float = 0.0

    def fileno(self) -> int:
        """Give what is waited for."""
        return self.waker.fileno()

    def wake(self) -> None:
        """End it."""
        self.waker.wake()

    def clear(self) -> None:
        """Let it have been a long one."""
        self.waker.clear()
        self.clock.seconds += self.seconds

    def is_over(self) -> bool:
        """Say whether it has been one."""
        self.wake()
        return self.clock.seconds >= PAUSE_SECONDS


@given(SECONDS, SECONDS, SECONDS)
def test_time_unread(begun: float, unread: float, passed: float) -> None:
    """An unfinished frame has all its time, less none in which nobody was read."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        reader = FrameReader(4, decode_length, VOTE_BYTES)
        connection = Connection(ours, "it", 0, reader, partial_since=begun)
        now = begun + unread + passed
        connection.excuse(unread, now)
        assert (connection.overdue(now, 60.0) is None) == (passed < 60)
        connection.excuse(2 * PAUSE_SECONDS, now)
        assert connection.partial_since == now


def test_a_pause() -> None:
    """Who sent a vote as the disk became full may finish it much later, but once."""
    clock, inbox = Clock(), Inbox(1 << 20)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(0)
        listener = Listener(listening, 0, Decoder())
        journal = Journal.open(io.StringIO())
        sources = Sources([listener], inbox, Limits(), journal)
        reception = sources.reception
        reception.clock = clock
        sleep = Sleep(clock, reception.waker)
        reception.waker = cast("Waker", sleep)
        thread = threading.Thread(target=reception.run)
        thread.start()
        try:
            with socket.create_connection(listening.getsockname()) as sender:
                sender.sendall(VOTE[:5])
                wait_until(lambda: reception.received_bytes == 5, "a part of a vote")
                reception.pause(is_paused=True)
                sleep.seconds = PAUSE_SECONDS
                wait_until(sleep.is_over, "a long sleep")
                sleep.seconds = 0.0
                reception.pause(is_paused=False)
                clock.seconds += TICK_SECONDS
                looks = clock.looks + LOOKS_PER_ROUND
                wait_until(lambda: sleep.is_over() and clock.looks > looks, "a look")
                sender.sendall(VOTE[5:])
                wait_until(lambda: not inbox.is_empty, "the vote")
                [arrival] = inbox.take(1 << 20)
                assert isinstance(arrival, Received)
                sender.sendall(VOTE[:5])
                most_bytes = len(VOTE) + 5
                wait_until(lambda: reception.received_bytes == most_bytes, "a part")
                clock.seconds += Limits().partial_frame_seconds_max
                wait_until(lambda: sleep.is_over() and not inbox.is_empty, "an end")
                [arrival] = inbox.take(1 << 20)
                assert isinstance(arrival, Refusal)
        finally:
            reception.end()
            thread.join(SECONDS_MAX)
            sleep.waker.close()
            journal.close()
