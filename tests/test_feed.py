"""The window between the commit and a sink: what is in it, and when it lets go."""

import threading
from collections.abc import Callable, Iterator

import attrs
import pytest

from alphabet.outputs import Outputs
from alphabet.pipeline.machine import Capture
from alphabet.sink import feed as feed_module
from alphabet.sink.feed import Feed
from tests import toy

SECONDS_MAX = 20.0
"""How long a test may wait for what must come."""

EVENT = toy.outputs(1, [b"123"])
WINDOW_BYTES = 4 * EVENT.weight


@pytest.fixture
def feed() -> Feed:
    """Give a feed that is live behind event 0, with room for four events."""
    feed = Feed(0, WINDOW_BYTES)
    assert feed.attach(0)
    return feed


def push(feed: Feed, *sequences: int) -> None:
    """Release events, each in outputs of its own; the output names the event."""
    for sequence in sequences:
        feed.push([toy.outputs(sequence, [b"%03d" % sequence])], sequence)


def drain(feed: Feed) -> Iterator[Outputs | Capture]:
    """Take what there is."""
    while (found := feed.pop()) is not None:
        yield found


def taken(feed: Feed) -> list[bytes | int]:
    """Take what there is: outputs as their bytes, a capture as its sequence."""
    return [
        bytes(found.data) if isinstance(found, Outputs) else found.sequence
        for found in drain(feed)
    ]


class TestPush:
    """Outputs that are released."""

    def test_they_come_out_in_order(self, feed: Feed) -> None:
        """What was pushed is popped in the same order, and then nothing."""
        push(feed, 1, 2, 3)
        assert taken(feed) == [b"001", b"002", b"003"]
        assert feed.is_empty

    def test_several_outputs_of_one_commit(self, feed: Feed) -> None:
        """All outputs of a commit are there at once, and it is released to its end."""
        feed.push([toy.outputs(1, [b"a"]), toy.outputs(2, [b"b", b"c"])], 3)
        assert feed.released == 3
        assert taken(feed) == [b"a", b"bc"]

    def test_nothing_is_kept_for_a_sink_that_is_away(self) -> None:
        """A feed that is not live takes note of how far it is released, no more."""
        feed = Feed(5)
        push(feed, 6, 7)
        assert feed.released == 7
        assert feed.is_empty
        assert feed.pop() is None

    def test_a_commit_without_outputs_is_released_too(self) -> None:
        """A sink that waits for a place in the log learns of every commit."""
        feed = Feed(0)
        feed.attach(0)
        feed.push([], 3)
        assert (feed.released, feed.pop()) == (3, None)
        assert not feed.attach(2)

    def test_live_outputs_alone_can_be_had(self, feed: Feed) -> None:
        """Who asks for outputs only gets them, and leaves the capture to the sink."""
        push(feed, 1)
        feed.let_go(Capture(1, ()))
        assert feed.pop_outputs() == toy.outputs(1, [b"001"])
        assert feed.pop_outputs() is None
        assert feed.pop() == Capture(1, ())


class TestAttach:
    """Going live."""

    def test_not_behind_what_was_released(self) -> None:
        """A sink that lacks released events cannot go live."""
        feed = Feed(5)
        assert not feed.attach(4)
        push(feed, 6)
        assert feed.is_empty
        assert not feed.attach(5)
        assert feed.attach(6)

    def test_before_it_is_released(self) -> None:
        """What the sink has from the log already is not given to it again."""
        feed = Feed(5)
        assert feed.attach(7)
        feed.push([toy.outputs(6, [b"6"]), toy.outputs(7, [b"7", b"8"])], 8)
        assert taken(feed) == [b"8"]

    def test_going_away_drops_the_window(self, feed: Feed) -> None:
        """A sink that went away finds nothing old when it comes back."""
        push(feed, 1)
        feed.let_go(Capture(1, ()))
        feed.detach()
        assert feed.is_empty
        assert feed.pop() is None
        assert feed.attach(1)
        push(feed, 2)
        assert taken(feed) == [b"002"]


class TestLetGo:
    """A sink that does not keep up."""

    def test_it_is_given_all_up_to_the_capture(self, feed: Feed) -> None:
        """The window comes first, then the capture, and nothing live behind it."""
        push(feed, 1, 2)
        feed.let_go(Capture(4, ()))
        assert taken(feed) == [b"001", b"002"]
        assert not feed.is_empty
        push(feed, 3, 4, 5)
        assert taken(feed) == [b"003", b"004", 4]
        push(feed, 6)
        assert feed.pop() is None

    def test_it_may_be_released_already(self, feed: Feed) -> None:
        """A capture at what was released last comes right behind the window."""
        push(feed, 1)
        feed.let_go(Capture(1, ()))
        assert taken(feed) == [b"001", 1]

    def test_it_may_come_back(self, feed: Feed) -> None:
        """Behind what it derived itself a sink goes live again."""
        push(feed, 1)
        feed.let_go(Capture(1, ()))
        assert taken(feed) == [b"001", 1]
        push(feed, 2, 3)
        assert not feed.attach(2)
        assert feed.attach(3)
        push(feed, 4)
        assert taken(feed) == [b"004"]

    def test_it_is_let_go_once(self, feed: Feed) -> None:
        """What comes behind the capture is derived from it: a later one would skip it.

        So a second capture is of no use while the first one waits.
        """
        feed.let_go(Capture(0, ()))
        push(feed, 1)
        feed.let_go(Capture(1, ()))
        assert taken(feed) == [0]

    def test_a_sink_that_is_away_is_not_let_go(self) -> None:
        """A feed that is not live needs no capture."""
        feed = Feed(0)
        feed.let_go(Capture(0, ()))
        assert feed.is_empty
        assert feed.pop() is None


@attrs.define
class Waiting:
    """A thread that asks whether there is room."""

    feed: Feed
    answers: list[bool] = attrs.Factory(list)
    has_begun: threading.Event = attrs.Factory(threading.Event)

    def answer_to(self, change: Callable[[], object]) -> bool:
        """Make a change once the thread waits, and give the thread's answer."""
        thread = threading.Thread(target=self._ask)
        thread.start()
        assert self.has_begun.wait(SECONDS_MAX)
        change()
        thread.join(SECONDS_MAX)
        assert not thread.is_alive()
        return self.answers[0]

    def _ask(self) -> None:
        clock = self.feed.clock

        def tell() -> float:
            self.has_begun.set()
            return clock()

        # The clock is read first of all, before the lock is taken.
        self.feed.clock = tell
        self.answers.append(self.feed.has_room())


class TestRoom:
    """How long a full window is waited for."""

    @pytest.fixture(autouse=True)
    def _wait_long(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let what must come have time to."""
        monkeypatch.setattr(feed_module, "ROOM_WAIT_SECONDS_MAX", SECONDS_MAX)

    def test_a_window_that_is_just_full_has_room(self, feed: Feed) -> None:
        """Up to the bound, inclusive, nobody waits."""
        push(feed, 1, 2, 3, 4)
        assert feed.has_room()

    def test_no_window_has_room(self, feed: Feed) -> None:
        """A sink that is away or let go is not waited for."""
        push(feed, 1, 2, 3, 4, 5, 6)
        feed.let_go(Capture(6, ()))
        assert feed.has_room()
        feed.detach()
        assert feed.has_room()

    def test_a_full_window_has_no_room(
        self, feed: Feed, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """When the time is up a window that is more than half full has no room."""
        monkeypatch.setattr(feed_module, "ROOM_WAIT_SECONDS_MAX", 0.02)
        push(feed, 1, 2, 3, 4, 5)
        assert not feed.has_room()
        waiting = Waiting(feed)
        assert not waiting.answer_to(lambda: [feed.pop(), feed.pop()])
        assert feed.pop() is not None
        assert feed.has_room()

    def test_half_of_it_is_enough(self, feed: Feed) -> None:
        """Whoever waits goes on as soon as half of the window is free."""
        push(feed, 1, 2, 3, 4, 5)
        assert Waiting(feed).answer_to(lambda: [feed.pop() for _ in range(3)])

    def test_a_sink_that_goes_away_ends_the_wait(self, feed: Feed) -> None:
        """Nobody waits for a sink whose connection is gone."""
        push(feed, 1, 2, 3, 4, 5)
        assert Waiting(feed).answer_to(feed.detach)

    def test_events_without_output_take_room_too(self, feed: Feed) -> None:
        """A window is bounded also where events have no outputs."""
        for sequence in range(1, 1001):
            feed.push([toy.outputs(sequence, [b""])], sequence)
        feed.clock = iter([0.0, SECONDS_MAX]).__next__
        assert not feed.has_room()


class TestPipelines:
    """A sink that takes some pipelines' outputs only."""

    def test_others_are_muted(self) -> None:
        """Events of other pipelines come without output, and are not left out."""
        feed = Feed(0, pipelines=frozenset({1}))
        assert feed.attach(0)
        pieces = [toy.outputs(1, [b"a", b"b"]), toy.outputs(3, [b"c", b"d"])]
        feed.push([pieces[0], attrs.evolve(pieces[1], pipeline=1)], 4)
        found = [each for each in drain(feed) if isinstance(each, Outputs)]
        assert found == [toy.outputs(1, [b"", b""]), pieces[1]]

    def test_what_was_cut_is_still_its_pipelines(self) -> None:
        """A sink that goes live amid outputs gets the rest if they are its own."""
        feed = Feed(0, pipelines=frozenset({1}))
        assert feed.attach(1)
        feed.push([attrs.evolve(toy.outputs(1, [b"a", b"b"]), pipeline=1)], 2)
        assert taken(feed) == [b"b"]
