r"""Lines: totals going out, votes coming in, and `\xNN` in both."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphabet.application import Encoder, Votes
from alphabet.printing import (
    OutputFormatError,
    VoteLineError,
    format_letter,
    format_outputs,
    parse_vote_line,
)

letters = st.binary(min_size=1, max_size=1)
counts = st.integers(0, 2**32 - 1)
totals = st.builds(Votes, letters, st.integers(0, 2**64 - 1))


class TestFormatting:
    """What is printed."""

    @pytest.mark.parametrize(
        ("letter", "text"),
        [
            (b"a", "a"),
            (b"!", "!"),
            (b"~", "~"),
            (b"\\", "\\"),
            (b" ", r"\x20"),
            (b"\0", r"\x00"),
            (b"\n", r"\x0a"),
            (b"\x7f", r"\x7f"),
            (b"\xe9", r"\xe9"),
        ],
    )
    def test_letters_that_do_not_show_are_escaped(
        self, letter: bytes, text: str
    ) -> None:
        """A letter outside 0x21 to 0x7e is written in hexadecimal."""
        assert format_letter(letter) == text

    def test_an_output_is_a_line(self) -> None:
        """Each output becomes `LETTER => TOTAL` on a line of its own."""
        encode = Encoder().encode
        outputs = encode(Votes(b"a", 5428)) + encode(Votes(b"\n", 2**64 - 1))
        assert format_outputs(outputs) == (
            "a => 5428\n" + r"\x0a => 18446744073709551615" + "\n"
        )

    @given(st.lists(totals))
    def test_lines_are_outputs(self, events: list[Votes]) -> None:
        """There are as many lines as outputs, and each says what its output does."""
        outputs = b"".join(map(Encoder().encode, events))
        lines = [f"{format_letter(each.letter)} => {each.votes}" for each in events]
        assert format_outputs(outputs).split("\n")[:-1] == lines

    @pytest.mark.parametrize(
        ("outputs", "position"),
        [
            (bytes(13), 0),
            (Encoder().encode(Votes(b"a", 1)) + struct.pack(">IsQ", 8, b"a", 1), 13),
            (Encoder().encode(Votes(b"a", 1))[:-1], 0),
            (Encoder().encode(Votes(b"a", 1)) + b"\0", 13),
        ],
    )
    def test_other_outputs_are_refused(self, outputs: bytes, position: int) -> None:
        """What is no output of Alphabet is an error that says where it begins."""
        with pytest.raises(OutputFormatError) as caught:
            format_outputs(outputs)
        assert caught.value.position == position
        assert str(position) in str(caught.value)


class TestParsing:
    """What is read."""

    @pytest.mark.parametrize(
        ("line", "vote"),
        [
            (b"a 5", Votes(b"a", 5)),
            (b"  a\t5 \r\n", Votes(b"a", 5)),
            (b"a 0", Votes(b"a", 0)),
            (b"a 4294967295", Votes(b"a", 2**32 - 1)),
            (b"a 0000000001", Votes(b"a", 1)),
            (b"5 5", Votes(b"5", 5)),
            (b"\\ 5", Votes(b"\\", 5)),
            (rb"\x20 5", Votes(b" ", 5)),
            (rb"\xE9 5", Votes(b"\xe9", 5)),
            (rb"\x23 5", Votes(b"#", 5)),
            (b"\xe9 5", Votes(b"\xe9", 5)),
            ("\u00e9 5".encode(), Votes(b"\xe9", 5)),
            (b"", None),
            (b" \r\n", None),
            (b"#", None),
            (b"# a comment", None),
            (b"#a 5", None),
            (b"# 5 votes", None),
            (b"## 5", None),
        ],
    )
    def test_lines_are_votes_or_nothing(self, line: bytes, vote: Votes | None) -> None:
        """A line is a vote, or it is blank or a comment."""
        assert parse_vote_line(line, 1) == vote

    @pytest.mark.parametrize(
        ("line", "cause"),
        [
            (b"a", "'a' is not LETTER VOTES"),
            (b"a 5 6", "'a 5 6' is not LETTER VOTES"),
            (b"ab 5", "'ab' is no letter"),
            ("\u0100 5".encode(), "is no letter"),
            (rb"\x5 5", "is no letter"),
            (rb"\x123 5", "is no letter"),
            (rb"\n 5", "is no letter"),
            (b"a b", "'b' is no number of votes, 0 to 4294967295"),
            (b"a -1", "'-1' is no number"),
            (b"a +1", "is no number"),
            (b"a 1_0", "is no number"),
            (b"a 1.0", "is no number"),
            ("a \u0663".encode(), "is no number"),
            (b"a 4294967296", "'4294967296' is no number"),
            (b"a " + b"9" * 5000, "is no number"),
            (b"# 5", r"a vote or a comment\? write \\x23"),
        ],
    )
    def test_other_lines_are_refused(self, line: bytes, cause: str) -> None:
        """A line that is none of these is an error with its number and the cause."""
        with pytest.raises(VoteLineError, match=cause) as caught:
            parse_vote_line(line, 12)
        assert caught.value.line == 12
        assert str(caught.value).startswith("line 12: ")
        assert len(str(caught.value)) < 120
        assert str(caught.value).isprintable()

    @given(letters.filter(lambda letter: letter != b"#"), counts)
    def test_what_is_printed_can_be_read(self, letter: bytes, votes: int) -> None:
        """A letter reads as it prints."""
        line = f"{format_letter(letter)} {votes}".encode()
        assert parse_vote_line(line, 1) == Votes(letter, votes)

    @given(st.binary(max_size=20) | st.from_regex(rb"[ a#\\x]{1,6} [0-9]{1,11}"))
    def test_any_line_is_a_vote_nothing_or_an_error(self, line: bytes) -> None:
        """No bytes do anything else, and a vote is within its bounds."""
        try:
            vote = parse_vote_line(line, 1)
        except VoteLineError:
            return
        assert vote is None or (len(vote.letter) == 1 and 0 <= vote.votes < 2**32)
