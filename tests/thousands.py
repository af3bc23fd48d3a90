"""An application that is more than a sum: it answers when a total passes a thousand.

An event says how it wants to be treated: the letter REFUSED does not decode, UNLUCKY
votes make compute raise, the letter UNENCODABLE has no output. `Expected` says what
must come of events, and has nothing of the runtime in it.
"""

import json
import struct

import attrs

from alphabet import wallaroo

REFUSED = "?"
UNENCODABLE = "!"
UNLUCKY = 13
STEP = 1000

_VOTE = struct.Struct(">cI")
_OUTPUT = struct.Struct(">IcQ")

Total = tuple[str, int]


class Decoder:
    """Reads votes."""

    record_schema = ">sI"

    def header_length(self) -> int:
        """Give the header's size."""
        return 4

    def payload_length(self, bs: bytes) -> int:
        """Read the payload's size."""
        return int.from_bytes(bs)

    def decode(self, bs: bytes) -> Total:
        """Read a vote."""
        letter, votes = _VOTE.unpack(bs)
        if letter == REFUSED.encode():
            raise ValueError("it asks to be refused")
        return letter.decode("latin-1"), votes


class Thousands:
    """Adds up, and answers where a thousand is passed."""

    def name(self) -> str:
        """Name the computation."""
        return "thousands"

    def compute(self, data: Total, state: dict[str, int]) -> tuple[Total | None, bool]:
        """Add a vote."""
        letter, votes = data
        if votes == UNLUCKY:
            raise ValueError("it is unlucky")
        before = state.get(letter, 0)
        state[letter] = before + votes
        is_passed = before // STEP < state[letter] // STEP
        return ((letter, state[letter]) if is_passed else None, is_passed)


class Builder:
    """Makes states."""

    def build(self) -> dict[str, int]:
        """Make the first one."""
        return {}

    def dump(self, state: dict[str, int]) -> bytes:
        """Write a state."""
        return json.dumps(state, sort_keys=True).encode()

    def load(self, data: bytes) -> dict[str, int]:
        """Read a state."""
        found: dict[str, int] = json.loads(data)
        return found


class Encoder:
    """Writes totals as the tutorial's frames."""

    def encode(self, data: Total) -> bytes:
        """Write a total."""
        letter, total = data
        if letter == UNENCODABLE:
            raise ValueError("it has no output")
        return _OUTPUT.pack(9, letter.encode("latin-1"), total)


def application_setup(_args: list[str]) -> wallaroo.Application:
    """Put the application together."""
    builder = wallaroo.ApplicationBuilder("thousands")
    builder.new_pipeline("votes", wallaroo.TCPSourceConfig("", "", Decoder()))
    builder.to_stateful(Thousands(), Builder(), "totals")
    builder.to_sink(wallaroo.TCPSinkConfig("", "", Encoder()))
    return builder.build()


@attrs.define
class Expected:
    """What must have come of the events so far: `faults` are (event, reason)."""

    totals: dict[str, int] = attrs.Factory(dict)
    outputs: bytes = b""
    faults: list[tuple[int, str]] = attrs.Factory(list)
    events: int = 0

    def add(self, letter: str, votes: int) -> None:
        """Take an event."""
        self.events += 1
        if letter == REFUSED:
            self.faults.append((self.events, "decode"))
        elif votes == UNLUCKY:
            self.faults.append((self.events, "compute"))
        else:
            self._add(letter, votes)

    def _add(self, letter: str, votes: int) -> None:
        total = self.totals.get(letter, 0)
        self.totals[letter] = total + votes
        if total // STEP == self.totals[letter] // STEP:
            return
        if letter == UNENCODABLE:
            self.faults.append((self.events, "encode"))
        else:
            code = letter.encode("latin-1")
            self.outputs += b"\0\0\0\x09" + code + self.totals[letter].to_bytes(8)
