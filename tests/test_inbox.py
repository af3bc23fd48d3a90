"""The queue between the sources and the engine: in order, bounded, never asleep."""

import io
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphabet.application import Decoder
from alphabet.arrival import End
from alphabet.assembly import Settings, assembled
from alphabet.journal.journal import Journal
from alphabet.network.address import Address, NamedAddress
from alphabet.source.connection import (
    RECEIVE_BYTES,
    RECEIVE_BYTES_FIRST,
    Limits,
    Listener,
)
from alphabet.source.inbox import ARRIVAL_BYTES, Inbox
from alphabet.source.plain import Sources
from tests.machines import alphabet
from tests.process import wait_until
from tests.votes import wire

SECONDS_MAX = 20.0
ALL = 1 << 30

sizes = st.lists(st.integers(0, 100), max_size=20)


class WaitingCondition(threading.Condition):
    """A condition that tells when somebody waits on it."""

    def __init__(self) -> None:
        super().__init__()
        self.has_begun = threading.Event()

    def wait(self, timeout: float | None = None) -> bool:
        """Tell, and wait: the lock is held until the wait has begun."""
        self.has_begun.set()
        return super().wait(timeout)


class TestInbox:
    """Arrivals on their way."""

    @given(sizes, st.lists(st.integers(1, 400), max_size=30))
    def test_all_come_out_in_order(self, sizes: list[int], bounds: list[int]) -> None:
        """Each take gives the next arrivals: at least one, and no more than it asks.

        No more means that it stops with the one that reaches the bound.
        """
        inbox = Inbox(ALL)
        arrivals = [End(number) for number in range(len(sizes))]
        for arrival, size in zip(arrivals, sizes, strict=True):
            inbox.put(arrival, size)
        taken = 0
        for bytes_max in [*bounds, ALL]:
            found = inbox.take(bytes_max)
            assert found == arrivals[taken : taken + len(found)]
            weights = [size + ARRIVAL_BYTES for size in sizes[taken:]][: len(found)]
            assert sum(weights[:-1]) < bytes_max
            taken += len(found)
            assert sum(weights) >= bytes_max or taken == len(arrivals)
        assert taken == len(arrivals)
        assert inbox.is_empty

    def test_it_is_full_at_its_bound(self) -> None:
        """It is full from the bound on, each arrival weighing something of itself."""
        inbox = Inbox(2 * ARRIVAL_BYTES + 5)
        inbox.put(End(1), 4)
        inbox.put(End(2), 0)
        assert not inbox.is_full
        inbox.put(End(3), 0)
        assert inbox.is_full
        inbox.take(1)
        assert not inbox.is_full

    @given(sizes, st.lists(st.integers(1, 400), max_size=10))
    def test_room_is_told_when_it_comes(
        self, sizes: list[int], bounds: list[int]
    ) -> None:
        """Whoever found it full is told once it no longer is, and only then."""
        rooms: list[bool] = []
        inbox = Inbox(500)
        inbox.on_room = lambda: rooms.append(inbox.is_full)
        expected: list[bool] = []
        for size in sizes:
            inbox.put(End(None), size)
        for bytes_max in bounds:
            was_full = inbox.is_full
            inbox.take(bytes_max)
            expected += [False] * (was_full and not inbox.is_full)
            assert rooms == expected

    def test_room_is_told_outside_the_lock(self) -> None:
        """Whoever is told that there is room may put something in, from any thread."""
        inbox = Inbox(1)

        def put_elsewhere() -> None:
            thread = threading.Thread(target=inbox.put, args=(End(2), 0))
            thread.start()
            thread.join(SECONDS_MAX)
            assert not thread.is_alive()

        inbox.on_room = put_elsewhere
        inbox.put(End(1), 0)
        assert inbox.take(ALL) == [End(1)]
        assert inbox.take(ALL) == [End(2)]

    @pytest.mark.parametrize(
        "change",
        [
            lambda inbox: (inbox.put(End(1), 0), inbox.notify()),
            lambda inbox: inbox.close(),
        ],
        ids=["notify", "close"],
    )
    def test_a_wait_is_ended(self, change: Callable[[Inbox], object]) -> None:
        """Whoever waits is woken by word of an arrival, and by the end."""
        inbox = Inbox(ALL)
        waiting = WaitingCondition()
        inbox._changed = waiting  # noqa: SLF001 - to see that the thread waits
        thread = threading.Thread(target=inbox.wait, args=(2 * SECONDS_MAX,))
        thread.start()
        assert waiting.has_begun.wait(SECONDS_MAX)
        change(inbox)
        thread.join(SECONDS_MAX)
        assert not thread.is_alive()

    @pytest.mark.parametrize(
        "change", [lambda inbox: inbox.put(End(1), 0), Inbox.close]
    )
    def test_nobody_waits_for_what_is_there(
        self, change: Callable[[Inbox], object]
    ) -> None:
        """A wait is none where something waits, or nothing will come any more."""
        inbox = Inbox(ALL)
        change(inbox)
        waiting = WaitingCondition()
        inbox._changed = waiting  # noqa: SLF001 - to see that nobody waits
        inbox.wait(SECONDS_MAX)
        assert not waiting.has_begun.is_set()

    def test_nothing_is_taken_of_nothing(self) -> None:
        """An empty inbox, closed or not, gives nothing, at once."""
        inbox = Inbox(ALL)
        assert inbox.take(ALL) == []
        inbox.close()
        assert inbox.take(ALL) == []

    def test_it_is_done_when_it_is_closed_and_empty(self) -> None:
        """What was put in before the end is still taken."""
        inbox = Inbox(ALL)
        assert not inbox.is_done
        inbox.put(End(1), 0)
        inbox.close()
        assert not inbox.is_done
        assert inbox.take(ALL) == [End(1)]
        assert inbox.is_done

    @given(sizes, st.integers(1, 400))
    def test_it_weighs_what_waits(self, sizes: list[int], bytes_max: int) -> None:
        """Its bytes are those of all arrivals that were not taken."""
        inbox = Inbox(ALL)
        for size in sizes:
            inbox.put(End(None), size)
        taken = len(inbox.take(bytes_max))
        assert inbox.bytes == sum(size + ARRIVAL_BYTES for size in sizes[taken:])


class TestWriters:
    """Several kinds of sources, one inbox."""

    def test_all_of_them_close_it(self) -> None:
        """It is done when the last writer has closed it and all has been taken."""
        inbox = Inbox(ALL, writers=2)
        inbox.close()
        assert not inbox.is_done
        inbox.put(End("a"), 0)
        inbox.close()
        assert not inbox.is_done
        inbox.take(ALL)
        assert inbox.is_done

    def test_each_kind_is_a_writer(self, tmp_path: Path) -> None:
        """A server of plain and connector sources waits for both at its stop."""
        one = NamedAddress(None, Address("127.0.0.1", 0))
        settings = Settings(tmp_path / "data", (one, one), (one,))
        journal = Journal.open(io.StringIO(), "json")
        with assembled(settings, alphabet(), journal) as server:
            assert server.inbox.writers == 2
            assert [len(each.listeners) for each in server.receptions] == [2, 1]
            attention = server._attention  # noqa: SLF001 - as a process's end does
            for waker in (attention, *(each.waker for each in server.receptions)):
                waker.close()
        journal.close()


class TestWeight:
    """What the sources put in."""

    def test_what_is_borrowed_weighs_as_much_as_it_holds(self) -> None:
        """A few votes before a long part of a frame weigh what was read with them."""
        inbox = Inbox(RECEIVE_BYTES_FIRST)
        journal = Journal.open(io.StringIO(), "json")
        votes = wire([(b"g", 1)] * 100)
        begun = RECEIVE_BYTES.to_bytes(4) + bytes(RECEIVE_BYTES_FIRST)
        with socket.create_server(("127.0.0.1", 0)) as listening:
            listening.settimeout(0)
            listener = Listener(listening, 0, Decoder())
            sources = Sources([listener], inbox, Limits(), journal)
            thread = threading.Thread(target=sources.reception.run)
            with socket.create_connection(listening.getsockname()) as sender:
                # All of it is there before any of it is read.
                sender.sendall((votes + begun)[:RECEIVE_BYTES_FIRST])
                thread.start()
                wait_until(lambda: not inbox.is_empty, "votes")
            is_full = inbox.is_full
            sources.reception.end()
            thread.join(SECONDS_MAX)
        sources.reception.waker.close()
        journal.close()
        assert is_full

    def test_a_frame_that_came_in_pieces_weighs_all_of_them(self) -> None:
        """A large frame fills the inbox by its whole size, however it was received."""
        size = 4 * RECEIVE_BYTES
        inbox = Inbox(size)
        journal = Journal.open(io.StringIO(), "json")
        with socket.create_server(("127.0.0.1", 0)) as listening:
            listening.settimeout(0)
            listener = Listener(listening, 0, Decoder())
            sources = Sources([listener], inbox, Limits(size), journal)
            thread = threading.Thread(target=sources.reception.run)
            thread.start()
            with socket.create_connection(listening.getsockname()) as sender:
                sender.sendall(size.to_bytes(4) + bytes(size))
                wait_until(lambda: not inbox.is_empty, "a frame")
            is_full = inbox.is_full
            sources.reception.end()
            thread.join(SECONDS_MAX)
        sources.reception.waker.close()
        journal.close()
        assert is_full
