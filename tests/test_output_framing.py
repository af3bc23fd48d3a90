"""Outputs are one whole frame each where their encoder says how they are framed."""

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphabet import wallaroo
from alphabet.framing import FrameReader
from alphabet.pipeline.batch import find_batch_methods
from alphabet.pipeline.machine import Machine
from tests.speeds import batch_toy

SAYS = "OutputFrameError: the header of an output says"


def framed(payload: bytes) -> bytes:
    """Put a payload's length before it."""
    return struct.pack(">I", len(payload)) + payload


class Decoder:
    """Reads frames with a header of four bytes; its payload is what it decodes to."""

    def header_length(self) -> int:
        """Give the header's size."""
        return 4

    def payload_length(self, bs: bytes) -> int:
        """Give the payload's size."""
        length: int = struct.unpack(">I", bs)[0]
        return length

    def decode(self, bs: bytes) -> bytes:
        """Give the payload."""
        return bs


class Encoder:
    """Writes the data as they are: a frame, or what should be one."""

    framing = Decoder()

    def encode(self, data: bytes) -> bytes:
        """Write an output."""
        return data


class Echo:
    """Lets everything through."""

    def compute(self, data: bytes) -> bytes:
        """Return the event."""
        return data


class Twice:
    """Lets everything through twice."""

    def compute_multi(self, data: bytes) -> list[bytes]:
        """Return the event and a frame."""
        return [b"\0\0\0\1a", data]


def machine(encoder: Any, step: Any = Echo) -> Machine:  # noqa: ANN401 - any component
    """Make a machine of one step."""
    builder = wallaroo.ApplicationBuilder("echo")
    builder.new_pipeline("echo", wallaroo.TCPSourceConfig("", "", Decoder())).to(step)
    return Machine(builder.to_sink(wallaroo.TCPSinkConfig("", "", encoder)).build())


def cause_of(made: Machine, output: bytes) -> str:
    """Let one output fail between two good ones; give the cause."""
    good = b"\0\0\0\1b"
    computed = made.compute(0, 7, [good, output, good])
    assert bytes(computed.outputs.data) in (good * 2, (b"\0\0\0\1a" + good) * 2)
    [failure] = computed.failures
    assert (failure.sequence, failure.reason) == (8, "encode")
    return failure.cause


class TestWhole:
    """Outputs that are frames, and outputs that are none."""

    @pytest.mark.parametrize("step", [Echo, Twice])
    @pytest.mark.parametrize(
        ("output", "cause"),
        [
            (
                struct.pack(">IsQ", 5, b"a", 7),
                f"{SAYS} 5 where the payload has 9 bytes",
            ),
            (
                struct.pack(">IsI", 9, b"a", 7),
                f"{SAYS} 9 where the payload has 5 bytes",
            ),
            (
                b"abc",
                "OutputHeaderError: an output has 3 bytes, and a header alone 4",
            ),
        ],
    )
    def test_a_header_that_is_wrong(self, step: Any, output: bytes, cause: str) -> None:  # noqa: ANN401 - any step
        """The event fails, in one line that names the encoder, and nothing goes out."""
        assert cause_of(machine(Encoder(), step), output) == f"Encoder: {cause}"

    def test_a_header_that_cannot_be_read(self) -> None:
        """What `payload_length` raises fails the event too."""

        class Picky(Decoder):
            def payload_length(self, bs: bytes) -> int:
                if bs == b"\xff\xff\xff\xff":
                    raise ValueError("no length")
                return super().payload_length(bs)

        class PickyEncoder(Encoder):
            framing = Picky()

        made = machine(PickyEncoder())
        assert cause_of(made, b"\xff\xff\xff\xff") == (
            "PickyEncoder: ValueError: no length"
        )

    def test_an_encoder_that_says_nothing(self) -> None:
        """Its outputs go out as they are."""
        encoder: wallaroo.Encoder[bytes] = wallaroo.encoder(lambda data: data)
        computed = machine(encoder).compute(0, 1, [b"hi\n"])
        assert (bytes(computed.outputs.data), computed.failures) == (b"hi\n", [])

    def test_text_is_looked_at_as_bytes(self) -> None:
        """What goes out in UTF-8 is measured so."""

        class TextEncoder(Encoder):
            def encode(self, data: bytes) -> Any:  # noqa: ANN401 - wrong, and taken
                return data.decode()

        computed = machine(TextEncoder()).compute(0, 1, ["\0\0\0\2é".encode()])
        assert computed.failures == []

    @given(st.lists(st.binary(max_size=12) | st.binary(max_size=9).map(framed)))
    def test_a_receiver_keeps_its_place(self, outputs: list[bytes]) -> None:
        """Whatever an encoder writes, a receiver finds whole frames and no more."""
        computed = machine(Encoder()).compute(0, 1, outputs)
        reader = FrameReader(4, Decoder().payload_length, 100)
        payloads = reader.receive(bytes(computed.outputs.data)).payloads
        reader.end()
        assert reader.fault is None
        failed = {each.sequence for each in computed.failures}
        kept = [each for n, each in enumerate(outputs, 1) if n not in failed]
        assert payloads == [each[4:] for each in kept]
        assert kept == [each for each in outputs if each == framed(each[4:])]


class TestMistakes:
    """A framing that is none is met where the application is put together."""

    @pytest.mark.parametrize(
        ("framing", "message"),
        [
            (5, "the framing of a Bad is a int, which has no method header_length"),
            (Decoder, "the framing of a Bad is the class Decoder; give it an instance"),
            (
                wallaroo.decoder(header_length=9, length_fmt=">I")(bytes),
                "header_length\\(\\) of FunctionDecoder returned 9",
            ),
        ],
    )
    def test_what_is_no_framing(self, framing: object, message: str) -> None:
        """It is refused, and named."""
        bad: Any = type("Bad", (Encoder,), {"framing": framing})()
        with pytest.raises(wallaroo.WallarooParameterError, match=message):
            wallaroo.TCPSinkConfig("", "", bad)


def test_no_batch_is_taken_unseen() -> None:
    """A pipeline whose outputs are held to a framing has no fast way past that."""
    pipeline = batch_toy().definition.pipelines[0]
    assert find_batch_methods(pipeline) is not None
    encoder: Any = pipeline.sink.encoder
    encoder.framing = Decoder()
    assert find_batch_methods(pipeline) is None
