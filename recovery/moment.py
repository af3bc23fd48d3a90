"""A moment of a log's past: after an event, or at a time of day.

Written as digits (a sequence) or as ISO 8601 (a time, UTC unless it says otherwise).
Blocks carry the time of their commit, which never goes back: so the block of a time is
found by halving, and the whole log is read only where it is damaged.

Knows no state and no files, and takes whatever `Log` it is given.
"""

import datetime as dt
import re

import attrs

from log.block import SEQUENCE_MAX
from log.errors import DamagedError
from log.log import Log

EXAMPLE = "2026-11-26T14:30:00Z"

_SECOND_NS = 1_000_000_000
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
# Python reads microseconds at most: what follows a whole second is read here.
_WITH_FRACTION = re.compile(
    r"(?P<second>.+[T ]\d\d(?::\d\d:|\d\d)\d\d)[.,](?P<fraction>\d+)"
    r"(?P<zone>Z|[+-][\d:]+)?",
    re.ASCII,
)


class MomentError(ValueError):
    """Words that are no moment, or a moment that a log does not have."""


@attrs.frozen
class Instant:
    """A moment in time, in ns since 1970; before that it is negative."""

    time_ns: int


Moment = int | Instant
"""A sequence (the moment after that event, 0 is before the first), or an instant."""


def parse_moment(text: str) -> Moment:
    """Read a moment: digits, or a date or time as ISO 8601 has it.

    A date alone is its first instant. Digits beyond nanoseconds are dropped. Raises
    MomentError.
    """
    try:
        if text.isascii() and text.isdigit():
            return int(text)
        return Instant(_parse_time(text))
    except ValueError as error:
        raise MomentError(
            f"{text!r} is neither a sequence nor a time; give digits, or a time such "
            f"as {EXAMPLE}"
        ) from error


def format_instant(time_ns: int) -> str:
    """Write a time of a log, in ns since 1970, so that it is read back as the same."""
    seconds, fraction = divmod(time_ns, _SECOND_NS)
    second = _EPOCH + dt.timedelta(seconds=seconds)
    digits = f".{fraction:09}".rstrip("0") if fraction else ""
    return f"{second.replace(tzinfo=None).isoformat()}{digits}Z"


def find_sequence(log: Log, moment: Moment) -> int:
    """Give the last event at or before a moment; the base's sequence where none is.

    Raises MomentError for a sequence that the log does not have, DamagedError where
    damage hides which event it is.
    """
    if isinstance(moment, Instant):
        try:
            return _search(log, moment.time_ns)
        except DamagedError:
            return _read_up_to(log, moment.time_ns)
    if moment > log.tail.sequence and (damage := find_end_damage(log)):
        raise damage
    if not log.base.sequence <= moment <= log.tail.sequence:
        raise MomentError(
            f"{moment} is not in the log, which goes from {log.base.sequence} to "
            f"{log.tail.sequence}"
        )
    return moment


def find_time(log: Log, sequence: int) -> int | None:
    """Give the time that an event was committed at, in ns since 1970.

    None where the log does not have it: at the base and below, and past the end.
    Raises DamagedError.
    """
    if sequence > log.tail.sequence:
        return None
    block = log.block_at(sequence)
    return None if block is None else block.time_ns


def find_end_damage(log: Log) -> DamagedError | None:
    """Say what is wrong with the log's last block, or None where nothing is."""
    try:
        log.block_at(SEQUENCE_MAX)
    except DamagedError as error:
        return error
    return None


def _parse_time(text: str) -> int:
    """Read a time as ns since 1970; raises ValueError."""
    found = _WITH_FRACTION.fullmatch(text)
    fraction = found["fraction"] if found else ""
    whole = found["second"] + (found["zone"] or "") if found else text
    if re.search("[.,]", whole):
        raise ValueError("a fraction belongs to a second")
    moment = dt.datetime.fromisoformat(whole)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=dt.UTC)
    seconds = (moment - _EPOCH) // dt.timedelta(seconds=1)
    return seconds * _SECOND_NS + int(f"{fraction:0<9}"[:9])


def _search(log: Log, time_ns: int) -> int:
    """Halve the log until one block is left; raises DamagedError."""
    low, high = log.base.sequence, log.tail.sequence
    while low < high:
        middle = (low + high + 1) // 2
        block = log.block_at(middle)
        if block is None or block.last_sequence < middle:
            raise DamagedError(log.store.path, middle, "its block is missing")
        if block.time_ns <= time_ns:
            low = block.last_sequence
        else:
            high = block.first_sequence - 1
    if low == log.tail.sequence and (damage := find_end_damage(log)):
        raise damage
    return low


def _read_up_to(log: Log, time_ns: int) -> int:
    """Read the log up to a time, past damage that intact blocks follow before it.

    Raises the DamagedError of a place that may or may not be before the time.
    """
    reached = log.base.sequence
    damage: DamagedError | None = None
    for found in log.inspect(reached):
        if isinstance(found, DamagedError):
            damage = damage or found
        elif found.time_ns > time_ns:
            break
        else:
            reached, damage = found.last_sequence, None
    if damage is not None:
        raise damage
    return reached
