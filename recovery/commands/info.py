"""`alphabet-replay info`: what a log is, how far it goes, who has read it."""

import json
from pathlib import Path

import click

from log.directory import LOG
from log.lmdb_store import DATA_FILE
from recovery.commands.place import data_dir_argument, format_options, opened
from recovery.description import describe_log, field_lines


@click.command()
@data_dir_argument
@format_options("table", "json")
def info(*, data_dir: Path, format_: str) -> None:
    """Print what a log is, how far it goes, and who has read how much of it."""
    with opened(data_dir, needs_machine=False) as place:
        data_bytes = (data_dir / LOG / DATA_FILE).stat().st_size
        found = describe_log(place.log, place.snapshots, data_bytes)
    if format_ == "json":
        click.echo(json.dumps(found))
        return
    for name, value in found.items():
        for line in field_lines(name, value):
            click.echo(line)
