"""The parts of the alarm, without a server."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.alarm.application import (
    LIMIT,
    WINDOW,
    Alarm,
    BySensor,
    Decoder,
    Encoder,
    History,
    HistoryBuilder,
    Reading,
    Watch,
)

amounts = st.integers(0, 2**32 - 1)


def alarms(readings: list[int]) -> list[tuple[int, bool]]:
    """Let one sensor measure; give the places where the alarm changed, and how."""
    state = HistoryBuilder().build()
    found = [Watch().compute(Reading(1, each), state)[0] for each in readings]
    return [(place, alarm.is_on) for place, alarm in enumerate(found) if alarm]


@pytest.mark.parametrize(
    ("readings", "changes"),
    [
        ([LIMIT - 1], []),
        ([LIMIT], [(0, True)]),
        ([30, 30, 30, 10], [(3, True)]),
        ([30, 30, 30, 9, 31], [(4, True)]),
        ([LIMIT, 0, 0, 0, 0], [(0, True), (4, False)]),
        ([LIMIT, LIMIT, LIMIT], [(0, True)]),
    ],
)
def test_the_alarm_changes(
    readings: list[int], changes: list[tuple[int, bool]]
) -> None:
    """It goes off at the limit, ends below it, and says each once."""
    assert alarms(readings) == changes


@given(st.lists(st.integers(0, LIMIT), max_size=30))
def test_the_window_slides(readings: list[int]) -> None:
    """At any time the alarm is on if and only if the last readings reach the limit."""
    is_on = dict(alarms(readings))
    now = False
    for place in range(len(readings)):
        now = is_on.get(place, now)
        last = readings[max(0, place + 1 - WINDOW) : place + 1]
        assert now == (sum(last) >= LIMIT)


def test_a_change_is_a_checkpoint() -> None:
    """What changes the alarm is marked, and nothing else."""
    state = History([LIMIT - 1])
    assert Watch().compute(Reading(3, 0), state) == (None, False)
    assert Watch().compute(Reading(3, 1), state) == (Alarm(3, LIMIT, is_on=True), True)


@given(st.lists(amounts, max_size=WINDOW), st.booleans())
def test_a_history_is_stored(kept: list[int], is_on: bool) -> None:
    """It is read as it was written."""
    builder = HistoryBuilder()
    state = History(kept, is_on)
    assert builder.load(builder.dump(state)) == state


def test_the_wire() -> None:
    """A reading is read, and an alarm's header tells what follows."""
    reading = Decoder().decode(b"\x00\x07\x00\x00\x00\x2a")
    assert reading == Reading(7, 42)
    assert BySensor().partition(reading) == 7
    frame = Encoder().encode(Alarm(7, 142, is_on=True))
    assert Decoder().payload_length(frame[:4]) == len(frame) - 4 == 11
