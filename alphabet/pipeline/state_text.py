"""Any application's state as text, on one line: what a `repr` should have told.

Objects without a `repr` of their own are told by their attributes, inside the plain
containers too, so that the tutorial's classes can be read. A state is as deep as it
is: what refers to itself is cut short.

Pure.
"""

from collections.abc import Mapping
from typing import Any

from alphabet.pipeline.partition import Partition

DEPTH_MAX = 8
"""How deep objects are told within one another."""


def state_text(value: object, depth: int = DEPTH_MAX) -> str:
    """Tell a value."""
    if depth == 0:
        return "..."
    if type(value) in {list, tuple, set, frozenset, dict}:
        return _container_text(value, depth - 1)
    attributes = _attributes(value)
    if attributes is None:
        return repr(value)
    told = [f"{name}={state_text(v, depth - 1)}" for name, v in attributes.items()]
    return f"{type(value).__name__}({', '.join(told)})"


def state_rows(name: str, value: object) -> list[tuple[str, str]]:
    """Tell a state by its name: one row, or one for each key of a partition."""
    if isinstance(value, Partition):
        return [(f"{name}[{key!r}]", state_text(state)) for key, state in value]
    return [(name, state_text(value))]


def _attributes(value: object) -> Mapping[str, object] | None:
    """Give what tells an object that does not tell itself."""
    if type(value).__repr__ is not object.__repr__:
        return None
    return getattr(value, "__dict__", None)


def _container_text(value: Any, depth: int) -> str:  # noqa: ANN401 - it may hold anything
    if isinstance(value, dict):
        pairs = [
            f"{state_text(k, depth)}: {state_text(v, depth)}" for k, v in value.items()
        ]
        return f"{{{', '.join(pairs)}}}"
    told = [state_text(each, depth) for each in value]
    if isinstance(value, set | frozenset):
        return f"{type(value).__name__}([{', '.join(sorted(told))}])"
    if isinstance(value, tuple):
        return f"({told[0]},)" if len(told) == 1 else f"({', '.join(told)})"
    return f"[{', '.join(told)}]"
