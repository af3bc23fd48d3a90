"""The API that applications are written against: what it builds and what it refuses."""

from collections.abc import Callable
from typing import Any

import attrs
import pytest

from alphabet import wallaroo
from alphabet.application import AddVotes, Decoder, Encoder, LetterStateBuilder
from alphabet.network.address import AddressError
from alphabet.wallaroo import (
    Application,
    ApplicationBuilder,
    Pipeline,
    StatefulStep,
    TCPSinkConfig,
    TCPSourceConfig,
    WallarooParameterError,
    tcp_parse_input_addrs,
    tcp_parse_output_addrs,
)


class OtherStateBuilder:
    """A builder of other states."""

    def build(self) -> list[int]:
        """Make an empty list."""
        return []


SOURCE = TCPSourceConfig("127.0.0.1", "7010", Decoder())
SINK = TCPSinkConfig("", "", Encoder())


DECODER: Any = wallaroo.decoder(4, ">I")(bytes)
FIRST_LETTER: Any = wallaroo.partition(len)


class Reverse:
    """A computation that remembers nothing."""

    def compute(self, data: bytes) -> bytes:
        """Turn it around."""
        return data[::-1]


class Misnamed(Reverse):
    """A computation whose name is no text."""

    def name(self) -> int:
        """Give a number."""
        return 5


class Needing(Reverse):
    """A computation that is not made without arguments."""

    def __init__(self, length: int) -> None:
        """Take one."""
        self.length = length


class Raising(Reverse):
    """A computation, and a decoder, that cannot even say what they are."""

    def name(self) -> str:
        """Raise."""
        raise KeyError("no\nname")

    def header_length(self) -> int:
        """Raise."""
        raise KeyError("no\nlength")

    def payload_length(self, _bs: bytes) -> int:
        """Do nothing."""
        return 0

    def decode(self, bs: bytes) -> bytes:
        """Do nothing."""
        return bs


def partitioned(keys: Any) -> ApplicationBuilder:  # noqa: ANN401
    """Return a builder whose pipeline has a partition with these keys."""
    return opened().to_state_partition(
        AddVotes(), LetterStateBuilder(), "state", FIRST_LETTER, keys
    )


def opened() -> ApplicationBuilder:
    """Return a builder with an open pipeline."""
    return ApplicationBuilder("app").new_pipeline("one", SOURCE)


class TestApplicationBuilder:
    """Putting an application together."""

    def test_it_builds_what_was_said(self) -> None:
        """The parts are in the application as they were given, in order."""
        add, first, second = AddVotes(), LetterStateBuilder(), LetterStateBuilder()
        builder = ApplicationBuilder("app")
        builder.new_pipeline("one", SOURCE)
        builder.to_stateful(add, first, "state 1")
        builder.to_stateful(add, second, "state 2")
        builder.to_sink(SINK)
        steps = (
            StatefulStep(add, first, "state 1"),
            StatefulStep(add, second, "state 2"),
        )
        assert builder.build() == Application(
            "app", (Pipeline("one", SOURCE, steps, SINK),)
        )

    def test_calls_can_be_chained(self) -> None:
        """Every method but the last returns the builder."""
        app = (
            opened()
            .to_stateful(AddVotes(), LetterStateBuilder(), "state")
            .to_sink(SINK)
            .build()
        )
        assert [pipeline.name for pipeline in app.pipelines] == ["one"]

    def test_pipelines_follow_one_another(self) -> None:
        """Each pipeline has its own steps, and one state may serve two of them."""
        builder = opened().to_stateful(AddVotes(), LetterStateBuilder(), "state")
        builder.to_sink(SINK).new_pipeline("two", SOURCE)
        builder.to_stateful(AddVotes(), LetterStateBuilder(), "state").to_sink(SINK)
        app = builder.new_pipeline("three", SOURCE).to_sink(SINK).build()
        found = [(pipeline.name, len(pipeline.steps)) for pipeline in app.pipelines]
        assert found == [("one", 1), ("two", 1), ("three", 0)]

    def test_what_is_built_stays(self) -> None:
        """A builder that goes on does not change what it has built."""
        builder = opened().to_sink(SINK)
        app = builder.build()
        builder.new_pipeline("two", SOURCE).to_sink(SINK)
        assert len(app.pipelines) == 1

    def test_a_number_will_do_as_a_port(self) -> None:
        """A port that is given as a number is kept as text."""
        assert TCPSourceConfig("h", 7010, Decoder()).port == "7010"

    @pytest.mark.parametrize(
        ("mistake", "words"),
        [
            (lambda: ApplicationBuilder("app").build(), "call new_pipeline before"),
            (lambda: ApplicationBuilder("app").to_sink(SINK), "call new_pipeline"),
            (
                lambda: ApplicationBuilder("app").to_stateful(
                    AddVotes(), LetterStateBuilder(), "state"
                ),
                "to_stateful has no pipeline",
            ),
            (lambda: opened().build(), "'one' has no sink; call to_sink before build"),
            (lambda: opened().new_pipeline("two", SOURCE), "'one' has no sink"),
            (lambda: opened().to_sink(SINK).to_sink(SINK), "to_sink has no pipeline"),
            (
                lambda: opened().to_sink(SINK).new_pipeline("one", SOURCE),
                "two pipelines are named 'one'",
            ),
            (
                lambda: (
                    opened()
                    .to_stateful(AddVotes(), LetterStateBuilder(), "state")
                    .to_stateful(  # type: ignore[misc]
                        AddVotes(), OtherStateBuilder(), "state"
                    )
                ),
                "'state' has two builders, LetterStateBuilder and OtherStateBuilder",
            ),
            (
                lambda: opened().to_stateful(
                    AddVotes,  # type: ignore[arg-type]
                    LetterStateBuilder(),
                    "state",
                ),
                r"computation of a StatefulStep is the class AddVotes.*: AddVotes\(\)",
            ),
            (
                lambda: opened().to_stateful(
                    AddVotes(),
                    LetterStateBuilder,  # type: ignore[arg-type]
                    "state",
                ),
                "state_builder of a StatefulStep is the class LetterStateBuilder",
            ),
            (
                lambda: TCPSourceConfig("h", "1", Decoder),  # type: ignore[arg-type]
                "decoder of a TCPSourceConfig is the class Decoder",
            ),
            (
                lambda: TCPSinkConfig("h", "1", Encoder),  # type: ignore[arg-type]
                "encoder of a TCPSinkConfig is the class Encoder",
            ),
            (
                lambda: TCPSourceConfig("h", "1", Encoder()),  # type: ignore[arg-type]
                "decoder .* is a Encoder, which has no method header_length",
            ),
            (lambda: ApplicationBuilder("app").done(), "done has no pipeline"),
            (
                lambda: ApplicationBuilder(5),  # type: ignore[arg-type]
                "the name of a ApplicationBuilder is 5; give a text",
            ),
            (
                lambda: ApplicationBuilder("app").new_pipeline(  # type: ignore[call-overload]
                    b"one", SOURCE
                ),
                "a pipeline is named b'one'; give a text",
            ),
            *(
                (
                    lambda port=port: TCPSinkConfig("h", port, Encoder()),
                    f"port of a TCPSinkConfig is '{port}'; give a number from 0 to",
                )
                for port in ("x", -1, 65536, "1.0")
            ),
            (
                lambda: opened().to(Reverse()),  # type: ignore[arg-type]
                "to takes a computation's class, not an instance of Reverse",
            ),
            (
                lambda: opened().to(Decoder),  # type: ignore[arg-type]
                "which has no method compute or compute_multi",
            ),
            (
                lambda: opened().to(Misnamed),
                r"name\(\) of Misnamed returned 5; give a text",
            ),
            (
                lambda: opened().to_stateful(
                    AddVotes(),
                    LetterStateBuilder(),
                    5,  # type: ignore[arg-type]
                ),
                "state_name of a StatefulStep is 5; give a text",
            ),
            (
                lambda: opened().to(Needing),  # type: ignore[arg-type]
                r"to cannot make a Needing: Needing\(\) raised TypeError: .* 'length'",
            ),
            (
                lambda: opened().to(None),  # type: ignore[arg-type]
                "to takes a computation's class, not None",
            ),
            (
                lambda: opened().to(Raising),
                r"name\(\) of Raising raised KeyError: 'no\\nname'",
            ),
            (
                lambda: TCPSourceConfig("h", "1", Raising()),
                r"header_length\(\) of Raising raised KeyError: 'no\\nlength'",
            ),
            (
                lambda: TCPSourceConfig(5, "1", Decoder()),  # type: ignore[arg-type]
                "the host of a TCPSourceConfig is 5; give a text",
            ),
            (
                lambda: TCPSinkConfig(None, "1", Encoder()),  # type: ignore[arg-type]
                "the host of a TCPSinkConfig is None; give a text",
            ),
            (
                lambda: opened().to_state_partition(
                    AddVotes(),
                    LetterStateBuilder(),
                    "state",
                    None,  # type: ignore[arg-type]
                    [1],
                ),
                "the state 'state' has partition keys, and its partition_function is",
            ),
            (lambda: partitioned("abc"), "the partition keys are a str; give a list"),
            (lambda: partitioned([]), "there are no partition keys"),
            (lambda: partitioned([[1]]), r"partition key \[1\] cannot be looked up"),
            (lambda: partitioned([object()]), "a object, which has no __repr__"),
            (
                lambda: opened().to_state_partition(
                    AddVotes(),
                    LetterStateBuilder(),
                    "state",
                    FIRST_LETTER.partition,
                    [1],
                ),
                "partition_function of a StatefulStep is .* has no method partition",
            ),
            *(
                (
                    lambda key=key: opened().to_state_partition_u64(
                        AddVotes(), LetterStateBuilder(), "state", FIRST_LETTER, [key]
                    ),
                    f"the partition key {key!r} is no whole number",
                )
                for key in (-1, 2**64, 1.0, "1", True)
            ),
            (
                lambda: partitioned([1]).to_state_partition(
                    AddVotes(), LetterStateBuilder(), "state", FIRST_LETTER, [1, 2]
                ),
                "'state' is given with different partition keys",
            ),
            (
                lambda: partitioned([1]).to_stateful(
                    AddVotes(), LetterStateBuilder(), "state"
                ),
                "the state 'state' is given with different partition keys",
            ),
            (
                lambda: ApplicationBuilder("app").new_pipeline(
                    "one", TCPSourceConfig("h", "1")
                ),
                "the pipeline 'one' has no decoder; give it one",
            ),
            (
                lambda: opened().to_sink(TCPSinkConfig("h", "1")),
                "the pipeline 'one' has no encoder; give it one",
            ),
            (
                lambda: opened().to_sink(SOURCE),  # type: ignore[call-overload]
                "to_sink takes a TCPSinkConfig, not TCPSourceConfig",
            ),
            (
                lambda: ApplicationBuilder("app").new_pipeline(  # type: ignore[call-overload]
                    "one", SINK
                ),
                "new_pipeline takes a TCPSourceConfig, not TCPSinkConfig",
            ),
        ],
    )
    def test_mistakes_are_named(
        self, mistake: Callable[[], object], words: str
    ) -> None:
        """An author's mistake is an error of one line that says what is wrong."""
        with pytest.raises(WallarooParameterError, match=words) as caught:
            mistake()
        assert len(str(caught.value).splitlines()) == 1

    @pytest.mark.parametrize("length", [0, 9, -1, "4", 4.0, None, True])
    def test_a_header_has_one_to_eight_bytes(self, length: object) -> None:
        """A decoder whose headers cannot be cut is refused, before any stream is."""
        decoder: Any = attrs.evolve(DECODER, header_bytes=length)
        with pytest.raises(WallarooParameterError, match="a header has 1 to 8 bytes"):
            TCPSourceConfig("h", "1", decoder)

    @pytest.mark.parametrize("length", range(1, 9))
    def test_every_header_in_bounds(self, length: int) -> None:
        """Each length from 1 to 8 is taken."""
        decoder = attrs.evolve(DECODER, header_bytes=length)
        assert TCPSourceConfig("h", "1", decoder).decoder is decoder

    def test_the_older_calls(self) -> None:
        """A decoder and an encoder may stand beside addresses that have none."""
        builder = ApplicationBuilder("app")
        builder.new_pipeline("one", Decoder(), TCPSourceConfig("h", 1))
        builder.to_sink(Encoder(), TCPSinkConfig("g", 2))
        (pipeline,) = builder.build().pipelines
        assert (pipeline.source.host, pipeline.source.port) == ("h", "1")
        assert (pipeline.sink.host, pipeline.sink.port) == ("g", "2")
        assert isinstance(pipeline.source.decoder, Decoder)
        assert isinstance(pipeline.sink.encoder, Encoder)

    def test_done(self) -> None:
        """A pipeline that is done without a sink has one that gives nothing."""
        builder = opened().done().new_pipeline("two", SOURCE).to_sink(SINK).done()
        one, two = builder.build().pipelines
        assert one.sink.encoder.encode(5) == b""
        assert two.sink is SINK

    def test_a_class_that_builds_itself(self) -> None:
        """What `state` decorates is a state builder without an instance."""

        @wallaroo.state
        class Own:
            pass

        builder: Any = opened()
        builder.to_stateful(AddVotes(), Own, "own")
        assert isinstance(Own.build(), Own)  # type: ignore[attr-defined]

    @pytest.mark.parametrize(
        ("name", "arguments"),
        [
            ("KafkaSourceConfig", ("topic", [], "Warn", Decoder())),
            ("KafkaSinkConfig", ("topic", [], "Warn", 1, 2, Encoder())),
            ("kafka_parse_source_options", ([],)),
            ("kafka_parse_sink_options", ([],)),
        ],
    )
    def test_kafka_is_refused(self, name: str, arguments: Any) -> None:  # noqa: ANN401
        """Whatever is Kafka's says in one line what to use instead."""
        with pytest.raises(WallarooParameterError, match=f"^{name}: .* --") as caught:
            getattr(wallaroo, name)(*arguments)
        assert len(str(caught.value).splitlines()) == 1

    def test_what_is_serialized(self) -> None:
        """`deserialize` reads what `serialize` wrote."""
        value = {b"a": [1, None]}
        assert wallaroo.deserialize(wallaroo.serialize(value)) == value

    def test_a_refused_step_is_not_added(self) -> None:
        """A step that was refused leaves the pipeline as it was."""
        builder = opened().to_stateful(AddVotes(), LetterStateBuilder(), "state")
        with pytest.raises(WallarooParameterError):
            builder.to_stateful(  # type: ignore[misc]
                AddVotes(), OtherStateBuilder(), "state"
            )
        (pipeline,) = builder.to_sink(SINK).build().pipelines
        assert len(pipeline.steps) == 1


class TestAddresses:
    """`tcp_parse_input_addrs` and `tcp_parse_output_addrs`."""

    @pytest.mark.parametrize(
        "args",
        [
            ["--in", "a:1", "--in", "b:2"],
            ["--in=a:1", "--in=b:2"],
            ["-i", "a:1", "-i", "b:2"],
            ["-ia:1", "-i", "b:2"],
            ["--in", "a:1,b:2"],
            ["run", "--data-dir", "x", "--in", "one@a:1,b:2", "--http", "none"],
            ["--out", "c:3", "--in", "a:1", "--name", "w", "-i", "two@b:2", "-o", "-"],
            ["--inbox-bytes", "9", "--in", "a:1,b:2", "--ponythreads=1"],
        ],
    )
    def test_every_way_to_say_in(self, args: list[str]) -> None:
        """All ways to write `--in` give all addresses, in order, without names."""
        assert tcp_parse_input_addrs(args) == [("a", "1"), ("b", "2")]

    @pytest.mark.parametrize(
        ("args", "addresses"),
        [
            ([], [("", "")]),
            (["--out", "-"], [("-", "")]),
            (["-o-"], [("-", "")]),
            (
                ["--out=x@[::1]:3", "-o", "-,y@c:4"],
                [("::1", "3"), ("-", ""), ("c", "4")],
            ),
            (["--out-from", "7", "--out", "a:1"], [("a", "1")]),
            (["--in", "a:1"], [("", "")]),
        ],
    )
    def test_every_way_to_say_out(
        self, args: list[str], addresses: list[tuple[str, str]]
    ) -> None:
        """`--out` likewise, and there are words for nowhere and for stdout."""
        assert tcp_parse_output_addrs(args) == addresses

    def test_in_has_a_default(self) -> None:
        """Without `--in` a server listens on loopback, port 7010."""
        args = ["--out", "a:1", "--in-none-of-ours", "x"]
        assert tcp_parse_input_addrs(args) == [("127.0.0.1", "7010")]

    @pytest.mark.parametrize("value", ["", "a", "-", "a:1,", "@a:1"])
    def test_what_is_no_address_is_refused(self, value: str) -> None:
        """A value that is no address is an AddressError."""
        with pytest.raises(AddressError):
            tcp_parse_input_addrs([f"--in={value}"])

    def test_a_missing_value_is_refused(self) -> None:
        """`--out` at the end of the line is an error that names it."""
        with pytest.raises(WallarooParameterError, match=r"^--out needs a value$"):
            tcp_parse_output_addrs(["--out"])
