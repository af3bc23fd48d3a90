"""Inputs to pipelines, and pipelines to sinks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphabet.application import Decoder, Encoder
from alphabet.network.address import Address, NamedAddress, parse_named_address
from alphabet.pipeline.routing import CONSOLE, name_inputs, name_outputs, pipelines_of
from alphabet.pipeline.topology import Application
from alphabet.wallaroo import ApplicationBuilder, TCPSinkConfig, TCPSourceConfig

hosts = st.sampled_from(["", "-", "a", "b", "c"])


def application(*ways: tuple[str, str]) -> Application:
    """Make an application whose pipelines have these hosts as source and sink."""
    builder = ApplicationBuilder("app")
    for number, (source, sink) in enumerate(ways):
        port = "" if sink in {"", "-"} else "2"
        builder.new_pipeline(f"p{number}", TCPSourceConfig(source, "1", Decoder()))
        builder.to_sink(TCPSinkConfig(sink, port, Encoder()))
    return builder.build()


def inputs(made: Application, *texts: str) -> list[str | None]:
    """Give the pipelines that inputs feed."""
    named = name_inputs(map(parse_named_address, texts), made)
    return [each.name for each in named]


def outputs(made: Application, *texts: str) -> list[str | None]:
    """Give the names of sinks."""
    named = name_outputs([parse_named_address(text) for text in texts], made)
    return [each.name for each in named]


class TestInputs:
    """Which pipeline an input feeds."""

    @pytest.mark.parametrize(
        ("given", "fed"),
        [
            (["a:1", "b:1"], ["p0", "p1"]),
            (["b:1", "a:1"], ["p1", "p0"]),
            (["x:1", "b:1"], ["p0", "p1"]),
            (["p1@a:1", "p0@b:1"], ["p1", "p0"]),
            (["p1@b:1", "b:1"], ["p1", "p0"]),
            (["a:1", "a:1"], ["p0", "p0"]),
            (["nobody@a:1"], ["nobody"]),
            (["a:9"], ["p0"]),
        ],
        ids=str,
    )
    def test_cases(self, given: list[str], fed: list[str]) -> None:
        """A name counts first, then the address in a source, then the first."""
        assert inputs(application(("a", ""), ("b", "")), *given) == fed

    def test_equal_addresses_feed_one_pipeline_each(self) -> None:
        """Where all listen at one address, as with port 0, their order counts."""
        made = application(("a", ""), ("a", ""), ("b", ""), ("a", ""))
        fed = inputs(made, "a:1", "b:1", "a:1", "a:1", "a:1")
        assert fed == ["p0", "p2", "p1", "p3", "p0"]


class TestSinks:
    """Which outputs go to a sink, and what it is called."""

    @given(st.lists(hosts, min_size=1, max_size=5), st.sampled_from("abc-"))
    def test_which_pipelines(self, sinks: list[str], host: str) -> None:
        """Those that name it and those that name none; all, if no one names it."""
        made = application(*(("x", sink) for sink in sinks))
        place = CONSOLE if host == "-" else Address(host, 2)
        chosen = pipelines_of(place, made)
        if host not in sinks:
            assert chosen is None
        else:
            numbers = [n for n, sink in enumerate(sinks) if sink in {host, ""}]
            assert chosen == frozenset(numbers)

    def test_a_port_is_part_of_an_address(self) -> None:
        """Another port is another sink."""
        assert pipelines_of(Address("a", 3), application(("x", "a"))) is None

    @pytest.mark.parametrize(
        ("given", "names"),
        [
            (["a:2"], [None]),
            (["a:2", "b:2"], ["p0", "p1"]),
            (["b:2", "a:2"], ["p1", "p0"]),
            (["p0@b:2", "a:2"], ["p0", "p2"]),
            (["x@a:2", "b:2"], ["x", "p1"]),
            (["a:2", "a:2", "a:2"], ["p0", "p2", None]),
            (["a:2", "c:2"], ["p0", None]),
        ],
        ids=str,
    )
    def test_names(self, given: list[str], names: list[str | None]) -> None:
        """Several sinks are called as their pipelines are; one is left as it is."""
        made = application(("x", "a"), ("x", "b"), ("x", "a"), ("x", ""))
        assert outputs(made, *given) == names

    def test_the_addresses_stay(self) -> None:
        """Naming changes nothing else, and keeps the order."""
        given = [NamedAddress(None, Address(host, 2)) for host in "ab"]
        named = name_outputs(given, application(("x", "a")))
        assert [each.address for each in named] == [each.address for each in given]
