"""Wallaroo's Python API, 0.1 to 0.3: what applications are written against.

An application describes itself with an `ApplicationBuilder` and hands the result, an
`Application`, to the runtime. This module puts that description together; it runs
nothing, and imports no sockets, clocks or files. What the parts are is in `topology`
of `alphabet.pipeline`, what a component must offer in its `components`, components made
of functions in its `decorators`; all of it is public under this module's name.
docs/WALLAROO.md is the reference.

An author's mistakes raise `WallarooParameterError`; an address on the command line
that cannot be read, `AddressError`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self, TypeVar, cast, overload

import attrs

from alphabet.cause import FATAL, describe
from alphabet.pipeline.address_arguments import (
    DEFAULT_INPUT,
    tcp_parse_input_addrs,
    tcp_parse_output_addrs,
)
from alphabet.pipeline.components import (
    AnyComputation,
    AnyDecoder,
    AnyEncoder,
    AnyPartitionFunction,
    Computation,
    Decoder,
    Encoder,
    MultiComputation,
    MultiStateComputation,
    PartitionFunction,
    StateBuilder,
    StateComputation,
)
from alphabet.pipeline.decorators import (
    FunctionComputation,
    FunctionMultiComputation,
    computation,
    computation_multi,
    decoder,
    encoder,
    partition,
    state,
    state_computation,
    state_computation_multi,
)
from alphabet.pipeline.kafka import (
    KafkaSinkConfig,
    KafkaSourceConfig,
    kafka_parse_sink_options,
    kafka_parse_source_options,
)
from alphabet.pipeline.state_codec import deserialize, serialize
from alphabet.pipeline.topology import (
    NOT_GIVEN,
    Application,
    Pipeline,
    Silence,
    StatefulStep,
    StatelessStep,
    Step,
    TCPSinkConfig,
    TCPSourceConfig,
    WallarooParameterError,
    check_text,
    partition_keys_u64,
)
from alphabet.pipeline.topology import partition_keys as checked_keys

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

__all__ = [
    "DEFAULT_INPUT",
    "Application",
    "ApplicationBuilder",
    "Computation",
    "Decoder",
    "Encoder",
    "KafkaSinkConfig",
    "KafkaSourceConfig",
    "MultiComputation",
    "MultiStateComputation",
    "PartitionFunction",
    "Pipeline",
    "StateBuilder",
    "StateComputation",
    "StatefulStep",
    "StatelessStep",
    "TCPSinkConfig",
    "TCPSourceConfig",
    "WallarooParameterError",
    "computation",
    "computation_multi",
    "decoder",
    "deserialize",
    "encoder",
    "kafka_parse_sink_options",
    "kafka_parse_source_options",
    "partition",
    "serialize",
    "state",
    "state_computation",
    "state_computation_multi",
    "tcp_parse_input_addrs",
    "tcp_parse_output_addrs",
]

State = TypeVar("State")


@attrs.define
class _OpenPipeline:
    """A pipeline that has no sink yet."""

    name: str
    source: TCPSourceConfig
    steps: list[Step] = attrs.field(factory=list)


@attrs.define
class ApplicationBuilder:
    """Put an application together, call by call; all but `build` return the builder.

    Each method raises `WallarooParameterError` if its turn has not come or an argument
    is of the wrong kind.
    """

    name: str = attrs.field(validator=check_text)
    _pipelines: list[Pipeline] = attrs.field(factory=list, init=False)
    _open: _OpenPipeline | None = attrs.field(default=None, init=False)
    _shared: dict[str, StatefulStep] = attrs.field(factory=dict, init=False)

    @overload
    def new_pipeline(self, name: str, source_config: TCPSourceConfig) -> Self: ...

    @overload
    def new_pipeline(
        self, name: str, source_config: AnyDecoder, older_config: TCPSourceConfig
    ) -> Self: ...

    def new_pipeline(
        self,
        name: str,
        source_config: TCPSourceConfig | AnyDecoder,
        older_config: TCPSourceConfig | None = None,
    ) -> Self:
        """Begin a pipeline, under a name of its own; the one before has its end.

        The older way to say it is `new_pipeline(name, Decoder(), config)`, with a
        config that has no decoder.
        """
        self._check_closed("new_pipeline")
        if not isinstance(name, str):
            raise WallarooParameterError(f"a pipeline is named {name!r}; give a text")
        if any(pipeline.name == name for pipeline in self._pipelines):
            raise WallarooParameterError(
                f"two pipelines are named {name!r}; give each a name of its own"
            )
        if older_config is not None:
            _check_config("new_pipeline", older_config, TCPSourceConfig)
            config = attrs.evolve(
                older_config, decoder=cast("AnyDecoder", source_config)
            )
        else:
            _check_config("new_pipeline", source_config, TCPSourceConfig)
            config = cast("TCPSourceConfig", source_config)
        if config.decoder is NOT_GIVEN:
            raise WallarooParameterError(
                f"the pipeline {name!r} has no decoder; give it one:"
                " TCPSourceConfig(host, port, Decoder())"
            )
        self._open = _OpenPipeline(name, config)
        return self

    def to(self, computation: Callable[[], AnyComputation]) -> Self:
        """Add a step that remembers nothing, by its class, which is called."""
        return self._add_stateless("to", computation)

    def to_parallel(self, computation: Callable[[], AnyComputation]) -> Self:
        """Add a step that remembers nothing; here it is as `to`."""
        return self._add_stateless("to_parallel", computation)

    def to_stateful(
        self,
        computation: StateComputation[Any, State, Any]
        | MultiStateComputation[Any, State, Any],
        state_builder: StateBuilder[State],
        state_name: str,
    ) -> Self:
        """Add a step that works on the state of that name.

        All steps that name one state give builders of one type.
        """
        pipeline = self._opened("to_stateful")
        step = StatefulStep(computation, state_builder, state_name)
        return self._add_stateful(pipeline, step)

    def to_state_partition(
        self,
        computation: StateComputation[Any, State, Any]
        | MultiStateComputation[Any, State, Any],
        state_builder: StateBuilder[State],
        state_partition_name: str,
        partition_function: AnyPartitionFunction,
        partition_keys: Sequence[Hashable],
    ) -> Self:
        """Add a step that works on the state of an event's key.

        There is a state for each key of the list. All steps that name one partition
        give builders of one type, and the same keys.
        """
        pipeline = self._opened("to_state_partition")
        step = StatefulStep(
            computation,
            state_builder,
            state_partition_name,
            partition_function,
            checked_keys(partition_keys),
        )
        return self._add_stateful(pipeline, step)

    def to_state_partition_u64(
        self,
        computation: StateComputation[Any, State, Any]
        | MultiStateComputation[Any, State, Any],
        state_builder: StateBuilder[State],
        state_partition_name: str,
        partition_function: AnyPartitionFunction,
        partition_keys: Sequence[int],
    ) -> Self:
        """Do what `to_state_partition` does, for keys from 0 to 2**64-1."""
        pipeline = self._opened("to_state_partition_u64")
        step = StatefulStep(
            computation,
            state_builder,
            state_partition_name,
            partition_function,
            partition_keys_u64(partition_keys),
        )
        return self._add_stateful(pipeline, step)

    @overload
    def to_sink(self, sink_config: TCPSinkConfig) -> Self: ...

    @overload
    def to_sink(self, sink_config: AnyEncoder, older_config: TCPSinkConfig) -> Self: ...

    def to_sink(
        self,
        sink_config: TCPSinkConfig | AnyEncoder,
        older_config: TCPSinkConfig | None = None,
    ) -> Self:
        """End the pipeline in a sink.

        The older way to say it is `to_sink(Encoder(), config)`, with a config that has
        no encoder.
        """
        pipeline = self._opened("to_sink")
        if older_config is not None:
            _check_config("to_sink", older_config, TCPSinkConfig)
            config = attrs.evolve(older_config, encoder=cast("AnyEncoder", sink_config))
        else:
            _check_config("to_sink", sink_config, TCPSinkConfig)
            config = cast("TCPSinkConfig", sink_config)
        if config.encoder is NOT_GIVEN:
            raise WallarooParameterError(
                f"the pipeline {pipeline.name!r} has no encoder; give it one:"
                " TCPSinkConfig(host, port, Encoder())"
            )
        return self._close(pipeline, config)

    def done(self) -> Self:
        """End the pipeline: one that has no sink yet gives nothing out."""
        if self._open is not None:
            return self._close(self._open, TCPSinkConfig("", "", Silence()))
        if not self._pipelines:
            self._opened("done")
        return self

    def build(self) -> Application:
        """Return the application; its last pipeline has its sink."""
        self._check_closed("build")
        if not self._pipelines:
            raise WallarooParameterError(
                f"{self.name!r} has no pipeline; call new_pipeline before build"
            )
        return Application(self.name, tuple(self._pipelines))

    def _add_stateless(
        self, caller: str, computation: Callable[[], AnyComputation]
    ) -> Self:
        pipeline = self._opened(caller)
        if not isinstance(
            computation, type | FunctionComputation | FunctionMultiComputation
        ):
            kind = type(computation).__name__
            if not _is_computation(computation):
                raise WallarooParameterError(
                    f"{caller} takes a computation's class, not {computation!r}"
                )
            raise WallarooParameterError(
                f"{caller} takes a computation's class, not an instance of {kind};"
                f" give it {kind}"
            )
        pipeline.steps.append(StatelessStep(_made(caller, computation)))
        return self

    def _add_stateful(self, pipeline: _OpenPipeline, step: StatefulStep) -> Self:
        known = self._shared.setdefault(step.state_name, step)
        if known.builder_type is not step.builder_type:
            raise WallarooParameterError(
                f"the state {step.state_name!r} has two builders,"
                f" {known.builder_type.__name__} and {step.builder_type.__name__};"
                " use one, or name two states"
            )
        if known.keys != step.keys:
            raise WallarooParameterError(
                f"the state {step.state_name!r} is given with different partition keys;"
                " give the same ones, or name two states"
            )
        pipeline.steps.append(step)
        return self

    def _close(self, pipeline: _OpenPipeline, sink: TCPSinkConfig) -> Self:
        steps = tuple(pipeline.steps)
        self._pipelines.append(Pipeline(pipeline.name, pipeline.source, steps, sink))
        self._open = None
        return self

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
                f" call to_sink before {caller}, or done for none"
            )


def _is_computation(computation: object) -> bool:
    return hasattr(computation, "compute") or hasattr(computation, "compute_multi")


def _made(caller: str, computation: Callable[[], AnyComputation]) -> AnyComputation:
    """Make a computation of its class, which is called without arguments."""
    try:
        return computation()
    except FATAL:
        raise
    except Exception as error:
        name = getattr(computation, "__name__", type(computation).__name__)
        raise WallarooParameterError(
            f"{caller} cannot make a {name}: {name}() raised {describe(error)}"
        ) from error


def _check_config(caller: str, config: object, wanted: type) -> None:
    """Refuse what is no source or no sink."""
    if not isinstance(config, wanted):
        raise WallarooParameterError(
            f"{caller} takes a {wanted.__name__}, not {config!r}"
        )
