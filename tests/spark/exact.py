"""Servers, exporters and Spark are killed at random, and every vote counts once."""

import json
import os
import random
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from tests.inspection import last_sequence, totals
from tests.process import PYTHON, Server, submit
from tests.segments_made import label_of, write_segment
from tests.spark.running import (
    IS_SOAK,
    Program,
    Programs,
    programs,
    receiving,
    wait_until,
)
from tests.votes import make_votes, wire

SERVERS = ["eu", "us", "ap"]
CAMPAIGNS = 20 if IS_SOAK else 1
FAILPOINTS = ["spark.after_store:2", "spark.after_sinks:2", "spark.before_rename:3"]
"""Where Spark's driver is killed, each in a run of its own."""
RUNS_KILLED = len(FAILPOINTS) if IS_SOAK else 2


@attrs.define(eq=False)
class Site:
    """A server with its exporter and a sender, which go on whatever is killed."""

    name: str
    place: Path
    all: Programs
    chance: random.Random
    server: Server = attrs.field(init=False)
    exporter: Program = attrs.field(init=False)
    over: threading.Event = attrs.Factory(threading.Event)
    sender: threading.Thread = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        """Start all three."""
        self.place.mkdir()
        self.serve()
        self.export()
        self.sender = threading.Thread(target=self._send)
        self.sender.start()

    def serve(self) -> None:
        """Start the server."""
        self.server = Server.start(self.place).wait_ready()

    def export(self) -> None:
        """Start the exporter."""
        self.exporter = self.all.start(
            *(*PYTHON, "recovery.cli", "export", self.place / "data"),
            *(self.all.segments / self.name, "--follow", "--server", self.name),
            *("--every-seconds", "0.5", "--file-events", 5000),
        )

    def _send(self) -> None:
        chance = random.Random(self.name)
        while not self.over.wait(0.02):
            try:
                submit(self.server.port, wire(make_votes(chance, 300)))
            except (OSError, ValueError):
                # The server is down, or has not said where it listens.
                continue

    def exported(self) -> int:
        """Give the last sequence that has its segment."""
        files = (self.all.segments / self.name).glob("[0-9]*.parquet")
        return max((int(file.name[21:41]) for file in files), default=0)

    def end(self) -> None:
        """End the sender, then the server, then the exporter, once all is exported."""
        self.over.set()
        self.sender.join()
        assert self.server.stop() == 0
        end = last_sequence(self.place)
        wait_until(lambda: self.exported() == end, f"segments up to {end}")
        self.exporter.kill()

    def hit(self) -> None:
        """Kill the server or the exporter, and start it again."""
        if self.chance.random() < 0.5:
            self.server.kill()
            self.serve()
        else:
            self.exporter.kill()
            self.export()


@pytest.fixture
def everything(tmp_path: Path) -> Iterator[Programs]:
    """Give a place where programs run."""
    with programs(tmp_path) as found:
        yield found


def wait_for_batch(spark: Program) -> None:
    """Wait until Spark has counted a batch, or has ended."""
    wait_until(
        lambda: "batch " in spark.text or spark.process.poll() is not None, "a batch"
    )


def wait_for_segment(sites: list[Site], spark: Program) -> None:
    """Wait until a site has exported more, or Spark has ended."""
    before = sum(site.exported() for site in sites)

    def is_there() -> bool:
        after = sum(site.exported() for site in sites)
        return after > before or spark.process.poll() is not None

    wait_until(is_there, "more segments")


@pytest.mark.parametrize("seed", range(CAMPAIGNS))
def test_every_vote_counts_once(everything: Programs, seed: int) -> None:
    """Whatever is killed when, the totals are the sum of the servers' own."""
    chance = random.Random(seed)
    place = everything.place
    sites = [Site(name, place / name, everything, chance) for name in SERVERS]
    try:
        with receiving() as receiver:
            words = ["--master", "local[2]", "--every-seconds", "0.2"]
            words += ["--sink", f"tcp:{receiver.address}"]
            words += ["--sink", f"files:{place / 'totals'}"]
            for failpoint in chance.sample(FAILPOINTS, RUNS_KILLED):
                spark = everything.spark(*words, ALPHABET_FAILPOINT=failpoint)
                # One is killed while Spark starts, which more would only delay.
                chance.choice(sites).hit()
                wait_for_batch(spark)
                while spark.process.poll() is None:
                    chance.choice(sites).hit()
                    wait_for_segment(sites, spark)
                assert spark.wait() == -9, spark.text
            for site in sites:
                site.end()
            spark = everything.spark(*words, "--available-now")
            assert spark.wait() == 0, spark.text
        expected: dict[str, int] = {}
        for site in sites:
            for letter, total in totals(site.place).items():
                expected[letter] = expected.get(letter, 0) + total
        *_, newest = sorted((place / "totals").glob("*.json"))
        told = json.loads(newest.read_text())
        assert sum(expected.values()) > 0
        assert told["totals"] == expected
        assert told["missing"] == {}
        assert receiver.back == []
        assert {k.decode("latin-1"): v for k, v in receiver.totals.items()} == expected
    finally:
        for site in sites:
            site.over.set()
            site.server.kill()


def test_what_is_refused(everything: Programs) -> None:
    """A damaged file is one line; then all goes on, late and old segments included.

    The second run has an application, whose outputs are more than sums, and is ended
    by SIGINT, for which pyspark has a handler of its own.
    """
    directory = everything.segments / "eu"
    write_segment(directory, "eu", label_of(3, 4), [("A", 998), ("\xff", 2**32 - 1)])
    damaged = write_segment(directory, "eu", label_of(5, 5), [("A", 1)])
    damaged.write_bytes(damaged.read_bytes()[:-9])
    spark = everything.spark("--available-now")
    assert spark.wait() == 1
    [line] = spark.text.splitlines()
    assert line.startswith(f"alphabet: eu/{damaged.name}: it is no whole Parquet file")
    damaged.unlink()
    module = ["--application-module", "tests.thousands"]
    spark = everything.spark("--every-seconds", "0.1", *module)
    wait_until(lambda: "incomplete: server eu lacks 1 to 2" in spark.text, "a gap")
    hidden, votes = everything.segments / ".late", [("A", 2), ("A", 9)]
    late = write_segment(hidden, "eu", label_of(1, 2), votes, counted=[2, 0])
    os.utime(late, (0, 0))
    hidden.rename(everything.segments / "late")
    wait_until(lambda: "complete: no server lacks" in spark.text, "no gap")
    spark.process.send_signal(signal.SIGINT)
    assert spark.wait() == 0, spark.text
    assert "A => 1000\n" in spark.text
    assert "\\xff => 4294967295\n" in spark.text
