"""A file sink's transaction log: what its lines come to, torn, changed or whole."""

import itertools
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphabet.connector.transaction_log import (
    CorruptLineError,
    Standing,
    Step,
    Transaction,
    advance,
    begin,
    read_log,
)

names = st.binary(min_size=1, max_size=6)
rounds = st.lists(st.tuples(names, st.integers(0, 2**40), st.booleans()), max_size=8)
beginnings = st.tuples(st.integers(0, 2**40), st.none() | names)


def written(
    beginning: tuple[int, bytes | None], steps: list[tuple[bytes, int, bool]]
) -> tuple[list[bytes], list[Standing]]:
    """Write a log of settled transactions: its lines, and what each comes to."""
    line, standing = begin(*beginning)
    lines, standings = [line], [standing]
    for name, size, is_commit in steps:
        start = standing.committed_bytes
        transaction = Transaction(name, start, start + size)
        decision = Step.COMMITTED if is_commit else Step.ABORTED
        for step in (Step.PREPARED, decision):
            line, standing = advance(standing, step, transaction)
            lines.append(line)
            standings.append(standing)
    return lines, standings


class TestTransactionLog:
    """Any log, cut and changed anywhere."""

    @given(beginnings, rounds)
    def test_a_log_is_read_as_it_was_written(
        self,
        beginning: tuple[int, bytes | None],
        steps: list[tuple[bytes, int, bool]],
    ) -> None:
        """After each line, what is read is what was written."""
        lines, standings = written(beginning, steps)
        for count, standing in enumerate(standings, 1):
            data = b"".join(lines[:count])
            assert read_log(data) == (standing, len(data))

    @given(rounds)
    def test_it_comes_to_what_was_committed(
        self, steps: list[tuple[bytes, int, bool]]
    ) -> None:
        """The final bytes are those of the commits, and the last one has a name."""
        standing, _ = read_log(b"".join(written((0, None), steps)[0]))
        commits = [(name, size) for name, size, is_commit in steps if is_commit]
        assert standing.committed_bytes == sum(size for _, size in commits)
        assert standing.last_committed == (commits[-1][0] if commits else None)
        assert standing.prepared is None

    @given(rounds, st.data())
    def test_a_torn_last_line_is_none(
        self, steps: list[tuple[bytes, int, bool]], data: st.DataObject
    ) -> None:
        """A last line that is cut short, or zeros in part, leaves those before it."""
        lines, standings = written((0, None), [(b"x", 1, True), *steps])
        kept = data.draw(st.integers(0, len(lines[-1]) - 1))
        tail = lines[-1][:kept] + bytes(data.draw(st.integers(0, 90)))
        before = b"".join(lines[:-1])
        assert read_log(before + tail) == (standings[-2], len(before))

    @given(rounds, st.data())
    def test_a_changed_line_is_corrupt(
        self, steps: list[tuple[bytes, int, bool]], data: st.DataObject
    ) -> None:
        """A changed byte of any line but the last is found, and its line named."""
        lines, _ = written((0, None), [(b"x", 1, True), *steps])
        starts = [0, *itertools.accumulate(map(len, lines))]
        place = data.draw(st.integers(0, starts[-2] - 1))
        changed = bytearray(b"".join(lines))
        changed[place] ^= 1 << data.draw(st.integers(0, 7))
        start = max(each for each in starts if each <= place)
        with pytest.raises(CorruptLineError, match=f"^byte {start}: "):
            read_log(bytes(changed))

    @pytest.mark.parametrize("byte", [b" ", b"x", b""])
    def test_lines_that_run_together_are_corrupt(self, byte: bytes) -> None:
        """A last line that lacks the newline before it was not torn, but changed."""
        lines, _ = written((0, None), [(b"x", 1, True)])
        merged = lines[0] + lines[1].rstrip(b"\n") + byte + lines[2]
        with pytest.raises(CorruptLineError, match=f"^byte {len(lines[0])}: "):
            read_log(merged)

    @given(rounds, st.data())
    def test_a_missing_line_is_found(
        self, steps: list[tuple[bytes, int, bool]], data: st.DataObject
    ) -> None:
        """A log that lacks a line from its midst is corrupt."""
        lines, _ = written((0, None), [(b"x", 1, True), *steps, (b"y", 1, True)])
        del lines[data.draw(st.integers(0, len(lines) - 3))]
        with pytest.raises(CorruptLineError):
            read_log(b"".join(lines))

    @pytest.mark.parametrize("data", [b"", b"alphabet-si", b"\0" * 40, b"\n"])
    def test_a_log_has_a_first_line(self, data: bytes) -> None:
        """What does not begin with a whole first line is no torn log, but corrupt."""
        with pytest.raises(CorruptLineError, match=r"^byte 0: "):
            read_log(data)

    @pytest.mark.parametrize(
        "text",
        [b"0 07 -", b"0 +7 -", b"0 7_0 -", b"0 7 6F", b"0 7 ", b"1 7 -", b"0 -7 -"],
    )
    def test_a_line_has_one_way_to_be_written(self, text: bytes) -> None:
        """A line with a good checksum that no step writes is corrupt all the same."""
        line = b"alphabet-sink-1 " + text
        with pytest.raises(CorruptLineError, match=r"^byte 0: a "):
            read_log(line + b" %08x\n" % zlib.crc32(line))

    def test_the_lines_are_those_documented(self) -> None:
        """The first lines of a log, byte for byte, as a reader of it may count on."""
        lines, _ = written((0, None), [(b"a\xff", 4096, True)])
        words = [line.split(b" ")[:-1] for line in lines]
        assert words == [
            [b"alphabet-sink-1", b"0", b"0", b"-"],
            [b"prepared", b"0", b"4096", b"61ff"],
            [b"committed", b"0", b"4096", b"61ff"],
        ]

    @pytest.mark.parametrize("step", Step)
    def test_steps_follow_one_another(self, step: Step) -> None:
        """Nothing is settled that is not prepared, and nothing prepared twice."""
        _, standing = begin(5)
        early = Transaction(b"x", 0, 7)
        with pytest.raises(ValueError, match="prepared"):
            advance(standing, step, early)
        transaction = Transaction(b"x", 5, 7)
        _, prepared = advance(standing, Step.PREPARED, transaction)
        with pytest.raises(ValueError, match="prepared"):
            advance(prepared, step, Transaction(b"y", 5, 7))
