"""The parts of the market, without a server."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.market.application import (
    CheckOrder,
    Order,
    Prices,
    PricesBuilder,
    Quote,
    Stopped,
    TakeQuote,
    by_symbol,
    decode_order,
    decode_quote,
    encode,
)

ORDER = Order(7, "ACME", 50)
cents = st.integers(0, 2**32 - 1)


def test_a_quote_is_kept() -> None:
    """It replaces the one before, and nothing goes out."""
    state = Prices(1, 2)
    assert TakeQuote().compute(Quote("ACME", 1000, 1010), state) == (None, True)
    assert state == Prices(1000, 1010)


@pytest.mark.parametrize(
    ("prices", "reason"),
    [
        (Prices(), "unknown"),
        (Prices(1000, 1000), None),
        (Prices(1000, 1050), None),
        (Prices(1000, 1051), "wide"),
    ],
)
def test_an_order_is_checked(prices: Prices, reason: str | None) -> None:
    """It is stopped where there is no quote, or where bid and ask are far apart."""
    stopped = None if reason is None else Stopped(7, "ACME", reason)
    before = PricesBuilder().dump(prices)
    assert CheckOrder().compute(ORDER, prices) == (stopped, False)
    assert PricesBuilder().dump(prices) == before


@given(cents, cents)
def test_prices_are_stored(bid: int, ask: int) -> None:
    """They are read as they were written."""
    builder = PricesBuilder()
    assert builder.load(builder.dump(Prices(bid, ask))) == Prices(bid, ask)


def test_both_go_to_one_state() -> None:
    """An order finds the quotes of its own symbol."""
    assert by_symbol.partition(Quote("BOLT", 1, 1)) == "BOLT"
    assert by_symbol.partition(ORDER) == "ACME"


def test_the_wire() -> None:
    """Quotes and orders are read; what goes out is a frame of 15 bytes."""
    assert decode_quote.decode(struct.pack(">4sII", b"ACME", 9, 10)) == ("ACME", 9, 10)
    assert decode_order.decode(struct.pack(">I4sI", 7, b"ACME", 50)) == ORDER
    frame = encode.encode(Stopped(7, "ACME", "wide"))
    assert frame == b"\x00\x00\x00\x0f\x00\x00\x00\x07ACMEwide\x00\x00\x00"


@pytest.mark.parametrize(("bid", "ask"), [(0, 0), (0, 5), (10, 9)])
def test_a_quote_that_makes_no_sense_is_refused(bid: int, ask: int) -> None:
    """A reject does not become an event."""
    with pytest.raises(ValueError, match=f"a bid of {bid} and an ask of {ask}"):
        decode_quote.decode(struct.pack(">4sII", b"ACME", bid, ask))
