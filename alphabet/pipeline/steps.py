"""A pipeline's steps, bound to the states they work on: what one event runs through.

Wallaroo's rules: None ends an event's way; what `compute_multi` returns goes on one by
one, each through all later steps before the next; an event is marked if any of its
steps returned True. Whatever a step raises comes up as a `StepError` with its name.

Pure.
"""

from collections.abc import Callable, Mapping
from typing import Any

import attrs

from alphabet.cause import FATAL, StepError
from alphabet.pipeline.components import AnyEncoder
from alphabet.pipeline.output_framing import framing_of, held_to
from alphabet.pipeline.partition import Partition, partition_codec
from alphabet.pipeline.state_codec import StateCodec, choose_codec
from alphabet.pipeline.topology import Pipeline, StatefulStep, StatelessStep

Run = Callable[[Any], tuple[Any, bool]]
"""Takes a value; gives the output, None for none, and whether the event is marked."""


_PAIR = 2


class ReturnShapeError(TypeError):
    """A component returned what its kind never returns."""


@attrs.frozen
class Way:
    """What an event runs through: `run` computes, `encode` writes what came of it."""

    run: Run
    encode: Callable[[Any], Any]


def bind(pipeline: Pipeline, states: Mapping[str, Any]) -> Way:
    """Bind a pipeline's steps to states, by their names."""
    encode = _encoding(pipeline.sink.encoder)
    links = [_link(step, states) for step in pipeline.steps]
    if any(_is_multi(step) for step in pipeline.steps):
        names = [step.name if _is_multi(step) else None for step in pipeline.steps]
        return Way(
            _spread(list(zip(links, names, strict=True))),
            lambda outputs: b"".join([as_bytes(encode(each)) for each in outputs]),
        )
    return Way(links[0] if len(links) == 1 else _chain(links), encode)


def initial_state(step: StatefulStep) -> Any:  # noqa: ANN401 - a state is the application's
    """Make a step's state before the first event."""
    build = step.state_builder.build
    if step.partition_function is None:
        return build()
    return Partition.of_keys(step.keys, build)


def codec_of(step: StatefulStep, module: object) -> StateCodec:
    """Choose the way between a step's state and its bytes."""
    codec = choose_codec(step.state_builder, module)
    if step.partition_function is None:
        return codec
    return partition_codec(codec, step.keys, step.state_builder.build)


def _encoding(encoder: AnyEncoder) -> Callable[[Any], Any]:
    """Give what writes an output; it is held to the framing that the encoder says."""
    framing = framing_of(encoder)
    if framing is None:
        return encoder.encode
    return held_to(
        framing, type(encoder).__name__, lambda data: as_bytes(encoder.encode(data))
    )


def as_bytes(piece: object) -> bytes:
    """Take what `encode` returned: bytes or what is like them; text becomes UTF-8."""
    if isinstance(piece, bytes):
        return piece
    if isinstance(piece, str):
        return piece.encode()
    try:
        return bytes(memoryview(piece))  # type: ignore[arg-type]
    except TypeError:
        kind = type(piece).__name__
        raise ReturnShapeError(f"encode returned {kind}, not bytes") from None


def _is_multi(step: StatelessStep | StatefulStep) -> bool:
    return callable(getattr(step.computation, "compute_multi", None))


def _link(step: StatelessStep | StatefulStep, states: Mapping[str, Any]) -> Run:
    """Make one function of a step."""
    name = step.name
    method = "compute_multi" if _is_multi(step) else "compute"
    compute = getattr(step.computation, method)
    if isinstance(step, StatelessStep):
        return _stateless(name, compute)
    state = states[step.state_name]
    if step.partition_function is not None:
        compute = _partitioned(compute, step.partition_function.partition)
    return _stateful(name, compute, state, method)


def _stateless(name: str, compute: Callable[[Any], Any]) -> Run:
    def run(value: Any) -> tuple[Any, bool]:  # noqa: ANN401 - see Run
        try:
            return compute(value), False
        except FATAL:
            raise
        except Exception as error:
            raise StepError(name, error) from error

    return run


def _stateful(
    name: str,
    compute: Callable[[Any, Any], Any],
    state: Any,  # noqa: ANN401 - a state is the application's
    method: str,
) -> Run:
    def run(value: Any) -> tuple[Any, bool]:  # noqa: ANN401 - see Run
        try:
            returned = compute(value, state)
        except FATAL:
            raise
        except Exception as error:
            raise StepError(name, error) from error
        if not isinstance(returned, tuple) or len(returned) != _PAIR:
            wrong = ReturnShapeError(
                f"{method} returned {_shape(returned)}, not (output, True or False)"
            )
            raise StepError(name, wrong)
        output, flag = returned
        return output, flag if type(flag) is bool else _truth(name, flag)

    return run


def _truth(name: str, flag: object) -> bool:
    """Say whether a flag that is no bool stands for True; raises StepError."""
    try:
        return bool(flag)
    except FATAL:
        raise
    except Exception as error:
        raise StepError(name, error) from error


def _partitioned(
    compute: Callable[[Any, Any], Any], key_of: Callable[[Any], Any]
) -> Callable[[Any, Any], Any]:
    """Let a computation work on the state of an event's key."""

    def compute_by_key(value: Any, partition: Partition) -> Any:  # noqa: ANN401 - see Run
        return compute(value, partition.state(key_of(value)))

    return compute_by_key


def _shape(value: object) -> str:
    kind = type(value).__name__
    return f"a {kind} of {len(value)}" if isinstance(value, tuple) else kind


def _chain(links: list[Run]) -> Run:
    """Make one function of steps that give one output each."""

    def run(value: Any) -> tuple[Any, bool]:  # noqa: ANN401 - see Run
        is_marked = False
        for link in links:
            value, mark = link(value)
            is_marked = is_marked or mark
            if value is None:
                break
        return value, is_marked

    return run


def _spread(links: list[tuple[Run, str | None]]) -> Run:
    """Make one function of steps; those with a name give several outputs."""

    def go(value: Any, place: int, outputs: list[Any]) -> Any:  # noqa: ANN401 - see Run
        if place == len(links):
            outputs.append(value)
            return False
        link, name = links[place]
        returned, is_marked = link(value)
        for each in (returned,) if name is None else _listed(name, returned):
            if each is not None:
                is_marked = go(each, place + 1, outputs) or is_marked
        return is_marked

    def run(value: Any) -> tuple[Any, bool]:  # noqa: ANN401 - see Run
        outputs: list[Any] = []
        is_marked = go(value, 0, outputs)
        return outputs or None, is_marked

    return run


def _listed(name: str, returned: Any) -> list[Any] | tuple[Any, ...]:  # noqa: ANN401 - see Run
    if returned is None:
        return ()
    if not isinstance(returned, list | tuple):
        wrong = f"compute_multi returned {type(returned).__name__}, not a list"
        raise StepError(name, ReturnShapeError(wrong))
    return returned
