"""The parts of the reversing application, without a server."""

import pytest

from examples.reverse.application import Decoder, Encoder, Reverse


@pytest.mark.parametrize(
    ("text", "turned"), [("hello", "olleh"), ("", ""), ("né", "én")]
)
def test_a_text_is_turned_round(text: str, turned: str) -> None:
    """It comes out from its end to its beginning, in characters, not in bytes."""
    assert Reverse().compute(text) == turned


def test_a_frame_is_read_as_it_is_written() -> None:
    """The decoder cuts and reads what the encoder writes."""
    frame, decoder = Encoder().encode("né"), Decoder()
    header, payload = frame[: decoder.header_length()], frame[decoder.header_length() :]
    assert decoder.payload_length(header) == len(payload) == 3
    assert decoder.decode(payload) == "né"


def test_other_bytes_are_refused() -> None:
    """What is no UTF-8 raises, so the server rejects it."""
    with pytest.raises(UnicodeDecodeError):
        Decoder().decode(b"\xff")
