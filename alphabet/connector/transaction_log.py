r"""A file sink's transaction log: which bytes of its file are committed or prepared.

One line of text for each step, so that people can read it as well:

```
line = step " " start " " end " " name " " checksum "\n"
step = "alphabet-sink-1" | "prepared" | "committed" | "aborted"
```

`start` (inclusive) and `end` (exclusive) are byte offsets in the file; `name` is the
transaction's id in hexadecimal, `-` for an empty one; `checksum` is the CRC-32 of
the line up to it, continued from the line before, as 8 hexadecimal digits. The first
line, whose step names the format, begins the log: its `end` is what was committed
before, and its name the transaction that was committed last.

Invariants: at most one transaction is prepared; a step that does not follow from the
lines before is corrupt; only the last line may be torn. Pure.
"""

from __future__ import annotations

import enum
import zlib

import attrs

_SPACES = 4
"""How many a line has."""


class Step(enum.Enum):
    """What a line says of its transaction."""

    BEGUN = "alphabet-sink-1"
    PREPARED = "prepared"
    COMMITTED = "committed"
    ABORTED = "aborted"


@attrs.frozen
class Transaction:
    """Bytes of a file that take effect together: `start` inclusive, `end` exclusive."""

    name: bytes
    start: int
    end: int


@attrs.frozen
class Standing:
    """What a transaction log comes to.

    Attributes:
        committed_bytes: How much of the file is final.
        prepared: The transaction that waits for a decision.
        last_committed: The id of the transaction committed last; None before any.
        checksum: The last line's.
    """

    committed_bytes: int
    prepared: Transaction | None
    last_committed: bytes | None
    checksum: int

    @property
    def kept_bytes(self) -> int:
        """How much of the file has to survive a crash."""
        return self.prepared.end if self.prepared else self.committed_bytes


class CorruptLineError(Exception):
    """A line was changed after it was written, or does not follow from those before."""

    def __init__(self, position: int, cause: str) -> None:
        """Take the line's byte offset, and what is wrong with it."""
        super().__init__(f"byte {position}: {cause}")


def begin(
    committed_bytes: int = 0, last_committed: bytes | None = None
) -> tuple[bytes, Standing]:
    """Give a new log's first line, and what the log comes to."""
    transaction = Transaction(last_committed or b"", 0, committed_bytes)
    line, checksum = _encode(Step.BEGUN, transaction, 0)
    return line, Standing(committed_bytes, None, last_committed, checksum)


def advance(
    standing: Standing, step: Step, transaction: Transaction
) -> tuple[bytes, Standing]:
    """Give the line of a step, and what the log comes to with it.

    Raises:
        ValueError: The step may not follow.
    """
    line, checksum = _encode(step, transaction, standing.checksum)
    return line, _after(standing, step, transaction, checksum)


def read_log(data: bytes) -> tuple[Standing, int]:
    """Give what a log comes to, and how many of its bytes are whole lines.

    What follows those is torn: the last line, or a part of it.

    Raises:
        CorruptLineError: A line is bad, and it is not the last, or is the first.
    """
    standing: Standing | None = None
    position = 0
    while position < len(data):
        end = data.find(b"\n", position) + 1 or len(data)
        try:
            standing = _read_line(data[position:end], standing)
        except ValueError as error:
            # Two lines without the newline between them were not torn, but changed.
            is_one = data.count(b" ", position) <= _SPACES
            if standing is not None and end == len(data) and is_one:
                break
            raise CorruptLineError(position, str(error)) from error
        position = end
    if standing is None:
        raise CorruptLineError(0, "the first line is missing")
    return standing, position


def _read_line(line: bytes, standing: Standing | None) -> Standing:
    """Give what a log comes to with this line; raises ValueError for a bad one."""
    text, _, checksum = line.rpartition(b" ")
    found = zlib.crc32(text, standing.checksum if standing else 0)
    if checksum != b"%08x\n" % found:
        raise ValueError("a line whose checksum does not fit")
    word, start, end, name = text.decode("ascii").split(" ")
    step = Step(word)
    transaction = Transaction(
        bytes.fromhex("" if name == "-" else name), int(start), int(end)
    )
    if _encode(step, transaction, standing.checksum if standing else 0)[0] != line:
        raise ValueError("a line that is not written as it should be")
    if standing is None:
        if step is not Step.BEGUN or transaction.start or transaction.end < 0:
            raise ValueError("a first line that begins no log")
        last_committed = transaction.name or None
        return Standing(transaction.end, None, last_committed, found)
    return _after(standing, step, transaction, found)


def _after(
    standing: Standing, step: Step, transaction: Transaction, checksum: int
) -> Standing:
    """Take a step; raises ValueError for one that may not follow."""
    committed_bytes = standing.committed_bytes
    prepared = standing.prepared
    if step is Step.PREPARED:
        follows = prepared is None and committed_bytes == transaction.start
        if not follows or transaction.end < transaction.start:
            raise ValueError(f"nothing like {transaction} can be prepared now")
        return attrs.evolve(standing, prepared=transaction, checksum=checksum)
    if step is Step.BEGUN or prepared != transaction:
        raise ValueError(f"{transaction} is not prepared")
    if step is Step.ABORTED:
        return attrs.evolve(standing, prepared=None, checksum=checksum)
    return Standing(transaction.end, None, transaction.name, checksum)


def _encode(step: Step, transaction: Transaction, before: int) -> tuple[bytes, int]:
    """Write a line; gives its checksum too."""
    name = transaction.name.hex() or "-"
    text = f"{step.value} {transaction.start} {transaction.end} {name}".encode()
    checksum = zlib.crc32(text, before)
    return b"%s %08x\n" % (text, checksum), checksum
