"""What an application is made of: pipelines of a source, steps and a sink, as values.

Each part checks what it is given, so that an author's mistake is met where it was made
and not at the first event; `WallarooParameterError` says what to write instead. What
they make together is put together by `alphabet.wallaroo` and run by others.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import attrs

from alphabet.cause import FATAL, describe
from alphabet.network.address import PORT_MAX
from alphabet.pipeline.output_framing import framing_of

if TYPE_CHECKING:
    from collections.abc import Hashable

    from alphabet.pipeline.components import (
        AnyComputation,
        AnyDecoder,
        AnyEncoder,
        AnyPartitionFunction,
        AnyStateBuilder,
        AnyStateComputation,
    )

HEADER_BYTES_MAX = 8
"""The longest header of a frame, inclusive."""
U64_MAX = 2**64 - 1


class WallarooParameterError(ValueError):
    """An application is put together wrongly; the message says how to mend it."""


@attrs.frozen
class _Has:
    """Validate that an attribute is an instance, not a class, with certain methods.

    Where words hold an `or`, one of both methods will do. A class whose method is
    bound to it, as `wallaroo.state` makes it, is as good as an instance.
    """

    methods: tuple[str, ...]

    def __call__(
        self, owner: object, attribute: attrs.Attribute[Any], value: object
    ) -> None:
        if value is NOT_GIVEN:
            return
        role = f"the {attribute.name} of a {type(owner).__name__}"
        if isinstance(value, type) and not self._are_bound(value):
            raise WallarooParameterError(
                f"{role} is the class {value.__name__};"
                f" give it an instance: {value.__name__}()"
            )
        for method in self.methods:
            if not any(callable(getattr(value, m, None)) for m in _either(method)):
                raise WallarooParameterError(
                    f"{role} is a {type(value).__name__}, which has no method {method}"
                )

    def _are_bound(self, value: type) -> bool:
        found = [
            getattr(value, each, None) for m in self.methods for each in _either(m)
        ]
        return any(getattr(each, "__self__", None) is value for each in found)


def _either(method: str) -> list[str]:
    return method.split(" or ")


def _called(method: str, component: object) -> object:
    """Call a component's method; what that raises is the author's mistake."""
    try:
        return getattr(component, method)()
    except FATAL:
        raise
    except Exception as error:
        raise WallarooParameterError(
            f"{method}() of {type(component).__name__} raised {describe(error)}"
        ) from error


NOT_GIVEN: Any = object()
"""Stands for a decoder or encoder that the older calls name beside the address."""


def _check_header(
    _owner: object, _attribute: attrs.Attribute[Any], decoder: AnyDecoder
) -> None:
    """Refuse a decoder whose headers cannot be cut from a stream."""
    if decoder is NOT_GIVEN:
        return
    length = _called("header_length", decoder)
    if type(length) is not int or not 1 <= length <= HEADER_BYTES_MAX:
        raise WallarooParameterError(
            f"header_length() of {type(decoder).__name__} returned {length!r};"
            f" a header has 1 to {HEADER_BYTES_MAX} bytes"
        )


def _check_framing(
    _owner: object, attribute: attrs.Attribute[Any], encoder: AnyEncoder
) -> None:
    """Refuse an encoder whose framing cannot cut its outputs."""
    framing = framing_of(encoder)
    if framing is not None:
        has_methods = _Has(("header_length", "payload_length"))
        has_methods(encoder, attribute.evolve(name="framing"), framing)
        _check_header(encoder, attribute, cast("AnyDecoder", framing))


def name_of(computation: object) -> str:
    """Give what a computation calls itself, else its class's name."""
    name = getattr(computation, "name", None)
    if name is None:
        return type(computation).__name__
    told = _called("name", computation) if callable(name) else name
    if not isinstance(told, str):
        raise WallarooParameterError(
            f"name() of {type(computation).__name__} returned {told!r}; give a text"
        )
    return told


def _check_name(
    _owner: object, _attribute: attrs.Attribute[Any], computation: object
) -> None:
    """Refuse a computation whose name is no text."""
    name_of(computation)


def _check_port(owner: object, _attribute: attrs.Attribute[Any], port: str) -> None:
    """Refuse what is no port; a sink that goes nowhere has an empty one."""
    if port and not (port.isascii() and port.isdecimal() and int(port) <= PORT_MAX):
        raise WallarooParameterError(
            f"the port of a {type(owner).__name__} is {port!r};"
            f" give a number from 0 to {PORT_MAX}"
        )


def check_text(owner: object, attribute: attrs.Attribute[Any], value: object) -> None:
    """Refuse a name that is no text."""
    if not isinstance(value, str):
        raise WallarooParameterError(
            f"the {attribute.name} of a {type(owner).__name__} is {value!r};"
            " give a text"
        )


@attrs.frozen
class TCPSourceConfig:
    """Where a pipeline's events come from.

    Attributes:
        host: Where to listen.
        port: As text; a number becomes one.
        decoder: Makes data of the bytes.
    """

    host: str = attrs.field(validator=check_text)
    port: str = attrs.field(converter=str, validator=_check_port)
    decoder: AnyDecoder = attrs.field(
        default=NOT_GIVEN,
        validator=attrs.validators.and_(
            _Has(("header_length", "payload_length", "decode")), _check_header
        ),
    )


@attrs.frozen
class TCPSinkConfig:
    """Where a pipeline's outputs go.

    Attributes:
        host: Where to connect; empty for nowhere, "-" for standard output.
        port: As text; a number becomes one.
        encoder: Makes bytes of the outputs.
    """

    host: str = attrs.field(validator=check_text)
    port: str = attrs.field(converter=str, validator=_check_port)
    encoder: AnyEncoder = attrs.field(
        default=NOT_GIVEN,
        validator=attrs.validators.and_(_Has(("encode",)), _check_framing),
    )


class Silence:
    """Encodes whatever comes to nothing: the sink of a pipeline that has none."""

    def encode(self, _data: object) -> bytes:
        """Write nothing."""
        return b""


@attrs.frozen
class StatelessStep:
    """A computation that remembers nothing."""

    computation: AnyComputation = attrs.field(
        validator=attrs.validators.and_(
            _Has(("compute or compute_multi",)), _check_name
        )
    )

    @property
    def name(self) -> str:
        """What the computation is called."""
        return name_of(self.computation)


@attrs.frozen
class StatefulStep:
    """A computation, and the state it works on.

    Steps that give one `state_name` share that state. A partitioned one has a state
    for each key of `keys`, and `partition_function` says which is an event's.
    """

    computation: AnyStateComputation = attrs.field(
        validator=attrs.validators.and_(
            _Has(("compute or compute_multi",)), _check_name
        )
    )
    state_builder: AnyStateBuilder = attrs.field(validator=_Has(("build",)))
    state_name: str = attrs.field(validator=check_text)
    partition_function: AnyPartitionFunction | None = attrs.field(
        default=None, validator=attrs.validators.optional(_Has(("partition",)))
    )
    keys: tuple[Hashable, ...] = ()

    def __attrs_post_init__(self) -> None:
        """Refuse keys that no function chooses from."""
        if self.keys and self.partition_function is None:
            raise WallarooParameterError(
                f"the state {self.state_name!r} has partition keys, and its"
                " partition_function is None; give what has a method partition"
            )

    @property
    def name(self) -> str:
        """What the computation is called."""
        return name_of(self.computation)

    @property
    def builder_type(self) -> type:
        """What makes the states: steps that share a state agree in this."""
        builder = self.state_builder
        return builder if isinstance(builder, type) else type(builder)


Step = StatelessStep | StatefulStep


@attrs.frozen
class Pipeline:
    """The way of an event: a source, the steps in order, a sink."""

    name: str
    source: TCPSourceConfig
    steps: tuple[Step, ...]
    sink: TCPSinkConfig


@attrs.frozen
class Application:
    """A name and one pipeline or more, each with its own name, in the order made."""

    name: str
    pipelines: tuple[Pipeline, ...]

    @property
    def stateful_steps(self) -> list[StatefulStep]:
        """Every step that has a state, in order."""
        steps = [step for pipeline in self.pipelines for step in pipeline.steps]
        return [step for step in steps if isinstance(step, StatefulStep)]


def partition_keys(keys: object) -> tuple[Hashable, ...]:
    """Check a partition's keys: a list of values that can be looked up and told."""
    if not isinstance(keys, list):
        raise WallarooParameterError(
            f"the partition keys are a {type(keys).__name__}; give a list"
        )
    for key in keys:
        try:
            hash(key)
        except TypeError as error:
            raise WallarooParameterError(
                f"the partition key {key!r} cannot be looked up: {error}"
            ) from error
        if getattr(type(key), "__repr__", None) is object.__repr__:
            raise WallarooParameterError(
                f"a partition key is a {type(key).__name__}, which has no __repr__;"
                " give it one that tells its value: snapshots know a key by it"
            )
    return _distinct(keys)


def partition_keys_u64(keys: object) -> tuple[int, ...]:
    """Check a partition's keys: whole numbers of 64 bits; a range will do."""
    if not isinstance(keys, list | range):
        raise WallarooParameterError(
            f"the partition keys are a {type(keys).__name__}; give a list or a range"
        )
    for key in keys:
        if type(key) is not int or not 0 <= key <= U64_MAX:
            raise WallarooParameterError(
                f"the partition key {key!r} is no whole number from 0 to 2**64-1"
            )
    return _distinct(keys)


def _distinct(keys: Any) -> tuple[Any, ...]:  # noqa: ANN401 - keys are the application's
    if not keys:
        raise WallarooParameterError("there are no partition keys; give one at least")
    return tuple(dict.fromkeys(keys))
