"""The part of Wallaroo's Python API that applications are written against.

An application describes itself with an `ApplicationBuilder` and hands the result, an
`Application`, to the runtime. This module holds that description and checks it; it
runs nothing, and imports no sockets, clocks or files. What a component must offer is
said by the protocols here: whatever has their methods will do.

An author's mistakes raise `WallarooParameterError`; an address on the command line
that cannot be read, `AddressError`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

import attrs

from alphabet.address import parse_named_address

if TYPE_CHECKING:
    from collections.abc import Sequence

DEFAULT_INPUT = ("127.0.0.1", "7010")
"""Where a server listens if the command line does not say: host, port."""

Data_co = TypeVar("Data_co", covariant=True)
Data_contra = TypeVar("Data_contra", contravariant=True)
Output_co = TypeVar("Output_co", covariant=True)
State_co = TypeVar("State_co", covariant=True)
State_contra = TypeVar("State_contra", contravariant=True)


class WallarooParameterError(ValueError):
    """An application is put together wrongly; the message says how to mend it."""


class Decoder(Protocol[Data_co]):
    """Make data of a source's bytes.

    If it has a `record_schema`, a text, that names the payload's layout.
    """

    def header_length(self) -> int:
        """Say how many bytes a frame's header has."""
        ...

    def payload_length(self, bs: bytes, /) -> int:
        """Read a payload's length from its frame's header."""
        ...

    def decode(self, bs: bytes, /) -> Data_co:
        """Read a payload; if this raises, the frame is a reject."""
        ...


class Encoder(Protocol[Data_contra]):
    """Make a sink's bytes of outputs."""

    def encode(self, data: Data_contra, /) -> bytes:
        """Write one output."""
        ...


class Computation(Protocol[Data_contra, State_contra, Output_co]):
    """Change a state by one event."""

    def name(self) -> str:
        """Name the computation."""
        ...

    def compute(
        self, data: Data_contra, state: State_contra, /
    ) -> tuple[Output_co, bool]:
        """Change the state; return the output, and whether this is a checkpoint."""
        ...


class StateBuilder(Protocol[State_co]):
    """Make states.

    If it has `dump(state)` and `load(bytes)`, these say how a state is stored.
    """

    def build(self) -> State_co:
        """Make the state before the first event."""
        ...


# A description holds any application's components: their types fit one another, but
# which types these are only the application knows.
AnyDecoder = Decoder[Any]
AnyEncoder = Encoder[Any]
AnyComputation = Computation[Any, Any, Any]
AnyStateBuilder = StateBuilder[Any]


@attrs.frozen
class _Has:
    """Validate that an attribute is an instance, not a class, with certain methods."""

    methods: tuple[str, ...]

    def __call__(
        self, owner: object, attribute: attrs.Attribute[object], value: object
    ) -> None:
        role = f"the {attribute.name} of a {type(owner).__name__}"
        if isinstance(value, type):
            raise WallarooParameterError(
                f"{role} is the class {value.__name__};"
                f" give it an instance: {value.__name__}()"
            )
        for method in self.methods:
            if not callable(getattr(value, method, None)):
                raise WallarooParameterError(
                    f"{role} is a {type(value).__name__}, which has no method {method}"
                )


@attrs.frozen
class TCPSourceConfig:
    """Where a pipeline's events come from.

    Attributes:
        host: Where to listen.
        port: As text; a number becomes one.
        decoder: Makes data of the bytes.
    """

    host: str
    port: str = attrs.field(converter=str)
    decoder: AnyDecoder = attrs.field(
        validator=_Has(("header_length", "payload_length", "decode"))
    )


@attrs.frozen
class TCPSinkConfig:
    """Where a pipeline's outputs go.

    Attributes:
        host: Where to connect; empty for nowhere, "-" for standard output.
        port: As text; a number becomes one.
        encoder: Makes bytes of the outputs.
    """

    host: str
    port: str = attrs.field(converter=str)
    encoder: AnyEncoder = attrs.field(validator=_Has(("encode",)))


@attrs.frozen
class StatefulStep:
    """A computation, and the state it works on.

    Steps that give one `state_name` share that state.
    """

    computation: AnyComputation = attrs.field(validator=_Has(("name", "compute")))
    state_builder: AnyStateBuilder = attrs.field(validator=_Has(("build",)))
    state_name: str


@attrs.frozen
class Pipeline:
    """The way of an event: a source, the steps in order, a sink."""

    name: str
    source: TCPSourceConfig
    steps: tuple[StatefulStep, ...]
    sink: TCPSinkConfig


@attrs.frozen
class Application:
    """A name and one pipeline or more, each with its own name, in the order made."""

    name: str
    pipelines: tuple[Pipeline, ...]


@attrs.define
class _OpenPipeline:
    """A pipeline that has no sink yet."""

    name: str
    source: TCPSourceConfig
    steps: list[StatefulStep] = attrs.field(factory=list)


@attrs.define
class ApplicationBuilder:
    """Put an application together, call by call; all but `build` return the builder.

    Each method raises `WallarooParameterError` if its turn has not come or an argument
    is of the wrong kind.
    """

    name: str
    _pipelines: list[Pipeline] = attrs.field(factory=list, init=False)
    _open: _OpenPipeline | None = attrs.field(default=None, init=False)
    _builders: dict[str, AnyStateBuilder] = attrs.field(factory=dict, init=False)

    def new_pipeline(self, name: str, source_config: TCPSourceConfig) -> Self:
        """Begin a pipeline, under a name of its own; the one before has its sink."""
        self._check_closed("new_pipeline")
        if any(pipeline.name == name for pipeline in self._pipelines):
            raise WallarooParameterError(
                f"two pipelines are named {name!r}; give each a name of its own"
            )
        _check_config("new_pipeline", source_config, TCPSourceConfig)
        self._open = _OpenPipeline(name, source_config)
        return self

    def to_stateful(
        self,
        computation: AnyComputation,
        state_builder: AnyStateBuilder,
        state_name: str,
    ) -> Self:
        """Add a step that works on the state of that name.

        All steps that name one state give builders of one type.
        """
        pipeline = self._opened("to_stateful")
        step = StatefulStep(computation, state_builder, state_name)
        known = self._builders.setdefault(state_name, state_builder)
        if type(known) is not type(state_builder):
            raise WallarooParameterError(
                f"the state {state_name!r} has two builders,"
                f" {type(known).__name__} and {type(state_builder).__name__};"
                " use one, or name two states"
            )
        pipeline.steps.append(step)
        return self

    def to_sink(self, sink_config: TCPSinkConfig) -> Self:
        """End the pipeline."""
        pipeline = self._opened("to_sink")
        _check_config("to_sink", sink_config, TCPSinkConfig)
        steps = tuple(pipeline.steps)
        self._pipelines.append(
            Pipeline(pipeline.name, pipeline.source, steps, sink_config)
        )
        self._open = None
        return self

    def build(self) -> Application:
        """Return the application; its last pipeline has its sink."""
        self._check_closed("build")
        if not self._pipelines:
            raise WallarooParameterError(
                f"{self.name!r} has no pipeline; call new_pipeline before build"
            )
        return Application(self.name, tuple(self._pipelines))

    def _opened(self, caller: str) -> _OpenPipeline:
        """Return the pipeline that `caller` goes on with."""
        if self._open is None:
            raise WallarooParameterError(
                f"{caller} has no pipeline to go on with; call new_pipeline before it"
            )
        return self._open

    def _check_closed(self, caller: str) -> None:
        """Refuse to leave a pipeline without a sink."""
        if self._open is not None:
            raise WallarooParameterError(
                f"the pipeline {self._open.name!r} has no sink;"
                f" call to_sink before {caller}"
            )


def _check_config(caller: str, config: object, wanted: type) -> None:
    """Refuse what is no source or no sink."""
    if not isinstance(config, wanted):
        raise WallarooParameterError(
            f"{caller} takes a {wanted.__name__}, not {config!r}"
        )


def tcp_parse_input_addrs(args: Sequence[str]) -> list[tuple[str, str]]:
    """Read every `--in` (`-i`) of a command line.

    A value is `[PIPELINE@]HOST:PORT`, or several with commas between them.

    Returns:
        Hosts and ports, as text, in order, without the pipelines' names; the default
        if there is no `--in`.

    Raises:
        WallarooParameterError: The last word is `--in`, without a value.
        AddressError: A value is no address.
    """
    values = _values_of(args, "-i", "--in")
    return [_host_and_port(value) for value in values] or [DEFAULT_INPUT]


def tcp_parse_output_addrs(args: Sequence[str]) -> list[tuple[str, str]]:
    """Read every `--out` (`-o`) of a command line.

    A value is `[NAME@]HOST:PORT`, or `-` for standard output, or several with commas
    between them.

    Returns:
        Hosts and ports, as text, in order, without the sinks' names; `("-", "")` for
        `-`; nothing but `("", "")` if there is no `--out`.

    Raises:
        WallarooParameterError: The last word is `--out`, without a value.
        AddressError: A value is no address.
    """
    values = _values_of(args, "-o", "--out")
    addresses = [("-", "") if v == "-" else _host_and_port(v) for v in values]
    return addresses or [("", "")]


def _values_of(args: Sequence[str], short: str, long: str) -> list[str]:
    """Collect one option's values, cut at commas; other words are others' business."""
    values: list[str] = []
    words = iter(args)
    for word in words:
        if word in {short, long}:
            value = next(words, None)
            if value is None:
                raise WallarooParameterError(f"{word} needs a value")
        elif word.startswith(f"{long}="):
            value = word.removeprefix(f"{long}=")
        elif word.startswith(short):
            value = word.removeprefix(short)
        else:
            continue
        values += value.split(",")
    return values


def _host_and_port(text: str) -> tuple[str, str]:
    """Read an address as Wallaroo's API gives it."""
    address = parse_named_address(text).address
    return address.host, str(address.port)
