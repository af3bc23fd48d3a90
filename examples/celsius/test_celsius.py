"""The parts of the Celsius application, without a server."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.celsius.application import add, decode, encode, multiply


def converted(celsius: float) -> float:
    """Take both steps."""
    between = multiply.compute(celsius)
    assert between is not None
    fahrenheit = add.compute(between)
    assert fahrenheit is not None
    return fahrenheit


@pytest.mark.parametrize(
    ("celsius", "fahrenheit"), [(0, 32), (100, 212), (-40, -40), (37, 98.6)]
)
def test_known_temperatures(celsius: float, fahrenheit: float) -> None:
    """Water freezes and boils where it does."""
    assert converted(celsius) == pytest.approx(fahrenheit)


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_a_number_is_read_as_it_is_written(degrees: float) -> None:
    """A float of four bytes comes through the wire unchanged."""
    frame = encode.encode(degrees)
    assert decode.payload_length(frame[: decode.header_length()]) == len(frame) - 4
    assert decode.decode(frame[4:]) == degrees


@pytest.mark.parametrize("degrees", [float("nan"), float("inf"), float("-inf")])
def test_what_is_no_temperature_is_refused(degrees: float) -> None:
    """A reject does not become an event."""
    with pytest.raises(ValueError, match="no temperature"):
        decode.decode(struct.pack(">f", degrees))


def test_one_too_large_fails() -> None:
    """What four bytes cannot hold raises, instead of going out as something else."""
    with pytest.raises(OverflowError):
        encode.encode(converted(3e38))
