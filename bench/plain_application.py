"""An application without batch methods, for `--application-module`: the event path.

It counts as Alphabet does, with the plainest state there is, so the same frames go in
and come out and the same check holds.
"""

import struct
from collections.abc import Sequence

from alphabet import wallaroo

_VOTE = struct.Struct(">BI")
_OUTPUT = struct.Struct(">IBQ")
_TOTAL = struct.Struct(">BQ")

Totals = dict[int, int]


class Decoder:
    """Make votes of frames: (letter, votes)."""

    record_schema = ">BI"

    def header_length(self) -> int:
        """Say how many bytes a frame's header has."""
        return 4

    def payload_length(self, bs: bytes) -> int:
        """Read a payload's length."""
        return int.from_bytes(bs)

    def decode(self, bs: bytes) -> tuple[int, int]:
        """Read a payload."""
        letter, votes = _VOTE.unpack(bs)
        return letter, votes


class Add:
    """Add a vote to its letter's total."""

    def name(self) -> str:
        """Name the computation."""
        return "add"

    def compute(
        self, data: tuple[int, int], state: Totals
    ) -> tuple[tuple[int, int], bool]:
        """Give the letter's new total."""
        letter, votes = data
        total = state[letter] = state.get(letter, 0) + votes
        return (letter, total), True


class TotalsBuilder:
    """Make states, and bytes of them."""

    def build(self) -> Totals:
        """Make the first state."""
        return {}

    def dump(self, state: Totals) -> bytes:
        """Write a state."""
        return b"".join([_TOTAL.pack(*row) for row in sorted(state.items())])

    def load(self, data: bytes) -> Totals:
        """Read a state."""
        return dict(_TOTAL.iter_unpack(data))


class Encoder:
    """Make an output's bytes."""

    def encode(self, data: tuple[int, int]) -> bytes:
        """Write a letter's total."""
        return _OUTPUT.pack(9, *data)


def application_setup(args: Sequence[str]) -> wallaroo.Application:
    """Put the application together."""
    in_host, in_port = wallaroo.tcp_parse_input_addrs(args)[0]
    out_host, out_port = wallaroo.tcp_parse_output_addrs(args)[0]
    builder = wallaroo.ApplicationBuilder("plain")
    builder.new_pipeline("plain", wallaroo.TCPSourceConfig(in_host, in_port, Decoder()))
    builder.to_stateful(Add(), TotalsBuilder(), "totals")
    builder.to_sink(wallaroo.TCPSinkConfig(out_host, out_port, Encoder()))
    return builder.build()
