"""`python -m bench [PART]…`: measure parts, and print their tables.

Nothing is left behind, and nothing is written but to `--output`.
"""

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import click

from alphabet.command_line import sigterm_as_sigint
from alphabet.trial.children import ChildError
from alphabet.trial.flood import FloodError
from alphabet.trial.output_check import WrongOutputError
from bench import parts
from bench.case import Turns, UnknownCaseError, choose
from bench.machine import describe_machine
from bench.picture import draw
from bench.plan import Plan
from bench.report import Report, table, write_markdown

RESULTS = "RESULTS.md"
QUICK = {"seconds": 0.3, "votes": 10_000_000, "round_trips": 1000}
FULL = {"seconds": 1.5, "votes": 100_000_000, "round_trips": 5000}


@click.command()
@click.argument("names", metavar="[PART]...", nargs=-1, type=click.Choice(parts.NAMES))
@click.option("--case", "titles", multiple=True, help="Measure it alone; repeatable.")
@click.option("--quick", is_flag=True, help="Small sizes: minutes, and less to trust.")
@click.option("--runs", type=click.IntRange(min=1), default=5, show_default=True)
@click.option(
    "--seconds", type=click.FloatRange(min=0, min_open=True), help="A flood's."
)
@click.option(
    "--flood-votes", type=click.IntRange(min=1), help="A flood's, whatever its time."
)
@click.option("--votes", type=click.IntRange(min=1000), help="Of the longest log.")
@click.option("--round-trips", type=click.IntRange(min=1), help="Of lone votes.")
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    help="Write JSON, tables and pictures to this directory.",
)
def bench(  # noqa: PLR0913 - an argument for each option
    *,
    names: Sequence[str],
    titles: Sequence[str],
    quick: bool,
    runs: int,
    seconds: float | None,
    flood_votes: int | None,
    votes: int | None,
    round_trips: int | None,
    output: Path | None,
) -> None:
    """Measure Alphabet on this machine, beside its peers; all parts or those named."""
    usual = QUICK if quick else FULL
    for name in names or parts.NAMES:
        with (
            sigterm_as_sigint(),
            tempfile.TemporaryDirectory(prefix="alphabet-bench-") as directory,
        ):
            place = Path(directory)
            place.chmod(0o755)
            plan = Plan(
                directory=place,
                runs=runs,
                seconds=seconds or usual["seconds"],
                flood_votes=flood_votes,
                votes=votes or int(usual["votes"]),
                round_trips=round_trips or int(usual["round_trips"]),
            )
            report = _measure(name, plan, titles)
        click.echo(f"## {name}\n\n{table(report.figures)}")
        for title, why in report.missing.items():
            click.echo(f"- not measured, {title}: {why}")
        if output is not None:
            _write(report, output)


def _measure(name: str, plan: Plan, titles: Sequence[str]) -> Report:
    """Measure one part, or these cases of it."""
    machine = describe_machine(plan.directory)
    _say(f"part {name}")
    try:
        with parts.find(name)(plan) as cases:
            chosen = choose(cases, titles)
            results = Turns(plan.runs, plan.directory, _say).take(chosen)
    except (ChildError, FloodError, WrongOutputError) as error:
        raise click.ClickException(f"part {name}: {error}") from error
    except UnknownCaseError as error:
        raise click.UsageError(f"part {name}: {error}") from error
    command = " ".join(["python -m bench", *sys.argv[1:]])
    return Report(name, machine, command, results.figures, results.missing)


def _write(report: Report, output: Path) -> None:
    """Write a part's files, and the page that is made of all that are there."""
    output.mkdir(parents=True, exist_ok=True)
    file = output / f"{report.part}.json"
    file.write_text(report.to_json(), encoding="utf-8")
    picture = draw(report.part, report.figures)
    file.with_suffix(".svg").write_text(picture, encoding="utf-8")
    files = [output / f"{name}.json" for name in parts.NAMES]
    texts = [each.read_text(encoding="utf-8") for each in files if each.exists()]
    markdown = write_markdown([Report.from_json(text) for text in texts])
    (output / RESULTS).write_text(markdown, encoding="utf-8")


def _say(line: str) -> None:
    click.echo(line, err=True)


if __name__ == "__main__":
    bench(prog_name="python -m bench")
