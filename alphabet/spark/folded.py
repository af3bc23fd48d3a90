"""An application's states after a batch, and which outputs that batch has.

They stand in the account, under its checksum: the states and the batch's number change
in one rename. Pure.
"""

import base64
from collections.abc import Mapping
from typing import Any, Self

import attrs

from recovery.snapshot import State


@attrs.frozen
class Folded:
    """The states, as bytes; the outputs' size and CRC-32 are those of one file."""

    application: str
    state_version: int
    states: tuple[State, ...]
    outputs_bytes: int
    outputs_checksum: int

    def fields(self) -> dict[str, Any]:
        """Give what JSON can hold; states are base64."""
        states = [
            [state.name, state.encoding, base64.b64encode(state.data).decode()]
            for state in self.states
        ]
        return attrs.asdict(self, recurse=False) | {"states": states}

    @classmethod
    def of_fields(cls, fields: Mapping[str, Any]) -> Self:
        """Read what `fields` gives; raises KeyError, TypeError, ValueError."""
        states = tuple(
            State(name, encoding, base64.b64decode(data, validate=True))
            for name, encoding, data in fields["states"]
        )
        return cls(**{**fields, "states": states})
