"""What an application's components must offer: whatever has these methods will do.

These protocols are public, as `alphabet.wallaroo` has them: an application that is
checked by a type checker names its own types in them. A component's `name()` is
optional; where there is none, its class is named.

Pure.
"""

from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

Data_co = TypeVar("Data_co", covariant=True)
Data_contra = TypeVar("Data_contra", contravariant=True)
Output_co = TypeVar("Output_co", covariant=True)
State_co = TypeVar("State_co", covariant=True)
State_contra = TypeVar("State_contra", contravariant=True)
Key_co = TypeVar("Key_co", covariant=True)


class Decoder(Protocol[Data_co]):
    """Make data of a source's bytes.

    If it has a `record_schema`, a text, that names the payload's layout.
    """

    def header_length(self) -> int:
        """Say how many bytes a frame's header has, 1 to 8."""
        ...

    def payload_length(self, bs: bytes, /) -> int:
        """Read a payload's length from its frame's header."""
        ...

    def decode(self, bs: bytes, /) -> Data_co:
        """Read a payload; if this raises, the frame is a reject."""
        ...


class Encoder(Protocol[Data_contra]):
    """Make a sink's bytes of outputs.

    If it has a `framing`, whatever has a decoder's `header_length` and
    `payload_length`, each output must be one whole frame, or its event fails.
    """

    def encode(self, data: Data_contra, /) -> bytes:
        """Write one output."""
        ...


class Computation(Protocol[Data_contra, Output_co]):
    """Make something of an event, and remember nothing."""

    def compute(self, data: Data_contra, /) -> Output_co | None:
        """Return the output; None ends the event's way."""
        ...


class MultiComputation(Protocol[Data_contra, Output_co]):
    """Make any number of things of an event, and remember nothing."""

    def compute_multi(self, data: Data_contra, /) -> Sequence[Output_co] | None:
        """Return a list of outputs, which go on one by one; None is an empty one."""
        ...


class StateComputation(Protocol[Data_contra, State_contra, Output_co]):
    """Change a state by one event."""

    def compute(
        self, data: Data_contra, state: State_contra, /
    ) -> tuple[Output_co | None, bool]:
        """Change the state; return the output, and whether this is a checkpoint.

        None in the output's place ends the event's way.
        """
        ...


class MultiStateComputation(Protocol[Data_contra, State_contra, Output_co]):
    """Change a state by one event, and make any number of things of both."""

    def compute_multi(
        self, data: Data_contra, state: State_contra, /
    ) -> tuple[Sequence[Output_co] | None, bool]:
        """Change the state; return the outputs, and whether this is a checkpoint."""
        ...


class StateBuilder(Protocol[State_co]):
    """Make states.

    If it has `dump(state)` and `load(bytes)`, these say how a state is stored.
    """

    def build(self) -> State_co:
        """Make the state before the first event."""
        ...


class PartitionFunction(Protocol[Data_contra, Key_co]):
    """Say to which part of a partitioned state an event belongs."""

    def partition(self, data: Data_contra, /) -> Key_co:
        """Give the key, one of the partition's list."""
        ...


# A description holds any application's components: their types fit one another, but
# which types these are only the application knows.
AnyDecoder = Decoder[Any]
AnyEncoder = Encoder[Any]
AnyComputation = Computation[Any, Any] | MultiComputation[Any, Any]
AnyStateComputation = (
    StateComputation[Any, Any, Any] | MultiStateComputation[Any, Any, Any]
)
AnyStateBuilder = StateBuilder[Any]
AnyPartitionFunction = PartitionFunction[Any, Any]
