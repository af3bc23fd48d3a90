"""The network of the campaign, and its reader of what goes over the wire."""

import socket
from collections.abc import Iterator

import attrs
import pytest

from alphabet.connector.frames import (
    NO_POINT,
    Ack,
    Frame,
    Message,
    NotifyAck,
    Ok,
    encode_frame,
)
from alphabet.connector.phases import Phase1, Phase2, encode_phase
from tests import witness
from tests.process import SECONDS_MAX, wait_until
from tests.relay import Relay


@attrs.frozen
class Ends:
    """A connection through a relay, from both ends."""

    relay: Relay
    near: socket.socket
    far: socket.socket


def take(end: socket.socket, size: int) -> bytes:
    """Read so many bytes."""
    data = b""
    while len(data) < size:
        data += end.recv(size - len(data))
    return data


@pytest.fixture
def ends() -> Iterator[Ends]:
    """Give a connection through a relay."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        Relay(listener.getsockname()[1]) as relay,
    ):
        near = socket.create_connection(("127.0.0.1", relay.port), SECONDS_MAX)
        listener.settimeout(SECONDS_MAX)
        far, _ = listener.accept()
        far.settimeout(SECONDS_MAX)
        with near, far:
            yield Ends(relay, near, far)


class TestRelay:
    """What goes through it."""

    def test_bytes_go_both_ways(self, ends: Ends) -> None:
        """All bytes arrive in order, and are kept."""
        data = bytes(range(256)) * 1000
        ends.near.sendall(data)
        assert take(ends.far, len(data)) == data
        ends.far.sendall(b"answer")
        assert take(ends.near, 6) == b"answer"
        [link] = ends.relay.links
        assert bytes(link.onward.said) == data
        assert bytes(link.back.said) == b"answer"

    def test_a_half_close_is_one(self, ends: Ends) -> None:
        """A side that only ended its own direction still hears the other."""
        ends.near.shutdown(socket.SHUT_WR)
        assert ends.far.recv(1) == b""
        ends.far.sendall(b"x")
        ends.far.close()
        assert ends.near.recv(1) == b"x"
        assert ends.near.recv(1) == b""
        wait_until(lambda: ends.relay.is_idle, "the end")

    def test_a_cut_is_a_reset(self, ends: Ends) -> None:
        """Both sides are reset, and a new connection is a new one."""
        ends.relay.cut()
        for end in (ends.near, ends.far):
            with pytest.raises(ConnectionResetError):
                end.recv(1)
        assert ends.relay.is_idle

    def test_a_reset_is_passed_on(self, ends: Ends) -> None:
        """A side that dies with bytes unread is no half-close to the other."""
        ends.near.sendall(b"unread")
        wait_until(lambda: ends.relay.onward_bytes == 6, "the bytes")
        wait_until(lambda: ends.far.recv(6, socket.MSG_PEEK), "the bytes")
        ends.far.close()
        with pytest.raises(ConnectionResetError):
            ends.near.recv(1)

    def test_no_more_than_allowed(self, ends: Ends) -> None:
        """What goes onward is the allowance, to the byte."""
        ends.relay.allow(3)
        ends.near.sendall(b"abcdef")
        assert take(ends.far, 3) == b"abc"
        ends.relay.allow(2)
        assert take(ends.far, 2) == b"de"
        assert ends.relay.onward_bytes == 5
        ends.relay.allow(None)
        assert ends.far.recv(1) == b"f"

    def test_hung_up(self, ends: Ends) -> None:
        """Hanging up looks like a sender that ended after what was let through."""
        ends.relay.allow(3)
        ends.near.sendall(b"abcdef")
        assert take(ends.far, 3) == b"abc"
        ends.relay.hang_up()
        assert ends.far.recv(1) == b""

    def test_cut_at_an_answer(self, ends: Ends) -> None:
        """The answer at which a connection is cut still arrives, then the reset."""
        ends.relay.cut_at_answer(2)
        for answer in (b"one", b"two"):
            ends.far.sendall(answer)
            assert take(ends.near, 3) == answer
        for end in (ends.near, ends.far):
            with pytest.raises(ConnectionResetError):
                end.recv(1)

    def test_nobody_there(self) -> None:
        """A connection that leads nowhere is reset."""
        with Relay() as relay:
            address = ("127.0.0.1", relay.port)
            with (
                pytest.raises(ConnectionResetError),
                socket.create_connection(address, SECONDS_MAX) as end,
            ):
                end.recv(1)


def message(offset: int, payload: bytes) -> bytes:
    """Write a message with outputs."""
    return encode_frame(Message(1, offset, 0, b"key", payload))


class TestWitness:
    """What is read off the wire."""

    def test_points(self) -> None:
        """The highest point counts, in answers and acknowledgements; none is none."""
        said: list[Frame] = [
            Ok(3),
            NotifyAck(is_success=True, stream_id=1, point=NO_POINT),
            NotifyAck(is_success=False, stream_id=4, point=99),
            NotifyAck(is_success=True, stream_id=2, point=7),
            Ack(5, ((1, 20), (2, 6))),
        ]
        data = b"".join(encode_frame(each) for each in said)
        assert witness.acknowledged([data, data[:9]]) == {1: 20, 2: 7}

    def test_outputs(self) -> None:
        """The end of the furthest whole message counts."""
        whole = message(0, b"12345") + message(5, b"678")
        assert witness.shown([whole + message(8, b"9")[:-1]]) == 8

    def test_decisions(self) -> None:
        """A commit counts as far as its transaction went; an abort does not."""
        data = b"".join(
            [
                encode_phase(Phase1(b"one", ((1, 0, 8),))),
                encode_phase(Phase2(b"one", is_commit=True)),
                encode_phase(Phase1(b"two", ((1, 8, 9),))),
                encode_phase(Phase2(b"two", is_commit=False)),
            ]
        )
        assert witness.decided([data]) == 8
