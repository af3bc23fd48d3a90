"""The standard library's modules as the simulated machine has them.

Just what the server uses of `threading`, `queue`, `time`, `select`, `selectors`,
`socket`, `fcntl` and `uuid`. A module is made of functions that ask for the process
that is running now.
"""

import errno
import itertools
import select
import selectors
import socket
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import ModuleType
from typing import Any, Self

import attrs

from tests.simulator.network import LINGER, End, Network
from tests.simulator.processor import (
    Condition,
    Event,
    Lock,
    Process,
    Queue,
    Thread,
    running,
    sleep,
)

_descriptors = itertools.count(1000)


@attrs.define(eq=False)
class Wire:
    """Which network the machine is on."""

    network: Network
    ids: "itertools.count[int]" = attrs.Factory(itertools.count)


wire = Wire(Network())


@attrs.define(eq=False)
class Socket:
    """A socket of the server: a listener once it is bound, else a connection's."""

    family: int = socket.AF_INET
    kind: int = socket.SOCK_STREAM
    end: End | None = None
    number: int = attrs.Factory(lambda: next(_descriptors))
    _process: Process = attrs.Factory(lambda: running.process)
    _network: Network = attrs.Factory(lambda: wire.network)
    _port: int = 0
    _resets: bool = False

    def fileno(self) -> int:
        """The descriptor."""
        return self.number

    def settimeout(self, _: float | None) -> None:
        """Never block: nothing here does."""

    def bind(self, address: tuple[str, int]) -> None:
        """Take a port."""
        self._port = address[1]

    def listen(self, _: int) -> None:
        """Let others connect."""
        self._process.pause()
        if not self._process.is_dead:
            self._network.backlogs[self._port] = deque()

    def getsockname(self) -> tuple[str, int]:
        """The address."""
        return "127.0.0.1", self._port

    def accept(self) -> "tuple[Socket, tuple[str, int]]":
        """Take the next connection; raises BlockingIOError where there is none."""
        self._process.pause()
        backlog = self._network.backlogs.get(self._port)
        if not backlog:
            raise BlockingIOError
        end = backlog.popleft()
        return Socket(end=self._network.own(end)), ("127.0.0.1", int(end.name))

    def setsockopt(self, level: int, name: int, value: object) -> None:
        """Heed how to close."""
        if (level, name) == (socket.SOL_SOCKET, socket.SO_LINGER):
            assert isinstance(value, bytes)
            self._resets = bool(LINGER.unpack(value)[0])
            assert self.end is not None
            self.end.resets_at_death = self._resets

    @property
    def _end(self) -> End:
        assert self.end is not None
        if self.end.is_closed:
            raise OSError(errno.EBADF, "Bad file descriptor")
        return self.end

    def send(self, data: bytes | bytearray | memoryview) -> int:
        """Send what there is room for."""
        self._process.pause()
        return self._end.send(bytes(data))

    def sendmsg(self, buffers: Iterable[bytes | memoryview]) -> int:
        """Send what there is room for of all of these."""
        return self.send(b"".join(buffers))

    def recv(self, size: int) -> bytes:
        """Receive what is there."""
        self._process.pause()
        return self._end.receive(size)

    def shutdown(self, _: int) -> None:
        """Send no more."""
        self._process.pause()
        self._end.finish()

    def close(self) -> None:
        """Close it, unless the process ended, which has closed it."""
        if self._process.is_dead:
            return
        if self.end is not None:
            self.end.close(is_reset=self._resets)
        else:
            for end in self._network.backlogs.pop(self._port, ()):
                end.close(is_reset=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def events(self) -> int:
        """Say what a poll would."""
        if self.end is None:
            return select.POLLIN if self._network.backlogs.get(self._port) else 0
        if self.end.is_closed:
            return 0
        readable = select.POLLIN if self.end.is_readable else 0
        return readable | (select.POLLOUT if self.end.is_writable else 0)


@attrs.define(eq=False)
class PairEnd:
    """One of two sockets within the process: the first reads, the other writes."""

    box: bytearray
    number: int = attrs.Factory(lambda: next(_descriptors))
    _process: Process = attrs.Factory(lambda: running.process)

    def fileno(self) -> int:
        """The descriptor."""
        return self.number

    def settimeout(self, _: float | None) -> None:
        """Never block: nothing here does."""

    def send(self, data: bytes) -> int:
        """Let the other have it."""
        self._process.pause()
        self.box += data
        return len(data)

    def recv(self, size: int) -> bytes:
        """Take what is there."""
        self._process.pause()
        if not self.box:
            raise BlockingIOError
        data = bytes(self.box[:size])
        del self.box[:size]
        return data

    def close(self) -> None:
        """Close it."""

    def events(self) -> int:
        """Say what a poll would."""
        return select.POLLIN if self.box else 0


_by_descriptor: dict[int, Any] = {}


def _socketpair() -> tuple[PairEnd, PairEnd]:
    box = bytearray()
    pair = PairEnd(box), PairEnd(box)
    _by_descriptor[pair[0].number] = pair[0]
    return pair


def _events(thing: object) -> int:
    """Say what is ready of a socket, a selector, or whatever has a descriptor."""
    if isinstance(thing, Selector):
        return select.POLLIN if thing.ready() else 0
    if isinstance(thing, Socket | PairEnd):
        return thing.events()
    number = thing if isinstance(thing, int) else thing.fileno()  # type: ignore[attr-defined]
    found: Socket | PairEnd = _by_descriptor[number]
    return found.events()


class KeyMap(dict[object, selectors.SelectorKey]):
    """What a selector waits for; to ask for what is closed raises ValueError."""

    def __contains__(self, thing: object) -> bool:
        """Say whether it is waited for."""
        found = super().__contains__(thing)
        is_closed = isinstance(thing, Socket) and thing.end and thing.end.is_closed
        if is_closed and not found:
            raise ValueError("Invalid file descriptor: -1")
        return found


@attrs.define(eq=False)
class Selector:
    """As `selectors.DefaultSelector`, one inside the other too."""

    _keys: KeyMap = attrs.Factory(KeyMap)
    _process: Process = attrs.Factory(lambda: running.process)

    def register(self, thing: Any, events: int, data: object = None) -> None:  # noqa: ANN401
        """Wait for this too."""
        if thing in self._keys:
            raise KeyError(thing)
        self._keys[thing] = selectors.SelectorKey(thing, 0, events, data)

    def unregister(self, thing: object) -> None:
        """Wait no more for this."""
        del self._keys[thing]

    def get_map(self) -> Mapping[object, selectors.SelectorKey]:
        """Give what is waited for."""
        return self._keys

    def ready(self) -> list[tuple[selectors.SelectorKey, int]]:
        """Give what is ready now."""
        masks = {
            selectors.EVENT_READ: select.POLLIN,
            selectors.EVENT_WRITE: select.POLLOUT,
        }
        return [
            (key, key.events)
            for key in self._keys.values()
            if _events(key.fileobj) & masks[key.events]
        ]

    def select(self, seconds: float | None = None) -> list[Any]:
        """Wait for any of them."""
        self._process.wait(lambda: bool(self.ready()), seconds)
        return self.ready()


@attrs.define(eq=False)
class Poll:
    """As `select.poll()`."""

    _masks: dict[int, int] = attrs.Factory(dict)
    _things: dict[int, Any] = attrs.Factory(dict)
    _process: Process = attrs.Factory(lambda: running.process)

    def register(self, thing: Any, mask: int) -> None:  # noqa: ANN401
        """Wait for this too, or for something else of it."""
        number = thing if isinstance(thing, int) else thing.fileno()
        self._things[number] = _by_descriptor[number] if thing is number else thing
        self._masks[number] = mask

    def ready(self) -> list[tuple[int, int]]:
        """Give what is ready now."""
        found = [
            (number, _events(thing) & self._masks[number])
            for number, thing in self._things.items()
        ]
        return [(number, events) for number, events in found if events]

    def poll(self, milliseconds: float | None = None) -> list[tuple[int, int]]:
        """Wait for any of them."""
        seconds = None if milliseconds is None else milliseconds / 1000
        self._process.wait(lambda: bool(self.ready()), seconds)
        return self.ready()


def _select(
    readers: Sequence[object], _w: object, _x: object, seconds: float | None = None
) -> tuple[list[object], list[object], list[object]]:
    def ready() -> list[object]:
        return [each for each in readers if _events(each) & select.POLLIN]

    running.process.wait(lambda: bool(ready()), seconds)
    return ready(), [], []


def _create_connection(address: tuple[str, int], _: float) -> Socket:
    running.process.pause()
    return Socket(end=wire.network.own(wire.network.dial(address[1])))


def _ioctl(connection: Socket, _: int, answer: Any) -> None:  # noqa: ANN401
    running.process.pause()
    assert connection.end is not None
    answer[0] = connection.end.unacknowledged


def _now() -> float:
    return running.process.clock.now


def _wall_ns() -> int:
    return running.process.clock.wall_ns


def _uuid4() -> uuid.UUID:
    return uuid.UUID(int=next(wire.ids))


def _module(name: str, base: ModuleType | None, **names: object) -> ModuleType:
    made = ModuleType(name)
    vars(made).update(
        {k: v for k, v in vars(base).items() if k.isupper()} if base else {}
    )
    vars(made).update(names)
    return made


def modules() -> dict[str, ModuleType]:
    """Give the modules, by name."""
    now: Callable[[], float] = _now
    return {
        "threading": _module(
            "threading",
            None,
            Lock=Lock,
            Condition=Condition,
            Event=Event,
            Thread=Thread,
        ),
        "queue": _module("queue", None, Queue=Queue, SimpleQueue=Queue),
        "time": _module(
            "time",
            None,
            monotonic=now,
            perf_counter=now,
            time_ns=_wall_ns,
            sleep=sleep,
        ),
        "select": _module("select", select, select=_select, poll=Poll),
        "selectors": _module(
            "selectors", selectors, DefaultSelector=Selector, BaseSelector=Selector
        ),
        "socket": _module(
            "socket",
            socket,
            socket=Socket,
            socketpair=_socketpair,
            create_connection=_create_connection,
        ),
        "fcntl": _module("fcntl", None, ioctl=_ioctl),
        "uuid": _module("uuid", None, uuid4=_uuid4),
    }
