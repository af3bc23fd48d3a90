"""Numbers, spans and times as an axis has them: few, round, and short to read.

Pure. Times are ns since 1970, and are written in UTC.
"""

import datetime as dt
from collections.abc import Iterator, Sequence
from typing import Literal

import attrs

_PREFIXES = ("", "k", "M", "G", "T", "P", "E", "Z", "Y", "R", "Q")
_MICROSECOND, _MILLISECOND, _SECOND = 10**3, 10**6, 10**9
_MINUTE, _HOUR, _DAY = 60 * _SECOND, 3_600 * _SECOND, 86_400 * _SECOND
_UNITS = (
    (_DAY, "d"),
    (_HOUR, "h"),
    (_MINUTE, "min"),
    (_SECOND, "s"),
    (_MILLISECOND, "ms"),
    (_MICROSECOND, "µs"),
    (1, "ns"),
)
_STEPS_NS: tuple[int, ...] = (
    *(digit * 10**power for power in range(9) for digit in (1, 2, 5)),
    *(seconds * _SECOND for seconds in (1, 2, 5, 10, 15, 30)),
    *(minutes * _MINUTE for minutes in (1, 2, 5, 10, 15, 30)),
    *(hours * _HOUR for hours in (1, 2, 3, 6, 12)),
    *(days * _DAY for days in (1, 2, 7, 14)),
)
_MONTHS = (1, 3, 6, 12, 24, 60, 120, 240, 600, 1_200)
_MONTHS_PER_YEAR = 12
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


@attrs.frozen
class Tick:
    """A place on a time axis; `context` is given where it is new: a date, a year."""

    time_ns: int
    label: str
    context: str = ""


def format_si(number: float) -> str:
    """Write a number short, with an SI prefix: `12.5 M`."""
    rank = 0
    while abs(number) >= 999.5 and rank < len(_PREFIXES) - 1:  # noqa: PLR2004 - three digits
        number /= 1_000
        rank += 1
    return f"{number:.3g} {_PREFIXES[rank]}".rstrip()


def format_span(span_ns: int) -> str:
    """Write a span in its two largest units: `2 min 30 s`."""
    parts: list[str] = []
    for unit_ns, name in _UNITS:
        count, span_ns = divmod(span_ns, unit_ns)
        if count or parts:
            parts.append(f"{count} {name}" if count else "")
        if len(parts) == 2:  # noqa: PLR2004 - two units tell enough
            break
    return " ".join(filter(None, parts)) or "0 s"


def format_moment(
    time_ns: int,
    timespec: Literal["minutes", "seconds", "milliseconds", "microseconds"] = "seconds",
) -> str:
    """Write a time as people read it: `2023-11-14 22:13:20`."""
    return _moment(time_ns).replace(tzinfo=None).isoformat(" ", timespec)


def time_ticks(start_ns: int, end_ns: int, count_max: int) -> list[Tick]:
    """Give round times from start to end (inclusive), `count_max` of them at most.

    With a `count_max` of 5 or more there is one at least. Below a millisecond they are
    round distances from the start.
    """
    span_ns = end_ns - start_ns
    step = next((s for s in _STEPS_NS if s * (count_max - 1) >= span_ns), None)
    if step is None:
        return _calendar_ticks(start_ns, end_ns, count_max)
    if step < _MILLISECOND:
        return _distance_ticks(start_ns, end_ns, step)
    first = -(-start_ns // step) * step
    return _in_context(range(first, end_ns + 1, step), *_forms(step))


def _forms(step_ns: int) -> tuple[str, str]:
    """Give the forms of a label and of its context for steps of this width."""
    if step_ns >= _DAY:
        return "%-d %b", "%Y"
    if step_ns >= _MINUTE:
        return "%H:%M", "%-d %b %Y"
    return ("%H:%M:%S" if step_ns >= _SECOND else "%S.%f"), (
        "%-d %b %Y" if step_ns >= _SECOND else "%H:%M, %-d %b %Y"
    )


def _in_context(times_ns: Sequence[int], form: str, context: str) -> list[Tick]:
    found: list[Tick] = []
    known = ""
    for time_ns in times_ns:
        moment = _moment(time_ns)
        label, here = moment.strftime(form), moment.strftime(context)
        if "%f" in form:
            label = f"{label[:-3]} s"
        found.append(Tick(time_ns, label, "" if here == known else here))
        known = here
    return found


def _distance_ticks(start_ns: int, end_ns: int, step_ns: int) -> list[Tick]:
    found = []
    for time_ns in range(start_ns, end_ns + 1, step_ns):
        distance_ns = time_ns - start_ns
        label = f"+{_one_unit(distance_ns, end_ns - start_ns)}" if distance_ns else "0"
        found.append(Tick(time_ns, label))
    context = f"{_moment(start_ns):%H:%M:%S}.{start_ns % _SECOND:09}, "
    context += _moment(start_ns).strftime("%-d %b %Y")
    return [attrs.evolve(found[0], context=context), *found[1:]]


def _one_unit(distance_ns: int, span_ns: int) -> str:
    """Write a distance in the unit that suits the whole span."""
    unit_ns, name = next(unit for unit in _UNITS if span_ns >= unit[0])
    return f"{distance_ns / unit_ns:g} {name}"


def _calendar_ticks(start_ns: int, end_ns: int, count_max: int) -> list[Tick]:
    found = ((m, list(_month_starts(start_ns, end_ns, m))) for m in _MONTHS)
    months, times_ns = next(each for each in found if len(each[1]) <= count_max)
    if months < _MONTHS_PER_YEAR:
        return _in_context(times_ns, "%b", "%Y")
    return _in_context(times_ns, "%Y", "")


def _month_starts(start_ns: int, end_ns: int, months: int) -> Iterator[int]:
    """Give the beginnings of every so many months, from start to end (inclusive)."""
    start = _moment(start_ns)
    month = (start.year * _MONTHS_PER_YEAR + start.month - 1) // months * months
    while True:
        year, index = divmod(month, _MONTHS_PER_YEAR)
        moment = start.replace(
            year=year, month=index + 1, day=1, hour=0, minute=0, second=0, microsecond=0
        )
        time_ns = (moment - _EPOCH) // dt.timedelta(seconds=1) * _SECOND
        if time_ns > end_ns:
            return
        if time_ns >= start_ns:
            yield time_ns
        month += months


def _moment(time_ns: int) -> dt.datetime:
    return _EPOCH + dt.timedelta(microseconds=time_ns // _MICROSECOND)
