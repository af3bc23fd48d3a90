"""Which votes to send: their name as a stream, and where to go on in them."""

import os
from pathlib import Path

import attrs
import pytest

from alphabet.framing import encode_frame
from alphabet.sending.vote_choice import BEGINNING, STANDARD, Place, VoteChoice
from alphabet.sending.vote_input import VoteInputError

VOTE = encode_frame(b"a\0\0\0\7")
SEVERAL = encode_frame(b"a\0\0\0\1") + encode_frame(b"bc") + encode_frame(b"a\0\0\0\2")


def of_file(file: Path | str, *, lines: bool = False) -> VoteChoice:
    """Choose all votes of a file."""
    return VoteChoice(str(file), lines, 0, 1, 0, None)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Give a file of ten votes."""
    path = tmp_path / "votes.bin"
    path.write_bytes(VOTE * 10)
    return path


class TestStreamName:
    """The name that a stream of votes has."""

    def test_the_same_file_has_the_same_name(
        self, file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """However a file is named and whenever it was written, its stream is one."""
        name = of_file(file).stream_name()
        link = file.with_name("link")
        link.symlink_to(file)
        file.write_bytes(VOTE * 10)
        os.utime(file, (0, 0))
        monkeypatch.chdir(file.parent)
        assert of_file("votes.bin").stream_name() == name
        assert of_file(link).stream_name() == name

    def test_another_content_has_another_name(self, file: Path) -> None:
        """A file that has changed is another stream."""
        name = of_file(file).stream_name()
        file.write_bytes(VOTE * 11)
        assert of_file(file).stream_name() != name

    def test_another_place_has_another_name(self, file: Path) -> None:
        """Two files are two streams, though they hold the same."""
        copy = file.with_name("copy.bin")
        copy.write_bytes(file.read_bytes())
        assert of_file(file).stream_name() != of_file(copy).stream_name()

    def test_another_meaning_has_another_name(self, file: Path) -> None:
        """One file read as frames and as lines is two streams."""
        file.write_bytes(b"")
        lines = of_file(file, lines=True)
        assert of_file(file).stream_name() != lines.stream_name()

    def test_random_votes_are_named_by_their_seed(self) -> None:
        """A seed makes one stream, however many of its votes are sent."""
        choice = VoteChoice(None, False, 7, 1, 0, 10)  # noqa: FBT003 - as the others
        assert choice.stream_name() == b"random:7"
        assert attrs.evolve(choice, messages=20).stream_name() == b"random:7"
        assert attrs.evolve(choice, seed=8).stream_name() == b"random:8"

    @pytest.mark.parametrize("lines", [False, True])
    def test_a_fault_is_found_before(self, file: Path, *, lines: bool) -> None:
        """A file with a fault has no name."""
        file.write_bytes(b"a 7\n\0\0" if lines else VOTE + b"\0")
        with pytest.raises(VoteInputError, match="line 2" if lines else "byte 9"):
            of_file(file, lines=lines).stream_name()


class TestPlace:
    """Where to go on."""

    @pytest.mark.parametrize("votes", [1, 5, 10])
    def test_votes_are_gone_on_with_at_once(self, file: Path, votes: int) -> None:
        """In a file of votes the place is found by its offset alone."""
        assert of_file(file).find(votes * 9) == Place(votes * 9, votes)

    @pytest.mark.parametrize("offset", [0, 8, 10])
    def test_no_border_no_place(self, file: Path, offset: int) -> None:
        """Where no frame ends, the file is read from its beginning."""
        assert of_file(file).find(offset) == BEGINNING

    @pytest.mark.parametrize("offset", [9, 15, 24])
    def test_frames_of_several_sizes_are_read_through(
        self, file: Path, offset: int
    ) -> None:
        """Among frames of several sizes there is no short cut."""
        file.write_bytes(SEVERAL)
        assert of_file(file).find(offset) == BEGINNING

    def test_a_file_may_be_too_short(self, file: Path) -> None:
        """A point behind a file's end is an error that names both."""
        with pytest.raises(VoteInputError, match=r"byte 90: .* up to byte 99"):
            of_file(file).find(99)

    @pytest.mark.parametrize("lines", [False, True])
    def test_what_cannot_be_sought_in_is_read_through(
        self, tmp_path: Path, *, lines: bool
    ) -> None:
        """Pipes and lines are read from their beginning."""
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe)
        assert of_file(STANDARD, lines=lines).find(99) == BEGINNING
        assert of_file(pipe).find(99) == BEGINNING
        assert not of_file(pipe).is_rereadable


class TestStamp:
    """What tells that a file was changed."""

    def test_a_change_is_seen(self, file: Path) -> None:
        """Another size, time or file has another stamp; the same has the same."""
        choice = of_file(file)
        before = choice.stamp()
        assert choice.stamp() == before
        os.utime(file, (1, 1))
        assert choice.stamp() != before
        assert of_file(STANDARD).stamp() is None
