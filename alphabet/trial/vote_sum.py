"""What a file of votes adds up to, and whether what came out of a server agrees.

The other side of the books: nothing here has passed a log or a state.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import attrs

from alphabet.printing import format_letter
from alphabet.sending.vote_input import (
    CHUNK_BYTES,
    VoteInputError,
    WireReader,
    first_votes,
    random_votes,
    read_votes,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_VOTE = struct.Struct(">IsI")
_OUTPUT = struct.Struct(">IsQ")

Totals = dict[str, int]
"""Letters, each as the Latin-1 character of its byte, and their votes."""


@attrs.frozen
class VoteSum:
    """A file's own sum: how many votes it holds, and each letter's total."""

    votes: int
    totals: Totals


def write_votes(file: Path, votes: int, seed: int) -> None:
    """Write random votes to a file, as frames."""
    with file.open("wb") as stream:
        for chunk in first_votes(random_votes(seed), votes):
            stream.write(chunk.frames)


def sum_votes(file: Path) -> VoteSum:
    """Add up a file of frames; raises VoteInputError for anything but votes."""
    votes = 0
    totals: Totals = {}
    with file.open("rb", buffering=0) as stream:
        pieces = iter(lambda: stream.read(CHUNK_BYTES), b"")
        for chunk in read_votes(pieces, WireReader()):
            if len(chunk.frames) != _VOTE.size * chunk.votes:
                raise VoteInputError(f"after vote {votes}", "not only votes follow")
            for length, letter, count in _VOTE.iter_unpack(chunk.frames):
                votes += 1
                if length != _VOTE.size - 4:
                    raise VoteInputError(f"vote {votes}", f"its length is {length}")
                name = letter.decode("latin-1")
                totals[name] = totals.get(name, 0) + count
    return VoteSum(votes, totals)


def differences(
    expected: Mapping[str, int], found: Mapping[str, int], whose: str
) -> list[str]:
    """Name every letter whose total is not the expected one; none, if all are equal."""
    return [
        f"{format_letter(letter.encode('latin-1'))}: the file's total is "
        f"{expected.get(letter, 0)}, {whose} is {found.get(letter, 0)}"
        for letter in sorted(expected.keys() | found.keys())
        if expected.get(letter, 0) != found.get(letter, 0)
    ]


@attrs.define
class ReceivedOutputs:
    """What a receiver has written so far: how many outputs, and the last totals."""

    file: Path
    outputs: int = attrs.field(default=0, init=False)
    totals: Totals = attrs.field(factory=dict, init=False)

    def read(self) -> bool:
        """Take in what is new; say whether there was anything."""
        with self.file.open("rb") as stream:
            stream.seek(self.outputs * _OUTPUT.size)
            data = stream.read()
        whole = data[: len(data) - len(data) % _OUTPUT.size]
        for _, letter, total in _OUTPUT.iter_unpack(whole):
            self.totals[letter.decode("latin-1")] = total
        self.outputs += len(whole) // _OUTPUT.size
        return bool(whole)
