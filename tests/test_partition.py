"""A partitioned state's bytes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphabet.pipeline.partition import Partition, partition_codec
from alphabet.pipeline.state_codec import StateCodec

INNER = StateCodec("dump", lambda state: state[0], lambda data: [data])
KEYS = ("a", b"a", 1, None, ("x", 2))

partitions = st.dictionaries(st.sampled_from(KEYS), st.binary(max_size=4))


def made(states: dict[object, bytes]) -> Partition:
    """Make a partition with these states, in the order given."""
    partition = Partition.of_keys(KEYS, list)
    for key, data in states.items():
        partition.state(key).append(data)
    return partition


CODEC = partition_codec(INNER, KEYS, list)


@given(partitions)
def test_what_is_dumped_is_loaded(states: dict[object, bytes]) -> None:
    """Every key's state comes back, and no other is there."""
    loaded = CODEC.load(CODEC.dump(made(states)))
    assert loaded.states == {key: [data] for key, data in states.items()}
    assert loaded.state("a") == [states["a"]] if "a" in states else [[]]


@given(partitions)
def test_the_order_of_events_does_not_show(states: dict[object, bytes]) -> None:
    """Equal states have equal bytes, whichever key came first."""
    turned = dict(reversed(states.items()))
    assert CODEC.dump(made(states)) == CODEC.dump(made(turned))


@given(partitions, st.data())
def test_cut_bytes_are_refused(
    states: dict[object, bytes], data: st.DataObject
) -> None:
    """A stored partition that was cut within a row is no partition."""
    stored = CODEC.dump(made(states))
    ends = {4}
    for _, state in made(states):
        ends.add(max(ends) + 12 + len(state[0]))
    cut = data.draw(st.integers(0, len(stored)))
    if cut in ends:
        CODEC.load(stored[:cut])
    else:
        with pytest.raises(Exception, match=r".") as caught:
            CODEC.load(stored[:cut])
        assert not isinstance(caught.value, MemoryError)


@pytest.mark.parametrize("row", [b"\0\0\0\5", b"\0\0\0\1" + bytes(8) + b"\0\0\0\1"])
def test_rows_that_are_none(row: bytes) -> None:
    """A place beyond the keys, or one that does not rise, is refused."""
    stored = CODEC.dump(made({})) + row + bytes(8)
    with pytest.raises(ValueError, match="its rows are no partition's"):
        CODEC.load(stored)


@pytest.mark.parametrize("keys", [KEYS[:-1], (*KEYS, 5), KEYS[::-1]])
def test_other_keys_are_noticed(keys: tuple[object, ...]) -> None:
    """What was stored with one list of keys is not loaded with another."""
    stored = CODEC.dump(made({"a": b"x"}))
    with pytest.raises(ValueError, match="other partition keys"):
        partition_codec(INNER, keys, list).load(stored)


def test_equal_keys_are_one() -> None:
    """A key that equals a listed one is that key."""
    partition = made({1: b"x"})
    assert partition.state(1.0) == partition.state(1)
    assert [key for key, _ in partition] == [1]
