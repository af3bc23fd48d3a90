"""The newest output of each letter's events: what a receiver that comes anew is told.

What an application's outputs mean, only the application knows. But each comes from a
vote for a letter, and there are 256 of those: so the newest ones are few, whatever they
say, and in the order in which they came none of them is older than one before it. Pure.
"""

from collections.abc import Iterable, Sequence

import attrs
import numpy as np
from numpy.typing import NDArray

from alphabet.outputs import Outputs

_LETTERS_MAX = 256

NewestOutputs = tuple[tuple[int, bytes], ...]
"""Letters, each as its byte, and their newest outputs, in the order of those."""


@attrs.define
class Newest:
    """The newest outputs, as of the batch under way."""

    _outputs: dict[int, bytes] = attrs.Factory(dict)
    _renewed: set[int] = attrs.Factory(set)

    @classmethod
    def of(cls, outputs: Iterable[tuple[int, bytes]]) -> "Newest":
        """Go on with the newest outputs of all batches so far."""
        return cls(dict(outputs))

    def begin_batch(self) -> None:
        """Let all that is there be of earlier batches."""
        self._renewed.clear()

    def take(self, letters: NDArray[np.uint8], outputs: Outputs) -> None:
        """Take the outputs of events, `letters[i]` being the letter of the i-th."""
        ends = outputs.ends
        told = _indexes_of_outputs(ends)
        newest = np.full(_LETTERS_MAX, -1)
        newest[letters[told]] = told
        for index in np.sort(newest[newest >= 0]).tolist():
            letter = int(letters[index])
            start = ends[index - 1] if index else 0
            self._outputs.pop(letter, None)
            self._outputs[letter] = bytes(outputs.data[start : ends[index]])
            self._renewed.add(letter)

    @property
    def outputs(self) -> NewestOutputs:
        """All of them, those of earlier batches first."""
        return tuple(self._outputs.items())

    @property
    def earlier_count(self) -> int:
        """How many of them, the first ones, are of earlier batches."""
        return len(self._outputs) - len(self._renewed)


def _indexes_of_outputs(ends: Sequence[int]) -> NDArray[np.int64]:
    """Say which events have an output; of equal ones, which are a range, all have."""
    if isinstance(ends, range):
        return np.arange(len(ends))
    return np.flatnonzero(np.diff(ends, prepend=0))
