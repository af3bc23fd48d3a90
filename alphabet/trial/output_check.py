"""Whether a server's outputs are what they must be, byte for byte.

Pure. A check is fed the bytes as they come, takes time linear in them, and raises
`WrongOutputError` at the first output that is wrong.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import attrs
import numpy as np

from alphabet.trial.vote_load import (
    BYTE_VALUES,
    OUTPUT,
    OUTPUT_BYTES,
    POSITION_BITS,
    running_totals,
    sum_by_letter,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from alphabet.trial.vote_load import Letters, Load, Records, Totals

CHECK_OUTPUTS = 1 << 16
"""How many outputs are looked at together: it bounds a check's memory."""


class WrongOutputError(Exception):
    """A server sent something that it must not, or not all; names the first place."""


def check_of(load: Load) -> OutputCheck:
    """Begin to check what a new server sends for a load."""
    return InOrderCheck(load) if load.senders == 1 else InterleavedCheck(load)


def check_all(load: Load, outputs: memoryview) -> None:
    """Raise WrongOutputError unless `outputs` are all that a load must give."""
    check = check_of(load)
    check.feed(outputs)
    check.finish()


class OutputCheck(Protocol):
    """A check of all bytes that a server sends, as they come."""

    def feed(self, data: bytes | bytearray | memoryview, /) -> None:
        """Look at the next bytes; raises WrongOutputError."""

    def finish(self) -> None:
        """Raise WrongOutputError unless all has come."""


@attrs.define
class _Cutter:
    """Cuts a stream into outputs and keeps what is none yet."""

    outputs_max: int
    seen: int = 0
    _rest: bytes = b""

    def cut(self, data: bytes | bytearray | memoryview) -> Records:
        """Give the outputs that the next bytes complete."""
        if self._rest:
            data = self._rest + bytes(data)
        whole = len(data) // OUTPUT_BYTES
        self._rest = bytes(data[whole * OUTPUT_BYTES :])
        outputs = np.frombuffer(data, OUTPUT, whole)
        if self.seen + whole > self.outputs_max:
            raise WrongOutputError(f"more than {self.outputs_max} outputs came")
        return outputs

    def judge(self, is_right: NDArray[np.bool_]) -> None:
        """Count outputs; raise for the first that is wrong."""
        if not is_right.all():
            first = self.seen + int(np.argmin(is_right)) + 1
            raise WrongOutputError(f"output {first} is not what it must be")
        self.seen += len(is_right)

    def finish(self) -> None:
        """Raise unless all outputs have come, and nothing else."""
        if self.seen < self.outputs_max or self._rest:
            raise WrongOutputError(
                f"{self.seen} whole outputs of {self.outputs_max} came"
            )


@attrs.define
class InOrderCheck:
    """Compares every byte with what must come of one sender's votes in their order."""

    load: Load
    _cutter: _Cutter = attrs.field(init=False)
    _letters: Letters = attrs.field(init=False)
    _totals: Totals = attrs.field(init=False)
    _sums: Totals = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        """Compute the first turn's outputs; later ones add a whole turn's sums."""
        self._cutter = _Cutter(self.load.votes)
        [self._letters], [counts] = self.load.letters(), self.load.counts()
        self._totals = running_totals(self._letters, counts)
        self._sums = sum_by_letter(self._letters, counts)

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Look at the next bytes; raises WrongOutputError."""
        outputs = self._cutter.cut(data)
        while len(outputs):
            turn, start = divmod(self._cutter.seen, self.load.votes_per_turn)
            part = outputs[: self.load.votes_per_turn - start]
            outputs = outputs[len(part) :]
            letters = self._letters[start : start + len(part)]
            totals = self._totals[start : start + len(part)]
            before = (self._sums * np.uint64(turn)).take(letters)
            self._cutter.judge(
                (part["length"] == OUTPUT_BYTES - 4)
                & (part["letter"] == letters)
                & (part["total"] == totals + before)
            )

    def finish(self) -> None:
        """Raise WrongOutputError unless all has come."""
        self._cutter.finish()


@attrs.define
class InterleavedCheck:
    """Finds the order in which the votes of many senders were taken, and judges it.

    A total less the total before it of the same letter is the vote, and the vote says
    whose it is and which. What passes is, byte for byte, what a server must send that
    takes every sender's every vote once, each sender's in their order. How it mixes
    the senders is its own affair, and anything else is seen.
    """

    load: Load
    _cutter: _Cutter = attrs.field(init=False)
    _letters: Letters = attrs.field(init=False)
    _last: Totals = attrs.field(init=False)
    _next: NDArray[np.int64] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        """Begin with nothing counted."""
        self._cutter = _Cutter(self.load.votes)
        self._letters = self.load.letters()
        self._last = np.zeros(BYTE_VALUES, np.uint64)
        self._next = np.zeros(self.load.senders, np.int64)

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Look at the next bytes; raises WrongOutputError."""
        outputs = self._cutter.cut(data)
        for start in range(0, len(outputs), CHECK_OUTPUTS):
            self._feed(outputs[start : start + CHECK_OUTPUTS])

    def _feed(self, outputs: Records) -> None:
        letters = outputs["letter"].copy()
        votes = self._votes(letters, outputs["total"].astype(np.uint64))
        tags = votes >> np.uint64(POSITION_BITS)
        senders = (tags - np.uint64(1)).astype(np.int64)
        positions = (votes & np.uint64((1 << POSITION_BITS) - 1)).astype(np.int64)
        is_right = (
            (outputs["length"] == OUTPUT_BYTES - 4)
            & (tags >= 1)
            & (tags <= self.load.senders)
            & (positions < self.load.votes_per_turn)
        )
        senders[~is_right] = positions[~is_right] = 0
        is_right &= self._letters[senders, positions] == letters
        is_right &= self._places(senders) == positions
        self._cutter.judge(is_right)

    def _votes(self, letters: Letters, totals: Totals) -> Totals:
        """Subtract from each total the one before it of the same letter."""
        order = np.argsort(letters, kind="stable")
        sorted_letters, sorted_totals = letters[order], totals[order]
        starts = _starts(sorted_letters)
        before = np.empty_like(sorted_totals)
        before[1:] = sorted_totals[:-1]
        before[starts] = self._last[sorted_letters[starts]]
        ends = np.append(starts[1:], len(letters)) - 1
        self._last[sorted_letters[ends]] = sorted_totals[ends]
        votes = np.empty_like(totals)
        votes[order] = sorted_totals - before
        return votes

    def _places(self, senders: NDArray[np.int64]) -> NDArray[np.int64]:
        """Say at which position each vote must be that comes from these senders."""
        order = np.argsort(senders.astype(np.uint16), kind="stable")
        sorted_senders = senders[order]
        starts = _starts(sorted_senders)
        lengths = np.diff(np.append(starts, len(senders)))
        rank = np.arange(len(senders)) - np.repeat(starts, lengths)
        places = np.empty_like(senders)
        places[order] = self._next[sorted_senders] + rank
        self._next[sorted_senders[starts]] += lengths
        return places % self.load.votes_per_turn

    def finish(self) -> None:
        """Raise WrongOutputError unless all has come."""
        self._cutter.finish()


def _starts(ordered: NDArray[np.integer]) -> NDArray[np.int64]:
    """Say where each run of equal numbers begins."""
    is_start = np.ones(len(ordered), np.bool_)
    is_start[1:] = ordered[1:] != ordered[:-1]
    return np.flatnonzero(is_start)
