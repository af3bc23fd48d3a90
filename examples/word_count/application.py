"""Count how often each word has come.

A line becomes words (`compute_multi`), and each word goes to the part of the state that
it belongs to. Any word may come, so the parts are not the words themselves but a fixed
number of shelves, and a word's shelf is a checksum of it. Python's own `hash` would not
do: it differs from one start to the next, and a replay must find every word again.
"""

import json
import re
import struct
import zlib

from alphabet import wallaroo

SHELVES = 16
HEADER = struct.Struct(">I")

Counts = dict[str, int]


class Decoder:
    """Reads frames: a length in four bytes, and a line in UTF-8."""

    def header_length(self) -> int:
        """Say how many bytes a frame's header has."""
        return HEADER.size

    def payload_length(self, bs: bytes) -> int:
        """Read a payload's length from its header."""
        length: int = HEADER.unpack(bs)[0]
        return length

    def decode(self, bs: bytes) -> str:
        """Read a line."""
        return bs.decode()


class Split:
    """Makes words of a line."""

    def name(self) -> str:
        """Name the computation."""
        return "split into words"

    def compute_multi(self, data: str) -> list[str]:
        """Return the line's words, in small letters; each goes on by itself."""
        return re.findall(r"\w+", data.casefold())


class Shelf:
    """Says to which part of the state a word belongs."""

    def partition(self, data: str) -> int:
        """Give the word's shelf, 0 to `SHELVES` - 1."""
        return zlib.crc32(data.encode()) % SHELVES


class Count:
    """Counts a word on its shelf."""

    def name(self) -> str:
        """Name the computation."""
        return "count"

    def compute(self, data: str, state: Counts) -> tuple[tuple[str, int], bool]:
        """Count the word; return it with its count."""
        state[data] = state.get(data, 0) + 1
        return (data, state[data]), True


class CountsBuilder:
    """Makes shelves, and stores them as JSON."""

    def build(self) -> Counts:
        """Make an empty shelf."""
        return {}

    def dump(self, state: Counts) -> bytes:
        """Write a shelf; sorted, for equal states must have equal bytes."""
        return json.dumps(state, sort_keys=True).encode()

    def load(self, bs: bytes) -> Counts:
        """Read a shelf."""
        counts: Counts = json.loads(bs)
        return counts


class Encoder:
    """Writes frames: a length in four bytes, and a text."""

    def encode(self, data: tuple[str, int]) -> bytes:
        """Write `WORD COUNT`."""
        word, count = data
        payload = f"{word} {count}".encode()
        return HEADER.pack(len(payload)) + payload


def application_setup(args: list[str]) -> wallaroo.Application:
    """Put the application together."""
    in_host, in_port = wallaroo.tcp_parse_input_addrs(args)[0]
    out_host, out_port = wallaroo.tcp_parse_output_addrs(args)[0]

    ab = wallaroo.ApplicationBuilder("word count")
    ab.new_pipeline("lines", wallaroo.TCPSourceConfig(in_host, in_port, Decoder()))
    ab.to_parallel(Split)
    ab.to_state_partition_u64(
        Count(), CountsBuilder(), "counts", Shelf(), range(SHELVES)
    )
    ab.to_sink(wallaroo.TCPSinkConfig(out_host, out_port, Encoder()))
    return ab.build()
