"""What an event says, as text: a vote's letter and number, or any other's `repr`.

The inner half of `alphabet-replay events`. A vote's line is what `alphabet send
--format lines` reads.

Pure.
"""

import json
import struct
from collections.abc import Iterator

from alphabet.application import Decoder
from alphabet.pipeline.machine import Machine
from alphabet.printing import format_letter
from recovery.errors import ReplayError
from recovery.event_text import CSV, JSON, LINES, Fields, Part, csv_cell, text_fields

_VOTE = struct.Struct(">BI")
_LETTERS = [format_letter(bytes([code])) for code in range(256)]
_BEFORE_VOTES = {
    # A line that begins with # would be a comment.
    LINES: [rf"\x{ord(x):02x} " if x == "#" else f"{x} " for x in _LETTERS],
    JSON: [f'"letter": {json.dumps(chr(x))}, "votes": ' for x in range(256)],
    CSV: [f"{csv_cell(letter)}," for letter in _LETTERS],
}

VOTE_COLUMNS = "letter,votes"
EVENT_COLUMNS = "event"


def event_columns(machine: Machine) -> str:
    """Give the CSV columns of what `event_fields` tell."""
    return VOTE_COLUMNS if _takes_votes(machine) else EVENT_COLUMNS


def event_fields(machine: Machine, format_: str) -> Fields:
    """Tell events as an application means them; raises ReplayError, as `Fields` do.

    Alphabet's are votes: the letter is one character, that of its byte in Latin-1,
    in JSON; elsewhere printed as everywhere. Any other's are its decoder's values.
    """
    decoded = text_fields(format_, "event", lambda part: _decode(machine, part))
    if not _takes_votes(machine):
        return decoded
    before = _BEFORE_VOTES[format_]

    def tell(part: Part) -> list[str]:
        if part.records.record_bytes != _VOTE.size:
            return list(decoded(part))  # It raises: no vote has another size.
        votes = _VOTE.iter_unpack(part.records.body)
        return [f"{before[code]}{number}" for code, number in votes]

    return tell


def _takes_votes(machine: Machine) -> bool:
    pipelines = machine.definition.pipelines
    return all(isinstance(each.source.decoder, Decoder) for each in pipelines)


def _decode(machine: Machine, part: Part) -> Iterator[str]:
    decoded = machine.decode(part.pipeline, part.records)
    if decoded.refused:
        index, cause = decoded.refused[0]
        raise ReplayError(part.first_sequence + index, cause)
    return map(repr, decoded.values)
