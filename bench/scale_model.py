"""How throughput, delay, disk and network grow with servers: a model in a page.

Pure but for the command, `python -m bench.scale_model`, which reads measured values
from docs/benchmarks, and writes its tables into a document if told so. A stage has a
rate for each server; the slowest sets the pace, and delays add up. Servers on one
machine share its cores, and only that part is checked against measurements here;
machines of their own are taken not to disturb each other, which is not measured.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs

from alphabet.trial.figure import ALPHABET, Figure, format_number
from bench import spark_lag
from bench.markdown_table import renew, write_table
from bench.parts import disk, servers, spark
from bench.report import Report

RESULTS = Path(__file__).parent.parent / "docs" / "benchmarks"
LONE_VOTE = "a lone vote's round trip, p50"
NANOSECONDS = 1e9
MICROSECONDS = 1e6
VOTE_WIRE_BYTES = 9 * 1500 / 1448
"""A vote's frame with TCP's, IP's and Ethernet's share of full packets."""

SUMMING = {
    "export": spark.export_name(spark.LARGE),
    "parquet": spark.room_name(spark.LARGE),
    "sums": spark.core_name(1),
    "batch": f"{spark_lag.LONE}, median",
}
"""Which figures of part `spark` tell which parameters."""

SERVERS = [1, 2, 4, 10, 100, 1000]
"""How many servers docs/SCALING.md has rows for."""
_STAGES_HEAD = "| stage | median | lowest | highest | unit |"
_CHECK_HEAD = "| servers here | predicted, votes/s | measured, votes/s | error |"
_GROWTH_HEAD = (
    "| servers | counted, votes/s | summed, votes/s | cores for sums "
    "| delay, s | stored, bytes/vote | network in, MB/s |"
)


@attrs.frozen
class Parameter:
    """A number, and where it is from: a file of results, an option, or `assumed`."""

    value: float
    unit: str
    source: str


ASSUMED = {
    "export": Parameter(10e6, "votes/s", "assumed"),
    "parquet": Parameter(2.5, "bytes/vote", "assumed"),
    "segment_age": Parameter(10, "s", "assumed"),
    "sums": Parameter(600e3, "votes/s a core", "assumed"),
    "batch": Parameter(5, "s", "assumed"),
}
"""What is taken where neither an option nor a measurement says it."""


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
        batch: From a segment that is due to its global total, in seconds.
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
    """Give the medians of what is Alphabet's, or the machine's, by their names.

    None where the part was not measured.
    """
    return {figure.name: figure.median for figure in read_figures(results, part)}


def read_figures(results: Path, part: str) -> list[Figure]:
    """Give the figures of what is Alphabet's, or the machine's, of a part."""
    file = results / f"{part}.json"
    if not file.exists():
        return []
    return [
        figure
        for figure in Report.from_json(file.read_text(encoding="utf-8")).figures
        if figure.subject in {ALPHABET, servers.MACHINE}
    ]


def read_parameters(results: Path, options: argparse.Namespace) -> Parameters:
    """Take what an option says, else what is measured, else what is assumed."""

    def measured(part: str, name: str, unit: str, scale: float = 1) -> Parameter:
        value = read_medians(results, part)[name]
        return Parameter(value / scale, unit, f"docs/benchmarks/{part}.json")

    def chosen(name: str, guess: Parameter) -> Parameter:
        given: float | None = getattr(options, name)
        if given is not None:
            return Parameter(given, guess.unit, "option")
        return summing.get(name, guess)

    summing = read_summing(results)
    return Parameters(
        alone=measured("servers", servers.rate_name(1), "votes/s"),
        cost=measured("servers", servers.cost_name(1), "ns/vote"),
        log=measured("disk", disk.FLOOD_DISK, "bytes/vote"),
        lone=measured("latency", LONE_VOTE, "s", MICROSECONDS),
        **{name: chosen(name, guess) for name, guess in ASSUMED.items()},
    )


def read_summing(results: Path) -> dict[str, Parameter]:
    """Take what is measured of exports and sums, by the parameters' names."""
    medians = read_medians(results, "spark")
    source = "docs/benchmarks/spark.json"
    return {
        name: Parameter(medians[figure], ASSUMED[name].unit, source)
        for name, figure in SUMMING.items()
        if figure in medians
    }


def describe(
    known: Parameters, growths: Sequence[Growth], checks: Sequence[Check]
) -> list[str]:
    """Write what is known, the growth and the check, each as a Markdown table."""
    rows = []
    for field in attrs.fields(Parameters):
        each: Parameter = getattr(known, field.name)
        name = field.name.replace("_", " ")
        rows.append([name, format_number(each.value), each.unit, each.source])
    parameters = write_table("| parameter | value | unit | source |", rows)
    rows = []
    for growth in growths:
        *cells, network = attrs.astuple(growth)
        rows.append(list(map(format_number, (*cells, network / 1e6))))
    growth_table = write_table(_GROWTH_HEAD, rows)
    rows = [
        [
            *map(format_number, (one.servers, one.predicted, one.measured)),
            f"{one.error:+.0%}",
        ]
        for one in checks
    ]
    return [parameters, growth_table, write_table(_CHECK_HEAD, rows)]


def describe_stages(figures: Sequence[Figure]) -> str:
    """Write what was measured on the way from a log to a global total as a table."""
    rows = []
    for each in figures:
        numbers = map(format_number, (each.median, each.lowest, each.highest))
        rows.append([each.name, *numbers, each.unit])
    return write_table(_STAGES_HEAD, rows)


def main(argv: Sequence[str] | None = None) -> None:
    """Print the tables, or write them into a document."""
    parser = argparse.ArgumentParser("python -m bench.scale_model")
    parser.add_argument("--servers", type=int, nargs="+", default=SERVERS)
    parser.add_argument("--sum-cores", type=float, help="as many as keep up, if not")
    parser.add_argument("--copies", type=int, default=1, help="of each log")
    for name, each in ASSUMED.items():
        flag = f"--{name.replace('_', '-')}"
        parser.add_argument(flag, type=float, help=f"{each.unit}, if not as measured")
    parser.add_argument("--write", type=Path, help="a document that has the tables")
    options = parser.parse_args(argv)
    if min(options.servers) < 1:
        parser.error("there is 1 server at least")
    known = read_parameters(RESULTS, options)
    growths = [
        grow(known, count, options.sum_cores, options.copies)
        for count in options.servers
    ]
    checks = check(known, read_medians(RESULTS, "servers"))
    tables = describe(known, growths, checks)
    if stages := read_figures(RESULTS, "spark"):
        tables.insert(0, describe_stages(stages))
    if options.write is None:
        print("\n\n".join(tables))
        return
    document = options.write.read_text(encoding="utf-8")
    options.write.write_text(renew(document, tables), encoding="utf-8")


if __name__ == "__main__":
    main()
