"""What fuzzing has found stays found: the corpus, and changes of it, on every target.

The fuzzing itself is `make fuzz`; here the same targets run without its engine.
"""

import functools
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzzing.script import acts, script
from tests.fuzzing.seeds import SEEDS
from tests.fuzzing.targets import CORPUS, TARGETS, Target, file_name

MEMORY_BYTES_MAX = 24 << 20
"""What a target may take for any input of the corpus: a length is no reason for more.

A salvager's window is 4 MiB, a sink's buffer 1 MiB."""
FILES_MAX = 60
SEED_BYTES_MAX = 500
CORPUS_BYTES_MAX = 1 << 20

targets = pytest.mark.parametrize("target", TARGETS.values(), ids=lambda t: t.name)


@targets
def test_every_input_is_taken(target: Target) -> None:
    """Each input that is kept leaves its target's word unbroken, in bounded memory."""
    inputs = target.inputs()
    assert inputs
    tracemalloc.start()
    try:
        for data in inputs:
            target.run(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < MEMORY_BYTES_MAX


@targets
@given(data=st.data())
def test_changed_inputs_are_taken(target: Target, data: st.DataObject) -> None:
    """So does what comes of an input by a few changes, its checksums mended or not."""
    target.run(data.draw(changed_inputs(target)))


@functools.cache
def changed_inputs(target: Target) -> st.SearchStrategy[bytes]:
    """Give inputs that are kept, and now and then any bytes, all of them changed.

    A change is a place, what is put in there, and how many bytes are left out for it.
    """
    kept = st.sampled_from(target.inputs())
    numbers = st.sampled_from([b"\0", b"\1", b"\x7f", b"\xff", b"\xff" * 4, b"\0" * 8])
    words = st.sampled_from(target.words or (b"",))
    change = st.tuples(
        st.integers(0, 1 << 16),
        numbers | words | st.binary(max_size=9),
        st.sampled_from([0, 1, 1, 2, 4, 8, 40]),
    )
    return st.builds(
        functools.partial(changed, target),
        kept | kept | kept | st.binary(max_size=200),
        st.lists(change, max_size=3),
        st.booleans(),
    )


def changed(
    target: Target,
    data: bytes,
    changes: list[tuple[int, bytes, int]],
    is_sealed: bool,
) -> bytes:
    """Change an input, and mend its checksums if that is wanted."""
    made = bytearray(data)
    for place, new, left_out in changes:
        at = place % (len(made) + 1)
        made[at : at + left_out] = new
    return target.seal(bytes(made)) if is_sealed else bytes(made)


@targets
def test_seeds_are_taken(target: Target) -> None:
    """What fuzzing begins with is good, and so is any byte of it changed."""
    for seed in SEEDS[target.name]():
        target.run(seed)
        if len(seed) < SEED_BYTES_MAX:
            for place in range(len(seed)):
                flipped = bytes([seed[place] ^ 1])
                target.run(seed[:place] + flipped + seed[place + 1 :])
        assert target.seal(seed) == seed or b"?" in seed


def test_the_corpus_is_small_and_named_by_its_content() -> None:
    """Each target has inputs of its own, named by their checksum, not too many."""
    assert {path.name for path in CORPUS.iterdir()} == SEEDS.keys() == TARGETS.keys()
    total_bytes = 0
    for target in TARGETS.values():
        inputs = target.inputs()
        names = {path.name for path in target.corpus.iterdir()}
        assert names == set(map(file_name, inputs))
        assert len(inputs) <= FILES_MAX
        total_bytes += sum(map(len, inputs))
    assert total_bytes <= CORPUS_BYTES_MAX


@given(told=st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=9))))
def test_a_script_is_read_as_it_was_written(told: list[tuple[int, bytes]]) -> None:
    """Acts are read back from what is written of them."""
    assert list(acts(script(told))) == told
