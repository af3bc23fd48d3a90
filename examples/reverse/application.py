"""Reverse each text that comes in.

The smallest application there is: a decoder, one step, an encoder, each a class.
"""

import struct

from alphabet import wallaroo

HEADER = struct.Struct(">I")


class Decoder:
    """Reads frames: a length in four bytes, and a text in UTF-8."""

    def header_length(self) -> int:
        """Say how many bytes a frame's header has."""
        return HEADER.size

    def payload_length(self, bs: bytes) -> int:
        """Read a payload's length from its header."""
        length: int = HEADER.unpack(bs)[0]
        return length

    def decode(self, bs: bytes) -> str:
        """Read a text; what is not UTF-8 raises, and is a reject."""
        return bs.decode()


class Reverse:
    """Turns a text round."""

    def name(self) -> str:
        """Name the computation."""
        return "reverse"

    def compute(self, data: str) -> str:
        """Return the text from its end to its beginning."""
        return data[::-1]


class Encoder:
    """Writes frames like those that come in."""

    framing = Decoder()
    """How outputs are cut: one whose header is wrong never goes out."""

    def encode(self, data: str) -> bytes:
        """Write a text as a frame."""
        payload = data.encode()
        return HEADER.pack(len(payload)) + payload


def application_setup(args: list[str]) -> wallaroo.Application:
    """Put the application together."""
    in_host, in_port = wallaroo.tcp_parse_input_addrs(args)[0]
    out_host, out_port = wallaroo.tcp_parse_output_addrs(args)[0]

    ab = wallaroo.ApplicationBuilder("reverse")
    ab.new_pipeline("reverse", wallaroo.TCPSourceConfig(in_host, in_port, Decoder()))
    # A step without a state is given by its class, one with a state by an instance.
    ab.to(Reverse)
    ab.to_sink(wallaroo.TCPSinkConfig(out_host, out_port, Encoder()))
    return ab.build()
