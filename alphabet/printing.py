r"""Lines of text: votes come in as `LETTER VOTES`, totals go out as `LETTER => TOTAL`.

Pure text and bytes. A letter from 0x21 to 0x7e stands for itself, and any other is
written `\xNN`, with two hexadecimal digits. A letter is a single byte, so a backslash
alone is one too.
"""

from __future__ import annotations

import re
import struct

import attrs

from alphabet.application import Votes

VOTES_MAX = 2**32 - 1
"""The most votes that a line can give, inclusive: what a vote's frame has room for."""

_OUTPUT = struct.Struct(">IBQ")
_OUTPUT_PAYLOAD_BYTES = 9

_PRINTED = range(0x21, 0x7F)
_LETTERS = [chr(code) if code in _PRINTED else f"\\x{code:02x}" for code in range(256)]

_ESCAPE = re.compile(rb"\\x([0-9a-fA-F]{2})")
_VOTES = re.compile(rb"[0-9]{1,10}")
_LETTERS_IN_UTF_8 = {chr(code).encode(): bytes([code]) for code in range(256)}
_SHOWN_BYTES_MAX = 40


@attrs.frozen
class OutputFormatError(ValueError):
    """Bytes are no outputs of Alphabet.

    Attributes:
        position: Byte offset in them where the first one begins that is none.
    """

    position: int

    def __str__(self) -> str:
        return f"what begins at byte {self.position} is no output of Alphabet"


@attrs.frozen
class VoteLineError(ValueError):
    """A line gives no vote.

    Attributes:
        line: The line's number, from 1.
        cause: What is wrong with it.
    """

    line: int
    cause: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.cause}"


def format_letter(letter: bytes) -> str:
    """Write a letter, a single byte."""
    return _LETTERS[ord(letter)]


def format_outputs(outputs: bytes) -> str:
    r"""Write totals as `LETTER => TOTAL`, each on a line of its own that ends in `\n`.

    Args:
        outputs: n frames of 13 bytes, `>IsQ`, as Alphabet's encoder makes them.

    Raises:
        OutputFormatError: There is something else among them.
    """
    lines: list[str] = []
    whole = len(outputs) - len(outputs) % _OUTPUT.size
    for length, code, total in _OUTPUT.iter_unpack(outputs[:whole]):
        if length != _OUTPUT_PAYLOAD_BYTES:
            raise OutputFormatError(len(lines) * _OUTPUT.size)
        lines.append(f"{_LETTERS[code]} => {total}\n")
    if whole < len(outputs):
        raise OutputFormatError(whole)
    return "".join(lines)


def parse_vote_line(line: bytes, number: int) -> Votes | None:
    r"""Read a line `LETTER VOTES`.

    The letter is one character of Latin-1, as a single byte or in UTF-8, or `\xNN`.
    What begins with `#` is a comment; a vote for `#` is written `\x23 VOTES`, and
    `# 5`, which could be either, is refused.

    Args:
        line: The line, with or without its end.
        number: Its number, from 1, for the error.

    Returns:
        The vote; None if the line is blank or a comment.

    Raises:
        VoteLineError: It is none of these.
    """
    match line.split():
        case []:
            return None
        case [b"#", votes] if votes.isdigit():
            cause = r"a vote or a comment? write \x23 for the letter, ## for a comment"
            raise VoteLineError(number, cause)
        case [first, *_] if first.startswith(b"#"):
            return None
        case [letter, votes]:
            return Votes(_parse_letter(letter, number), _parse_votes(votes, number))
    raise VoteLineError(number, f"{_shown(line.strip())} is not LETTER VOTES")


def _parse_letter(text: bytes, number: int) -> bytes:
    """Read a line's letter."""
    if len(text) == 1:
        return text
    if escape := _ESCAPE.fullmatch(text):
        return bytes.fromhex(escape[1].decode())
    if letter := _LETTERS_IN_UTF_8.get(text):
        return letter
    raise VoteLineError(
        number, rf"{_shown(text)} is no letter; write one character, or \xNN"
    )


def _parse_votes(text: bytes, number: int) -> int:
    """Read a line's votes."""
    votes = int(text) if _VOTES.fullmatch(text) else VOTES_MAX + 1
    if votes > VOTES_MAX:
        raise VoteLineError(
            number, f"{_shown(text)} is no number of votes, 0 to {VOTES_MAX}"
        )
    return votes


def _shown(text: bytes) -> str:
    """Quote what was given, or its beginning."""
    return repr(text[:_SHOWN_BYTES_MAX])[1:]
