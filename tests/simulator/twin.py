"""The server's code, executed a second time: against the simulated machine.

The modules that touch threads, clocks or sockets are imported anew while the simulated
ones stand in for the standard library's. All that is pure is shared with everybody.
"""

import functools
import importlib
import itertools
import math
import sys
from types import SimpleNamespace
from typing import Any

import attrs

from alphabet.connector.inbound import ConnectorIn
from tests.simulator import system
from tests.simulator.ledger import require

EDGE = [
    "alphabet.network.waker",
    "alphabet.network.keepalive",
    "alphabet.network.closing",
    "alphabet.network.dialing",
    "alphabet.network.outstanding",
    "alphabet.source.connection",
    "alphabet.source.rests",
    "alphabet.network.listening",
    "alphabet.network.inherited_sockets",
    "alphabet.thread",
    "alphabet.source.inbox",
    "alphabet.sink.feed",
    "alphabet.sink.subscription",
    "alphabet.snapshotter",
    "alphabet.sink.tcp_sink",
    "alphabet.sink.console_sink",
    "alphabet.connector.sink",
    "alphabet.source.reception",
    "alphabet.source.plain",
    "alphabet.connector.sources",
    "alphabet.startup",
    "alphabet.server",
    "alphabet.assembly",
]
"""What touches threads, clocks or sockets; each stands behind those it imports."""

FEED_BYTES_MAX = 150
BATCHES_AHEAD_MAX = 3
"""How many batches reach a full window: flushed, sealed, and computed behind that."""


@attrs.define
class Numbers:
    """Numbers that nobody has yet in this run."""

    left: "itertools.count[int]" = attrs.Factory(itertools.count)


_numbers = Numbers()


def begin() -> None:
    """Begin a run: count from nothing."""
    load()
    _numbers.left = itertools.count()
    system.wire.ids = itertools.count()


def leaf(name: str) -> str:
    """Give a module's own name."""
    return name.rpartition(".")[2]


@functools.cache
def load() -> Any:  # noqa: ANN401 - each attribute is a module
    """Give the modules of `EDGE`, as they are on the simulated machine."""
    stand_ins = system.modules()
    kept = {name: importlib.import_module(name) for name in [*EDGE, *stand_ins]}
    for name in EDGE:
        del sys.modules[name]
    sys.modules.update(stand_ins)
    try:
        made = {leaf(name): importlib.import_module(name) for name in EDGE}
    finally:
        sys.modules.update(kept)
        for name in EDGE:
            setattr(sys.modules[name.rpartition(".")[0]], leaf(name), kept[name])
    twin = SimpleNamespace(**made)
    _adapt(twin)
    return twin


def _adapt(twin: Any) -> None:  # noqa: ANN401
    """Make small what would take too long to fill, and same what is by chance."""
    twin.assembly.Feed = functools.partial(
        watched(twin.feed.Feed), window_bytes_max=FEED_BYTES_MAX
    )
    twin.assembly._raise_file_limit = lambda _: math.inf  # noqa: SLF001
    twin.thread.name_thread = lambda _: None
    # What is kept in sets comes out in an order that addresses decide.
    twin.sources.ConnectorIn = numbered(ConnectorIn)
    twin.reception.Connection = numbered(twin.connection.Connection)


def watched(base: Any) -> type:  # noqa: ANN401
    """Give a feed that counts the batches which come to a window that is full."""

    class Watched(base):  # type: ignore[misc]
        """Breaks the run where a sink that does not keep up is not let go."""

        _ahead = 0

        def push(self, outputs: Any, last_sequence: int) -> None:  # noqa: ANN401
            super().push(outputs, last_sequence)
            is_over = self._is_live and self._window_bytes > self.window_bytes_max
            is_held = is_over and self._let_go is None
            self._ahead = self._ahead + bool(outputs) if is_held else 0
            bounded = self._ahead <= BATCHES_AHEAD_MAX
            require(bounded, "a sink that does not keep up is not let go")

        def pop_outputs(self) -> Any:  # noqa: ANN401
            found = super().pop_outputs()
            if self._window_bytes <= self.window_bytes_max:
                self._ahead = 0
            return found

    return Watched


def numbered(base: Any) -> type:  # noqa: ANN401
    """Give a class whose objects are ordered in sets by when they were made."""

    class Numbered(base):  # type: ignore[misc]
        """Hashes by its number."""

        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments)
            self.number = next(_numbers.left)

        def __hash__(self) -> int:
            return self.number

        def __eq__(self, other: object) -> bool:
            return self is other

    return Numbered
