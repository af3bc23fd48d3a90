"""`alphabet new`: an application to begin with, as a directory of files."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import click

from alphabet.command_line import CannotServeError, option
from alphabet.starter import ApplicationNameError, check_name, starter_files


@click.command()
@click.argument("name")
@option(
    "--path",
    metavar="DIRECTORY",
    type=click.Path(path_type=Path),
    default=".",
    show_default=True,
    help="Where the application's own directory is made.",
)
def new(name: str, path: Path) -> None:
    """Write an application to begin with: code, tests and a README.

    Makes a directory NAME with the module NAME in it, and changes nothing that is
    there already.
    """
    place = path / name
    if os.path.lexists(place):
        raise CannotServeError(f"{place} is there already; give another NAME or --path")
    try:
        check_name(name)
    except ApplicationNameError as error:
        raise click.UsageError(str(error)) from error
    files = starter_files(name)
    try:
        _write(files, place)
    except OSError as error:
        reason = error.strerror or error
        raise CannotServeError(f"cannot make {place} ({reason})") from error
    for file in files:
        click.echo(f"made {place / file}")
    click.echo(f"{place / 'README.md'} says how to test it and run it")


def _write(files: dict[str, str], place: Path) -> None:
    """Make a directory of files, whole or not at all."""
    with tempfile.TemporaryDirectory(prefix=".new-", dir=place.parent) as making:
        made = Path(making) / place.name
        made.mkdir()
        for file, text in files.items():
            (made / file).write_text(text, encoding="utf-8")
        made.rename(place)
