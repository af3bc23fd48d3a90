"""`alphabet-replay compact`: a new log that begins at a snapshot."""

from pathlib import Path

import click

from alphabet.command_line import DamageError, option
from log.directory import DataDirectory
from recovery.commands.place import (
    data_dir_argument,
    machine_option,
    opened,
    to_argument,
)
from recovery.commands.progress import progress
from recovery.compact import CompactError, choose_base, read_snapshot
from recovery.compact import compact as write_compacted


@click.command()
@data_dir_argument
@to_argument
@option(
    "--from-snapshot",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="FILE",
    help="Begin at this snapshot, even if the log ends before it.",
)
@machine_option
def compact(
    *,
    data_dir: Path,
    to: Path,
    from_snapshot: Path | None,
    application_module: str | None,
) -> None:
    """Write a new log to TO that begins at a snapshot; the old one is only read."""
    with opened(data_dir, application_module) as place:
        machine = place.require_machine()
        try:
            if from_snapshot is None:
                snapshot = choose_base(place.replayer, machine)
            else:
                snapshot = read_snapshot(from_snapshot, place.replayer, machine)
        except CompactError as error:
            raise DamageError(str(error)) from error
        target = DataDirectory.claim(to)
        try:
            with progress(place.log.tail.sequence) as show:
                result = write_compacted(place.log, snapshot, target, show)
        finally:
            target.release()
    if result.is_fork:
        click.echo(
            f"the log went on otherwise than the snapshot at {result.base_sequence}: "
            "its events stay behind",
            err=True,
        )
    for name in result.moved_sinks:
        click.echo(
            f"sink {name} was behind sequence {result.base_sequence} and goes on there",
            err=True,
        )
    click.echo(
        f"log {result.log_id} in {to}: begins after {result.base_sequence}, ends at "
        f"{result.last_sequence}"
    )
