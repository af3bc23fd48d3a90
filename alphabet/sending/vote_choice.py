"""Which votes to send: a file's, standard input's or random ones, and how many.

The name that a choice has as a connector's stream: the same for the same votes from the
same place, never the same for others. So a file's name has its path and the checksum of
its content, and is had only by reading all of it, which finds every fault in it before
anything is sent.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from alphabet.framing import decode_length
from alphabet.sending.sender import read_pieces
from alphabet.sending.vote_input import (
    CHUNK_BYTES,
    HEADER_BYTES,
    VOTE_BYTES,
    LineReader,
    VoteInputError,
    WireReader,
    first_votes,
    random_votes,
    read_votes,
    skip_votes,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from alphabet.sending.sender import Target
    from alphabet.sending.vote_input import Chunk, VoteReader

STANDARD = "-"
"""Standard input as a file, standard output as a target."""


@attrs.frozen
class Place:
    """Where in the votes to begin: behind so many bytes, which are so many votes."""

    offset: int
    votes: int


BEGINNING = Place(0, 0)


@attrs.frozen
class VoteChoice:
    """Which votes to send.

    Attributes:
        file: A path, `STANDARD` for standard input, None for random votes.
        lines: Whether the file holds lines; else it holds frames.
        seed: Which random votes.
        repeat: How often the whole file is read.
        skip: How many votes at the beginning are left out.
        messages: How many votes there are, those left out included; None for all.
    """

    file: str | None
    lines: bool
    seed: int
    repeat: int
    skip: int
    messages: int | None

    @property
    def name(self) -> str:
        """What to call them in a message."""
        return "standard input" if self.file == STANDARD else self.file or "random"

    @property
    def is_rereadable(self) -> bool:
        """Say whether the same votes can be had again: a file's, but no pipe's."""
        return self.file is None or (
            self.file != STANDARD and Path(self.file).is_file()
        )

    def chunks(self, target: Target, place: Place = BEGINNING) -> Iterator[Chunk]:
        """Read or make the votes, with an eye on the target while none are to be had.

        Raises:
            VoteInputError: Something else came; the votes before it were given out.
        """
        chunks = (
            random_votes(self.seed) if self.file is None else self._read(target, place)
        )
        if self.messages is not None:
            chunks = first_votes(chunks, self.messages - place.votes)
        return skip_votes(chunks, self.skip)

    def _read(self, target: Target, place: Place) -> Iterator[Chunk]:
        """Read the file, as often as is asked for."""
        for _ in range(self.repeat):
            reader = LineReader() if self.lines else WireReader(place.offset)
            pieces = read_pieces(str(self.file), target, place.offset)
            yield from read_votes(pieces, reader)

    def votes_expected(self) -> int | None:
        """Say how many votes these are, if that is known beforehand."""
        counts = [] if self.messages is None else [self.messages]
        if self.file is not None and self.is_rereadable and not self.lines:
            file_bytes = Path(self.file).stat().st_size
            counts.append(file_bytes // VOTE_BYTES * self.repeat)
        return max(0, min(counts) - self.skip) if counts else None

    def stream_name(self) -> bytes:
        """Make a name that these votes have, and no others. Reads the whole file.

        Raises:
            VoteInputError: Something in the file is no vote.
        """
        if self.file is None:
            return b"random:%d" % self.seed
        content = hashlib.sha256()
        reader: VoteReader = LineReader() if self.lines else WireReader()
        for _ in read_votes(_digested(self.file, content), reader):
            pass
        form = b"lines:" if self.lines else b"wire:"
        path = os.fsencode(Path(self.file).resolve())
        return form + path + b"#" + content.hexdigest()[:32].encode()

    def stamp(self) -> tuple[int, int, int] | None:
        """Tell what changes when the file does: its inode, size and time of change."""
        if self.file is None or not self.is_rereadable:
            return None
        status = Path(self.file).stat()
        return status.st_ino, status.st_size, status.st_mtime_ns

    def find(self, offset: int) -> Place:
        """Find where to begin reading, to go on behind an offset: there or before it.

        A file of frames of one size is begun at the offset itself, if frames end and
        begin there; else the beginning will do.

        Raises:
            VoteInputError: The file ends before.
        """
        if not offset or self.file is None or self.lines or not self.is_rereadable:
            return BEGINNING
        file_bytes = Path(self.file).stat().st_size
        if file_bytes < offset:
            raise VoteInputError(
                f"byte {file_bytes}",
                f"it is the file's end, and the server has it up to byte {offset}: this"
                " is not what was sent before",
            )
        with Path(self.file).open("rb") as stream:
            header = stream.read(HEADER_BYTES)
            size = HEADER_BYTES + decode_length(header)
            for at in (offset - size, offset):
                stream.seek(max(at, 0))
                if stream.read(HEADER_BYTES) not in {header, b""}:
                    return BEGINNING
        return BEGINNING if offset % size else Place(offset, offset // size)


def _digested(path: str, content: hashlib._Hash) -> Iterator[bytes]:
    """Read a file, and put it into a checksum on the way.

    Raises:
        VoteInputError: It cannot be read to its end.
    """
    try:
        with Path(path).open("rb", buffering=0) as stream:
            while piece := stream.read(CHUNK_BYTES):
                content.update(piece)
                yield piece
    except OSError as error:
        raise VoteInputError(path, error.strerror or str(error)) from error
