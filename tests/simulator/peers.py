"""Those who send and receive, as they are told: a step at a time, on their own disks.

A sender knows what it will send; a receiver keeps what it has read. Each may be cut
off, or die and come back. What they are told is checked against the ledger.
"""

import contextlib
from collections.abc import Callable
from typing import Protocol

import attrs

from alphabet.connector.client import ConnectorClient, ServerFaultError, State
from alphabet.connector.frames import (
    FRAME_BYTES_MAX,
    NO_POINT,
    OUTPUTS_STREAM,
    PHASES_STREAM,
    Ack,
    Message,
    NotifyAck,
    decode_frame,
)
from alphabet.connector.phases import Phase2, decode_phase
from alphabet.framing import FrameReader, decode_length
from tests.simulator.ledger import Ledger, is_good, require
from tests.simulator.network import End, Network
from tests.simulator.stubborn import StubbornClient
from tests.two_phase_sink import Memory, Session

PLAIN_PORT, STREAM_PORT, OUT_PORT, TWO_PHASE_PORT = 1, 2, 3, 4
FOUL_FRAME = b"\xff"
"""A header that says more than the server takes."""
HALF_FRAME = b"\x60half"
"""A frame that ends before its header says."""


class Peer(Protocol):
    """A sender or a receiver."""

    def step(self, size: int) -> bool:
        """Do what comes next, with so many bytes at most; say whether it was anything.

        Raises BrokenPromiseError for what the server must not do.
        """

    def cut(self) -> None:
        """Die."""


@attrs.define(eq=False)
class PlainSender:
    """Sends once, half-closes, and waits for the receipt; a cut is its end."""

    network: Network
    ledger: Ledger
    source: bytes
    payloads: list[bytes]
    tail: bytes = b""
    """What comes last, and is no frame: `FOUL_FRAME` or `HALF_FRAME`."""
    end: End | None = None
    has_receipt: bool = False
    is_over: bool = False
    data: bytes = b""

    def __attrs_post_init__(self) -> None:
        """Write all frames."""
        self.ledger.submit(self.source, self.payloads)
        self.data = b"".join(bytes([len(each)]) + each for each in self.payloads)
        self.data += self.tail

    def step(self, size: int) -> bool:
        """Do what comes next; say whether anything was done."""
        if self.is_over:
            return False
        end = self.end
        if end is None:
            end = self.end = self.network.connect(PLAIN_PORT)
            if end is not None:
                end.peer.watch_close = self._check_receipt
            return end is not None
        try:
            return self._go_on(end, size)
        except BlockingIOError:
            return False
        except OSError:
            self.is_over = True
            end.close()
            return True

    def _go_on(self, end: End, size: int) -> bool:
        if self.data and not end.is_reset:
            self.data = self.data[end.send(self.data[:size]) :]
            return True
        if not end.is_finished and not end.is_reset:
            end.finish()
            return True
        require(not end.receive(size), "a plain sender was told something")
        require(end.is_reset or self.has_receipt, "a close that is no receipt")
        self.is_over = True
        end.close()
        return True

    def _check_receipt(self) -> None:
        assert self.end is not None
        self.has_receipt = True
        good = len(self.ledger.submitted[self.source])
        is_whole = self.ledger.stored[self.source] == good and not self.data
        require(
            is_whole and self.end.has_finish_arrived and not self.tail,
            "a receipt for what is not durable",
        )

    def cut(self) -> None:
        """Die."""
        if self.end is not None:
            self.end.close(is_reset=True)
            self.is_over = True


@attrs.define(eq=False)
class StreamSender:
    """Sends a stream by the connector protocol, again and again until it is durable."""

    network: Network
    ledger: Ledger
    stream_id: int
    source: bytes
    payloads: list[bytes]
    is_stubborn: bool = False
    end: End | None = None
    client: ConnectorClient | StubbornClient = attrs.field(init=False)
    unoffered: list[bytes] = attrs.field(init=False)
    unsent: bytes = b""

    def __attrs_post_init__(self) -> None:
        """Begin with the first message."""
        self.ledger.submit(self.source, self.payloads)
        self._begin()

    def _begin(self) -> None:
        kind = StubbornClient if self.is_stubborn else ConnectorClient
        self.client = kind(self.stream_id, b"name", self.source)
        self.unoffered = [len(each).to_bytes(4) + each for each in self.payloads]

    @property
    def is_over(self) -> bool:
        """Say whether all is durable."""
        return self.client.state is State.DONE and self.end is None

    def step(self, size: int) -> bool:
        """Do what comes next; say whether anything was done."""
        if self.is_over:
            return False
        if self.end is None:
            return self._connect()
        try:
            return self._talk(self.end, size)
        except ServerFaultError as error:
            is_fair = any(each in str(error) for each in ("HELLO", "taken over"))
            require(is_fair, f"the server ended a stream: {error}")
            self._lose()
        except OSError:
            self._lose()
        return True

    def _connect(self) -> bool:
        end = self.end = self.network.connect(STREAM_PORT)
        if end is None:
            return False
        reader = FrameReader(4, decode_length, FRAME_BYTES_MAX)
        end.peer.watch = lambda data: self._check_told(reader, data)
        self.unsent = b""
        self.client.connect()
        return True

    def _talk(self, end: End, size: int) -> bool:
        with contextlib.suppress(BlockingIOError):
            data = end.receive(size)
            if data:
                self.client.receive(data)
            else:
                self._lose()
            return True
        if self.client.state in {State.AWAY, State.DONE}:
            self._lose()
            return True
        if self.unoffered and self.client.has_room:
            self.client.offer(b"".join(self.unoffered[:size]))
            del self.unoffered[:size]
            if not self.unoffered:
                self.client.end()
        self.unsent += self.client.take()
        if not self.unsent:
            return False
        with contextlib.suppress(BlockingIOError):
            self.unsent = self.unsent[end.send(self.unsent[:size]) :]
            return True
        return False

    def _lose(self) -> None:
        self.client.lose()
        if self.end is not None:
            self.end.close()
            self.end = None

    def _check_told(self, reader: FrameReader, data: bytes) -> None:
        """Check that the server names no point before it is durable."""
        for body in reader.receive(data).payloads:
            match decode_frame(body):
                case Ack(points=points):
                    for _, point in points:
                        self._check_point(point)
                case NotifyAck(is_success=True, point=point):
                    self._check_point(point)

    def _check_point(self, point: int) -> None:
        if point == NO_POINT:
            return
        good, at = 0, 0
        for payload in self.payloads:
            at += 4 + len(payload)
            good += is_good(payload) and at <= point
        stored = self.ledger.stored[self.source]
        require(good <= stored, f"point {point} was acknowledged and is not durable")

    def cut(self) -> None:
        """Die, and begin anew with the same input."""
        if self.end is not None:
            self.end.close(is_reset=True)
            self.end = None
        self._begin()


@attrs.define(eq=False)
class Hearing:
    """One connection of the plain receiver; `start` is in the whole output."""

    end: End
    start: int
    read: int = 0

    @property
    def reach(self) -> int:
        """How far it has come, with what waits to be read or is on its way."""
        return self.start + self.read + len(self.end.unread) + len(self.end.peer.flight)


@attrs.define(eq=False)
class PlainReceiver:
    """Keeps what it reads, one connection after the other; may die with bytes unread.

    `covered` is how far it has the whole output. What it had not read when it died is
    sent again, unless the server crashed before that: it may have stored by then that
    TCP acknowledged it.
    """

    ledger: Ledger
    next_start: Callable[[], int]
    hearings: list[Hearing] = attrs.Factory(list)
    covered: int = 0
    is_away: bool = False
    lost_until: int = 0
    """How far came what it had not read when it died."""
    excused_until: int = 0
    """How much of that plain TCP cannot give back."""

    def take(self, end: End) -> bool:
        """Take a connection, unless it is away."""
        if self.is_away:
            return False
        start = self.next_start()
        reach = max([self.covered, *(each.reach for each in self.hearings)])
        is_excused = start <= self.excused_until
        lost = f"output bytes {reach} to {start} are left out"
        require(start <= reach or is_excused, lost)
        if start > reach:
            self.covered = start
        self.excused_until = 0
        hearing = Hearing(end, start)
        sent = start

        def watch(data: bytes) -> None:
            nonlocal sent
            self.ledger.check_sent(sent, data)
            sent += len(data)

        end.peer.watch = watch
        self.hearings.append(hearing)
        return True

    def step(self, size: int) -> bool:
        """Read from the oldest connection; say whether anything was read."""
        if not self.hearings:
            return False
        hearing = self.hearings[0]
        try:
            data = hearing.end.receive(size)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            self.hearings.pop(0)
            hearing.end.close()
            return True
        position = hearing.start + hearing.read
        require(
            self.ledger.output[position:].startswith(data), "a wrong output was read"
        )
        require(position <= self.covered, "outputs before these were never read")
        hearing.read += len(data)
        self.covered = max(self.covered, position + len(data))
        return True

    def cut(self) -> None:
        """Die: what is unread is lost, and the server's kernel learns of it."""
        for hearing in self.hearings:
            self._lose(hearing.reach, is_alone=hearing.end.peer.is_closed)
            hearing.end.close(is_reset=True)
        self.hearings.clear()

    def close(self) -> None:
        """Close all connections in good order, which is a reset if any is unread."""
        for hearing in self.hearings:
            self._lose(hearing.reach, is_alone=hearing.end.peer.is_closed)
            hearing.end.close()
        self.hearings.clear()

    def _lose(self, reach: int, *, is_alone: bool) -> None:
        """Note what was unread; of a connection that only we had, nobody can know."""
        self.lost_until = max(self.lost_until, reach)
        if is_alone:
            self.excused_until = max(self.excused_until, reach)

    def server_crashed(self) -> None:
        """Take note of what plain TCP cannot give back."""
        if self.covered < self.lost_until:
            self.excused_until = max(self.excused_until, self.lost_until)


@attrs.define(eq=False)
class TwoPhaseReceiver:
    """A two-phase sink: what it has committed is the whole output, each byte once."""

    ledger: Ledger
    decided: Callable[[], bytes]
    is_willing: bool = True
    is_away: bool = False
    memory: Memory = attrs.Factory(Memory)
    session: Session | None = None
    end: End | None = None
    reader: FrameReader = attrs.field(init=False)
    unsent: bytes = b""

    def take(self, end: End) -> bool:
        """Take a connection instead of the one before, unless it is away."""
        if self.is_away:
            return False
        self.cut()
        self.end = end
        self.session = Session(self.memory, lambda: self.is_willing)
        self.reader = FrameReader(4, decode_length, FRAME_BYTES_MAX)
        self.unsent = b""
        told = FrameReader(4, decode_length, FRAME_BYTES_MAX)
        end.peer.watch = lambda data: self._check_told(told, data)
        return True

    def _check_told(self, reader: FrameReader, data: bytes) -> None:
        """Check that outputs are durable, and commits come behind their record."""
        for body in reader.receive(data).payloads:
            frame = decode_frame(body)
            if not isinstance(frame, Message):
                continue
            if frame.stream_id == OUTPUTS_STREAM:
                self.ledger.check_sent(frame.message_id, bytes(frame.payload))
                continue
            assert frame.stream_id == PHASES_STREAM
            phase = decode_phase(bytes(frame.payload))
            if isinstance(phase, Phase2):
                is_decided = phase.transaction == self.decided()
                told = "a commit was told before its record was durable"
                require(is_decided or not phase.is_commit, told)
                if not phase.is_commit:
                    self.ledger.aborted.add(phase.transaction)

    def step(self, size: int) -> bool:
        """Read, or answer; say whether anything was done."""
        end = self.end
        if end is None:
            return False
        try:
            if self.unsent:
                self.unsent = self.unsent[end.send(self.unsent[:size]) :]
                return True
            return self._hear(end, size)
        except BlockingIOError:
            return False
        except OSError:
            self.cut()
            return True

    def _hear(self, end: End, size: int) -> bool:
        data = end.receive(size)
        if not data:
            end.close()
            self.end = None
            return True
        assert self.session is not None
        for body in self.reader.receive(data).payloads:
            self.unsent += b"".join(self.session.receive(body))
        committed = bytes(self.memory.committed)
        require(self.ledger.output.startswith(committed), "a wrong output took effect")
        return True

    def cut(self) -> None:
        """Die: what was not prepared is gone."""
        if self.end is not None:
            self.end.close(is_reset=True)
            self.end = None
