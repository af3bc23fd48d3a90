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
    dump = getattr(state_builder, "dump", None)
    load = getattr(state_builder, "load", None)
    if callable(dump) and callable(load):
        return StateCodec(DUMP, dump, load)
    serialize = getattr(module, "serialize", None)
    deserialize = getattr(module, "deserialize", None)
    if callable(serialize) and callable(deserialize):
        return StateCodec(MODULE, serialize, deserialize)
    return StateCodec(PICKLE, pickle.dumps, pickle.loads)
