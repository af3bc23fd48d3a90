"""Components made of functions, as Wallaroo's decorators make them.

Each decorator puts an object in the function's place that has the methods which a
component of its kind must offer. Called without arguments, such an object gives itself
back, so that `to` takes it though it takes classes.

Pure.
"""

import struct
from collections.abc import Callable
from typing import Any, Generic, Self, TypeVar

import attrs

Data = TypeVar("Data")
Output = TypeVar("Output")
State = TypeVar("State")
Key = TypeVar("Key")
AnyClass = TypeVar("AnyClass", bound=type[Any])


@attrs.frozen
class FunctionComputation(Generic[Data, Output]):
    """A computation that remembers nothing."""

    label: str
    compute: Callable[[Data], Output | None]

    def name(self) -> str:
        """Name the computation."""
        return self.label

    def __call__(self) -> Self:
        """Be an instance of itself."""
        return self


@attrs.frozen
class FunctionMultiComputation(Generic[Data, Output]):
    """A computation that remembers nothing, with any number of outputs."""

    label: str
    compute_multi: Callable[[Data], list[Output] | None]

    def name(self) -> str:
        """Name the computation."""
        return self.label

    def __call__(self) -> Self:
        """Be an instance of itself."""
        return self


@attrs.frozen
class FunctionStateComputation(Generic[Data, State, Output]):
    """A computation with a state."""

    label: str
    compute: Callable[[Data, State], tuple[Output | None, bool]]

    def name(self) -> str:
        """Name the computation."""
        return self.label

    def __call__(self) -> Self:
        """Be an instance of itself."""
        return self


@attrs.frozen
class FunctionMultiStateComputation(Generic[Data, State, Output]):
    """A computation with a state, with any number of outputs."""

    label: str
    compute_multi: Callable[[Data, State], tuple[list[Output] | None, bool]]

    def name(self) -> str:
        """Name the computation."""
        return self.label

    def __call__(self) -> Self:
        """Be an instance of itself."""
        return self


@attrs.frozen
class FunctionPartition(Generic[Data, Key]):
    """A partition function."""

    partition: Callable[[Data], Key]

    def __call__(self) -> Self:
        """Be an instance of itself."""
        return self


@attrs.frozen
class FunctionEncoder(Generic[Data]):
    """An encoder."""

    encode: Callable[[Data], bytes]

    def __call__(self) -> Self:
        """Be an instance of itself."""
        return self


@attrs.frozen
class FunctionDecoder(Generic[Data]):
    """A decoder; its headers are one number, as `struct` reads it."""

    header_bytes: int
    length_format: str
    decode: Callable[[bytes], Data]

    def header_length(self) -> int:
        """Say how many bytes a frame's header has."""
        return self.header_bytes

    def payload_length(self, bs: bytes) -> int:
        """Read a payload's length from its frame's header."""
        length: int = struct.unpack(self.length_format, bs)[0]
        return length

    def __call__(self) -> Self:
        """Be an instance of itself."""
        return self


def computation(
    name: str,
) -> Callable[[Callable[[Data], Output | None]], FunctionComputation[Data, Output]]:
    """Make a computation of `function(data)`."""
    return lambda function: FunctionComputation(name, function)


def computation_multi(
    name: str,
) -> Callable[
    [Callable[[Data], list[Output] | None]], FunctionMultiComputation[Data, Output]
]:
    """Make a computation of `function(data)`, which returns a list of outputs."""
    return lambda function: FunctionMultiComputation(name, function)


def state_computation(
    name: str,
) -> Callable[
    [Callable[[Data, State], tuple[Output | None, bool]]],
    FunctionStateComputation[Data, State, Output],
]:
    """Make a computation of `function(data, state)`."""
    return lambda function: FunctionStateComputation(name, function)


def state_computation_multi(
    name: str,
) -> Callable[
    [Callable[[Data, State], tuple[list[Output] | None, bool]]],
    FunctionMultiStateComputation[Data, State, Output],
]:
    """Make a computation of `function(data, state)`, with a list of outputs."""
    return lambda function: FunctionMultiStateComputation(name, function)


def state(cls: AnyClass) -> AnyClass:
    """Let a class build its own instances: it is its own state builder."""
    cls.build = classmethod(lambda each: each())
    return cls


def partition(function: Callable[[Data], Key]) -> FunctionPartition[Data, Key]:
    """Make a partition function of `function(data)`."""
    return FunctionPartition(function)


def decoder(
    header_length: int, length_fmt: str
) -> Callable[[Callable[[bytes], Data]], FunctionDecoder[Data]]:
    """Make a decoder of `function(bs)`, for headers that `struct` reads."""
    return lambda function: FunctionDecoder(header_length, length_fmt, function)


def encoder(function: Callable[[Data], bytes]) -> FunctionEncoder[Data]:
    """Make an encoder of `function(data)`."""
    return FunctionEncoder(function)
