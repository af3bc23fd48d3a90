"""Outputs held to the framing that their encoder says they have.

Wallaroo's API tells nothing of how a sink's bytes are framed, and many encoders write
lines. So an encoder may say it: its `framing` is whatever has a decoder's
`header_length` and `payload_length`. Then each of its outputs is one whole frame, or
its event fails: a receiver never loses its place in the stream.

Pure.
"""

from collections.abc import Callable
from typing import Any, Protocol

import attrs

from alphabet.cause import FATAL, StepError


class Framing(Protocol):
    """Say how a stream is cut; every decoder does."""

    def header_length(self) -> int:
        """Say how many bytes a frame's header has, 1 to 8."""
        ...

    def payload_length(self, bs: bytes, /) -> int:
        """Read a payload's length from its frame's header."""
        ...


@attrs.frozen
class OutputFrameError(ValueError):
    """An output is not one whole frame."""

    told: object
    payload_bytes: int

    def __str__(self) -> str:
        return (
            f"the header of an output says {self.told!r} where the payload has"
            f" {self.payload_bytes} bytes"
        )


@attrs.frozen
class OutputHeaderError(ValueError):
    """An output is shorter than a header."""

    output_bytes: int
    header_bytes: int

    def __str__(self) -> str:
        return (
            f"an output has {self.output_bytes} bytes, and a header alone"
            f" {self.header_bytes}"
        )


def framing_of(encoder: object) -> Framing | None:
    """Give what an encoder says of its outputs' framing; None if it says nothing."""
    framing: Framing | None = getattr(encoder, "framing", None)
    return framing


def held_to(
    framing: Framing, name: str, encode: Callable[[Any], bytes]
) -> Callable[[Any], bytes]:
    """Let what `encode` writes be one whole frame.

    Else the new function raises a StepError that has `name`.
    """
    header_bytes = framing.header_length()

    def encode_frame(data: Any) -> bytes:  # noqa: ANN401 - it is the application's
        output = encode(data)
        if len(output) < header_bytes:
            raise StepError(name, OutputHeaderError(len(output), header_bytes))
        try:
            told = framing.payload_length(output[:header_bytes])
        except FATAL:
            raise
        except Exception as error:
            raise StepError(name, error) from error
        payload_bytes = len(output) - header_bytes
        if told != payload_bytes:
            raise StepError(name, OutputFrameError(told, payload_bytes))
        return output

    return encode_frame
