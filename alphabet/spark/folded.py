"""An application's states after a batch, and which outputs that batch has.

They stand in the account, under its checksum: the states and the batch's number change
in one rename. Pure.
"""

import base64
from collections.abc import Mapping
from typing import Any, Self

import attrs

from alphabet.spark.newest import NewestOutputs
from recovery.snapshot import State


@attrs.frozen
class Folded:
    """The states, as bytes; the outputs' size and CRC-32 are those of one file.

    `newest` is each letter's newest output; the first `earlier_count` of them are of
    earlier batches, and the others stand among this one's outputs as well.
    """

    application: str
    state_version: int
    states: tuple[State, ...]
    outputs_bytes: int
    outputs_checksum: int
    newest: NewestOutputs = ()
    earlier_count: int = 0

    def fields(self) -> dict[str, Any]:
        """Give what JSON can hold; states and outputs are base64."""
        states = [
            [state.name, state.encoding, base64.b64encode(state.data).decode()]
            for state in self.states
        ]
        newest = [
            [letter, base64.b64encode(data).decode()] for letter, data in self.newest
        ]
        fields = attrs.asdict(self, recurse=False)
        return fields | {"states": states, "newest": newest}

    @classmethod
    def of_fields(cls, fields: Mapping[str, Any]) -> Self:
        """Read what `fields` gives; raises KeyError, TypeError, ValueError."""
        states = tuple(
            State(name, encoding, base64.b64decode(data, validate=True))
            for name, encoding, data in fields["states"]
        )
        newest = tuple(
            (letter, base64.b64decode(data, validate=True))
            for letter, data in fields.get("newest", ())
        )
        return cls(**{**fields, "states": states, "newest": newest})
