"""Turn degrees Celsius into degrees Fahrenheit.

Components are functions here, made so by decorators, and there are two steps in a row.
Numbers are binary: a float of four bytes, which has six digits or seven.
"""

import math
import struct

from alphabet import wallaroo

DEGREES = struct.Struct(">f")
FRAME = struct.Struct(">If")


@wallaroo.decoder(header_length=4, length_fmt=">I")
def decode(bs: bytes) -> float:
    """Read a number of four bytes; one that is none, or infinite, is a reject."""
    degrees: float = DEGREES.unpack(bs)[0]
    if not math.isfinite(degrees):
        raise ValueError(f"{degrees} is no temperature")
    return degrees


@wallaroo.computation(name="multiply by 1.8")
def multiply(data: float) -> float:
    """Turn the size of a degree."""
    return data * 1.8


@wallaroo.computation(name="add 32")
def add(data: float) -> float:
    """Turn where degrees begin."""
    return data + 32


@wallaroo.encoder
def encode(data: float) -> bytes:
    """Write a frame; OverflowError, a failed event, if four bytes are not enough."""
    return FRAME.pack(DEGREES.size, data)


def application_setup(args: list[str]) -> wallaroo.Application:
    """Put the application together."""
    in_host, in_port = wallaroo.tcp_parse_input_addrs(args)[0]
    out_host, out_port = wallaroo.tcp_parse_output_addrs(args)[0]

    ab = wallaroo.ApplicationBuilder("celsius")
    ab.new_pipeline("degrees", wallaroo.TCPSourceConfig(in_host, in_port, decode))
    ab.to(multiply)
    ab.to(add)
    ab.to_sink(wallaroo.TCPSinkConfig(out_host, out_port, encode))
    return ab.build()
