"""Stop orders on a market that is not to be trusted.

Quotes come in by one pipeline, orders by another, and both work on the same state, one
for each symbol: what is bid and asked for it now. An order goes through in silence; one
for a symbol whose bid and ask are too far apart, or that has no quote yet, is stopped,
and goes out with the reason. Prices are whole cents.
"""

import struct
from typing import NamedTuple

import attrs

from alphabet import wallaroo

SYMBOLS = ["ACME", "BOLT", "CORK", "DUNE"]
"""What is traded; an event of another symbol fails, and is kept for inspection."""
SPREAD_PERCENT_MAX = 5
"""How far the ask may be above the bid, in percent of the bid, inclusive."""

PRICES = struct.Struct(">II")
QUOTE = struct.Struct(">4sII")
ORDER = struct.Struct(">I4sI")
STOPPED = struct.Struct(">II4s7s")


class Quote(NamedTuple):
    """What is bid and asked for a symbol."""

    symbol: str
    bid: int
    ask: int


class Order(NamedTuple):
    """So many pieces of a symbol, under a number that whoever orders chose."""

    number: int
    symbol: str
    pieces: int


class Stopped(NamedTuple):
    """An order that was stopped, and why: `wide` or `unknown`."""

    number: int
    symbol: str
    reason: str


@attrs.define
class Prices:
    """What is bid and asked now; zeros until the first quote."""

    bid: int = 0
    ask: int = 0

    @property
    def is_known(self) -> bool:
        """Whether there was a quote."""
        return self.bid > 0

    @property
    def is_wide(self) -> bool:
        """Whether both prices are too far apart."""
        return (self.ask - self.bid) * 100 > self.bid * SPREAD_PERCENT_MAX


class PricesBuilder:
    """Makes prices, and stores them in eight bytes."""

    def build(self) -> Prices:
        """Begin without a quote."""
        return Prices()

    def dump(self, state: Prices) -> bytes:
        """Write prices."""
        return PRICES.pack(state.bid, state.ask)

    def load(self, bs: bytes) -> Prices:
        """Read prices."""
        return Prices(*PRICES.unpack(bs))


@wallaroo.partition
def by_symbol(data: Quote | Order) -> str:
    """Give each symbol a state of its own."""
    return data.symbol


class TakeQuote:
    """Remembers a quote."""

    def name(self) -> str:
        """Name the computation."""
        return "take quote"

    def compute(self, data: Quote, state: Prices) -> tuple[None, bool]:
        """Keep both prices; nothing goes out."""
        state.bid, state.ask = data.bid, data.ask
        return None, True


class CheckOrder:
    """Looks at an order's symbol."""

    def name(self) -> str:
        """Name the computation."""
        return "check order"

    def compute(self, data: Order, state: Prices) -> tuple[Stopped | None, bool]:
        """Return the order if it is stopped, else None; the state is as it was."""
        if not state.is_known:
            return Stopped(data.number, data.symbol, "unknown"), False
        if state.is_wide:
            return Stopped(data.number, data.symbol, "wide"), False
        return None, False


@wallaroo.decoder(header_length=4, length_fmt=">I")
def decode_quote(bs: bytes) -> Quote:
    """Read a symbol of four letters, a bid and an ask; refuse what makes no sense."""
    symbol, bid, ask = QUOTE.unpack(bs)
    if not 0 < bid <= ask:
        raise ValueError(f"a bid of {bid} and an ask of {ask}")
    return Quote(symbol.decode("ascii"), bid, ask)


@wallaroo.decoder(header_length=4, length_fmt=">I")
def decode_order(bs: bytes) -> Order:
    """Read a number, a symbol of four letters, and how many pieces."""
    number, symbol, pieces = ORDER.unpack(bs)
    return Order(number, symbol.decode("ascii"), pieces)


@wallaroo.encoder
def encode(data: Stopped) -> bytes:
    """Write a frame: the order's number, its symbol, and the reason."""
    symbol, reason = data.symbol.encode(), data.reason.encode()
    return STOPPED.pack(STOPPED.size - 4, data.number, symbol, reason)


def application_setup(args: list[str]) -> wallaroo.Application:
    """Put the application together; it has two inputs, quotes first."""
    quotes, orders, *_ = [*wallaroo.tcp_parse_input_addrs(args), ("", "")]
    out_host, out_port = wallaroo.tcp_parse_output_addrs(args)[0]

    ab = wallaroo.ApplicationBuilder("market")
    ab.new_pipeline("quotes", wallaroo.TCPSourceConfig(*quotes, decode_quote))
    ab.to_state_partition(TakeQuote(), PricesBuilder(), "prices", by_symbol, SYMBOLS)
    ab.done()
    ab.new_pipeline("orders", wallaroo.TCPSourceConfig(*orders, decode_order))
    ab.to_state_partition(CheckOrder(), PricesBuilder(), "prices", by_symbol, SYMBOLS)
    ab.to_sink(wallaroo.TCPSinkConfig(out_host, out_port, encode))
    return ab.build()
