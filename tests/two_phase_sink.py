"""A two-phase sink that keeps what it is told to keep, and checks who tells it.

`Memory` is what such a sink has on its disk, `Session` its part of one connection;
both are written from the protocol alone. `Sink` puts them behind a socket. Every rule
that the peer breaks is an assertion that fails.
"""

import contextlib
import select
import socket
import struct
import threading
from collections.abc import Callable
from typing import Self

import attrs

from alphabet.connector.frames import (
    Error,
    Hello,
    Message,
    Notify,
    NotifyAck,
    Ok,
    decode_frame,
    encode_frame,
)
from alphabet.connector.phases import (
    ListUncommitted,
    Phase,
    Phase1,
    Phase2,
    Reply,
    ReplyUncommitted,
    decode_phase,
    encode_phase,
)
from tests.process import SECONDS_MAX, wait_until

_POLL_SECONDS = 0.01
_RECEIVE_BYTES = 1 << 20
_RESET = struct.pack("ii", 1, 0)


@attrs.define
class Memory:
    """What a sink has kept: committed bytes, and transactions that it said yes to.

    `asked` are all transactions that there ever were.
    """

    committed: bytearray = attrs.Factory(bytearray)
    prepared: dict[bytes, bytes] = attrs.Factory(dict)
    asked: set[bytes] = attrs.Factory(set)
    commits: int = 0
    aborts: int = 0


@attrs.define
class Session:
    """One connection; what it has not asked its memory to keep goes with it."""

    memory: Memory
    is_willing: Callable[[], bool] = lambda: True
    hello: Hello | None = None
    stream: Notify | None = None
    errors: list[bytes] = attrs.Factory(list)
    staged: bytearray = attrs.Factory(bytearray)
    running: bytes | None = None
    is_listed: bool = False
    message_sizes: list[int] = attrs.Factory(list)

    def receive(self, body: bytes) -> list[bytes]:
        """Take a frame, without its length; give the frames that answer it."""
        frame = decode_frame(body)
        match frame:
            case Hello():
                assert self.hello is None
                assert frame.version == b"v0.0.1"
                self.hello = frame
                return [encode_frame(Ok(0))]
            case Notify():
                assert self.hello is not None
                assert self.stream is None
                assert frame.stream_id == 1
                self.stream = frame
                # As those do that have started anew: it is not to be heeded.
                return [encode_frame(NotifyAck(is_success=True, stream_id=1, point=0))]
            case Message(stream_id=0):
                assert self.stream is not None
                return self._take_phase(decode_phase(bytes(frame.payload)))
            case Message():
                return self._take_outputs(frame)
            case Error():
                self.errors.append(frame.reason)
                return []
        raise AssertionError(f"{frame} is not for a sink")

    def _take_outputs(self, message: Message) -> list[bytes]:
        """Take bytes that follow those before them, while no round runs."""
        assert self.is_listed
        assert self.running is None
        assert not self.memory.prepared
        assert message.stream_id == 1
        offset = len(self.memory.committed) + len(self.staged)
        assert message.message_id == offset
        assert message.payload
        self.message_sizes.append(len(message.payload))
        self.staged += message.payload
        return []

    def _take_phase(self, phase: Phase) -> list[bytes]:
        memory = self.memory
        match phase:
            case ListUncommitted():
                self.is_listed = True
                return [
                    encode_phase(ReplyUncommitted(phase.tag, tuple(memory.prepared)))
                ]
            case Phase1():
                return [self._prepare(phase)]
            case Phase2():
                self._settle(phase)
                return []
        raise AssertionError(f"{phase} is not for a sink")

    def _prepare(self, phase: Phase1) -> bytes:
        memory = self.memory
        assert self.running is None
        assert phase.transaction not in memory.asked
        memory.asked.add(phase.transaction)
        start = len(memory.committed)
        assert self.staged
        assert phase.ranges == ((1, start, start + len(self.staged)),)
        self.running = phase.transaction
        is_commit = self.is_willing()
        if is_commit:
            memory.prepared[phase.transaction] = bytes(self.staged)
        return encode_phase(Reply(phase.transaction, is_commit))

    def _settle(self, phase: Phase2) -> None:
        memory = self.memory
        assert phase.transaction in memory.asked
        data = memory.prepared.pop(phase.transaction, None)
        if phase.is_commit:
            assert data is not None
            memory.committed += data
            memory.commits += 1
        else:
            memory.aborts += 1
        self.staged.clear()
        self.running = None


@attrs.define(eq=False)
class Sink:
    """Listens on 127.0.0.1 and takes one connection after the other.

    What the attributes ask for holds from the next frame on. `is_away` closes the
    connection with a reset, and listens no more until it is back; `hang_ups` is how
    often it still closes the connection as soon as it has answered a PHASE1;
    `greeting` is said at once to whoever connects.
    """

    memory: Memory = attrs.Factory(Memory)
    is_willing: Callable[[], bool] = lambda: True
    is_stalled: bool = False
    is_away: bool = False
    hang_ups: int = 0
    answer_seconds: float = 0.0
    greeting: bytes = b""
    port: int = attrs.field(default=0, init=False)
    sessions: list[Session] = attrs.field(factory=list, init=False)
    _failures: list[BaseException] = attrs.field(factory=list, init=False)
    _is_listening: bool = attrs.field(default=False, init=False)
    _ending: threading.Event = attrs.field(factory=threading.Event, init=False)
    _thread: threading.Thread = attrs.field(init=False)

    def __enter__(self) -> Self:
        """Listen."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.port = listener.getsockname()[1]
        self._thread = threading.Thread(target=self._run, name="sink", daemon=True)
        self._thread.start()
        wait_until(lambda: self._is_listening or self.is_away, "a sink that listens")
        return self

    def __exit__(self, *_: object) -> None:
        """Go away for good; raise what the peer did wrong."""
        self._ending.set()
        self._thread.join(SECONDS_MAX)
        if self._failures:
            raise self._failures[0]

    @property
    def address(self) -> str:
        """Where it listens, as `--connector-out` takes it."""
        return f"127.0.0.1:{self.port}"

    @property
    def errors(self) -> list[bytes]:
        """The reasons of all ERROR frames that came."""
        return [reason for session in self.sessions for reason in session.errors]

    @property
    def committed_bytes(self) -> int:
        """How many bytes have taken effect."""
        return len(self.memory.committed)

    def wait_committed(self, size: int) -> None:
        """Wait until that many bytes have taken effect."""
        wait_until(
            lambda: self.committed_bytes >= size or self._failures,
            f"{size} bytes committed",
        )
        assert not self._failures

    def wait_error(self, reason: str) -> None:
        """Wait for an ERROR frame with a reason like this."""
        wait_until(
            lambda: any(reason.encode() in each for each in self.errors),
            f"an ERROR frame: {reason}",
        )

    def wait_sessions(self, count: int) -> None:
        """Wait until so many peers have said hello, in all."""
        wait_until(
            lambda: sum(each.hello is not None for each in self.sessions) >= count,
            f"{count} sessions",
        )

    def leave(self) -> None:
        """Go away: the connection is reset, and nobody listens."""
        self.is_away = True
        wait_until(lambda: not self._is_listening, "a sink that is away")

    def come_back(self) -> None:
        """Listen again, on the same port."""
        self.is_away = False
        wait_until(lambda: self._is_listening, "a sink that is back")

    def cut(self) -> None:
        """Reset the connection, and be there again."""
        self.leave()
        self.come_back()

    def _run(self) -> None:
        while not self._ending.is_set():
            if self.is_away:
                self._ending.wait(_POLL_SECONDS)
                continue
            with socket.create_server(("127.0.0.1", self.port)) as listener:
                listener.settimeout(_POLL_SECONDS)
                self._is_listening = True
                while not self._is_over:
                    with contextlib.suppress(TimeoutError, OSError):
                        connection, _ = listener.accept()
                        self._serve(connection)
                listener.close()
            self._is_listening = False

    @property
    def _is_over(self) -> bool:
        return self.is_away or self._ending.is_set()

    def _serve(self, connection: socket.socket) -> None:
        session = Session(self.memory, self.is_willing)
        self.sessions.append(session)
        received = bytearray()
        with connection:
            connection.sendall(self.greeting)
            while not self._is_over:
                ready = (
                    not self.is_stalled
                    and select.select([connection], [], [], _POLL_SECONDS)[0]
                )
                if not ready:
                    self._ending.wait(_POLL_SECONDS if self.is_stalled else 0)
                    continue
                data = connection.recv(_RECEIVE_BYTES)
                if not data:
                    return
                received += data
                for body in _cut(received):
                    self._answer(connection, session, body)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)

    def _answer(self, connection: socket.socket, session: Session, body: bytes) -> None:
        try:
            answers = session.receive(body)
        except Exception as error:
            self._failures.append(error)
            raise OSError("the peer broke a rule") from error
        if answers:
            self._ending.wait(self.answer_seconds)
            connection.sendall(b"".join(answers))
        if session.running is not None and self.hang_ups:
            self.hang_ups -= 1
            raise OSError("it hangs up")


def _cut(received: bytearray) -> list[bytes]:
    """Take the whole frames out of what was received, each without its length."""
    found = []
    start = 0
    while len(received) >= start + 4:
        end = start + 4 + int.from_bytes(received[start : start + 4])
        if end > len(received):
            break
        found.append(bytes(received[start + 4 : end]))
        start = end
    del received[:start]
    return found
