"""A pipeline's steps: what becomes of one event on its way through them."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphabet import wallaroo
from alphabet.pipeline.machine import Machine
from log.block import Records
from tests.toy import ChainBuilder


class Decoder:
    """Takes a payload as the whole number that it is."""

    def header_length(self) -> int:
        """Give the header's size."""
        return 1

    def payload_length(self, bs: bytes) -> int:
        """Give the payload's size."""
        return bs[0]

    def decode(self, bs: bytes) -> int:
        """Read a number."""
        return int(bs)


class Encoder:
    """Writes what comes, and a semicolon."""

    def encode(self, data: object) -> bytes:
        """Write an output."""
        return f"{data};".encode()


class Total:
    """A sum, and how often it was added to."""

    def __init__(self) -> None:
        self.value = 0


class TotalBuilder:
    """Makes sums."""

    def build(self) -> Total:
        """Begin at 0."""
        return Total()

    def dump(self, state: Total) -> bytes:
        """Write a sum."""
        return str(state.value).encode()

    def load(self, data: bytes) -> Total:
        """Read a sum."""
        state = Total()
        state.value = int(data)
        return state


class Add:
    """Adds to a sum; a multiple of 10 is a mark, and one of 7 is silent."""

    def compute(self, data: int, state: Total) -> tuple[int | None, bool]:
        """Give the new sum."""
        state.value += data
        return None if data % 7 == 0 else state.value, data % 10 == 0


class Double:
    """Doubles, and lets odd ones go."""

    def compute(self, data: int) -> int | None:
        """Give twice an even number."""
        return None if data % 2 else 2 * data


class CountUp:
    """Gives all numbers below one."""

    def compute_multi(self, data: int) -> list[int]:
        """Count."""
        return list(range(data))


class LastDigit:
    """Partitions by the last digit."""

    def partition(self, data: int) -> int:
        """Give the digit."""
        return data % 10


SOURCE = wallaroo.TCPSourceConfig("", "0", Decoder())
SINK = wallaroo.TCPSinkConfig("", "", Encoder())


def begun() -> wallaroo.ApplicationBuilder:
    """Give a builder with an open pipeline."""
    return wallaroo.ApplicationBuilder("numbers").new_pipeline("numbers", SOURCE)


def machine(builder: wallaroo.ApplicationBuilder) -> Machine:
    """Give the machine of what was built."""
    return Machine(builder.to_sink(SINK).build())


def given_out(made: Machine, *numbers: int) -> list[bytes]:
    """Compute events, and give each one's output."""
    outputs = made.compute(0, 1, numbers).outputs
    starts = [0, *outputs.ends[:-1]]
    return [
        bytes(outputs.data[start:end])
        for start, end in zip(starts, outputs.ends, strict=True)
    ]


def causes(made: Machine, *numbers: int) -> list[str]:
    """Compute events, and give the causes of those that failed."""
    return [failure.cause for failure in made.compute(0, 1, numbers).failures]


class TestStateless:
    """`to` and `to_parallel`."""

    @pytest.mark.parametrize("way", ["to", "to_parallel"])
    def test_an_output_or_none(self, way: str) -> None:
        """What compute returns goes on, and None goes nowhere."""
        builder = begun()
        getattr(builder, way)(Double)
        assert given_out(machine(builder), 4, 3, 6) == [b"8;", b"", b"12;"]

    def test_none_ends_the_way(self) -> None:
        """The steps behind a None do not see the event."""
        made = machine(begun().to(Double).to_stateful(Add(), TotalBuilder(), "sum"))
        assert given_out(made, 3, 4, 5, 6) == [b"", b"8;", b"", b"20;"]
        assert causes(made, 3) == []

    def test_zero_is_no_none(self) -> None:
        """An output that is false is an output all the same."""
        assert given_out(machine(begun().to(Double)), 0) == [b"0;"]

    def test_many_outputs(self) -> None:
        """Each item of a list goes on by itself, and an event's outputs go together."""
        made = machine(begun().to(CountUp).to(Double))
        assert given_out(made, 5, 0, 1) == [b"0;4;8;", b"", b"0;"]

    def test_many_of_many(self) -> None:
        """Each item goes its whole way before the next one does."""
        made = machine(begun().to(CountUp).to(CountUp))
        assert given_out(made, 4) == [b"0;0;1;0;1;2;"]

    @pytest.mark.parametrize("returned", [None, [], [None], (), (None, None)])
    def test_nothing_in_many_ways(self, returned: object) -> None:
        """None, an empty list and a list of None are no output."""
        made = machine(
            begun().to(wallaroo.computation_multi("none")(lambda _: returned))  # type: ignore[arg-type, return-value]
        )
        assert given_out(made, 1) == [b""]

    def test_nothing_is_marked(self) -> None:
        """A pipeline that remembers nothing has nothing to come back to."""
        made = machine(begun().to(Double))
        made.compute(0, 1, [2], capture_from=0)
        assert not made.is_marked


class TestStateful:
    """`to_stateful`."""

    def test_the_state_is_carried(self) -> None:
        """Each event sees what those before it have left."""
        made = machine(begun().to_stateful(Add(), TotalBuilder(), "sum"))
        assert given_out(made, 1, 7, 3) == [b"1;", b"", b"11;"]

    def test_the_outputs_of_one_event_mark_it(self) -> None:
        """An event is marked if any of its items is, and only then."""
        made = machine(begun().to(CountUp).to_stateful(Add(), TotalBuilder(), "sum"))
        made.compute(0, 1, [5])
        assert made.is_marked  # 0 is a multiple of 10.
        made.compute(0, 2, [0])
        assert not made.is_marked

    def test_many_outputs_of_a_state(self) -> None:
        """A stateful compute_multi returns a list and a mark."""

        @wallaroo.state_computation_multi(name="twice")
        def twice(data: int, state: Total) -> tuple[list[int], bool]:
            state.value += data
            return [data, state.value], True

        made = machine(begun().to_stateful(twice, TotalBuilder(), "sum"))
        assert given_out(made, 1, 2) == [b"1;1;", b"2;3;"]
        assert made.is_marked


class TestPartitioned:
    """`to_state_partition` and `to_state_partition_u64`."""

    def made(self, keys: list[int] | None = None) -> Machine:
        """Give a machine with a sum for each last digit."""
        builder = begun().to_state_partition(
            Add(),
            TotalBuilder(),
            "sums",
            LastDigit(),
            [1, 2, 3] if keys is None else keys,
        )
        return machine(builder)

    def test_each_key_has_its_state(self) -> None:
        """Events of one key add up, and others are left alone."""
        assert given_out(self.made(), 1, 2, 11, 22, 3) == [
            b"1;",
            b"2;",
            b"12;",
            b"24;",
            b"3;",
        ]

    def test_a_key_outside_the_list_is_a_failed_event(self) -> None:
        """It says which key it was, and what the keys are; the others go on."""
        made = self.made()
        computed = made.compute(0, 1, [1, 14, 1])
        [failure] = computed.failures
        assert (failure.sequence, failure.reason) == (2, "compute")
        assert failure.cause == (
            "Add: PartitionKeyError: 4 (int) is none of the 3 partition keys, "
            "which are int"
        )
        assert computed.outputs.data == b"1;2;"

    def test_u64(self) -> None:
        """Whole numbers may be keys, and a range is a list of them."""
        made = machine(
            begun().to_state_partition_u64(
                Add(), TotalBuilder(), "sums", LastDigit(), range(3)
            )
        )
        assert given_out(made, 1, 2, 11) == [b"1;", b"2;", b"12;"]
        assert "none of the 3 partition keys" in causes(made, 5)[0]

    @given(st.lists(st.integers(0, 99)), st.integers(0, 20))
    def test_a_snapshot_holds_all_keys(self, numbers: list[int], cut: int) -> None:
        """Dumped and loaded, a partition goes on as if nothing had been."""
        whole, first, second = self.made(), self.made(), self.made()
        expected = whole.compute(0, 1, numbers)
        first.compute(0, 1, numbers[:cut])
        second.load(first.dump())
        assert second.dump() == first.dump()
        rest = second.compute(0, 1 + cut, numbers[cut:])
        assert whole.dump() == second.dump()
        assert bytes(expected.outputs.data).endswith(rest.outputs.data)

    @given(st.lists(st.integers(0, 99)))
    def test_replayed_is_live(self, numbers: list[int]) -> None:
        """The same events make the same states, failed ones among them."""
        live, replayed = self.made(), self.made()
        live.compute(0, 1, numbers)
        replayed.replay(0, 1, Records.pack([b"%d" % each for each in numbers]))
        assert live.dump() == replayed.dump()
        assert live.is_marked == replayed.is_marked


def returning(returned: object) -> Any:  # noqa: ANN401 - it is wrong on purpose
    """Make a stateful computation that returns one thing."""
    return SimpleNamespace(name=lambda: "add up", compute=lambda _, __: returned)


class TestMistakes:
    """What is wrong is said in one line, which names the step."""

    @pytest.mark.parametrize(
        ("returned", "shape"),
        [
            (5, "int"),
            (None, "NoneType"),
            ([1, True], "list"),
            ((1,), "a tuple of 1"),
            ((1, True, 2), "a tuple of 3"),
            (b"ab", "bytes"),
        ],
    )
    @pytest.mark.parametrize("is_partitioned", [False, True])
    def test_a_return_that_is_no_pair(
        self, returned: object, shape: str, *, is_partitioned: bool
    ) -> None:
        """A stateful compute that returns no pair fails its event, and is told so."""
        builder = begun()
        if is_partitioned:
            builder.to_state_partition(
                returning(returned), TotalBuilder(), "s", LastDigit(), [1]
            )
        else:
            builder.to_stateful(returning(returned), TotalBuilder(), "s")
        [cause] = causes(machine(builder), 1)
        assert cause.startswith(f"add up: ReturnShapeError: compute returned {shape},")
        assert cause.endswith("not (output, True or False)")

    def test_a_flag_that_is_neither_true_nor_false(self) -> None:
        """A flag that has no truth, as of an array, fails its event by its step."""
        flag = np.array([True, False])
        builder = begun().to_stateful(returning((1, flag)), TotalBuilder(), "s")
        [cause] = causes(machine(builder), 1)
        assert cause.startswith("add up: ValueError: The truth value of an array")

    @pytest.mark.parametrize("returned", ["abc", 5, {1: 2}, iter([1])])
    def test_many_that_are_no_list(self, returned: object) -> None:
        """A compute_multi that returns no list fails its event, and is told so."""
        multi: Any = SimpleNamespace(compute_multi=lambda *_: returned, name="split")
        cause = f"compute_multi returned {type(returned).__name__}, not a list"
        assert causes(machine(begun().to(type("Split", (), vars(multi)))), 1) == [
            f"split: ReturnShapeError: {cause}"
        ]

    @pytest.mark.parametrize(
        "add",
        [
            lambda builder: builder.to(Double),
            lambda builder: builder.to_stateful(Add(), TotalBuilder(), "sum"),
            lambda builder: builder.to(CountUp).to(Double),
        ],
        ids=["stateless", "stateful", "many"],
    )
    def test_the_step_is_named(
        self, add: Callable[[wallaroo.ApplicationBuilder], Any]
    ) -> None:
        """An exception in the application's code is told with the step's name."""
        builder = add(begun())

        @wallaroo.computation(name="picky")
        def picky(_data: int) -> int:
            raise ValueError("not this one")

        assert causes(machine(builder.to(picky)), 2) == [
            "picky: ValueError: not this one"
        ]

    def test_a_step_without_a_name(self) -> None:
        """It is called as its class is."""
        made = machine(begun().to_stateful(Add(), ChainBuilder(), "chain"))  # type: ignore[misc]
        assert causes(made, 1) == [
            "Add: AttributeError: 'Chain' object has no attribute 'value'"
        ]

    def test_text_is_an_output(self) -> None:
        """Text that encode returns goes out in UTF-8, as code of Python 2 expects."""
        sink = wallaroo.TCPSinkConfig("", "", wallaroo.encoder(lambda data: f"{data}é"))  # type: ignore[arg-type, return-value]
        made = Machine(begun().to_sink(sink).build())
        assert given_out(made, 1) == ["1é".encode()]

    @pytest.mark.parametrize("returned", [None, 5, [1]])
    def test_an_output_that_is_no_bytes(self, returned: object) -> None:
        """What else encode returns fails the event, and is named."""
        encoder: Any = SimpleNamespace(encode=lambda _: returned)
        sink = wallaroo.TCPSinkConfig("", "", encoder)
        for builder in (begun(), begun().to(CountUp)):
            computed = Machine(builder.to_sink(sink).build()).compute(0, 1, [3])
            [failure] = computed.failures
            assert failure.reason == "encode"
            kind = type(returned).__name__
            cause = f"ReturnShapeError: encode returned {kind}, not bytes"
            assert failure.cause == f"SimpleNamespace: {cause}"

    @pytest.mark.parametrize("fatal", [MemoryError, RecursionError, SystemExit])
    def test_a_fatal_error_goes_up(self, fatal: type[BaseException]) -> None:
        """What says that the process is unwell is no event's affair."""

        def fail(*_: object) -> Any:  # noqa: ANN401
            raise fatal

        for builder in (
            begun().to(wallaroo.computation("c")(fail)),
            begun().to_stateful(
                wallaroo.state_computation("s")(fail), TotalBuilder(), "sum"
            ),
            begun().to_state_partition(
                Add(), TotalBuilder(), "sums", wallaroo.partition(fail), [1]
            ),
        ):
            with pytest.raises(fatal):
                machine(builder).compute(0, 1, [1])
