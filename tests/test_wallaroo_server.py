"""Applications of several pipelines on the real server, by Wallaroo's command lines."""

import random
import struct
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.inspection import cursors, last_sequence
from tests.process import (
    ANY,
    Finished,
    Server,
    finish,
    free_port,
    refused,
    replay,
    serving,
    submit,
    wait_until,
)
from tests.receiving import Receiver

MARKET = """\
import struct

import wallaroo


def application_setup(args):
    quotes, orders = wallaroo.tcp_parse_input_addrs(args)[:2]
    outs = wallaroo.tcp_parse_output_addrs(args)
    symbols = ["AAA", "BBB", "CCC"]

    ab = wallaroo.ApplicationBuilder("market")
    ab.new_pipeline("quotes", wallaroo.TCPSourceConfig(quotes[0], quotes[1], decode))
    ab.to_state_partition(Remember(), Builder(), "prices", by_symbol, symbols)
    ab.done()
    ab.new_pipeline("orders", decode, wallaroo.TCPSourceConfig(*orders))
    ab.to_parallel(Parts)
    ab.to_state_partition(Check(), Builder(), "prices", by_symbol, symbols)
    ab.to_sink(wallaroo.TCPSinkConfig(outs[0][0], outs[0][1], encode))
    ab.new_pipeline("words", wallaroo.TCPSourceConfig(*outs[0], Words()))
    ab.to_stateful(Count(), CountBuilder(), "words")
    ab.to_sink(Words(), wallaroo.TCPSinkConfig(*outs[-1]))
    return ab.build()


def serialize(state):
    return state.text().encode()


def deserialize(bs):
    return Price(*map(int, bs.split()))


@wallaroo.decoder(header_length=2, length_fmt=">H")
def decode(bs):
    symbol, number = bs.decode().split()
    return symbol, int(number)


@wallaroo.encoder
def encode(data):
    return "%s %d %d;" % data


@wallaroo.partition
def by_symbol(data):
    return data[0]


class Price(object):
    def __init__(self, price=0, seen=0):
        self.price = price
        self.seen = seen

    def text(self):
        return "%d %d" % (self.price, self.seen)


class Builder(object):
    def build(self):
        return Price()


class Remember(object):
    def compute(self, data, state):
        state.price = data[1]
        return (None, True)


class Parts(object):
    def name(self):
        return "parts"

    def compute_multi(self, data):
        return [(data[0], data[1] - part) for part in range(2)]


class Check(object):
    def name(self):
        return "check"

    def compute(self, data, state):
        state.seen += 1
        if data[1] < state.price:
            return (None, False)
        return ((data[0], data[1], state.seen), False)


class Count(object):
    def compute(self, data, state):
        state.append(data)
        return (b"%d;" % len(state), True)


class CountBuilder(object):
    def build(self):
        return []

    def dump(self, state):
        return b" ".join(state)

    def load(self, bs):
        return bs.split()


class Words(object):
    def header_length(self):
        return 8

    def payload_length(self, bs):
        return struct.unpack(">Q", bs)[0]

    def decode(self, bs):
        return bs

    def encode(self, data):
        return data
"""
MODULE = ("--application-module", "market")
QUOTES, ORDERS, WORDS = "quotes", "orders", "words"


class Model:
    """What must come of quotes and orders, told in a few lines."""

    def __init__(self) -> None:
        self.prices = dict.fromkeys(["AAA", "BBB", "CCC"], 0)
        self.seen = dict.fromkeys(self.prices, 0)

    def quote(self, symbol: str, price: int) -> bytes:
        """Take a quote; give its frame."""
        if symbol in self.prices:
            self.prices[symbol] = price
        return frame(symbol, price)

    def order(self, symbol: str, price: int) -> tuple[bytes, bytes]:
        """Take an order; give its frame and what comes out."""
        outputs = ""
        for each in (price, price - 1) if symbol in self.prices else ():
            self.seen[symbol] += 1
            if each >= self.prices[symbol]:
                outputs += f"{symbol} {each} {self.seen[symbol]};"
        return frame(symbol, price), outputs.encode()


def frame(symbol: str, number: int) -> bytes:
    """Write an event of the first two pipelines."""
    payload = f"{symbol} {number}".encode()
    return struct.pack(">H", len(payload)) + payload


def ports(server: Server) -> list[int]:
    """Give the ports of a server's inputs, in the order of the command line."""
    lines = [line for line in server.lines() if line.startswith("listening in ")]
    return [int(line.rpartition(":")[2]) for line in lines]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Give a place where the market is a module."""
    (tmp_path / "market.py").write_text(MARKET)
    return tmp_path


@pytest.fixture
def receivers() -> Iterator[tuple[Receiver, Receiver]]:
    """Give two receivers."""
    with Receiver() as first, Receiver() as second:
        yield first, second


def has_last(receiver: Receiver, whole: bytes) -> bool:
    """Say whether the newest connection has what it should, to the last byte."""
    newest = bytes(receiver.connections[-1]) if receiver.connections else b""
    return bool(newest) and whole.endswith(newest)


def tool(place: Path, *words: object) -> Finished:
    """Let the recovery tool work with the module."""
    command, *rest = words
    words = (command, place / "data", *rest, *MODULE)
    return finish("recovery.cli", *words, working_directory=place)


class TestPipelines:
    """Three pipelines, two inputs of one kind, two sinks, one shared partition."""

    def words(
        self, place: Path, receivers: tuple[Receiver, Receiver], inputs: list[int]
    ) -> list[object]:
        """Give Wallaroo's command line, with `machida` replaced."""
        first, second = receivers
        addresses = ",".join(f"127.0.0.1:{port}" for port in inputs)
        outs = f"{first.address},{second.address}"
        words = f"-i {addresses} -i words@{ANY} -o {outs} -m 127.0.0.1:5001 -c x -d y"
        more = f"-t --ponythreads=1 --ponynoblock --resilience-dir {place / 'data'}"
        return [*MODULE, *words.split(), *more.split(), "--http", "none"]

    def test_they_count_crash_and_go_on(
        self, place: Path, receivers: tuple[Receiver, Receiver]
    ) -> None:
        """Each sink gets its pipelines' outputs, across a kill, and all is replayed."""
        chance, model = random.Random(9), Model()
        words = self.words(place, receivers, [free_port(), free_port()])
        expected, counted, rounds = b"", 0, 4
        for turn in range(rounds):
            every = 1 if turn % 2 else 10_000
            with serving(
                place,
                *words,
                "--snapshot-every",
                every,
                working_directory=place,
                is_bare=True,
            ) as server:
                quotes, orders, texts = ports(server)
                for _ in range(4):
                    symbols = [chance.choice(["AAA", "BBB", "XXX"]) for _ in range(9)]
                    data = [model.quote(s, chance.randrange(9)) for s in symbols]
                    assert submit(quotes, b"".join(data))
                    pairs = [model.order(s, chance.randrange(9)) for s in symbols]
                    assert submit(orders, b"".join(data for data, _ in pairs))
                    expected += b"".join(output for _, output in pairs)
                    assert submit(texts, struct.pack(">Q", 2) + b"hi")
                    counted += 1
                self.wait_outputs(receivers, expected, counted)
                if turn < rounds - 1:
                    server.kill()
                else:
                    assert server.stop() == 0
        assert set(cursors(place)) == {"orders", "words"}
        assert last_sequence(place) == rounds * 4 * 19
        self.check_tools(place, model, counted)

    def wait_outputs(
        self, receivers: tuple[Receiver, Receiver], expected: bytes, counted: int
    ) -> None:
        """Wait until each sink has its own outputs; a kill may repeat some."""
        counts = b"".join(b"%d;" % n for n in range(1, counted + 1))
        for receiver, whole in zip(receivers, (expected, counts), strict=True):
            wait_until(partial(has_last, receiver, whole), "a sink's last output")

    def check_tools(self, place: Path, model: Model, counted: int) -> None:
        """The tools rebuild the states, and agree with the snapshots."""
        done = tool(place, "state")
        assert done.code == 0, done
        rows = [
            f"prices[{symbol!r}] => Price(price={price}, seen={model.seen[symbol]})"
            for symbol, price in model.prices.items()
            if symbol != "CCC"
        ]
        assert done.stdout.splitlines()[:2] == rows
        assert done.stdout.count("b'hi'") == counted
        for command in ("verify", "snapshots"):
            assert tool(place, command).code == 0, command
        assert "('AAA', " in tool(place, "events").stdout
        told = replay("rejects", place / "data").stdout
        assert "check: PartitionKeyError: 'XXX' (str) is none of the 3" in told

    def test_options_without_effect_say_so_once(
        self, place: Path, receivers: tuple[Receiver, Receiver]
    ) -> None:
        """Each has one line, and nothing else is said of it."""
        words = self.words(place, receivers, [free_port(), free_port()])
        with serving(place, *words, working_directory=place, is_bare=True) as server:
            told = [line for line in server.said() if "has no effect" in line]
            # Who slips would have the votes in another place.
            assert told.pop(2) == (
                "--data has no effect here; the data directory is --data-dir"
            )
            assert told == [
                f"{name} has no effect here"
                for name in (
                    "--cluster-initializer",
                    "--control",
                    "--metrics",
                    "--ponynoblock",
                    "--ponythreads",
                )
            ]
            assert server.stop() == 0

    def test_kafka_is_refused(self, place: Path) -> None:
        """An option of Kafka's is one line that says what to use instead."""
        words = [*MODULE, "--kafka_source_topic", "votes"]
        done = refused(place, *words, working_directory=place)
        assert done.code == 2
        assert (
            "--kafka_source_topic: Kafka is not supported; let a client" in done.stderr
        )

    def test_one_data_directory(self, place: Path) -> None:
        """The directory is given by one name of it."""
        words = [*MODULE, "--resilience-dir", place / "other"]
        done = refused(place, *words, working_directory=place)
        assert done.code == 2
        assert "--resilience-dir is --data-dir" in done.stderr
