"""The streams over all connections: one holder each, and points that only rise."""

import attrs
import pytest

from alphabet.connector import streams as streams_module
from alphabet.connector.frames import NO_POINT
from alphabet.connector.streams import NONE, Stream, StreamError, Streams
from log.block import Point


@attrs.define(eq=False)
class Connection:
    """A holder that notes what it is told."""

    identity: tuple[bytes, bytes]
    taken_over: list[int] = attrs.Factory(list)
    freed_count: int = 0

    def take_over(self, stream_id: int) -> None:
        """Note it."""
        self.taken_over.append(stream_id)

    def freed(self) -> None:
        """Note it."""
        self.freed_count += 1


def connection(instance: bytes = b"i") -> Connection:
    """Make a holder of program `p`."""
    return Connection((b"p", instance))


def claimed(streams: Streams, stream_id: int, holder: Connection) -> Stream:
    """Claim a stream, which must be granted."""
    stream = streams.claim(stream_id, b"name", holder)
    assert stream is not None
    return stream


class TestClaim:
    """Who may hold a stream."""

    def test_points_of_the_log_are_known(self) -> None:
        """A stream begins where the log has its point, and without one at none."""
        streams = Streams.begin([Point(1, 5, b"name"), Point(2, NO_POINT, b"name")])
        found = [claimed(streams, each, connection()) for each in (1, 2, 3)]
        assert [(each.durable, each.taken) for each in found] == [
            (5, 5),
            (NONE, NONE),
            (NONE, NONE),
        ]
        assert [each.point for each in found] == [5, NO_POINT, NO_POINT]

    def test_one_holder_at_a_time(self) -> None:
        """Another instance is refused, and told as soon as the stream is free."""
        streams = Streams()
        holder, other = connection(), connection(b"other")
        stream = claimed(streams, 1, holder)
        assert streams.claim(1, b"name", other) is None
        assert stream.holder is holder
        assert streams.take_touched() == []
        streams.release(stream, holder)
        assert streams.take_touched() == [other]
        assert other.freed_count == 1
        claimed(streams, 1, other)

    @pytest.mark.parametrize("identity", [(b"p", b"x"), (b"x", b"i"), (b"i", b"p")])
    def test_program_and_instance_must_both_be_equal(
        self, identity: tuple[bytes, bytes]
    ) -> None:
        """Nobody takes over from a connection of another program or instance."""
        streams = Streams()
        holder = connection()
        claimed(streams, 1, holder)
        assert streams.claim(1, b"name", Connection(identity)) is None
        assert not holder.taken_over

    def test_a_newer_connection_takes_over(self) -> None:
        """The same program and instance takes its stream over; the older is told."""
        streams = Streams()
        older, newer = connection(), connection()
        stream = claimed(streams, 1, older)
        assert claimed(streams, 1, newer) is stream
        assert older.taken_over == [1]
        assert streams.take_touched() == [older]
        streams.release(stream, older)
        assert stream.holder is newer

    def test_another_name(self) -> None:
        """A stream that the log knows by a name is refused under any other."""
        streams = Streams.begin([Point(1, 5, b"name")])
        with pytest.raises(StreamError, match="named b'name', not b'other'"):
            streams.claim(1, b"other", connection())

    def test_an_unused_stream_is_forgotten(self) -> None:
        """A stream of which nothing was ever taken may come again by another name."""
        streams = Streams()
        holder = connection()
        streams.release(claimed(streams, 1, holder), holder)
        assert streams.claim(1, b"other", holder) is not None

    def test_what_is_known_is_bounded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """One stream too many is refused, until one is forgotten."""
        size = streams_module.STREAM_BYTES + len(b"name")
        monkeypatch.setattr(streams_module, "STREAMS_BYTES_MAX", 2 * size)
        streams = Streams()
        holder = connection()
        first = claimed(streams, 1, holder)
        claimed(streams, 2, holder)
        with pytest.raises(StreamError, match="one too many"):
            streams.claim(3, b"name", holder)
        streams.release(first, holder)
        claimed(streams, 3, holder)


class TestSettle:
    """What becomes durable."""

    def test_the_holder_is_told(self) -> None:
        """Whoever holds a stream when it becomes durable is touched, once."""
        streams = Streams()
        older, newer = connection(), connection(b"newer")
        stream = claimed(streams, 1, older)
        stream.taken = 7
        streams.release(stream, older)
        claimed(streams, 1, newer)
        streams.settle([Point(1, 7, b"name")])
        assert stream.durable == 7
        assert streams.take_touched() == [newer]
        assert streams.take_touched() == []

    def test_a_stream_in_flight_is_kept(self) -> None:
        """What is in flight survives its holder, and so does the stream's name."""
        streams = Streams()
        holder = connection()
        stream = claimed(streams, 1, holder)
        stream.taken = 7
        streams.release(stream, holder)
        streams.settle([Point(1, 7, b"name")])
        assert claimed(streams, 1, connection(b"new")).durable == 7
