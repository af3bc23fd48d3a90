"""How a state becomes bytes, and bytes a state.

Three ways, in this order: the state builder's own `dump` and `load`; the application
module's `serialize` and `deserialize`; pickle, as the last resort. A snapshot says
which way its states went, and only the same way leads back.

Pure. Pickle is never fed from a socket: only from the log's own snapshots, and only
for an application that offers nothing better.
"""

import pickle
from collections.abc import Callable
from typing import Any

import attrs

DUMP = "dump"
MODULE = "module"
PICKLE = "pickle"


@attrs.frozen
class StateCodec:
    """One way between a state and its bytes; `encoding` is its name in a snapshot."""

    encoding: str
    dump: Callable[[Any], bytes]
    load: Callable[[bytes], Any]


def choose_codec(state_builder: object, module: object) -> StateCodec:
    """Choose the best way that a state builder or its application's module offers."""
    ways = (
        (DUMP, state_builder, ("dump", "load")),
        (MODULE, module, ("serialize", "deserialize")),
    )
    for encoding, owner, names in ways:
        dump, load = (getattr(owner, name, None) for name in names)
        if callable(dump) and callable(load):
            return StateCodec(encoding, dump, load)
    return StateCodec(PICKLE, serialize, deserialize)


def serialize(value: object) -> bytes:
    """Write a value as a pickle."""
    return pickle.dumps(value)


def deserialize(bs: bytes) -> Any:  # noqa: ANN401 - it may be anything
    """Read what `serialize` wrote; never feed it what a peer has sent."""
    return pickle.loads(bs)  # noqa: S301 - the application's own bytes
