"""How a state becomes bytes: the best way that is offered, and back the same way."""

import json
from types import SimpleNamespace

import pytest

from alphabet import application
from alphabet.application import LetterStateBuilder
from alphabet.pipeline.state_codec import DUMP, MODULE, PICKLE, choose_codec

STATE = {"a": 1}

OWN = SimpleNamespace(
    dump=lambda state: b"own " + json.dumps(state).encode(),
    load=lambda data: json.loads(data.removeprefix(b"own ")),
)
SHARED = SimpleNamespace(
    serialize=lambda state: b"shared " + json.dumps(state).encode(),
    deserialize=lambda data: json.loads(data.removeprefix(b"shared ")),
)
NOTHING = SimpleNamespace()
HALF_OWN = SimpleNamespace(dump=OWN.dump)
HALF_SHARED = SimpleNamespace(deserialize=SHARED.deserialize)
NOT_CALLABLE = SimpleNamespace(dump=1, load=2)


class TestChooseCodec:
    """The three ways, in this order."""

    @pytest.mark.parametrize(
        ("builder", "module", "encoding"),
        [
            (OWN, SHARED, DUMP),
            (OWN, None, DUMP),
            (NOTHING, SHARED, MODULE),
            (HALF_OWN, SHARED, MODULE),
            (NOT_CALLABLE, SHARED, MODULE),
            (HALF_OWN, HALF_SHARED, PICKLE),
            (NOTHING, NOTHING, PICKLE),
            (NOTHING, None, PICKLE),
        ],
    )
    def test_the_best_that_is_whole(
        self, builder: object, module: object, encoding: str
    ) -> None:
        """A way is taken if both directions are there; a state comes back by it."""
        codec = choose_codec(builder, module)
        assert codec.encoding == encoding
        assert codec.load(codec.dump(STATE)) == STATE

    @pytest.mark.parametrize(
        ("builder", "start"), [(OWN, b"own "), (NOTHING, b"shared ")]
    )
    def test_the_bytes_are_the_applications(
        self, builder: object, start: bytes
    ) -> None:
        """The bytes are those that the chosen function gave, and nothing more."""
        data = choose_codec(builder, SHARED).dump(STATE)
        assert data == start + json.dumps(STATE).encode()

    def test_alphabets_state_is_never_a_pickle(self) -> None:
        """Alphabet's state goes its own way."""
        assert choose_codec(LetterStateBuilder(), application).encoding == DUMP
