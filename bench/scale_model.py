"""How throughput, delay, disk and network grow with servers: a model in a page.

Pure but for the command, `python -m bench.scale_model --servers 1 2 4`, which reads
measured values from docs/benchmarks. A stage has a rate for each server; the slowest
sets the pace, and delays add up. Servers on one machine share its cores, and only that
part is checked against measurements here; machines of their own are taken not to
disturb each other, which is not measured.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs

from alphabet.figure import format_number
from bench.parts import disk, servers
from bench.report import Report

RESULTS = Path(__file__).parent.parent / "docs" / "benchmarks"
LONE_VOTE = "a lone vote's round trip, p50"
NANOSECONDS = 1e9
MICROSECONDS = 1e6
VOTE_WIRE_BYTES = 9 * 1500 / 1448
"""A vote's frame with TCP's, IP's and Ethernet's share of full packets."""

_GROWTH_HEAD = (
    "| servers | counted, votes/s | summed, votes/s | cores for sums "
    "| delay, s | stored, bytes/vote | network in, MB/s |"
)


@attrs.frozen
class Parameter:
    """A number, and where it is from: a file of results, or `assumed`."""

    value: float
    unit: str
    source: str


@attrs.frozen
class Parameters:
    """What the model starts from; all rates are above 0.

    Attributes:
        alone: What one server takes by itself, in votes/s.
        cost: Processor time of server and sender, in ns/vote.
        log: Room in the log, in bytes/vote.
        lone: A lone vote's way to its output, in seconds.
        export: What one exporter writes, in votes/s.
        parquet: Room in segments, in bytes/vote.
        segment_age: The longest a vote waits for its segment's end, in seconds.
        sums: What one core of the summing engine adds up, in votes/s.
        batch: How long a batch of it takes, in seconds.
    """

    alone: Parameter
    cost: Parameter
    log: Parameter
    lone: Parameter
    export: Parameter
    parquet: Parameter
    segment_age: Parameter
    sums: Parameter
    batch: Parameter


@attrs.frozen
class Growth:
    """What so many servers come to, each on a machine of its own.

    Attributes:
        servers: How many.
        counted: Votes/s that become durable.
        summed: Votes/s that reach a global total: the slowest stage's.
        cores: Cores for sums that keep up with what is exported.
        delay_seconds: The longest from a lone vote to its global total, unloaded.
        stored_bytes: Bytes a vote: copies of the log, and segments.
        network_bytes: Bytes a second into all servers, at `counted`.
    """

    servers: int
    counted: float
    summed: float
    cores: float
    delay_seconds: float
    stored_bytes: float
    network_bytes: float


def grow(
    known: Parameters, count: int, sum_cores: float | None = None, copies: int = 1
) -> Growth:
    """Say what so many servers come to.

    Args:
        known: What is known of each stage.
        count: How many servers, each on a machine of its own, 1 at least.
        sum_cores: How many cores add up; None for as many as keep up.
        copies: How many copies of each log there are, the server's own included.
    """
    counted = count * known.alone.value
    exported = min(counted, count * known.export.value)
    keeping_up = exported / known.sums.value
    cores = keeping_up if sum_cores is None else sum_cores
    return Growth(
        servers=count,
        counted=counted,
        summed=min(exported, cores * known.sums.value),
        cores=keeping_up,
        delay_seconds=known.lone.value + known.segment_age.value + known.batch.value,
        stored_bytes=copies * known.log.value + known.parquet.value,
        network_bytes=counted * VOTE_WIRE_BYTES,
    )


def on_one_machine(known: Parameters, count: int, cores: float) -> float:
    """Give the votes/s of servers that share so many cores with their senders."""
    return min(
        count * known.alone.value,
        cores * NANOSECONDS / known.cost.value,
    )


@attrs.frozen
class Check:
    """A prediction for this machine beside what was measured, both in votes/s."""

    servers: int
    predicted: float
    measured: float

    @property
    def error(self) -> float:
        """By what part the prediction is too high; below 0, too low."""
        return self.predicted / self.measured - 1


def check(known: Parameters, medians: Mapping[str, float]) -> list[Check]:
    """Hold the model to what several servers on one machine have done.

    The first, one server, is where the model is from: its error says nothing.
    """
    cores = medians[servers.CORES]
    return [
        Check(
            count,
            on_one_machine(known, count, cores),
            medians[servers.rate_name(count)],
        )
        for count in servers.COUNTS
    ]


def read_medians(results: Path, part: str) -> dict[str, float]:
    """Give the medians of what is Alphabet's, or the machine's, by their names."""
    text = (results / f"{part}.json").read_text(encoding="utf-8")
    return {
        figure.name: figure.median
        for figure in Report.from_json(text).figures
        if figure.subject in {"Alphabet", servers.MACHINE}
    }


def read_parameters(results: Path, assumed: argparse.Namespace) -> Parameters:
    """Take what is measured from its files, and the rest as it is assumed."""

    def measured(part: str, name: str, unit: str, scale: float = 1) -> Parameter:
        value = read_medians(results, part)[name]
        return Parameter(value / scale, unit, f"docs/benchmarks/{part}.json")

    def taken(value: float, unit: str) -> Parameter:
        return Parameter(value, unit, "assumed")

    return Parameters(
        alone=measured("servers", servers.rate_name(1), "votes/s"),
        cost=measured("servers", servers.cost_name(1), "ns/vote"),
        log=measured("disk", disk.FLOOD_DISK, "bytes/vote"),
        lone=measured("latency", LONE_VOTE, "s", MICROSECONDS),
        export=taken(assumed.export_rate, "votes/s"),
        parquet=taken(assumed.parquet_bytes, "bytes/vote"),
        segment_age=taken(assumed.segment_seconds, "s"),
        sums=taken(assumed.sum_rate, "votes/s a core"),
        batch=taken(assumed.batch_seconds, "s"),
    )


def describe(
    known: Parameters, growths: Sequence[Growth], checks: Sequence[Check]
) -> str:
    """Write what is known, the growth and the check as Markdown tables."""
    lines = ["| parameter | value | unit | source |", "|---|--:|---|---|"]
    for field in attrs.fields(Parameters):
        each: Parameter = getattr(known, field.name)
        name = field.name.replace("_", " ")
        value = format_number(each.value)
        lines.append(f"| {name} | {value} | {each.unit} | {each.source} |")
    lines += [
        "",
        _GROWTH_HEAD,
        "|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for growth in growths:
        *cells, network = attrs.astuple(growth)
        numbers = map(format_number, (*cells, network / 1e6))
        lines.append(f"| {' | '.join(numbers)} |")
    lines += ["", "| servers here | predicted, votes/s | measured, votes/s | error |"]
    lines.append("|--:|--:|--:|--:|")
    for one in checks:
        numbers = map(format_number, (one.servers, one.predicted, one.measured))
        lines.append(f"| {' | '.join(numbers)} | {one.error:+.0%} |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser("python -m bench.scale_model")
    parser.add_argument("--servers", type=int, nargs="+", default=[1, 2, 4, 10])
    parser.add_argument("--sum-cores", type=float, help="as many as keep up, if not")
    parser.add_argument("--copies", type=int, default=1, help="of each log")
    parser.add_argument("--export-rate", type=float, default=10e6, help="votes/s")
    parser.add_argument("--parquet-bytes", type=float, default=2.5, help="a vote")
    parser.add_argument("--segment-seconds", type=float, default=10.0)
    parser.add_argument("--sum-rate", type=float, default=600e3, help="votes/s a core")
    parser.add_argument("--batch-seconds", type=float, default=5.0)
    options = parser.parse_args(argv)
    if min(options.servers) < 1:
        parser.error("there is 1 server at least")
    known = read_parameters(RESULTS, options)
    growths = [
        grow(known, count, options.sum_cores, options.copies)
        for count in options.servers
    ]
    checks = check(known, read_medians(RESULTS, "servers"))
    print(describe(known, growths, checks))


if __name__ == "__main__":
    main()
